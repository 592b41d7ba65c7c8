#include "io/executor.h"

#include "io/clock.h"
#include "io/thread_pool.h"

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

bool Executor::had_its_time(TimePoint since) {
  // A step of a task is to hold its loop for 10 ms at most; what is between two looks at the pace comes on top of this.
  constexpr Duration kHoldMax = std::chrono::milliseconds(2);
  return now() - since >= kHoldMax;
}
std::unique_ptr<BlockingPool> Executor::make_pool(std::string name, size_t threads) {
  return std::make_unique<ThreadPool>(std::move(name), threads);
}
Random& Executor::random() { return system_random(); }
void Executor::run_apart(std::function<void()> work) {
  detail::run_apart([work = std::move(work)] {
    const WorkApart counted;  // until the executor has what came of it
    work();
  });
}

void Executor::place(size_t position, Timer* timer) {
  timers_[position] = timer;
  timer->position = position;
}
void Executor::sift_up(size_t position) {
  Timer* timer = timers_[position];
  while (position > 0 && before(*timer, *timers_[(position - 1) / 2])) {
    place(position, timers_[(position - 1) / 2]);
    position = (position - 1) / 2;
  }
  place(position, timer);
}
void Executor::sift_down(size_t position) {
  Timer* timer = timers_[position];
  for (;;) {
    size_t child = 2 * position + 1;
    if (child >= timers_.size()) break;
    if (child + 1 < timers_.size() && before(*timers_[child + 1], *timers_[child])) ++child;
    if (!before(*timers_[child], *timer)) break;
    place(position, timers_[child]);
    position = child;
  }
  place(position, timer);
}

void Executor::arm(Timer& timer, TimePoint at) {
  DCHECK(may_touch());
  CHECK(!timer.armed);
  timer.at = at;
  timer.sequence = next_sequence_++;
  timer.armed = true;
  timers_.push_back(&timer);
  sift_up(timers_.size() - 1);
}

void Executor::cancel(Timer& timer) {
  if (!timer.armed) return;
  DCHECK(may_touch());
  const size_t position = timer.position;
  CHECK(position < timers_.size() && timers_[position] == &timer, "a timer is cancelled on an executor that does not have it");
  timer.armed = false;
  Timer* last = timers_.back();
  timers_.pop_back();
  if (last == &timer) return;
  place(position, last);
  sift_down(position);
  sift_up(last->position);
}

TimePoint Executor::fire_due_timers(TimePoint until) {
  while (!timers_.empty() && timers_.front()->at <= until) {
    Timer& timer = *timers_.front();
    cancel(timer);
    timer.fire(timer);  // may destroy the timer
    timer_done();
  }
  return next_timer();
}

Task<void> sleep_until(TimePoint at) { co_await Sleep(at); }
Task<void> sleep_for(Duration duration) { co_await Sleep(Executor::here().now() + duration); }

}  // namespace quarry
