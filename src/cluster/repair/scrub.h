// Scrubber: reads everything on every drive in the background, all drives at once, within a budget that yields to requests. What is damaged
// is rewritten from parity or copies; what no record explains is removed. Where it stands is kept in the metadata, so that a restart goes
// on. While the metadata cannot be written none of that can be done: no pass begins, and one that goes on ends. Confined to the home
// executor.
#pragma once
#include "cluster/repair/audit.h"
#include "cluster/repair/repair.h"
#include "io/clock.h"

namespace quarry::cluster {

class Scrubber {
 public:
  Scrubber(Plane& plane, Repairer& repairer, Auditor& auditor, MetadataLog& log, Clock& clock);

  Task<void> run();
  // A pass over all drives, now; returns when it is done.
  Task<Result<void>> pass();
  void start() {  // any thread
    wanted_.store(true);
    alarm.ring();
  }
  ScrubStatus status() const;  // thread-safe

 private:
  struct Position {
    ChunkId next;
    int64_t last_complete = 0;
  };
  Task<Result<void>> scrub_drive(Drive* drive);
  Task<void> repair_damage(Drive* drive, ChunkId id);
  Task<bool> is_due();
  Task<Result<Position>> load(uint32_t drive);
  Task<Result<void>> store(uint32_t drive, Position position);

  Plane& plane_;
  Repairer& repairer_;
  Auditor& auditor_;
  MetadataLog& log_;
  Clock& clock_;
  BackgroundBudget budget_;
  Semaphore turn_{1};
  std::atomic<bool> wanted_{false};
  mutable std::mutex mutex_;
  ScrubStatus status_;  // guarded

 public:
  Alarm alarm;
};

}  // namespace quarry::cluster
