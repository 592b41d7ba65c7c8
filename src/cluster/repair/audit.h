// Auditor: compares what lies on the drives with what the metadata says: fsck (invariants 1 and 4 of the design), and the removal of
// leftovers that no record explains. Confined to the home executor; safe beside readers and writers: what may be in motion is looked at
// twice before it is reported.
//
// A walk over a drive takes minutes, and writes begin meanwhile. So what explains a chunk is asked for after the chunk was seen, and
// right before it is removed: first which write ids are in use or yet to be given out, then the rows of the writes. A chunk that a row
// explains and that lies where the map does not place it goes only if its place has what it should: else it may be the last one.
#pragma once
#include "cluster/drives/map_keeper.h"
#include "cluster/log/metadata_log.h"
#include "cluster/stripes/plane.h"

namespace quarry::cluster {

class Auditor {
 public:
  static constexpr size_t kViolationsMax = 1000;  // more are counted, not listed
  Auditor(Plane& plane, MetadataLog& log) : plane_(plane), log_(log) {}

  // repair: removes orphans, and hands damaged writes to repair.
  Task<Result<DataPlane::FsckReport>> fsck(bool repair);
  // Looks whether every shard of every write is there, and asks repair for what is not. Returns how many shards are missing.
  Task<Result<uint64_t>> find_missing();
  // Removes data chunks from the drive that no row names, or that belong elsewhere by now.
  struct Leftovers {
    size_t removed = 0;
    size_t in_motion = 0;  // could not be judged now: they may belong to unfinished writes, removals or moves, or are needed elsewhere
    size_t kept = 0;       // needed elsewhere, but they cannot be read
  };
  Task<Result<Leftovers>> remove_leftovers(Drive& drive);

 private:
  enum class Verdict : uint8_t { placed, in_motion, orphan, misplaced };
  struct Judgement {
    Verdict verdict = Verdict::in_motion;
    DataLayout layout;  // of a misplaced chunk
  };
  struct Sessions;
  Task<Result<std::vector<Judgement>>> judge(Drive& drive, std::vector<chunk::ChunkStat> chunks);
  Task<Result<Sessions>> load_sessions();
  enum class AtPlace : uint8_t { filled, lacking, unknown };
  Task<Result<AtPlace>> look_at_place(DataLayout layout, ChunkName name);
  // Those that may go, of what was found to be an orphan or misplaced just now.
  Task<Result<void>> remove(Drive& drive, std::vector<chunk::ChunkStat> chunks, std::vector<Judgement> judgements, Leftovers* result);
  Task<Result<bool>> is_needed(Drive& drive, chunk::ChunkStat chunk, DataLayout layout, Leftovers* result);
  Task<Result<void>> check_drive(Drive& drive, bool repair, DataPlane::FsckReport* report);
  struct StripeLook;
  Task<StripeLook> look_at_stripe(DataLayout layout, uint32_t stripe);
  Task<Result<void>> check_rows(bool repair, DataPlane::FsckReport* report);
  static void violation(DataPlane::FsckReport* report, std::string text);

  Plane& plane_;
  MetadataLog& log_;
};

}  // namespace quarry::cluster
