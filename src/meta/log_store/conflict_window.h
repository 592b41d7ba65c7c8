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
  ConflictWindow(Version start, size_t entries_max, size_t bytes_max)
      : floor_(start), last_(start), entries_max_(entries_max), bytes_max_(bytes_max) {}

  // Did a remembered write touch what was read, after this version?
  bool conflicts(Version after, const ReadSet& reads) const;
  // How many comparisons that takes, about.
  size_t cost(Version after, const ReadSet& reads) const;
  // The same bit by bit, for those that are too many for one step: looks at the oldest writes after `after`, about `writes` of them.
  // Reads must be sorted.
  struct Checked {
    bool conflict = false;
    Version reached = 0;  // everything up to it was looked at
  };
  Checked check_some(Version after, const ReadSet& reads, size_t writes) const;
  // Remembers one committed transaction; versions grow.
  void add(Version version, std::string_view ops);
  Version floor() const { return floor_; }
  size_t entries() const { return writes_.size() + ranges_.size(); }
  static constexpr size_t kRangesMax = 4096;  // removed ranges are compared with one by one

 private:
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct Newest {
    Version version = 0;
    uint32_t remembered = 0;  // writes of this key in writes_
  };
  using Keys = std::unordered_map<std::string, Newest, KeyHash, std::equal_to<>>;
  struct Write {
    Version version;
    const Keys::value_type* key;  // nodes of the map stay where they are
  };
  struct RangeWrite {
    Version version;
    KeyRange range;
  };
  void forget_oldest();
  std::deque<Write>::const_iterator writes_after(Version version) const;
  std::deque<RangeWrite>::const_iterator ranges_after(Version version) const;

  Keys newest_;               // by row key: the newest remembered write
  std::deque<Write> writes_;  // in order of versions
  std::deque<RangeWrite> ranges_;
  Version floor_, last_;
  size_t entries_max_, bytes_max_;
  size_t bytes_ = 0;
};

}  // namespace quarry::meta
