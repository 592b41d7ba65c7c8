// Power cuts of the whole stack, between any two device requests, with the metadata directory lost or from another time.
// QUARRY_IMAGES sets how many images each workload checks, QUARRY_SEED the first seed.
#include "cluster/node/inspect.h"
#include "cluster/testing/stack_harness.h"

namespace quarry::cluster {
namespace {

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class StackIndex : public StackTest, public ::testing::WithParamInterface<bool> {
 protected:
  StackIndex() { index_in_memory = GetParam(); }
};

TEST_P(StackIndex, the_drives_alone_bring_everything_back) {
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

INSTANTIATE_TEST_SUITE_P(Index, StackIndex, ::testing::Bool(), [](const auto& info) { return info.param ? "memory" : "rocksdb"; });

TEST_F(StackTest, inspect_prints_label_frames_files_and_roots_but_no_key) {
  auto disks = make_disks(2, 64 * kMiB);
  ASSERT_TRUE(create(disks, temporary.sub("a"), "ec:1+1"));
  const std::string key = cluster->master_key();
  close();  // stores a checkpoint
  ASSERT_TRUE(open(disks, temporary.sub("a")));
  ASSERT_TRUE(write(ClusterHarness::random_bytes(1, 3000), "k"));
  auto copy = disks[0]->copy();
  close();
  auto store = executor.run(chunk::RawStore::open(copy->open(), {.read_only = true}));
  ASSERT_TRUE(store);
  auto text = executor.run(inspect_metadata(**store));
  ASSERT_TRUE(text) << text.error().to_string();
  for (const char* part :
       {"\"drive_number\": 1", "\"metadata_copies\": 2", "\"transactions\": 1", "\"previous_check\": ", "\"kind\": \"established\"",
        "\"recovered_from\": [", "\"checkpoint_frame\": ", "\"name\": \"CURRENT.", "\"piece\": 0"}) {
    EXPECT_NE(text->find(part), std::string::npos) << part << " is not in " << *text;
  }
  EXPECT_EQ(text->find("error"), std::string::npos) << *text;
  EXPECT_EQ(text->find(key), std::string::npos);
  executor.run((*store)->close()).ignore("only read");
}

struct StackWorkload {
  const char* name;
  const char* redundancy;
  size_t drives;
  int writes;
  size_t small, large;  // bytes of a small object; steps of a large one
  int large_one_in;     // 1: all are large
  int remove_one_in;
  bool restart;  // in the middle: recovery itself is cut too
  bool at_once;  // writes overlap
};
constexpr StackWorkload kWorkloads[] = {
    {"mixed", "ec:2+2", 4, 14, 5'000, 20'000, 2, 4, true, false},    {"small", "ec:2+2", 4, 30, 2'500, 0, 1000, 3, true, true},
    {"large", "ec:3+1", 4, 10, 100, 60'000, 1, 3, false, true},      {"mirrored", "mirror:2", 3, 14, 5'000, 25'000, 3, 3, true, true},
    {"one_drive", "ec:1+0", 1, 14, 5'000, 25'000, 3, 4, true, true}, {"whole", "whole:2+1", 4, 14, 5'000, 25'000, 2, 3, true, true},
};

class StackCrash : public StackTest, public ::testing::WithParamInterface<std::tuple<size_t, uint64_t, bool>> {
 protected:
  StackCrash() { index_in_memory = std::get<2>(GetParam()); }
  static constexpr uint64_t kDisk = 64 * kMiB;

  std::string name(int n) { return fmt::format("{}", n); }
  Task<void> put(int n) {
    timeline.note("writing " + name(n));
    auto layout = co_await write_task(cluster.get(), contents[static_cast<size_t>(n)], name(n));
    EXPECT_TRUE(layout) << layout.error().to_string();
    if (!layout) co_return;
    timeline.note("written " + name(n));
    live[n] = *layout;
  }
  Task<void> remove(int n) {
    const DataLayout layout = live[n];
    live.erase(n);
    timeline.note("removing " + name(n));
    auto removed = co_await remove_task(cluster.get(), layout, name(n));
    EXPECT_TRUE(removed);
    timeline.note("removed " + name(n));
  }
  Task<void> step(const StackWorkload* w, int from, int to, SeededRandom* rng) {
    TaskGroup group;
    for (int n = from; n < to; ++n) {
      if (w->at_once) {
        group.spawn(put(n));
      } else {
        co_await put(n);
      }
      if (n % w->remove_one_in != w->remove_one_in - 1 || live.empty()) continue;
      const auto victim = std::next(live.begin(), static_cast<long>(rng->below(live.size())));
      co_await remove(victim->first);
    }
    co_await group.join();
  }
  void run(const StackWorkload& w, uint64_t seed) {
    auto disks = make_disks(w.drives, kDisk);
    ASSERT_TRUE(create(disks, temporary.sub("live"), w.redundancy));
    ASSERT_TRUE(executor.run(cluster->settle()));
    for (auto& disk : disks) timeline.record(*disk);
    SeededRandom rng(seed);
    for (int n = 0; n < w.writes; ++n) {
      const bool large = rng.below(static_cast<uint64_t>(w.large_one_in)) == 0;
      contents.push_back(ClusterHarness::random_bytes(
          seed * 1000 + static_cast<uint64_t>(n), large ? 150'000 + w.large * static_cast<size_t>(n) : w.small + static_cast<size_t>(n)));
    }
    executor.run(step(&w, 0, w.writes / 2, &rng));
    if (w.restart) {
      close();
      ASSERT_TRUE(open(disks, temporary.sub("live")));
    }
    executor.run(step(&w, w.writes / 2, w.writes, &rng));
    executor.run(sleep_for(std::chrono::seconds(6)));  // a sweep
    timeline.stop_recording();
    close();
  }

  // What an image must hold; the directory is lost, or the one from the end of the run, which is no prefix of this log's history.
  void check(const CrashImage& image, const std::string& path) {
    auto opened = open(image.disks, path);
    ASSERT_TRUE(opened) << opened.error().to_string();
    auto settled = executor.run(cluster->settle());
    ASSERT_TRUE(settled) << settled.error().to_string();
    size_t rows = 0;
    for (int n = 0; n < static_cast<int>(contents.size()); ++n) {
      auto row = executor.run(cluster->meta().get("o" + name(n)));
      ASSERT_TRUE(row) << row.error().to_string();
      if (image.noted("written " + name(n)) && !image.noted("removing " + name(n)))
        ASSERT_TRUE(*row) << "write " << n << " was acknowledged";
      if (image.noted("removed " + name(n))) ASSERT_FALSE(*row) << "removal of " << n << " was acknowledged";
      if (!image.noted("writing " + name(n))) ASSERT_FALSE(*row) << "nobody wrote " << n;
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
        for (unsigned shard = 0; shard < reference.layout.redundancy.width(); ++shard)
          expected += reference.layout.stored_size(stripe, shard) > 0;
      }
    }
    close();
    uint64_t found = 0;
    for (const auto& disk : image.disks) {
      auto store = executor.run(chunk::RawStore::open(disk->open(), {}));
      ASSERT_TRUE(store);
      const auto [from, to] = chunk_range(ChunkKind::data);
      found += executor.run((*store)->list(from, to, 100'000))->size();
      executor.run((*store)->close()).ignore("only listed");
    }
    ASSERT_EQ(found, expected);
  }

  void bring_index(const std::string& from, const std::string& to) {
    if (index_in_memory) {
      indexes[to] = std::make_shared<meta::MemoryIndexMedia>(*indexes.at(from));
    } else {
      std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
    }
  }
  void lose_index(const std::string& path) {
    indexes.erase(path);
    std::filesystem::remove_all(path);
  }

  CrashTimeline timeline;
  std::vector<std::string> contents;
  std::map<int, DataLayout> live;
};

TEST_P(StackCrash, a_power_cut_leaves_all_that_was_acknowledged_and_nothing_else) {
  const StackWorkload& workload = kWorkloads[std::get<0>(GetParam())];
  const uint64_t seed = std::get<1>(GetParam()) + number_from("QUARRY_SEED", 3);
  run(workload, seed);
  if (HasFailure()) return;
  const uint64_t wanted = number_from("QUARRY_IMAGES", 60);
  CrashEnumerator images(timeline, {.images_max = wanted, .seed = seed});
  while (auto image = images.next()) {
    SCOPED_TRACE(fmt::format("image {} of workload {}, seed {}: {}", images.produced(), workload.name, seed, image->description));
    const std::string path = temporary.sub(fmt::format("image{}", images.produced()));
    if (images.produced() % 4 == 3) bring_index(temporary.sub("live"), path);
    check(*image, path);
    if (HasFailure()) return;
    lose_index(path);
  }
  EXPECT_GE(images.produced(), wanted * 3 / 4);
  RecordProperty("images", static_cast<int>(images.produced()));
}

std::string crash_name(const ::testing::TestParamInfo<std::tuple<size_t, uint64_t, bool>>& info) {
  return fmt::format("{}_{}", kWorkloads[std::get<0>(info.param)].name, std::get<1>(info.param));
}
INSTANTIATE_TEST_SUITE_P(Workloads, StackCrash,
                         ::testing::Combine(::testing::Range(size_t{0}, std::size(kWorkloads)), ::testing::Values(0u, 1u),
                                            ::testing::Values(false)),
                         crash_name);
INSTANTIATE_TEST_SUITE_P(WorkloadsIndexInMemory, StackCrash,
                         ::testing::Combine(::testing::Range(size_t{0}, std::size(kWorkloads)), ::testing::Values(2u),
                                            ::testing::Values(true)),
                         crash_name);

}  // namespace
}  // namespace quarry::cluster
