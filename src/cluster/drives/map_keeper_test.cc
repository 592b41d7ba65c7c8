#include "cluster/drives/map_keeper.h"

#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"
#include "meta/memory/memory_meta_store.h"

namespace quarry::cluster {
namespace {

using meta::CommitFault;

class MapKeeperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ClusterMap map;
    map.group_count = 64;
    for (uint32_t n = 1; n <= 6; ++n) {
      MapDrive drive{.number = n, .id = {}, .path = fmt::format("/dev/d{}", n), .domain = fmt::format("d{}", n), .weight = 1000};
      drive.id.bytes[0] = static_cast<uint8_t>(n);
      map.drives.emplace(n, drive);
    }
    map.next_drive = 7;
    ASSERT_TRUE(map.register_width(3));
    ASSERT_TRUE(executor.run(keeper.create(std::move(map))));
  }
  Result<void> fail_drive(uint32_t number) {
    return executor.run(keeper.change([number](ClusterMap& map) -> Result<void> {
      map.drives.at(number).state = DriveState::failed;
      map.replan();
      return {};
    }));
  }
  std::map<std::string, std::string> stored() {
    DriveSet others;
    MapKeeper reader(*store, others);
    const auto loaded = executor.run(reader.load());
    EXPECT_TRUE(loaded) << loaded.error().to_string();
    return others.topology()->map.rows();
  }
  const ClusterMap& published() {
    topology = drives.topology();
    return topology->map;
  }

  SimExecutor executor;
  std::unique_ptr<meta::MemoryMetaStore> store = meta::MemoryMetaStore::create();
  DriveSet drives;
  MapKeeper keeper{*store, drives};
  std::shared_ptr<const Topology> topology;
};

TEST_F(MapKeeperTest, a_change_whose_answer_was_lost_is_made_once) {
  for (const CommitFault fault : {CommitFault::unknown_applied, CommitFault::unknown_not_applied, CommitFault::conflict}) {
    const uint64_t epoch = published().epoch;
    store->plan(fault);
    const uint32_t number = published().next_drive;
    ASSERT_TRUE(executor.run(keeper.change([](ClusterMap& map) -> Result<void> {
      MapDrive drive = map.drives.at(1);
      drive.number = map.next_drive++;
      map.drives.emplace(drive.number, drive);
      return {};
    })));
    EXPECT_EQ(published().epoch, epoch + 1);
    EXPECT_EQ(published().next_drive, number + 1);
    EXPECT_EQ(stored(), published().rows());
  }
}

TEST_F(MapKeeperTest, a_change_goes_on_from_what_is_stored_not_from_what_is_believed) {
  // Nothing happened at first; then it did, and nobody knows.
  store->plan(CommitFault::unknown_not_applied);
  store->plan(CommitFault::unknown_applied, 1);
  EXPECT_EQ(fail_drive(1).error().code(), Code::unknown_outcome);
  EXPECT_EQ(published().drives.at(1).state, DriveState::active) << "not known yet";
  ASSERT_TRUE(fail_drive(2));
  EXPECT_EQ(published().drives.at(1).state, DriveState::failed);
  EXPECT_EQ(published().drives.at(2).state, DriveState::failed);
  EXPECT_EQ(stored(), published().rows());
}

TEST_F(MapKeeperTest, what_became_of_an_unknown_change_is_published) {
  store->plan(CommitFault::unknown_not_applied);
  store->plan(CommitFault::unknown_applied, 1);
  EXPECT_EQ(fail_drive(1).error().code(), Code::unknown_outcome);
  store->plan(CommitFault::unavailable);
  EXPECT_EQ(executor.run(keeper.settle()).error().code(), Code::unavailable);
  EXPECT_EQ(published().drives.at(1).state, DriveState::active);
  ASSERT_TRUE(executor.run(keeper.settle()));
  EXPECT_EQ(published().drives.at(1).state, DriveState::failed);
  EXPECT_EQ(stored(), published().rows());
  const auto before = store->stats().commits;
  ASSERT_TRUE(executor.run(keeper.settle()));
  EXPECT_EQ(store->stats().commits, before) << "nothing is in doubt any more";
}

TEST_F(MapKeeperTest, the_first_map_is_the_first) {
  ClusterMap other = published();
  other.epoch = 0;
  other.drives.erase(6);
  other.next_drive = 100;
  EXPECT_EQ(executor.run(keeper.create(other)).error().code(), Code::already_exists);
  EXPECT_EQ(stored(), published().rows());
}

}  // namespace
}  // namespace quarry::cluster
