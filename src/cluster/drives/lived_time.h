// Time as a watcher lives it. A process that was stopped, a guest that was paused, a loop that stood still: nothing came back meanwhile,
// and no drive is to blame. So who watches for silence counts ticks of his own, and a tick that comes late counts as one.
#pragma once
#include <algorithm>

#include "io/executor.h"

namespace quarry::cluster {

// Confined to the watcher's loop.
class LivedTime {
 public:
  static constexpr Duration kTickMax = std::chrono::seconds(1);  // ticks are to be much shorter
  // At every tick. Returns what passed since the last one.
  Duration tick(TimePoint now) {
    const Duration passed = last_ == TimePoint{} ? Duration(0) : std::clamp<Duration>(now - last_, Duration(0), kTickMax);
    last_ = now;
    total_ += passed;
    return passed;
  }
  Duration total() const { return total_; }

 private:
  TimePoint last_{};
  Duration total_{0};
};

// How long one thing has not come back, in lived time: looked at again and again.
class Silence {
 public:
  // began: when the thing that is under way now began; what began at another time is another thing. nullopt: nothing is under way.
  Duration look(std::optional<TimePoint> began, Duration lived) {
    if (began != began_) {
      began_ = began;
      since_ = lived;
    }
    return began_ ? lived - since_ : Duration(0);
  }

 private:
  std::optional<TimePoint> began_;
  Duration since_{0};
};

}  // namespace quarry::cluster
