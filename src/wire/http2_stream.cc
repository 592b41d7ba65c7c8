#include "wire/http2_stream.h"

#include <nghttp2/nghttp2.h>

#include <charconv>

namespace quarry {
namespace {
constexpr size_t kQueuePiece = 64 * kKiB;
}  // namespace

void Http2Stream::add_header(std::string_view name, std::string_view value) {
  if (refuse_with != 0) return;
  const Http1Limits& limits = link_.serving.options.limits;
  if (texts_.size() + name.size() + value.size() > limits.head_bytes_max || fields_.size() >= limits.headers_max) {
    refuse_with = 431;
    return;
  }
  const Piece n{static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(name.size())};
  texts_ += name;
  const Piece v{static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(value.size())};
  texts_ += value;
  (name.starts_with(':') ? pseudo_ : fields_).emplace_back(n, v);
}

int Http2Stream::finish_head(bool end_stream) {
  head_complete = true;
  remote_ended_ = end_stream;
  const auto cut = [this](Piece piece) { return std::string_view(texts_).substr(piece.at, piece.size); };
  head.version = HttpVersion::http2;
  for (const auto& [name, value] : pseudo_) {
    if (cut(name) == ":method") head.method = cut(value);
    if (cut(name) == ":path") head.target = cut(value);
    if (cut(name) == ":authority") head.authority = cut(value);
  }
  for (const auto& [name, value] : fields_) {
    const HttpField field{cut(name), cut(value)};
    if (field.name == "host" && head.authority.empty()) head.authority = field.value;
    if (field.name == "expect") head.expect_continue = equal_ignoring_case(field.value, "100-continue");
    if (field.name == "content-length") {
      uint64_t length = 0;
      const auto [end, error] = std::from_chars(field.value.data(), field.value.data() + field.value.size(), length);
      if (error != std::errc() || end != field.value.data() + field.value.size()) return 400;
      head.content_length = length;
    }
    head.headers.push_back(field);
  }
  if (end_stream && !head.content_length) head.content_length = 0;
  head.chunked = !head.content_length;  // a body of unknown length
  continue_owed_ = head.expect_continue && !end_stream;
  if (refuse_with != 0) return refuse_with;
  if (head.method == "CONNECT") return 501;
  return head.split() ? 0 : 400;
}

void Http2Stream::deliver(ByteView bytes) {
  if (handled) {  // nobody will read it: it gives back the connection's window, but no more is invited on the stream
    nghttp2_session_consume_connection(link_.session, bytes.size());
    return;
  }
  if (waiting_have_ < waiting_into_.size()) {
    const size_t size = std::min(bytes.size(), waiting_into_.size() - waiting_have_);
    std::memcpy(waiting_into_.data() + waiting_have_, bytes.data(), size);
    waiting_have_ += size;
    nghttp2_session_consume(link_.session, id_, size);
    bytes = bytes.subspan(size);
    readable_.pulse();
  }
  while (!bytes.empty()) {
    if (received_.empty() || received_.back().first.size() == received_.back().first.capacity()) {
      received_.emplace_back(Buffer(kQueuePiece), 0);
      received_.back().first.resize(0);
    }
    Buffer& last = received_.back().first;
    const size_t size = std::min(bytes.size(), last.capacity() - last.size());
    std::memcpy(last.data() + last.size(), bytes.data(), size);
    last.resize(last.size() + size);
    bytes = bytes.subspan(size);
    readable_.pulse();
  }
}

size_t Http2Stream::take_buffered(MutableByteView into) {
  size_t have = 0;
  while (!received_.empty() && have < into.size()) {
    auto& [buffer, taken] = received_.front();
    const size_t size = std::min(into.size() - have, buffer.size() - taken);
    std::memcpy(into.data() + have, buffer.data() + taken, size);
    taken += size;
    have += size;
    if (taken == buffer.size()) received_.pop_front();
  }
  if (have > 0) {
    nghttp2_session_consume(link_.session, id_, have);
    link_.wake_sender();
  }
  return have;
}

Result<void> Http2Stream::usable() const {
  if (link_.dead) return Error(Code::connection_closed, "the connection ended");
  // A stream that ended with our END_STREAM has not failed.
  if ((closed_ && !end_sent) || aborted_) return Error(Code::connection_closed, "the peer reset the stream");
  return {};
}

Task<Result<void>> Http2Stream::invite() {
  if (!continue_owed_) co_return Result<void>();
  continue_owed_ = false;
  if (responded_ || closed_) co_return Result<void>();
  static constexpr std::string_view kName = ":status", kValue = "100";
  nghttp2_nv status{reinterpret_cast<uint8_t*>(const_cast<char*>(kName.data())),
                    reinterpret_cast<uint8_t*>(const_cast<char*>(kValue.data())), kName.size(), kValue.size(), NGHTTP2_NV_FLAG_NONE};
  nghttp2_submit_headers(link_.session, NGHTTP2_FLAG_NONE, id_, nullptr, &status, 1, nullptr);
  link_.wake_sender();
  co_return Result<void>();
}

Task<Result<size_t>> Http2Stream::read_into(MutableByteView into) {
  CO_TRY(co_await invite());
  size_t have = take_buffered(into);
  while (have < into.size() && !remote_ended_) {
    CO_TRY(usable());
    waiting_into_ = into;
    waiting_have_ = have;
    const bool in_time = co_await readable_.wait_until(link_.after(link_.serving.options.body_stall_timeout));
    const bool progress = waiting_have_ > have;
    have = waiting_have_;
    waiting_into_ = {};
    waiting_have_ = 0;
    if (progress) link_.wake_sender();
    if (!in_time && !progress && !remote_ended_) co_return Error(Code::timed_out, "request body: no byte came in time");
  }
  body_read_ += have;
  co_return have;
}

Task<Result<SharedBytes>> Http2Stream::read(size_t max) {
  CO_TRY(co_await invite());
  if (max == 0) co_return SharedBytes();
  for (;;) {
    if (!received_.empty()) {
      Buffer buffer(std::min(max, kQueuePiece));
      const size_t got = take_buffered(buffer.mutable_view());
      buffer.resize(got);
      body_read_ += got;
      co_return SharedBytes(std::move(buffer));
    }
    if (remote_ended_) co_return SharedBytes();
    CO_TRY(usable());
    const bool in_time = co_await readable_.wait_until(link_.after(link_.serving.options.body_stall_timeout));
    if (!in_time && received_.empty() && !remote_ended_) co_return Error(Code::timed_out, "request body: no byte came in time");
  }
}

void Http2Stream::start_response(const ResponseHead& response, bool has_body) {
  CHECK(!responded_, "a response is begun twice");
  responded_ = true;
  no_body_ = head.method == "HEAD" || status_forbids_body(response.status);
  left_out_ = response.content_length;
  if (!usable()) return;

  std::vector<nghttp2_nv> fields;
  fields.reserve(response.headers.size() + 4);
  const auto add = [&fields](std::string_view name, std::string_view value) {
    fields.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                      reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  };
  char status[4] = {};
  std::to_chars(status, status + 3, response.status);
  add(":status", std::string_view(status, 3));
  add("date", link_.serving.date_value());
  if (!link_.serving.options.server_header.empty()) add("server", link_.serving.options.server_header);
  char digits[24];
  if (response.content_length && !status_forbids_body(response.status)) {
    const auto [end, error] = std::to_chars(digits, digits + sizeof digits, *response.content_length);
    add("content-length", std::string_view(digits, static_cast<size_t>(end - digits)));
  }
  for (size_t i = 0; i < response.headers.size(); ++i) {
    const HttpField field = response.headers.at(i);
    if (equal_ignoring_case(field.name, "connection") || equal_ignoring_case(field.name, "transfer-encoding")) continue;
    add(field.name, field.value);
  }
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags, nghttp2_data_source* source,
                              void*) -> ssize_t {
    bool end = false;
    const auto size = static_cast<Http2Stream*>(source->ptr)->offer(length, &end);
    if (!size) return NGHTTP2_ERR_DEFERRED;
    if (*size > 0) *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (end) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(*size);
  };
  const bool with_body = has_body && !no_body_;
  if (nghttp2_submit_response(link_.session, id_, fields.data(), fields.size(), with_body ? &provider : nullptr) != 0) abort();
  link_.wake_sender();
}

