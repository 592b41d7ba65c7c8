// Auditor: compares what lies on the drives with what the metadata says: fsck (invariants 1 and 4 of the design), and the removal of
// leftovers that no record explains. Confined to the home executor; safe beside readers and writers: what may be in motion is looked at
// twice before it is reported.
#pragma once
#include "cluster/map_keeper.h"
#include "cluster/metadata_log.h"
#include "cluster/plane.h"

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
    size_t in_motion = 0;  // could not be judged now: they may belong to unfinished writes, removals or moves
  };
  Task<Result<Leftovers>> remove_leftovers(Drive& drive);

 private:
  enum class Verdict : uint8_t { placed, in_motion, orphan, misplaced };
  struct Sessions;
  Task<Result<std::vector<Verdict>>> judge(Drive& drive, std::vector<chunk::ChunkStat> chunks, const Sessions& sessions);
  Task<Result<Sessions>> load_sessions();
  Task<Result<void>> check_drive(Drive& drive, bool repair, const Sessions& sessions, DataPlane::FsckReport* report);
  Task<Result<void>> check_rows(bool repair, DataPlane::FsckReport* report);
  static void violation(DataPlane::FsckReport* report, std::string text);

  Plane& plane_;
  MetadataLog& log_;
};

}  // namespace quarry::cluster
