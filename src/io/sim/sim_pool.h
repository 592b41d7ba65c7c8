// SimPool: the BlockingPool of a SimExecutor. Work runs in the loop's thread, one piece at a time, at a virtual time drawn from the
// executor's seed; no more of it is under way than the pool is wide, so a later piece may end first. Work must not wait for the loop.
#pragma once
#include <deque>
#include <list>

#include "io/blocking_pool.h"

namespace quarry {

class SimExecutor;

class SimPool final : public BlockingPool {
 public:
  enum class AtTheEnd : uint8_t { run_the_rest, drop_the_rest };
  SimPool(SimExecutor& executor, size_t width, AtTheEnd at_the_end = AtTheEnd::run_the_rest);
  ~SimPool() override;
  void submit(std::function<void()> work) override;

 private:
  struct Job;
  void start_next();
  SimExecutor& executor_;
  const size_t width_;
  const AtTheEnd at_the_end_;
  std::deque<std::function<void()>> queue_;
  std::list<Job> under_way_;
};

}  // namespace quarry
