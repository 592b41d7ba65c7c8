// ReadCache: verified data in memory, bounded in bytes. S3-FIFO (Yang et al., SOSP 2023): new blocks enter a small queue (a tenth of the
// space) and reach the main one only if they are asked for again, so that one scan of a data set does not flush what is hot; a ghost
// queue remembers what left the small one. Chosen over TinyLFU because a hit is one counter in the entry (no list is relinked, no sketch
// touched) and because epochs of training data, each read once, are just the scans it resists.
//
// What was just written enters like what was just read, so that its first read finds it: it takes the place of other blocks of the small
// queue, never of hot ones.
//
// Thread-safe: split by hash into parts with one short lock each. Memory counted is what the slices keep alive
// (SharedBytes::retained_bytes) and what an entry takes itself. Pinned blocks are never evicted and have a bound of their own. The capacity
// may change at any time (cache_keeper.h).
#pragma once
#include <atomic>
#include <deque>
#include <list>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "cluster/data_plane.h"

namespace quarry::cluster {

struct CacheKey {
  ChunkId chunk;       // generation 0: rewrites and moves hold the same bytes
  uint32_t block = 0;  // kWholeShard, or index of a block of kCacheBlockSize
  bool operator==(const CacheKey&) const = default;
};
inline constexpr uint32_t kWholeShard = UINT32_MAX;
inline constexpr uint32_t kCacheBlockSize = 64 * 1024;

class ReadCache {
 public:
  static constexpr uint64_t kEntryOverhead = 256;  // bytes of an entry, its place in the index and the handles of its memory

  // 0 bytes: no cache. pin_bytes is part of capacity_bytes.
  ReadCache(uint64_t capacity_bytes, uint64_t pin_bytes);

  std::optional<SharedBytes> find(const CacheKey& key);
  // false: refused (larger than the cache, or pinned beyond the pin bound).
  bool insert(const CacheKey& key, SharedBytes bytes, bool pinned = false);
  // A pinned entry becomes an ordinary one.
  void unpin(const CacheKey& key);
  // What will not be asked for any more (its write was retired). Pinned or not.
  void erase(const CacheKey& key);
  // Not below what is pinned. Shrinking evicts and frees: on a thread that may take its time. Of an enabled cache only; bytes > 0.
  void resize(uint64_t capacity_bytes);
  bool enabled() const { return capacity() > 0; }
  uint64_t capacity() const { return capacity_.load(std::memory_order_relaxed); }
  uint64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed) + pinned_bytes_.load(std::memory_order_relaxed); }
  CacheStatus status() const;

 private:
  struct Entry {
    CacheKey key;
    SharedBytes bytes;
    uint8_t frequency = 0;
  };
  using Queue = std::list<Entry>;
  enum class Where : uint8_t { small, main, pinned };
  struct Location {
    Queue::iterator entry;
    Where where;
  };
  struct KeyHash {
    size_t operator()(const CacheKey& key) const { return ChunkIdHash()(key.chunk) ^ key.block * 0x9e3779b97f4a7c15ull; }
  };
  struct Part {
    std::mutex mutex;
    std::unordered_map<CacheKey, Location, KeyHash> index;
    Queue small, main, pinned;
    uint64_t small_bytes = 0, main_bytes = 0;
    std::deque<size_t> ghost;                     // hashes, oldest first
    std::unordered_map<size_t, uint32_t> ghosts;  // how often each is in `ghost`
    uint64_t hits = 0, misses = 0, admitted = 0, evicted = 0;
  };
  static uint64_t weight(const Entry& entry) { return entry.bytes.retained_bytes() + kEntryOverhead; }
  Part& part_of(const CacheKey& key) { return *parts_[KeyHash()(key) >> 7 & (parts_.size() - 1)]; }
  uint64_t part_capacity() const { return capacity() / parts_.size(); }
  // Evicts what is beyond the capacity, at most `entries`; their memory goes to `dropped`, to be freed without the lock. true: all of it.
  bool make_room(Part& part, std::vector<SharedBytes>& dropped, size_t entries = SIZE_MAX);
  void add(Part& part, bool to_main, uint64_t bytes);
  void subtract(Part& part, bool from_main, uint64_t bytes);
  void remember(Part& part, size_t hash);

  std::atomic<uint64_t> capacity_;
  const uint64_t pin_capacity_;
  std::atomic<uint64_t> pinned_bytes_{0}, used_bytes_{0};  // used: without the pinned ones
  std::vector<std::unique_ptr<Part>> parts_;
};

}  // namespace quarry::cluster
