// The conformance suite on the in-memory twin, and on the store over the in-memory log with either index.
#include <filesystem>

#include "meta/conformance.h"
#include "meta/memory/memory_index.h"
#include "meta/memory/memory_meta_store.h"
#include "meta/memory_commit_log.h"
#include "meta/rocksdb/rocksdb_meta_store.h"
#include "meta/temporary_directory.h"

namespace quarry::meta {
namespace {

class MemoryFixture : public MetaFixture {
 public:
  MemoryFixture() : store_(MemoryMetaStore::create({}, &clock_)) {}
  MetaStore& store() override { return *store_; }
  void advance_clock(Duration by) override { clock_.advance(by.count()); }
  void slow_commits(uint64_t seed) override {
    store_->set_faults({.seed = seed, .read_delay_max = std::chrono::microseconds(20), .commit_delay_max = std::chrono::microseconds(200)});
  }
  void flaky_commits(uint64_t seed) override {
    store_->set_faults({.seed = seed,
                        .conflict_probability = 0.1,
                        .unknown_outcome_probability = 0.2,
                        .unavailable_probability = 0.05,
                        .commit_delay_max = std::chrono::microseconds(200)});
  }
  void crash(uint64_t) override { store_->crash(); }
  void reopen(SimExecutor&) override { store_ = MemoryMetaStore::open(store_->media(), {}, &clock_); }
  void finish(SimExecutor& executor) override { executor.run(store_->close()).ignore("it may have crashed"); }

 private:
  ManualClock clock_;
  std::unique_ptr<MemoryMetaStore> store_;
};

// lose_index: every reopening finds no index, so that everything comes from the log and its checkpoints.
class LogFixture : public MetaFixture {
 public:
  explicit LogFixture(bool lose_index) : lose_index_(lose_index) {}
  MetaStore& store() override { return *store_; }
  void advance_clock(Duration by) override { clock_.advance(by.count()); }
  void slow_commits(uint64_t seed) override {
    log_->set_faults({.append_delay = std::chrono::microseconds(100), .append_jitter = std::chrono::microseconds(200), .seed = seed});
  }
  void flaky_commits(uint64_t seed) override {
    log_->set_faults({.append_delay = std::chrono::microseconds(100), .seed = seed, .fail_append = 5 + seed * 7});
  }
  void crash(uint64_t) override { log_->crash(); }
  void reopen(SimExecutor& executor) override {
    executor.run(store_->kill());
    store_.reset();
    if (lose_index_) lose();
    open(executor);
  }
  void finish(SimExecutor& executor) override {
    executor.run(store_->close()).ignore("it may have crashed");
    store_.reset();
  }

 protected:
  virtual void lose() = 0;
  virtual Task<Result<std::unique_ptr<LogMetaStore>>> open_over(CommitLog& log) = 0;
  void open(SimExecutor& executor) {
    log_ = std::make_unique<MemoryCommitLog>(media_);
    auto store = executor.run(open_over(*log_));
    ASSERT_TRUE(store) << store.error().to_string();
    store_ = std::move(*store);
  }
  void set(LogMetaOptions& options) {
    options.clock = &clock_;
    options.checkpoint_log_bytes = lose_index_ ? 16u << 10 : 64u << 20;
    options.checkpoint_bytes_per_second = 0;
  }

 private:
  bool lose_index_;
  ManualClock clock_;
  std::shared_ptr<MemoryLogMedia> media_ = std::make_shared<MemoryLogMedia>();
  std::unique_ptr<MemoryCommitLog> log_;
  std::unique_ptr<LogMetaStore> store_;
};

class RocksdbFixture final : public LogFixture {
 public:
  RocksdbFixture(SimExecutor& executor, bool lose_index) : LogFixture(lose_index) { open(executor); }

 private:
  void lose() override { std::filesystem::remove_all(directory_.path()); }
  Task<Result<std::unique_ptr<LogMetaStore>>> open_over(CommitLog& log) override {
    RocksdbMetaOptions options;
    options.directory = directory_.path() + "/meta";
    options.own_pool_threads = 1;
    options.block_cache_bytes = 4u << 20;
    options.memtable_bytes = 256u << 10;  // small: flushes happen in tests
    set(options);
    return open_rocksdb_store(std::move(options), log);
  }
  TemporaryDirectory directory_;
};

class LogMemoryFixture final : public LogFixture {
 public:
  LogMemoryFixture(SimExecutor& executor, bool lose_index) : LogFixture(lose_index) { open(executor); }

 private:
  void lose() override { *index_ = {}; }
  Task<Result<std::unique_ptr<LogMetaStore>>> open_over(CommitLog& log) override {
    LogMetaOptions options;
    set(options);
    return LogMetaStore::open(std::move(options), make_memory_place(index_), log);
  }
  std::shared_ptr<MemoryIndexMedia> index_ = std::make_shared<MemoryIndexMedia>();
};

template <class Fixture, bool kLoseIndex>
std::unique_ptr<MetaFixture> make(SimExecutor& executor) {
  return std::make_unique<Fixture>(executor, kLoseIndex);
}

const MetaBackend kMemory{"memory", [](SimExecutor&) { return std::make_unique<MemoryFixture>(); }};
const MetaBackend kRocksdb{"rocksdb", make<RocksdbFixture, false>};
const MetaBackend kRocksdbFromLog{"rocksdb_from_log", make<RocksdbFixture, true>};
const MetaBackend kLogMemory{"log_memory", make<LogMemoryFixture, false>};
const MetaBackend kLogMemoryFromLog{"log_memory_from_log", make<LogMemoryFixture, true>};

INSTANTIATE_TEST_SUITE_P(Backends, MetaConformance, ::testing::Values(kMemory, kRocksdb, kRocksdbFromLog, kLogMemory, kLogMemoryFromLog),
                         backend_name);

}  // namespace
}  // namespace quarry::meta