std::optional<size_t> Http2Stream::offer(size_t length, bool* end) {
  const size_t size = static_cast<size_t>(std::min<uint64_t>(length, out_bytes_));
  // The end is known when the handler said so, or when all that was announced has been handed over.
  const bool complete = finished_ || (left_out_ && *left_out_ == 0);
  *end = complete && size == out_bytes_;
  if (size == 0 && !*end) return std::nullopt;
  return size;
}

void Http2Stream::take(size_t size, std::vector<SharedBytes>& parts) {
  out_bytes_ -= size;
  while (size > 0) {
    SharedBytes& front = out_.front();
    const size_t part = std::min(size, front.size());
    if (part == front.size()) {
      parts.push_back(std::move(front));
      out_.pop_front();
    } else {
      parts.push_back(front.slice(0, part));
      front = front.slice(part, front.size() - part);
    }
    size -= part;
  }
}

Task<Result<void>> Http2Stream::send_head(ResponseHead response) {
  start_response(response, !response.content_length || *response.content_length > 0);
  co_return usable();
}

Task<Result<void>> Http2Stream::wait_sent() {
  while (unsent_ > 0) {
    CO_TRY(usable());
    const uint64_t before = unsent_;
    const bool in_time = co_await sent_.wait_until(link_.after(link_.serving.options.write_stall_timeout));
    if (!in_time && unsent_ == before) {
      abort();
      co_return Error(Code::timed_out, "the peer takes nothing of the response");
    }
  }
  co_return Result<void>();
}

