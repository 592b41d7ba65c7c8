// What redundancy repairs: each thing that a cluster keeps on a drive x each kind of damage, on one drive. Every object reads right while
// the damage is there, a scrub finds it and repairs it, and after that the drive's own scrub finds nothing, nor does the next open.
// The matrix of a single drive's structures is in chunk/raw/corruption_test.cc.
#include "cluster/testing/stack_harness.h"

namespace quarry::cluster {
namespace {

enum class Damage { bit_flip, zeroed_sector, garbage_block, swapped, stale, truncated, misdirected };
constexpr std::array kDamages = {Damage::bit_flip, Damage::zeroed_sector, Damage::garbage_block, Damage::swapped,
                                 Damage::stale,    Damage::truncated,     Damage::misdirected};
constexpr const char* kDamageNames[] = {"bit flip", "zeroed sector", "garbage block",    "swapped with the next block",
                                        "stale",    "truncated",     "misdirected write"};

struct Thing {
  std::string name;
  size_t disk = 0;
  uint64_t offset = 0, bytes = 0;  // on the disk
  uint64_t other = 0;              // a place with a structure of the same kind
};

class ClusterCorruption : public StackTest, public ::testing::WithParamInterface<const char*> {
 protected:
  static constexpr int kObjects = 24;

  void SetUp() override {
    disks = make_disks(4, 64 * kMiB);
    for (auto& disk : disks) before.push_back(disk->copy());
    ASSERT_TRUE(create(disks, temporary.sub("live"), GetParam()));
    for (int n = 0; n < kObjects; ++n) {
      if (n == kObjects / 2) {  // a clean close stores a checkpoint; the rest is in frames
        close();
        ASSERT_TRUE(open(disks, temporary.sub("live")));
      }
      contents.push_back(ClusterHarness::random_bytes(static_cast<uint64_t>(n),
                                                      n % 2 == 0 ? 9'000 + static_cast<size_t>(n) : 400'000 + static_cast<size_t>(n)));
      auto layout = write(contents.back(), fmt::format("{}", n));
      ASSERT_TRUE(layout);
      layouts.push_back(*layout);
    }
    Disks running;  // as a power cut leaves them: with frames that no checkpoint holds yet
    for (auto& disk : disks) running.push_back(disk->copy());
    close();
    disks = std::move(running);
    find_things();
  }

