// Drives that are full, disabled, failing their health check, or opened again.
#include <gtest/gtest.h>

#include "cluster/stripes/group_choice.h"
#include "cluster/testing/cluster_harness.h"
#include "cluster/testing/stack_harness.h"

namespace quarry::cluster {
namespace {

class DriveStatesTest : public ::testing::Test, protected ClusterHarness {
 protected:
  std::string state(uint32_t number) {
    for (const DriveStatus& drive : cluster->data().drives()) {
      if (drive.number == number) return drive.state;
    }
    return "?";
  }
  std::string reason(uint32_t number) {
    for (const DriveStatus& drive : cluster->data().drives()) {
      if (drive.number == number) return drive.reason;
    }
    return "?";
  }
  void pass(Duration time) { executor.run(sleep_for(time)); }
  // Bytes that belong to nobody, so that it is full.
  void fill(size_t medium, uint64_t leave) {
    auto& m = *media[medium];
    m.ballast += m.capacity - m.used() - leave;
    pass(std::chrono::seconds(2));  // the look notices
  }
};

TEST_F(DriveStatesTest, one_full_drive_does_not_stop_writes_while_others_have_room) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  fill(2, kMiB);
  for (int i = 0; i < 100; ++i) {
    const std::string bytes = random_bytes(i, 100'000);
    auto layout = write(bytes, {RedundancyKind::mirror, 1, 1});
    ASSERT_TRUE(layout) << i << " " << layout.error().to_string();
    EXPECT_EQ(*read(*layout), bytes);
  }
  EXPECT_EQ(media[2]->of_kind(ChunkKind::data).size(), 0u);
  settle();
  EXPECT_EQ(fsck(), "");  // no write lacks a shard
}

TEST_F(DriveStatesTest, a_write_that_finds_a_drive_full_begins_again_where_room_is) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  unsigned again = 0;
  for (int i = 0; i < 40; ++i) {
    auto& full = *media[static_cast<size_t>(i) % 4];
    const uint64_t taken = full.capacity - full.used(), puts = full.puts;
    full.ballast += taken;  // nobody knows yet
    const std::string bytes = random_bytes(i, 40'000);
    auto layout = write(bytes, twice);
    ASSERT_TRUE(layout) << i << " " << layout.error().to_string();
    EXPECT_EQ(*read(*layout), bytes);
    again += full.puts > puts;
    full.ballast -= taken;
    pass(std::chrono::seconds(2));
  }
  EXPECT_GT(again, 5u) << "no write met the full drive: nothing was tested";
  settle();
  EXPECT_EQ(fsck(), "");  // what was begun is gone, and no write lacks a shard
}

TEST_F(DriveStatesTest, a_write_of_many_stripes_that_finds_a_drive_full_is_to_be_asked_again) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  unsigned refused = 0;
  for (int i = 0; i < 20; ++i) {
    auto& full = *media[static_cast<size_t>(i) % 4];
    const uint64_t taken = full.capacity - full.used();
    full.ballast += taken;
    const std::string bytes = random_bytes(i, 1'000'000);
    auto layout = write(bytes, twice);
    if (!layout) {
      ++refused;
      EXPECT_EQ(layout.error().code(), Code::overloaded) << layout.error().to_string();
      layout = write(bytes, twice);  // as a client does
    }
    ASSERT_TRUE(layout) << i << " " << layout.error().to_string();
    EXPECT_EQ(*read(*layout), bytes);
    full.ballast -= taken;
    ASSERT_TRUE(retire(*layout));
    pass(std::chrono::seconds(10));
  }
  EXPECT_GT(refused, 0u) << "no write met the full drive: nothing was tested";
  settle();
  EXPECT_EQ(fsck(), "");
}

TEST_F(DriveStatesTest, stripes_over_all_drives_get_narrower_and_keep_their_protection) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(0, kMiB);
  const std::string bytes = random_bytes(1, 3'000'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout) << layout.error().to_string();
  EXPECT_EQ(layout->redundancy.m, 2);
  EXPECT_EQ(layout->redundancy.width(), 5u);
  EXPECT_EQ(*read(*layout), bytes);
  auto small = write(random_bytes(2, 1000));
  ASSERT_TRUE(small);
  EXPECT_EQ(small->redundancy.to_string(), "mirror:3");
  media[1]->gone = media[2]->gone = true;
  EXPECT_EQ(*read(*layout), bytes);
}

