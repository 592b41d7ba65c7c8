#include "frontends/s3/upload_body.h"

#include <charconv>

#include "base/coding.h"
#include "io/sync.h"

namespace quarry::frontends::s3 {
namespace {

constexpr size_t kFramingWindow = 160;  // a chunk's header with its signature is 90 bytes

S3Error body_error(const Error& error) {
  switch (error.code()) {
    case Code::timed_out: return S3Error(E::request_timeout);
    case Code::cancelled: return S3Error(E::service_unavailable);
    default: return S3Error(E::incomplete_body);
  }
}

// The data of a body, framed or not, read into the caller's memory.
class UploadSource {
 public:
  UploadSource(BodyReader& body, std::optional<auth::AwsChunkedDecoder> decoder) : body_(body), decoder_(std::move(decoder)) {}

  // Fills `into` entirely; IncompleteBody when there is less.
  Task<S3Result<void>> fill(MutableByteView into) {
    if (!decoder_) {
      auto got = co_await body_.read_into(into);
      if (!got) co_return body_error(got.error());
      if (*got < into.size())
        co_return S3Error(E::incomplete_body, "You did not provide the number of bytes specified by the Content-Length HTTP header");
      co_return S3Result<void>();
    }
    size_t filled = 0;
    while (filled < into.size()) {
      if (decoder_->payload_left() == 0) {
        if (decoder_->done()) co_return S3Error(E::incomplete_body);
        auto framed = co_await framing();
        if (!framed) co_return framed;
        continue;
      }
      const size_t take = std::min<uint64_t>(decoder_->payload_left(), into.size() - filled);
      size_t got = std::min(take, window_end_ - window_begin_);
      if (got > 0) {
        std::memcpy(into.data() + filled, window_.data() + window_begin_, got);
        window_begin_ += got;
      } else {
        auto read = co_await body_.read_into(into.subspan(filled, take));
        if (!read) co_return body_error(read.error());
        got = *read;
        if (got == 0) co_return S3Error(decoder_->cut_short());
      }
      auto taken = decoder_->payload(into.subspan(filled, got));
      if (!taken) co_return S3Error(std::move(taken).error());
      filled += got;
    }
    co_return S3Result<void>();
  }

  // Reads what follows the data: the last chunk, trailers.
  Task<S3Result<void>> finish() {
    if (!decoder_) co_return S3Result<void>();
    while (!decoder_->done()) {
      CHECK(decoder_->payload_left() == 0, "all announced data was read");
      auto framed = co_await framing();
      if (!framed) co_return framed;
    }
    co_return S3Result<void>();
  }

  const std::optional<std::string>& trailer() const { return decoder_->trailer_value(); }

 private:
  Task<S3Result<void>> framing() {
    if (window_begin_ == window_end_) {
      auto read = co_await body_.read_into(window_);
      if (!read) co_return body_error(read.error());
      if (*read == 0) co_return S3Error(decoder_->cut_short());
      window_begin_ = 0;
      window_end_ = *read;
    }
    auto used = decoder_->framing(text_of(ByteView(window_).subspan(window_begin_, window_end_ - window_begin_)));
    if (!used) co_return S3Error(std::move(used).error());
    window_begin_ += *used;
    co_return S3Result<void>();
  }

  BodyReader& body_;
  std::optional<auth::AwsChunkedDecoder> decoder_;
  std::array<uint8_t, kFramingWindow> window_{};
  size_t window_begin_ = 0, window_end_ = 0;
};

Task<void> write_piece(object::ObjectWriter& writer, Buffer piece, std::optional<Error>* failure) {
  auto written = co_await writer.write(std::move(piece));
  if (!written) failure->emplace(std::move(written).error());
}

// One piece is hashed and stored while the next one is received.
Task<S3Result<void>> move_pieces(Request& request, UploadSource& source, uint64_t size, object::ObjectWriter& writer,
                                 S3Checksum* checksum) {
  const size_t piece_bytes = request.services.options.transfer_buffer_bytes;
  uint64_t left = size;
  std::optional<Error> failure;
  TaskGroup writing;
  S3Result<void> result;
  while (left > 0) {
    Buffer piece(std::min<uint64_t>(left, piece_bytes));
    left -= piece.size();
    result = co_await source.fill(piece.mutable_view());
    if (result && checksum != nullptr) checksum->update(piece);
    co_await writing.join();
    if (!result || failure) break;
    writing.spawn(write_piece(writer, std::move(piece), &failure));
  }
  co_await writing.join();
  if (failure) co_return request.error(*failure);
  co_return result;
}

}  // namespace

S3Result<UploadPlan> plan_upload(const Request& request) {
  UploadPlan plan;
  TRY_ASSIGN(plan.expected.md5, parse_content_md5(request));
  TRY_ASSIGN(plan.checksum, parse_sent_checksum(request));
  plan.expected.checksum = plan.checksum.value;

  if (auth::payload_is_chunked(request.signature.payload)) {
    const std::string_view text = request.header_or("x-amz-decoded-content-length");
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), plan.size);
    if (text.empty() || fault != std::errc() || end != text.data() + text.size()) return S3Error(E::missing_content_length);
  } else {
    if (!request.head.content_length) return S3Error(E::missing_content_length);
    plan.size = *request.head.content_length;
  }
  if (plan.size > request.services.options.put_size_max) {
    return S3Error(E::entity_too_large)
        .detail("ProposedSize", std::to_string(plan.size))
        .detail("MaxSizeAllowed", std::to_string(request.services.options.put_size_max));
  }
  if (request.signature.payload == auth::PayloadKind::sha256) {
    plan.compute_sha256 = true;
    plan.expected.sha256 = text_of(request.signature.payload_sha256);
  }
  return plan;
}

