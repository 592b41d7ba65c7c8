#include "io/sim/sim_executor.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "io/pace.h"

namespace quarry {
namespace {

Task<void> tell(std::string* order, char name) {
  for (int i = 0; i < 3; ++i) {
    *order += name;
    co_await Executor::here().yield();
  }
}
Task<std::string> tell_all() {
  std::string order;
  TaskGroup group;
  for (const char name : {'a', 'b', 'c', 'd'}) group.spawn(tell(&order, name));
  co_await group.join();
  co_return order;
}

TEST(SimExecutor, the_order_of_ready_tasks_is_drawn_from_the_seed_alone) {
  std::set<std::string> orders;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::string first, again;
    {
      first = SimExecutor({.seed = seed}).run(tell_all());
    }
    {
      again = SimExecutor({.seed = seed}).run(tell_all());
    }
    EXPECT_EQ(first, again) << "seed " << seed;
    orders.insert(first);
  }
  EXPECT_GT(orders.size(), 15u);
}

Task<void> pace_along(std::string* order, char name) {
  Pace pace;
  for (int i = 0; i < 200; ++i) {
    co_await pace;
    *order += name;
  }
}
Task<std::string> pace_together() {
  std::string order;
  TaskGroup group;
  for (const char name : {'a', 'b'}) group.spawn(pace_along(&order, name));
  co_await group.join();
  co_return order;
}

TEST(SimExecutor, long_loops_let_others_run_at_any_place) {
  std::string order = SimExecutor({.seed = 3}).run(pace_together());
  EXPECT_EQ(order.size(), 400u);
  order.erase(std::unique(order.begin(), order.end()), order.end());
  EXPECT_GT(order.size(), 5u) << "they took turns";
}

Task<void> work_beside(BlockingPool* pool, int number, std::vector<int>* ended) {
  const std::thread::id loop = std::this_thread::get_id();
  const bool same_thread = co_await blocking(*pool, [loop] { return std::this_thread::get_id() == loop; });
  EXPECT_TRUE(same_thread);
  ended->push_back(number);
}
Task<std::vector<int>> work_beside_each_other(size_t width) {
  const std::unique_ptr<BlockingPool> pool = Executor::here().make_pool("test", width);
  std::vector<int> ended;
  TaskGroup group;
  for (int i = 0; i < 8; ++i) group.spawn(work_beside(pool.get(), i, &ended));
  co_await group.join();
  co_return ended;
}

TEST(SimExecutor, work_of_its_pools_takes_virtual_time_and_a_wide_pool_ends_it_in_any_order) {
  const std::vector<int> in_order{0, 1, 2, 3, 4, 5, 6, 7};
  SimExecutor narrow({.seed = 7});
  std::vector<int> ended = narrow.run(work_beside_each_other(1));
  std::sort(ended.begin(), ended.end());
  EXPECT_EQ(ended, in_order);
  EXPECT_GT(narrow.now(), TimePoint{});
  SimExecutor wide({.seed = 7});
  EXPECT_NE(wide.run(work_beside_each_other(8)), in_order);
  EXPECT_LT(wide.now() - TimePoint{}, narrow.now() - TimePoint{});
}

TEST(SimExecutor, a_pool_that_ends_runs_what_is_queued) {
  SimExecutor executor;
  int ran = 0;
  {
    const auto pool = executor.make_pool("test", 2);
    for (int i = 0; i < 5; ++i) pool->submit([&ran] { ++ran; });
    EXPECT_EQ(ran, 0) << "not before its time";
  }
  EXPECT_EQ(ran, 5);
}

TEST(SimExecutor, work_apart_that_is_not_done_at_the_end_never_is) {
  bool ran = false;
  {
    SimExecutor executor;
    executor.run_apart([&ran] { ran = true; });
  }
  EXPECT_FALSE(ran);
  SimExecutor executor;
  EXPECT_EQ(executor.run(blocking_apart([] { return 5; })), 5);
}

TEST(SimExecutor, with_threads_a_run_waits_for_them) {
  SimExecutor executor({.threads = true});
  const auto pool = executor.make_pool("test", 1);
  const std::thread::id loop = std::this_thread::get_id();
  EXPECT_TRUE(executor.run(blocking(*pool, [loop] { return std::this_thread::get_id() != loop; })));
}

}  // namespace
}  // namespace quarry
