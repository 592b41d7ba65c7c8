// How the layers above the chunk stores use the 128 bits of a ChunkId. Page: docs/formats/chunk-ids.md. Frozen.
//
//   high: kind (8 bits) | serial (56 bits)
//   low:  group (16 bits) | stripe (24 bits) | shard (8 bits) | generation (16 bits)
//
// Kind first, so that each kind is one range of ids on every drive. Serials are never reused: they come from a counter that is
// leased in blocks by a durable metadata transaction (WriteId) or are frame numbers of a log with an epoch (generation).
#pragma once
#include <cstdint>
#include <utility>

#include "base/ids.h"

namespace quarry::cluster {

// Names one write of object data (all stripes and shards of it). 56 bits, never reused.
using WriteId = uint64_t;
// Placement group number.
using GroupId = uint16_t;

enum class ChunkKind : uint8_t {
  data = 1,            // serial: WriteId
  metadata_frame = 2,  // serial: frame number; generation: log epoch (low 16 bits)
  metadata_file = 3,   // serial: file handle; stripe: piece
  metadata_root = 4,   // serial: log epoch; stripe: sequence: which checkpoint is current
};

inline constexpr uint32_t kStripesMax = 1u << 24;

// The generation of a data chunk: term (12 bits) | rewrite (4 bits). The term counts how often the shard's place in its group moved to
// another drive (Member::term), the rewrite how often the chunk was replaced on that drive because it was damaged: so an id that was
// removed from a drive is never put there again.
inline constexpr unsigned kRewriteBits = 4;
inline constexpr uint16_t kRewritesMax = (1u << kRewriteBits) - 1;
inline constexpr uint16_t kTermMax = (1u << (16 - kRewriteBits)) - 1;
constexpr uint16_t generation_of(uint16_t term, uint16_t rewrite) { return static_cast<uint16_t>(term << kRewriteBits | rewrite); }
constexpr uint16_t term_of(uint16_t generation) { return generation >> kRewriteBits; }
constexpr uint16_t rewrite_of(uint16_t generation) { return generation & kRewritesMax; }

struct ChunkName {
  ChunkKind kind = ChunkKind::data;
  uint64_t serial = 0;
  GroupId group = 0;
  uint32_t stripe = 0;
  uint8_t shard = 0;
  uint16_t generation = 0;
};

constexpr ChunkId chunk_id(const ChunkName& name) {
  return {uint64_t{static_cast<uint8_t>(name.kind)} << 56 | (name.serial & 0x00ff'ffff'ffff'ffffull),
          uint64_t{name.group} << 48 | uint64_t{name.stripe & 0xff'ffffu} << 24 | uint64_t{name.shard} << 16 | name.generation};
}
constexpr ChunkName chunk_name(ChunkId id) {
  return {static_cast<ChunkKind>(id.high >> 56),           id.high & 0x00ff'ffff'ffff'ffffull, static_cast<GroupId>(id.low >> 48),
          static_cast<uint32_t>(id.low >> 24 & 0xff'ffff), static_cast<uint8_t>(id.low >> 16), static_cast<uint16_t>(id.low)};
}
// All ids of one kind: [first, second).
constexpr std::pair<ChunkId, ChunkId> chunk_range(ChunkKind kind) {
  return {ChunkId{uint64_t{static_cast<uint8_t>(kind)} << 56, 0}, ChunkId{(uint64_t{static_cast<uint8_t>(kind)} + 1) << 56, 0}};
}

}  // namespace quarry::cluster
