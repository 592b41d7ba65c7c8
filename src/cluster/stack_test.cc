// The whole stack in one thread: raw stores on simulated disks, the metadata store on the log on the drives; with power cuts between any
// two device requests, with the metadata directory kept, lost, or from another time.
#include <gtest/gtest.h>

#include <filesystem>

#include "chunk/raw/raw_store.h"
#include "cluster/cluster.h"
#include "cluster/testing/cluster_harness.h"
#include "io/sim/crash_recorder.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"
#include "meta/rocksdb/rocksdb_meta_store.h"

namespace quarry::cluster {
namespace {

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

  static Task<Result<std::unique_ptr<meta::MetaStore>>> open_rocksdb(ThreadPool* pool, meta::CommitLog* log, std::string directory) {
    meta::RocksdbMetaOptions options;
    options.directory = std::move(directory);
    options.pool = pool;
    options.block_cache_bytes = 4 << 20;
    options.memtable_bytes = 4 << 20;
    options.checkpoint_log_bytes = 16 << 10;  // often
    options.checkpoint_ratio = 0;
    CO_TRY_ASSIGN(auto store, co_await meta::RocksdbMetaStore::open(std::move(options), *log));
    co_return std::unique_ptr<meta::MetaStore>(std::move(store));
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
    o.blocking_pool = &pool;
    o.open_meta = [this](meta::CommitLog& log, std::string path) { return open_rocksdb(&pool, &log, std::move(path)); };
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

  Result<DataLayout> write(const std::string& bytes, std::string owner) { return executor.run(write_task(cluster.get(), bytes, std::move(owner))); }
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
  ThreadPool pool{"test", 2};
  SeededRandom random{7};
  TemporaryDirectory temporary;
  std::unique_ptr<Cluster> cluster;
};

TEST_F(StackTest, the_drives_alone_bring_everything_back) {
  auto disks = make_disks(5);
  ASSERT_TRUE(create(disks, temporary.sub("a"), "ec:3+2"));
  const std::string key = cluster->master_key();
  std::map<std::string, std::pair<DataLayout, std::string>> oracle;
  for (int i = 0; i < 40; ++i) {
    const std::string bytes = ClusterHarness::random_bytes(i, i % 2 == 0 ? 3000 : 300'000 + i);
    auto layout = write(bytes, fmt::format("k{}", i));
    ASSERT_TRUE(layout) << layout.error().to_string();
    oracle[fmt::format("k{}", i)] = {*layout, bytes};
  }
  close();
  // Same directory, a lost one, a lost one and two lost drives.
  for (const char* name : {"a", "b", "c"}) {
    auto present = disks;
    if (name[0] == 'c') present[1] = present[3] = nullptr;
    auto opened = open(present, temporary.sub(name));
    ASSERT_TRUE(opened) << name << opened.error().to_string();
    EXPECT_EQ(cluster->master_key(), key);
    for (auto& [owner, entry] : oracle) {
      auto row = executor.run(cluster->meta().get("o" + owner));
      ASSERT_TRUE(row && *row) << owner;
      auto back = read(entry.first);
      ASSERT_TRUE(back) << back.error().to_string();
      ASSERT_TRUE(*back == entry.second);
    }
    EXPECT_EQ(fsck(), "");
    close();
  }
}

TEST_F(StackTest, a_power_cut_at_any_moment_leaves_all_that_was_acknowledged_and_nothing_else) {
  auto disks = make_disks(4, 64 * kMiB);
  ASSERT_TRUE(create(disks, temporary.sub("live"), "ec:2+2"));
  ASSERT_TRUE(executor.run(cluster->settle()));
  CrashTimeline timeline;
  for (auto& disk : disks) timeline.record(*disk);
  // tag 2n: write n acknowledged; 2n + 1: its removal acknowledged. What was asked for is noted too, before it begins.
  std::vector<std::string> contents;
  std::map<int, DataLayout> live;
  SeededRandom rng(3);
  constexpr int kWrites = 14;
  for (int n = 0; n < kWrites; ++n) {
    const std::string bytes = ClusterHarness::random_bytes(n, n % 3 == 0 ? 5'000 + n : 150'000 + 20'000 * n);
    contents.push_back(bytes);
    auto layout = write(bytes, fmt::format("{}", n));
    ASSERT_TRUE(layout) << layout.error().to_string();
    timeline.note(fmt::format("written {}", n));
    live[n] = *layout;
    if (n % 4 == 3) {
      auto victim = std::next(live.begin(), static_cast<long>(rng.below(live.size())));
      const int which = victim->first;
      timeline.note(fmt::format("removing {}", which));
      ASSERT_TRUE(executor.run(remove_task(cluster.get(), victim->second, fmt::format("{}", which))));
      timeline.note(fmt::format("removed {}", which));
      live.erase(victim);
    }
    if (n == kWrites / 2) {  // a restart in between: recovery itself is cut too
      close();
      ASSERT_TRUE(open(disks, temporary.sub("live")));
    }
  }
  executor.run(sleep_for(std::chrono::seconds(6)));  // a sweep
  timeline.stop_recording();
  close();

  const char* more = std::getenv("QUARRY_IMAGES");
  CrashEnumerator::Options enumerate;
  enumerate.images_max = more != nullptr ? std::strtoull(more, nullptr, 10) : 30;
  enumerate.seed = 11;
  CrashEnumerator images(timeline, enumerate);
  int number = 0;
  while (auto image = images.next()) {
    SCOPED_TRACE(fmt::format("image {}: {}", number, image->description));
    // The directory: lost, or the one from the end of the run, which is no prefix of this log's history.
    const bool future = number % 4 == 3;
    const std::string path = temporary.sub(fmt::format("image{}", number));
    if (future) std::filesystem::copy(temporary.sub("live"), path, std::filesystem::copy_options::recursive);
    ++number;
    auto opened = open(image->disks, path);
    ASSERT_TRUE(opened) << opened.error().to_string();
    auto settled = executor.run(cluster->settle());
    ASSERT_TRUE(settled) << settled.error().to_string();
    size_t rows = 0;
    for (int n = 0; n < kWrites; ++n) {
      auto row = executor.run(cluster->meta().get(fmt::format("o{}", n)));
      ASSERT_TRUE(row) << row.error().to_string();
      const bool removing = image->noted(fmt::format("removing {}", n));
      if (image->noted(fmt::format("written {}", n)) && !removing) ASSERT_TRUE(*row) << "write " << n << " was acknowledged";
      if (image->noted(fmt::format("removed {}", n))) ASSERT_FALSE(*row) << "removal of " << n << " was acknowledged";
      if (!*row) continue;
      ++rows;
      Decoder in(**row);
      auto layout = DataLayout::decode(in);
      ASSERT_TRUE(layout);
      auto back = read(*layout);
      ASSERT_TRUE(back) << "write " << n << " " << back.error().to_string();
      ASSERT_TRUE(*back == contents[static_cast<size_t>(n)]) << n;
    }
    auto references = executor.run(cluster->data().references(0, 1000));
    ASSERT_TRUE(references);
    ASSERT_EQ(references->size(), rows) << "a data row without its owner, or the other way round";
    ASSERT_EQ(fsck(), "");
    // No leak: what lies on the drives is what the rows need.
    uint64_t expected = 0;
    for (auto& reference : *references) {
      for (uint32_t stripe = 0; stripe < reference.layout.stripe_count(); ++stripe) {
        for (unsigned shard = 0; shard < reference.layout.redundancy.width(); ++shard) expected += reference.layout.stored_size(stripe, shard) > 0;
      }
    }
    close();
    uint64_t found = 0;
    for (const auto& disk : image->disks) {
      auto store = executor.run(chunk::RawStore::open(disk->open(), {}));
      ASSERT_TRUE(store);
      const auto [from, to] = chunk_range(ChunkKind::data);
      found += executor.run((*store)->list(from, to, 100'000))->size();
      executor.run((*store)->close()).ignore("only listed");
    }
    ASSERT_EQ(found, expected);
    std::filesystem::remove_all(path);
  }
  EXPECT_GE(number, 30);
}

}  // namespace
}  // namespace quarry::cluster
