// BucketSet: the 256 S-buckets of one directory: named runs of 64 KiB blocks, each bucket its own LevelDB.
//
// Instances are created when the first file is sorted into them, opened on demand, at most `instances_max` at a time, and closed when idle
// (least recently used first when room is needed). Compaction is scheduled per bucket when deletions pile up.
//
// Durability: a file of one batch (up to kOneBatchBytes, chunks always) is one atomic record, synced. A larger one is written in batches
// that are not synced: what LevelDB has meanwhile moved into tables, and taken its log away, was never written twice. Then all logs that
// are left are synced, and only then goes the header, synced too: a header is never on disk before all of its blocks. (LevelDB itself ends
// a log without a sync; BucketEnv keeps such logs until they are synced or removed.)
//
// Recovery: a run without a header is what an interrupted write or removal left. A bucket that was in use when the process or the machine
// stopped is looked through when it is opened next, one seek a file, and such runs are removed. A store that was closed properly knows what
// is in its buckets, and opens without a look.
//
// A write that failed leaves an instance that is not written to again: it is closed and opened anew (recovering what is on disk) by the
// next write once there is room; reads go on from it meanwhile. What the failed write may have left is removed then.
//
// Thread-safe and blocking.
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "chunk/kfs/files.h"
#include "chunk/kfs/format.h"
#include "chunk/kfs/kfs_options.h"

namespace leveldb {
class Cache;
class DB;
class FilterPolicy;
class WriteBatch;
}  // namespace leveldb

namespace quarry::chunk::kfs {

class ElasticThreads;
class Instance;

inline constexpr size_t kOneBatchBytes = 8 * kMiB;    // a file up to this size is one batch
inline constexpr size_t kBatchBytes = 4 * kMiB;       // the batches of a larger one, after its first
inline constexpr uint64_t kRemoveAtOnceBlocks = 256;  // of a larger run only the header goes at once, the blocks behind it

enum class Condition : uint8_t { online, read_only, failed };

struct BucketUse : BucketCount {
  bool known = false;  // counted: when the store was closed, or when the bucket was first opened
};

struct SetHealth {
  Condition condition = Condition::online;
  std::string reason;
  uint64_t read_errors = 0, write_errors = 0, checksum_errors = 0;
};

class BucketSet {
 public:
  // descriptor: as read; it is rewritten when a bucket is created, a label set, on open (not clean) and on close.
  // Errors: io_error and the like (the descriptor cannot be written). A read-only file system is none: then nothing is ever written.
  static Result<std::unique_ptr<BucketSet>> open(std::string directory, Descriptor descriptor, DirectoryLock lock, KfsTuning tuning);
  ~BucketSet();  // close()
  // Waits for calls in progress, closes every instance, records the clean end. Later calls answer device_gone.
  Result<void> close();

  uint8_t bucket_of(uint8_t first_byte) const;
  Descriptor descriptor() const;
  // Durable when it returns. A failure counts as a failed write. Errors: device_gone (closed), no_space, read_only, io_error.
  Result<void> change_descriptor(const std::function<void(Descriptor&)>& change);

  // What a bucket is used for. Writing leaves the whole reserve of the file system alone; upkeep (removals, compaction, and the records of
  // the layers above without which nothing could be removed) may use half of it.
  enum class For : uint8_t { reading, writing, upkeep };

  // A run being written. One thread at a time; dropped without finish it leaves nothing.
  class Writer {
   public:
    ~Writer();
    // Blocks in order: 64 KiB each but the last.
    Result<void> add(ByteView block);
    // The file is durable and visible. Errors: already_exists (nothing is changed).
    Result<Header> finish();

   private:
    friend class BucketSet;
    Writer(BucketSet& set, uint8_t bucket, std::string name, For purpose);
    Result<void> flush(bool last);
    struct State;
    std::unique_ptr<State> state_;
  };
  // size: what it will take, if known (a full bucket refuses at once). Waits while another writer has the same name.
  // Errors: already_exists, no_space (the bucket, with number and fill level; or the file system), read_only, device_gone, corrupt (the
  // bucket cannot be opened), io_error.
  Result<std::unique_ptr<Writer>> write(uint8_t bucket, std::string name, uint64_t size, For purpose = For::writing);
  // The same, but all of it goes into one batch, so that it takes one sync. For sizes up to 16 MiB: it is in memory until finish.
  Result<std::unique_ptr<Writer>> write_at_once(uint8_t bucket, std::string name, uint64_t size, For purpose = For::writing);

