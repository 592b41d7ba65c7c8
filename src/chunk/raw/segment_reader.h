// Reads one segment at mount: its newest slot, its inventories, and the frames or chunk headers that no inventory lists.
//
//   found                                          | taken as
//   the slot that the log's table names, or newer  | the segment's state
//   only an older slot, or none                    | lost or stale: rebuilt from frames (packed) or chunk headers (extent)
//   an inventory frame that fails its checksum     | rebuilt from the frames it covers
//   packed frames in order, then nothing valid     | the frames; a half-written one at the end was never acknowledged: cut
//   a bad frame with a valid one after it, or one  | damage: what can be read is kept; bad items stay listed, so that reading
//   that the log says was written                  | them fails instead of finding nothing
#pragma once
#include "chunk/raw/log_reader.h"
#include "chunk/raw/space_map.h"

namespace quarry::chunk::raw {

struct StampedItem {
  FrameItem item;  // offset from the segment's start
  uint64_t stamp = 0;
  bool dead = false;
};
struct StampedExtent {
  ExtentEntry entry;
  uint64_t stamp = 0;
};
struct SegmentContents {
  uint32_t index = 0;
  Segment segment;
  uint64_t through = 0;
  // What slots and frames say of the log: this record was durable, this epoch had begun. Never more than the truth.
  uint64_t known_record = 0, known_epoch = 0;
  std::vector<StampedItem> items;
  std::vector<StampedExtent> extents;
  std::vector<FrameItem> unlisted;  // of an open packed segment
  uint64_t inventories_read = 0, frames_scanned = 0, torn_tails = 0;
  bool rebuilt = false;
  bool scan_headers = false;  // extent: the slot cannot be trusted to list everything
  std::vector<std::string> damage;
};

struct SegmentReader {
  BlockDevice& device;
  const Superblock& superblock;
  Geometry geometry;

  // expected: what the log knows of its newest slot (sequence 0: nothing). tail: how far the log says its frames reach.
  // Errors: device_gone, incompatible.
  Task<Result<SegmentContents>> read(uint32_t index, SlotSummary expected, std::optional<TailRecord> tail) const;
  // Whether the chunk that this record names lies there, whole. Errors: device_gone.
  Task<Result<bool>> holds(PutRecord put) const;
  // Chunk headers at blocks [from, to) of an extent segment whose payload is whole. Errors: device_gone.
  Task<Result<std::vector<std::pair<ChunkHeader, uint32_t>>>> find_chunks(uint32_t index, uint32_t from, uint32_t to) const;

 private:
  Task<Result<void>> read_slot(uint32_t index, uint32_t which, std::optional<SlotHeader>& out) const;
  Task<Result<void>> read_slots(SegmentContents& contents, SlotSummary expected, std::vector<uint32_t>& dead) const;
  Task<Result<void>> read_inventories(SegmentContents& contents, const std::vector<uint32_t>& dead) const;
  struct ScanFrom {
    uint32_t block = 0, number = 0, chain = 0;
    uint32_t until = UINT32_MAX;  // stop before this block: a range inside the segment is repaired
  };
  Task<Result<void>> scan_frames(SegmentContents& contents, ScanFrom from, std::optional<TailRecord> tail,
                                 const std::vector<uint32_t>& dead) const;
  Task<Result<bool>> payload_whole(const ChunkHeader& header) const;
};

}  // namespace quarry::chunk::raw
