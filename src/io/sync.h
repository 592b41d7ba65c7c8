// Waiting inside one executor: Event, Semaphore, TaskGroup, when_all. All are confined to the executor on which they are used;
// to signal from another thread, post or `on` to that executor first.
#pragma once
#include <deque>
#include <vector>

#include "base/result.h"
#include "io/executor.h"

namespace quarry {

// A level-triggered flag that tasks wait for. set() resumes all waiters (through the executor's queue).
class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  ~Event() { CHECK(waiters_.empty(), "an Event dies under its waiters"); }
  bool is_set() const { return set_; }
  void set();
  void reset() { set_ = false; }
  // Wakes the present waiters without setting the flag.
  void pulse();
  Task<void> wait();
  // true: set or pulsed; false: the time came first.
  Task<bool> wait_until(TimePoint at);

 private:
  struct Waiter;
  void wake_all();
  bool set_ = false;
  std::deque<Waiter*> waiters_;
};

// Counted permits, first come first served.
class Semaphore {
 public:
  explicit Semaphore(uint64_t permits) : available_(permits) {}
  Semaphore(const Semaphore&) = delete;
  ~Semaphore() { CHECK(waiters_.empty(), "a Semaphore dies under its waiters"); }
  Task<void> acquire(uint64_t permits = 1);
  bool try_acquire(uint64_t permits = 1);
  void release(uint64_t permits = 1);
  uint64_t available() const { return available_; }
  size_t waiting() const { return waiters_.size(); }

 private:
  struct Waiter {
    std::coroutine_handle<> handle;
    uint64_t permits;
  };
  struct Acquire;
  uint64_t available_;
  std::deque<Waiter> waiters_;
};

// Owns running tasks: nothing is detached. join() waits for all; the destructor checks that none is left.
class TaskGroup {
 public:
  TaskGroup() = default;
  TaskGroup(const TaskGroup&) = delete;
  ~TaskGroup() { CHECK(running_ == 0, "a TaskGroup dies with running tasks: join it first"); }
  // Starts the task now, on the current executor.
  void spawn(Task<void> task);
  size_t running() const { return running_; }
  Task<void> join();

 private:
  detail::Root run(Task<void> task);
  size_t running_ = 0;
  Event empty_;
};

namespace detail {
template <class T>
Task<void> store_result(Task<T> task, std::optional<T>* slot) {
  slot->emplace(co_await std::move(task));
}
}  // namespace detail

// Runs all tasks concurrently on the current executor; results in the order of the tasks.
template <class T>
Task<std::vector<T>> when_all(std::vector<Task<T>> tasks) {
  std::vector<std::optional<T>> slots(tasks.size());
  TaskGroup group;
  for (size_t i = 0; i < tasks.size(); ++i) group.spawn(detail::store_result(std::move(tasks[i]), &slots[i]));
  co_await group.join();
  std::vector<T> values;
  values.reserve(slots.size());
  for (auto& slot : slots) values.push_back(std::move(*slot));
  co_return values;
}

}  // namespace quarry
