#include "io/sim/sim_executor.h"

namespace quarry {

SimExecutor::SimExecutor() : previous_(Executor::current()) { set_current(this); }
SimExecutor::~SimExecutor() { set_current(previous_); }

void SimExecutor::post(std::coroutine_handle<> handle) {
  // Notified inside the lock: once it is free, the loop may run to its end and destroy this executor.
  const std::lock_guard lock(mutex_);
  ready_.push_back(handle);
  wake_.notify_one();
}

bool SimExecutor::step() {
  std::coroutine_handle<> handle;
  {
    const std::lock_guard lock(mutex_);
    if (!ready_.empty()) {
      handle = ready_.front();
      ready_.pop_front();
    }
  }
  if (handle) {
    handle.resume();
    return true;
  }
  const TimePoint next = fire_due_timers(now_);
  {
    const std::lock_guard lock(mutex_);
    if (!ready_.empty()) return true;
  }
  if (next == kNoDeadline) return false;
  now_ = next;
  fire_due_timers(now_);
  return true;
}

size_t SimExecutor::run_until_idle() {
  size_t steps = 0;
  while (step()) ++steps;
  return steps;
}

detail::Root SimExecutor::drive(Task<void> task) {
  co_await std::move(task);
  done_ = true;
}

void SimExecutor::start(Task<void> task) {
  CHECK(done_, "SimExecutor::run does not nest");
  done_ = false;
  drive(std::move(task));
}

void SimExecutor::run_until_done() {
  while (!done_) {
    if (step() || done_) continue;  // a timer that fired may have ended the task and left nothing to do
    std::unique_lock lock(mutex_);
    const bool woken = wake_.wait_for(lock, std::chrono::seconds(60), [this] { return !ready_.empty(); });
    CHECK(woken, "the task waits for something that never comes");
  }
}

}  // namespace quarry
