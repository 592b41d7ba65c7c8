// ReadCache: verified data in memory, bounded in bytes. S3-FIFO (Yang et al., SOSP 2023): new blocks enter a small queue (a tenth of the
// space) and reach the main one only if they are asked for again, so that one scan of a data set does not flush what is hot; a ghost
// queue remembers what left the small one. Chosen over TinyLFU because a hit is one counter in the entry (no list is relinked, no sketch
// touched) and because epochs of training data, each read once, are just the scans it resists.
//
// Thread-safe: split by hash into parts with one short lock each. Memory counted is what the slices keep alive
// (SharedBytes::retained_bytes). Pinned blocks are never evicted and have a bound of their own.
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
  // 0 bytes: no cache. pin_bytes is part of capacity_bytes.
  ReadCache(uint64_t capacity_bytes, uint64_t pin_bytes);

  std::optional<SharedBytes> find(const CacheKey& key);
  // false: refused (larger than the cache, or pinned beyond the pin bound).
  bool insert(const CacheKey& key, SharedBytes bytes, bool pinned = false);
  // A pinned entry becomes an ordinary one.
  void unpin(const CacheKey& key);
  bool enabled() const { return capacity_ > 0; }
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
  static uint64_t weight(const Entry& entry) { return std::max<uint64_t>(entry.bytes.retained_bytes(), 64); }
  Part& part_of(const CacheKey& key) { return *parts_[KeyHash()(key) >> 7 & (parts_.size() - 1)]; }
  void make_room(Part& part);
  void remember(Part& part, size_t hash);

  const uint64_t capacity_;
  const uint64_t pin_capacity_;
  uint64_t part_capacity_ = 0;
  std::atomic<uint64_t> pinned_bytes_{0};
  std::vector<std::unique_ptr<Part>> parts_;
};

}  // namespace quarry::cluster
