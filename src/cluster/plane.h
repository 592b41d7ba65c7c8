// Plane: the services that the parts of the data plane share. Built by the cluster, outlives every writer, reader and background task.
#pragma once
#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "cluster/activity.h"
#include "cluster/background.h"
#include "cluster/cluster.h"
#include "cluster/drive_set.h"
#include "cluster/memory_budget.h"
#include "cluster/read_cache.h"
#include "cluster/write_ids.h"
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

struct Plane {
  Plane(Executor& home, DriveSet& drive_set, meta::MetaStore& meta_store, const ClusterTuning& settings, uint64_t session)
      : drives(drive_set),
        meta(meta_store),
        tuning(settings),
        background(home),
        writes(drive_set),
        write_memory(settings.write_memory_bytes),
        read_ahead(settings.read_ahead_bytes),
        cache(settings.cache_bytes, settings.cache_pin_bytes),
        ids(meta_store, session, background) {}

  DriveSet& drives;
  meta::MetaStore& meta;
  const ClusterTuning tuning;
  Background background;
  ActiveReads reads;
  ActiveWrites writes;
  MemoryBudget write_memory;
  MemoryBudget read_ahead;
  ReadCache cache;
  WriteIds ids;
  RepairRequests repairs;

  // Makes layouts of this width possible (a map change on the home executor). Set by the cluster.
  std::function<Task<Result<void>>(uint8_t width)> register_width;
  // Wakes the sweeper and the repairer; any thread. Set by the cluster.
  std::function<void()> wake_sweeper = [] {};
  std::function<void()> wake_repair = [] {};
  std::function<std::string()> read_only_reason = [] { return std::string(); };

  // Shards that were not written: from finish() until record(). By write.
  std::mutex degraded_mutex;
  std::unordered_map<WriteId, uint8_t> degraded;  // losses it still survives
  std::atomic<size_t> degraded_count{0};
  // A commit whose outcome could not be found out: the session must not end cleanly.
  std::atomic<bool> unsettled{false};

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

inline ChunkName shard_name(const DataLayout& layout, uint32_t stripe, unsigned shard, uint16_t term) {
  return {.kind = ChunkKind::data,
          .serial = layout.write_id,
          .group = layout.group,
          .stripe = stripe,
          .shard = static_cast<uint8_t>(shard),
          .generation = generation_of(term, 0)};
}

// Everything the layout's shard has, or may have, on drives: the places of its member. Current place first.
inline std::vector<Place> places_of(const Member& member) {
  std::vector<Place> places{member.at};
  places.insert(places.end(), member.before.begin(), member.before.end());
  return places;
}

// Chunks to remove, by drive.
struct Removal {
  std::map<Drive*, std::vector<ChunkName>> by_drive;
  // Adds all chunks of a write, in all places they may be. false: one of the places is on a drive that cannot be reached now but is not
  // given up: its chunks stay until it comes back.
  bool add(const Topology& topology, const DataLayout& layout);
  // Errors: the first that says some chunk may be left on a drive that is there.
  Task<Result<void>> run();
};

}  // namespace quarry::cluster
