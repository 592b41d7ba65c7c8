#include "auth/canonical_request.h"

#include "wire/uri.h"

namespace quarry::auth {
namespace {

bool is_unreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

void append_encoded(uint8_t byte, std::string& out) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  out.push_back('%');
  out.push_back(kDigits[byte >> 4]);
  out.push_back(kDigits[byte & 15]);
}

}  // namespace

void append_canonical_path(std::string_view raw_path, std::string& out) {
  if (raw_path.empty()) out.push_back('/');
  for (size_t i = 0; i < raw_path.size(); ++i) {
    const char c = raw_path[i];
    if (is_unreserved(c) || c == '/') {
      out.push_back(c);
      continue;
    }
    const int high = c == '%' && i + 2 < raw_path.size() ? hex_value(raw_path[i + 1]) : -1;
    const int low = high >= 0 ? hex_value(raw_path[i + 2]) : -1;
    if (low < 0) {
      append_encoded(static_cast<uint8_t>(c), out);
      continue;
    }
    const int byte = high * 16 + low;
    if (is_unreserved(static_cast<char>(byte))) {
      out.push_back(static_cast<char>(byte));
    } else {
      append_encoded(static_cast<uint8_t>(byte), out);  // also %2F: a slash that was encoded stays so
    }
    i += 2;
  }
}

void append_canonical_query(const std::vector<QueryParameter>& query, std::string_view except, std::string& out) {
  if (query.empty()) return;
  std::vector<std::pair<std::string, std::string>> encoded;
  encoded.reserve(query.size());
  for (const auto& parameter : query) {
    if (!except.empty() && parameter.name == except) continue;
    encoded.emplace_back(percent_encode(parameter.name), percent_encode(parameter.value));
  }
  std::sort(encoded.begin(), encoded.end());
  bool first = true;
  for (const auto& [name, value] : encoded) {
    if (!first) out.push_back('&');
    first = false;
    out.append(name).append("=").append(value);
  }
}

void append_canonical_value(std::string_view value, std::string& out) {
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  if (value.find("  ") == std::string_view::npos) {
    out.append(value);
    return;
  }
  bool space = false;
  for (const char c : value) {
    if (c == ' ' && space) continue;
    space = c == ' ';
    out.push_back(c);
  }
}

std::string string_to_sign(std::string_view timestamp, std::string_view scope, std::string_view canonical) {
  std::string text;
  text.reserve(kAlgorithm.size() + timestamp.size() + scope.size() + 64 + 3);
  text.append(kAlgorithm).append("\n").append(timestamp).append("\n").append(scope).append("\n");
  const auto digest = sha256(bytes_of(canonical));
  text.append(to_hex(digest));
  return text;
}

std::string credential_scope(std::string_view date, std::string_view region) {
  std::string scope;
  scope.reserve(date.size() + region.size() + 17);
  scope.append(date).append("/").append(region).append("/s3/").append(kTerminal);
  return scope;
}

int64_t unix_seconds(int year, unsigned month, unsigned day, unsigned hour, unsigned minute, unsigned second) {
  // Days from civil date (proleptic Gregorian): years counted from March, in eras of 400 years.
  const int64_t y = month <= 2 ? year - 1 : year;
  const int64_t era = (y >= 0 ? y : y - 399) / 400;
  const auto year_of_era = static_cast<unsigned>(y - era * 400);
  const unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  const int64_t days = era * 146097 + static_cast<int64_t>(day_of_era) - 719468;
  return days * 86400 + hour * 3600 + minute * 60 + second;
}

}  // namespace quarry::auth
