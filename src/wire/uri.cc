#include "wire/uri.h"

#include <charconv>

namespace quarry {
namespace {

constexpr auto kHexValue = [] {
  std::array<int8_t, 256> values{};
  values.fill(-1);
  for (int i = 0; i < 10; ++i) values[static_cast<size_t>('0' + i)] = static_cast<int8_t>(i);
  for (int i = 0; i < 6; ++i) values[static_cast<size_t>('a' + i)] = values[static_cast<size_t>('A' + i)] = static_cast<int8_t>(10 + i);
  return values;
}();

constexpr bool unreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

void append_encoded(char c, std::string& out) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  out += '%';
  out += kDigits[static_cast<uint8_t>(c) >> 4];
  out += kDigits[static_cast<uint8_t>(c) & 15];
}

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return fail(Code::malformed, "'{}' is not a port", text);
  return port;
}

}  // namespace

bool percent_decode_into(std::string_view text, PlusSign plus, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size();) {
    // Runs without anything to decode are copied whole.
    size_t plain = i;
    while (plain < text.size() && text[plain] != '%' && (text[plain] != '+' || plus == PlusSign::stays)) ++plain;
    out.append(text, i, plain - i);
    i = plain;
    if (i == text.size()) break;
    if (text[i] == '+') {
      out += ' ';
      ++i;
      continue;
    }
    if (text.size() - i < 3) return false;
    const int high = kHexValue[static_cast<uint8_t>(text[i + 1])], low = kHexValue[static_cast<uint8_t>(text[i + 2])];
    if (high < 0 || low < 0) return false;
    out += static_cast<char>(high << 4 | low);
    i += 3;
  }
  return true;
}

Result<std::string> percent_decode(std::string_view text, PlusSign plus) {
  std::string out;
  if (!percent_decode_into(text, plus, out)) return fail(Code::malformed, "a '%' is not followed by two hexadecimal digits");
  return out;
}

void percent_encode_append(std::string_view text, bool keep_slash, std::string& out) {
  for (const char c : text) {
    if (unreserved(c) || (c == '/' && keep_slash)) {
      out += c;
    } else {
      append_encoded(c, out);
    }
  }
}
std::string percent_encode(std::string_view text, bool keep_slash) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  percent_encode_append(text, keep_slash, out);
  return out;
}

std::string s3_encode_key(std::string_view key) {
  std::string out;
  out.reserve(key.size() + key.size() / 4);
  for (const char c : key) {
    if (unreserved(c) || c == '/' || c == '*') {
      out += c;
    } else if (c == ' ') {
      out += '+';
    } else {
      append_encoded(c, out);
    }
  }
  return out;
}

bool parse_query_into(std::string_view query, std::vector<QueryParameter>& out) {
  size_t count = 0;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view piece = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (piece.empty()) continue;
    if (count >= kQueryParametersMax) return false;
    if (out.size() == count) out.emplace_back();  // elements are reused, with their memory
    QueryParameter& parameter = out[count++];
    const size_t equals = piece.find('=');
    parameter.has_value = equals != std::string_view::npos;
    parameter.raw_name = piece.substr(0, equals);
    parameter.raw_value = parameter.has_value ? piece.substr(equals + 1) : std::string_view();
    if (!percent_decode_into(parameter.raw_name, PlusSign::is_space, parameter.name)) return false;
    if (!percent_decode_into(parameter.raw_value, PlusSign::is_space, parameter.value)) return false;
  }
  out.resize(count);
  return true;
}

Result<std::vector<QueryParameter>> parse_query(std::string_view query) {
  std::vector<QueryParameter> parameters;
  if (!parse_query_into(query, parameters)) return fail(Code::malformed, "the query string is badly encoded or has too many parameters");
  return parameters;
}

Result<TargetParts> split_target(std::string_view target) {
  TargetParts parts;
  if (target == "*") {
    parts.path = target;
    return parts;
  }
  if (target.starts_with("http://") || target.starts_with("https://")) {
    target.remove_prefix(target.find("//") + 2);
    const size_t end = std::min(target.find_first_of("/?"), target.size());
    parts.authority = target.substr(0, end);
    if (parts.authority.empty()) return fail(Code::malformed, "the request target names no host");
    target.remove_prefix(end);
    if (target.empty() || target[0] == '?') {
      parts.path = "/";
      parts.query = target.empty() ? target : target.substr(1);
      return parts;
    }
  }
  if (target.empty() || target[0] != '/') return fail(Code::malformed, "the request target does not begin with '/'");
  const size_t mark = target.find('?');
  parts.path = target.substr(0, mark);
  if (mark != std::string_view::npos) parts.query = target.substr(mark + 1);
  return parts;
}

Result<HostPort> split_host_port(std::string_view authority) {
  HostPort parts;
  std::string_view port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos || end == 1) return fail(Code::malformed, "'{}' is not a host", authority);
    parts.host = authority.substr(1, end - 1);
    const std::string_view rest = authority.substr(end + 1);
    if (!rest.empty() && rest[0] != ':') return fail(Code::malformed, "'{}' is not a host", authority);
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else {
    const size_t colon = authority.find(':');
    parts.host = authority.substr(0, colon);
    has_port = colon != std::string_view::npos;
    if (has_port) port = authority.substr(colon + 1);
  }
  if (parts.host.empty()) return fail(Code::malformed, "'{}' names no host", authority);
  if (has_port && !port.empty()) {  // "host:" is allowed by RFC 3986 3.2.3
    TRY_ASSIGN(parts.port, parse_port(port));
  }
  return parts;
}

std::string Url::authority() const {
  const bool v6 = host.find(':') != std::string::npos;
  const uint16_t usual = is_tls ? 443 : 80;
  std::string out = v6 ? fmt::format("[{}]", host) : host;
  if (port != usual) out += fmt::format(":{}", port);
  return out;
}

Result<Url> parse_url(std::string_view text) {
  Url url;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    url.is_tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return fail(Code::malformed, "'{}' does not begin with http:// or https://", text);
  }
  const size_t end = std::min(rest.find('/'), rest.size());
  TRY_ASSIGN(const HostPort parts, split_host_port(rest.substr(0, end)));
  url.host = parts.host;
  url.port = parts.port != 0 ? parts.port : url.is_tls ? 443 : 80;
  url.path = end < rest.size() ? std::string(rest.substr(end)) : "/";
  return url;
}

}  // namespace quarry
