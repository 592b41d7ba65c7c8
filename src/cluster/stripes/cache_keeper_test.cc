// The read cache follows the memory that nobody uses, and keeps what was just written.
#include "cluster/stripes/cache_keeper.h"

#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

TEST(CacheKeeper, leaves_a_reserve_and_stays_within_its_bounds) {
  const auto capacity = [](uint64_t available, uint64_t used, double pressure = 0) {
    return CacheKeeper::capacity_for({.total = 10 * kGiB, .available = available, .pressure = pressure}, used, kGiB, 8 * kGiB);
  };
  EXPECT_EQ(capacity(5 * kGiB, 2 * kGiB), 6 * kGiB);
  EXPECT_EQ(capacity(9 * kGiB, 2 * kGiB), 8 * kGiB) << "most";
  EXPECT_EQ(capacity(0, 4 * kGiB), 3 * kGiB) << "gives the reserve back";
  EXPECT_EQ(capacity(0, kGiB / 2), kGiB) << "least";
  EXPECT_EQ(capacity(5 * kGiB, 4 * kGiB, 0.5), 4 * kGiB - kGiB / 2) << "somebody waits";
}

// 1 GiB, of which others have some and the cache has the rest: however often the keeper looks, it comes to the same.
class SharedMemory final : public MemoryProbe {
 public:
  Result<MemoryReport> look() override {
    ReadCache* const ours = cache.load();
    const uint64_t taken = others.load() + (ours == nullptr ? 0 : ours->used_bytes());
    return MemoryReport{.total = kGiB, .available = kGiB - std::min<uint64_t>(taken, kGiB)};
  }
  std::atomic<uint64_t> others = 512 * kMiB;
  std::atomic<ReadCache*> cache = nullptr;
};

class CacheTest : public ::testing::Test, protected ClusterHarness {
 protected:
  CacheTest() {
    tuning.cache_bytes = 8 * kMiB;
    tuning.cache_pin_bytes = kMiB;
    tuning.cache_writes = true;
  }
  void TearDown() override { close(); }  // the probes go later
  static Task<void> one_look(BlockingPool* pool) {
    co_await sleep_for(std::chrono::milliseconds(300));
    auto behind = blocking(*pool, [] { return 0; });  // the keeper's look, on the one thread of the pool
    const int done = co_await std::move(behind);
    static_cast<void>(done);
  }
  void let_it_look(int times = 10) {
    for (int i = 0; i < times; ++i) executor.run(one_look(pool.get()));
  }
  uint64_t gets() const {
    uint64_t sum = 0;
    for (const auto& medium : media) sum += medium->gets;
    return sum;
  }
  SharedMemory memory;
  ManualMemoryProbe probe{{.total = kGiB, .available = 512 * kMiB}};
};

TEST_F(CacheTest, grows_into_unused_memory_and_gives_it_back) {
  tuning.memory_probe = &memory;
  tuning.cache_bytes_max = 64 * kMiB;
  tuning.cache_writes = false;
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  std::vector<DataLayout> layouts;
  for (int i = 0; i < 40; ++i) layouts.push_back(*write(random_bytes(i, kMiB)));
  let_it_look();
  EXPECT_EQ(cluster->data().cache_status().capacity_bytes, 64 * kMiB);
  for (int round = 0; round < 2; ++round) {
    for (const DataLayout& layout : layouts) ASSERT_TRUE(read(layout));
  }
  const uint64_t before = gets();
  for (const DataLayout& layout : layouts) ASSERT_TRUE(read(layout));
  EXPECT_EQ(gets(), before) << "40 MiB, in a cache that began with 8";
  memory.cache = &plane().plane().cache;
  // Others want it: a tenth is theirs in any case, and then there are 24 MiB.
  memory.others = kGiB - kGiB / 10 - 24 * kMiB;
  let_it_look();
  EXPECT_EQ(cluster->data().cache_status().capacity_bytes, 24 * kMiB);
  EXPECT_LE(cluster->data().cache_status().used_bytes, 24 * kMiB);
  EXPECT_GT(cluster->data().cache_status().used_bytes, 20 * kMiB) << "no more than has to be";
  memory.others = kGiB;
  let_it_look();
  EXPECT_LE(cluster->data().cache_status().used_bytes, 8 * kMiB);
  EXPECT_EQ(cluster->data().cache_status().capacity_bytes, 8 * kMiB);
  // And do not want it any more.
  memory.others = 512 * kMiB;
  let_it_look();
  EXPECT_EQ(cluster->data().cache_status().capacity_bytes, 64 * kMiB);
}

