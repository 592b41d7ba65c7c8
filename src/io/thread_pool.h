// ThreadPool: a bounded set of threads for calls that block (RocksDB, name lookup) and for long computation.
//   Result<Value> r = co_await blocking(pool, [=] { return db->get(key); });   // fn is a plain function object, run on a pool thread
// Thread-safe. The queue is unbounded in length but each waiter is a suspended request, so admission upstream bounds it.
//
// For a call that may never return (a disk that hangs) there is blocking_apart: a thread of its own, which nobody joins.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "io/executor.h"

namespace quarry {

class ThreadPool {
 public:
  ThreadPool(std::string name, size_t threads);
  ~ThreadPool();  // runs what is queued, then ends
  void submit(std::function<void()> work);

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

namespace detail {
template <class F, class T>
struct BlockingAwaiter {
  ThreadPool& pool;
  F fn;
  std::optional<T> value{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    Executor& home = Executor::here();
    pool.submit([this, handle, &home] {
      value.emplace(fn());
      home.post(handle);
    });
  }
  T await_resume() { return std::move(*value); }
};
}  // namespace detail

// Runs fn on the pool and resumes on the caller's executor with what it returned (not void).
template <class F, class T = std::invoke_result_t<F&>>
Task<T> blocking(ThreadPool& pool, F fn) {
  detail::BlockingAwaiter<F, T> awaiter{pool, std::move(fn)};
  T value = co_await awaiter;
  co_return value;
}

// Work that may never come back, of the whole process. While there is any, what it uses (executors, pools, buffers) must be left where it
// is, and the process can only end at once (_exit).
class WorkApart {
 public:
  WorkApart() { count().fetch_add(1); }
  WorkApart(const WorkApart&) = delete;
  ~WorkApart() { count().fetch_sub(1); }
  static size_t under_way() { return count().load(); }

 private:
  static std::atomic<size_t>& count();
};

namespace detail {
void run_apart(std::function<void()> work);  // on a new thread, which is not joined

template <class F, class T>
struct ApartAwaiter {
  F fn;
  std::optional<T> value{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    Executor& home = Executor::here();
    run_apart([this, handle, &home] {
      const WorkApart counted;  // until the executor has it
      value.emplace(fn());
      home.post(handle);
    });
  }
  T await_resume() { return std::move(*value); }
};
}  // namespace detail

// As blocking, for a call that may never return: on a thread of its own. Who waits for it waits as long; to wait with patience, see
// daemon/patience.h. It costs a thread (tens of microseconds): for opening things, not for reading them.
template <class F, class T = std::invoke_result_t<F&>>
Task<T> blocking_apart(F fn) {
  detail::ApartAwaiter<F, T> awaiter{std::move(fn)};
  T value = co_await awaiter;
  co_return value;
}

}  // namespace quarry
