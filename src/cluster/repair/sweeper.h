// Sweeper: gives back the space of what is referenced no more: retired writes, and writes of sessions that ended uncleanly and were never
// committed. Confined to the home executor.
#pragma once
#include <set>

#include "cluster/stripes/plane.h"
#include "io/alarm.h"

namespace quarry::cluster {

class Sweeper {
 public:
  explicit Sweeper(Plane& plane) : plane_(plane), alarm(plane.background) {}

  // Sweeps when woken, and every sweep_interval, until the background stops.
  Task<void> run();
  // Beside it, so that no retired space waits for it: looks through what older sessions left, until nothing is left.
  Task<void> run_recovery();
  // One pass over all retire rows. Returns how many are left (read at the moment, or on drives that are away or fail to remove them).
  Task<Result<size_t>> sweep();
  // Looks through the id blocks of older sessions and removes data chunks that no row names. Blocks stay while a drive is away or fails,
  // until that one was looked through, too. Returns the number of chunks removed.
  Task<Result<size_t>> recover_sessions();
  // Removes data chunks of writes in [first, end) on one drive that neither a data row nor a retire row names.
  Task<Result<size_t>> remove_orphans(Drive& drive, WriteId first, WriteId end);

 private:
  struct Block {
    std::string row;
    WriteId first = 0, end = 0;
  };
  Task<Result<std::vector<Block>>> older_blocks();
  // On one drive. An error, and what it was not about is done all the same.
  Task<Result<size_t>> look_through(Drive* drive, const std::vector<Block>* blocks);

  Plane& plane_;
  Semaphore turn_{1};
  Task<void> pause(Duration duration);

  uint64_t removed_ = 0;  // rows of writes that are gone
  Duration waited_{0};    // by a sweep, for guards
  Semaphore recovery_turn_{1};
  std::set<std::pair<uint32_t, WriteId>> looked_through_;  // drives, and the blocks of older sessions that need no second look there

 public:
  Alarm alarm;
};

}  // namespace quarry::cluster
