// Executor: one event loop. Coroutines posted to it run on its thread, one at a time; so the plain data of objects confined to a loop
// needs no lock. In which order those run that are ready at the same time is not promised (the simulated one draws it). Real:
// io/ring_executor.h (io_uring). Simulated, with virtual time: io/sim/sim_executor.h.
#pragma once
#include <chrono>
#include <coroutine>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/units.h"
#include "io/task.h"

namespace quarry {

// Monotonic time of an executor (virtual in the simulator), ns since an arbitrary start.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;
inline constexpr TimePoint kNoDeadline = TimePoint::max();

// A one-shot timer, confined to its executor's thread. The callback runs on that thread. Cancel before destruction.
// Arming costs no allocation; timers due at the same time fire in the order in which they were armed.
struct Timer {
  void (*fire)(Timer&) = nullptr;
  TimePoint at{};
  uint64_t sequence = 0;  // set by arm
  size_t position = 0;    // in the executor's heap
  bool armed = false;
};

class BlockingPool;
class Random;

class Executor {
 public:
  virtual ~Executor() = default;

  // Resumes handle on this executor's thread, later. Thread-safe. After stop, handles are still run until the loop is idle.
  virtual void post(std::coroutine_handle<> handle) = 0;
  virtual TimePoint now() const = 0;

  // A long loop that has run since then is to let others run (io/pace.h).
  virtual bool had_its_time(TimePoint since);
  // A pool of this executor's kind, `threads` wide: real threads, or the simulator's.
  virtual std::unique_ptr<BlockingPool> make_pool(std::string name, size_t threads);
  // Randomness of this executor's kind: the system's, or drawn from the simulator's seed. On this executor's thread.
  virtual Random& random();
  // Work that may never return, on a thread of its own that nobody joins (WorkApart counts it).
  virtual void run_apart(std::function<void()> work);

  // The executor whose thread this is, or null on a foreign thread.
  static Executor* current();
  static Executor& here();  // CHECKs that there is one

  // On this executor's thread only, or while its loop does not run. O(log armed timers).
  void arm(Timer& timer, TimePoint at);
  void cancel(Timer& timer);

  // co_await executor.enter(): continue on this executor. No-op when already there.
  struct Enter {
    Executor& to;
    bool await_ready() const noexcept { return Executor::current() == &to; }
    void await_suspend(std::coroutine_handle<> handle) const { to.post(handle); }
    void await_resume() const noexcept {}
  };
  Enter enter() { return Enter{*this}; }

  // co_await executor.yield(): let everything else that is ready run first.
  struct Yield {
    Executor& to;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const { to.post(handle); }
    void await_resume() const noexcept {}
  };
  Yield yield() { return Yield{*this}; }

 protected:
  // Runs what is due; returns the time of the next timer, or kNoDeadline.
  TimePoint fire_due_timers(TimePoint now);
  // A timer has fired and is done with: for who measures how long that took.
  virtual void timer_done() {}
  TimePoint next_timer() const { return timers_.empty() ? kNoDeadline : timers_.front()->at; }
  static void set_current(Executor* executor);

  // True on this executor's thread; also where its loop does not run at all, as before the first run or after the last.
  virtual bool may_touch() const { return current() == this; }

 private:
  static bool before(const Timer& a, const Timer& b) { return a.at != b.at ? a.at < b.at : a.sequence < b.sequence; }
  void place(size_t position, Timer* timer);
  void sift_up(size_t position);
  void sift_down(size_t position);
  std::vector<Timer*> timers_;  // a binary heap, the next one first
  uint64_t next_sequence_ = 0;
};

// Waits on the current executor. Not cancellable; for waits that must be, use Event::wait_until.
Task<void> sleep_for(Duration duration);
Task<void> sleep_until(TimePoint at);

// Runs a task on another executor and comes back to the caller's.
template <class T>
Task<T> on(Executor& executor, Task<T> task) {
  Executor& home = Executor::here();
  co_await executor.enter();
  if constexpr (std::is_void_v<T>) {
    co_await std::move(task);
    co_await home.enter();
  } else {
    T value = co_await std::move(task);
    co_await home.enter();
    co_return value;
  }
}

}  // namespace quarry
