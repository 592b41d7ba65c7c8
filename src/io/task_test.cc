#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"
#include "io/thread_pool.h"

namespace quarry {
namespace {

Task<int> ready(int value) { co_return value; }

Task<int64_t> sum_of_ready_tasks(int count) {
  int64_t sum = 0;
  for (int i = 0; i < count; ++i) {
    const int value = co_await ready(1);
    sum += value;
  }
  co_return sum;
}

TEST(Task, a_million_ready_tasks_need_no_stack) {
  SimExecutor executor;
  EXPECT_EQ(executor.run(sum_of_ready_tasks(1'000'000)), 1'000'000);
}

Task<std::vector<int>> three_sleepers() {
  std::vector<Task<int>> tasks;
  for (const int ms : {30, 10, 20}) {
    tasks.push_back([](int delay) -> Task<int> {
      co_await sleep_for(std::chrono::milliseconds(delay));
      co_return delay;
    }(ms));
  }
  auto values = co_await when_all(std::move(tasks));
  co_return values;
}

TEST(Task, when_all_keeps_order_and_waits_concurrently_in_virtual_time) {
  SimExecutor executor;
  const auto start = executor.now();
  EXPECT_EQ(executor.run(three_sleepers()), (std::vector<int>{30, 10, 20}));
  EXPECT_EQ(executor.now() - start, std::chrono::milliseconds(30));
}

Task<bool> wait_with_deadline(Event& event, Duration duration) {
  const bool in_time = co_await event.wait_until(Executor::here().now() + duration);
  co_return in_time;
}

TEST(Task, an_event_times_out_or_wakes) {
  SimExecutor executor;
  Event event;
  EXPECT_FALSE(executor.run(wait_with_deadline(event, std::chrono::seconds(5))));
  event.set();
  EXPECT_TRUE(executor.run(wait_with_deadline(event, std::chrono::seconds(5))));
}

Task<int> semaphore_peak(int workers, uint64_t permits) {
  Semaphore semaphore(permits);
  int inside = 0, peak = 0;
  TaskGroup group;
  for (int i = 0; i < workers; ++i) {
    group.spawn([](Semaphore& s, int& in, int& top) -> Task<void> {
      co_await s.acquire();
      top = std::max(top, ++in);
      co_await sleep_for(std::chrono::milliseconds(1));
      --in;
      s.release();
    }(semaphore, inside, peak));
  }
  co_await group.join();
  co_return peak;
}

TEST(Task, a_semaphore_bounds_concurrency) {
  SimExecutor executor;
  EXPECT_EQ(executor.run(semaphore_peak(20, 3)), 3);
}

Task<int> on_a_pool(ThreadPool& pool) {
  const auto here = std::this_thread::get_id();
  const bool elsewhere = co_await blocking(pool, [here] { return std::this_thread::get_id() != here; });
  co_return elsewhere && std::this_thread::get_id() == here ? 1 : 0;
}

TEST(Task, blocking_work_runs_on_the_pool_and_comes_home) {
  SimExecutor executor;
  ThreadPool pool("test", 2);
  EXPECT_EQ(executor.run(on_a_pool(pool)), 1);
}

Task<Result<int>> failing() { co_return fail(Code::not_found, "nothing"); }
Task<Result<int>> passing_on() {
  CO_TRY_ASSIGN(const int value, co_await failing());
  co_return value;
}

TEST(Task, co_try_passes_an_error_up) {
  SimExecutor executor;
  const auto result = executor.run(passing_on());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::not_found);
}

}  // namespace
}  // namespace quarry