TEST_F(DriveStatesTest, with_every_drive_full_the_answer_is_no_space) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  for (size_t i = 0; i < 3; ++i) fill(i, 0);
  auto layout = write(random_bytes(1, 100'000), {RedundancyKind::mirror, 1, 1});
  ASSERT_FALSE(layout);
  EXPECT_EQ(layout.error().code(), Code::no_space);
}

TEST_F(DriveStatesTest, with_every_drive_full_and_nobody_knowing_the_answer_is_no_space) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  for (auto& medium : media) medium->ballast += medium->capacity - medium->used();
  for (const size_t size : {10'000, 1'000'000}) {
    auto layout = write(random_bytes(1, size), {RedundancyKind::mirror, 1, 1});
    ASSERT_FALSE(layout);
    EXPECT_EQ(layout.error().code(), Code::no_space) << size << " " << layout.error().to_string();
  }
}

TEST_F(DriveStatesTest, refusals_to_disable_say_what_is_the_matter) {
  add_media(2);
  ASSERT_TRUE(create("mirror:1"));
  const auto alone = executor.run(cluster->data().disable_drive(1, "", false));
  ASSERT_FALSE(alone);
  EXPECT_NE(alone.error().to_string().find("drain"), std::string::npos) << alone.error().to_string();
  EXPECT_EQ(alone.error().to_string().find("bring back"), std::string::npos) << alone.error().to_string();
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(2, "", true)));
  const auto last = executor.run(cluster->data().disable_drive(1, "", false));
  ASSERT_FALSE(last);
  EXPECT_NE(last.error().to_string().find("drive 2 is away already; bring back"), std::string::npos) << last.error().to_string();
  const auto nobody = executor.run(cluster->data().disable_drive(9, "", false));
  ASSERT_FALSE(nobody);
  EXPECT_NE(nobody.error().to_string().find("no drive 9"), std::string::npos);
}

