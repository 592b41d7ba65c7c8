#include "io/sim/crash_recorder.h"

#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"
#include "io/sync.h"

namespace quarry {
namespace {

Buffer pattern(size_t size, uint8_t value) {
  Buffer buffer(size);
  std::memset(buffer.data(), value, size);
  return buffer;
}
uint8_t byte_at(const SimDisk& disk, uint64_t offset) { return disk.peek(offset, 1).data()[0]; }

class CrashRecorderTest : public testing::Test {
 protected:
  void write(uint64_t offset, uint8_t value, Durability durability, size_t size = 4096, size_t disk = 0) {
    const Buffer data = pattern(size, value);
    ASSERT_TRUE(executor_.run(devices_[disk]->write(offset, data, durability)));
  }
  void flush() { ASSERT_TRUE(executor_.run(devices_[0]->flush())); }
  void add_disk() {
    disks_.push_back(SimDisk::create({.size = kMiB}));
    devices_.push_back(disks_.back()->open());
    timeline_.record(*disks_.back());
  }
  std::vector<CrashImage> all(CrashEnumerator::Options options) {
    CrashEnumerator enumerator(timeline_, options);
    std::vector<CrashImage> images;
    while (auto image = enumerator.next()) images.push_back(std::move(*image));
    return images;
  }
  SimExecutor executor_;
  std::vector<std::shared_ptr<SimDisk>> disks_;
  std::vector<std::unique_ptr<BlockDevice>> devices_;
  CrashTimeline timeline_;
};

TEST_F(CrashRecorderTest, every_subset_of_an_epoch_is_enumerated_once) {
  add_disk();
  for (uint8_t i = 0; i < 3; ++i) write(i * 4096u, 1, Durability::volatile_);
  const auto images = all({.images_max = 1000, .tear = false});
  std::set<int> subsets;
  for (const auto& image : images) {
    int subset = 0;
    for (int i = 0; i < 3; ++i) subset |= byte_at(*image.disks[0], static_cast<uint64_t>(i) * 4096) << i;
    EXPECT_TRUE(subsets.insert(subset).second) << "twice: " << image.description;
  }
  EXPECT_EQ(subsets.size(), 8u);
}

Task<void> begin_recording_beside_a_write(CrashTimeline& timeline, SimDisk& disk, BlockDevice& device, const Buffer& data) {
  TaskGroup group;
  auto write = [](BlockDevice& to, const Buffer& bytes) -> Task<void> { EXPECT_TRUE(co_await to.write(0, bytes, Durability::durable)); };
  group.spawn(write(device, data));
  EXPECT_EQ(disk.writes_in_flight().size(), 1u);
  timeline.record(disk);
  co_await group.join();
  timeline.note("durable");
}

TEST_F(CrashRecorderTest, a_write_in_flight_when_recording_begins_is_not_lost) {
  disks_.push_back(SimDisk::create({.size = kMiB}));
  devices_.push_back(disks_.back()->open());
  const Buffer data = pattern(4096, 5);
  executor_.run(begin_recording_beside_a_write(timeline_, *disks_[0], *devices_[0], data));
  size_t without = 0, with = 0;
  for (const auto& image : all({.images_max = 100, .tear = false})) {
    const uint8_t found = byte_at(*image.disks[0], 0);
    if (image.noted("durable")) EXPECT_EQ(found, 5) << image.description;
    ++(found == 5 ? with : without);
  }
  EXPECT_GT(with, 0u);
  EXPECT_GT(without, 0u);
}

TEST_F(CrashRecorderTest, a_flush_is_a_wall) {
  add_disk();
  write(0, 1, Durability::volatile_);
  flush();
  write(4096, 2, Durability::volatile_);
  for (const auto& image : all({.images_max = 1000, .tear = false})) {
    if (byte_at(*image.disks[0], 4096) == 2) {
      EXPECT_EQ(byte_at(*image.disks[0], 0), 1) << image.description;
    }
  }
}

TEST_F(CrashRecorderTest, without_a_flush_the_later_write_may_be_alone) {
  add_disk();
  write(0, 1, Durability::volatile_);
  write(4096, 2, Durability::volatile_);
  bool reordered = false;
  for (const auto& image : all({.images_max = 1000})) {
    reordered |= byte_at(*image.disks[0], 4096) == 2 && byte_at(*image.disks[0], 0) == 0;
  }
  EXPECT_TRUE(reordered);
}

TEST_F(CrashRecorderTest, a_noted_acknowledgement_of_a_durable_write_always_holds) {
  add_disk();
  for (uint8_t i = 1; i <= 20; ++i) {
    write(i * 8192u, i, Durability::durable, 8192);
    timeline_.note("ack", i);
    write((100 + i) * 4096u, i, Durability::volatile_);
  }
  const auto images = all({.images_max = 500, .seed = 3});
  EXPECT_EQ(images.size(), 500u);
  size_t with_all = 0, torn = 0;
  for (const auto& image : images) {
    for (const auto& note : image.notes) {
      ASSERT_EQ(byte_at(*image.disks[0], note.tag * 8192), note.tag) << image.description;
      ASSERT_EQ(byte_at(*image.disks[0], note.tag * 8192 + 8191), note.tag) << image.description;
    }
    with_all += image.noted(20);
    torn += image.description.find("torn") != std::string::npos;
  }
  EXPECT_GT(with_all, 0u);
  EXPECT_GT(torn, 0u);
}

TEST_F(CrashRecorderTest, a_durable_write_in_flight_may_be_torn_and_after_completion_not) {
  add_disk();
  write(0, 1, Durability::durable, 16384);
  timeline_.note("ack");
  std::set<int> without_ack;
  for (const auto& image : all({.images_max = 1000})) {
    int landed = 0;
    for (uint64_t at = 0; at < 16384; at += 512) landed += byte_at(*image.disks[0], at);
    if (image.noted("ack")) {
      EXPECT_EQ(landed, 32);
    } else {
      without_ack.insert(landed);
    }
  }
  EXPECT_GT(without_ack.size(), 5u);
}

TEST_F(CrashRecorderTest, two_disks_share_one_timeline) {
  add_disk();
  add_disk();
  write(0, 1, Durability::durable, 4096, 0);
  write(0, 2, Durability::durable, 4096, 1);
  bool first_alone = false;
  for (const auto& image : all({.images_max = 1000})) {
    const bool first = byte_at(*image.disks[0], 0) == 1, second = byte_at(*image.disks[1], 0) == 2;
    EXPECT_TRUE(first || !second) << "the second write was issued after the first was durable: " << image.description;
    first_alone |= first && !second;
  }
  EXPECT_TRUE(first_alone);
}

TEST_F(CrashRecorderTest, writes_to_one_block_keep_their_order) {
  add_disk();
  write(0, 1, Durability::volatile_);
  write(0, 2, Durability::volatile_);
  write(0, 3, Durability::durable);
  write(0, 4, Durability::volatile_);
  std::set<int> at_the_end;
  for (const auto& image : all({.images_max = 1000, .first_cut = timeline_.events()})) at_the_end.insert(byte_at(*image.disks[0], 0));
  EXPECT_EQ(at_the_end, (std::set<int>{3, 4}));
}

TEST_F(CrashRecorderTest, the_same_seed_gives_the_same_images_and_a_recorded_disk_keeps_its_base) {
  disks_.push_back(SimDisk::create({.size = kMiB}));
  devices_.push_back(disks_.back()->open());
  write(65536, 42, Durability::volatile_);
  timeline_.record(*disks_.back());
  for (uint8_t i = 1; i < 100; ++i) write(i * 4096u, i, i % 7 == 0 ? Durability::durable : Durability::volatile_, 4096 * (1 + i % 3));
  const auto once = all({.images_max = 300, .seed = 9}), again = all({.images_max = 300, .seed = 9}),
             other = all({.images_max = 300, .seed = 10});
  ASSERT_EQ(once.size(), 300u);
  ASSERT_EQ(again.size(), 300u);
  bool differs = false;
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_EQ(once[i].description, again[i].description);
    EXPECT_TRUE(once[i].disks[0]->contents() == again[i].disks[0]->contents());
    differs |= once[i].description != other[i].description;
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(byte_at(*once[0].disks[0], 65536 + 4095) == 42 || byte_at(*once[0].disks[0], 65536 + 4095) != 0, true);
}

TEST_F(CrashRecorderTest, checkpoints_build_the_same_contents_as_a_replay) {
  add_disk();
  for (int i = 0; i < 200; ++i) write(static_cast<uint64_t>(i % 64) * 4096, static_cast<uint8_t>(i), Durability::durable);
  const auto images = all({.images_max = 10, .first_cut = timeline_.events()});
  ASSERT_EQ(images.size(), 1u);
  EXPECT_TRUE(images[0].disks[0]->contents() == disks_[0]->contents());
}

}  // namespace
}  // namespace quarry
