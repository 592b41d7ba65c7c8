// Alarm: wakes a background loop on the home executor, from any thread, or when its time has come.
#pragma once
#include <atomic>

#include "io/background.h"
#include "io/sync.h"

namespace quarry {

class Alarm {
 public:
  explicit Alarm(Background& background) : background_(background) {}
  void ring() {  // any thread; rings in quick succession are one
    if (!ringing_.exchange(true)) background_.spawn(wake());
  }
  // On the home executor: until rung or `duration` has passed. At once if the background is stopping or it rang meanwhile.
  Task<void> wait(Duration duration) {
    if (background_.stopping() || std::exchange(rung_, false)) co_return;
    co_await event_.wait_until(Executor::here().now() + duration);
    rung_ = false;
  }

 private:
  Task<void> wake() {
    ringing_.store(false);
    rung_ = true;
    event_.pulse();
    co_return;
  }
  Background& background_;
  std::atomic<bool> ringing_{false};
  bool rung_ = false;
  Event event_;
};

}  // namespace quarry
