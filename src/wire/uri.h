// Percent encoding and the parts of a request target (RFC 3986), in the flavours that S3 uses. Pure, any thread.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace quarry {

enum class PlusSign : uint8_t { stays, is_space };

// Decodes %XX. Errors: malformed (a % without two hex digits). Any byte may come out, also 0 and bytes that are not UTF-8.
Result<std::string> percent_decode(std::string_view text, PlusSign plus = PlusSign::stays);
// The same, replacing `out` (whose memory is reused). false: malformed, and out is unspecified.
bool percent_decode_into(std::string_view text, PlusSign plus, std::string& out);

// Encodes all bytes but A-Z a-z 0-9 - . _ ~ as %XX, upper case: the encoding of Signature V4 (query, and with keep_slash the path).
std::string percent_encode(std::string_view text, bool keep_slash = false);
void percent_encode_append(std::string_view text, bool keep_slash, std::string& out);
// Encoding of keys in S3 list answers with encoding-type=url: as percent_encode with '/' and '*' kept and space as '+'.
std::string s3_encode_key(std::string_view key);

// One name[=value] of a query string.
struct QueryParameter {
  std::string name, value;               // decoded, '+' is a space
  std::string_view raw_name, raw_value;  // as sent; they borrow the query string
  bool has_value = false;                // an '=' was there: `?acl=` has, `?acl` has not
};

inline constexpr size_t kQueryParametersMax = 1000;

// Parameters in the order sent; empty pieces ("a&&b") are skipped. Errors: malformed (encoding; more than kQueryParametersMax).
Result<std::vector<QueryParameter>> parse_query(std::string_view query);
bool parse_query_into(std::string_view query, std::vector<QueryParameter>& out);

struct TargetParts {
  std::string_view authority;  // only in absolute form ("http://host:port/path")
  std::string_view path;       // raw; "*" in asterisk form
  std::string_view query;      // raw, without '?'
};
// Splits a request target in origin, absolute or asterisk form. Errors: malformed.
Result<TargetParts> split_target(std::string_view target);

// "host", "host:port", "[v6]:port" -> host without brackets, port (0 when absent). Errors: malformed.
struct HostPort {
  std::string_view host;
  uint16_t port = 0;
};
Result<HostPort> split_host_port(std::string_view authority);

// A URL of a client's configuration: http://host[:port][/path], https://...
struct Url {
  bool is_tls = false;
  std::string host;
  uint16_t port = 0;              // the default of the scheme when absent
  std::string path;               // raw, "/" when absent
  std::string authority() const;  // for the Host header: the port only when it is not the scheme's
};
Result<Url> parse_url(std::string_view text);

}  // namespace quarry