TEST_F(DriveStatesTest, a_disabled_drive_is_not_used_and_catches_up_when_it_is_enabled) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  std::vector<std::pair<DataLayout, std::string>> written;
  for (int i = 0; i < 20; ++i) {
    const std::string bytes = random_bytes(i, 50'000);
    written.emplace_back(*write(bytes, twice), bytes);
  }
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(2, "maintenance", false)));
  EXPECT_EQ(state(2), "disabled");
  EXPECT_EQ(reason(2), "disabled: maintenance");
  const uint64_t puts = media[1]->puts, gets = media[1]->gets;
  for (int i = 20; i < 40; ++i) {
    const std::string bytes = random_bytes(i, 50'000);
    auto layout = write(bytes, twice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    written.emplace_back(*layout, bytes);
  }
  for (const auto& [layout, bytes] : written) EXPECT_EQ(*read(layout), bytes);
  ASSERT_TRUE(retire(written[0].first));
  EXPECT_EQ(media[1]->puts, puts);
  EXPECT_EQ(media[1]->gets, gets);
  EXPECT_FALSE(executor.run(cluster->data().disable_drive(1, "", false)));  // the other copies would be away
  // It stays disabled over a restart.
  ASSERT_TRUE(open());
  EXPECT_EQ(state(2), "disabled");
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  EXPECT_EQ(state(2), "active");
  EXPECT_EQ(reason(2), "");
  settle();
  EXPECT_EQ(fsck(), "");
  media[0]->gone = true;
  for (size_t i = 1; i < written.size(); ++i) EXPECT_EQ(*read(written[i].first), written[i].second) << i;
}

TEST_F(DriveStatesTest, repair_of_a_disabled_drive_begins_after_the_grace) {
  tuning.missing_grace = std::chrono::seconds(30);
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  std::vector<DataLayout> written;
  for (int i = 0; i < 20; ++i) written.push_back(*write(random_bytes(i, 50'000), {RedundancyKind::mirror, 1, 1}));
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(3, "", false)));
  pass(std::chrono::seconds(20));
  EXPECT_EQ(plane().plane().drives.topology()->map.drives.at(3).state, DriveState::active);
  EXPECT_EQ(cluster->data().repair_status().repaired_writes, 0u);
  pass(std::chrono::seconds(40));
  EXPECT_EQ(plane().plane().drives.topology()->map.drives.at(3).state, DriveState::failed);
  EXPECT_EQ(state(3), "disabled");
  settle();
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(3)));
  EXPECT_EQ(state(3), "active");
  for (int i = 0; i < 5; ++i) {
    pass(std::chrono::minutes(11));
    settle();
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(*read(written[i]), random_bytes(i, 50'000));
  EXPECT_EQ(fsck(), "");
}

TEST_F(DriveStatesTest, a_path_that_fails_its_health_check_is_disabled_until_it_is_enabled) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->unhealthy = "the file system is read-only";
  pass(std::chrono::seconds(12));
  EXPECT_EQ(state(2), "disabled");
  EXPECT_NE(reason(2).find("the file system is read-only"), std::string::npos) << reason(2);
  auto early = executor.run(cluster->data().enable_drive(2));
  ASSERT_FALSE(early);
  EXPECT_NE(early.error().to_string().find("the file system is read-only"), std::string::npos) << early.error().to_string();
  EXPECT_EQ(state(2), "disabled");
  media[1]->unhealthy.clear();
  pass(std::chrono::seconds(20));
  EXPECT_EQ(state(2), "disabled");  // an operator decides
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  EXPECT_EQ(state(2), "active");
}

TEST_F(DriveStatesTest, a_drive_that_vanished_and_is_back_is_opened_again) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  auto before = write(random_bytes(1, 200'000), twice);
  media[0]->gone = true;
  pass(std::chrono::seconds(2));  // the look notices
  auto meanwhile = write(random_bytes(2, 200'000), twice);
  ASSERT_TRUE(meanwhile) << meanwhile.error().to_string();
  pass(std::chrono::seconds(3));
  EXPECT_EQ(state(1), "missing");
  auto early = executor.run(cluster->data().enable_drive(1));
  ASSERT_FALSE(early);
  EXPECT_NE(early.error().to_string().find("device replace"), std::string::npos) << early.error().to_string();
  media[0]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(1)));
  EXPECT_EQ(state(1), "active");
  settle();
  EXPECT_EQ(fsck(), "");
  EXPECT_EQ(*read(*before), random_bytes(1, 200'000));
  EXPECT_EQ(*read(*meanwhile), random_bytes(2, 200'000));
}

// Looking for a drive takes a while; an operator may come first.
TEST_F(DriveStatesTest, a_drive_that_was_disabled_while_it_was_looked_for_is_not_taken_back_by_itself) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[0]->gone = true;
  pass(std::chrono::seconds(3));
  EXPECT_EQ(state(1), "missing");
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(1, "on the bench", true)));
  media[0]->gone = false;
  const auto taken = executor.run(cluster->data().take_back_drive(1, "elsewhere/mem0"));
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), Code::precondition_failed) << taken.error().to_string();
  EXPECT_EQ(state(1), "disabled");
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(1)));
  EXPECT_EQ(state(1), "active");
  media[1]->gone = true;
  pass(std::chrono::seconds(3));
  EXPECT_EQ(state(2), "missing");
  media[1]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().take_back_drive(2, "elsewhere/mem1")));
  EXPECT_EQ(state(2), "active");
  EXPECT_EQ(executor.run(cluster->data().take_back_drive(9, "mem9")).error().code(), Code::not_found);
}

