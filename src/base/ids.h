// Identifiers shared by more than one module.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry {

// 128 random bits naming a cluster, a drive or a node. Text form: 8-4-4-4-12 hex.
struct Uuid {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  bool is_nil() const { return *this == Uuid{}; }
  std::string to_string() const;
  static Result<Uuid> parse(std::string_view text);
};

// Names one immutable chunk, anywhere, for ever: ids are never reused. The stores below treat it as 128 opaque bits; its
// parts have meaning only to the layer that made it (cluster/chunk_ids.h). Order: high, then low.
struct ChunkId {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const ChunkId&) const = default;
  std::string to_string() const;  // 32 hex digits
  static Result<ChunkId> parse(std::string_view text);
};

struct ChunkIdHash {
  size_t operator()(const ChunkId& id) const {
    // One round of a 64-bit mix (splitmix64): ids are counters, buckets are not.
    uint64_t x = id.high * 0x9e3779b97f4a7c15ull ^ id.low;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }
};

}  // namespace quarry
