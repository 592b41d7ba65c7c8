#include "base/coding.h"

namespace quarry {

Encoder& Encoder::varint(uint64_t v) {
  uint8_t buffer[10];
  size_t n = 0;
  while (v >= 0x80) {
    buffer[n++] = static_cast<uint8_t>(v) | 0x80;
    v >>= 7;
  }
  buffer[n++] = static_cast<uint8_t>(v);
  return raw(buffer, n);
}

Encoder& Encoder::key_u16(uint16_t v) { return u16(std::byteswap(v)); }
Encoder& Encoder::key_u32(uint32_t v) { return u32(std::byteswap(v)); }
Encoder& Encoder::key_u64(uint64_t v) { return u64(std::byteswap(v)); }

Encoder& Encoder::key_text_prefix(std::string_view v) {
  size_t from = 0;
  for (size_t zero = v.find('\0'); zero != std::string_view::npos; zero = v.find('\0', from)) {
    raw(v.data() + from, zero - from);
    raw("\x00\xff", 2);
    from = zero + 1;
  }
  return raw(v.data() + from, v.size() - from);
}

Encoder& Encoder::key_text(std::string_view v) {
  key_text_prefix(v);
  return raw("\x00\x01", 2);
}

uint64_t Decoder::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = u8();
    if (!ok_) return 0;
    if (shift == 63 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  ok_ = false;
  in_ = {};
  return 0;
}

ByteView Decoder::bytes(size_t size) {
  if (in_.size() < size) {
    ok_ = false;
    in_ = {};
    return {};
  }
  const auto view = in_.first(size);
  in_ = in_.subspan(size);
  return view;
}

std::string_view Decoder::text(size_t max_size) {
  const uint64_t size = varint();
  if (size > max_size || size > in_.size()) {
    ok_ = false;
    in_ = {};
    return {};
  }
  return text_of(bytes(size));
}

std::string Decoder::key_text() {
  std::string out;
  for (size_t i = 0; i < in_.size(); ++i) {
    if (in_[i] != 0) {
      out.push_back(static_cast<char>(in_[i]));
      continue;
    }
    if (i + 1 >= in_.size()) break;
    if (in_[i + 1] == 0xff) {
      out.push_back('\0');
      ++i;
      continue;
    }
    if (in_[i + 1] != 0x01) break;
    in_ = in_.subspan(i + 2);
    return out;
  }
  ok_ = false;
  in_ = {};
  return {};
}

Result<void> Decoder::check(std::string_view what) const {
  if (!ok_) return fail(Code::corrupt, "{} is cut short or malformed", what);
  return {};
}

Result<void> Decoder::finish(std::string_view what) const {
  TRY(check(what));
  if (!in_.empty()) return fail(Code::corrupt, "{} has {} bytes too many", what, in_.size());
  return {};
}

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty()) {
    if (static_cast<uint8_t>(end.back()) != 0xff) {
      end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
      return end;
    }
    end.pop_back();
  }
  return end;
}

std::string to_hex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out(bytes.size() * 2, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    out[2 * i] = kDigits[bytes[i] >> 4];
    out[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return out;
}

namespace {
int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}
}  // namespace

Result<std::string> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return fail(Code::malformed, "odd number of hex digits");
  std::string out(hex.size() / 2, '\0');
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return fail(Code::malformed, "not a hex digit");
    out[i] = static_cast<char>(high * 16 + low);
  }
  return out;
}

std::string to_base64(ByteView bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3) {
    const uint32_t v = uint32_t{bytes[i]} << 16 | uint32_t{bytes[i + 1]} << 8 | bytes[i + 2];
    out += {kBase64[v >> 18], kBase64[v >> 12 & 63], kBase64[v >> 6 & 63], kBase64[v & 63]};
  }
  if (bytes.size() - i == 1) {
    const uint32_t v = uint32_t{bytes[i]} << 16;
    out += {kBase64[v >> 18], kBase64[v >> 12 & 63], '=', '='};
  } else if (bytes.size() - i == 2) {
    const uint32_t v = uint32_t{bytes[i]} << 16 | uint32_t{bytes[i + 1]} << 8;
    out += {kBase64[v >> 18], kBase64[v >> 12 & 63], kBase64[v >> 6 & 63], '='};
  }
  return out;
}

Result<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return fail(Code::malformed, "base64 length is no multiple of 4");
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const int pad = last ? (text[i + 3] == '=') + (text[i + 3] == '=' && text[i + 2] == '=') : 0;
    uint32_t v = 0;
    for (int j = 0; j < 4; ++j) {
      const int digit = j >= 4 - pad ? 0 : base64_digit(text[i + static_cast<size_t>(j)]);
      if (digit < 0) return fail(Code::malformed, "not a base64 digit");
      v = v << 6 | static_cast<uint32_t>(digit);
    }
    if ((pad == 1 && (v & 0xff) != 0) || (pad == 2 && (v & 0xffff) != 0)) return fail(Code::malformed, "base64 is not canonical");
    out.push_back(static_cast<char>(v >> 16));
    if (pad < 2) out.push_back(static_cast<char>(v >> 8 & 0xff));
    if (pad < 1) out.push_back(static_cast<char>(v & 0xff));
  }
  return out;
}

}  // namespace quarry
