// BlockingPool: where calls that block (RocksDB, name lookup) and long computation run, beside the loops.
//   Result<Value> r = co_await blocking(pool, [=] { return db->get(key); });   // fn is a plain function object, run by the pool
// Real: threads, io/thread_pool.h. Simulated: io/sim/sim_pool.h. Code that is not given one makes its own with Executor::make_pool.
// For a call that may never return (a disk that hangs) there is blocking_apart.
#pragma once
#include <functional>

#include "io/executor.h"

namespace quarry {

class BlockingPool {
 public:
  virtual ~BlockingPool() = default;  // runs what is queued, then ends
  // Runs the work once, later; as much at a time as the pool is wide. Thread-safe. The queue is unbounded in length, but each waiter is a
  // suspended request, so admission upstream bounds it.
  virtual void submit(std::function<void()> work) = 0;
};

namespace detail {
// Starts `fn` wherever `run` runs work, and resumes at home with what it returned.
template <class F, class Run, class T>
struct AsideAwaiter {
  Run run;
  F fn;
  std::optional<T> value{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    Executor& home = Executor::here();
    run([this, handle, &home] {
      value.emplace(fn());
      home.post(handle);
    });
  }
  T await_resume() { return std::move(*value); }
};
}  // namespace detail

// Runs fn on the pool and resumes on the caller's executor with what it returned (not void).
template <class F, class T = std::invoke_result_t<F&>>
Task<T> blocking(BlockingPool& pool, F fn) {
  auto run = [&pool](std::function<void()> work) { pool.submit(std::move(work)); };
  detail::AsideAwaiter<F, decltype(run), T> awaiter{run, std::move(fn)};
  T value = co_await awaiter;
  co_return value;
}

// As blocking, for a call that may never return: on a thread of its own. Who waits for it waits as long; to wait with patience, see
// daemon/patience.h. It costs a thread (tens of microseconds): for opening things, not for reading them.
template <class F, class T = std::invoke_result_t<F&>>
Task<T> blocking_apart(F fn) {
  auto run = [&executor = Executor::here()](std::function<void()> work) { executor.run_apart(std::move(work)); };
  detail::AsideAwaiter<F, decltype(run), T> awaiter{run, std::move(fn)};
  T value = co_await awaiter;
  co_return value;
}

}  // namespace quarry
