// ThreadPool: the BlockingPool of a real process, a bounded set of threads; and threads of their own for calls that may never return.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "io/blocking_pool.h"

namespace quarry {

class ThreadPool final : public BlockingPool {
 public:
  ThreadPool(std::string name, size_t threads);
  ~ThreadPool() override;
  void submit(std::function<void()> work) override;

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

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
}  // namespace detail

}  // namespace quarry
