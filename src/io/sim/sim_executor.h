// SimExecutor: an event loop in the calling thread with virtual time. When nothing is ready, time jumps to the next timer; with
// no timer left, the run is over. Which of several ready tasks runs next is drawn from the seed: the same seed gives the same run.
// For unit tests and the simulator.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>

#include "io/blocking_pool.h"
#include "io/clock.h"
#include "io/sync.h"

namespace quarry {

class SimExecutor : public Executor {
 public:
  struct Options {
    uint64_t seed = default_seed();
    // Pools of this executor are real threads, and a run waits for them in real time (60 s at most): for what is tested with threads. Else
    // everything happens in the calling thread, and nothing depends on how fast it is.
    bool threads = false;
  };
  SimExecutor();
  explicit SimExecutor(Options options);
  ~SimExecutor() override;
  static uint64_t default_seed();  // QUARRY_SIM_SEED, else 1

  void post(std::coroutine_handle<> handle) override;  // thread-safe
  TimePoint now() const override { return now_; }
  bool had_its_time(TimePoint since) override;  // now and then: virtual time does not pass while a loop runs
  std::unique_ptr<BlockingPool> make_pool(std::string name, size_t threads) override;
  void run_apart(std::function<void()> work) override;

  Random& random() override { return random_; }
  void draw_from(uint64_t seed) { random_ = SeededRandom(seed); }  // from now on

  // Time passes and nothing runs: the process was stopped, or the guest paused. Between runs.
  void stand_still(Duration duration) { now_ += duration; }

  // Runs until nothing is ready and no timer is armed. Returns the number of resumptions.
  size_t run_until_idle();

  // Runs the task to its end and returns its value; CHECKs that it did end (a task that waits for ever is a bug).
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

  const Options options_;
  std::unique_ptr<BlockingPool> apart_;
  SeededRandom random_;
  Executor* previous_;
  TimePoint now_{};
  bool done_ = true;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::coroutine_handle<>> ready_;
};

}  // namespace quarry
