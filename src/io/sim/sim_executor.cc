#include "io/sim/sim_executor.h"

#include <cstdlib>

#include "io/sim/sim_pool.h"

namespace quarry {

uint64_t SimExecutor::default_seed() {
  const char* text = std::getenv("QUARRY_SIM_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
}

SimExecutor::SimExecutor() : SimExecutor(Options{}) {}
SimExecutor::SimExecutor(Options options) : options_(options), random_(options.seed), previous_(Executor::current()) { set_current(this); }
SimExecutor::~SimExecutor() {
  apart_.reset();
  set_current(previous_);
}

void SimExecutor::post(std::coroutine_handle<> handle) {
  // Notified inside the lock: once it is free, the loop may run to its end and destroy this executor.
  const std::lock_guard lock(mutex_);
  ready_.push_back(handle);
  wake_.notify_one();
}

bool SimExecutor::step() {
  std::coroutine_handle<> handle;
  {
    const std::lock_guard lock(mutex_);
    if (!ready_.empty()) {
      std::swap(ready_[ready_.size() > 1 ? random_.below(ready_.size()) : 0], ready_.back());
      handle = ready_.back();
      ready_.pop_back();
    }
  }
  if (handle) {
    handle.resume();
    return true;
  }
  const TimePoint next = fire_due_timers(now_);
  {
    const std::lock_guard lock(mutex_);
    if (!ready_.empty()) return true;
  }
  if (next == kNoDeadline) return false;
  now_ = next;
  fire_due_timers(now_);
  return true;
}

bool SimExecutor::had_its_time(TimePoint) {
  constexpr uint64_t kOneIn = 16;
  return random_.below(kOneIn) == 0;
}
std::unique_ptr<BlockingPool> SimExecutor::make_pool(std::string name, size_t threads) {
  if (options_.threads) return Executor::make_pool(std::move(name), threads);
  return std::make_unique<SimPool>(*this, threads);
}
void SimExecutor::run_apart(std::function<void()> work) {
  if (options_.threads) return Executor::run_apart(std::move(work));
  if (apart_ == nullptr) apart_ = std::make_unique<SimPool>(*this, SIZE_MAX, SimPool::AtTheEnd::drop_the_rest);
  apart_->submit(std::move(work));
}

size_t SimExecutor::run_until_idle() {
  size_t steps = 0;
  while (step()) ++steps;
  return steps;
}

detail::Root SimExecutor::drive(Task<void> task) {
  co_await std::move(task);
  done_ = true;
}

void SimExecutor::start(Task<void> task) {
  CHECK(done_, "SimExecutor::run does not nest");
  done_ = false;
  drive(std::move(task));
}

void SimExecutor::run_until_done() {
  while (!done_) {
    if (step() || done_) continue;  // a timer that fired may have ended the task and left nothing to do
    CHECK(options_.threads, "the task waits for something that never comes");
    std::unique_lock lock(mutex_);
    const bool woken = wake_.wait_for(lock, std::chrono::seconds(60), [this] { return !ready_.empty(); });
    CHECK(woken, "the task waits for something that never comes");
  }
}

}  // namespace quarry
