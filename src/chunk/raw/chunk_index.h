// ChunkIndex: every chunk of the device in memory, ordered by id: 32 bytes each in small sorted leaves that grow by a few entries at a
// time, about 36 bytes with everything. Ordered, because list and scrub walk by id; a hash table of the same density would need
// a second structure for that. A look-up costs under a microsecond at tens of millions of chunks, the device read after it 50.
// Confined to its loop. Pointers to entries are valid until the next change.
#pragma once
#include <functional>
#include <map>
#include <vector>

#include "base/ids.h"

namespace quarry::chunk::raw {

struct IndexEntry {
  ChunkId id;
  uint64_t place = 0;  // device byte offset (52 bits) and flags
  uint32_t size = 0;   // payload bytes
  uint32_t crc = 0;    // packed: of the payload, seeded with id; extent: of the chunk's header block

  static constexpr uint64_t kPacked = 1ull << 52;
  static constexpr uint64_t kMulti = 1ull << 53;  // an extent of several runs: see the store's run table
  static constexpr int kStreamShift = 56;
  uint64_t offset() const { return place & (kPacked - 1); }
  bool packed() const { return (place & kPacked) != 0; }
  bool multi() const { return (place & kMulti) != 0; }
  uint8_t stream() const { return static_cast<uint8_t>(place >> kStreamShift); }
};
static_assert(sizeof(IndexEntry) == 32);

// The smallest id greater than this one; of the greatest id the id itself.
constexpr ChunkId next_id(const ChunkId& id) {
  if (id.low != UINT64_MAX) return {id.high, id.low + 1};
  return id.high != UINT64_MAX ? ChunkId{id.high + 1, 0} : id;
}

class ChunkIndex {
 public:
  ChunkIndex();
  ~ChunkIndex();
  const IndexEntry* find(const ChunkId& id) const;
  // Adds or replaces.
  void put(const IndexEntry& entry);
  bool erase(const ChunkId& id);
  // Replaces all; `entries` is ascending by id, without duplicates.
  void load(std::vector<IndexEntry> entries);
  // Entries with id >= from in order, until visit returns false. visit must not change the index.
  void visit(const ChunkId& from, const std::function<bool(const IndexEntry&)>& visit) const;
  // One leaf's worth of entries with id >= from; empty at the end. For walks that let others run in between.
  std::span<const IndexEntry> leaf_from(const ChunkId& from) const;
  size_t size() const { return size_; }
  size_t bytes() const;  // memory

 private:
  static constexpr size_t kLeafMax = 128;
  static constexpr size_t kGrowth = 8;
  using Leaf = std::vector<IndexEntry>;
  // Key: no id in the leaf is smaller. The first leaf's key is the smallest id, so there is always one to search.
  std::map<ChunkId, Leaf> leaves_;
  size_t size_ = 0;
  std::map<ChunkId, Leaf>::const_iterator leaf_of(const ChunkId& id) const;
};

}  // namespace quarry::chunk::raw
