#include "io/thread_pool.h"

#include <pthread.h>

namespace quarry {

ThreadPool::ThreadPool(std::string name, size_t threads) {
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] {
      pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
      run();
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::submit(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
}

void ThreadPool::run() {
  for (;;) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

std::atomic<size_t>& WorkApart::count() {
  static std::atomic<size_t> under_way{0};
  return under_way;
}

void detail::run_apart(std::function<void()> work) {
  std::thread([work = std::move(work)] {
    pthread_setname_np(pthread_self(), "apart");
    work();
  }).detach();
}

}  // namespace quarry
