// The RocksDB under the store: its options, its rows, its views. Knows rows, operations and frames' numbers; nothing of the log.
//
// Applied is a row of the database itself, changed in the same write batch as the rows of its frames. There is one column family
// and no write-ahead log, so whatever survives a crash is the state exactly after frame Applied::frame.
// Thread-safe, except that apply() has one caller at a time.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "io/thread_pool.h"
#include "meta/commit_log.h"
#include "meta/log_store/log_meta_store.h"
#include "meta/optimistic.h"

namespace rocksdb {
class Cache;
class DB;
class Iterator;
class Snapshot;
class Status;
class WriteBatch;
}  // namespace rocksdb

namespace quarry::meta {

// How far a database is.
struct Applied {
  FrameNumber frame = 0;
  Version version = 0;
  uint32_t check = 0;      // of that frame
  uint64_t log_bytes = 0;  // of all frames up to it, since the beginning
  Uuid store;
  std::string encode() const;
  static Result<Applied> decode(std::string_view value);
};

enum class ReadTier : uint8_t { memory, any };  // memory: never blocks, may not know

class Database : public std::enable_shared_from_this<Database> {
 public:
  struct Settings {
    std::string path;
    size_t block_cache_bytes, memtable_bytes, table_file_bytes;
    int open_files_max, background_jobs;
    uint64_t blob_size_min;
    std::function<void(const std::string& what)> on_damage;  // called once, on any thread, when a read finds corruption
  };
  // Blocks. Errors: corrupt, busy (open already), io_error, no_space.
  static Result<std::shared_ptr<Database>> open(Settings settings, bool create);
  // What a database that nobody has open holds (a checkpoint); proves that it opens. Blocks.
  struct Contents {
    Applied applied;
    std::map<uint64_t, uint32_t> sums;  // CRC32C that tables and blob files had when they were made, by number; not of every earlier one
  };
  static Result<Contents> examine(const std::string& path);
  // Reads every block and every row of it. For files that were made without a checksum. Blocks.
  static Result<void> verify(const std::string& path);
  ~Database();

  Result<std::optional<Applied>> applied();  // blocks
  // One write batch: the operations of each transaction, in order, and the Applied row. can_wait false: answers busy, having done
  // nothing, where the write would have to wait for a flush or compaction, or to read what is not in memory.
  Result<void> apply(const std::vector<std::string_view>& transactions, const Applied& applied, bool can_wait);
  Result<void> resume();  // blocks; after no_space: it can be written again, if there is room by now
  Result<void> flush();   // blocks; then what is applied survives a crash of the process and the machine
  // A directory of hard links with a flushed state; flushes first. Blocks.
  Result<void> make_checkpoint(const std::string& directory);
  std::string identity();  // changes whenever a database is made anew or restored
  uint64_t keys_estimate();
  uint64_t bytes_on_disk();

  // Reads at a snapshot. none of optional<...>: only a read of the lower tiers can tell.
  const ::rocksdb::Snapshot* take_snapshot();
  void release_snapshot(const ::rocksdb::Snapshot* snapshot);
  Result<std::optional<std::optional<std::string>>> get(const ::rocksdb::Snapshot* snapshot, std::string_view row, ReadTier tier);
  Result<std::optional<std::vector<KeyValue>>> scan(const ::rocksdb::Snapshot* snapshot, const ScanOptions& options, ReadTier tier);
  std::unique_ptr<::rocksdb::Iterator> iterator(const ::rocksdb::Snapshot* snapshot);
  Error error_of(const ::rocksdb::Status& status, std::string_view what);
  // Damage was found from outside: told like that found by a read.
  Error damaged(std::string what);

 private:
  explicit Database(Settings settings);
  Result<void> remove_rows(::rocksdb::WriteBatch& batch, const Op& op, const std::set<std::string, std::less<>>& written);
  Settings settings_;
  std::shared_ptr<::rocksdb::Cache> cache_;
  std::unique_ptr<::rocksdb::DB> db_;
  std::atomic<bool> damage_told_ = false;
};

// A view of the database at one version. Thread-safe.
class DatabaseView final : public RowView {
 public:
  DatabaseView(std::shared_ptr<Database> database, Version version, ThreadPool& pool, std::atomic<uint64_t>& pool_reads);
  DatabaseView(const DatabaseView&) = delete;
  ~DatabaseView() override;
  Version version() const override { return version_; }
  Task<Result<std::optional<std::string>>> get_row(std::string row) override;
  Task<Result<std::vector<KeyValue>>> scan_rows(ScanOptions options) override;
  // The non-blocking half of get_row; none: ask get_row.
  Result<std::optional<std::optional<std::string>>> get_in_memory(std::string_view row) {
    return database_->get(snapshot_, row, ReadTier::memory);
  }

  Database& database() { return *database_; }
  const ::rocksdb::Snapshot* snapshot() const { return snapshot_; }
  ThreadPool& pool() { return pool_; }

 private:
  std::shared_ptr<Database> database_;
  const ::rocksdb::Snapshot* snapshot_;
  Version version_;
  ThreadPool& pool_;
  std::atomic<uint64_t>& pool_reads_;
};

// walk() and next() run on the pool, over one iterator.
std::unique_ptr<Cursor> make_database_cursor(std::shared_ptr<DatabaseView> view, KeyRange range, Direction direction);

}  // namespace quarry::meta
