// The guard: what it takes out of use, what it leaves, and what is as it was afterwards. And what goes on while the map cannot be changed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "base/log.h"
#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

const Redundancy kTwice{RedundancyKind::mirror, 1, 1};

class DriveGuardTest : public ::testing::Test, protected ClusterHarness {
 protected:
  DriveStatus status(uint32_t number) {
    for (const DriveStatus& drive : cluster->data().drives()) {
      if (drive.number == number) return drive;
    }
    return {};
  }
  std::string states() {
    std::string all;
    for (const DriveStatus& drive : cluster->data().drives()) all += fmt::format("{} ", drive.state);
    return all;
  }
  void pass(Duration time) { executor.run(sleep_for(time)); }
  void freeze(bool frozen) {
    for (auto& medium : media) medium->freezes = frozen;
  }
  void expect_as_it_was() {
    for (const DriveStatus& drive : cluster->data().drives()) {
      EXPECT_EQ(drive.state, "active") << drive.number << ": " << drive.reason;
      EXPECT_EQ(drive.reason, "");
    }
    for (const auto& [number, known] : plane().plane().drives.topology()->map.drives) EXPECT_FALSE(known.disabled) << number;
  }
  static Task<void> note_close(size_t* closed, MemoryMedium::Call call) {
    *closed += call == MemoryMedium::Call::close;
    co_return;
  }
  static detail::Root thaw(std::shared_ptr<MemoryMedium> medium, Duration after) {
    co_await sleep_for(after);
    medium->freezes = false;
  }
  static Task<void> be_slow(MemoryMedium::Call call, Duration time) {
    if (call == MemoryMedium::Call::close) co_await sleep_for(time);
  }
  static detail::Root write_some(ClusterHarness* self, size_t* answered, std::vector<std::pair<DataLayout, std::string>>* kept, int seed) {
    const std::string bytes = random_bytes(static_cast<uint64_t>(seed), 50'000);
    Result<DataLayout> layout = co_await write_task(self, bytes, self->default_redundancy(), true, 300'000);
    ++*answered;
    if (layout) kept->emplace_back(*layout, bytes);
  }
};

// Log lines that are written while it lives.
class LogCount {
 public:
  LogCount() : file_(std::tmpfile()) { set_log_file_descriptor(fileno(file_)); }
  ~LogCount() {
    set_log_file_descriptor(STDERR_FILENO);
    std::fclose(file_);
  }
  size_t lines() const {
    std::rewind(file_);
    size_t count = 0;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) count += c == '\n';
    return count;
  }

 private:
  std::FILE* file_;
};

TEST_F(DriveGuardTest, a_node_that_stood_still_holds_it_against_no_drive) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  auto before = write(random_bytes(1, 500'000));
  ASSERT_TRUE(before);
  freeze(true);
  pass(std::chrono::seconds(6));  // checks of all drives are under way
  ASSERT_GT(plane().plane().drives.find(1)->oldest_call(), std::nullopt) << "no check met the standstill: nothing was tested";
  executor.stand_still(std::chrono::seconds(90));
  pass(std::chrono::seconds(2));  // the guard is quicker than the drives
  freeze(false);
  pass(std::chrono::milliseconds(1));
  EXPECT_EQ(states(), "active active active active active active ");
  pass(std::chrono::seconds(5));
  expect_as_it_was();
  EXPECT_EQ(*read(*before), random_bytes(1, 500'000));
}

TEST_F(DriveGuardTest, a_node_that_stood_still_gives_up_no_drive_for_being_away_meanwhile) {
  tuning.missing_grace = std::chrono::seconds(30);
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[0]->gone = true;
  pass(std::chrono::seconds(3));
  executor.stand_still(std::chrono::seconds(90));
  pass(std::chrono::seconds(5));
  EXPECT_EQ(status(1).state, "missing");
  pass(std::chrono::seconds(40));
  EXPECT_EQ(status(1).state, "failed");
}

TEST_F(DriveGuardTest, a_file_system_below_all_drives_that_freezes_costs_no_read_and_no_command) {
  tuning.missing_grace = std::chrono::seconds(30);
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  const auto striped = write(random_bytes(1, 500'000));
  const auto mirrored = write(random_bytes(2, 50'000));
  ASSERT_TRUE(striped && mirrored);
  size_t answered = 0;
  std::vector<std::pair<DataLayout, std::string>> kept;
  freeze(true);
  for (int i = 0; i < 8; ++i) write_some(this, &answered, &kept, i);
  for (int second = 0; second < 45; ++second) {
    pass(std::chrono::seconds(1));
    ASSERT_EQ(*read(*striped), random_bytes(1, 500'000)) << second;
    ASSERT_EQ(*read(*mirrored), random_bytes(2, 50'000)) << second;
  }
  EXPECT_NE(states().find("missing"), std::string::npos) << "the guard saw no drive that hangs: nothing was tested";
  freeze(false);
  pass(std::chrono::seconds(10));
  EXPECT_EQ(answered, 8u);
  expect_as_it_was();
  ASSERT_TRUE(write(random_bytes(3, 500'000)));
  for (const auto& [layout, bytes] : kept) EXPECT_EQ(*read(layout), bytes);
  settle();
  EXPECT_EQ(fsck(), "");
}

TEST_F(DriveGuardTest, drives_that_hang_for_minutes_are_lost_and_come_back_by_themselves) {
  tuning.missing_grace = std::chrono::seconds(30);
  add_media(6);
  ASSERT_TRUE(create("mirror:3"));
  std::vector<std::pair<DataLayout, std::string>> kept;
  size_t answered = 0;
  for (int i = 0; i < 10; ++i) write_some(this, &answered, &kept, i);
  pass(std::chrono::seconds(1));
  media[2]->hangs = media[4]->hangs = true;
  pass(std::chrono::minutes(3));
  EXPECT_EQ(status(3).state, "failed") << states();
  EXPECT_NE(status(3).reason.find("hangs"), std::string::npos) << status(3).reason;
  for (const auto& [layout, bytes] : kept) EXPECT_EQ(*read(layout), bytes);
  media[2]->hangs = media[4]->hangs = false;
  pass(std::chrono::seconds(5));
  expect_as_it_was();
  for (int i = 0; i < 3; ++i) {
    pass(std::chrono::minutes(11));
    settle();
  }
  EXPECT_EQ(fsck(), "");
  for (const auto& [layout, bytes] : kept) EXPECT_EQ(*read(layout), bytes);
}

TEST_F(DriveGuardTest, drives_that_all_fail_their_checks_stay_in_use_where_data_needs_them) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  std::vector<DataLayout> written;
  for (int i = 0; i < 20; ++i) written.push_back(*write(random_bytes(i, 50'000), kTwice));
  for (auto& medium : media) medium->unhealthy = "the file system is read-only";
  pass(std::chrono::minutes(5));
  size_t disabled = 0;
  for (uint32_t number = 1; number <= 3; ++number) disabled += status(number).state == "disabled";
  EXPECT_EQ(disabled, 1u) << states();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(*read(written[static_cast<size_t>(i)]), random_bytes(i, 50'000));
}

TEST_F(DriveGuardTest, a_node_whose_drives_all_hang_ends_all_the_same) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  size_t answered = 0;
  std::vector<std::pair<DataLayout, std::string>> kept;
  for (auto& medium : media) medium->hangs = true;
  for (int i = 0; i < 8; ++i) write_some(this, &answered, &kept, i);
  pass(std::chrono::minutes(2));
  const TimePoint began = executor.now();
  cluster->begin_close();
  pass(std::chrono::seconds(1));
  EXPECT_EQ(answered, 8u) << "requests wait for drives that hang";
  EXPECT_FALSE(executor.run(cluster->close()));
  EXPECT_LT(executor.now() - began, std::chrono::seconds(60));
  EXPECT_TRUE(cluster->hangs());
  for (auto& medium : media) medium->hangs = false;
  pass(std::chrono::seconds(1));
  EXPECT_FALSE(cluster->hangs());
}

// It has been silent for a moment only: a node that runs would go on waiting for it.
TEST_F(DriveGuardTest, a_node_that_ends_does_not_wait_long_for_a_drive_that_hangs_and_closes_the_others) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  std::vector<std::pair<DataLayout, std::string>> kept;
  size_t answered = 0;
  for (int i = 0; i < 8; ++i) write_some(this, &answered, &kept, i);
  pass(std::chrono::seconds(1));
  ASSERT_EQ(answered, 8u);
  size_t closed = 0;
  for (size_t i : {0, 2, 3}) {
    media[i]->on_call = [&closed](MemoryMedium::Call call, ChunkId) { return note_close(&closed, call); };
  }
  media[1]->hangs = true;
  for (int i = 8; i < 16; ++i) write_some(this, &answered, &kept, i);
  pass(std::chrono::milliseconds(500));
  ASSERT_LT(answered, 16u) << "no write met the drive: nothing was tested";
  const TimePoint began = executor.now();
  cluster->begin_close();
  pass(std::chrono::seconds(7));
  EXPECT_EQ(answered, 16u) << "requests wait for the drive";
  EXPECT_FALSE(executor.run(cluster->close()));
  EXPECT_LT(executor.now() - began, std::chrono::seconds(10));
  EXPECT_TRUE(cluster->hangs());
  EXPECT_EQ(closed, 3u);
  for (auto& medium : media) medium->on_call = nullptr;
  media[1]->hangs = false;
  pass(std::chrono::seconds(1));
  cluster.reset();
  ASSERT_TRUE(open());
  for (const auto& [layout, bytes] : kept) EXPECT_EQ(*read(layout), bytes);
}

// A check of a drive that was out of use is under way just now; nothing is wrong with it any more.
TEST_F(DriveGuardTest, a_node_that_ends_closes_a_drive_that_hung_before_and_is_being_checked) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->hangs = true;
  pass(std::chrono::seconds(45));
  Drive& drive = *plane().plane().drives.find(2);
  ASSERT_TRUE(drive.suspended() && drive.hangs());
  media[1]->hangs = false;
  while (drive.hangs()) pass(std::chrono::milliseconds(1));
  ASSERT_TRUE(drive.suspended()) << "it is used again already: nothing was tested";
  media[1]->freezes = true;
  while (!drive.oldest_call()) pass(std::chrono::milliseconds(1));
  thaw(media[1], std::chrono::milliseconds(100));
  EXPECT_TRUE(executor.run(cluster->close()));
  EXPECT_FALSE(cluster->hangs());
  EXPECT_EQ(media[1]->holders, 0u);
}

// Slow is not silent: closing it takes as long as it takes.
TEST_F(DriveGuardTest, a_node_that_ends_closes_a_drive_that_takes_its_time) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->on_call = [](MemoryMedium::Call call, ChunkId) { return be_slow(call, std::chrono::seconds(20)); };
  EXPECT_TRUE(executor.run(cluster->close()));
  EXPECT_FALSE(cluster->hangs());
}

// All that is asked of the drives takes long here, and took long before.
TEST_F(DriveGuardTest, a_node_that_ends_on_a_slow_machine_takes_no_drive_for_one_that_hangs) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  for (auto& medium : media) medium->check_time = std::chrono::seconds(2);
  pass(std::chrono::seconds(20));
  for (auto& medium : media) medium->check_time = std::chrono::seconds(9);
  pass(std::chrono::seconds(3));  // those that began before have ended
  while (!plane().plane().drives.find(1)->oldest_call()) pass(std::chrono::milliseconds(10));
  EXPECT_TRUE(executor.run(cluster->close()));
  EXPECT_FALSE(cluster->hangs());
}

TEST_F(DriveGuardTest, a_drive_that_hangs_while_it_is_closed_is_left) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->on_call = [](MemoryMedium::Call call, ChunkId) { return be_slow(call, std::chrono::minutes(10)); };
  const TimePoint began = executor.now();
  EXPECT_FALSE(executor.run(cluster->close()));
  EXPECT_LT(executor.now() - began, std::chrono::minutes(1));
  EXPECT_TRUE(cluster->hangs());
  pass(std::chrono::minutes(10));
  EXPECT_FALSE(cluster->hangs());
}

TEST_F(DriveGuardTest, a_map_that_cannot_be_changed_is_tried_ever_less_often_and_costs_few_words) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  meta_store->set_faults({.unavailable_probability = 1});
  media[1]->unhealthy = "the file system is read-only";
  for (auto& medium : media) medium->fail_puts = UINT64_MAX;
  LogCount log;
  pass(std::chrono::minutes(1));
  EXPECT_EQ(status(2).state, "missing") << "it is not used, although that could not be written down";
  EXPECT_LT(log.lines(), 30u);
  const size_t lines = log.lines();
  EXPECT_GT(lines, 0u);
  pass(std::chrono::minutes(10));
  EXPECT_LT(log.lines() - lines, 60u);
  for (auto& medium : media) medium->fail_puts = 0;
  meta_store->set_faults({});
  pass(std::chrono::minutes(1));
  EXPECT_EQ(status(2).state, "disabled");
}

TEST_F(DriveGuardTest, enabling_says_what_failed_and_leaves_the_drive_as_it_was) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  meta_store->set_faults({.unavailable_probability = 1});
  media[1]->unhealthy = "the file system is read-only";
  pass(std::chrono::seconds(20));
  ASSERT_EQ(status(2).state, "missing");  // disabled, which could not be written down
  media[1]->unhealthy.clear();
  const auto refused = executor.run(cluster->data().enable_drive(2));
  ASSERT_FALSE(refused) << "it says enabled, and is " << status(2).state;
  EXPECT_NE(refused.error().to_string().find("stays out of use"), std::string::npos) << refused.error().to_string();
  EXPECT_EQ(status(2).state, "missing");
  meta_store->set_faults({});
  pass(std::chrono::minutes(1));
  EXPECT_EQ(status(2).state, "disabled");
  meta_store->set_faults({.unavailable_probability = 1});
  EXPECT_FALSE(executor.run(cluster->data().enable_drive(2)));
  EXPECT_EQ(status(2).state, "disabled");
  EXPECT_FALSE(plane().plane().drives.find(2)->readable()) << "half enabled";
  meta_store->set_faults({});
  pass(std::chrono::minutes(1));
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  expect_as_it_was();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(write(random_bytes(i, 50'000), kTwice));
  settle();
  EXPECT_EQ(fsck(), "");
}

TEST_F(DriveGuardTest, a_drive_that_is_in_use_and_does_not_work_is_not_said_to_be_enabled) {
  add_media(2);
  ASSERT_TRUE(create("mirror:1"));
  media[1]->unhealthy = "the file system is read-only";
  pass(std::chrono::seconds(20));
  const auto enabled = executor.run(cluster->data().enable_drive(2));
  ASSERT_FALSE(enabled);
  EXPECT_NE(enabled.error().to_string().find("read-only"), std::string::npos);
}

TEST_F(DriveGuardTest, what_could_not_be_added_is_not_there_and_can_be_added_again) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  for (const bool replace : {false, true}) {
    const auto ask = [&] {
      return replace ? executor.run(cluster->data().replace_drive(1, "mem4", false))
                     : executor.run(cluster->data().add_drive("mem3", false));
    };
    const size_t drives = cluster->data().drives().size();
    meta_store->set_faults({.unavailable_probability = 1});
    const auto refused = ask();
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().to_string().find("was not added"), std::string::npos) << refused.error().to_string();
    meta_store->set_faults({});
    EXPECT_EQ(cluster->data().drives().size(), drives);
    EXPECT_EQ(status(1).state, "active");
    crash();
    ASSERT_TRUE(open());
    EXPECT_EQ(cluster->data().drives().size(), drives) << "the next start did what was refused";
    ASSERT_TRUE(ask());
    EXPECT_EQ(cluster->data().drives().size(), drives + 1);
    EXPECT_NE(status(1).state, replace ? "active" : "removed");
    settle();
    EXPECT_EQ(fsck(), "");
  }
}

}  // namespace
}  // namespace quarry::cluster
