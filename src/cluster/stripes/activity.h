// What is going on in the data plane: who reads, who writes, how busy the foreground is. Removal, repair and scrub wait for or yield to it.
// Thread-safe; counters and short locks.
#pragma once
#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <unordered_map>

#include "cluster/data_plane.h"
#include "cluster/drives/drive_set.h"

namespace quarry::cluster {

// Readers. Guards are epochs of two counters: the sweeper turns the epoch and waits for the old counter; readers, and guards that know what
// they keep, are counted by write.
class ActiveReads {
 public:
  std::unique_ptr<ReadGuard> guard();
  void begin(WriteId id);
  void end(WriteId id);
  bool reading(WriteId id) const;
  // From now on new guards count separately. One caller at a time, and only when old_guards_gone().
  void turn() { epoch_.fetch_add(1); }
  bool old_guards_gone() const { return guards_[(epoch_.load() + 1) & 1].load() == 0; }

 private:
  struct Guard;
  struct Part {
    mutable std::mutex mutex;
    std::unordered_map<WriteId, uint32_t> readers;
  };
  std::atomic<uint64_t> epoch_{0};
  std::array<std::atomic<uint64_t>, 2> guards_{};
  std::array<Part, 16> parts_;
};

// Writers, by the topology they place by: a move of a group is complete only when no writer of an older topology is left.
class ActiveWrites {
 public:
  explicit ActiveWrites(DriveSet& drives) : drives_(drives) {}
  std::shared_ptr<const Topology> begin();
  void end(uint64_t map_epoch);
  bool any_before(uint64_t map_epoch) const;
  size_t count() const;

 private:
  DriveSet& drives_;
  mutable std::mutex mutex_;
  std::multiset<uint64_t> epochs_;
};

}  // namespace quarry::cluster