  Result<Header> header(uint8_t bucket, std::string_view name);
  // Verified bytes in pieces of at most 64 KiB. Errors: not_found, out_of_range, corrupt, io_error, those of `piece`.
  using Piece = std::function<Result<void>(ByteView)>;
  Result<void> read(uint8_t bucket, std::string_view name, uint64_t offset, uint64_t length, const Piece& piece);
  // Removes files, durably; names that are not there are skipped. Returns how many were. The space of a large one is given back a little
  // later, in the background.
  Result<size_t> remove(uint8_t bucket, const std::vector<std::string>& names);
  // Every header in order of name, from `from` on. A header that cannot be read is given as its error.
  using Visit = std::function<bool(std::string_view name, const Result<Header>&)>;
  Result<void> visit(uint8_t bucket, std::string_view from, const Visit& visit);
  // Gives back the space of all that was removed before.
  Result<void> compact(uint8_t bucket);

  // Removes runs of blocks without a header, which damage may leave in any bucket. One seek a file. Returns how many.
  Result<size_t> remove_stray_runs(uint8_t bucket);
  // Closes the bucket, lets LevelDB rebuild what it can, opens it. A lost directory is made anew (empty). One sentence a finding.
  // seen: what repairs() said before the damage was seen. Where somebody else has rebuilt the bucket since, nothing is done.
  Result<std::vector<std::string>> repair(uint8_t bucket, uint64_t seen);
  uint64_t repairs(uint8_t bucket) const;  // so far
  // Opens it if it exists: counted, leftovers removed.
  Result<void> prepare(uint8_t bucket);

