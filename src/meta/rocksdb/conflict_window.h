// What was written recently, and at which version: the committer's answer to "did anything that this transaction read change
// since?". Bounded: versions at or below floor() are forgotten, and a transaction that read at an older version conflicts.
// Confined to the committer.
#pragma once
#include <deque>
#include <string>
#include <unordered_map>

#include "meta/optimistic.h"

namespace quarry::meta {

class ConflictWindow {
 public:
  ConflictWindow(Version start, size_t entries_max, size_t bytes_max) : floor_(start), entries_max_(entries_max), bytes_max_(bytes_max) {}

  // Did a remembered write touch what was read, after read_version?
  bool conflicts(Version read_version, const ReadSet& reads) const;
  // Remembers one committed transaction; versions grow.
  void add(Version version, std::string_view ops);
  Version floor() const { return floor_; }
  size_t entries() const { return writes_.size() + ranges_.size(); }

 private:
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Keys = std::unordered_map<std::string, Version, KeyHash, std::equal_to<>>;
  struct Write {
    Version version;
    const Keys::value_type* key;  // nodes of the map stay where they are
  };
  struct RangeWrite {
    Version version;
    KeyRange range;
  };
  void forget_oldest();

  Keys newest_;               // row key -> version of its newest remembered write
  std::deque<Write> writes_;  // in order of versions; each node's newest write is the last that names it
  std::deque<RangeWrite> ranges_;
  Version floor_;
  size_t entries_max_, bytes_max_;
  size_t bytes_ = 0;
};

}  // namespace quarry::meta
