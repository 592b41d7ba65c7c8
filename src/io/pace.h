// Pace: a long loop whose steps usually need no wait lets everything else that is ready run now and then.
//   Pace pace;
//   for (const auto& row : rows) {
//     co_await pace;   // free until the loop has had its time
//     ...
//   }
// One task at a time.
#pragma once
#include "io/executor.h"

namespace quarry {

class Pace {
 public:
  Pace() : since_(Executor::here().now()) {}
  bool await_ready() const { return !Executor::here().had_its_time(since_); }
  void await_suspend(std::coroutine_handle<> handle) {
    waited_ = true;
    Executor::here().post(handle);
  }
  void await_resume() {
    if (std::exchange(waited_, false)) since_ = Executor::here().now();
  }

 private:
  TimePoint since_;
  bool waited_ = false;
};

}  // namespace quarry
