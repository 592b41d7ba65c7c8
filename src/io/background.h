// Background: counts tasks that nobody awaits, so that closing can wait for all of them: nothing is detached.
// Thread-safe. Whoever owns it outlives its tasks, because join() returns only when none is left.
#pragma once
#include <atomic>

#include "io/executor.h"

namespace quarry {

class Background {
 public:
  explicit Background(Executor& home) : home_(home) {}
  ~Background() { CHECK(running_ == 0, "Background dies with running tasks: stop it first"); }
  Background(const Background&) = delete;

  // Starts the task on the current executor, now.
  void spawn_here(Task<void> task) {
    running_.fetch_add(1);
    run(std::move(task), nullptr);
  }
  // Starts the task on the home executor; any thread.
  void spawn(Task<void> task) {
    running_.fetch_add(1);
    run(std::move(task), &home_);
  }
  size_t running() const { return running_.load(); }
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }
  Executor& home() const { return home_; }

  // Long-running tasks see stopping() and end; waits for all. On the home executor.
  void request_stop() { stopping_.store(true, std::memory_order_release); }
  Task<void> join() {
    while (running_.load() > 0) co_await sleep_for(std::chrono::microseconds(200));
  }

 private:
  detail::Root run(Task<void> task, Executor* where) {
    if (where != nullptr) co_await where->enter();
    {
      Task<void> own = std::move(task);
      co_await std::move(own);
    }  // what the task held is gone before it counts as ended: the plane may be destroyed right after
    running_.fetch_sub(1);
  }
  Executor& home_;
  std::atomic<size_t> running_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace quarry
