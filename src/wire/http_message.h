// Heads of HTTP requests and responses, the same for HTTP/1.1 and HTTP/2.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "wire/uri.h"

namespace quarry {

struct HttpField {
  std::string_view name, value;  // value without surrounding white space; otherwise as sent
};

bool equal_ignoring_case(std::string_view a, std::string_view b);  // ASCII

enum class HttpVersion : uint8_t { http10, http11, http2 };

// A parsed, strictly checked request head. Views borrow memory of the connection: they live as long as the HttpExchange.
// The object is reused from request to request on a connection, so a copy of it is never implied: copy what you keep.
struct RequestHead {
  std::string_view method;     // case-sensitive
  std::string_view target;     // as sent
  std::string_view raw_path;   // as sent, percent-encoded: what Signature V4 signs
  std::string_view raw_query;  // as sent, without '?'
  std::string_view authority;  // Host, or :authority, or of an absolute target; empty only in HTTP/1.0
  HttpVersion version = HttpVersion::http11;
  bool target_malformed =
      false;         // path or query could not be decoded; then path and query are empty. The handler answers (S3: InvalidURI).
  std::string path;  // decoded
  std::vector<QueryParameter> query;  // decoded and raw, in the order sent
  std::vector<HttpField> headers;     // in the order sent; names as sent (lower case in HTTP/2); without HTTP/2's pseudo headers

  // Framing, already checked for contradictions.
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool expect_continue = false;

  // First header of this name, any case.
  std::optional<std::string_view> find(std::string_view name) const;
  std::string_view find_or(std::string_view name, std::string_view otherwise = {}) const;
  const QueryParameter* find_query(std::string_view name) const;
  bool has_query(std::string_view name) const { return find_query(name) != nullptr; }
  bool has_body() const { return chunked || (content_length && *content_length > 0); }

  // Fills raw_path, raw_query, path, query (and authority, in absolute form) from target. false: not a target at all (answer 400).
  bool split();
  void clear();
};

// Headers of a message to be sent. One string holds "Name: value\r\n" lines, ready for HTTP/1.1; no allocation per header.
class HeaderBlock {
 public:
  // Name: a token (CHECKed: it comes from our code). Value: bytes that HTTP forbids in a value (CR, LF, NUL and other controls but tab)
  // are sent as spaces, so user metadata cannot split a response.
  HeaderBlock& add(std::string_view name, std::string_view value);
  HeaderBlock& add(std::string_view name, uint64_t value);
  bool has(std::string_view name) const;
  std::optional<std::string_view> find(std::string_view name) const;
  size_t size() const { return entries_.size(); }
  HttpField at(size_t i) const;
  std::string_view serialized() const { return text_; }
  void clear() {
    text_.clear();
    entries_.clear();
  }

 private:
  struct Entry {
    uint32_t name, name_size, value, value_size;
  };
  std::string text_;
  std::vector<Entry> entries_;
};

// The server adds Date, and Content-Length, Transfer-Encoding and Connection as the framing demands; do not add these yourself.
struct ResponseHead {
  int status = 200;
  HeaderBlock headers;
  // Length of the body that will be written; absent: unknown (chunked in HTTP/1.1). For the answer to HEAD it is the length that GET
  // would have; nothing is written then.
  std::optional<uint64_t> content_length;
};

std::string_view reason_phrase(int status);
constexpr bool status_forbids_body(int status) { return status < 200 || status == 204 || status == 304; }

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7, IMF-fixdate) from seconds since 1970, and back (also accepts the two old forms).
std::string http_date(int64_t unix_seconds);
Result<int64_t> parse_http_date(std::string_view text);

}  // namespace quarry
