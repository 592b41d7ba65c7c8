// RawStore: a chunk store that owns a whole block device, or a file that stands for one. No file system, no other files.
//
//   co_await RawStore::format(*device, {.cluster = cluster, .drive = random.uuid()});
//   auto store = co_await RawStore::open(std::move(device), {.cluster = cluster});
//
// The device is superblock zones and equal segments; large chunks lie in extents, small ones in packed frames, and a short log
// makes both durable. docs/formats/raw-device.md has every byte; docs/decisions/0002-raw-store.md the reasons.
//
// Confined to the executor that opened it. put is durable after one device write (small chunk: the frame is the commit record) or
// after data, flush and a log frame (large chunk); concurrent puts share frames and flushes.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "chunk/chunk_store.h"

namespace quarry::chunk {

// How free space is given out. Chosen from the device's class unless stated.
enum class AllocationPolicy : uint8_t {
  automatic = 0,
  spread = 1,     // solid state: the tightest hole, new segments round robin over the device
  ascending = 2,  // rotating: low addresses (outer tracks) first, large holes first
};

struct FormatOptions {
  Uuid cluster;               // nil: belongs to nobody yet; open accepts any cluster
  Uuid drive;                 // nil: drawn
  bool force = false;         // overwrite a Quarry superblock that is there. (Other contents: see raw/device_probe.h.)
  uint64_t segment_size = 0;  // bytes, a power of two; 0: from the device's size
  uint32_t pack_limit = 0;    // chunks of at most this many bytes are packed; 0: default (kPackLimit)
  std::string label;          // see ChunkStore::set_label
};

struct RawStoreOptions {
  std::optional<Uuid> cluster;  // refuse a device that belongs to another
  bool read_only = false;       // nothing is written, not even repairs
  AllocationPolicy policy = AllocationPolicy::automatic;
  bool background = true;                              // compaction, zero-ahead and discards run by themselves
  Duration discard_after = std::chrono::seconds(30);   // what was freed and not taken again for so long is discarded
  double compaction_live_below = 0.70;                 // packed segments with less live data are worth compacting
  double compaction_share = 0.10;                      // of the device's time, at most, while requests are served
  Duration idle_seal = std::chrono::milliseconds(50);  // after this much quiet the tails of log and frames are recorded twice
  // Nothing is written when the last look at whose drive it is lies further back; who opens a drive that was not closed waits longer.
  Duration owner_look = std::chrono::seconds(1);
};

// What open had to do, for logs and tests.
struct OpenReport {
  bool clean = false;  // closed properly the last time
  uint64_t chunks = 0;
  uint64_t inventories_read = 0;
  uint64_t log_records_replayed = 0;
  uint64_t frames_scanned = 0;  // packed frames after the last checkpoint
  uint64_t torn_tails = 0;      // unacknowledged writes cut off
  uint64_t superblocks_repaired = 0;
  uint64_t segments_rebuilt = 0;    // inventory lost: rebuilt from payload headers
  bool log_rebuilt = false;         // log lost or damaged before its end: rebuilt from payload headers
  std::vector<std::string> damage;  // one sentence each: what is lost or suspect
};

struct RawStoreStats {
  uint64_t index_bytes = 0;  // memory of index, segment table and free lists
  uint64_t log_frames = 0;   // since open
  uint64_t log_records = 0;
  uint64_t packed_frames = 0;
  uint64_t packed_items = 0;
  uint64_t checkpoints = 0;
  uint64_t segments_compacted = 0;
  uint64_t bytes_compacted = 0;
  uint64_t bytes_discarded = 0;
  uint64_t segments_retired = 0;
};

class RawStore : public ChunkStore {
 public:
  // Writes an empty store. Durable when it returns. The caller has probed the device (raw/device_probe.h).
  // Errors: already_exists (holds a Quarry store and not forced), invalid_argument (too small), incompatible (sectors above 4 KiB),
  // io_error, device_gone.
  static Task<Result<Uuid>> format(BlockDevice& device, FormatOptions options);
  // Becomes the drive's owner, recovers and serves. One that was not closed may be in use elsewhere: then its user notices before it
  // acknowledges anything that this does not find. Errors: busy (opened elsewhere at the same time), wrong_owner, incompatible (newer
  // format: says which), corrupt (no superblock agrees), not_found (not a Quarry device), io_error, device_gone.
  static Task<Result<std::unique_ptr<RawStore>>> open(std::unique_ptr<BlockDevice> device, RawStoreOptions options);
  // What a device says about itself, without opening the store. Errors: not_found (not a Quarry device), incompatible, corrupt.
  struct Identity {
    Uuid drive, cluster;
    uint64_t device_size = 0, segment_size = 0, segments = 0, mounts = 0, fencing_epoch = 0;
    uint32_t format_version = 0;
    bool clean = false;
    std::string label;
  };
  static Task<Result<Identity>> identify(BlockDevice& device);

  virtual Uuid cluster_id() const = 0;
  // Joins a device formatted without a cluster. Durable when it returns. Errors: wrong_owner (has another).
  virtual Task<Result<void>> set_cluster_id(Uuid cluster) = 0;
  // Of this open; see chunk/fencing.h.
  virtual uint64_t fencing_epoch() const = 0;
  uint64_t owner_epoch() const override { return fencing_epoch(); }
  // Takes the space that a grown device or file has now. Returns the new device size. A smaller device is refused: invalid_argument.
  virtual Task<Result<uint64_t>> grow() = 0;
  // Writes what a restart needs, so that it replays nothing older. Happens by itself when the log fills, and on close.
  virtual Task<Result<void>> checkpoint() = 0;
  // Compacts packed segments until none is below the threshold, regardless of share. For tests and idle times.
  virtual Task<Result<void>> compact() = 0;
  virtual const OpenReport& open_report() const = 0;
  virtual RawStoreStats stats() const = 0;
};

// Prints on-disk structures of a device that need not be open or sound, as JSON text. `what`: "superblock", "label" (its copies, not its
// text, which holds a key), "segments", "segment N" (its slots, frames and chunk headers), "log", "chunk ID" (opens nothing, searches
// inventories and frames), or "all".
// Errors: invalid_argument (unknown what), not_found, io_error.
Task<Result<std::string>> inspect_raw_device(BlockDevice& device, std::string what);

// Offline check of every structure; reads payloads too if `deep`. Changes nothing.
Task<Result<FsckReport>> fsck_raw_device(std::unique_ptr<BlockDevice> device, bool deep);

}  // namespace quarry::chunk