Task<Result<void>> Http2Stream::write(std::vector<SharedBytes> parts) {
  CHECK(responded_ && !finished_, "a body is written outside its response");
  CO_TRY(usable());
  uint64_t size = 0;
  for (const auto& part : parts) size += part.size();
  if (no_body_ || size == 0) co_return Result<void>();
  if (left_out_) {
    CHECK(size <= *left_out_, "more body is written than was announced");
    *left_out_ -= size;
  }
  for (auto& part : parts) {
    if (!part.empty()) out_.push_back(std::move(part));
  }
  out_bytes_ += size;
  unsent_ += size;
  nghttp2_session_resume_data(link_.session, id_);
  link_.wake_sender();
  auto result = co_await wait_sent();
  co_return result;
}

Task<Result<void>> Http2Stream::flush() {
  link_.wake_sender();
  co_return usable();
}

Task<Result<void>> Http2Stream::finish() {
  CHECK(responded_ && !finished_, "a response is finished twice or before it began");
  if (const auto state = usable(); !state) {
    finished_ = true;
    co_return state;
  }
  if (left_out_ && *left_out_ != 0 && !no_body_) {
    abort();
    co_return fail(Code::internal, "a response ends {} bytes before its announced length", *left_out_);
  }
  finished_ = true;
  nghttp2_session_resume_data(link_.session, id_);
  link_.wake_sender();
  co_return Result<void>();
}

Task<Result<void>> Http2Stream::respond(ResponseHead response, std::string body) {
  if (!response.content_length) response.content_length = body.size();
  const bool empty = body.empty();
  start_response(response, !empty);
  CHECK(no_body_ || *response.content_length == body.size(), "a body of another length than was announced");
  finished_ = true;
  if (empty || no_body_) co_return usable();
  left_out_ = 0;
  out_.push_back(SharedBytes::copy_of(bytes_of(body)));
  out_bytes_ += body.size();
  unsent_ += body.size();
  link_.wake_sender();
  auto result = co_await wait_sent();
  co_return result;
}

void Http2Stream::abort() {
  if (aborted_ || closed_) return;
  aborted_ = true;
  nghttp2_submit_rst_stream(link_.session, NGHTTP2_FLAG_NONE, id_, NGHTTP2_INTERNAL_ERROR);
  link_.wake_sender();
}

Task<void> Http2Stream::handle() {
  HttpServing& serving = link_.serving;
  ++serving.stats.requests;
  ++serving.stats.requests_active;
  if (refuse_with == 0) {
    HttpExchange exchange{head, link_.stream.peer(), link_.stream.is_tls(), *this, *this};
    co_await serving.handler.handle(exchange);
  }
  if (!responded_ && usable()) {
    std::string body;
    ResponseHead response = server_error_head(serving, refuse_with != 0 ? refuse_with : 500, body);
    (co_await respond(std::move(response), std::move(body))).ignore("the peer is gone: nobody to tell");
  }
  if (!finished_) abort();
  handled = true;
  // What was received and not read opens the connection's window again for the other streams.
  size_t unread = 0;
  for (const auto& [buffer, taken] : received_) unread += buffer.size() - taken;
  if (unread > 0) nghttp2_session_consume_connection(link_.session, unread);
  received_.clear();
  while (finished_ && !end_sent && usable()) co_await sent_.wait();
  // The answer is complete and the peer still sends: it may stop (RFC 9113 8.1). What is on its way is judged first, so that a mistake
  // in it gets the error that the standard wants instead of being passed over on a stream that we have closed.
  const TimePoint grace_until = link_.after(serving.options.http2_late_body_grace);
  while (!remote_ended_ && !closed_ && !link_.dead && link_.executor.now() < grace_until) {
    const bool woken = co_await readable_.wait_until(grace_until);
    if (!woken) break;
  }
  if (!remote_ended_ && usable()) nghttp2_submit_rst_stream(link_.session, NGHTTP2_FLAG_NONE, id_, NGHTTP2_NO_ERROR);
  link_.wake_sender();
  --serving.stats.requests_active;
}

}  // namespace quarry
