// SimExecutor: an event loop in the calling thread with virtual time. When nothing is ready, time jumps to the next timer; with
// no timer left, the run is over. Deterministic: the same posts give the same order. For unit tests and the simulator.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>

#include "io/sync.h"

namespace quarry {

class SimExecutor : public Executor {
 public:
  SimExecutor();
  ~SimExecutor() override;
  void post(std::coroutine_handle<> handle) override;  // thread-safe, so that ThreadPool works under it
  TimePoint now() const override { return now_; }

  // Time passes and nothing runs: the process was stopped, or the guest paused. Between runs.
  void stand_still(Duration duration) { now_ += duration; }

  // Runs until nothing is ready and no timer is armed. Returns the number of resumptions.
  size_t run_until_idle();

  // Runs the task to its end and returns its value; CHECKs that it did end (a task that waits for ever is a bug).
  // Waits in real time for thread pools if nothing else is left to do, at most 60 s.
  template <class T>
  T run(Task<T> task) {
    std::optional<T> value;
    start(detail::store_result(std::move(task), &value));
    run_until_done();
    return std::move(*value);
  }
  void run(Task<void> task) {
    start(std::move(task));
    run_until_done();
  }

 private:
  void start(Task<void> task);
  void run_until_done();
  bool step();  // one resumption or one jump in time; false if there was nothing to do
  detail::Root drive(Task<void> task);

  Executor* previous_;
  TimePoint now_{};
  bool done_ = true;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::coroutine_handle<>> ready_;
};

}  // namespace quarry
