// What is said of the store: the headline, computed from what could be lost now, and a sentence for each cause. And what can still be
// stored.
#include <gtest/gtest.h>

#include <thread>

#include "cluster/node/health.h"
#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

class HealthTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void pass(Duration time) { executor.run(sleep_for(time)); }
  std::string level() { return std::string(health_level_name(cluster->data().health().level())); }
  // The sentences of a cause.
  std::string told(std::string_view cause) {
    std::string text;
    for (const HealthProblem& problem : cluster->data().health().problems) {
      EXPECT_NE(std::ranges::find(kHealthCauses, problem.cause), std::end(kHealthCauses)) << "no metric for " << problem.cause;
      if (problem.cause == cause) text += problem.sentence + "\n";
    }
    return text;
  }
  std::string all() {
    std::string text;
    for (const HealthProblem& problem : cluster->data().health().problems) text += problem.sentence + "\n";
    return text;
  }
};

TEST_F(HealthTest, a_store_that_is_well_has_nothing_to_tell) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  ASSERT_TRUE(write(random_bytes(1, 500'000)));
  settle();
  EXPECT_EQ(level(), "healthy");
  EXPECT_EQ(all(), "");
}

TEST_F(HealthTest, the_headline_says_what_could_be_lost_now) {
  tuning.missing_grace = std::chrono::seconds(30);
  add_media(7);
  ASSERT_TRUE(create("ec:4+2"));
  const auto layout = write(random_bytes(1, 500'000));
  media[0]->gone = true;
  pass(std::chrono::seconds(3));
  EXPECT_EQ(level(), "degraded");
  EXPECT_NE(told("drive_away").find("drive 1 (mem0) is missing"), std::string::npos) << all();
  EXPECT_NE(told("redundancy").find("the loss of 1 more drive instead of 2"), std::string::npos) << all();
  pass(std::chrono::minutes(1));
  settle();
  EXPECT_EQ(level(), "healthy") << "everything was rebuilt elsewhere, also what only repair could know: " << all();
  EXPECT_NE(told("drive_away").find("no data depends on it"), std::string::npos) << all();
  for (size_t i = 1; i < 4; ++i) media[i]->gone = true;
  pass(std::chrono::seconds(3));
  EXPECT_EQ(level(), "unreadable") << all();
  EXPECT_NE(told("unreadable").find("cannot be read"), std::string::npos) << all();
  EXPECT_FALSE(read(*layout));
}

TEST_F(HealthTest, a_drive_that_takes_no_writes_any_more_is_not_green) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->read_only = true;
  pass(std::chrono::seconds(3));
  EXPECT_EQ(level(), "degraded");
  EXPECT_NE(told("drive_read_only").find("drive 2 (mem1) takes no writes any more: a write failed"), std::string::npos) << all();
  EXPECT_EQ(cluster->data().drives()[1].state, "read-only");
}

TEST_F(HealthTest, a_drive_that_is_nearly_full_slow_failing_or_shrunk_is_told) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  std::vector<DataLayout> written;
  for (int i = 0; i < 60; ++i) written.push_back(*write(random_bytes(i, 50'000), twice));
  settle();
  ASSERT_EQ(all(), "");

  media[0]->ballast = media[0]->capacity - media[0]->used() - kMiB;
  media[2]->fail_puts = 3;
  media[3]->capacity -= media[3]->capacity / 4;
  for (int round = 0; round < 4; ++round) {
    for (const DataLayout& layout : written) ASSERT_TRUE(read(layout));
    if (!write(random_bytes(static_cast<uint64_t>(1000 + round), 50'000), twice)) continue;  // two puts of it met the bad drive
  }
  for (uint32_t number = 1; number <= 4; ++number) {
    for (int i = 0; i < 1000; ++i)
      plane().plane().drives.find(number)->read_latency.observe(std::chrono::milliseconds(number == 2 ? 200 : 1));
  }
  pass(std::chrono::seconds(3));
  EXPECT_EQ(level(), "degraded");
  EXPECT_NE(told("drive_full").find("drive 1 (mem0) is nearly full"), std::string::npos) << all();
  EXPECT_NE(told("drive_slow").find("drive 2 (mem1) is by far slower"), std::string::npos) << all();
  EXPECT_NE(told("drive_errors").find("by order of the test"), std::string::npos) << all();
  EXPECT_NE(told("drive_shrunk").find("drive 4 (mem3) has shrunk from 256.0 MiB to 192.0 MiB"), std::string::npos) << all();
  pass(Drive::kTroubleLasts * 2);
  EXPECT_EQ(told("drive_errors"), "") << "it is long ago";
}

TEST_F(HealthTest, a_drive_that_is_slow_at_writes_alone_is_told_until_it_is_no_more) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  const auto write_some = [&](int seed) {
    for (int i = 0; i < 150; ++i) ASSERT_TRUE(write(random_bytes(static_cast<uint64_t>(seed + i), 20'000), twice));
    pass(std::chrono::seconds(3));
  };
  for (auto& medium : media) medium->put_delay = std::chrono::milliseconds(2);
  write_some(0);
  EXPECT_EQ(all(), "");
  media[1]->put_delay = std::chrono::milliseconds(200);
  for (int i = 1; i < 5; ++i) write_some(1000 * i);
  EXPECT_EQ(level(), "degraded");
  EXPECT_NE(told("drive_slow").find("drive 2 (mem1) is by far slower than the others at writes"), std::string::npos) << all();
  EXPECT_EQ(told("drive_slow").find("reads go around"), std::string::npos) << all();
  media[1]->put_delay = std::chrono::milliseconds(2);
  pass(std::chrono::minutes(1));
  EXPECT_NE(told("drive_slow"), "") << "nobody knows better yet";
  write_some(10'000);
  write_some(11'000);
  EXPECT_EQ(all(), "");
}

// Repair fills a new drive as fast as it can: that it answers late then says nothing of it.
TEST_F(HealthTest, a_drive_that_is_being_filled_is_not_called_slow) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  for (auto& medium : media) medium->put_delay = std::chrono::milliseconds(1);
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(write(random_bytes(i, 20'000), twice));
  ASSERT_TRUE(executor.run(cluster->data().add_drive("mem3", false)));
  media[3]->put_delay = std::chrono::milliseconds(200);
  settle();
  ASSERT_GT(media[3]->of_kind(ChunkKind::data).size(), LatencyStatistics::kSamplesMin);
  pass(std::chrono::seconds(3));
  EXPECT_EQ(told("drive_slow"), "");
}

TEST_F(HealthTest, a_drive_that_is_needed_and_fails_is_told) {
  add_media(2);
  ASSERT_TRUE(create("mirror:1"));
  media[1]->unhealthy = "the bucket directory cannot be read";
  pass(std::chrono::seconds(20));
  EXPECT_NE(told("drive_failing").find("drive 2 (mem1) is in use, but its health check failed"), std::string::npos) << all();
  media[1]->unhealthy.clear();
  pass(std::chrono::seconds(20));
  EXPECT_EQ(told("drive_failing"), "");
}

// Written until nothing more fits; what status promised before is what fitted.
class CapacityTest : public HealthTest {
 protected:
  void expect_true_to(const std::string& profile, uint64_t piece = 900'000) {
    ASSERT_TRUE(create(profile));
    pass(std::chrono::seconds(2));
    const auto told = static_cast<double>(cluster->data().space_status().usable_free_bytes);
    double stored = 0;
    int refused = 0;
    for (uint64_t i = 0; refused < 3; ++i) {
      const std::string bytes = random_bytes(i, piece);
      const auto layout = write(bytes);
      if (layout) stored += static_cast<double>(piece);
      if (!layout) {
        ++refused;
        pass(std::chrono::seconds(2));
      }
    }
    EXPECT_NEAR(told, stored, told / 8) << profile;
  }
};

TEST_F(CapacityTest, mixed_sizes_count_as_placement_uses_them) {
  add_media(3, 48 * kMiB);
  add_media(2, 160 * kMiB);
  expect_true_to("mirror:2");
}

TEST_F(CapacityTest, one_large_drive_among_small_ones_cannot_be_filled) {
  add_media(5, 64 * kMiB);
  add_media(1, 512 * kMiB);
  expect_true_to("ec:4+2");
}

TEST_F(CapacityTest, copies_and_slices) {
  add_media(5, 128 * kMiB);
  expect_true_to("whole:2+1");
}

TEST_F(CapacityTest, files_with_holes_have_the_space_below_them) {
  add_media(4, 1024 * kMiB);
  below = SpaceBelow{.file_system = "8:1", .free_bytes = 2000 * kMiB, .allocated_bytes = 0};
  ASSERT_TRUE(create("mirror:2"));
  for (int i = 0; i < 1000 && cluster->data().drives()[3].free_bytes > 500 * kMiB; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the look below is on a thread of its own
    pass(std::chrono::seconds(6));
  }
  const SpaceStatus space = cluster->data().space_status();
  EXPECT_LE(space.free_bytes, 2000 * kMiB);
  EXPECT_LE(space.usable_free_bytes, 1000 * kMiB);
  EXPECT_GT(space.usable_free_bytes, 400 * kMiB);
  EXPECT_LE(cluster->data().drives()[0].free_bytes, 500 * kMiB);
}

}  // namespace
}  // namespace quarry::cluster
