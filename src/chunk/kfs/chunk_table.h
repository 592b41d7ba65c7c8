// ChunkTable: the ids and sizes of all chunks of a kfs chunk store, in memory, ordered: sorted leaves of up to 256 entries of 24 bytes, so
// that list, stat and scrub open no bucket. About 30 bytes a chunk. Confined to its loop.
#pragma once
#include <map>
#include <vector>

#include "base/ids.h"

namespace quarry::chunk::kfs {

struct TableEntry {
  ChunkId id;
  uint32_t size = 0;
  bool damaged = false;  // its record cannot be read, so its size is not known
};

class ChunkTable {
 public:
  const TableEntry* find(const ChunkId& id) const {
    const auto leaf = leaf_of(id);
    if (leaf == leaves_.end()) return nullptr;
    const Leaf& entries = leaf->second;
    const size_t at = position(entries, id);
    return at < entries.size() && entries[at].id == id ? &entries[at] : nullptr;
  }
  // Not there yet.
  void insert(const TableEntry& entry) {
    if (leaves_.empty()) leaves_.emplace(ChunkId{}, Leaf());
    auto leaf = leaves_.find(leaf_of(entry.id)->first);
    leaf->second.insert(leaf->second.begin() + static_cast<std::ptrdiff_t>(position(leaf->second, entry.id)), entry);
    ++size_;
    if (leaf->second.size() < kLeafMax) return;
    Leaf upper(leaf->second.begin() + kLeafMax / 2, leaf->second.end());
    leaf->second.erase(leaf->second.begin() + kLeafMax / 2, leaf->second.end());
    leaves_.emplace(upper.front().id, std::move(upper));
  }
  void erase(const ChunkId& id) {
    const auto leaf = leaf_of(id);
    if (leaf == leaves_.end()) return;
    const auto own = leaves_.find(leaf->first);
    const size_t at = position(own->second, id);
    if (at == own->second.size() || own->second[at].id != id) return;
    own->second.erase(own->second.begin() + static_cast<std::ptrdiff_t>(at));
    --size_;
    if (own->second.empty() && own != leaves_.begin()) leaves_.erase(own);
  }
  // Entries with id >= from, in order, until visit returns false. visit must not change the table.
  template <class Visit>
  void visit(const ChunkId& from, Visit visit) const {
    for (auto leaf = leaf_of(from); leaf != leaves_.end(); ++leaf) {
      for (size_t at = position(leaf->second, from); at < leaf->second.size(); ++at) {
        if (!visit(leaf->second[at])) return;
      }
    }
  }
  size_t size() const { return size_; }

 private:
  static constexpr size_t kLeafMax = 256;
  using Leaf = std::vector<TableEntry>;
  using Leaves = std::map<ChunkId, Leaf>;  // by a bound no id in the leaf is below; the first one's is zero
  Leaves::const_iterator leaf_of(const ChunkId& id) const {
    auto after = leaves_.upper_bound(id);
    return after == leaves_.begin() ? leaves_.end() : std::prev(after);
  }
  static size_t position(const Leaf& leaf, const ChunkId& id) {
    size_t low = 0, high = leaf.size();
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (leaf[middle].id < id) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  Leaves leaves_;
  size_t size_ = 0;
};

}  // namespace quarry::chunk::kfs
