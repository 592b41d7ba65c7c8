// Plane: the services that the parts of the data plane share. Built by the cluster, outlives every writer, reader and background task.
#pragma once
#include <atomic>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "cluster/cluster.h"
#include "cluster/drives/drive_set.h"
#include "cluster/stripes/activity.h"
#include "cluster/stripes/memory_budget.h"
#include "cluster/stripes/read_cache.h"
#include "cluster/stripes/write_ids.h"
#include "io/background.h"
#include "io/sync.h"

namespace quarry::cluster {

// Writes that are known to have fewer shards than they should, until repair has looked at them. Thread-safe.
class RepairRequests {
 public:
  static constexpr size_t kMax = 64 * 1024;  // beyond it requests are dropped: scrub and later reads find them again
  void add(const DataLayout& layout);
  std::vector<DataLayout> take(size_t limit);
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<WriteId, DataLayout> wanted_;
};

// Shards that lie where the map does not look for them while their own place lacks them: what a drive brings along that was away for so
// long that its places went to others, and the others could not make up for it. Readers and repair look there too. Thread-safe.
class Strays {
 public:
  static constexpr size_t kMax = 64 * 1024;  // more are not remembered: the next audit of the drive finds them again
  void add(WriteId id, unsigned shard, Place place);
  bool has(WriteId id) const;
  void append(WriteId id, unsigned shard, std::vector<Place>& places) const;
  void forget(WriteId id);

 private:
  using Key = std::tuple<WriteId, unsigned, uint32_t, uint16_t>;  // write, shard, drive, term
  std::atomic<size_t> count_{0};                                  // so that who reads asks no lock while there is none
  mutable std::mutex mutex_;
  std::set<Key> known_;
};

// Names of writes that drives keep as files, from finish() until their writer is gone: what is to be recorded with them. Thread-safe.
class FileNames {
 public:
  void set(WriteId id, FileName name);
  void forget(WriteId id);
  std::optional<FileName> find(WriteId id) const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<WriteId, FileName> names_;
};

class Files;

struct Plane {
  Plane(Executor& home, DriveSet& drive_set, meta::MetaStore& meta_store, const ClusterTuning& settings, uint64_t session)
      : drives(drive_set),
        meta(meta_store),
        tuning(settings),
        background(home),
        writes(drive_set),
        write_memory(settings.write_memory_bytes / 2),
        write_ahead(settings.write_memory_bytes / 2),
        read_ahead(settings.read_ahead_bytes),
        cache(settings.cache_bytes, settings.cache_pin_bytes),
        ids(meta_store, session, background, settings.write_id_block) {}

  DriveSet& drives;
  meta::MetaStore& meta;
  const ClusterTuning tuning;
  Background background;
  ActiveReads reads;
  ActiveWrites writes;
  MemoryBudget write_memory;  // the stripe that each write gathers
  MemoryBudget write_ahead;   // further stripes of a write, while earlier ones are on their way to the drives
  MemoryBudget read_ahead;
  ReadCache cache;
  WriteIds ids;
  RepairRequests repairs;
  Strays strays;
  FileNames file_names;
  Files* files = nullptr;  // set by the data plane before anything is read or written

  // Makes layouts of this width possible (a map change on the home executor). Set by the cluster.
  std::function<Task<Result<void>>(uint8_t width)> register_width;
  // Wakes the sweeper and the repairer; any thread. Set by the cluster.
  std::function<void()> wake_sweeper = [] {};
  std::function<void()> wake_repair = [] {};
  std::function<std::string()> read_only_reason = [] { return std::string(); };
  // Chunks are removed for what the metadata says only while it can be written. Else it may end with a commit that nobody was told of, on
  // one drive: should that die, what the commit retired is referenced again.
  bool may_remove() const { return read_only_reason().empty(); }

  // Shards that were not written: from finish() until record(). By write.
  std::mutex degraded_mutex;
  std::unordered_map<WriteId, uint8_t> degraded;  // losses it still survives
  std::atomic<size_t> degraded_count{0};
  // Copies of mirrored data take turns.
  std::atomic<uint32_t> read_rotation{0};

  // No older session's block is left to look through.
  std::atomic<bool> sessions_recovered{false};

