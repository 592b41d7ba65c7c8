// ReturningDrives: takes back, by identity, drives that were away when the node started, or vanished: at the path where they were, or for
// devices under whatever name the machine gives them now. What an operator disabled, or the health check, stays disabled until it is
// enabled. Looks every few seconds, and only while a drive is away. Thread-safe; its work runs on `home`.
#pragma once
#include <map>

#include "cluster/data_plane.h"
#include "io/executor.h"
#include "io/sync.h"

namespace quarry::daemon {

class ReturningDrives {
 public:
  ReturningDrives(Executor& home, cluster::DataPlane& data);
  // Waits for what is under way. Blocks.
  void stop();

 private:
  struct Wait {
    TimePoint next{}, search{};
    Duration pause{};
  };
  Task<void> run();
  Task<void> look();
  Task<void> end();

  Executor& home_;
  cluster::DataPlane& data_;
  // Of home's thread.
  TaskGroup group_;
  Event stopping_;
  std::map<uint32_t, Wait> waits_;
};

}  // namespace quarry::daemon
