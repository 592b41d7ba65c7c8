// The data plane used from several executors at once, each drive owned by one of them. Most useful under the thread sanitizer.
#include <gtest/gtest.h>

#include "cluster/testing/cluster_harness.h"
#include "io/ring_executor.h"
#include "io/thread_pool.h"

namespace quarry::cluster {
namespace {

struct Worker {
  // Writes, reads back, retires; on its own executor.
  static Task<Result<uint64_t>> work(Cluster* cluster, uint64_t seed, int rounds) {
    SeededRandom random(seed);
    uint64_t bytes_read = 0;
    for (int round = 0; round < rounds; ++round) {
      const std::string bytes = ClusterHarness::random_bytes(random.u64(), 1 + random.below(round % 3 == 0 ? 900'000 : 20'000));
      WriteOptions options;
      options.redundancy = {RedundancyKind::erasure, 3, 2};
      CO_TRY_ASSIGN(auto writer, cluster->data().begin_write(options));
      for (size_t at = 0; at < bytes.size(); at += 70'000) {
        Buffer part = Buffer::copy_of(bytes_of(bytes).subspan(at, std::min<size_t>(70'000, bytes.size() - at)));
        CO_TRY(co_await writer->append(std::move(part)));
      }
      CO_TRY_ASSIGN(DataLayout layout, co_await writer->finish());
      if (random.below(4) == 0) continue;  // abandoned
      CO_TRY_ASSIGN(auto transaction, co_await cluster->meta().begin());
      cluster->data().record(*transaction, layout, "worker");
      Result<meta::Version> committed = co_await transaction->commit();
      if (!committed) co_return std::move(committed).error();
      writer->keep();
      writer.reset();
      auto guard = cluster->data().guard_reads();
      auto reader = cluster->data().read(layout, 0, layout.size, CachePolicy::normal);
      guard.reset();
      std::string back;
      const bool whole = random.below(4) != 0;  // else the client goes away in the middle
      for (int pieces = 0; whole || pieces < 2; ++pieces) {
        CO_TRY_ASSIGN(SharedBytes piece, co_await reader->next(100'000));
        if (piece.empty()) break;
        back.append(text_of(piece));
      }
      reader.reset();
      if (back != bytes.substr(0, whole ? bytes.size() : back.size())) co_return fail(Code::corrupt, "wrong bytes");
      bytes_read += back.size();
      if (random.below(2) == 0) {
        CO_TRY_ASSIGN(auto removal, co_await cluster->meta().begin());
        cluster->data().retire(*removal, layout);
        Result<meta::Version> removed = co_await removal->commit();
        if (!removed) co_return std::move(removed).error();
        cluster->data().retired();
      }
      static_cast<void>(cluster->data().drives());
      static_cast<void>(cluster->data().space_status());
    }
    co_return bytes_read;
  }
  static Task<void> kill(MemoryMedium* medium) {
    co_await sleep_for(std::chrono::milliseconds(30));
    medium->gone = true;
  }
};

TEST(Threads, writers_readers_and_a_dying_drive_on_four_executors) {
  auto executors = ExecutorPool::start({.name = "cluster-test", .threads = 4});
  if (!executors && executors.error().code() == Code::unsupported) GTEST_SKIP() << executors.error().to_string();
  ASSERT_TRUE(executors) << executors.error().to_string();
  ThreadPool pool("test", 1);
  auto meta_media = meta::make_memory_meta_media();
  std::vector<std::shared_ptr<MemoryMedium>> media;
  ClusterOptions options;
  for (size_t i = 0; i < 7; ++i) {
    media.push_back(std::make_shared<MemoryMedium>(i + 1));
    OpenedDrive drive;
    drive.store = std::make_unique<MemoryChunkStore>(media.back());
    drive.owner = &(*executors)->executor(i % 4);
    drive.path = fmt::format("mem{}", i);
    options.drives.push_back(std::move(drive));
  }
  options.blocking_pool = &pool;
  struct Meta {
    static Task<Result<std::unique_ptr<meta::MetaStore>>> open(std::shared_ptr<meta::MemoryMetaMedia> on) {
      co_return std::unique_ptr<meta::MetaStore>(meta::MemoryMetaStore::open(std::move(on)));
    }
  };
  options.open_meta = [meta_media](meta::CommitLog&, std::string) { return Meta::open(meta_media); };
  options.tuning.shard_bytes = 64 * 1024;
  options.tuning.cache_bytes = 4 * kMiB;
  options.tuning.missing_grace = std::chrono::milliseconds(20);
  options.tuning.write_memory_bytes = 8 * kMiB;
  CreateOptions what;
  what.redundancy = "ec:3+2";
  what.group_count = 16;
  Executor& home = (*executors)->executor(0);
  auto created = wait_on(home, Cluster::create(std::move(options), what));
  ASSERT_TRUE(created) << created.error().to_string();
  Cluster* cluster = created->get();
  std::vector<std::thread> threads;
  std::atomic<uint64_t> bytes{0};
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      auto done = wait_on((*executors)->executor(i), Worker::work(cluster, i + 1, 60));
      EXPECT_TRUE(done) << (done ? "" : done.error().to_string());
      if (done) bytes += *done;
    });
  }
  wait_on((*executors)->executor(2), Worker::kill(media[2].get()));
  for (auto& thread : threads) thread.join();
  EXPECT_GT(bytes.load(), 0u);
  auto settled = wait_on(home, cluster->settle());
  EXPECT_TRUE(settled) << settled.error().to_string();
  auto report = wait_on(home, cluster->data().fsck(false));
  ASSERT_TRUE(report);
  for (const auto& violation : report->violations) ADD_FAILURE() << violation;
  auto closed = wait_on(home, cluster->close());
  EXPECT_TRUE(closed) << closed.error().to_string();
  created->reset();
  (*executors)->stop();
}

}  // namespace
}  // namespace quarry::cluster
