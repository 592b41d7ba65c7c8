// ThreadPool: a bounded set of threads for calls that block (RocksDB, name lookup) and for long computation.
//   Result<Value> r = co_await blocking(pool, [=] { return db->get(key); });   // fn is a plain function object, run on a pool thread
// Thread-safe. The queue is unbounded in length but each waiter is a suspended request, so admission upstream bounds it.
#pragma once
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

}  // namespace quarry
