#include "io/sim/sim_pool.h"

#include "io/sim/sim_executor.h"

namespace quarry {
namespace {
constexpr uint64_t kWorkMax = 400'000;  // ns: a read that misses the page cache
}  // namespace

struct SimPool::Job : Timer {
  SimPool* pool = nullptr;
  std::list<Job>::iterator self;
  std::function<void()> work;
};

SimPool::SimPool(SimExecutor& executor, size_t width, AtTheEnd at_the_end) : executor_(executor), width_(width), at_the_end_(at_the_end) {}

SimPool::~SimPool() {
  while (!under_way_.empty() || !queue_.empty()) {
    std::function<void()> work;
    if (!under_way_.empty()) {
      executor_.cancel(under_way_.front());
      work = std::move(under_way_.front().work);
      under_way_.pop_front();
    } else {
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    if (at_the_end_ == AtTheEnd::run_the_rest) work();
  }
}

void SimPool::submit(std::function<void()> work) {
  queue_.push_back(std::move(work));
  start_next();
}

void SimPool::start_next() {
  while (under_way_.size() < width_ && !queue_.empty()) {
    Job& job = under_way_.emplace_back();
    job.pool = this;
    job.self = std::prev(under_way_.end());
    job.work = std::move(queue_.front());
    queue_.pop_front();
    job.fire = [](Timer& timer) {
      auto& done = static_cast<Job&>(timer);
      SimPool* pool = done.pool;
      const std::function<void()> todo = std::move(done.work);
      pool->under_way_.erase(done.self);
      pool->start_next();
      todo();  // the last touch: it may destroy the pool
    };
    executor_.arm(job, executor_.now() + Duration(1 + executor_.random().below(kWorkMax)));
  }
}

}  // namespace quarry
