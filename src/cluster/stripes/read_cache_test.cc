#include "cluster/stripes/read_cache.h"

#include <gtest/gtest.h>

#include <thread>

#include "io/clock.h"

namespace quarry::cluster {
namespace {

CacheKey key(uint64_t n, uint32_t block = kWholeShard) { return {{1, n}, block}; }

SharedBytes block(uint64_t n, size_t size = 64 * kKiB) {
  Buffer buffer(size);
  std::memset(buffer.data(), static_cast<int>(n & 0xff), size);
  return SharedBytes(std::move(buffer));
}

TEST(ReadCache, finds_what_was_inserted_without_copying) {
  ReadCache cache(8 * kMiB, 0);
  const SharedBytes bytes = block(1);
  ASSERT_TRUE(cache.insert(key(1), bytes));
  auto found = cache.find(key(1));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->view().data(), bytes.view().data());
  EXPECT_FALSE(cache.find(key(1, 0)));
  EXPECT_FALSE(cache.find(key(2)));
  EXPECT_EQ(cache.status().hits, 1u);
  EXPECT_EQ(cache.status().misses, 2u);
}

TEST(ReadCache, its_size_is_kept_whatever_is_inserted) {
  ReadCache cache(4 * kMiB, kMiB);
  SeededRandom random(1);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t n = random.below(500);
    if (random.below(2) == 0) {
      cache.insert(key(n), block(n, 4096 * (1 + random.below(40))), random.below(50) == 0);
    } else {
      cache.find(key(n));
    }
    if (random.below(100) == 0) cache.unpin(key(random.below(500)));
    const CacheStatus status = cache.status();
    ASSERT_LE(status.used_bytes, 4 * kMiB);
    ASSERT_LE(status.pinned_bytes, kMiB);
  }
}

TEST(ReadCache, what_a_slice_keeps_alive_counts) {
  ReadCache cache(4 * kMiB, 0);
  const SharedBytes big = block(1, kMiB);
  cache.insert(key(1), big.slice(0, 100));
  EXPECT_EQ(cache.status().used_bytes, kMiB + ReadCache::kEntryOverhead);
}

TEST(ReadCache, one_scan_does_not_flush_what_is_hot) {
  ReadCache cache(8 * kMiB, 0);  // 128 blocks
  for (int round = 0; round < 4; ++round) {
    for (uint64_t n = 0; n < 60; ++n) {
      if (!cache.find(key(n))) cache.insert(key(n), block(n));
    }
  }
  for (uint64_t n = 1000; n < 6000; ++n) {
    if (!cache.find(key(n))) cache.insert(key(n), block(n));
  }
  int kept = 0;
  for (uint64_t n = 0; n < 60; ++n) kept += cache.find(key(n)).has_value();
  EXPECT_GT(kept, 50);
}

TEST(ReadCache, pinned_blocks_stay_until_unpinned) {
  ReadCache cache(4 * kMiB, kMiB + 16 * ReadCache::kEntryOverhead);
  for (uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(cache.insert(key(n), block(n), true));
  EXPECT_FALSE(cache.insert(key(99), block(99), true)) << "the pin limit";
  for (uint64_t n = 1000; n < 3000; ++n) cache.insert(key(n), block(n));
  for (uint64_t n = 0; n < 16; ++n) EXPECT_TRUE(cache.find(key(n)));
  for (uint64_t n = 0; n < 16; ++n) cache.unpin(key(n));
  EXPECT_EQ(cache.status().pinned_bytes, 0u);
  EXPECT_TRUE(cache.insert(key(99), block(99), true));
}

TEST(ReadCache, grows_and_shrinks_and_keeps_what_is_pinned_or_hot) {
  ReadCache cache(4 * kMiB, kMiB);
  ASSERT_TRUE(cache.insert(key(1), block(1), true));
  cache.resize(64 * kMiB);
  EXPECT_EQ(cache.status().capacity_bytes, 64 * kMiB);
  for (uint64_t n = 100; n < 900; ++n) cache.insert(key(n), block(n));
  for (uint64_t n = 100; n < 900; ++n) EXPECT_TRUE(cache.find(key(n))) << n;
  for (int i = 0; i < 3; ++i) {
    for (uint64_t n = 880; n < 900; ++n) cache.find(key(n));
  }
  cache.resize(4 * kMiB);
  EXPECT_LE(cache.status().used_bytes, 4 * kMiB);
  EXPECT_EQ(cache.status().used_bytes, cache.used_bytes());
  EXPECT_GT(cache.status().used_bytes, 3 * kMiB);
  EXPECT_TRUE(cache.find(key(1)));
  EXPECT_TRUE(cache.find(key(899)));
  cache.resize(1);
  EXPECT_EQ(cache.status().capacity_bytes, kMiB) << "never below what may be pinned";
}

TEST(ReadCache, what_is_erased_is_gone) {
  ReadCache cache(4 * kMiB, kMiB);
  cache.insert(key(1), block(1), true);
  cache.insert(key(2), block(2));
  cache.find(key(2));
  cache.insert(key(3), block(3));
  for (uint64_t n = 1; n < 5; ++n) cache.erase(key(n));
  for (uint64_t n = 1; n < 5; ++n) EXPECT_FALSE(cache.find(key(n)));
  EXPECT_EQ(cache.status().used_bytes, 0u);
  EXPECT_EQ(cache.status().pinned_bytes, 0u);
  EXPECT_TRUE(cache.insert(key(1), block(1)));
}

TEST(ReadCache, without_capacity_it_is_off) {
  ReadCache cache(0, 0);
  EXPECT_FALSE(cache.insert(key(1), block(1)));
  EXPECT_FALSE(cache.find(key(1)));
}

TEST(ReadCache, many_threads) {
  ReadCache cache(64 * kMiB, 8 * kMiB);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      SeededRandom random(t);
      for (int i = 0; i < 20'000; ++i) {
        const uint64_t n = random.below(3000);
        if (t == 0 && i % 100 == 0) cache.resize((16 + 8 * (i / 100 % 7)) * kMiB);
        if (n % 64 == 0) cache.erase(key(n));
        if (auto found = cache.find(key(n))) {
          ASSERT_EQ(found->view()[0], n & 0xff);
        } else {
          cache.insert(key(n), block(n, 4096), random.below(100) == 0);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(cache.status().used_bytes, 64 * kMiB);
}

}  // namespace
}  // namespace quarry::cluster