// Disabled, its store is closed behind the answer; who adds it again at once finds it open.
class ClosingDriveTest : public DriveStatesTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(ClosingDriveTest, is_waited_for_when_it_is_added_again) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media_have_locks = true;
  bool closing = false, go = false, done = false;
  media[0]->on_call = [&](MemoryMedium::Call call, ChunkId) -> Task<void> {
    return [](MemoryMedium::Call now, bool* seen, const bool* on) -> Task<void> {
      if (now != MemoryMedium::Call::close) co_return;
      *seen = true;
      while (!*on) co_await sleep_for(std::chrono::milliseconds(10));
    }(call, &closing, &go);
  };
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(1, "out", true)));
  pass(std::chrono::seconds(2));
  ASSERT_TRUE(closing) << "it is not being closed: nothing was tested";
  const auto add = [](DataPlane* data, std::string path, const bool* closed, bool* added, bool* go_on) -> Task<void> {
    TaskGroup group;
    Result<void> result;
    group.spawn([](DataPlane* plane, std::string where, Result<void>* out, bool* end) -> Task<void> {
      *out = co_await plane->add_drive(std::move(where), false);
      *end = true;
    }(data, std::move(path), &result, added));
    co_await sleep_for(std::chrono::seconds(1));
    EXPECT_TRUE(*closed && !*added) << "they did not meet";
    *go_on = true;
    co_await group.join();
    EXPECT_TRUE(result) << result.error().to_string();
  };
  executor.run(add(&cluster->data(), GetParam(), &closing, &done, &go));
  media[0]->on_call = nullptr;
  EXPECT_EQ(state(1), "active");
  EXPECT_EQ(cluster->data().drives().size(), 4u);
}

INSTANTIATE_TEST_SUITE_P(Paths, ClosingDriveTest, ::testing::Values("mem0", "elsewhere/mem0"));

