// CacheKeeper: lets the read cache have the memory that nobody else uses, and takes it away again when somebody does. Several times a
// second it asks how much memory is available (io/memory_probe.h) and sets the cache's capacity to what it holds plus what is available
// beyond a reserve, between the bounds of the tuning. Confined to the home executor; looking, evicting and giving back happen on the
// blocking pool.
#pragma once
#include "cluster/stripes/plane.h"
#include "io/alarm.h"
#include "io/blocking_pool.h"
#include "io/memory_probe.h"

namespace quarry::cluster {

class CacheKeeper {
 public:
  CacheKeeper(Plane& plane, BlockingPool& pool) : plane_(plane), pool_(pool), alarm(plane.background) {}
  // Until the background stops; at once where the capacity is fixed.
  Task<void> run();
  // used: by the cache, bytes.
  static uint64_t capacity_for(const MemoryReport& memory, uint64_t used, uint64_t least, uint64_t most);

 private:
  Plane& plane_;
  BlockingPool& pool_;

 public:
  Alarm alarm;
};

}  // namespace quarry::cluster
