#include "cluster/map/cluster_map.h"

#include <gtest/gtest.h>

#include <set>

#include "cluster/drives/drive_label.h"

namespace quarry::cluster {
namespace {

ClusterMap make_map(uint32_t drives, std::vector<uint8_t> widths) {
  ClusterMap map;
  map.epoch = 1;
  map.group_count = 64;
  for (uint32_t n = 1; n <= drives; ++n) {
    MapDrive drive{.number = n, .id = {}, .path = fmt::format("/dev/d{}", n), .domain = fmt::format("d{}", n), .weight = 1000};
    drive.id.bytes[0] = static_cast<uint8_t>(n);
    map.drives.emplace(n, drive);
  }
  map.next_drive = drives + 1;
  for (uint8_t width : widths) CHECK(map.register_width(width));
  return map;
}

ClusterMap reread(const ClusterMap& map) {
  std::vector<meta::KeyValue> rows;
  for (const auto& [key, value] : map.rows()) rows.push_back({key, value});
  auto back = ClusterMap::decode(rows);
  CHECK(back && *back);
  return std::move(**back);
}

TEST(ClusterMap, untouched_groups_need_no_rows) {
  const ClusterMap map = make_map(6, {6, 3});
  EXPECT_EQ(map.rows().size(), 7u);
  const ClusterMap back = reread(map);
  EXPECT_EQ(back.rows(), map.rows());
  for (GroupId g = 0; g < 64; ++g) EXPECT_EQ(back.members(3, g), map.members(3, g));
}

TEST(ClusterMap, why_a_drive_is_out_of_use_is_kept_and_read_from_the_words_of_older_programs) {
  struct Case {
    DriveState state;
    std::string reason;
    DriveCause cause;
  };
  const Case cases[] = {
      {DriveState::failed, "missing: device_gone: /dev/d1", DriveCause::away},
      {DriveState::failed, "missing: device_gone: /dev/d1: another node has opened this drive since", DriveCause::taken},
      {DriveState::failed, "replaced by drive 3", DriveCause::replaced},
      {DriveState::draining, "replaced by drive 3", DriveCause::replaced},
      {DriveState::draining, "it refuses writes: too many write errors", DriveCause::read_only},
      {DriveState::draining, "", DriveCause::none},
      {DriveState::failed, "removed by force", DriveCause::forced},
      {DriveState::failed, "io_error: damaged", DriveCause::none},
      {DriveState::failed, "disabled: missing: by an operator", DriveCause::none},
  };
  for (const Case& one : cases) {
    ClusterMap map = make_map(2, {1});
    MapDrive& drive = map.drives.at(1);
    drive.state = one.state;
    drive.reason = one.reason;
    const ClusterMap old = reread(map);  // as an older program wrote it
    EXPECT_EQ(old.drives.at(1).cause, one.cause) << one.reason;
    drive.cause = one.cause;
    drive.reason = "whatever it says";
    EXPECT_EQ(reread(map).drives.at(1), drive) << one.reason;
  }
}

TEST(ClusterMap, a_lost_drive_is_replaced_only_where_it_was) {
  ClusterMap map = make_map(8, {6});
  const ClusterMap before = map;
  map.drives.at(3).state = DriveState::failed;
  map.replan();
  for (GroupId g = 0; g < 64; ++g) {
    const Members was = before.members(6, g), is = map.members(6, g);
    std::set<uint32_t> drives;
    for (size_t i = 0; i < 6; ++i) {
      drives.insert(is[i].at.drive);
      if (was[i].at.drive == 3) {
        EXPECT_NE(is[i].at.drive, 3u);
        EXPECT_TRUE(is[i].pending);
        EXPECT_TRUE(is[i].before.empty());
        EXPECT_EQ(is[i].at.term, 1);
      } else {
        EXPECT_EQ(is[i], was[i]);
      }
    }
    EXPECT_EQ(drives.size(), 6u);
  }
  EXPECT_EQ(map.health().without, 0u);
  EXPECT_EQ(reread(map).rows(), map.rows());
}

TEST(ClusterMap, without_a_spare_the_place_stays_and_a_new_drive_takes_it) {
  ClusterMap map = make_map(4, {4});
  map.drives.at(2).state = DriveState::failed;
  EXPECT_EQ(map.replan(), 0u);
  EXPECT_EQ(map.health().without, 64u);
  MapDrive drive{.number = 5, .id = {}, .path = "new", .domain = "d5", .weight = 1000};
  drive.id.bytes[0] = 5;
  map.drives.emplace(5, drive);
  EXPECT_EQ(map.replan(), 64u);
  EXPECT_EQ(map.health().without, 0u);
  EXPECT_EQ(map.health().pending, 64u);
  for (GroupId g = 0; g < 64; ++g) {
    for (const Member& member : map.members(4, g)) EXPECT_EQ(member.pending, member.at.drive == 5);
  }
}

TEST(ClusterMap, a_new_drive_takes_its_share_and_remembers_where_things_were) {
  ClusterMap map = make_map(6, {3});
  MapDrive drive{.number = 7, .id = {}, .path = "new", .domain = "d7", .weight = 1000};
  drive.id.bytes[0] = 7;
  map.drives.emplace(7, drive);
  const size_t moved = map.replan();
  EXPECT_NEAR(static_cast<double>(moved), 64 * 3 / 7.0, 12);
  for (GroupId g = 0; g < 64; ++g) {
    for (const Member& member : map.members(3, g)) {
      EXPECT_EQ(member.pending, member.at.drive == 7);
      if (member.pending) EXPECT_EQ(member.before.size(), 1u);
    }
  }
  EXPECT_EQ(map.replan(), 0u) << "nothing more to do";
  // It leaves again before the move was done: the chunks may be in either place.
  map.drives.at(7).state = DriveState::draining;
  EXPECT_EQ(map.replan(), moved);
  for (GroupId g = 0; g < 64; ++g) {
    for (const Member& member : map.members(3, g)) {
      EXPECT_NE(member.at.drive, 7u);
      if (!member.pending) continue;
      ASSERT_EQ(member.before.size(), 2u);
      EXPECT_EQ(member.before[0].drive, 7u);
      EXPECT_EQ(member.at.term, 2) << "a term is never used twice on a drive";
    }
  }
  EXPECT_EQ(reread(map).rows(), map.rows());
}

TEST(ClusterMap, however_often_it_is_planned_anew_a_position_remembers_where_its_chunks_are) {
  ClusterMap map = make_map(1, {1});
  for (uint32_t number = 2; number <= 60; ++number) {
    MapDrive drive{.number = number, .id = {}, .path = "new", .domain = fmt::format("d{}", number), .weight = 1000};
    drive.id.bytes[0] = static_cast<uint8_t>(number);
    map.drives.emplace(number, drive);
    map.replan();
  }
  size_t postponed = 0;
  for (GroupId g = 0; g < 64; ++g) {
    const Members members = map.members(1, g);
    const std::vector<Place> places = places_of(members[0]);
    EXPECT_NE(std::ranges::find(places, Place{1, 0}), places.end()) << "group " << g << " forgot where its chunks are";
    EXPECT_LE(members[0].before.size(), kBeforeMax);
    postponed += members[0].before.size() == kBeforeMax;
  }
  ASSERT_GT(postponed, 0u) << "no position was planned anew often enough: nothing was tested";
  // Once they have come to rest the plan goes on.
  for (int round = 0; round < 10 && (map.health().pending > 0 || round == 0); ++round) {
    for (GroupId g = 0; g < 64; ++g) {
      Members members = map.members(1, g);
      members[0].pending = false;
      members[0].before.clear();
      map.set_members({1, g}, members);
    }
    map.replan();
  }
  EXPECT_EQ(map.health().pending, 0u);
  ClusterMap computed = make_map(1, {});
  computed.drives = map.drives;
  for (GroupId g = 0; g < 64; ++g) EXPECT_EQ(map.members(1, g)[0].at.drive, computed.members(1, g)[0].at.drive);
}

TEST(DriveLabel, is_read_back_and_damage_is_found) {
  DriveLabel label;
  label.cluster.bytes[3] = 9;
  label.number = 2;
  label.epoch = 77;
  label.metadata_copies = 3;
  label.master_key.assign(kMasterKeySize, 'k');
  label.drives = {{1, {}, "a", "/dev/x"}, {2, {}, "b", "/dev/y"}};
  const std::string bytes = label.encode();
  auto back = DriveLabel::decode(bytes);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(*back, label);
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string broken = bytes;
    broken[i / 8] = static_cast<char>(broken[i / 8] ^ 1 << i % 8);
    EXPECT_FALSE(DriveLabel::decode(broken)) << i;
  }
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(DriveLabel::decode(bytes.substr(0, size)));
}

}  // namespace
}  // namespace quarry::cluster
