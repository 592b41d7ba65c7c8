// BackgroundBudget: how fast repair or scrub may move bytes: a rate that is stated, and less while the foreground is busy.
// Confined to one executor.
#pragma once
#include "cluster/stripes/plane.h"

namespace quarry::cluster {

class BackgroundBudget {
 public:
  static constexpr uint64_t kBusyRate = 32 * kMiB;       // bytes per second left to background work beside foreground requests
  static constexpr uint64_t kBusyForeground = 1 * kMiB;  // foreground bytes per second from which it counts as busy
  // bytes_per_second 0: unlimited while the foreground is idle.
  BackgroundBudget(Plane& plane, uint64_t bytes_per_second) : plane_(plane), rate_(bytes_per_second) {}

  // Waits until `bytes` more may be moved. Returns early when the background is stopping.
  Task<void> take(uint64_t bytes) {
    const TimePoint now = Executor::here().now();
    look_at_foreground(now);
    uint64_t rate = rate_;
    if (busy_) rate = rate == 0 ? kBusyRate : std::min(rate, kBusyRate);
    if (rate == 0) {
      next_ = now;
      co_return;
    }
    next_ = std::max(next_, now) + Duration(static_cast<int64_t>(static_cast<double>(bytes) * 1e9 / static_cast<double>(rate)));
    while (!plane_.background.stopping() && Executor::here().now() < next_) {
      co_await sleep_for(std::min<Duration>(next_ - Executor::here().now(), std::chrono::milliseconds(20)));
    }
  }
  bool busy() const { return busy_; }

 private:
  void look_at_foreground(TimePoint now) {
    const Duration passed = now - seen_at_;
    if (passed < std::chrono::milliseconds(50)) return;
    const uint64_t bytes = plane_.foreground_bytes.load(std::memory_order_relaxed);
    const double rate = static_cast<double>(bytes - seen_bytes_) * 1e9 / static_cast<double>(passed.count());
    busy_ = rate > static_cast<double>(kBusyForeground);
    seen_at_ = now;
    seen_bytes_ = bytes;
  }
  Plane& plane_;
  const uint64_t rate_;
  TimePoint next_{}, seen_at_{};
  uint64_t seen_bytes_ = 0;
  bool busy_ = false;
};

}  // namespace quarry::cluster