Task<S3Result<void>> receive_upload(Request& request, UploadPlan& plan, object::ObjectWriter& writer) {
  std::optional<auth::AwsChunkedDecoder> decoder;
  if (auth::payload_is_chunked(request.signature.payload)) {
    auth::AwsChunkedOptions options;
    options.kind = request.signature.payload;
    options.decoded_length = plan.size;
    if (plan.checksum.in_trailer) options.trailer = checksum_header_name(plan.checksum.algorithm);
    options.signing = request.chunk_signing;
    options.access_key = request.signature.access_key;
    decoder.emplace(std::move(options));
  }
  UploadSource source(request.exchange.body, std::move(decoder));
  std::optional<S3Checksum> checksum;
  if (plan.verify_here) checksum.emplace(static_cast<ChecksumKind>(plan.checksum.algorithm));
  auto moved = co_await move_pieces(request, source, plan.size, writer, checksum ? &*checksum : nullptr);
  if (!moved) co_return moved;
  auto finished = co_await source.finish();
  if (!finished) co_return finished;
  if (plan.checksum.in_trailer && auth::payload_is_chunked(request.signature.payload)) {
    const auto& trailer = source.trailer();
    plan.expected.checksum = trailer ? decode_checksum(plan.checksum.algorithm, *trailer) : std::nullopt;
    if (!plan.expected.checksum) {
      co_return S3Error(E::invalid_request,
                        fmt::format("Value for {} trailing header is invalid.", checksum_header_name(plan.checksum.algorithm)));
    }
  }
  if (checksum) {
    plan.verified = text_of(checksum->finish());
    if (plan.expected.checksum && *plan.expected.checksum != plan.verified) {
      co_return S3Error(E::bad_digest, fmt::format("The {} you specified did not match the calculated checksum.",
                                                   algorithm_name(plan.checksum.algorithm)));
    }
    plan.expected.checksum.reset();
  }
  co_return S3Result<void>();
}

S3Error write_error(const Request& request, const Error& error, ChecksumAlgorithm algorithm) {
  if (error.code() == Code::checksum_mismatch && error.context().starts_with("checksum") && algorithm != ChecksumAlgorithm::none) {
    return S3Error(E::bad_digest, fmt::format("The {} you specified did not match the calculated checksum.", algorithm_name(algorithm)));
  }
  return request.error(error);
}

Task<S3Result<std::string>> read_document(Request& request, Digests digests, EmptyBody empty) {
  auto body = co_await request.exchange.body.read_all(request.services.options.document_bytes_max);
  if (!body) {
    if (body.error().code() == Code::too_large) {
      co_return S3Error(E::max_message_length_exceeded)
          .detail("MaxMessageLengthBytes", std::to_string(request.services.options.document_bytes_max));
    }
    co_return body_error(body.error());
  }
  if (request.signature.payload == auth::PayloadKind::sha256) {
    const auto calculated = sha256(bytes_of(*body));
    if (calculated != request.signature.payload_sha256) {
      co_return S3Error(E::x_amz_content_sha256_mismatch)
          .detail("ClientComputedContentSHA256", to_hex(request.signature.payload_sha256))
          .detail("S3ComputedContentSHA256", to_hex(calculated));
    }
  }
  if (body->empty() && empty == EmptyBody::refused) co_return S3Error(E::missing_request_body);
  if (digests != Digests::ignored) {
    auto verified = verify_document(request, *body, digests == Digests::required);
    if (!verified) co_return std::move(verified).error();
  }
  co_return std::move(*body);
}

}  // namespace quarry::frontends::s3