  // Where the first chunk with these bits lies, on disk 1 if it has one, found by what `inspect` says of it.
  void find(const std::string& name, ChunkKind kind, uint32_t size_min, uint32_t size_max, bool header) {
    size_t disk = 0;
    std::vector<std::pair<uint64_t, uint32_t>> places;
    for (size_t i = 1; i <= disks.size() && places.empty(); ++i) {
      disk = i % disks.size();
      auto store = executor.run(chunk::RawStore::open(disks[disk]->copy()->open(), {.read_only = true}));
      ASSERT_TRUE(store);
      const auto [from, to] = chunk_range(kind);
      auto all = executor.run((*store)->list(from, to, 100'000));
      ASSERT_TRUE(all);
      executor.run((*store)->close()).ignore("only listed");
      auto device = disks[disk]->copy()->open();
      for (const auto& stat : *all) {
        if (stat.size < size_min || stat.size > size_max) continue;
        auto text = executor.run(chunk::inspect_raw_device(*device, "chunk " + stat.id.to_string()));
        ASSERT_TRUE(text) << text.error().to_string();
        const size_t at = text->rfind("\"offset\": ");
        ASSERT_NE(at, std::string::npos);
        places.emplace_back(std::strtoull(text->c_str() + at + 10, nullptr, 10), stat.size);
        if (places.size() == 3) break;
      }
      executor.run(device->close());
    }
    ASSERT_GE(places.size(), 1u) << name;
    const bool extent = size_min >= 65'536;
    const uint64_t skip = extent && !header ? 4096 : 0;
    things.push_back({name, disk, places[0].first + skip, header ? 400 : places[0].second, places.size() > 1 ? places[1].first + skip : 0});
  }
  void find_things() {
    find("header of a large shard", ChunkKind::data, 65'536, UINT32_MAX, true);
    find("payload of a large shard", ChunkKind::data, 65'536, UINT32_MAX, false);
    find("packed shard", ChunkKind::data, 2'000, 60'000, false);
    find("metadata frame", ChunkKind::metadata_frame, 0, 60'000, false);
    find("metadata root", ChunkKind::metadata_root, 0, 60'000, false);
    find("piece of a metadata file", ChunkKind::metadata_file, 0, UINT32_MAX, false);
    things.push_back({"superblock and its older copy", 1, 0, 8192, 0});
    things.push_back({"labels of a zone", 1, 8192, 136 * 1024, 0});
  }

  void damage(SimDisk& disk, const Thing& thing, Damage kind) {
    const uint64_t middle = thing.offset + thing.bytes / 2;
    switch (kind) {
      case Damage::bit_flip: disk.flip_bit(middle, 3); break;
      case Damage::zeroed_sector: disk.poke(round_down(middle, 512), bytes_of(std::string(512, '\0'))); break;
      case Damage::garbage_block: disk.poke(round_down(middle, 4096), bytes_of(ClusterHarness::random_bytes(5, 4096))); break;
      case Damage::swapped: disk.swap_ranges(round_down(thing.offset, 4096), round_down(thing.offset, 4096) + 4096, 4096); break;
      case Damage::stale: disk.poke(thing.offset, before[thing.disk]->peek(thing.offset, thing.bytes)); break;
      case Damage::truncated: {
        const uint64_t from = middle;
        disk.poke(from, bytes_of(std::string(thing.offset + thing.bytes - from, '\0')));
        break;
      }
      case Damage::misdirected: disk.poke(thing.offset, disk.peek(thing.other, thing.bytes)); break;
    }
  }

  void expect_everything(const char* when) {
    for (int n = 0; n < kObjects; ++n) {
      auto back = read(layouts[static_cast<size_t>(n)]);
      ASSERT_TRUE(back) << when << ": object " << n << ": " << back.error().to_string();
      ASSERT_TRUE(*back == contents[static_cast<size_t>(n)]) << when << ": object " << n << " has wrong bytes";
    }
  }
  void scrub() {
    auto passed = executor.run(static_cast<LocalDataPlane&>(cluster->data()).scrubber().pass());
    ASSERT_TRUE(passed) << passed.error().to_string();
    ASSERT_TRUE(executor.run(cluster->settle()));
  }

  void run(const Thing& thing, Damage kind, const std::string& directory) {
    Disks victims;
    for (auto& disk : disks) victims.push_back(disk->copy());
    damage(*victims[thing.disk], thing, kind);
    if (victims[thing.disk]->contents() == disks[thing.disk]->contents()) {
      ++unchanged;
      return;
    }
    auto opened = open(victims, directory);
    ASSERT_TRUE(opened) << opened.error().to_string();
    expect_everything("damaged");
    scrub();
    expect_everything("after the scrub");
    close();  // until then fsck says what the drive's open found
    for (auto& disk : victims) {
      auto store = executor.run(chunk::RawStore::open(disk->open(), {}));
      ASSERT_TRUE(store);
      EXPECT_TRUE((*store)->open_report().damage.empty()) << (*store)->open_report().damage.front();
      auto progress = executor.run((*store)->scrub({}, UINT64_MAX));
      ASSERT_TRUE(progress);
      EXPECT_TRUE(progress->damaged.empty()) << "not repaired: " << progress->damaged.front().what;
      executor.run((*store)->close()).ignore("only looked at");
    }
    opened = open(victims, directory);
    ASSERT_TRUE(opened) << opened.error().to_string();
    expect_everything("opened again");
    ASSERT_EQ(fsck(), "");
    close();
    ++repaired;
  }

  Disks disks;
  std::vector<std::shared_ptr<SimDisk>> before;
  std::vector<std::string> contents;
  std::vector<DataLayout> layouts;
  std::vector<Thing> things;
  int repaired = 0, unchanged = 0;
};

INSTANTIATE_TEST_SUITE_P(Redundancies, ClusterCorruption, ::testing::Values("ec:2+2", "whole:2+1"),
                         [](const auto& info) { return std::string(info.param)[0] == 'w' ? "copy_and_slices" : "slices"; });

TEST_P(ClusterCorruption, what_has_redundancy_is_read_right_and_repaired) {
  ASSERT_EQ(things.size(), 8u);
  int number = 0;
  for (const Thing& thing : things) {
    for (const Damage kind : kDamages) {
      if (kind == Damage::misdirected && thing.other == 0) continue;  // one of its kind on the drive
      SCOPED_TRACE(fmt::format("{}: {}", thing.name, kDamageNames[static_cast<size_t>(kind)]));
      const std::string directory = temporary.sub(fmt::format("d{}", number++));
      if (number % 2 == 0) std::filesystem::copy(temporary.sub("live"), directory, std::filesystem::copy_options::recursive);
      run(thing, kind, directory);
      if (HasFailure()) return;
    }
  }
  EXPECT_GE(repaired, 45);
}

}  // namespace
}  // namespace quarry::cluster
