#include "io/sync.h"

namespace quarry {

struct Event::Waiter {
  Event& event;
  TimePoint deadline;
  struct DeadlineTimer : Timer {
    Waiter* waiter = nullptr;
  } timer;
  std::coroutine_handle<> handle;
  bool woken = false;

  Waiter(Event& e, TimePoint at) : event(e), deadline(at) {}
  bool await_ready() const noexcept { return event.set_; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    event.waiters_.push_back(this);
    if (deadline == kNoDeadline) return;
    timer.waiter = this;
    timer.fire = [](Timer& t) {
      Waiter& self = *static_cast<DeadlineTimer&>(t).waiter;
      std::erase(self.event.waiters_, &self);
      self.handle.resume();
    };
    Executor::here().arm(timer, deadline);
  }
  bool await_resume() const noexcept { return woken || event.set_; }
};

void Event::wake_all() {
  auto& executor = Executor::here();
  for (Waiter* waiter : waiters_) {
    waiter->woken = true;
    executor.cancel(waiter->timer);
    executor.post(waiter->handle);
  }
  waiters_.clear();
}

void Event::set() {
  set_ = true;
  if (!waiters_.empty()) wake_all();
}
void Event::pulse() {
  if (!waiters_.empty()) wake_all();
}

Task<void> Event::wait() { co_await Waiter(*this, kNoDeadline); }
Task<bool> Event::wait_until(TimePoint at) {
  const bool in_time = co_await Waiter(*this, at);
  co_return in_time;
}

struct Semaphore::Acquire {
  Semaphore& semaphore;
  uint64_t permits;
  bool await_ready() const noexcept { return semaphore.try_acquire(permits); }
  void await_suspend(std::coroutine_handle<> handle) const { semaphore.waiters_.push_back({handle, permits}); }
  void await_resume() const noexcept {}
};

bool Semaphore::try_acquire(uint64_t permits) {
  if (!waiters_.empty() || available_ < permits) return false;
  available_ -= permits;
  return true;
}
Task<void> Semaphore::acquire(uint64_t permits) { co_await Acquire{*this, permits}; }
void Semaphore::release(uint64_t permits) {
  available_ += permits;
  while (!waiters_.empty() && waiters_.front().permits <= available_) {
    available_ -= waiters_.front().permits;
    Executor::here().post(waiters_.front().handle);
    waiters_.pop_front();
  }
}

detail::Root TaskGroup::run(Task<void> task) {
  co_await std::move(task);
  if (--running_ == 0) empty_.set();
}
void TaskGroup::spawn(Task<void> task) {
  ++running_;
  empty_.reset();
  run(std::move(task));
}
Task<void> TaskGroup::join() {
  while (running_ > 0) co_await empty_.wait();
}

}  // namespace quarry
