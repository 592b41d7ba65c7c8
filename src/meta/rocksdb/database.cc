#include "meta/rocksdb/database.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include "base/coding.h"
#include "meta/rocksdb/checkpoint_files.h"

namespace quarry::meta {
namespace {

using ::rocksdb::Slice;

// Rows removed with a range, per write batch; more are removed beforehand in batches of their own.
constexpr size_t kRangeRowsMax = 32768;
constexpr uint64_t kRoomToOpen = 2u << 20;  // bytes: a MANIFEST of many thousand files, and options

// RocksDB before 8.6 can lose the error of a file that a scan enters, and end or thin out the scan as if the rows were not there
// (its pull requests 11782 and 11786): seen here with a damaged first block, and with reads of the cache alone. The fault is in how
// iterators step over range tombstones, so this database never holds any, and no iterator looks for them.
::rocksdb::ReadOptions read_options(const ::rocksdb::Snapshot* snapshot, ReadTier tier) {
  ::rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.ignore_range_deletions = true;
  if (tier == ReadTier::memory) options.read_tier = ::rocksdb::kBlockCacheTier;
  return options;
}

Slice slice(std::string_view text) { return {text.data(), text.size()}; }

::rocksdb::Options make_options(const Database::Settings& settings, std::shared_ptr<::rocksdb::Cache> cache) {
  ::rocksdb::Options options;
  options.create_if_missing = false;
  options.paranoid_checks = true;
  options.max_open_files = settings.open_files_max;
  options.max_background_jobs = settings.background_jobs;
  options.skip_stats_update_on_db_open = true;
  options.avoid_flush_during_shutdown = true;  // close() flushes; anything else is a crash, and must look like one in tests
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.info_log_level = ::rocksdb::WARN_LEVEL;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  options.max_manifest_file_size = 4 << 20;  // each checkpoint stores it whole
  options.write_buffer_size = settings.memtable_bytes;
  options.max_write_buffer_number = 3;
  options.memtable_prefix_bloom_size_ratio = 0.02;
  options.memtable_whole_key_filtering = true;
  options.compression = ::rocksdb::kLZ4Compression;
  options.bottommost_compression = ::rocksdb::kZSTD;
  options.level_compaction_dynamic_level_bytes = true;
  options.target_file_size_base = settings.table_file_bytes;  // files are the unit of incremental checkpoints
  options.max_bytes_for_level_base = 256u << 20;
  options.bytes_per_sync = 1 << 20;
  options.enable_blob_files = true;
  options.min_blob_size = settings.blob_size_min;
  options.blob_file_size = 64u << 20;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 0.25;
  options.blob_garbage_collection_force_threshold = 0.5;
  options.blob_cache = cache;
  // Of each file, from the bytes that were written; kept in the MANIFEST, and compared before the file is stored in a checkpoint.
  options.file_checksum_gen_factory = ::rocksdb::GetFileChecksumGenCrc32cFactory();
  ::rocksdb::BlockBasedTableOptions table;
  table.block_cache = std::move(cache);
  table.block_size = 4 << 10;
  table.data_block_index_type = ::rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  table.filter_policy.reset(::rocksdb::NewBloomFilterPolicy(10));
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.format_version = 5;
  options.table_factory.reset(::rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Error plain_error(const ::rocksdb::Status& status, std::string_view what) {
  const std::string text = fmt::format("{}: RocksDB: {}", what, status.ToString());
  // A file that the index names and that is not there is damage, too.
  if (status.IsCorruption() || status.IsNotFound() || status.IsPathNotFound()) return Error(Code::corrupt, text);
  if (status.IsNoSpace() || (status.IsIOError() && status.subcode() == ::rocksdb::Status::kNoSpace)) return Error(Code::no_space, text);
  // LockFile's message: the only way to tell "open already" from another error.
  if (status.IsIOError() && text.find("LOCK") != std::string::npos) return Error(Code::busy, text);
  if (status.IsIOError()) return Error(Code::io_error, text);
  if (status.IsIncomplete() || status.IsBusy() || status.IsTryAgain()) return Error(Code::busy, text);
  return Error(Code::internal, text);
}

}  // namespace

Result<std::shared_ptr<Database>> Database::open(Settings settings, bool create) {
  const std::string path = settings.path;
  // RocksDB ends the process by an assertion when it finds no room for its MANIFEST.
  const std::string ballast = path + ".room";
  TRY(write_ballast(ballast, kRoomToOpen));
  ::unlink(ballast.c_str());
  std::shared_ptr<Database> database(new Database(std::move(settings)));
  ::rocksdb::LRUCacheOptions cache;
  cache.capacity = database->settings_.block_cache_bytes;
  cache.num_shard_bits = 5;
  cache.high_pri_pool_ratio = 0.3;
  database->cache_ = ::rocksdb::NewLRUCache(cache);
  ::rocksdb::Options options = make_options(database->settings_, database->cache_);
  options.create_if_missing = create;
  options.error_if_exists = create;
  ::rocksdb::DB* raw = nullptr;
  const ::rocksdb::Status status = ::rocksdb::DB::Open(options, path, &raw);
  if (!status.ok()) return plain_error(status, fmt::format("opening the metadata index in '{}'", path));
  database->db_.reset(raw);
  return database;
}

namespace {

Result<std::unique_ptr<::rocksdb::DB>> open_to_look(const std::string& path) {
  Database::Settings settings{path, {}, nullptr, 8u << 20, 1u << 20, 32u << 20, 64, 1, 1536};
  ::rocksdb::Options options = make_options(settings, ::rocksdb::NewLRUCache(settings.block_cache_bytes));
  ::rocksdb::DB* raw = nullptr;
  const ::rocksdb::Status status = ::rocksdb::DB::OpenForReadOnly(options, path, &raw);
  if (!status.ok()) return plain_error(status, fmt::format("opening the checkpoint in '{}'", path));
  return std::unique_ptr<::rocksdb::DB>(raw);
}

}  // namespace

Result<Database::Contents> Database::examine(const std::string& path) {
  TRY_ASSIGN(const std::unique_ptr<::rocksdb::DB> db, open_to_look(path));
  Contents contents;
  std::string value;
  ::rocksdb::Status status = db->Get({}, slice(kAppliedRow), &value);
  if (!status.ok()) return plain_error(status, fmt::format("reading the checkpoint in '{}'", path));
  TRY_ASSIGN(contents.applied, Applied::decode(value));
  const std::unique_ptr<::rocksdb::FileChecksumList> list(::rocksdb::NewFileChecksumList());
  status = db->GetLiveFilesChecksumInfo(list.get());
  std::vector<uint64_t> numbers;
  std::vector<std::string> sums, functions;
  if (status.ok()) status = list->GetAllFileChecksums(&numbers, &sums, &functions);
  if (!status.ok()) return plain_error(status, fmt::format("reading the checksums of the files in '{}'", path));
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (functions[i] != ::rocksdb::kStandardDbFileChecksumFuncName || sums[i].size() != sizeof(uint32_t)) continue;
    contents.sums.emplace(numbers[i], std::byteswap(load_le<uint32_t>(bytes_of(sums[i]).data())));
  }
  return contents;
}

Result<void> Database::verify(const std::string& path) {
  TRY_ASSIGN(const std::unique_ptr<::rocksdb::DB> db, open_to_look(path));
  ::rocksdb::ReadOptions options = read_options(nullptr, ReadTier::any);
  options.fill_cache = false;
  ::rocksdb::Status status = db->VerifyChecksum(options);  // of tables; what is in blob files is checked as rows are read
  if (!status.ok()) return plain_error(status, fmt::format("verifying the checkpoint in '{}'", path));
  const std::unique_ptr<::rocksdb::Iterator> at(db->NewIterator(options));
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
  }
  if (!at->status().ok()) return plain_error(at->status(), fmt::format("verifying the checkpoint in '{}'", path));
  return {};
}

Database::Database(Settings settings) : settings_(std::move(settings)) {}

Database::~Database() {
  if (db_ != nullptr) db_->Close().PermitUncheckedError();
}

Error Database::error_of(const ::rocksdb::Status& status, std::string_view what) {
  Error error = plain_error(status, what);
  return error.code() == Code::corrupt ? damaged(error.context()) : error;
}

Error Database::damaged(std::string what) {
  Error error(Code::corrupt, std::move(what));
  if (settings_.on_damage && !damage_told_.exchange(true)) settings_.on_damage(error.to_string());
  return error;
}

Result<std::optional<Applied>> Database::applied() {
  std::string value;
  const ::rocksdb::Status status = db_->Get({}, slice(kAppliedRow), &value);
  if (status.IsNotFound()) return std::optional<Applied>();
  if (!status.ok()) return error_of(status, "reading how far the metadata index is");
  TRY_ASSIGN(const Applied applied, Applied::decode(value));
  return std::optional<Applied>(applied);
}

// Deletes the rows of a range one by one. What is too much for one batch goes ahead of it: after a crash in between, the frame is
// replayed and removes the rest; until it is published, every reader has an older snapshot.
Result<void> Database::remove_rows(::rocksdb::WriteBatch& batch, const Op& op, const std::set<std::string, std::less<>>& written) {
  ::rocksdb::WriteOptions unlogged;
  unlogged.disableWAL = true;
  for (auto at = written.lower_bound(op.key); at != written.end() && *at < op.value; ++at) batch.Delete(*at).PermitUncheckedError();
  const Slice lower = slice(op.key), upper = slice(op.value);
  ::rocksdb::ReadOptions options = read_options(nullptr, ReadTier::any);
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  options.fill_cache = false;
  const std::unique_ptr<::rocksdb::Iterator> at(db_->NewIterator(options));
  std::vector<std::string> rows;
  for (at->Seek(lower); at->Valid(); at->Next()) {
    rows.push_back(at->key().ToString());
    if (rows.size() < kRangeRowsMax) continue;
    ::rocksdb::WriteBatch ahead;
    for (const auto& row : rows) ahead.Delete(row).PermitUncheckedError();
    const ::rocksdb::Status status = db_->Write(unlogged, &ahead);
    if (!status.ok()) return error_of(status, "removing a range of metadata rows");
    rows.clear();
  }
  if (!at->status().ok()) return error_of(at->status(), "removing a range of metadata rows");
  for (const auto& row : rows) batch.Delete(row).PermitUncheckedError();
  return {};
}

// Counters are read, added up and put. RocksDB's merge operands would spare the read, which is of a hot row in memory, and cost
// every reader of the counter more; and this RocksDB dies of an assertion when it reads a merge over a blob from the cache alone.
Result<void> Database::apply(const std::vector<std::string_view>& transactions, const Applied& applied, bool can_wait) {
  struct Counter {
    bool known = false;  // value is what the batch would leave so far
    bool changed = false;
    int64_t value = 0;
    void set(int64_t to) {
      known = true;
      changed = false;
      value = to;
    }
  };
  std::unordered_map<std::string_view, Counter> counters;  // every key that is added to
  size_t bytes = 256;
  bool ranges = false;
  for (const auto ops : transactions) {
    bytes += ops.size() + ops.size() / 4;
    OpReader reader(ops);
    Op op;
    while (reader.next(op)) {
      ranges |= op.kind == OpKind::remove_range;
      if (op.kind == OpKind::add) counters.try_emplace(op.key);
    }
    CHECK(reader.ok(), "operations were checked before they are applied");
  }
  if (ranges && !can_wait) return fail(Code::busy, "the removal of a range reads the rows first");
  ::rocksdb::WriteBatch batch(bytes);
  std::set<std::string, std::less<>> written;  // by this batch so far; only if a range removal needs to know
  const auto overwrite = [&counters](const Op& op) {
    if (counters.empty()) return;
    if (const auto at = counters.find(op.key); at != counters.end()) at->second.set(counter_of(op.value));
  };
  for (const auto ops : transactions) {
    OpReader reader(ops);
    Op op;
    while (reader.next(op)) {
      switch (op.kind) {
        case OpKind::put:
          batch.Put(slice(op.key), slice(op.value)).PermitUncheckedError();
          overwrite(op);
          if (ranges) written.emplace(op.key);
          break;
        case OpKind::remove:
          batch.Delete(slice(op.key)).PermitUncheckedError();
          overwrite(op);
          break;
        case OpKind::remove_range:
          TRY(remove_rows(batch, op, written));
          for (auto& [key, counter] : counters) {
            if (key >= op.key && key < op.value) counter.set(0);
          }
          break;
        case OpKind::add: {
          Counter& counter = counters.at(op.key);
          if (!counter.known) {
            TRY_ASSIGN(const auto found, get(nullptr, op.key, can_wait ? ReadTier::any : ReadTier::memory));
            if (!found) return fail(Code::busy, "a counter is not in memory");
            counter.set(*found ? counter_of(**found) : 0);
          }
          counter.value = counter_sum(counter.value, op.delta);
          counter.changed = true;
          break;
        }
        default: CHECK(false, "stamps are in place before operations are applied");
      }
    }
  }
  for (const auto& [key, counter] : counters) {
    if (counter.changed) batch.Put(slice(key), counter_bytes(counter.value)).PermitUncheckedError();
  }
  batch.Put(slice(kAppliedRow), applied.encode()).PermitUncheckedError();
  ::rocksdb::WriteOptions options;
  options.disableWAL = true;
  options.no_slowdown = !can_wait;
  const ::rocksdb::Status status = db_->Write(options, &batch);
  if (!status.ok()) return error_of(status, "applying a frame to the metadata index");
  return {};
}

Result<void> Database::resume() {
  const ::rocksdb::Status status = db_->Resume();
  if (status.IsBusy()) return {};  // RocksDB watches the free space and is resuming by itself: the next write says whether it could
  if (!status.ok()) return error_of(status, "resuming the metadata index");
  return {};
}

Result<void> Database::flush() {
  const ::rocksdb::Status status = db_->Flush({});
  if (!status.ok()) return error_of(status, "flushing the metadata index");
  return {};
}

std::string Database::identity() {
  std::string identity;
  db_->GetDbIdentity(identity).PermitUncheckedError();
  return identity;
}

std::map<std::string, CheckpointEntry> Database::stored_files() { return KnownFiles::load(settings_.path, identity()).files; }

Result<void> Database::note_stored_files(const std::map<std::string, CheckpointEntry>& files) {
  return KnownFiles{identity(), files}.save(settings_.path);
}

uint64_t Database::keys_estimate() {
  uint64_t keys = 0;
  db_->GetIntProperty(::rocksdb::DB::Properties::kEstimateNumKeys, &keys);
  return keys;
}

uint64_t Database::bytes_on_disk() {
  uint64_t tables = 0, blobs = 0;
  db_->GetIntProperty(::rocksdb::DB::Properties::kTotalSstFilesSize, &tables);
  db_->GetIntProperty(::rocksdb::DB::Properties::kTotalBlobFileSize, &blobs);
  return tables + blobs;
}

const ::rocksdb::Snapshot* Database::take_snapshot() { return db_->GetSnapshot(); }
void Database::release_snapshot(const ::rocksdb::Snapshot* snapshot) { db_->ReleaseSnapshot(snapshot); }

Result<std::optional<std::optional<std::string>>> Database::get(const ::rocksdb::Snapshot* snapshot, std::string_view row, ReadTier tier) {
  const ::rocksdb::ReadOptions options = read_options(snapshot, tier);
  ::rocksdb::PinnableSlice value;
  const ::rocksdb::Status status = db_->Get(options, db_->DefaultColumnFamily(), slice(row), &value);
  if (status.ok()) return std::optional(std::optional(std::string(value.data(), value.size())));
  if (status.IsNotFound()) return std::optional(std::optional<std::string>());
  if (status.IsIncomplete()) return std::optional<std::optional<std::string>>();
  return error_of(status, "reading a metadata row");
}

Result<std::optional<std::vector<KeyValue>>> Database::scan(const ::rocksdb::Snapshot* snapshot, const ScanOptions& scan, ReadTier tier) {
  std::vector<KeyValue> rows;
  if (scan.limit == 0 || scan.range.begin >= scan.range.end) return std::optional(std::move(rows));
  const Slice lower = slice(scan.range.begin), upper = slice(scan.range.end);
  ::rocksdb::ReadOptions options = read_options(snapshot, tier);
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<::rocksdb::Iterator> at(db_->NewIterator(options));
  const bool forward = scan.direction == Direction::forward;
  ScanBudget budget(scan);
  if (forward) {
    at->Seek(lower);
  } else {
    at->SeekForPrev(upper);  // the bound is exclusive and the iterator honours it
  }
  while (at->Valid()) {
    const Slice key = at->key(), value = at->value();
    rows.push_back({key.ToString(), value.ToString()});
    budget.take(key.size() - 1, value.size());
    if (budget.spent()) break;
    if (forward) {
      at->Next();
    } else {
      at->Prev();
    }
  }
  if (at->status().IsIncomplete()) return std::optional<std::vector<KeyValue>>();
  if (!at->status().ok()) return error_of(at->status(), "scanning metadata rows");
  return std::optional(std::move(rows));
}

std::unique_ptr<::rocksdb::Iterator> Database::iterator(const ::rocksdb::Snapshot* snapshot) {
  return std::unique_ptr<::rocksdb::Iterator>(db_->NewIterator(read_options(snapshot, ReadTier::any)));
}

}  // namespace quarry::meta
