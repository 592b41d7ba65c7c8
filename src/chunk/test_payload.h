// Bytes for tests: any two seeds differ everywhere.
#pragma once
#include <cstdint>
#include <string>

namespace quarry::chunk {

// Bytes that depend on every position and on the seed.
inline std::string test_payload(uint64_t seed, size_t size) {
  std::string text(size, '\0');
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
  for (auto& c : text) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>(x);
  }
  return text;
}

}  // namespace quarry::chunk
