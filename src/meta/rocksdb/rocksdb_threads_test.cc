// Many event loops on one store: answers come home, watches and leases cross threads, checkpoints run meanwhile. For tsan above all.
#include <gtest/gtest.h>

#include "io/ring_executor.h"
#include "io/thread_pool.h"
#include "meta/memory/memory_index.h"
#include "meta/memory/memory_meta_store.h"
#include "meta/memory_commit_log.h"
#include "meta/rocksdb/rocksdb_meta_store.h"
#include "meta/temporary_directory.h"

namespace quarry::meta {
namespace {

constexpr int kClientsPerLoop = 6;
constexpr int kIncrements = 60;

struct Tally {
  std::atomic<int> increments = 0, strayed = 0, watches = 0, leases = 0, errors = 0;
};

Task<void> incrementer(MetaStore& store, Executor& home, Tally& tally, int id) {
  for (int i = 0; i < kIncrements; ++i) {
    const auto body = [id](Transaction& t) -> Task<Result<void>> {
      CO_TRY_ASSIGN(const auto value, co_await t.get(fmt::format("shared/{}", id % 3)));
      t.put(fmt::format("shared/{}", id % 3), std::to_string(value ? std::stoi(*value) + 1 : 1));
      t.add("total", 1);
      t.put(fmt::format("own/{}", id), std::string(static_cast<size_t>(id) * 300, 'x'));
      co_return Result<void>();
    };
    auto working = transact(store, body, 10000);
    const auto version = co_await std::move(working);
    if (Executor::current() != &home) ++tally.strayed;
    if (version) {
      ++tally.increments;
    } else {
      ++tally.errors;
    }
    if (i % 16 == 0) {
      auto scanning = store.scan({KeyRange::prefix("own/"), 1000});
      const auto rows = co_await std::move(scanning);
      if (!rows) ++tally.errors;
      if (Executor::current() != &home) ++tally.strayed;
    }
    if (i % 20 == 7) {
      auto leasing = store.lease("lease", fmt::format("{}", id), std::chrono::milliseconds(1));
      const auto grant = co_await std::move(leasing);
      if (grant) ++tally.leases;
      if (!grant && grant.error().code() != Code::busy) ++tally.errors;
    }
  }
}

Task<void> watcher(MetaStore& store, Executor& home, Tally& tally, const std::atomic<bool>& stop) {
  Version seen = 0;
  while (!stop) {
    auto watching = store.watch("shared/", seen, home.now() + std::chrono::milliseconds(5));
    const auto version = co_await std::move(watching);
    if (Executor::current() != &home) ++tally.strayed;
    if (version) {
      if (*version < seen) ++tally.errors;
      seen = *version;
      ++tally.watches;
    } else if (version.error().code() != Code::timed_out) {
      ++tally.errors;
    }
  }
}

Task<void> one_loop(MetaStore& store, Tally& tally, int loop, std::atomic<bool>& stop) {
  Executor& home = Executor::here();
  TaskGroup clients, watchers;
  watchers.spawn(watcher(store, home, tally, stop));
  for (int i = 0; i < kClientsPerLoop; ++i) clients.spawn(incrementer(store, home, tally, loop * kClientsPerLoop + i));
  co_await clients.join();
  stop = true;
  co_await watchers.join();
}

void run_loops(ExecutorPool& pool, MetaStore& store, const std::function<void()>& meanwhile) {
  Tally tally;
  std::vector<std::thread> threads;
  std::vector<std::atomic<bool>> stops(pool.size());
  for (size_t i = 0; i < pool.size(); ++i) {
    threads.emplace_back([&, i] { wait_on(pool.executor(i), one_loop(store, tally, static_cast<int>(i), stops[i])); });
  }
  meanwhile();
  for (auto& thread : threads) thread.join();
  const int expected = static_cast<int>(pool.size()) * kClientsPerLoop * kIncrements;
  EXPECT_EQ(tally.increments, expected);
  EXPECT_EQ(tally.strayed, 0);
  EXPECT_EQ(tally.errors, 0);
  EXPECT_GT(tally.watches, 0);
  EXPECT_GT(tally.leases, 0);
  int sum = 0;
  for (int i = 0; i < 3; ++i) sum += std::stoi(*wait_on(pool.executor(0), store.get(fmt::format("shared/{}", i))).value());
  EXPECT_EQ(sum, expected);
  int64_t total = 0;
  std::memcpy(&total, wait_on(pool.executor(0), store.get("total")).value()->data(), 8);
  EXPECT_EQ(total, expected);
}

TEST(MetaThreads, every_loop_may_use_the_memory_twin) {
  auto pool = ExecutorPool::start({.name = "meta", .threads = 3});
  if (!pool && pool.error().code() == Code::unsupported) GTEST_SKIP() << pool.error().to_string();
  ASSERT_TRUE(pool) << pool.error().to_string();
  const auto store = MemoryMetaStore::create();
  run_loops(**pool, *store, [] {});
  EXPECT_TRUE(wait_on((*pool)->executor(0), store->close()));
  (*pool)->stop();
}

TEST(MetaThreads, every_loop_may_use_the_rocksdb_store) {
  auto pool = ExecutorPool::start({.name = "meta", .threads = 3});
  if (!pool && pool.error().code() == Code::unsupported) GTEST_SKIP() << pool.error().to_string();
  ASSERT_TRUE(pool) << pool.error().to_string();
  TemporaryDirectory directory;
  ThreadPool blocking_pool("blocking", 2);
  const auto media = std::make_shared<MemoryLogMedia>();
  MemoryCommitLog log(media, {.append_delay = std::chrono::microseconds(100), .pool = &blocking_pool});
  RocksdbMetaOptions options;
  options.directory = directory.path() + "/meta";
  options.pool = &blocking_pool;
  options.memtable_bytes = 64u << 10;
  options.block_cache_bytes = 256u << 10;
  options.checkpoint_log_bytes = 16u << 10;
  auto opened = wait_on((*pool)->executor(1), open_rocksdb_store(options, log));
  ASSERT_TRUE(opened) << opened.error().to_string();
  LogMetaStore& store = **opened;
  run_loops(**pool, store, [&] {
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE(wait_on((*pool)->executor(2), store.checkpoint()));
      EXPECT_GT(store.stats().version + store.status().frame_applied + 1, 0u);
    }
  });
  EXPECT_GE(store.status().checkpoints, 5u);
  EXPECT_TRUE(wait_on((*pool)->executor(0), store.close()));  // from another loop than its own
  opened->reset();
  (*pool)->stop();
}

// Its readers share no lock but that of the view: their answers come from rows that nobody changes.
TEST(MetaThreads, every_loop_may_use_the_store_over_an_index_in_memory) {
  auto pool = ExecutorPool::start({.name = "meta", .threads = 3});
  if (!pool && pool.error().code() == Code::unsupported) GTEST_SKIP() << pool.error().to_string();
  ASSERT_TRUE(pool) << pool.error().to_string();
  MemoryCommitLog log(std::make_shared<MemoryLogMedia>(), {.append_delay = std::chrono::microseconds(100)});
  LogMetaOptions options;
  options.checkpoint_log_bytes = 16u << 10;
  auto opened = wait_on((*pool)->executor(1), LogMetaStore::open(options, make_memory_place(std::make_shared<MemoryIndexMedia>()), log));
  ASSERT_TRUE(opened) << opened.error().to_string();
  LogMetaStore& store = **opened;
  run_loops(**pool, store, [&] {
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(wait_on((*pool)->executor(2), store.checkpoint()));
    EXPECT_GT(store.stats().keys_estimate, 0u);
  });
  EXPECT_TRUE(wait_on((*pool)->executor(0), store.close()));
  opened->reset();
  (*pool)->stop();
}

}  // namespace
}  // namespace quarry::meta

// The library of the distribution is not built for the thread sanitizer, which then sees none of its locks.
extern "C" const char* __tsan_default_suppressions();  // NOLINT: the sanitizer's name
extern "C" const char* __tsan_default_suppressions() { return "race:rocksdb::\nmutex:rocksdb::\ndeadlock:rocksdb::\n"; }
