// Instance: one open LevelDB of a BucketSet, and the lease under which it is used. Internal to bucket_*.cc.
#pragma once
#include <leveldb/db.h>
#include <leveldb/iterator.h>
#include <leveldb/write_batch.h>

#include "chunk/kfs/bucket_set.h"
#include "chunk/kfs/leveldb_env.h"

namespace quarry::chunk::kfs {

class Instance {
 public:
  Instance(Files& files, ElasticThreads& threads) : env(files, threads) {}
  BucketEnv env;
  std::unique_ptr<leveldb::DB> db;  // destroyed before env
  bool writable = true;             // false: an overlay over a file system that takes no writes
  bool careful = true;              // LevelDB checks all that it reads of its own structures
};

// Keeps an instance open. Not kept while user code runs for long.
class BucketSet::Lease {
 public:
  Lease(BucketSet& set, uint8_t bucket, std::shared_ptr<Instance> instance) : set_(&set), bucket_(bucket), instance_(std::move(instance)) {}
  Lease(Lease&& other) noexcept : set_(std::exchange(other.set_, nullptr)), bucket_(other.bucket_), instance_(std::move(other.instance_)) {}
  Lease& operator=(Lease&&) = delete;
  ~Lease() {
    if (set_ == nullptr) return;
    instance_.reset();
    set_->release(bucket_);
  }
  leveldb::DB& db() const { return *instance_->db; }
  Instance& instance() const { return *instance_; }

 private:
  BucketSet* set_;
  uint8_t bucket_;
  std::shared_ptr<Instance> instance_;
};

// A name on which one writer or remover works: others wait.
class BucketSet::NameHold {
 public:
  NameHold(BucketSet& set, uint8_t bucket, std::string name) : set_(set), bucket_(bucket), name_(std::move(name)) {
    std::unique_lock lock(set_.mutex_);
    auto& names = set_.slots_[bucket_].writing;
    set_.changed_.wait(lock, [&] { return !names.contains(name_); });
    names.insert(name_);
  }
  NameHold(const NameHold&) = delete;
  ~NameHold() {
    const std::lock_guard lock(set_.mutex_);
    set_.slots_[bucket_].writing.erase(name_);
    set_.changed_.notify_all();
  }

 private:
  BucketSet& set_;
  const uint8_t bucket_;
  const std::string name_;
};

inline leveldb::WriteOptions synced() {
  leveldb::WriteOptions options;
  options.sync = true;
  return options;
}
// Headers have checksums of their own. LevelDB's covers what shares a table block with them, payload too, and its damage is not theirs.
inline leveldb::ReadOptions reading_records(const leveldb::Snapshot* snapshot = nullptr) {
  leveldb::ReadOptions options;
  options.snapshot = snapshot;
  return options;
}
// Where "not there" leads to a removal, damage must not look like it.
inline leveldb::ReadOptions reading_surely() {
  leveldb::ReadOptions options;
  options.verify_checksums = true;
  options.fill_cache = false;
  return options;
}
// Blocks have checksums of our own, and would push all records out of the cache.
inline leveldb::ReadOptions reading_blocks(const leveldb::Snapshot* snapshot = nullptr) {
  leveldb::ReadOptions options;
  options.fill_cache = false;
  options.snapshot = snapshot;
  return options;
}
class Snapshot {
 public:
  explicit Snapshot(leveldb::DB& db) : db_(db), snapshot_(db.GetSnapshot()) {}
  Snapshot(const Snapshot&) = delete;
  ~Snapshot() { db_.ReleaseSnapshot(snapshot_); }
  const leveldb::Snapshot* get() const { return snapshot_; }

 private:
  leveldb::DB& db_;
  const leveldb::Snapshot* snapshot_;
};
inline std::string_view text_of(const leveldb::Slice& slice) { return {slice.data(), slice.size()}; }
inline ByteView bytes_of(const leveldb::Slice& slice) { return {reinterpret_cast<const uint8_t*>(slice.data()), slice.size()}; }
inline leveldb::Slice slice_of(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Walks over the headers of a bucket in order of name: chunks by the range in which they lie together, files by one seek each. In a store
// of files runs without a header are met too.
class HeaderCursor {
 public:
  HeaderCursor(leveldb::DB& db, StoreKind kind, const leveldb::ReadOptions& options) : kind_(kind), it_(db.NewIterator(options)) {}
  void seek(std::string_view name) {  // the first one at or above it
    it_->Seek(kind_ == StoreKind::files ? std::string(name.empty() ? "0" : name) : header_key(kind_, name));
    load();
  }
  void next() { load(); }
  bool valid() const { return valid_; }
  const std::string& name() const { return name_; }
  bool has_header() const { return has_header_; }
  const std::string& header() const { return header_; }
  leveldb::Status status() const { return it_->status(); }

 private:
  void load();
  const StoreKind kind_;
  const std::unique_ptr<leveldb::Iterator> it_;  // behind the run that is shown
  std::string name_, header_;
  bool valid_ = false, has_header_ = false;
};

inline std::string bucket_title(uint8_t bucket) { return fmt::format("S-bucket {}", bucket); }

}  // namespace quarry::chunk::kfs
