// StackTest: the whole stack in one thread, for tests: raw stores on simulated disks, the metadata store on the log on the drives.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>

#include "chunk/raw/raw_store.h"
#include "cluster/cluster.h"
#include "cluster/testing/cluster_harness.h"
#include "io/sim/crash_recorder.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"
#include "meta/memory/memory_index.h"
#include "meta/rocksdb/rocksdb_meta_store.h"

namespace quarry::cluster {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "quarry-cluster-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string sub(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// On the commit log that the cluster has. checkpoint_log_bytes: a checkpoint after so many of log; 0: as usual.
inline Task<Result<std::unique_ptr<meta::MetaStore>>> open_small_rocksdb(BlockingPool* pool, meta::CommitLog* log, std::string directory,
                                                                         uint64_t checkpoint_log_bytes = 0) {
  meta::RocksdbMetaOptions options;
  options.directory = std::move(directory);
  options.pool = pool;
  options.block_cache_bytes = 4 << 20;
  options.memtable_bytes = 4 << 20;
  if (checkpoint_log_bytes != 0) {
    options.checkpoint_log_bytes = checkpoint_log_bytes;
    options.checkpoint_ratio = 0;
  }
  CO_TRY_ASSIGN(auto store, co_await meta::open_rocksdb_store(std::move(options), *log));
  co_return std::unique_ptr<meta::MetaStore>(std::move(store));
}

// The same with the index in memory.
inline Task<Result<std::unique_ptr<meta::MetaStore>>> open_small_memory(std::shared_ptr<meta::MemoryIndexMedia> index, meta::CommitLog* log,
                                                                        uint64_t checkpoint_log_bytes) {
  meta::LogMetaOptions options;
  options.checkpoint_log_bytes = checkpoint_log_bytes;
  options.checkpoint_ratio = 0;
  CO_TRY_ASSIGN(auto store, co_await meta::LogMetaStore::open(std::move(options), meta::make_memory_place(std::move(index)), *log));
  co_return std::unique_ptr<meta::MetaStore>(std::move(store));
}

class StackTest : public ::testing::Test {
 protected:
  using Disks = std::vector<std::shared_ptr<SimDisk>>;

  ~StackTest() override { close(); }

  Disks make_disks(size_t count, uint64_t size = 96 * kMiB) {
    Disks disks;
    for (size_t i = 0; i < count; ++i) {
      SimDisk::Options options;
      options.path = fmt::format("sim{}", i);
      options.size = size;
      options.latency_max = std::chrono::microseconds(100);
      options.seed = i + 1;
      disks.push_back(SimDisk::create(options));
      auto device = disks.back()->open();
      chunk::FormatOptions format;
      format.drive = random.uuid();
      auto formatted = executor.run(chunk::RawStore::format(*device, format));
      CHECK(formatted, formatted ? "" : formatted.error().to_string());
      executor.run(device->close());
    }
    return disks;
  }

  ClusterOptions options(const Disks& disks, std::string directory) {
    ClusterOptions o;
    for (const auto& disk : disks) {
      if (disk == nullptr) continue;
      auto store = executor.run(chunk::RawStore::open(disk->open(), {}));
      CHECK(store, store ? "" : store.error().to_string());
      OpenedDrive drive;
      drive.store = std::move(*store);
      drive.owner = &executor;
      drive.path = disk->options().path;
      o.drives.push_back(std::move(drive));
    }
    o.metadata_directory = std::move(directory);
    o.blocking_pool = pool.get();
    o.open_meta = [this](meta::CommitLog& log, std::string path) {
      if (!index_in_memory) return open_small_rocksdb(pool.get(), &log, std::move(path), 16 << 10);
      auto& index = indexes[path];
      if (index == nullptr) index = std::make_shared<meta::MemoryIndexMedia>();
      return open_small_memory(index, &log, 16 << 10);
    };
    o.random = &random;
    o.tuning.shard_bytes = 64 * 1024;
    o.tuning.cache_bytes = 0;
    o.tuning.missing_grace = std::chrono::hours(1000);
    o.tuning.scrub_interval = Duration(0);
    return o;
  }
  Result<void> create(const Disks& disks, std::string directory, std::string redundancy) {
    CreateOptions what;
    what.redundancy = std::move(redundancy);
    what.group_count = 8;
    auto made = executor.run(Cluster::create(options(disks, std::move(directory)), what));
    if (!made) return std::move(made).error();
    cluster = std::move(*made);
    return {};
  }
  Result<void> open(const Disks& disks, std::string directory) {
    auto made = executor.run(Cluster::open(options(disks, std::move(directory))));
    if (!made) return std::move(made).error();
    cluster = std::move(*made);
    return {};
  }
  void close() {
    if (cluster == nullptr) return;
    executor.run(cluster->close()).ignore("a broken one too");
    cluster.reset();
  }

  Result<DataLayout> write(const std::string& bytes, std::string owner) {
    return executor.run(write_task(cluster.get(), bytes, std::move(owner)));
  }
  static Task<Result<DataLayout>> write_task(Cluster* cluster, std::string bytes, std::string owner) {
    WriteOptions options;
    options.redundancy = *parse_redundancy(cluster->default_redundancy(), 32);
    options.size_hint = bytes.size();
    CO_TRY_ASSIGN(auto writer, cluster->data().begin_write(options));
    for (size_t at = 0; at < bytes.size(); at += 100'000) {
      Buffer part = Buffer::copy_of(bytes_of(bytes).subspan(at, std::min<size_t>(100'000, bytes.size() - at)));
      CO_TRY(co_await writer->append(std::move(part)));
    }
    CO_TRY_ASSIGN(DataLayout layout, co_await writer->finish());
    CO_TRY_ASSIGN(auto transaction, co_await cluster->meta().begin());
    cluster->data().record(*transaction, layout, owner);
    std::string row;
    layout.encode(row);
    transaction->put("o" + owner, row);
    Result<meta::Version> committed = co_await transaction->commit();
    if (!committed) co_return std::move(committed).error();
    writer->keep();
    co_return layout;
  }
  static Task<Result<void>> remove_task(Cluster* cluster, DataLayout layout, std::string owner) {
    CO_TRY_ASSIGN(auto transaction, co_await cluster->meta().begin());
    cluster->data().retire(*transaction, layout);
    transaction->remove("o" + owner);
    Result<meta::Version> committed = co_await transaction->commit();
    if (!committed) co_return std::move(committed).error();
    cluster->data().retired();
    co_return Result<void>();
  }
  Result<std::string> read(const DataLayout& layout) {
    return executor.run(ClusterHarness::read_task(&cluster->data(), layout, 0, layout.size, CachePolicy::normal));
  }
  std::string fsck() {
    auto report = executor.run(cluster->data().fsck(false));
    if (!report) return report.error().to_string();
    std::string text;
    for (const std::string& violation : report->violations) text += violation + "\n";
    return text;
  }

  SimExecutor executor;
  const std::unique_ptr<BlockingPool> pool = executor.make_pool("test", 2);
  SeededRandom random{7};
  TemporaryDirectory temporary;
  bool index_in_memory = false;                                            // the metadata index, instead of in RocksDB
  std::map<std::string, std::shared_ptr<meta::MemoryIndexMedia>> indexes;  // by what would be the directory
  std::unique_ptr<Cluster> cluster;
};

}  // namespace quarry::cluster
