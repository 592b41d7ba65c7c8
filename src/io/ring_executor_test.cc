#include "io/ring_executor.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/resource.h>
#include <unistd.h>

#include "io/needs_ring.h"
#include "io/pace.h"
#include "io/sync.h"
#include "io/thread_pool.h"

namespace quarry {
namespace {

class RingExecutorTest : public NeedsRing {};
class ExecutorPoolTest : public NeedsRing {};

std::unique_ptr<RingExecutor> make_ring(RingExecutor::Options options = {}) {
  auto executor = RingExecutor::create(std::move(options));
  if (!executor) {
    ADD_FAILURE() << executor.error().to_string();
    std::abort();
  }
  return std::move(*executor);
}

struct Nop : RingOp {
  std::coroutine_handle<> handle;
  int result = -1;
  Nop()
      : RingOp{[](RingOp& op, int r, uint32_t) {
          static_cast<Nop&>(op).result = r;
          static_cast<Nop&>(op).handle.resume();
        }} {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    io_uring_prep_nop(RingExecutor::here().prepare(*this));
  }
  int await_resume() const noexcept { return result; }
};

// Busy in steps that never wait: for 50 ms, or if it is paced until others had ten turns (a busy machine may give them few a second).
Task<void> long_loop(bool paced, const int* turns, bool* done) {
  Pace pace;
  const TimePoint end = Executor::here().now() + (paced ? Duration(std::chrono::seconds(60)) : Duration(std::chrono::milliseconds(50)));
  while (Executor::here().now() < end && *turns < 10) {
    if (paced) co_await pace;
  }
  *done = true;
}
Task<int> others_meanwhile(bool paced) {
  bool done = false;
  int turns = 0;
  TaskGroup group;
  group.spawn(long_loop(paced, &turns, &done));
  while (!done) {
    co_await Executor::here().yield();
    ++turns;
  }
  co_await group.join();
  co_return turns;
}

Task<int> many_nops(int count) {
  int good = 0;
  for (int i = 0; i < count; ++i) {
    Nop nop;
    const int result = co_await nop;
    good += result == 0;
  }
  co_return good;
}

TEST_F(RingExecutorTest, a_paced_loop_lets_others_run) {
  auto executor = make_ring();
  EXPECT_LE(executor->run(others_meanwhile(false)), 1);
  EXPECT_GE(executor->run(others_meanwhile(true)), 10);
}

TEST_F(RingExecutorTest, runs_a_task_and_returns_its_value) {
  auto executor = make_ring();
  EXPECT_EQ(executor->run(many_nops(100)), 100);
  EXPECT_EQ(executor->run(many_nops(1)), 1) << "a second run on the same ring";
  EXPECT_EQ(Executor::current(), nullptr);
}

Task<int> concurrent_nops(int tasks, int each) {
  std::vector<Task<int>> all;
  for (int i = 0; i < tasks; ++i) all.push_back(many_nops(each));
  const auto values = co_await when_all(std::move(all));
  int sum = 0;
  for (const int value : values) sum += value;
  co_return sum;
}

TEST_F(RingExecutorTest, more_operations_than_the_queue_holds_all_complete_in_batches) {
  auto executor = make_ring({.submissions = 8, .completions = 16});
  EXPECT_EQ(executor->run(concurrent_nops(1000, 20)), 20000);
  auto wide = make_ring();
  EXPECT_EQ(wide->run(concurrent_nops(256, 50)), 12800);
  rlimit locked{};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &locked), 0);
  const bool small = locked.rlim_cur < 1 * kMiB;  // then the ring may be, too
  EXPECT_LT(wide->stats().enters, small ? 400u : 200u) << "256 operations a call";
}

Task<Duration> timed_sleep(Duration duration) {
  const TimePoint start = Executor::here().now();
  co_await sleep_for(duration);
  co_return Executor::here().now() - start;
}

TEST_F(RingExecutorTest, timers_fire_in_order_and_not_early) {
  auto executor = make_ring();
  EXPECT_GE(executor->run(timed_sleep(std::chrono::milliseconds(5))), std::chrono::milliseconds(5));
  std::vector<int> order;
  executor->run([](std::vector<int>& out) -> Task<void> {
    TaskGroup group;
    for (const int ms : {9, 1, 5, 3, 7}) {
      group.spawn([](std::vector<int>& o, int delay) -> Task<void> {
        co_await sleep_for(std::chrono::milliseconds(delay));
        o.push_back(delay);
      }(out, ms));
    }
    co_await group.join();
  }(order));
  EXPECT_EQ(order, (std::vector<int>{1, 3, 5, 7, 9}));
}

TEST_F(RingExecutorTest, a_busy_task_does_not_starve_operations_or_timers) {
  auto executor = make_ring();
  const int nops = executor->run([]() -> Task<int> {
    bool stop = false;
    int done = 0;
    TaskGroup group;
    group.spawn([](bool& end) -> Task<void> {
      while (!end) co_await Executor::here().yield();
    }(stop));
    group.spawn([](int& out) -> Task<void> { out = co_await many_nops(50); }(done));
    co_await sleep_for(std::chrono::milliseconds(5));
    while (done == 0) co_await sleep_for(std::chrono::milliseconds(1));
    stop = true;
    co_await group.join();
    co_return done;
  }());
  EXPECT_EQ(nops, 50);
}