TEST_F(DriveStatesTest, a_drive_that_is_at_another_path_now_is_taken_back_by_its_identity) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  auto before = write(random_bytes(1, 200'000), {RedundancyKind::mirror, 1, 1});
  media[0]->gone = true;
  pass(std::chrono::seconds(3));
  EXPECT_EQ(state(1), "missing");
  media[0]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().add_drive("elsewhere/mem0", false)));
  EXPECT_EQ(state(1), "active");
  EXPECT_EQ(cluster->data().drives().size(), 3u);
  EXPECT_EQ(cluster->data().drives()[0].path, "elsewhere/mem0");
  EXPECT_EQ(executor.run(cluster->data().add_drive("elsewhere/mem0", false)).error().code(), Code::already_exists) << "it is in use";
  settle();
  EXPECT_EQ(fsck(), "");
  EXPECT_EQ(*read(*before), random_bytes(1, 200'000));
}

TEST_F(DriveStatesTest, a_drive_that_was_replaced_while_it_was_away_is_not_taken_as_a_new_one) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  auto before = write(random_bytes(1, 200'000), {RedundancyKind::mirror, 1, 1});
  media[0]->gone = true;
  pass(std::chrono::seconds(3));
  ASSERT_TRUE(executor.run(cluster->data().replace_drive(1, "new", false)));
  media[0]->gone = false;
  for (const char* when : {"while its data is rebuilt", "when it was removed"}) {
    const auto added = executor.run(cluster->data().add_drive("mem0", false));
    EXPECT_EQ(added.error().code(), Code::already_exists) << when;
    EXPECT_NE(added.error().context().find("`quarry device add --force mem0`"), std::string::npos) << added.error().context();
    settle();
    pass(std::chrono::seconds(3));
  }
  EXPECT_EQ(state(1), "removed");
  EXPECT_EQ(cluster->data().drives().size(), 4u);
  EXPECT_EQ(fsck(), "");
  EXPECT_EQ(*read(*before), random_bytes(1, 200'000));
}

// Puts, reads and checks do not come back. The parts of a put are looked at when it does: the memory must still be there.
// It was still being emptied when it went away.
TEST_F(DriveStatesTest, a_drive_that_vanishes_while_it_is_replaced_does_not_come_back_by_itself) {
  add_media(4);
  tuning.missing_grace = std::chrono::seconds(10);
  tuning.repair_bytes_per_second = 20'000;
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  std::vector<DataLayout> layouts;
  for (int i = 0; i < 20; ++i) {
    auto layout = write(random_bytes(i, 50'000), twice);
    ASSERT_TRUE(layout);
    layouts.push_back(*layout);
  }
  ASSERT_TRUE(executor.run(cluster->data().replace_drive(1, "mem4", false)));
  media[0]->gone = true;
  pass(std::chrono::seconds(2));
  ASSERT_EQ(state(1), "missing") << "it was empty already: nothing was tested";
  pass(std::chrono::minutes(5));
  settle();
  pass(std::chrono::minutes(1));
  EXPECT_EQ(state(1), "removed") << reason(1);
  media[0]->gone = false;
  pass(std::chrono::minutes(5));
  EXPECT_EQ(state(1), "removed") << reason(1);
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(state(1), "removed") << reason(1);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(*read(layouts[static_cast<size_t>(i)]), random_bytes(i, 50'000));
  EXPECT_EQ(fsck(), "");
}

TEST_F(DriveStatesTest, a_drive_that_hangs_is_given_up_and_the_others_go_on) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  std::vector<std::pair<DataLayout, std::string>> written;
  const auto write_some = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      const std::string bytes = random_bytes(i, 50'000);
      auto layout = write(bytes, twice);
      if (layout) written.emplace_back(*layout, bytes);
    }
  };
  write_some(0, 20);
  media[1]->hangs = true;
  const TimePoint began = executor.now();
  write_some(20, 60);
  EXPECT_LT(executor.now() - began, std::chrono::seconds(40));
  EXPECT_GT(written.size(), 55u);  // what was on its way to two drives when one was given up may fail
  pass(std::chrono::seconds(2));
  EXPECT_EQ(state(2), "missing");
  EXPECT_NE(reason(2).find("hangs"), std::string::npos) << reason(2);
  const TimePoint later = executor.now();
  write_some(60, 80);
  for (const auto& [layout, bytes] : written) EXPECT_EQ(*read(layout), bytes);
  EXPECT_LT(executor.now() - later, std::chrono::seconds(5));
  EXPECT_TRUE(cluster->hangs());
  auto early = executor.run(cluster->data().enable_drive(2));
  ASSERT_FALSE(early);
  EXPECT_NE(early.error().to_string().find("still hangs"), std::string::npos) << early.error().to_string();
  media[1]->hangs = false;
  pass(std::chrono::seconds(2));
  EXPECT_FALSE(cluster->hangs());
  EXPECT_EQ(state(2), "active") << "it is used again without a command";
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  settle();
  EXPECT_EQ(fsck(), "");
  for (const auto& [layout, bytes] : written) EXPECT_EQ(*read(layout), bytes);
  EXPECT_GT(written.size(), 75u);
}

TEST_F(DriveStatesTest, a_drive_that_hangs_does_not_keep_the_store_from_closing) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
  auto before = write(random_bytes(1, 50'000), twice);
  media[1]->hangs = true;
  pass(std::chrono::seconds(6));  // a check is under way
  const TimePoint began = executor.now();
  EXPECT_FALSE(executor.run(cluster->close()));
  EXPECT_LT(executor.now() - began, std::chrono::seconds(10));
  EXPECT_TRUE(cluster->hangs());
  media[1]->hangs = false;
  pass(std::chrono::seconds(1));
  EXPECT_FALSE(cluster->hangs());
  cluster.reset();
  ASSERT_TRUE(open());
  EXPECT_EQ(*read(*before), random_bytes(1, 50'000));
}

// A store that refused a write goes on refusing: only opened anew it takes some again.
TEST_F(DriveStatesTest, a_drive_that_refused_writes_is_opened_anew_when_it_is_enabled) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->read_only = true;
  pass(std::chrono::seconds(2));
  media[1]->read_only = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  EXPECT_EQ(state(2), "active");
  EXPECT_EQ(reason(2), "");
  const uint64_t puts = media[1]->puts;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(write(random_bytes(i, 50'000), {RedundancyKind::mirror, 1, 1}));
  EXPECT_GT(media[1]->puts, puts);
}

TEST_F(DriveStatesTest, a_drive_that_is_away_says_why_now_and_not_why_it_was_drained) {
  add_media(4);
  tuning.missing_grace = std::chrono::seconds(10);
  ASSERT_TRUE(create("mirror:2"));
  media[1]->read_only = true;
  pass(std::chrono::minutes(1));
  ASSERT_EQ(state(2), "draining");
  EXPECT_NE(reason(2).find("refuses writes"), std::string::npos) << reason(2);
  media[1]->gone = true;
  pass(std::chrono::seconds(5));
  ASSERT_EQ(state(2), "missing");
  EXPECT_NE(reason(2).find("gone"), std::string::npos) << reason(2);
}

TEST_F(DriveStatesTest, a_disabled_drive_is_closed_so_that_its_file_system_can_be_unmounted) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(2, "", false)));
  pass(std::chrono::seconds(3));
  EXPECT_TRUE(plane().plane().drives.find(2)->closed());
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  EXPECT_FALSE(plane().plane().drives.find(2)->closed());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(write(random_bytes(i, 50'000), {RedundancyKind::mirror, 1, 1}));
  settle();
  EXPECT_EQ(fsck(), "");
}

TEST(GroupChoice, narrower_layouts_keep_the_number_of_losses) {
  std::vector<std::string> seen;
  std::optional<Redundancy> next = Redundancy{RedundancyKind::erasure, 4, 2};
  for (; next; next = narrower(*next)) seen.push_back(next->to_string());
  EXPECT_EQ(seen, (std::vector<std::string>{"ec:4+2", "ec:3+2", "ec:2+2", "mirror:3"}));
  EXPECT_FALSE(narrower({RedundancyKind::mirror, 1, 1}));
}

TEST_F(DriveStatesTest, drives_on_one_file_system_have_its_space_once) {
  add_media(3);
  media[0]->file_system = media[1]->file_system = "8:1";
  media[2]->file_system = "8:17";
  ASSERT_TRUE(create("mirror:2"));
  pass(std::chrono::seconds(2));
  const uint64_t capacity = media[0]->capacity;
  SpaceStatus space = cluster->data().space_status();
  EXPECT_EQ(space.raw_bytes, 2 * capacity);
  EXPECT_LE(space.free_bytes, 2 * capacity);
  EXPECT_LE(space.usable_free_bytes, capacity);
  EXPECT_GT(space.usable_free_bytes, capacity / 4);
  ASSERT_EQ(shared_file_systems(cluster->data().drives()).size(), 1u);
  EXPECT_TRUE(shared_file_systems(cluster->data().drives())[0].starts_with("drives 1, 2 are on one file system"));

  new_media_file_system = "8:17";
  ASSERT_TRUE(executor.run(cluster->data().add_drive("more", false)));
  pass(std::chrono::seconds(2));
  EXPECT_EQ(cluster->data().space_status().raw_bytes, 2 * capacity);
  EXPECT_EQ(shared_file_systems(cluster->data().drives()).size(), 2u);
  ASSERT_TRUE(executor.run(cluster->data().remove_drive(2, true)));
  settle();
  EXPECT_EQ(shared_file_systems(cluster->data().drives()).size(), 1u) << "drive 1 is alone";
  crash();
  ASSERT_TRUE(open());
  pass(std::chrono::seconds(2));
  EXPECT_EQ(cluster->data().space_status().raw_bytes, 2 * capacity) << "also after a start";
  EXPECT_EQ(fsck(), "");
}

// What it holds is needed until it was moved, and it may be disabled, or away, meanwhile.
TEST_F(DriveStatesTest, a_drive_that_is_replaced_is_of_use_until_it_is_empty) {
  add_media(3);
  ASSERT_TRUE(create("mirror:2"));
  const Redundancy once{RedundancyKind::mirror, 1, 0};
  std::vector<DataLayout> written;
  for (int i = 0; i < 30; ++i) written.push_back(*write(random_bytes(i, 20'000), once));
  settle();
  ASSERT_FALSE(media[1]->of_kind(ChunkKind::data).empty());
  ASSERT_TRUE(executor.run(cluster->data().replace_drive(2, "mem3", false)));
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(2, "a test", true)));
  ASSERT_FALSE(media[1]->of_kind(ChunkKind::data).empty()) << "it was moved already: nothing was tested";
  auto enabled = executor.run(cluster->data().enable_drive(2));
  ASSERT_TRUE(enabled) << enabled.error().to_string();
  EXPECT_EQ(cluster->data().drives()[1].reason, "replaced by drive 4");
  pass(std::chrono::minutes(2));
  for (int i = 0; i < 30; ++i) EXPECT_EQ(*read(written[static_cast<size_t>(i)]), random_bytes(i, 20'000));
  EXPECT_EQ(cluster->data().drives()[1].state, "removed");
}

// Where the metadata lies on the drives, too.
class DriveStatesWithLogTest : public DriveStatesTest {
 protected:
  ~DriveStatesWithLogTest() override { close(); }
  ClusterOptions options() override {
    ClusterOptions o = DriveStatesTest::options();
    o.metadata_directory = temporary.sub("meta");
    o.open_meta = [this](meta::CommitLog& log, std::string directory) {
      return open_small_rocksdb(pool.get(), &log, std::move(directory));
    };
    return o;
  }
  TemporaryDirectory temporary;
};

// A shelf without power. The first that are back are too few for the metadata, and nothing can be written down of them.
TEST_F(DriveStatesWithLogTest, drives_that_all_vanished_come_back_one_by_one) {
  add_media(4);
  ASSERT_TRUE(create("mirror:3"));
  const Redundancy thrice{RedundancyKind::mirror, 1, 2};
  std::vector<DataLayout> written;
  for (int i = 0; i < 10; ++i) written.push_back(*write(random_bytes(i, 20'000), thrice));
  for (auto& medium : media) medium->gone = true;
  pass(std::chrono::seconds(30));
  ASSERT_FALSE(write(random_bytes(98, 20'000), thrice)) << "they were not missed: nothing was tested";
  for (uint32_t number = 1; number <= 4; ++number) {
    media[number - 1]->gone = false;
    auto back = executor.run(cluster->data().take_back_drive(number, fmt::format("mem{}", number - 1)));
    EXPECT_TRUE(back) << back.error().to_string();
    if (number == 1) EXPECT_FALSE(write(random_bytes(98, 20'000), thrice)) << "one is enough: nothing was tested";
    pass(std::chrono::seconds(5));
  }
  pass(std::chrono::minutes(1));
  EXPECT_EQ(cluster->read_only_reason(), "");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(*read(written[static_cast<size_t>(i)]), random_bytes(i, 20'000));
  EXPECT_TRUE(write(random_bytes(99, 20'000), thrice));
}

}  // namespace
}  // namespace quarry::cluster
