// DriveGuard: asks the drives whether they still work, and takes out of use those that do not. It never waits for a drive, for the map or
// for a turn: whoever does may be waiting for the very drive that has to be given up.
//
//   fails   two health checks in a row: disabled. The next look writes it into the map, and an operator decides when it is back
//   hangs   a check, or a put to a raw drive, has not come back for kHangPatience: suspended, and whoever waits for it is told. When it
//           answers again it is resumed, and all is as it was
//
// Neither is done to a drive without which some data could not be read: it stays in use, and status says what ails it. Once the node ends
// that counts no more, since everybody who waits for a drive has to come to an end. Nor is it waited for that long: nothing that was
// acknowledged depends on what a silent drive is still asked, so the node ends without one that takes many times longer than checks take on
// this machine, 5 s at least.
// Silence is counted in lived time (lived_time.h) of the loop that owns the drive: while the process or that loop stood still, nobody's
// silence is held against him. A file system or a machine that stands still for all drives is silence of more drives than can be spared.
// Confined to the home executor.
#pragma once
#include <map>
#include <set>

#include "cluster/drives/drive_set.h"
#include "cluster/drives/lived_time.h"
#include "io/background.h"
#include "io/sync.h"

namespace quarry::cluster {

class DriveGuard {
 public:
  // changed: called when a drive was taken out of use, or is back.
  DriveGuard(DriveSet& drives, Executor& home, std::function<void()> changed);

  void start() { tasks_.spawn_here(watch()); }
  // The node ends: drives that hang are given up whoever needs them. Any thread.
  void release_all() { ending_.store(true, std::memory_order_release); }
  // To come after everything that may wait for a drive.
  Task<void> stop();
  // Begins the health checks that are due, and waits for them, but not for long.
  Task<void> check();
  // For whoever counts how long a drive is away: time that passes only while this node lives.
  TimePoint lived() const { return TimePoint(time_.total()); }
  // It was enabled: what it did before does not count.
  void forget(uint32_t number);

 private:
  Task<void> watch();
  void tick();
  void begin_checks(TimePoint now);
  Task<void> check_one(Drive* drive);
  Duration patience() const;
  void failed_check(Drive& drive, const Error& error);
  void hangs(Drive& drive, std::string why);
  void end_of_silence(const std::vector<std::pair<Drive*, std::string>>& hanging);
  bool is_spare(const Drive& drive) const;
  Task<void> listen(Executor* loop);
  Duration lived(const Drive& drive) { return loops_[&drive.owner()].lived; }

  DriveSet& drives_;
  const std::function<void()> changed_;
  Background tasks_;
  std::atomic<bool> ending_{false};
  Event ends_;
  LivedTime time_;
  struct Loop {
    bool asked = false;  // and has not answered yet
    Duration lived{0};
  };
  std::map<Executor*, Loop> loops_;  // that own drives
  struct Check {
    TimePoint began{};
    Silence silence;
  };
  std::map<Drive*, Check> checks_;       // under way
  std::map<Drive*, Silence> puts_;       // of raw drives
  std::map<uint32_t, unsigned> unwell_;  // checks that failed one after the other, by number
  std::set<Drive*> kept_;                // that hang and cannot be spared
  TimePoint checked_at_{};
  Duration slowest_check_{0};  // of late
};

}  // namespace quarry::cluster
