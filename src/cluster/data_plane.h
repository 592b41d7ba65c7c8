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
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "cluster/file_service.h"
#include "cluster/map/data_layout.h"
#include "io/task.h"
#include "meta/meta_store.h"
#include "observe/request_context.h"

namespace quarry::cluster {

struct WriteOptions {
  Redundancy redundancy;
  uint64_t size_hint = 0;            // bytes, if known; 0: unknown
  uint32_t pack_limit = 128 * 1024;  // writes up to this size are mirrored m + 1 times instead of striped
  FileName file = {};
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
// layout is looked up, so that no overwrite or delete between the look and the read cuts it, and narrowed as soon as it is known what
// will be read: until then it holds back the removal of everything that is retired. Cheap: an epoch. Thread-safe; may be destroyed on
// any thread.
class ReadGuard {
 public:
  virtual ~ReadGuard() = default;
  // From now on it keeps these writes and nothing else, for as long as their reader takes. Once.
  virtual void narrow(std::vector<WriteId> writes) = 0;
};

enum class CachePolicy : uint8_t { normal, bypass, pin };

// The file system that a drive's file lies on.
struct SpaceBelow {
  std::string file_system;  // those that name the same share the space
  uint64_t free_bytes = 0;
  uint64_t allocated_bytes = 0;  // that the drive's file has already
};

struct DriveStatus {
  uint32_t number = 0;
  Uuid id;
  std::string path;
  std::string domain;
  std::string kind;   // raw, kfs, dir
  std::string state;  // active, read-only, draining, disabled, failed, missing, removed
  std::string reason;
  std::string_view cause;   // of reason, where that decides what can be done: away, taken, replaced, read-only, forced; or empty
  std::string file_system;  // drives that name the same share its space, and its fate; empty: the space is its own
  uint64_t size_bytes = 0, used_bytes = 0, free_bytes = 0;
  uint64_t read_errors = 0, write_errors = 0, checksum_errors = 0;
  // Of one that is in use: what people should know all the same.
  uint64_t room_bytes = 0;    // for new data
  bool slow = false;          // by far slower than the others at reads
  bool slow_writes = false;   // and at writes
  std::string unwell;         // why its health checks fail
  uint64_t failed_calls = 0;  // lately, and how the last one did
  std::string last_error;
  uint64_t shrunk_from_bytes = 0;  // it had as many; 0: it is as large as ever
  bool holds_data = false;         // some placement group has, or may have, data there
};

// How well the store is, computed from what could be lost now.
enum class HealthLevel : uint8_t {
  healthy,
  degraded,    // data survives fewer losses than it should, or something is on its way there
  unreadable,  // some data cannot be read now
};
std::string_view health_level_name(HealthLevel level);
inline constexpr std::string_view kHealthCauses[] = {"unreadable",   "redundancy",     "drive_away", "drive_read_only", "drive_failing",
                                                     "drive_errors", "drive_full",     "drive_slow", "drive_shrunk",    "damage",
                                                     "file_changed", "writes_refused", "index",      "drive_waiting"};
struct HealthProblem {
  HealthLevel level = HealthLevel::degraded;  // healthy: worth a word, and nothing is endangered
  std::string_view cause;                     // one of kHealthCauses
  std::string sentence;
};
struct HealthStatus {
  std::vector<HealthProblem> problems;
  HealthLevel level() const;  // the worst of them
};

// One sentence for each file system that several drives in use are on.
std::vector<std::string> shared_file_systems(const std::vector<DriveStatus>& drives);

struct RepairStatus {
  uint64_t pending_writes = 0;  // data rows still to look at or rebuild
  uint64_t repaired_writes = 0;
  uint64_t repaired_bytes = 0;
  uint64_t lost_writes = 0;        // known to be lost: fewer than k pieces survive
  uint64_t changed_writes = 0;     // files of which there is no other copy, changed or removed by somebody: readable again once put back
  unsigned lowest_redundancy = 0;  // losses the most endangered data can still survive
  double bytes_per_second = 0;
  int64_t eta_seconds = -1;  // -1: unknown
  std::string activity;      // "idle", "repairing drive 3", "draining drive 1", "rebalancing"
};

struct ScrubStatus {
  std::string state;   // idle, running, paused
  std::string reason;  // why nothing goes on, if it should; empty: nothing is wrong
  uint64_t bytes_checked = 0, chunks_checked = 0, damaged = 0, repaired = 0;
  double position = 0;        // 0..1 of this pass
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

  // What drives that keep files offer beyond this.
  virtual FileService& files();