TEST_F(RingExecutorTest, a_pool_thread_wakes_a_sleeping_loop) {
  auto executor = make_ring();
  ThreadPool threads("test", 2);
  const int sum = executor->run([](ThreadPool& pool) -> Task<int> {
    int total = 0;
    for (int i = 0; i < 200; ++i) {
      const int value = co_await blocking(pool, [] { return 1; });
      total += value;
    }
    co_return total;
  }(threads));
  EXPECT_EQ(sum, 200);
}

TEST_F(RingExecutorTest, an_operation_can_be_cancelled) {
  auto executor = make_ring();
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const int result = executor->run([](int fd) -> Task<int> {
    struct Read : Nop {
      int fd;
      char byte = 0;
      void await_suspend(std::coroutine_handle<> h) {
        handle = h;
        io_uring_prep_read(RingExecutor::here().prepare(*this), fd, &byte, 1, 0);
      }
    } read;
    read.fd = fd;
    TaskGroup group;
    group.spawn([](Read& target) -> Task<void> {
      co_await sleep_for(std::chrono::milliseconds(2));
      RingExecutor::here().cancel_op(target);
    }(read));
    const int outcome = co_await read;
    co_await group.join();
    co_return outcome;
  }(pipe_ends[0]));
  EXPECT_EQ(result, -ECANCELED);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

// Keeps the processor for so long: of the thread's own time, as a busy machine may take some away.
void spin(Duration how_long) {
  const auto used = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return Duration(t.tv_sec * 1'000'000'000ll + t.tv_nsec);
  };
  const Duration until = used() + how_long;
  while (used() < until) {
  }
}

TEST_F(RingExecutorTest, a_step_that_keeps_others_waiting_is_counted) {
  auto executor = make_ring();
  const uint64_t before = loop_steps().too_long;
  executor->run([](RingExecutor& loop) -> Task<void> {
    for (int i = 0; i < 20; ++i) {  // long work in short steps
      spin(kLoopStepMax / 10);
      co_await loop.yield();
    }
    ::usleep(static_cast<useconds_t>(2 * kLoopStepMax.count() / 1000));  // as a machine does that has other work
    co_await loop.yield();
  }(*executor));
  EXPECT_EQ(loop_steps().too_long, before);
  executor->run([](RingExecutor& loop) -> Task<void> {
    co_await loop.yield();
    spin(2 * kLoopStepMax);
    co_await loop.yield();
    co_await sleep_for(std::chrono::microseconds(100));
    spin(2 * kLoopStepMax);  // after a timer
    co_await loop.yield();
    co_await many_nops(1);
    spin(2 * kLoopStepMax);  // after a completion
  }(*executor));
  long_steps_meant_ = 3;
  EXPECT_EQ(loop_steps().too_long, before + 3);
  EXPECT_GE(loop_steps().longest, 2 * kLoopStepMax - std::chrono::milliseconds(1));
}

TEST_F(ExecutorPoolTest, tasks_hop_between_loops_and_come_home) {
  auto pool = ExecutorPool::start({.name = "hop", .threads = 3});
  if (!pool && pool.error().code() == Code::unsupported) GTEST_SKIP() << pool.error().to_string();
  ASSERT_TRUE(pool) << pool.error().to_string();
  const int hops = wait_on((*pool)->executor(0), [](ExecutorPool& loops) -> Task<int> {
    int count = 0;
    for (int i = 0; i < 3000; ++i) {
      RingExecutor& target = loops.executor(static_cast<size_t>(i) % loops.size());
      const bool there = co_await on(target, [](Executor& expected) -> Task<bool> { co_return Executor::current() == &expected; }(target));
      count += there && Executor::current() == &loops.executor(0);
    }
    co_return count;
  }(**pool));
  EXPECT_EQ(hops, 3000);
  (*pool)->stop();
}

TEST_F(ExecutorPoolTest, stop_finishes_what_is_posted_and_cancels_what_hangs) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  ExecutorPool::Options options{.name = "stop", .threads = 2};
  options.ring.stop_grace = std::chrono::milliseconds(20);
  auto pool = ExecutorPool::start(std::move(options));
  ASSERT_TRUE(pool) << pool.error().to_string();
  std::atomic<int> finished{0};
  struct Read : Nop {
    int fd;
    char byte = 0;
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      io_uring_prep_read(RingExecutor::here().prepare(*this), fd, &byte, 1, 0);
    }
  };
  const auto hang = [](Executor& executor, int fd, std::atomic<int>& count) -> detail::Root {
    co_await executor.enter();
    Read read;
    read.fd = fd;
    const int result = co_await read;
    count += result == -ECANCELED;
  };
  hang((*pool)->executor(0), pipe_ends[0], finished);
  const auto work = [](Executor& executor, std::atomic<int>& count) -> detail::Root {
    co_await executor.enter();
    for (int i = 0; i < 100; ++i) co_await executor.yield();
    ++count;
  };
  for (int i = 0; i < 10; ++i) work((*pool)->executor(1), finished);
  (*pool)->stop();
  EXPECT_EQ(finished.load(), 11);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

}  // namespace
}  // namespace quarry
