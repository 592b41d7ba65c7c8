// SpaceMap: the segments of a device, what they are used for, and the free runs inside extent segments. Nothing here is written as
// such: it is derived from inventories and log at mount. Confined to its loop; pure memory, no I/O.
#pragma once
#include <set>
#include <vector>

#include "chunk/raw/geometry.h"
#include "chunk/raw/raw_store.h"

namespace quarry::chunk::raw {

struct FreeRun {
  uint32_t block = 0;  // from the segment's start
  uint32_t blocks = 0;
};

struct Segment {
  Role role = Role::free;
  SegmentState state = SegmentState::open;
  uint8_t stream = 0;
  bool dirty = false;  // its newest slot does not say what is here
  bool writing_slot = false;
  bool compacting = false;
  bool suspect = false;     // packed: a list of its items was damaged
  bool unreadable = false;  // compaction could not move everything: something cannot be read
  bool evacuating = false;  // extent: no room is given out here
  bool emptying = false;    // waits for readers, then becomes free
  uint8_t failed = 0;       // times a write here failed and it was retired, since the mount
  uint32_t changes = 0;     // counts what enters, leaves and is freed; wraps
  uint32_t generation = 0;
  uint32_t slot_sequence = 0;  // of the newest slot; 0: never used
  uint32_t slot_crc = 0;
  uint64_t live_bytes = 0;  // extent: blocks of live chunks; packed: payload of live items
  uint32_t live = 0;        // entries or items
  // extent
  std::vector<FreeRun> free_runs;  // ascending
  uint32_t largest = 0;            // of them
  uint32_t pending = 0;            // entries allocated but not yet committed, and freed ones in quarantine
  // packed
  uint32_t data_end = 0;  // blocks written and acknowledged
  uint32_t next_frame = 0;
  uint32_t chain = 0;
  uint32_t items = 0;  // in frames, dead ones too
  // Inventories cover the frames before this point; recovery scans from here.
  uint32_t listed_items = 0;
  uint32_t listed_end = 0;
  uint32_t listed_frame = 0;
  uint32_t listed_chain = 0;
  uint64_t used_bytes = 0;  // payload of all items
  std::vector<InventoryPointer> inventories;
  std::vector<uint32_t> dead;  // offsets / 8; unordered
  SlotSummary summary() const { return {slot_sequence, slot_crc, generation, role, state}; }
};

// A segment that failed so often takes no role before the next mount. Before, it is the last one to be taken: on a full drive compaction
// has no other.
inline constexpr uint8_t kSegmentFailuresMax = 3;

class SpaceMap {
 public:
  void reset(Geometry geometry, AllocationPolicy policy);
  void grow(Geometry geometry);
  const Geometry& geometry() const { return geometry_; }
  uint32_t segments() const { return static_cast<uint32_t>(segments_.size()); }
  Segment& operator[](uint32_t index) { return segments_[index]; }
  const Segment& operator[](uint32_t index) const { return segments_[index]; }
  // Segments below were used once; the log's table covers them.
  uint32_t used() const { return used_; }

  // ---- segments
  uint32_t free_segments() const { return free_; }
  // Takes a free segment out of the free ones, one in which writes failed last; the caller sets its role. kNoSegment if there is none.
  uint32_t take_segment();
  // Back to the free ones, unless writes failed in it too often: then it is looked at again by the next mount. Its lists are cleared.
  void give_segment(uint32_t index);
  // After recovery set roles directly: recounts what is free.
  void recount();

  // ---- runs inside extent segments
  // A fresh extent segment: all of it free.
  void open_extents(uint32_t index);
  // `blocks` blocks in one run, or nothing.
  std::optional<Run> allocate(uint32_t blocks);
  // In up to kRunsMax runs, the largest holes first; nothing if they do not suffice.
  std::vector<Run> allocate_scattered(uint32_t blocks);
  void release(const Run& run);
  // A write failed in this segment: nothing more is put into it until it has been emptied.
  void retire(uint32_t index);
  // The same for a while: its live chunks are moved elsewhere.
  void set_evacuating(uint32_t index, bool evacuating);
  // Recovery: an extent segment whose `used` runs (ascending, disjoint) hold chunks; the rest is free.
  void restore_extents(uint32_t index, const std::vector<FreeRun>& used);
  // Of segments that are not retired.
  uint64_t free_run_blocks() const { return free_run_blocks_; }
  size_t bytes() const;

 private:
  void index_segment(uint32_t index);  // puts it under its largest run
  void unindex_segment(uint32_t index);
  Run cut(uint32_t index, size_t run, uint32_t blocks);

  Geometry geometry_;
  AllocationPolicy policy_ = AllocationPolicy::spread;
  std::vector<Segment> segments_;
  uint32_t used_ = 0;
  uint32_t free_ = 0;
  uint32_t cursor_ = 0;                                 // where spread looks next
  std::set<std::pair<uint32_t, uint32_t>> by_largest_;  // (largest free run, segment) of extent segments that have room
  uint64_t free_run_blocks_ = 0;
};

}  // namespace quarry::chunk::raw