  // Foreground bytes moved, for the background's budget.
  std::atomic<uint64_t> foreground_bytes{0};
  // Hedged reads may cost 5 % of what is read.
  std::atomic<uint64_t> bytes_read{0}, bytes_hedged{0};
  bool may_hedge(uint64_t cost) {
    constexpr uint64_t kBurst = 4 * kMiB;
    const uint64_t hedged = bytes_hedged.load(std::memory_order_relaxed);
    if ((hedged + cost) * 20 > bytes_read.load(std::memory_order_relaxed) + kBurst * 20) return false;
    bytes_hedged.fetch_add(cost, std::memory_order_relaxed);
    return true;
  }
};

// Returns when everything that was handed to the metadata before is seen or never will be: a commit that follows it in the log proves that.
// Tries until the metadata can be written, at most until `deadline`. Errors: cancelled (the store closes before), at the deadline those of
// the last attempt.
Task<Result<void>> until_commits_are_certain(Plane& plane, std::optional<TimePoint> deadline = std::nullopt);

inline ChunkName shard_name(const DataLayout& layout, uint32_t stripe, unsigned shard, uint16_t term) {
  return {.kind = ChunkKind::data,
          .serial = layout.write_id,
          .group = layout.group,
          .stripe = stripe,
          .shard = static_cast<uint8_t>(shard),
          .generation = generation_of(term, 0)};
}

inline CacheKey cache_key(const DataLayout& layout, uint32_t stripe, unsigned shard, uint32_t block) {
  return {chunk_id(shard_name(layout, stripe, layout.redundancy.is_copy(shard) ? 0 : shard, 0)), block};
}
// Nobody will read the write any more.
Task<void> forget_cached(Plane& plane, DataLayout layout);

// Some drive keeps a copy of such a layout as a file. Files may be changed behind our back, and are looked at with each read; the kernel's
// own cache makes that cheap.
bool lies_in_files(const Topology& topology, const DataLayout& layout);

inline constexpr uint64_t kStripeStride = uint64_t{1} << 24;  // between ids of neighbouring stripes (chunk_ids.h)

// Which part of a file the chunk of a full copy is. The result borrows from `file`.
inline chunk::FilePlace file_place(const DataLayout& layout, uint32_t stripe, unsigned shard, uint16_t term, uint16_t rewrite,
                                   const FileName& file) {
  ChunkName first = shard_name(layout, 0, shard, term);
  first.generation = generation_of(term, rewrite);
  return {.first = chunk_id(first),
          .index = stripe,
          .chunk_size = static_cast<uint32_t>(layout.stripe_bytes()),
          .stride = kStripeStride,
          .directory = file.directory,
          .name = file.name};
}
// Stripes to look for on drives: an empty write has none, but its file is one chunk without bytes.
inline uint32_t chunk_stripes(const DataLayout& layout) {
  return layout.size == 0 && layout.redundancy.has_copies() ? 1 : layout.stripe_count();
}
inline bool has_chunk(const DataLayout& layout, uint32_t stripe, unsigned shard) {
  return layout.size == 0 ? layout.redundancy.is_copy(shard) : layout.stored_size(stripe, shard) > 0;
}

// The row that names a file (docs/formats/cluster-keys.md).
std::string encode_file_name(const FileName& file);
Result<FileName> decode_file_name(std::string_view row);

// Chunks to remove, by drive.
struct Removal {
  std::map<Drive*, std::vector<ChunkName>> by_drive;
  // Adds all chunks of a write, in all places they may be. false: one of the places is on a drive that cannot be reached now but is not
  // given up: its chunks stay until it comes back.
  bool add(const Topology& topology, const DataLayout& layout);
  // Errors: the first that says some chunk may be left on a drive that is there; the other drives are done all the same.
  // disown: the writes were never committed (ChunkStore::disown).
  Task<Result<void>> run(bool disown = false);
  // Where that was so.
  std::vector<Drive*> failed;
  // Some of the write's chunks are, or may be, on these drives.
  static bool touches(const Topology& topology, const DataLayout& layout, const std::vector<Drive*>& drives);
  size_t chunks = 0;  // added
};

}  // namespace quarry::cluster
