// Transactions that began long ago, or read very much, are compared with everything written since without holding up the loop.
#include <ctime>

#include "meta/crash_fixture.h"
#include "meta/log_store/conflict_window.h"

namespace quarry::meta {
namespace {

class LongTransactions : public EitherCrash {
 protected:
  // While a task is ready at any time, the simulator's time stands still, and what its pools do with it.
  struct InPlace final : BlockingPool {
    void submit(std::function<void()> work) override { work(); }
  } in_place_;

  static int64_t cpu_ns() {  // of this thread: what the machine does otherwise is no standstill of the loop
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
  }
  // Commits while something else wants to run as often as it can: the longest that it had to wait.
  static Task<void> run_beside(bool* done, int64_t* longest) {
    int64_t last = cpu_ns();
    while (!*done) {
      co_await Executor::here().yield();
      const int64_t now = cpu_ns();
      *longest = std::max(*longest, now - last);
      last = now;
    }
  }
  static Task<void> commit(Transaction* transaction, Result<Version>* answer, bool* done) {
    *answer = co_await transaction->commit();
    *done = true;
  }
  static Task<void> both(Transaction* transaction, Result<Version>* answer, int64_t* longest) {
    bool done = false;
    TaskGroup group;
    group.spawn(run_beside(&done, longest));
    group.spawn(commit(transaction, answer, &done));
    co_await group.join();
  }
  void write(int transactions, int rows, const std::string& prefix) {
    for (int i = 0; i < transactions; ++i) {
      auto transaction = std::move(executor_.run(store_->begin()).value());
      for (int j = 0; j < rows; ++j) transaction->put(fmt::format("{}{:06}", prefix, i * rows + j), "v");
      ASSERT_TRUE(executor_.run(transaction->commit()));
    }
  }
  std::unique_ptr<Transaction> reader(int ranges, int keys) {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    for (int i = 0; i < ranges; ++i)
      EXPECT_TRUE(executor_.run(transaction->scan({{fmt::format("r/{:06}", i), fmt::format("r/{:06}x", i)}, 10, SIZE_MAX})));
    for (int i = 0; i < keys; ++i) EXPECT_TRUE(executor_.run(transaction->get(fmt::format("k/{:06}", i))));
    transaction->put("result", "1");
    return transaction;
  }
};

INSTANTIATE_TEST_SUITE_P(Index, LongTransactions, kEitherIndex, kind_name);

TEST_P(LongTransactions, do_not_hold_up_the_loop) {
  if (kind_ == IndexKind::memory) options_.pool = &in_place_;
  options_.conflict_window_bytes = 256u << 20;
  open();
  auto sees_none = reader(3000, 3000);
  auto range_written = reader(3000, 0);
  auto key_written = reader(0, 3000);
  auto range_removed = reader(100, 100);
  write(100, 1000, "w/");
  EXPECT_GT(put("r/002999a", "1"), 0u);
  EXPECT_GT(put("k/001500", "1"), 0u);
  auto removal = std::move(executor_.run(store_->begin()).value());
  removal->remove_range({"k/000099", "k/0001"});
  ASSERT_TRUE(executor_.run(removal->commit()));
  auto late = reader(3000, 3000);
  write(100, 200, "w/");

  struct Case {
    const char* name;
    Transaction* transaction;
    bool conflict;
  };
  for (const Case& each : {Case{"nothing that is read was written", late.get(), false}, Case{"a range", range_written.get(), true},
                           Case{"a key", key_written.get(), true}, Case{"a removed range", range_removed.get(), true},
                           Case{"a key and a range", sees_none.get(), true}}) {
    SCOPED_TRACE(each.name);
    Result<Version> answer = Version{0};
    int64_t longest = 0;
    executor_.run(both(each.transaction, &answer, &longest));
    if (each.conflict) {
      ASSERT_FALSE(answer);
      EXPECT_EQ(answer.error().code(), Code::conflict);
    } else {
      EXPECT_TRUE(answer) << answer.error().to_string();
    }
    EXPECT_LT(longest, 30'000'000) << "ns of processor time in one step";
  }
}

TEST_P(LongTransactions, are_answered_when_the_store_closes) {
  for (const bool kills : {false, true}) {
    open();
    auto old = reader(3000, 10);
    write(100, 1000, "w/");
    const auto close_after = [](LogMetaStore* store, bool kill) -> Task<Result<Version>> {
      co_await Executor::here().yield();
      co_await Executor::here().yield();
      if (kill) {
        co_await store->kill();
      } else {
        const Result<void> closed = co_await store->close();
        if (!closed) co_return closed.error();
      }
      co_return Version{0};
    };
    std::vector<Task<Result<Version>>> tasks;
    tasks.push_back(old->commit());
    tasks.push_back(close_after(store_.get(), kills));
    const auto results = executor_.run(when_all(std::move(tasks)));
    EXPECT_TRUE(results[1]);
    const bool committed = results[0].has_value();
    if (!kills) EXPECT_TRUE(committed) << "it was accepted before: " << results[0].error().to_string();
    store_.reset();
    lose_index();
    media_ = std::make_shared<MemoryLogMedia>();
  }
}

TEST(ConflictWindow, says_the_same_of_sorted_and_unsorted_reads) {
  SeededRandom random(7);
  const auto key = [&random] { return fmt::format("{:03}", random.below(300)); };
  int conflicts = 0, none = 0;
  for (int round = 0; round < 300; ++round) {
    ConflictWindow window(100, 1 + random.below(400), 1u << 20);
    const Version end = 101 + random.below(100);
    for (Version version = 101; version < end; ++version) {
      WriteSet writes('\0');
      for (uint64_t i = random.below(3) + 1; i > 0; --i) {
        std::string from = key(), to = key();
        if (random.below(8) == 0 && from < to) {
          writes.remove_range({from, to});
        } else {
          writes.put(from, "v");
        }
      }
      window.add(version, writes.ops());
    }
    for (int i = 0; i < 20; ++i) {
      ReadSet reads;
      for (uint64_t n = random.below(3); n > 0; --n) reads.keys.push_back(std::string(1, '\0') + key());
      for (uint64_t n = random.below(3); n > 0; --n) {
        std::string from = std::string(1, '\0') + key(), to = std::string(1, '\0') + key();
        if (from < to) reads.ranges.push_back({from, to});
      }
      const Version after = 100 + random.below(end - 100);
      const bool expected = window.conflicts(after, reads);
      if (reads.empty()) continue;
      reads.sort();
      EXPECT_EQ(window.conflicts(after, reads), expected);
      Version at = after;
      bool found = false;
      for (int steps = 0; !found && at < end - 1; ++steps) {
        ASSERT_LT(steps, 1000);
        const auto checked = window.check_some(at, reads, 3);
        found = checked.conflict;
        if (!found) ASSERT_GT(checked.reached, at);
        at = checked.reached;
      }
      EXPECT_EQ(found, expected);
      ++(expected ? conflicts : none);
    }
  }
  EXPECT_GT(conflicts, 500);
  EXPECT_GT(none, 500);
}

}  // namespace
}  // namespace quarry::meta
