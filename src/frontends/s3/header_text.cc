#include "frontends/s3/header_text.h"

#include "base/utf8.h"

namespace quarry::frontends::s3 {

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

std::optional<std::string> to_latin1(std::string_view utf8) {
  std::string out;
  out.reserve(utf8.size());
  for (size_t at = 0; at < utf8.size();) {
    const size_t size = utf8_sequence(utf8, at);
    if (size == 0) return std::nullopt;
    const char32_t character = utf8_character(utf8, at, size);
    if (character > 0xff) return std::nullopt;
    out.push_back(static_cast<char>(character));
    at += size;
  }
  return out;
}

S3Result<std::string> header_value_of(std::string_view name, std::string_view utf8) {
  auto value = to_latin1(utf8);
  if (!value) return invalid_argument("Header value cannot be represented using ISO-8859-1.", name, utf8);
  return std::move(*value);
}

std::string mail_safe(std::string_view utf8) {
  if (is_ascii(utf8)) return std::string(utf8);
  constexpr std::string_view kBegin = "=?UTF-8?Q?", kEnd = "?=", kDigits = "0123456789ABCDEF";
  constexpr size_t kWordMax = 75;
  std::string out(kBegin);
  size_t word = kBegin.size();
  for (size_t at = 0; at < utf8.size();) {
    const size_t size = std::max<size_t>(utf8_sequence(utf8, at), 1);
    std::string encoded;
    for (const char c : utf8.substr(at, size)) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
      if (plain || c == '_' || c == ' ') {
        encoded += c == ' ' ? "_" : c == '_' ? "=5F" : std::string(1, c);
      } else {
        encoded += '=';
        encoded += kDigits[static_cast<uint8_t>(c) >> 4];
        encoded += kDigits[static_cast<uint8_t>(c) & 15];
      }
    }
    if (word + encoded.size() + kEnd.size() > kWordMax) {  // a character is never torn apart
      out.append(kEnd).append(" ").append(kBegin);
      word = kBegin.size();
    }
    out += encoded;
    word += encoded.size();
    at += size;
  }
  return out.append(kEnd);
}

}  // namespace quarry::frontends::s3
