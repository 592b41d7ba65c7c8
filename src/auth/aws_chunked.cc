#include "auth/aws_chunked.h"
#include <charconv>

#include "base/check.h"

namespace quarry::auth {
namespace {

constexpr std::string_view kSignatureField = "chunk-signature=";
constexpr std::string_view kTrailerSignature = "x-amz-trailer-signature:";

std::unexpected<Refusal> refused(std::string_view code, std::string message) {
  return std::unexpected(Refusal{code, std::move(message), {}});
}
std::unexpected<Refusal> incomplete() { return refused("IncompleteBody", "The request body terminated unexpectedly"); }
std::unexpected<Refusal> length_mismatch() {
  return refused("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header");
}
std::unexpected<Refusal> malformed_trailer() {
  return refused("MalformedTrailerError",
                 "The request contained trailing data that was not well-formed or did not conform to our published schema.");
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n";
  while (!text.empty() && kSpace.find(text.front()) != std::string_view::npos) text.remove_prefix(1);
  while (!text.empty() && kSpace.find(text.back()) != std::string_view::npos) text.remove_suffix(1);
  return text;
}

}  // namespace

AwsChunkedDecoder::AwsChunkedDecoder(AwsChunkedOptions options) : options_(std::move(options)) {}

Refusal AwsChunkedDecoder::cut_short() const { return incomplete().error(); }

Checked<void> AwsChunkedDecoder::verify(const std::string& expected, std::string_view given) {
  if (equal_constant_time(bytes_of(expected), bytes_of(given))) return {};
  auto refusal =
      refused("SignatureDoesNotMatch",
              "The request signature we calculated does not match the signature you provided. Check your key and signing method.");
  refusal.error().details = {{"AWSAccessKeyId", options_.access_key}, {"SignatureProvided", std::string(given)}};
  return refusal;
}

Checked<void> AwsChunkedDecoder::payload(ByteView bytes) {
  CHECK(bytes.size() <= payload_left());
  payload_left_ -= bytes.size();
  decoded_ += bytes.size();
  if (is_signed()) chunk_digest_.update(bytes);
  if (payload_left_ > 0) return {};
  if (excess_) {
    state_ = State::excess;
    return {};
  }
  state_ = State::payload_end;
  return end_chunk();
}

Checked<void> AwsChunkedDecoder::end_chunk() {
  if (!is_signed()) return {};
  const DigestBytes digest = chunk_digest_.finish();
  Sha256Bytes sha256_bytes;
  std::memcpy(sha256_bytes.data(), digest.bytes.data(), sha256_bytes.size());
  return verify(sign_chunk(options_.signing, sha256_bytes), chunk_signature_);
}

Checked<void> AwsChunkedDecoder::begin_chunk(std::string_view line) {
  std::string_view size_text = line;
  if (is_signed()) {
    const size_t semicolon = line.find(';');
    if (semicolon == std::string_view::npos) return incomplete();
    size_text = line.substr(0, semicolon);
    std::string_view signature = line.substr(semicolon + 1);
    if (!signature.starts_with(kSignatureField)) return incomplete();
    signature.remove_prefix(kSignatureField.size());
    if (signature.size() != 64) return incomplete();
    chunk_signature_ = signature;
  }
  size_text = trim(size_text);
  uint64_t size = 0;
  const auto [end, fault] = std::from_chars(size_text.data(), size_text.data() + size_text.size(), size, 16);
  if (fault != std::errc() || end != size_text.data() + size_text.size() || size > uint64_t{1} << 62) return incomplete();
  if (chunk_number_ > 0 && size > 0 && previous_size_ < kChunkSizeMin) {
    auto refusal = refused("InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes");
    refusal.error().details = {{"Chunk", std::to_string(chunk_number_ + 1)}, {"BadChunkSize", std::to_string(previous_size_)}};
    return refusal;
  }
  ++chunk_number_;
  previous_size_ = size;

  if (size == 0) {
    if (auto verified = end_chunk(); !verified) return verified;
    if (decoded_ != options_.decoded_length) return length_mismatch();
    state_ = State::trailer_line;
    return {};
  }
  const uint64_t allowed = options_.decoded_length - decoded_;
  excess_ = size > allowed;
  payload_left_ = excess_ ? allowed : size;
  state_ = payload_left_ > 0 ? State::payload : State::excess;
  return {};
}

// After the last chunk: [name:value CRLF [x-amz-trailer-signature:hex CRLF]] CRLF
Checked<void> AwsChunkedDecoder::take_trailer_line(std::string_view line) {
  const bool expects_signature = options_.kind == PayloadKind::streaming_signed_trailer;
  if (line.empty()) {
    if (!options_.trailer.empty() && !trailer_value_) return malformed_trailer();
    if (trailer_value_ && expects_signature && !trailer_signed_) return incomplete();
    state_ = State::done;
    return {};
  }
  if (options_.kind == PayloadKind::streaming_signed) return incomplete();
  if (trailer_value_ && expects_signature && !trailer_signed_) {
    if (!line.starts_with(kTrailerSignature)) return incomplete();
    const std::string_view given = line.substr(kTrailerSignature.size());
    if (given.size() != 64) return incomplete();
    std::string canonical = options_.trailer;
    canonical.append(":").append(*trailer_value_).append("\n");
    if (auto verified = verify(sign_trailer(options_.signing, sha256(bytes_of(canonical))), given); !verified) return verified;
    trailer_signed_ = true;
    return {};
  }
  if (trailer_value_) return incomplete();
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || options_.trailer.empty() || !equal_ignoring_case(trim(line.substr(0, colon)), options_.trailer)) {
    return malformed_trailer();
  }
  trailer_value_ = trim(line.substr(colon + 1));
  return {};
}

Checked<void> AwsChunkedDecoder::take_line(std::string_view line) {
  switch (state_) {
    case State::size_line: return begin_chunk(line);
    case State::trailer_line: return take_trailer_line(line);
    default: return incomplete();
  }
}

Checked<size_t> AwsChunkedDecoder::framing(std::string_view input) {
  size_t used = 0;
  while (used < input.size() && state_ != State::payload && state_ != State::done) {
    const char c = input[used++];
    if (state_ == State::excess) {
      // More data than announced, or a chunk that ends before its claimed size?
      line_.push_back(c);
      if (line_.size() < 2) continue;
      return line_ == "\r\n" ? incomplete() : length_mismatch();
    }
    if (state_ == State::payload_end) {
      if (c != (line_.empty() ? '\r' : '\n')) return incomplete();
      line_.push_back(c);
      if (line_.size() < 2) continue;
      line_.clear();
      state_ = State::size_line;
      continue;
    }
    line_.push_back(c);
    if (line_.size() > kChunkLineMax) return incomplete();
    if (c != '\n' || line_.size() < 2 || line_[line_.size() - 2] != '\r') continue;
    const std::string line = line_.substr(0, line_.size() - 2);
    line_.clear();
    if (auto taken = take_line(line); !taken) return std::unexpected(std::move(taken).error());
  }
  return used;
}

}  // namespace quarry::auth
