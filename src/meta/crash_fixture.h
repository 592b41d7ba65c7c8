// For tests of the store over a log: one over a log in memory that can be opened, closed, killed and damaged, with either index.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/sim/sim_executor.h"
#include "meta/memory/memory_index.h"
#include "meta/memory_commit_log.h"
#include "meta/rocksdb/rocksdb_meta_store.h"
#include "meta/temporary_directory.h"

namespace quarry::meta {

namespace fs = std::filesystem;

inline std::shared_ptr<MemoryLogMedia> copy_of(MemoryLogMedia& from) {
  const std::lock_guard lock(from.mutex);
  auto to = std::make_shared<MemoryLogMedia>();
  to->frames = from.frames;
  to->files = from.files;
  to->manifest = from.manifest;
  to->last_frame = from.last_frame;
  to->next_handle = from.next_handle;
  return to;
}

inline Task<Result<Version>> put_one(LogMetaStore& store, std::string key) {
  auto begun = co_await store.begin();
  (*begun)->put(std::move(key), "1");
  co_return co_await (*begun)->commit();
}

enum class IndexKind : uint8_t { rocksdb, memory };

class StoreCrash : public ::testing::Test {
 protected:
  explicit StoreCrash(IndexKind kind) : kind_(kind) {}
  void TearDown() override { kill(); }

  // With the index in memory nothing is used but this thread, its time and its randomness.
  Task<Result<std::unique_ptr<LogMetaStore>>> open_over(CommitLog& log) {
    if (kind_ == IndexKind::rocksdb) {
      RocksdbMetaOptions options = options_;
      options.directory = path();
      return open_rocksdb_store(std::move(options), log);
    }
    LogMetaOptions options = options_;
    options.clock = &clock_;
    options.random = &random_;
    return LogMetaStore::open(std::move(options), make_memory_place(index_), log);
  }
  Result<void> try_open() {
    log_ = std::make_unique<MemoryCommitLog>(media_, log_faults_);
    auto store = executor_.run(open_over(*log_));
    if (!store) return std::move(store).error();
    store_ = std::move(*store);
    return {};
  }
  void open() {
    const auto opened = try_open();
    ASSERT_TRUE(opened) << opened.error().to_string();
  }
  void close() {
    const auto closed = executor_.run(store_->close());
    ASSERT_TRUE(closed) << closed.error().to_string();
    store_.reset();
  }
  void kill() {
    if (store_ == nullptr) return;
    executor_.run(store_->kill());
    store_.reset();
  }
  std::string path() const { return directory_.path() + "/meta"; }

  // While the store is closed.
  void lose_index() {
    fs::remove_all(path());
    *index_ = {};
  }
  void save_index(const std::string& name) {
    if (kind_ == IndexKind::rocksdb) copy_directory(path(), directory_.path() + "/" + name);
    saved_[name] = *index_;
  }
  void bring_back_index(const std::string& name) {
    if (kind_ == IndexKind::rocksdb) copy_directory(directory_.path() + "/" + name, path());
    *index_ = saved_.at(name);
  }
  bool is_set_aside() const {
    return kind_ == IndexKind::rocksdb ? fs::exists(path() + "/set-aside/CURRENT") : index_->set_aside.has_value();
  }

  Version put(const std::string& key, const std::string& value) {
    auto transaction = std::move(executor_.run(store_->begin()).value());
    transaction->put(key, value);
    const auto version = executor_.run(transaction->commit());
    EXPECT_TRUE(version) << version.error().to_string();
    return version.value_or(0);
  }
  // Rows i in [from, to) with values that say which they are; about 1 KiB each.
  void fill(int from, int to) {
    for (int i = from; i < to; ++i) put(fmt::format("row/{:06}", i), value_of(i));
    filled_ = std::max(filled_, to);
  }
  static std::string value_of(int i) {
    std::string value;
    SeededRandom random(static_cast<uint64_t>(i));
    while (value.size() < 400) value += fmt::format("{:016x}", random.u64());
    return value + std::string(i % 5 == 0 ? 2000 : 300, static_cast<char>('a' + i % 26));
  }
  void expect_filled() {
    const auto rows = executor_.run(store_->scan({KeyRange::prefix("row/"), SIZE_MAX, SIZE_MAX}));
    ASSERT_TRUE(rows) << rows.error().to_string();
    ASSERT_EQ(rows->size(), static_cast<size_t>(filled_));
    for (int i = 0; i < filled_; ++i) {
      ASSERT_EQ((*rows)[static_cast<size_t>(i)].key, fmt::format("row/{:06}", i));
      ASSERT_EQ((*rows)[static_cast<size_t>(i)].value, value_of(i));
    }
  }
  void checkpoint() {
    const auto made = executor_.run(store_->checkpoint());
    ASSERT_TRUE(made) << made.error().to_string();
  }
  void copy_directory(const std::string& from, const std::string& to) {
    fs::remove_all(to);
    fs::copy(from, to, fs::copy_options::recursive);
  }
  std::string stored_files() {
    std::string out;
    for (const auto& [handle, file] : media_->files) out += fmt::format("{} {}: {}\n", handle, file.name, file.bytes.size());
    return out;
  }
  std::vector<std::string> files(const std::string& suffix) {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path() + "/db")) {
      if (entry.path().string().ends_with(suffix)) found.push_back(entry.path().string());
    }
    return found;
  }

  const IndexKind kind_;
  SimExecutor executor_{{.threads = kind_ == IndexKind::rocksdb}};  // RocksDB has threads of its own anyway
  ManualClock clock_;
  SeededRandom random_{1};
  TemporaryDirectory directory_;
  std::shared_ptr<MemoryIndexMedia> index_ = std::make_shared<MemoryIndexMedia>();
  std::map<std::string, MemoryIndexMedia> saved_;
  std::shared_ptr<MemoryLogMedia> media_ = std::make_shared<MemoryLogMedia>();
  MemoryLogFaults log_faults_;
  std::unique_ptr<MemoryCommitLog> log_;
  RocksdbMetaOptions options_ = [] {
    RocksdbMetaOptions options;
    options.own_pool_threads = 1;
    options.block_cache_bytes = 1u << 20;
    options.memtable_bytes = 64u << 10;
    options.checkpoint_bytes_per_second = 0;
    return options;
  }();
  std::unique_ptr<LogMetaStore> store_;
  int filled_ = 0;
};

class RocksdbCrash : public StoreCrash {
 protected:
  RocksdbCrash() : StoreCrash(IndexKind::rocksdb) {}
};

class EitherCrash : public StoreCrash, public ::testing::WithParamInterface<IndexKind> {
 protected:
  EitherCrash() : StoreCrash(GetParam()) {}
};
inline std::string kind_name(const ::testing::TestParamInfo<IndexKind>& info) {
  return info.param == IndexKind::rocksdb ? "rocksdb" : "memory";
}
inline const auto kEitherIndex = ::testing::Values(IndexKind::rocksdb, IndexKind::memory);

}  // namespace quarry::meta
