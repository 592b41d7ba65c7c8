#include "wire/http1_body.h"

namespace quarry {
namespace {
constexpr size_t kDirectReadMin = 4 * kKiB;   // chunk payload of this size is read past the framing buffer
constexpr size_t kReadPieceMax = 256 * kKiB;  // one read()
}  // namespace

void Http1Body::start(Stream& stream, Kind kind, uint64_t length, std::string_view received) {
  stream_ = &stream;
  kind_ = kind;
  left_ = kind == Kind::length ? length : 0;
  ended_ = failed_ = false;
  bytes_read_ = 0;
  received_ = received;
  begin_ = end_ = 0;
  if (kind == Kind::chunked) chunks_ = ChunkedDecoder(limits_);
}

bool Http1Body::done() const {
  switch (kind_) {
    case Kind::length: return left_ == 0;
    case Kind::chunked: return chunks_.done();
    case Kind::until_end: return ended_;
  }
  return true;
}

std::string_view Http1Body::rest() const { return received_.empty() ? std::string_view(buffer_.get() + begin_, end_ - begin_) : received_; }

void Http1Body::release_buffer() {
  buffer_.reset();
  begin_ = end_ = 0;
}

// At least one byte of a body whose end has not been reached; with until_end, 0 at the end.
Task<Result<void>> Http1Body::read_some(MutableByteView into, size_t* got) {
  auto result = co_await stream_->read(into, Executor::here().now() + stall_);
  if (result && (*result > 0 || kind_ == Kind::until_end)) {
    *got = *result;
    co_return Result<void>();
  }
  failed_ = true;
  if (!result) co_return std::move(result).error().with(what_);
  co_return fail(Code::connection_closed, "{}: the peer left before its end", what_);
}

Task<Result<size_t>> Http1Body::read_into(MutableByteView into) {
  if (done() || into.empty()) co_return size_t{0};
  if (failed_) co_return fail(Code::connection_closed, "{}: the connection failed earlier", what_);
  if (kind_ == Kind::chunked) {
    auto result = co_await read_chunked(into, true);
    co_return result;
  }
  auto result = co_await read_plain(into, true);
  co_return result;
}

Task<Result<SharedBytes>> Http1Body::read(size_t max) {
  if (done() || max == 0) co_return SharedBytes();
  if (failed_) co_return fail(Code::connection_closed, "{}: the connection failed earlier", what_);
  size_t size = std::min(max, kReadPieceMax);
  if (kind_ == Kind::length) size = static_cast<size_t>(std::min<uint64_t>(size, left_));
  Buffer buffer(size);
  size_t got = 0;
  if (kind_ == Kind::chunked) {
    CO_TRY_ASSIGN(got, co_await read_chunked(buffer.mutable_view(), false));
  } else {
    CO_TRY_ASSIGN(got, co_await read_plain(buffer.mutable_view(), false));
  }
  if (got == 0) co_return SharedBytes();
  buffer.resize(got);
  co_return SharedBytes(std::move(buffer));
}

// all: until `into` is full or the body ends; else until there is something.
Task<Result<size_t>> Http1Body::read_plain(MutableByteView into, bool all) {
  const size_t wanted = kind_ == Kind::length ? static_cast<size_t>(std::min<uint64_t>(into.size(), left_)) : into.size();
  size_t have = std::min(wanted, received_.size());
  if (have > 0) std::memcpy(into.data(), received_.data(), have);
  received_.remove_prefix(have);
  while (have < wanted && (all || have == 0)) {
    size_t got = 0;
    CO_TRY(co_await read_some(into.subspan(have, wanted - have), &got));
    if (got == 0) {
      ended_ = true;
      break;
    }
    have += got;
  }
  if (kind_ == Kind::length) left_ -= have;
  bytes_read_ += have;
  co_return have;
}

// Decodes what is buffered into `into` until either is used up.
Result<size_t> Http1Body::take_chunk_bytes(MutableByteView into) {
  size_t taken = 0;
  while (!chunks_.done()) {
    const bool from_received = !received_.empty();
    std::string_view input = rest();
    if (input.empty()) break;
    const size_t room = into.size() - taken;
    if (chunks_.payload_left() > 0) {
      input = input.substr(0, room);  // payload that does not fit stays where it is
      if (input.empty()) break;
    }
    const auto step = chunks_.next(input);
    if (!step) return step.error();
    const size_t fits = std::min(step->payload.size(), room);
    const size_t beyond = step->payload.size() - fits;
    if (fits > 0) std::memcpy(into.data() + taken, step->payload.data(), fits);
    taken += fits;
    // The step began with framing and went on into payload beyond our room: that part is given back.
    if (beyond > 0) chunks_.give_back_payload(beyond);
    const size_t used = step->consumed - beyond;
    if (from_received) {
      received_.remove_prefix(used);
    } else {
      begin_ += used;
    }
    if (beyond > 0) break;
    if (used == 0) {
      // A piece of framing is incomplete. It goes to the front of the framing buffer, where more can follow it.
      need_buffer();
      std::memmove(buffer_.get(), input.data(), input.size());
      received_ = {};
      begin_ = 0;
      end_ = input.size();
      break;
    }
  }
  return taken;
}

Task<Result<size_t>> Http1Body::read_chunked(MutableByteView into, bool all) {
  size_t have = 0;
  for (;;) {
    const auto taken = take_chunk_bytes(into.subspan(have));
    if (!taken) {
      failed_ = true;
      co_return taken.error();
    }
    have += *taken;
    if (chunks_.done() || have == into.size() || (have > 0 && !all)) break;
    if (begin_ == end_) begin_ = end_ = 0;
    const auto direct = static_cast<size_t>(std::min<uint64_t>(chunks_.payload_left(), into.size() - have));
    size_t got = 0;
    if (end_ == 0 && direct >= kDirectReadMin) {
      CO_TRY(co_await read_some(into.subspan(have, direct), &got));
      chunks_.skip_payload(got);
      have += got;
      if (have == into.size() || !all) break;
    } else {
      need_buffer();
      CO_TRY(co_await read_some({reinterpret_cast<uint8_t*>(buffer_.get()) + end_, buffer_capacity() - end_}, &got));
      end_ += got;
    }
  }
  bytes_read_ += have;
  // The end belongs to the body: if the last chunk is here already, it is taken with the last byte, so that done() is true early.
  if (!chunks_.done() && chunks_.payload_left() == 0) {
    const auto end = take_chunk_bytes({});
    if (!end) {
      failed_ = true;
      co_return end.error();
    }
  }
  co_return have;
}

}  // namespace quarry
