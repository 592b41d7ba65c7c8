#include "base/buffer_arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdlib>

#include "base/check.h"
#include "base/machine.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define QUARRY_PLAIN_HEAP 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define QUARRY_PLAIN_HEAP 1
#endif
#endif

namespace quarry {
namespace {
constexpr size_t kPage = kBufferAlignment;
constexpr size_t kGranule = 16 * kKiB;                 // unit of the free map of a chunk
constexpr size_t kGranules = kBufferChunk / kGranule;  // 2048
constexpr size_t kSlicedMax = 64 * kKiB;               // classes up to this are slices of a run
constexpr size_t kSlicedRun = 256 * kKiB;
constexpr size_t kDefaultLimit = 256 * kMiB;

// Classes: 1, 2, 3, 4 pages, then four to each doubling: 5, 6, 7, 8, 10, 12, 14, 16, 20, ...
constexpr size_t kClasses = 4 + 4 * (std::bit_width(kBufferClassMax / kPage) - 3);
constexpr size_t class_of(size_t size) {
  const size_t pages = (size + kPage - 1) / kPage;
  if (pages <= 4) return pages - 1;
  const size_t doubling = static_cast<size_t>(std::bit_width(pages - 1));  // pages in (2^(d-1), 2^d], d >= 3
  const size_t step = size_t{1} << (doubling - 3);
  const size_t quarter = (pages - (size_t{1} << (doubling - 1)) + step - 1) / step;  // 1..4
  return 4 + (doubling - 3) * 4 + quarter - 1;
}
constexpr size_t class_size(size_t index) {
  if (index < 4) return (index + 1) * kPage;
  const size_t doubling = (index - 4) / 4 + 3, quarter = (index - 4) % 4 + 1;
  return ((size_t{1} << (doubling - 1)) + quarter * (size_t{1} << (doubling - 3))) * kPage;
}
static_assert(class_size(class_of(4096)) == 4096 && class_size(class_of(16385)) == 20480 && class_size(class_of(36 * kKiB)) == 40 * kKiB);
static_assert(class_of(kBufferClassMax) == kClasses - 1 && class_size(kClasses - 1) == kBufferClassMax);
static_assert(class_of(kMiB) + 1 == class_of(kMiB + 1) && class_size(class_of(kMiB)) == kMiB);

#ifdef QUARRY_PLAIN_HEAP
constexpr bool kPlainHeap = true;
#else
constexpr bool kPlainHeap = false;
#endif

std::atomic<size_t> configured_limit{SIZE_MAX};
std::atomic<uint64_t> heap_allocations{0}, refills{0};

struct Chunk {
  std::array<uint64_t, kGranules / 64> used{};
  size_t free = kGranules;
  size_t largest = kGranules;  // no free run is longer; spares searches that must fail
  bool resident = false;       // holds memory (or may)
  bool is_used(size_t granule) const { return (used[granule / 64] >> (granule % 64) & 1) != 0; }
  void mark(size_t from, size_t count, bool value) {
    for (size_t i = from; i < from + count; ++i) {
      const uint64_t bit = uint64_t{1} << (i % 64);
      value ? used[i / 64] |= bit : used[i / 64] &= ~bit;
    }
    value ? free -= count : free += count;
    if (!value) largest = free;
  }
};

class Arena {
 public:
  Arena() {
    const auto memory = static_cast<size_t>(machine_limits().memory_bytes);
    size_t limit = configured_limit.load();
    if (limit == SIZE_MAX) limit = std::min(kDefaultLimit, memory / 8);
    if (kPlainHeap) return;
    // Addresses for all the memory there is; one chunk more, to align the range.
    const size_t chunks = std::max(limit, memory) / kBufferChunk;
    void* range = mmap(nullptr, (chunks + 1) * kBufferChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return;
    chunks_max_ = chunks;
    staying_ = limit / kBufferChunk;
    base_ = round_up(reinterpret_cast<uintptr_t>(range), kBufferChunk);
    madvise(address(0), chunks_max_ * kBufferChunk, MADV_HUGEPAGE);  // fewer faults, cheaper registration; a hint
    madvise(address(0), chunks_max_ * kBufferChunk, MADV_DONTDUMP);  // payload does not belong into core files
  }

  size_t chunks_max() const { return chunks_max_; }
  size_t staying() const { return staying_; }
  uint8_t* address(size_t offset) const { return reinterpret_cast<uint8_t*>(base_ + offset); }
  bool contains(const void* data) const { return reinterpret_cast<uintptr_t>(data) - base_ < chunks_max_ * kBufferChunk; }
  size_t offset_of(const void* data) const { return reinterpret_cast<uintptr_t>(data) - base_; }

  // Up to `count` objects of a class; fewer, or none, when the range is full.
  void take(size_t index, size_t count, std::vector<uint8_t*>& into) {
    const std::lock_guard lock(mutex_);
    const size_t size = class_size(index);
    while (count > 0) {
      if (size > kSlicedMax) {
        uint8_t* run = take_run(size);
        if (run == nullptr) return;
        into.push_back(run);
        --count;
        continue;
      }
      auto& slices = slices_[index].empty() ? cold_[index] : slices_[index];
      if (slices.empty()) {
        uint8_t* run = take_run(kSlicedRun);
        if (run == nullptr) return;
        for (size_t at = 0; at + size <= kSlicedRun; at += size) slices.push_back(run + at);
      }
      into.push_back(slices.back());
      slices.pop_back();
      --count;
    }
  }

  void give(size_t index, std::span<uint8_t* const> objects) {
    std::unique_lock lock(mutex_);
    const size_t size = class_size(index);
    for (uint8_t* object : objects) {
      if (size <= kSlicedMax) {
        slices_[index].push_back(object);  // a run once sliced stays so: small buffers are few, and come again
        continue;
      }
      const size_t offset = offset_of(object), number = offset / kBufferChunk;
      Chunk& chunk = chunks_[number];
      chunk.mark(offset % kBufferChunk / kGranule, size / kGranule, false);
      if (number < staying_ || chunk.free < kGranules) continue;
      free_extra_ += kBufferChunk;
      if (free_extra_ <= kBufferFreeMax) continue;
      // Away with it. Nobody takes from it meanwhile, and nobody waits for the system call.
      free_extra_ -= kBufferChunk;
      chunk.mark(0, kGranules, true);
      lock.unlock();
      madvise(address(number * kBufferChunk), kBufferChunk, MADV_DONTNEED);
      lock.lock();
      chunks_[number].mark(0, kGranules, false);
      chunks_[number].resident = false;
    }
  }

  void trim() {
    for (size_t number = staying_;; ++number) {
      std::vector<std::pair<size_t, size_t>> runs;  // first granule, count
      {
        const std::lock_guard lock(mutex_);
        if (number >= chunks_.size()) break;
        Chunk& chunk = chunks_[number];
        if (!chunk.resident || chunk.free == 0) continue;
        if (chunk.free == kGranules) free_extra_ -= kBufferChunk;
        for (size_t granule = 0; granule < kGranules; ++granule) {
          if (chunk.is_used(granule)) continue;
          if (runs.empty() || runs.back().first + runs.back().second != granule) runs.emplace_back(granule, 0);
          ++runs.back().second;
        }
        for (const auto& [first, count] : runs) chunk.mark(first, count, true);  // nobody takes from it meanwhile
      }
      for (const auto& [first, count] : runs) madvise(address(number * kBufferChunk + first * kGranule), count * kGranule, MADV_DONTNEED);
      const std::lock_guard lock(mutex_);
      Chunk& chunk = chunks_[number];
      for (const auto& [first, count] : runs) chunk.mark(first, count, false);
      if (chunk.free < kGranules) continue;
      if (runs.size() == 1 && runs.front().second == kGranules) {
        chunk.resident = false;
      } else {
        free_extra_ += kBufferChunk;
      }
    }
    // Slices are whole pages.
    constexpr size_t kAtOnce = 256;
    for (size_t index = 0; index < kClasses && class_size(index) <= kSlicedMax; ++index) {
      std::vector<uint8_t*> some;
      do {
        some.clear();
        {
          const std::lock_guard lock(mutex_);
          auto& slices = slices_[index];
          while (!slices.empty() && some.size() < kAtOnce) {
            some.push_back(slices.back());
            slices.pop_back();
          }
        }
        for (uint8_t* slice : some) {
          if (offset_of(slice) / kBufferChunk >= staying_) madvise(slice, class_size(index), MADV_DONTNEED);
        }
        const std::lock_guard lock(mutex_);
        cold_[index].insert(cold_[index].end(), some.begin(), some.end());
      } while (!some.empty());
    }
  }

  BufferArenaStats stats() {
    const std::lock_guard lock(mutex_);
    BufferArenaStats stats;
    for (size_t number = 0; number < chunks_.size(); ++number) {
      (number < staying_ ? stats.chunk_bytes : stats.extra_bytes) += chunks_[number].resident ? kBufferChunk : 0;
    }
    return stats;
  }

 private:
  // First fit, so that low addresses are used again first and later chunks stay untouched.
  uint8_t* take_run(size_t size) {
    const size_t wanted = size / kGranule;
    for (size_t number = 0;; ++number) {
      if (number == chunks_.size()) {
        if (chunks_.size() == chunks_max_) return nullptr;
        chunks_.emplace_back();
      }
      Chunk& chunk = chunks_[number];
      if (chunk.free < wanted || chunk.largest < wanted) continue;
      size_t found = 0;
      for (size_t granule = 0; granule < kGranules; ++granule) {
        if (granule % 64 == 0 && chunk.used[granule / 64] == UINT64_MAX) {
          found = 0;
          granule += 63;
          continue;
        }
        found = chunk.is_used(granule) ? 0 : found + 1;
        if (found < wanted) continue;
        const size_t from = granule + 1 - wanted;
        if (number >= staying_ && chunk.free == kGranules && chunk.resident) free_extra_ -= kBufferChunk;
        chunk.resident = true;
        chunk.mark(from, wanted, true);
        return address(number * kBufferChunk + from * kGranule);
      }
      chunk.largest = wanted - 1;
    }
  }

  size_t chunks_max_ = 0;
  size_t staying_ = 0;  // the first ones, which are never given back
  uintptr_t base_ = 0;
  std::mutex mutex_;
  std::vector<Chunk> chunks_;
  size_t free_extra_ = 0;  // bytes of wholly free, resident chunks beyond staying_
  std::array<std::vector<uint8_t*>, kClasses> slices_;
  std::array<std::vector<uint8_t*>, kClasses> cold_;  // slices that were trimmed
};

// Never destroyed: buffers may die after everything static.
Arena& arena() {
  static Arena* const only = std::make_unique<Arena>().release();
  return *only;
}

thread_local bool cache_is_gone = false;

class ThreadCache {
 public:
  ~ThreadCache() {
    cache_is_gone = true;
    for (size_t index = 0; index < kClasses; ++index) arena().give(index, free_[index]);
  }
  uint8_t* take(size_t index) {
    auto& free = free_[index];
    if (free.empty()) {
      refills.fetch_add(1, std::memory_order_relaxed);
      const size_t batch = std::max<size_t>(1, keep(index) / 2);
      arena().take(index, batch, free);
      bytes_ += free.size() * class_size(index);
      if (free.empty()) return nullptr;
    }
    uint8_t* object = free.back();
    free.pop_back();
    bytes_ -= class_size(index);
    return object;
  }
  void give(size_t index, uint8_t* object) {
    auto& free = free_[index];
    free.push_back(object);
    bytes_ += class_size(index);
    if (free.size() <= keep(index) && bytes_ <= kBufferCacheMax) return;
    // The oldest half goes back; the youngest are warm in the processor's cache.
    const size_t back = (free.size() + 1) / 2;
    arena().give(index, std::span(free).first(back));
    free.erase(free.begin(), free.begin() + static_cast<ptrdiff_t>(back));
    bytes_ -= back * class_size(index);
  }

