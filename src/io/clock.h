// Wall time and randomness, injected so that the simulator decides both. (Monotonic time: Executor::now.)
#pragma once
#include <cstdint>

#include "base/bytes.h"
#include "base/ids.h"

namespace quarry {

// Nanoseconds since 1970-01-01 UTC.
using WallTime = int64_t;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime wall_now() const = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableByteView out) = 0;
  uint64_t u64();
  uint64_t below(uint64_t bound);  // uniform in [0, bound); bound > 0
  Uuid uuid();                     // version 4
};

// Thread-safe, process-wide: clock_gettime and getrandom(2).
Clock& system_clock();
Random& system_random();

// Deterministic twins; confined to one thread.
class ManualClock : public Clock {
 public:
  explicit ManualClock(WallTime start = 1'700'000'000'000'000'000) : now_(start) {}
  WallTime wall_now() const override { return now_; }
  void advance(int64_t nanoseconds) { now_ += nanoseconds; }

 private:
  WallTime now_;
};
class SeededRandom : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}
  void fill(MutableByteView out) override;

 private:
  uint64_t state_;
};

}  // namespace quarry
