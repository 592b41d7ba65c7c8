#include "io/executor.h"

namespace quarry {
namespace {
thread_local Executor* current_executor = nullptr;

struct Sleep {
  struct SleepTimer : Timer {
    std::coroutine_handle<> handle;
  } timer;
  TimePoint at;
  explicit Sleep(TimePoint when) : at(when) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    timer.handle = handle;
    timer.fire = [](Timer& t) { static_cast<SleepTimer&>(t).handle.resume(); };
    Executor::here().arm(timer, at);
  }
  void await_resume() const noexcept {}
};
}  // namespace

Executor* Executor::current() { return current_executor; }
Executor& Executor::here() {
  CHECK(current_executor != nullptr, "not on an executor's thread");
  return *current_executor;
}
void Executor::set_current(Executor* executor) { current_executor = executor; }

void Executor::arm(Timer& timer, TimePoint at) {
  DCHECK(current() == this);
  CHECK(!timer.armed);
  timer.at = at;
  timer.armed = true;
  timer.position = timers_.emplace(at, &timer);
}

void Executor::cancel(Timer& timer) {
  if (!timer.armed) return;
  DCHECK(current() == this);
  timers_.erase(timer.position);
  timer.armed = false;
}

TimePoint Executor::fire_due_timers(TimePoint until) {
  while (!timers_.empty() && timers_.begin()->first <= until) {
    Timer& timer = *timers_.begin()->second;
    timers_.erase(timers_.begin());
    timer.armed = false;
    timer.fire(timer);  // may destroy the timer
  }
  return timers_.empty() ? kNoDeadline : timers_.begin()->first;
}

Task<void> sleep_until(TimePoint at) { co_await Sleep(at); }
Task<void> sleep_for(Duration duration) { co_await Sleep(Executor::here().now() + duration); }

}  // namespace quarry
