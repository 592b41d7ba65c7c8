// ExtentLists: what lies in some extent segments, for their slots. Found by a walk over the whole index (there is no other list of a
// segment's extents in memory), which lets others run in between: what changes behind the walk is told here, so that after the walk each
// list is exact at any moment, until it is taken. Confined to its loop; pure memory, no I/O.
#pragma once
#include <span>
#include <unordered_map>
#include <vector>

#include "chunk/raw/chunk_index.h"
#include "chunk/raw/geometry.h"

namespace quarry::chunk::raw {

class ExtentLists {
 public:
  explicit ExtentLists(const Geometry& geometry) : geometry_(geometry) {}
  void add_segment(uint32_t segment) { lists_[segment]; }
  bool empty() const { return lists_.empty(); }
  // The walk has looked at all entries with smaller ids.
  ChunkId walked_to() const { return walked_to_; }
  // The walk looks at this entry, the next one.
  void walk(const IndexEntry& entry, std::span<const Run> runs) {
    add(entry, runs);
    walked_to_ = next_id(entry.id);
  }
  void finish_walk() { complete_ = true; }
  // The index takes in an entry, or forgets one.
  void entered(const IndexEntry& entry, std::span<const Run> runs) {
    if (walked(entry.id)) add(entry, runs);
  }
  void left(const IndexEntry& entry, std::span<const Run> runs) {
    if (!walked(entry.id)) return;
    for (const Run& run : runs) {
      const auto list = lists_.find(geometry_.segment_of(run));
      if (list == lists_.end()) continue;
      const auto block = static_cast<uint32_t>(run.block - geometry_.block_of(list->first));
      std::erase_if(list->second, [block](const ExtentEntry& one) { return one.block == block; });
    }
  }
  bool has(uint32_t segment) const { return lists_.contains(segment); }
  std::vector<ExtentEntry> take(uint32_t segment) {
    const auto list = lists_.find(segment);
    std::vector<ExtentEntry> taken = std::move(list->second);
    lists_.erase(list);
    return taken;
  }

 private:
  bool walked(const ChunkId& id) const { return complete_ || id < walked_to_; }
  void add(const IndexEntry& entry, std::span<const Run> runs) {
    for (size_t i = 0; i < runs.size(); ++i) {
      const uint32_t segment = geometry_.segment_of(runs[i]);
      const auto list = lists_.find(segment);
      if (list == lists_.end()) continue;
      list->second.push_back({entry.id, static_cast<uint32_t>(runs[i].block - geometry_.block_of(segment)), runs[i].blocks, entry.size,
                              entry.crc, static_cast<uint8_t>(i), static_cast<uint8_t>(runs.size()), entry.stream()});
    }
  }

  const Geometry& geometry_;
  std::unordered_map<uint32_t, std::vector<ExtentEntry>> lists_;
  ChunkId walked_to_;
  bool complete_ = false;
};

}  // namespace quarry::chunk::raw
