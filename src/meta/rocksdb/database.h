// The RocksDB under the store: its options, its rows, its views. Knows rows, operations and frames' numbers; nothing of the log.
//
// Applied is a row of the database itself, changed in the same write batch as the rows of its frames. There is one column family
// and no write-ahead log, so whatever survives a crash is the state exactly after frame Applied::frame.
#pragma once
#include "io/blocking_pool.h"
#include "meta/index.h"

namespace rocksdb {
class Cache;
class DB;
class Iterator;
class Snapshot;
class Status;
class WriteBatch;
}  // namespace rocksdb

namespace quarry::meta {

enum class ReadTier : uint8_t { memory, any };  // memory: never blocks, may not know

class Database final : public Index, public std::enable_shared_from_this<Database> {
 public:
  struct Settings {
    std::string path, links;  // its directory, and that of hard links for a checkpoint
    BlockingPool* pool;       // for reads of its views that block
    size_t block_cache_bytes, memtable_bytes, table_file_bytes;
    int open_files_max, background_jobs;
    uint64_t blob_size_min;
    OnIndexDamage on_damage{};
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
  ~Database() override;

  Result<std::optional<Applied>> applied() override;
  // One write batch.
  Result<void> apply(const std::vector<std::string_view>& transactions, const Applied& applied, bool can_wait) override;
  Result<void> resume() override;
  Result<void> flush() override;
  std::shared_ptr<IndexView> view(Version version) override;
  Result<std::shared_ptr<IndexCheckpoint>> checkpoint() override;
  std::map<std::string, CheckpointEntry> stored_files() override;
  Result<void> note_stored_files(const std::map<std::string, CheckpointEntry>& files) override;
  Error damaged(std::string what) override;
  uint64_t keys_estimate() override;
  uint64_t bytes_on_disk() override;
  uint64_t reads_on_pool() override { return pool_reads_.load(std::memory_order_relaxed); }

  // For its views.
  BlockingPool& pool() { return *settings_.pool; }
  void count_pool_reads(size_t reads) { pool_reads_.fetch_add(reads, std::memory_order_relaxed); }
  // Reads at a snapshot. none of optional<...>: only a read of the lower tiers can tell.
  const ::rocksdb::Snapshot* take_snapshot();
  void release_snapshot(const ::rocksdb::Snapshot* snapshot);
  Result<std::optional<std::optional<std::string>>> get(const ::rocksdb::Snapshot* snapshot, std::string_view row, ReadTier tier);
  Result<std::optional<std::vector<KeyValue>>> scan(const ::rocksdb::Snapshot* snapshot, const ScanOptions& options, ReadTier tier);
  std::unique_ptr<::rocksdb::Iterator> iterator(const ::rocksdb::Snapshot* snapshot);
  Error error_of(const ::rocksdb::Status& status, std::string_view what);

 private:
  explicit Database(Settings settings);
  std::string identity();  // changes whenever a database is made anew or restored
  Result<void> remove_rows(::rocksdb::WriteBatch& batch, const Op& op, const std::set<std::string, std::less<>>& written);
  Settings settings_;
  std::shared_ptr<::rocksdb::Cache> cache_;
  std::unique_ptr<::rocksdb::DB> db_;
  std::atomic<bool> damage_told_ = false;
  std::atomic<uint64_t> pool_reads_ = 0;
};

}  // namespace quarry::meta