  std::vector<uint8_t> existing() const;
  BucketUse use(uint8_t bucket) const;
  Result<uint64_t> disk_bytes(uint8_t bucket);  // of LevelDB's files
  Result<Files::Space> file_system() const;
  uint64_t reserve_bytes() const { return reserve_; }
  size_t open_instances() const;
  SetHealth health() const;
  void note_checksum_error() { checksum_errors_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t leftovers_removed() const { return leftovers_removed_.load(); }
  std::vector<std::string> events() const;  // at most kEventsMax, the latest
  const std::string& directory() const { return directory_; }
  static constexpr size_t kEventsMax = 1000;

 private:
  BucketSet(std::string directory, Descriptor descriptor, DirectoryLock lock, KfsTuning tuning);
  struct Slot {
    std::shared_ptr<Instance> instance;
    size_t users = 0;
    bool changing = false;  // being opened, closed or repaired: wait
    bool poisoned = false;  // a write failed
    bool compaction_queued = false;
    size_t removing = 0;      // runs whose blocks are being removed
    bool look_again = false;  // runs without a header may be in it: looked through when it is opened next
    uint64_t write_failures = 0;
    uint64_t repairs = 0;
    uint64_t last_used = 0;
    BucketUse use;
    std::set<std::string, std::less<>> writing;   // names that are being written
    std::set<std::string, std::less<>> doubtful;  // failed writes that may be on disk after all
    std::vector<std::string> deleted;             // runs to compact; beyond kDeletedMax: all
    bool deleted_all = false;
  };
  class Lease;
  class NameHold;
  enum class Sync : uint8_t { no, yes };
  Result<Lease> acquire(uint8_t bucket, For purpose);
  void release(uint8_t bucket);
  Result<void> make_room(std::unique_lock<std::mutex>& lock);
  Result<std::shared_ptr<Instance>> open_instance(uint8_t bucket, For purpose);
  Result<std::shared_ptr<Instance>> open_database(uint8_t bucket, bool create, bool writable);
  Result<void> writable() const;
  Result<void> mark_open();
  Result<void> update_descriptor(const std::function<void(Descriptor&)>& change);
  Result<void> recover(uint8_t bucket, Instance& instance, bool writable);
  Result<void> check_identity_of(uint8_t bucket, leveldb::DB& db, bool writable);
  Result<void> move_headers(uint8_t bucket, leveldb::DB& db, bool writable);
  // Counts the bucket's files; returns the runs that have no header and are not being written.
  Result<std::vector<std::string>> look_through(uint8_t bucket, Instance& instance, BucketCount& count);
  Result<void> rebuild(uint8_t bucket, const std::string& path, std::vector<std::string>& findings);
  Result<void> remove_run(Instance& instance, std::string_view name);
  Result<void> room_for(uint64_t bytes, uint64_t kept);
  uint64_t kept_for(For purpose) const { return purpose == For::writing ? reserve_ : reserve_ / 2; }
  Error note_write_error(std::optional<uint8_t> bucket, Error error);
  Error note_read_error(Error error);
  void deleted(uint8_t bucket, const Header& header);
  void schedule_compaction(uint8_t bucket, const std::string& name);
  // Writes the batch. The caller holds no lease. Damage that LevelDB met in a compaction forbids writing: then once more, carelessly.
  Result<void> commit(uint8_t bucket, leveldb::WriteBatch& batch, Sync sync);
  Result<void> sync_ended_logs(uint8_t bucket);
  static Error full(uint8_t bucket, const BucketUse& use, uint64_t limit);
  void compact_deleted(uint8_t bucket);
  void compact_where_space_is_short();
  Result<void> compact_ranges(uint8_t bucket);
  void write_out_behind(uint8_t bucket);
  void remove_behind(uint8_t bucket, const std::string& name, std::shared_ptr<NameHold> hold);
  std::unique_ptr<leveldb::WriteBatch> take_batch();
  void give_batch(std::unique_ptr<leveldb::WriteBatch> batch);
  void event(std::string sentence);
  void keep();
  void probe();

  static constexpr size_t kDeletedMax = 1024, kSpareBatchesMax = 4;
  const std::string directory_;
  const KfsTuning tuning_;
  Files& files_;
  DirectoryLock lock_;
  size_t instances_max_ = 0;
  uint64_t reserve_ = 0;
  StoreKind kind_ = StoreKind::files;
  uint64_t descriptor_limit_ = 0;  // bytes of a bucket
  uint8_t key_byte_ = 0;           // the first byte of the key: sorts
  std::unique_ptr<leveldb::Cache> cache_;
  std::unique_ptr<const leveldb::FilterPolicy> filter_;
  std::unique_ptr<ElasticThreads> background_;    // LevelDB's: one for each instance that has work
  std::unique_ptr<ElasticThreads> compactions_;   // ours
  std::unique_ptr<ElasticThreads> housekeeping_;  // what follows a write or a removal
  // orderly: it was closed properly, so nothing may be torn in it.
  std::atomic<bool> short_of_space_{false};  // something was refused for want of room since the keeper looked
  std::array<std::atomic<bool>, kKfsBuckets> created_{}, orderly_{}, careless_{};

  mutable std::mutex mutex_;  // guards what follows; never held across a call into LevelDB or the file system
  std::condition_variable changed_;
  std::array<Slot, kKfsBuckets> slots_;
  size_t open_ = 0;     // instances, those being opened included
  uint64_t clock_ = 0;  // ticks of the keeper, for "idle"
  bool closing_ = false, closed_ = false;
  Condition condition_ = Condition::online;
  std::string reason_;
  std::vector<std::string> events_;
  std::vector<std::unique_ptr<leveldb::WriteBatch>> batches_;  // spare ones; given up when nothing was written for a while
  uint64_t last_write_ = 0;                                    // tick

  std::atomic<bool> marked_open_{false};  // the descriptor says that the store is in use
  mutable std::mutex descriptor_mutex_;   // held while the file is replaced
  Descriptor descriptor_;

  std::atomic<uint64_t> read_errors_{0}, write_errors_{0}, checksum_errors_{0}, leftovers_removed_{0};
  std::condition_variable keeper_wake_;
  std::thread keeper_;
};

}  // namespace quarry::chunk::kfs