TEST_F(CacheTest, waiting_for_memory_is_pressure_whatever_is_available) {
  tuning.memory_probe = &probe;
  tuning.cache_bytes_max = 64 * kMiB;
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  let_it_look();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(write(random_bytes(i, kMiB)));
  EXPECT_GE(cluster->data().cache_status().used_bytes, 30 * kMiB);
  probe.set({.total = kGiB, .available = 512 * kMiB, .pressure = 0.3});
  let_it_look(40);
  EXPECT_LE(cluster->data().cache_status().used_bytes, 8 * kMiB);
}

TEST_F(CacheTest, what_was_just_written_is_read_from_memory) {
  tuning.cache_bytes = 64 * kMiB;
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  for (const char* text : {"ec:4+2", "mirror:2", "whole:2+1"}) {
    for (const size_t size : {size_t{1}, size_t{5000}, size_t{110'000}, size_t{200'000}, size_t{777'777}, size_t{1'500'000}}) {
      for (const size_t piece : {size_t{65'536}, size_t{300'000}, size_t{2'000'000}}) {
        const std::string bytes = random_bytes(size + piece, size);
        auto layout = write(bytes, *parse_redundancy(text, 6), true, piece);
        ASSERT_TRUE(layout) << layout.error().to_string();
        const uint64_t before = gets();
        ASSERT_TRUE(*read(*layout) == bytes) << text << " " << size;
        ASSERT_TRUE(*read(*layout, size / 3, size / 2) == bytes.substr(size / 3, size / 2));
        EXPECT_EQ(gets(), before) << text << " " << size << " in pieces of " << piece;
        ASSERT_TRUE(*read(*layout, 0, size, CachePolicy::bypass) == bytes);
      }
    }
  }
  EXPECT_EQ(fsck(), "");
}

TEST_F(CacheTest, what_is_retired_or_abandoned_leaves_room) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  auto layout = write(random_bytes(1, 1'000'000));
  ASSERT_TRUE(layout);
  EXPECT_GE(cluster->data().cache_status().used_bytes, 1'000'000u);
  ASSERT_TRUE(retire(*layout));
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_EQ(cluster->data().cache_status().used_bytes, 0u);
  struct Run {
    static Task<Result<void>> abandon(Cluster* cluster) {
      WriteOptions options;
      options.redundancy = {RedundancyKind::erasure, 4, 2};
      CO_TRY_ASSIGN(auto writer, cluster->data().begin_write(options));
      Buffer part(1'000'000);
      std::memset(part.data(), 1, part.size());
      CO_TRY(co_await writer->append(std::move(part)));
      CO_TRY_ASSIGN(DataLayout done, co_await writer->finish());
      static_cast<void>(done);
      co_return Result<void>();
    }
  };
  ASSERT_TRUE(executor.run(Run::abandon(cluster.get())));
  executor.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_EQ(cluster->data().cache_status().used_bytes, 0u);
}

TEST_F(CacheTest, a_flood_of_writes_does_not_push_out_what_is_hot) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  const std::string bytes = random_bytes(1, 2'000'000);
  auto hot = write(bytes);
  ASSERT_TRUE(hot);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(read(*hot));
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(write(random_bytes(i, kMiB)));
  const uint64_t before = gets();
  ASSERT_TRUE(*read(*hot) == bytes);
  EXPECT_EQ(gets(), before);
  EXPECT_LE(cluster->data().cache_status().used_bytes, 8 * kMiB);
}

}  // namespace
}  // namespace quarry::cluster
