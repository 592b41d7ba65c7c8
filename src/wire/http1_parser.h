// Strict incremental HTTP/1.1 parsing (RFC 9112): heads in place, as views into the connection's buffer, and the chunked coding.
// What is refused, because intermediaries disagree about it and attackers live from that: a bare LF or CR, obs-fold, white space before
// a colon, an empty or repeated Host, repeated or malformed Content-Length (even if equal), Content-Length beside Transfer-Encoding, any
// Transfer-Encoding but a single `chunked`, control bytes anywhere, unknown versions. No I/O; bounded by Http1Limits.
#pragma once
#include <string_view>

#include "base/result.h"
#include "wire/http_message.h"

namespace quarry {

struct Http1Limits {
  size_t head_bytes_max = 64 * 1024;  // request line + headers
  size_t headers_max = 128;
  size_t chunk_line_bytes_max = 1024;  // chunk size with extensions
  size_t trailer_bytes_max = 8 * 1024;
};

// Finds the end of a head as bytes arrive; each byte is looked at once.
class Http1HeadScanner {
 public:
  explicit Http1HeadScanner(const Http1Limits& limits) : limits_(limits) {}
  // all: everything received of this head so far, from its first byte; it only grows between calls (the memory may move).
  // Returns the size of the complete head with its empty line, or 0: more is needed.
  // Errors: malformed (a bare LF), too_large (head_bytes_max, headers_max).
  Result<size_t> scan(std::string_view all);
  void reset() { *this = Http1HeadScanner(limits_); }

 private:
  Http1Limits limits_;
  size_t scanned_ = 0;
  size_t line_start_ = 0;
  size_t lines_ = 0;
};

// Parses a complete request head (as measured by the scanner) into `head`, whose views then borrow `text`.
// Errors: malformed (400), unsupported (a Transfer-Encoding or version that is not served: 501, 505).
Result<void> parse_request_head(std::string_view text, RequestHead& head);

// A response head, for the client.
struct ClientResponseHead {
  int status = 0;
  HttpVersion version = HttpVersion::http11;
  std::vector<HttpField> headers;  // borrow the text
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  std::optional<std::string_view> find(std::string_view name) const;
};
Result<void> parse_response_head(std::string_view text, ClientResponseHead& head);

// Decodes the chunked transfer coding. Payload is not copied: it is pointed out inside the input.
class ChunkedDecoder {
 public:
  explicit ChunkedDecoder(const Http1Limits& limits = {}) : limits_(limits) {}
  struct Step {
    size_t consumed = 0;       // bytes of input used: framing, then payload
    std::string_view payload;  // the last payload.size() of the consumed bytes
    bool done = false;         // the last chunk and the trailers have been read
  };
  // Consumes framing and at most one run of payload. consumed == 0 and not done: more input is needed.
  // Errors: malformed, too_large (chunk_line_bytes_max, trailer_bytes_max).
  Result<Step> next(std::string_view input);
  // Payload bytes still to come in the present chunk: a reader may take that many bytes from the socket straight into their place,
  // then says so with skip_payload.
  uint64_t payload_left() const { return state_ == State::payload ? left_ : 0; }
  void skip_payload(uint64_t bytes);
  // The last `bytes` of the payload of the last step were not taken after all and will be given again.
  void give_back_payload(uint64_t bytes);
  bool done() const { return state_ == State::done; }

 private:
  enum class State : uint8_t { size_line, payload, payload_end, trailer, done };
  Http1Limits limits_;
  State state_ = State::size_line;
  uint64_t left_ = 0;
  size_t trailer_bytes_ = 0;
};

}  // namespace quarry
