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
  co_return elsewhere&& std::this_thread::get_id() == here ? 1 : 0;
}

TEST(Task, blocking_work_runs_on_the_pool_and_comes_home) {
  SimExecutor executor({.threads = true});
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

// ---- The rules for writing coroutines (CONVENTIONS 6). Each case is the allowed form of something that one compiler or another
// gets wrong in its shorter form; run under ASan these would show a double free or a use after return.

struct Counted {
  static inline int alive = 0;
  std::string text;
  explicit Counted(std::string t) : text(std::move(t)) { ++alive; }
  Counted(const Counted& other) : text(other.text) { ++alive; }
  Counted(Counted&& other) noexcept : text(std::move(other.text)) { ++alive; }
  Counted& operator=(const Counted&) = default;
  ~Counted() { --alive; }
};
struct Aggregate {
  Counted counted;
  std::vector<int> numbers;
};

Task<size_t> length_of(Counted value) {
  co_await Executor::here().yield();
  co_return value.text.size();
}
Task<size_t> length_of_aggregate(Aggregate value) {
  co_await Executor::here().yield();
  co_return value.counted.text.size() + value.numbers.size();
}
template <class F>
Task<size_t> call(F fn) {
  co_await Executor::here().yield();
  co_return fn();
}

Task<size_t> rules_for_arguments() {
  // Parameters by value outlive the suspension, though what they were made from is gone.
  Task<size_t> pending;
  {
    const Counted local("gone before it runs");
    pending = length_of(local);
  }
  const size_t first = co_await std::move(pending);
  // A capturing lambda is named before the statement that awaits.
  const Counted captured("captured");
  auto lambda = [captured] { return captured.text.size(); };
  const size_t second = co_await call(std::move(lambda));
  // So is a std::function, and an aggregate.
  std::function<size_t()> function = [captured] { return captured.text.size(); };
  const size_t third = co_await call(std::move(function));
  Aggregate aggregate{Counted("aggregate"), {1, 2, 3}};
  const size_t fourth = co_await length_of_aggregate(std::move(aggregate));
  co_return first + second + third + fourth;
}

TEST(TaskRules, arguments_are_owned_once_and_freed_once) {
  {
    SimExecutor executor;
    EXPECT_EQ(executor.run(rules_for_arguments()), 19u + 8 + 8 + 12);
  }
  EXPECT_EQ(Counted::alive, 0);
}

Task<std::pair<int, Counted>> a_pair() { co_return std::pair(7, Counted("pair")); }
Task<std::string> rules_for_results(bool which) {
  // Instead of ?: with awaits in its arms.
  std::string text;
  if (which) {
    Counted value("left");
    const size_t length = co_await length_of(std::move(value));
    text = fmt::format("left {}", length);
  } else {
    text = "right";
  }
  // A name first, then the structured binding.
  auto pair = co_await a_pair();
  auto& [number, counted] = pair;
  co_return fmt::format("{} {} {}", text, number, counted.text);
}

TEST(TaskRules, results_are_named_before_they_are_taken_apart) {
  {
    SimExecutor executor;
    EXPECT_EQ(executor.run(rules_for_results(true)), "left 4 7 pair");
    EXPECT_EQ(executor.run(rules_for_results(false)), "right 7 pair");
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST(TaskRules, a_lambda_without_captures_gets_its_data_as_parameters) {
  SimExecutor executor;
  const size_t length = executor.run([](Counted value, size_t extra) -> Task<size_t> {
    co_await sleep_for(std::chrono::milliseconds(1));
    co_return value.text.size() + extra;
  }(Counted("four"), 6));
  EXPECT_EQ(length, 10u);
  EXPECT_EQ(Counted::alive, 0);
}

Task<Result<size_t>> failing_halfway(bool fails) {
  const Counted held("held while it fails");
  if (fails) CO_TRY(co_await failing());
  Counted moved("moved");
  CO_TRY_ASSIGN(const int value, co_await []() -> Task<Result<int>> { co_return 3; }());
  const size_t length = co_await length_of(std::move(moved));
  co_return length + static_cast<size_t>(value) + held.text.size();
}

TEST(TaskRules, what_a_failing_task_held_is_freed) {
  SimExecutor executor;
  EXPECT_FALSE(executor.run(failing_halfway(true)));
  EXPECT_EQ(executor.run(failing_halfway(false)).value_or(0), 5u + 3 + 19);
  EXPECT_EQ(Counted::alive, 0);
}

TEST(TaskRules, a_task_that_never_ran_frees_its_parameters) {
  {
    Task<size_t> never = length_of(Counted("never"));
    EXPECT_TRUE(never.valid());
    Task<size_t> taken = std::move(never);
    EXPECT_FALSE(never.valid());  // NOLINT: moved from on purpose
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Timers, fire_in_order_of_time_then_of_arming_and_not_when_cancelled) {
  struct Named : Timer {
    int number = 0;
    std::vector<int>* fired = nullptr;
  };
  SimExecutor executor;
  std::vector<int> fired;
  std::vector<Named> timers(200);
  uint64_t random = 99;
  std::vector<std::pair<int64_t, int>> expected;
  for (int i = 0; i < 200; ++i) {
    Named& timer = timers[static_cast<size_t>(i)];
    timer.number = i;
    timer.fired = &fired;
    timer.fire = [](Timer& t) { static_cast<Named&>(t).fired->push_back(static_cast<Named&>(t).number); };
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    const int64_t at = static_cast<int64_t>(random >> 40) % 20;
    executor.arm(timer, executor.now() + std::chrono::milliseconds(at));
    if (i % 3 != 0) expected.emplace_back(at, i);
  }
  for (size_t i = 0; i < timers.size(); i += 3) executor.cancel(timers[i]);
  for (size_t i = 0; i < timers.size(); i += 3) executor.cancel(timers[i]);  // twice is nothing
  executor.run_until_idle();
  std::sort(expected.begin(), expected.end());  // numbers are in order of arming
  std::vector<int> order;
  for (const auto& [at, number] : expected) order.push_back(number);
  EXPECT_EQ(fired, order);
}

TEST(Sync, a_pulse_wakes_the_present_waiters_only) {
  SimExecutor executor;
  Event event;
  const int woken = executor.run([](Event& e) -> Task<int> {
    int count = 0;
    TaskGroup group;
    const auto waiter = [](Event& on_event, int& woke) -> Task<void> {
      const bool in_time = co_await on_event.wait_until(Executor::here().now() + std::chrono::seconds(1));
      woke += in_time;
    };
    group.spawn(waiter(e, count));
    group.spawn(waiter(e, count));
    co_await sleep_for(std::chrono::milliseconds(1));
    e.pulse();
    group.spawn(waiter(e, count));
    co_await group.join();
    co_return count;
  }(event));
  EXPECT_EQ(woken, 2);
}

TEST(Sync, a_semaphore_serves_in_order_of_arrival_also_large_wishes) {
  SimExecutor executor;
  const auto order = executor.run([]() -> Task<std::vector<int>> {
    Semaphore semaphore(2);
    std::vector<int> served;
    TaskGroup group;
    const auto worker = [](Semaphore& s, uint64_t permits, int name, std::vector<int>& out) -> Task<void> {
      co_await s.acquire(permits);
      out.push_back(name);
      co_await sleep_for(std::chrono::milliseconds(1));
      s.release(permits);
    };
    group.spawn(worker(semaphore, 1, 1, served));
    group.spawn(worker(semaphore, 2, 2, served));  // waits for both permits; nobody overtakes it
    group.spawn(worker(semaphore, 1, 3, served));
    group.spawn(worker(semaphore, 1, 4, served));
    EXPECT_FALSE(semaphore.try_acquire());
    co_await group.join();
    co_return served;
  }());
  ASSERT_EQ(order.size(), 4u);
  EXPECT_EQ(order[0], 1);
  EXPECT_EQ(order[1], 2);  // the others are served together
}

}  // namespace
}  // namespace quarry
