// The conformance suite on the in-memory twin and on RocksDB over the in-memory log.
#include <filesystem>

#include "meta/conformance.h"
#include "meta/log_store/log_meta_store.h"
#include "meta/memory/memory_meta_store.h"
#include "meta/memory_commit_log.h"
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

// lose_directory: every reopening finds no directory, so that everything comes from the log and its checkpoints.
class RocksdbFixture : public MetaFixture {
 public:
  RocksdbFixture(SimExecutor& executor, bool lose_directory) : lose_directory_(lose_directory) { open(executor); }
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
    if (lose_directory_) std::filesystem::remove_all(directory_.path());
    open(executor);
  }
  void finish(SimExecutor& executor) override {
    executor.run(store_->close()).ignore("it may have crashed");
    store_.reset();
  }

 private:
  void open(SimExecutor& executor) {
    log_ = std::make_unique<MemoryCommitLog>(media_);
    RocksdbMetaOptions options;
    options.directory = directory_.path() + "/meta";
    options.own_pool_threads = 1;
    options.clock = &clock_;
    options.block_cache_bytes = 4u << 20;
    options.memtable_bytes = 256u << 10;  // small: flushes happen in tests
    options.checkpoint_log_bytes = lose_directory_ ? 16u << 10 : 64u << 20;
    options.checkpoint_bytes_per_second = 0;
    auto store = executor.run(RocksdbMetaStore::open(std::move(options), *log_));
    ASSERT_TRUE(store) << store.error().to_string();
    store_ = std::move(*store);
  }

  bool lose_directory_;
  ManualClock clock_;
  TemporaryDirectory directory_;
  std::shared_ptr<MemoryLogMedia> media_ = std::make_shared<MemoryLogMedia>();
  std::unique_ptr<MemoryCommitLog> log_;
  std::unique_ptr<RocksdbMetaStore> store_;
};

const MetaBackend kMemory{"memory", [](SimExecutor&) { return std::make_unique<MemoryFixture>(); }};
const MetaBackend kRocksdb{"rocksdb", [](SimExecutor& executor) { return std::make_unique<RocksdbFixture>(executor, false); }};
const MetaBackend kRocksdbFromLog{"rocksdb_from_log",
                                  [](SimExecutor& executor) { return std::make_unique<RocksdbFixture>(executor, true); }};

INSTANTIATE_TEST_SUITE_P(Backends, MetaConformance, ::testing::Values(kMemory, kRocksdb, kRocksdbFromLog), backend_name);

}  // namespace
}  // namespace quarry::meta
