// Reads the log at mount: which frames are there, whether they are a prefix of what was written, and what they say.
//
//   found                                             | taken as
//   frames in order, then nothing valid               | the log; what follows the last frame was never acknowledged: cut
//   a gap that the chain bridges (number, checksum)   | the log; the gap was a place that could not be written
//   a gap in numbers, a broken chain, or no frame of  | damaged: what can be read is used, the rest is rebuilt from payload
//   the epoch that the superblock names               | headers; removals recorded in lost frames may be undone
//   an end before a record that a slot or frame knows | damaged, too (recovery.h finds it)
//   the same after a clean close                      | the log is not needed: slots hold everything
#pragma once
#include "chunk/raw/journal.h"

namespace quarry::chunk::raw {

struct LoggedRecord {
  uint64_t sequence = 0;
  LogRecord record;
};
struct FoundFrame {
  LogFrame frame;
  uint32_t crc = 0;
  uint32_t lane = 0;
  uint32_t block = 0;  // in the lane
};
// Part of a table that was not completed.
struct TablePart {
  uint64_t offset = 0;  // of its frame on the device
  uint32_t blocks = 0;
  Journal::Position before;  // where the next frame goes once this one, and all behind it, are taken back
};
struct LogContents {
  std::vector<FoundFrame> frames;     // all valid ones, both lanes, by epoch and block
  std::vector<LoggedRecord> records;  // of the epochs that are needed, in order
  bool has_table = false;
  std::vector<SlotSummary> table;  // newest known slot of each segment
  bool damaged = false;
  std::string damage;
  bool table_in_newest = false;  // the newest epoch holds a complete table: the next epoch may begin
  uint64_t epoch = 0;            // newest found; 0: none
  uint64_t settled = 0;          // puts up to this record need no check of their data
  uint64_t unreadable_bytes = 0;
  Journal::Position position;  // behind the last valid frame
  // The log ends with these, which say nothing as long as the last part is missing. They lie in the lane's reserve, which has room for one
  // table: where the checkpoint is to be ended in this lane, they are taken back first, from the last one on.
  std::vector<TablePart> unfinished;
};

// Errors: device_gone. Unreadable places count as damage.
Task<Result<LogContents>> read_log(BlockDevice& device, const Superblock& superblock);
Journal::Place log_place(const Superblock& superblock);

// Reads a range in pieces; what cannot be read is zero, and counted. Errors: device_gone.
Task<Result<uint64_t>> read_tolerant(BlockDevice& device, uint64_t offset, MutableByteView into);

}  // namespace quarry::chunk::raw
