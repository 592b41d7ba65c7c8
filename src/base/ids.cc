#include "base/ids.h"

#include "base/coding.h"

namespace quarry {

std::string Uuid::to_string() const {
  const auto hex = to_hex(bytes);
  return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4), hex.substr(16, 4), hex.substr(20));
}

Result<Uuid> Uuid::parse(std::string_view text) {
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '-' && (i == 8 || i == 13 || i == 18 || i == 23)) continue;
    digits.push_back(text[i]);
  }
  auto raw = from_hex(digits);
  if (text.size() != 36 || !raw || raw->size() != 16) return fail(Code::malformed, "'{}' is not a UUID", text);
  Uuid uuid;
  std::memcpy(uuid.bytes.data(), raw->data(), 16);
  return uuid;
}

std::string ChunkId::to_string() const { return fmt::format("{:016x}{:016x}", high, low); }

Result<ChunkId> ChunkId::parse(std::string_view text) {
  auto raw = from_hex(text);
  if (!raw || raw->size() != 16) return fail(Code::malformed, "'{}' is not a chunk id", text);
  Decoder in{std::string_view(*raw)};
  ChunkId id;
  id.high = in.key_u64();
  id.low = in.key_u64();
  return id;
}

}  // namespace quarry
