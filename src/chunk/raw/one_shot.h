// OneShot: one task waits, once, for one signal. No allocation; lives in the waiter's frame. Confined to its loop.
#pragma once
#include <coroutine>

#include "io/executor.h"

namespace quarry::chunk::raw {

class OneShot {
 public:
  OneShot() = default;
  OneShot(const OneShot&) = delete;
  // The waiter runs through the executor's queue, not inside fire.
  void fire() {
    fired_ = true;
    if (waiter_) Executor::here().post(std::exchange(waiter_, {}));
  }
  bool await_ready() const noexcept { return fired_; }
  void await_suspend(std::coroutine_handle<> handle) noexcept { waiter_ = handle; }
  void await_resume() const noexcept {}

 private:
  bool fired_ = false;
  std::coroutine_handle<> waiter_;
};

}  // namespace quarry::chunk::raw
