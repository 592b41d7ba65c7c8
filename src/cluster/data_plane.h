// DataPlane: stores and returns the bytes of writes over the drives of the cluster: erasure coding or mirroring, placement groups,
// degraded and hedged reads, read cache, removal, repair. It knows write ids and layouts, never names.
//
// Thread-safe: any executor may call; results come home to the caller's executor.
//
// Life of a write: DataWriter writer(plane.begin_write(...)); append...; finish() -> layout: all chunks are durable. Then the owner
// commits a metadata transaction that includes record(transaction, layout, owner): from then on the data is referenced. If the
// owner never commits, the data is an orphan: the writer's destructor or abort() removes it, and after a crash recovery does
// (its write id belongs to a session that ended, and no data row names it).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "cluster/data_layout.h"
#include "io/task.h"
#include "meta/meta_store.h"
#include "observe/request_context.h"

namespace quarry::cluster {

// One write in progress; used by one task at a time, on one executor.
class DataWriter {
 public:
  virtual ~DataWriter() = default;  // an unfinished or uncommitted write is removed in the background
  // Hands over the next bytes, any size > 0. Returns when they are accepted: encoding and device writes of earlier stripes overlap
  // with later appends, bounded by the plane's write memory (back-pressure is the await). Errors: no_space, unavailable.
  virtual Task<Result<void>> append(Buffer data) = 0;
  // Everything durable on enough drives. Errors: unavailable (too few drives to promise one loss when m > 0), no_space.
  virtual Task<Result<DataLayout>> finish() = 0;
  // The layout was committed (record() in a committed transaction): keep it. Without this call the data is removed.
  virtual void keep() = 0;
  // The commit's outcome is unknown: decide by looking for the data row, in the background.
  virtual void settle() = 0;
};

struct WriteOptions {
  Redundancy redundancy;
  uint64_t size_hint = 0;      // bytes, if known; 0: unknown
  uint32_t pack_limit = 128 * 1024;  // writes up to this size are mirrored m + 1 times instead of striped
};

// A read in progress.
class DataReader {
 public:
  virtual ~DataReader() = default;
  // Next piece, at most max_bytes (a hint), verified; empty at the end. Read-ahead is the reader's business.
  // Errors: data_lost (fewer than k pieces survive), corrupt, unavailable.
  virtual Task<Result<SharedBytes>> next(size_t max_bytes) = 0;
};

// Keeps chunks readable: what transactions retire that commit while it lives is not removed before it is gone. Taken before a
// layout is looked up, and held until the DataReader exists (which then holds its own layout), so that no overwrite or delete between
// the two cuts the read. Cheap: an epoch. Thread-safe; may be destroyed on any thread.
class ReadGuard {
 public:
  virtual ~ReadGuard() = default;
};

enum class CachePolicy : uint8_t { normal, bypass, pin };

struct DriveStatus {
  uint32_t number = 0;
  Uuid id;
  std::string path;
  std::string domain;
  std::string state;   // active, draining, failed, missing, removed
  std::string reason;
  uint64_t size_bytes = 0, used_bytes = 0, free_bytes = 0;
  uint64_t read_errors = 0, write_errors = 0, checksum_errors = 0;
};

struct RepairStatus {
  uint64_t pending_writes = 0;      // data rows still to look at or rebuild
  uint64_t repaired_writes = 0;
  uint64_t repaired_bytes = 0;
  uint64_t lost_writes = 0;         // fewer than k pieces survive
  unsigned lowest_redundancy = 0;   // losses the most endangered data can still survive
  double bytes_per_second = 0;
  int64_t eta_seconds = -1;         // -1: unknown
  std::string activity;             // "idle", "repairing drive 3", "draining drive 1", "rebalancing"
};

struct ScrubStatus {
  std::string state;  // idle, running, paused
  uint64_t bytes_checked = 0, chunks_checked = 0, damaged = 0, repaired = 0;
  double position = 0;      // 0..1 of this pass
  int64_t last_complete = 0;  // wall time ns; 0: never
};

struct SpaceStatus {
  uint64_t raw_bytes = 0, used_bytes = 0, free_bytes = 0, payload_bytes = 0;
  uint64_t usable_free_bytes = 0;  // what can still be put at the default redundancy
};

struct CacheStatus {
  uint64_t capacity_bytes = 0, used_bytes = 0, pinned_bytes = 0, hits = 0, misses = 0, admitted = 0, evicted = 0;
};

class DataPlane {
 public:
  virtual ~DataPlane() = default;

  virtual Result<std::unique_ptr<DataWriter>> begin_write(const WriteOptions& options) = 0;
  // Bytes [offset, offset + length) of the layout; the caller keeps the range inside layout.size.
  virtual std::unique_ptr<DataReader> read(const DataLayout& layout, uint64_t offset, uint64_t length, CachePolicy policy) = 0;

  // See ReadGuard. Null: this plane removes nothing while it runs (a fake).
  virtual std::unique_ptr<ReadGuard> guard_reads() { return nullptr; }
  // Keeps the layout's data in the read cache until unpinned, within the cache's pin limit (no_space beyond). Pinning reads it in.
  virtual Task<Result<void>> set_pinned(DataLayout layout, bool pinned);

  // Adds to the transaction: this layout is referenced, by `owner` (opaque bytes, for fsck and people).
  virtual void record(meta::Transaction& transaction, const DataLayout& layout, std::string owner) = 0;
  // Adds to the transaction: the layout is referenced no more; its chunks are removed once the commit is durable and readers that
  // began before have left.
  virtual void retire(meta::Transaction& transaction, const DataLayout& layout) = 0;
  // After the transaction committed: start removing (a hint; a periodic sweep finds what was not hinted).
  virtual void retired() = 0;

  virtual std::vector<DriveStatus> drives() const = 0;
  virtual RepairStatus repair_status() const = 0;
  virtual ScrubStatus scrub_status() const = 0;
  virtual SpaceStatus space_status() const = 0;
  virtual CacheStatus cache_status() const = 0;

  // Administration; each is durable in the cluster map when it returns, the data movement goes on in the background.
  virtual Task<Result<void>> add_drive(std::string path, bool force) = 0;
  virtual Task<Result<void>> drain_drive(uint32_t number) = 0;
  virtual Task<Result<void>> remove_drive(uint32_t number, bool force) = 0;   // refused while data has too few other pieces, unless forced
  virtual Task<Result<void>> replace_drive(uint32_t number, std::string path, bool force) = 0;
  virtual Task<Result<void>> start_scrub() = 0;

  // Checks the design's invariants over drives and data rows. `violations` name each breach; `repair` also removes orphans.
  struct FsckReport {
    std::vector<std::string> violations;
    uint64_t data_rows = 0, chunks = 0, orphan_chunks = 0, missing_chunks = 0;
  };
  virtual Task<Result<FsckReport>> fsck(bool repair) = 0;

  // The data rows with write ids above `after`, in order, at most `limit`: for the owner's fsck, who compares them with its records.
  struct Reference {
    DataLayout layout;
    std::string owner;
  };
  virtual Task<Result<std::vector<Reference>>> references(WriteId after, size_t limit);
};

inline Task<Result<void>> DataPlane::set_pinned(DataLayout, bool) {
  co_return fail(Code::unsupported, "this data plane has no read cache to pin in");
}

inline Task<Result<std::vector<DataPlane::Reference>>> DataPlane::references(WriteId, size_t) {
  co_return fail(Code::unsupported, "this data plane does not list its rows");
}

}  // namespace quarry::cluster