 private:
  static size_t keep(size_t index) { return std::clamp<size_t>(8 * kMiB / class_size(index), 2, 64); }
  std::array<std::vector<uint8_t*>, kClasses> free_;
  size_t bytes_ = 0;
};
thread_local ThreadCache thread_cache;

uint8_t* heap_allocate(size_t size) {
  heap_allocations.fetch_add(1, std::memory_order_relaxed);
  auto* data = static_cast<uint8_t*>(std::aligned_alloc(kPage, round_up(size, kPage)));
  CHECK(data != nullptr, "out of memory");
  return data;
}
}  // namespace

size_t buffer_arena_limit() { return arena().staying() * kBufferChunk; }
void set_buffer_arena_limit(size_t bytes) { configured_limit = bytes; }

void buffer_arena_trim() {
  if (arena().chunks_max() > 0) arena().trim();
}

size_t buffer_allocation_size(size_t size) {
  if (kPlainHeap || size > kBufferClassMax || size == 0) return round_up(size, kPage);
  return class_size(class_of(size));
}

uint8_t* buffer_allocate(size_t size) {
  Arena& from = arena();
  if (from.chunks_max() == 0 || size > kBufferClassMax) return heap_allocate(size);
  const size_t index = class_of(size);
  uint8_t* object = nullptr;
  if (cache_is_gone) {
    std::vector<uint8_t*> one;
    from.take(index, 1, one);
    if (!one.empty()) object = one.front();
  } else {
    object = thread_cache.take(index);
  }
  return object != nullptr ? object : heap_allocate(size);
}

void buffer_release(uint8_t* data, size_t size) {
  Arena& to = arena();
  if (!to.contains(data)) {
    std::free(data);
  } else if (cache_is_gone) {
    to.give(class_of(size), std::span(&data, 1));
  } else {
    thread_cache.give(class_of(size), data);
  }
}

size_t buffer_arena_chunks_max() { return arena().staying(); }
MutableByteView buffer_arena_chunk(size_t index) {
  CHECK(index < arena().staying());
  return {arena().address(index * kBufferChunk), kBufferChunk};
}
int buffer_arena_chunk_of(const void* data, size_t size) {
  const Arena& all = arena();
  if (!all.contains(data)) return -1;
  const size_t offset = all.offset_of(data);
  if (offset % kBufferChunk + size > kBufferChunk || offset / kBufferChunk >= all.staying()) return -1;
  return static_cast<int>(offset / kBufferChunk);
}

BufferArenaStats buffer_arena_stats() {
  BufferArenaStats stats = arena().stats();
  stats.heap_allocations = heap_allocations.load(std::memory_order_relaxed);
  stats.refills = refills.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace quarry
