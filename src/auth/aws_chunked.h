// Incremental decoder of aws-chunked bodies: `hex-size[;chunk-signature=...]\r\n data \r\n ... 0[;...]\r\n [trailers] \r\n`, with the chain
// of chunk signatures and the trailing checksum. It holds no payload: it says how many payload bytes come next, the caller brings them to
// their place (straight from the socket) and shows them once, for their signature. Bounded memory: one line of at most kChunkLineMax bytes.
//
//   while (!decoder.done()) {
//     if (decoder.payload_left() > 0) { read up to that many bytes to where they belong; decoder.payload(bytes); check }
//     else { input = some bytes; used = decoder.framing(input); the rest of input is payload or further framing }
//   }
//   At the end of the input before done(): decoder.cut_short() is the error.
// Confined to one task at a time.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "auth/sigv4.h"
#include "base/bytes.h"

namespace quarry::auth {

inline constexpr size_t kChunkLineMax = 1024;
inline constexpr uint64_t kChunkSizeMin = 8192;  // of every chunk but the last

struct AwsChunkedOptions {
  PayloadKind kind = PayloadKind::streaming_unsigned_trailer;
  uint64_t decoded_length = 0;  // x-amz-decoded-content-length
  std::string trailer;          // x-amz-trailer, lower case; empty: none announced
  ChunkSigningContext signing;  // for the signed kinds
  std::string access_key;       // for error documents
};

class AwsChunkedDecoder {
 public:
  explicit AwsChunkedDecoder(AwsChunkedOptions options);

  // Payload bytes of the present chunk that are still to come (never more than decoded_length in all); 0: framing comes next.
  uint64_t payload_left() const { return state_ == State::payload ? payload_left_ : 0; }
  // The next payload bytes, in order; at most payload_left(). Refuses when they end a chunk whose signature is wrong.
  Checked<void> payload(ByteView bytes);
  // Consumes framing up to the beginning of payload or the end of the body; returns how much of input was used.
  Checked<size_t> framing(std::string_view input);
  // Everything was read and verified.
  bool done() const { return state_ == State::done; }
  Refusal cut_short() const;

  uint64_t decoded_bytes() const { return decoded_; }
  // Value of the announced trailer, once done.
  const std::optional<std::string>& trailer_value() const { return trailer_value_; }

 private:
  enum class State : uint8_t { size_line, payload, payload_end, excess, trailer_line, done };
  bool is_signed() const { return options_.kind != PayloadKind::streaming_unsigned_trailer; }
  Checked<void> take_line(std::string_view line);
  Checked<void> begin_chunk(std::string_view line);
  Checked<void> end_chunk();
  Checked<void> take_trailer_line(std::string_view line);
  Checked<void> verify(const std::string& expected, std::string_view given);

  AwsChunkedOptions options_;
  State state_ = State::size_line;
  std::string line_;
  uint64_t chunk_number_ = 0;
  uint64_t previous_size_ = 0;
  uint64_t payload_left_ = 0;
  bool excess_ = false;  // the present chunk claims more than decoded_length allows
  uint64_t decoded_ = 0;
  std::string chunk_signature_;
  Digest chunk_digest_{DigestKind::sha256};
  std::optional<std::string> trailer_value_;
  bool trailer_signed_ = false;
};

}  // namespace quarry::auth
