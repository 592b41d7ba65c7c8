// Recovery: from a device's slots, frames and log to the state of a store. Reads only; mount, offline fsck and inspect share it.
//
// A chunk is alive if some copy of it has a stamp that no removal follows. Stamps order copies against the log: a copy listed by a slot
// has the slot's `through`, a scanned frame its `after`, a logged put its own sequence number. So replay needs no order of its own.
//
// So what is written next must be later than every stamp on the device, also than those in places that cannot be read now: of a damaged log
// it is not the last record found that counts, but the latest one that anything here knows of, and then as many as the lanes may have held.
#pragma once
#include <unordered_map>

#include "chunk/raw/chunk_index.h"
#include "chunk/raw/log_reader.h"
#include "chunk/raw/space_map.h"
#include "chunk/raw/superblock_set.h"

namespace quarry::chunk::raw {

struct OpenPacked {
  uint32_t segment = 0;
  std::vector<FrameItem> unlisted;  // items after the last inventory, offsets from the segment's start
};
struct Recovered {
  std::vector<IndexEntry> entries;  // ascending by id
  std::unordered_map<ChunkId, std::vector<Run>, ChunkIdHash> multi;
  std::vector<Segment> segments;  // all that a slot or a frame says; live counts and free runs are the store's to derive
  std::vector<OpenPacked> open;   // packed segments that may be continued
  Journal::Position position;
  bool resume_lane = false;           // the newest epoch's checkpoint was cut short: go on in its lane
  bool log_damaged = false;           // also where the log was not needed
  std::vector<TablePart> unfinished;  // where the lane is gone on in: see LogContents
  OpenReport report;
};

// Errors: device_gone, incompatible. Damage is in the report.
Task<Result<Recovered>> recover(BlockDevice& device, const Superblock& superblock);

}  // namespace quarry::chunk::raw
