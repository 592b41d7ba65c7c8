#include "base/bytes.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/buffer_arena.h"

namespace quarry {
namespace {

TEST(Buffer, sizes_are_kept_and_memory_is_aligned) {
  const uint64_t before = buffer_bytes_in_use();
  std::vector<Buffer> buffers;
  for (const size_t size :
       {size_t{1}, size_t{4096}, size_t{4097}, 17 * kKiB, 65 * kKiB, kMiB, kMiB + 1, 8 * kMiB, 8 * kMiB + 1, 20 * kMiB}) {
    Buffer& buffer = buffers.emplace_back(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(buffer.capacity(), round_up(size, 4096));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
    std::memset(buffer.data(), static_cast<int>(size), buffer.capacity());
    EXPECT_GE(buffer_allocation_size(size), buffer.capacity());
    EXPECT_LE(buffer_allocation_size(size), buffer.capacity() * 5 / 4 + 4096);
  }
  for (const Buffer& buffer : buffers) {
    for (size_t i = 0; i < buffer.size(); i += 4096) ASSERT_EQ(buffer.data()[i], static_cast<uint8_t>(buffer.size()));
  }
  EXPECT_GT(buffer_bytes_in_use(), before);
  buffers.clear();
  EXPECT_EQ(buffer_bytes_in_use(), before);
}

TEST(Buffer, live_buffers_never_overlap_under_random_use) {
  uint64_t random = 12345;
  const auto next = [&random] { return random = random * 6364136223846793005ull + 1442695040888963407ull, random >> 33; };
  std::vector<Buffer> live;
  for (int i = 0; i < 20000; ++i) {
    if (live.size() > 60 || (next() % 2 == 0 && !live.empty())) {
      std::swap(live[next() % live.size()], live.back());
      const Buffer& dying = live.back();
      const uint8_t mark = dying.data()[0];
      ASSERT_EQ(dying.data()[dying.size() / 2], mark);
      ASSERT_EQ(dying.data()[dying.size() - 1], mark);
      live.pop_back();
    } else {
      Buffer& fresh = live.emplace_back(1 + next() % (next() % 8 == 0 ? 3 * kMiB : 100 * kKiB));
      const auto mark = static_cast<uint8_t>(next());
      fresh.data()[0] = fresh.data()[fresh.size() / 2] = fresh.data()[fresh.size() - 1] = mark;
    }
  }
}

TEST(Buffer, a_warm_path_asks_nobody) {
  {
    const Buffer warm(kMiB);
  }
  const auto before = buffer_arena_stats();
  for (int i = 0; i < 1000; ++i) {
    const Buffer again(kMiB);
    ASSERT_NE(again.data(), nullptr);
  }
  const auto after = buffer_arena_stats();
  if (buffer_arena_chunks_max() == 0) GTEST_SKIP() << "plain heap under sanitizers";
  EXPECT_EQ(after.refills, before.refills);
  EXPECT_EQ(after.heap_allocations, before.heap_allocations);
}

uint64_t resident_bytes() {
  unsigned long long pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "re")) {
    if (std::fscanf(file, "%*u %llu", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * 4096;
}

TEST(Buffer, beyond_the_limit_memory_is_not_registered_and_goes_back) {
  if (buffer_arena_chunks_max() == 0) GTEST_SKIP() << "plain heap under sanitizers";
  std::vector<Buffer> many;
  const size_t wanted = buffer_arena_limit() + kBufferFreeMax + 256 * kMiB;
  for (int round = 0; round < 2; ++round) {
    while (many.size() * 4 * kMiB <= wanted) {
      Buffer& buffer = many.emplace_back(4 * kMiB);
      for (size_t at = 0; at < buffer.size(); at += 4096) buffer.data()[at] = static_cast<uint8_t>(many.size());
    }
    EXPECT_LE(buffer_arena_stats().chunk_bytes, buffer_arena_limit());
    EXPECT_GE(buffer_arena_stats().extra_bytes, kBufferFreeMax + 256 * kMiB - 16 * kMiB);
    EXPECT_LT(buffer_arena_chunk_of(many.back().data(), many.back().size()), 0);
    for (size_t i = 0; i < many.size(); ++i) ASSERT_EQ(many[i].data()[0], static_cast<uint8_t>(i + 1));
    const uint64_t before = resident_bytes();
    // Out of order, as requests end.
    for (size_t i = 0; i < many.size(); ++i) std::swap(many[i], many[(i * 7919) % many.size()]);
    many.clear();
    EXPECT_LE(buffer_arena_stats().extra_bytes, kBufferFreeMax + kBufferCacheMax + 2 * kBufferChunk);
    EXPECT_LT(resident_bytes(), before - 150 * kMiB);
  }
  const Buffer small(kMiB);
  EXPECT_GE(buffer_arena_chunk_of(small.data(), small.size()), 0) << "space of large runs is usable for others again";
}

TEST(Buffer, threads_exchange_buffers) {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<Buffer> shared;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        Buffer mine(4096 * (1 + static_cast<size_t>(i) % 40));
        std::memset(mine.data(), t, mine.size());
        const std::lock_guard lock(mutex);
        shared.push_back(std::move(mine));
        if (shared.size() > 50) shared.erase(shared.begin(), shared.begin() + 25);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const Buffer& buffer : shared) {
    for (const uint8_t byte : buffer.view()) ASSERT_EQ(byte, buffer.data()[0]);
  }
}

TEST(SharedBytes, a_slice_keeps_its_owner_alive) {
  SharedBytes slice;
  {
    const SharedBytes whole = SharedBytes::copy_of(bytes_of("hello world"));
    slice = whole.slice(6, 5);
  }
  EXPECT_EQ(text_of(slice), "world");
  EXPECT_EQ(slice.retained_bytes(), 4096u);
}

// Last: small buffers leave their chunks in slices.
TEST(Buffer, what_is_free_between_buffers_goes_back_when_asked) {
  if (buffer_arena_chunks_max() == 0) GTEST_SKIP() << "plain heap under sanitizers";
  for (const size_t size : {size_t{kMiB}, size_t{12 * kKiB}}) {
    std::vector<Buffer> many;
    const size_t wanted = buffer_arena_limit() + 512 * kMiB;
    while (many.size() * size <= wanted) {
      Buffer& buffer = many.emplace_back(size);
      for (size_t at = 0; at < buffer.size(); at += 4096) buffer.data()[at] = static_cast<uint8_t>(many.size());
    }
    // Nine of ten die, so that hardly any chunk is wholly free.
    for (size_t i = 0; i < many.size(); ++i) {
      if (i % 10 != 0) many[i] = Buffer();
    }
    const uint64_t before = resident_bytes();
    buffer_arena_trim();
    EXPECT_LT(resident_bytes(), before - 300 * kMiB) << size;
    for (size_t i = 0; i < many.size(); i += 10) ASSERT_EQ(many[i].data()[0], static_cast<uint8_t>(i + 1));
    for (size_t i = 0; i < many.size(); ++i) {  // all of it is usable again
      if (i % 10 != 0) many[i] = Buffer(size);
      many[i].data()[size - 1] = static_cast<uint8_t>(i);
    }
    for (size_t i = 0; i < many.size(); ++i) ASSERT_EQ(many[i].data()[size - 1], static_cast<uint8_t>(i));
  }
}

}  // namespace
}  // namespace quarry