  // Adds to the transaction: this layout is referenced, by `owner` (opaque bytes, for fsck and people).
  virtual void record(meta::Transaction& transaction, const DataLayout& layout, std::string owner) = 0;
  // Adds to the transaction: the layout is referenced no more; its chunks are removed once the commit is durable and readers that
  // began before have left.
  virtual void retire(meta::Transaction& transaction, const DataLayout& layout) = 0;
  // Gives a mirrored write more copies, or slices, without writing anew what is there: the layout changes, in the transaction that `commit`
  // commits for the layout it is given (with record_widened), and repair makes what is missing. Returns the layout; the old one must not
  // be retired. Errors: unsupported (what is there is no part of such a layout: write it anew), busy (data is being moved: later),
  // unavailable (too few drives), those of commit.
  using CommitLayout = std::function<Task<Result<void>>(DataLayout layout)>;
  virtual Task<Result<DataLayout>> widen(DataLayout layout, Redundancy redundancy, CommitLayout commit);
  virtual void record_widened(meta::Transaction& transaction, const DataLayout& before, const DataLayout& layout, std::string owner);
  // Some shards of the write are known to be missing and wait for repair.
  virtual Task<Result<bool>> awaits_repair(DataLayout layout);

  // Whether the layout was recorded, and retired after that. For an owner who does not know whether his own commit happened: a later one
  // may have undone it, and what he has written is being removed then. Told for sure only where a ReadGuard of his keeps the write since
  // before that commit.
  virtual Task<Result<bool>> was_retired(meta::Transaction& transaction, DataLayout layout);

  // After the transaction committed: start removing (a hint; a periodic sweep finds what was not hinted).
  virtual void retired() = 0;

  virtual std::vector<DriveStatus> drives() const = 0;
  virtual RepairStatus repair_status() const = 0;
  virtual ScrubStatus scrub_status() const = 0;
  virtual SpaceStatus space_status() const = 0;
  virtual CacheStatus cache_status() const = 0;
  virtual HealthStatus health() const { return {}; }

  // Administration; each is durable in the cluster map when it returns, the data movement goes on in the background.
  virtual Task<Result<void>> add_drive(std::string path, bool force) = 0;
  virtual Task<Result<void>> drain_drive(uint32_t number) = 0;
  virtual Task<Result<void>> remove_drive(uint32_t number, bool force) = 0;  // refused while data has too few other pieces, unless forced
  virtual Task<Result<void>> replace_drive(uint32_t number, std::string path, bool force) = 0;
  // Disabled: used for nothing until it is enabled; after the grace for missing drives its data is rebuilt elsewhere. Refused where data
  // would not be readable without it, unless forced. Enabling opens the drive anew if that is needed.
  virtual Task<Result<void>> disable_drive(uint32_t number, std::string reason, bool force);
  // force: although another node has opened it since this one did, and uses it perhaps. Else wrong_owner.
  virtual Task<Result<void>> enable_drive(uint32_t number, bool force = false);
  // For who enables by himself a drive that was away and is there again, at `path`. Errors: precondition_failed (by now it is out of use
  // for another reason: an operator's, or another node has it).
  virtual Task<Result<void>> take_back_drive(uint32_t number, std::string path);
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

inline Task<Result<DataLayout>> DataPlane::widen(DataLayout, Redundancy, CommitLayout) {
  co_return fail(Code::unsupported, "this data plane writes anew what gets more copies");
}
inline void DataPlane::record_widened(meta::Transaction&, const DataLayout&, const DataLayout&, std::string) {}
inline Task<Result<bool>> DataPlane::awaits_repair(DataLayout) { co_return false; }
inline Task<Result<bool>> DataPlane::was_retired(meta::Transaction&, DataLayout) { co_return false; }
inline Task<Result<void>> DataPlane::disable_drive(uint32_t, std::string, bool) {
  co_return fail(Code::unsupported, "this data plane has no drives to disable");
}
inline Task<Result<void>> DataPlane::take_back_drive(uint32_t, std::string) {
  co_return fail(Code::unsupported, "this data plane has no drives to take back");
}
inline Task<Result<void>> DataPlane::enable_drive(uint32_t, bool) {
  co_return fail(Code::unsupported, "this data plane has no drives to enable");
}

inline Task<Result<void>> DataPlane::set_pinned(DataLayout, bool) {
  co_return fail(Code::unsupported, "this data plane has no read cache to pin in");
}

inline Task<Result<std::vector<DataPlane::Reference>>> DataPlane::references(WriteId, size_t) {
  co_return fail(Code::unsupported, "this data plane does not list its rows");
}

// One that says that no drive keeps files.
inline FileService& DataPlane::files() {
  static FileService none;
  return none;
}

}  // namespace quarry::cluster
