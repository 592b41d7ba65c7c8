// MemoryBudget: a bounded number of bytes shared by all executors. Thread-safe; waiters are served in order.
#pragma once
#include <deque>
#include <mutex>

#include "io/executor.h"

namespace quarry::cluster {

class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes) : capacity_(bytes), available_(bytes) {}
  ~MemoryBudget() { CHECK(waiters_.empty(), "a MemoryBudget dies under its waiters"); }
  MemoryBudget(const MemoryBudget&) = delete;

  // More than the capacity counts as the capacity: such a request waits until it is alone. Returns what was taken: release that.
  Task<uint64_t> acquire(uint64_t bytes) {
    bytes = std::min(bytes, capacity_);
    co_await Acquire{*this, bytes};
    co_return bytes;
  }
  bool try_acquire(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    if (!waiters_.empty() || available_ < bytes) return false;
    available_ -= bytes;
    return true;
  }
  void release(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    available_ += bytes;
    while (!waiters_.empty() && waiters_.front().bytes <= available_) {
      available_ -= waiters_.front().bytes;
      waiters_.front().executor->post(waiters_.front().handle);
      waiters_.pop_front();
    }
  }
  uint64_t available() const {
    std::lock_guard lock(mutex_);
    return available_;
  }
  uint64_t capacity() const { return capacity_; }

 private:
  struct Waiter {
    Executor* executor;
    std::coroutine_handle<> handle;
    uint64_t bytes;
  };
  struct Acquire {
    MemoryBudget& budget;
    uint64_t bytes;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) const {
      std::lock_guard lock(budget.mutex_);
      if (budget.waiters_.empty() && budget.available_ >= bytes) {
        budget.available_ -= bytes;
        return false;
      }
      budget.waiters_.push_back({&Executor::here(), handle, bytes});
      return true;
    }
    void await_resume() const noexcept {}
  };
  const uint64_t capacity_;
  mutable std::mutex mutex_;
  uint64_t available_;
  std::deque<Waiter> waiters_;
};

}  // namespace quarry::cluster
