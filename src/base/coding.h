// Field-by-field encoding of on-disk and on-wire structures, little-endian, and order-preserving key encoding, big-endian.
// Encoder appends to a string; Decoder reads from a view and never runs past it: after the first short read it stays failed.
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry {

static_assert(std::endian::native == std::endian::little, "formats are written by plain stores on little-endian hosts");

template <class T>
inline void store_le(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}
template <class T>
inline T load_le(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

class Encoder {
 public:
  explicit Encoder(std::string& out) : out_(out) {}
  Encoder& u8(uint8_t v) { return raw(&v, 1); }
  Encoder& u16(uint16_t v) { return raw(&v, 2); }
  Encoder& u32(uint32_t v) { return raw(&v, 4); }
  Encoder& u64(uint64_t v) { return raw(&v, 8); }
  Encoder& varint(uint64_t v);  // LEB128, at most 10 bytes
  Encoder& bytes(ByteView v) { return raw(v.data(), v.size()); }
  Encoder& text(std::string_view v) { return varint(v.size()).raw(v.data(), v.size()); }  // length-prefixed
  // For keys: big-endian integers sort as numbers; text is escaped (0x00 -> 00 ff) and ends in 00 01, so that
  // order of encoded keys is the order of the texts, byte by byte, and no text is a prefix of another.
  Encoder& key_u16(uint16_t v);
  Encoder& key_u32(uint32_t v);
  Encoder& key_u64(uint64_t v);
  Encoder& key_text(std::string_view v);
  Encoder& key_text_prefix(std::string_view v);  // escaped, not terminated: the common start of all keys that begin with v

 private:
  Encoder& raw(const void* from, size_t size) {
    out_.append(static_cast<const char*>(from), size);
    return *this;
  }
  std::string& out_;
};

class Decoder {
 public:
  explicit Decoder(ByteView in) : in_(in) {}
  explicit Decoder(std::string_view in) : in_(bytes_of(in)) {}
  uint8_t u8() { return fixed<uint8_t>(); }
  uint16_t u16() { return fixed<uint16_t>(); }
  uint32_t u32() { return fixed<uint32_t>(); }
  uint64_t u64() { return fixed<uint64_t>(); }
  uint64_t varint();
  ByteView bytes(size_t size);
  std::string_view text(size_t max_size = SIZE_MAX);
  uint16_t key_u16() { return std::byteswap(fixed<uint16_t>()); }
  uint32_t key_u32() { return std::byteswap(fixed<uint32_t>()); }
  uint64_t key_u64() { return std::byteswap(fixed<uint64_t>()); }
  std::string key_text();

  bool ok() const { return ok_; }
  bool done() const { return ok_ && in_.empty(); }
  size_t remaining() const { return in_.size(); }
  ByteView rest() const { return in_; }
  // corrupt with `what` if anything read so far ran short (or, for finish, if bytes are left over).
  Result<void> check(std::string_view what) const;
  Result<void> finish(std::string_view what) const;

 private:
  template <class T>
  T fixed() {
    if (in_.size() < sizeof(T)) {
      ok_ = false;
      in_ = {};
      return T{};
    }
    T value = load_le<T>(in_.data());
    in_ = in_.subspan(sizeof(T));
    return value;
  }
  ByteView in_;
  bool ok_ = true;
};

// The smallest key greater than every key that starts with prefix; empty if there is none (all 0xff).
std::string prefix_end(std::string_view prefix);

std::string to_hex(ByteView bytes);
Result<std::string> from_hex(std::string_view hex);
std::string to_base64(ByteView bytes);
Result<std::string> from_base64(std::string_view text);  // strict: canonical padding, no spaces

}  // namespace quarry
