#include "cluster/map/placement.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace quarry::cluster {
namespace {

std::vector<PlacementDrive> make_drives(unsigned domains, unsigned per_domain, uint64_t weight = 1000) {
  std::vector<PlacementDrive> drives;
  for (unsigned d = 0; d < domains; ++d) {
    for (unsigned i = 0; i < per_domain; ++i) {
      PlacementDrive drive;
      drive.number = d * per_domain + i + 1;
      drive.id.bytes[0] = static_cast<uint8_t>(drive.number);
      drive.domain = fmt::format("node{}", d);
      drive.weight = weight;
      drives.push_back(drive);
    }
  }
  return drives;
}

TEST(Placement, logarithm_is_right) {
  for (uint64_t hash : {~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 62, uint64_t{12345678901234567ull}, uint64_t{3}, uint64_t{1}}) {
    const double expected = 64 - std::log2(static_cast<double>(hash));
    EXPECT_NEAR(static_cast<double>(negative_log2(hash)) / 4294967296.0, expected, 1e-6) << hash;
  }
}

TEST(Placement, the_first_members_lie_in_distinct_domains) {
  const auto drives = make_drives(6, 4);
  for (GroupId group = 0; group < 256; ++group) {
    const auto ranked = rank_drives(drives, group);
    ASSERT_EQ(ranked.size(), drives.size());
    std::set<uint32_t> domains;
    for (size_t i = 0; i < 6; ++i) domains.insert((ranked[i] - 1) / 4);
    EXPECT_EQ(domains.size(), 6u);
    EXPECT_EQ(std::set<uint32_t>(ranked.begin(), ranked.end()).size(), drives.size());
  }
}

TEST(Placement, shares_follow_the_weights) {
  auto drives = make_drives(10, 1);
  drives[0].weight = 3000;
  std::map<uint32_t, int> firsts;
  constexpr int kGroups = 24'000;
  for (int group = 0; group < kGroups; ++group) ++firsts[rank_drives(drives, static_cast<GroupId>(group))[0]];
  EXPECT_NEAR(firsts[1], kGroups * 3 / 12, kGroups * 0.015);
  for (uint32_t n = 2; n <= 10; ++n) EXPECT_NEAR(firsts[n], kGroups / 12, kGroups * 0.01) << n;
}

TEST(Placement, a_new_drive_takes_only_what_it_wins) {
  auto before = make_drives(8, 1);
  auto after = make_drives(9, 1);
  int moved = 0;
  for (GroupId group = 0; group < 4096; ++group) {
    auto a = rank_drives(before, group);
    auto b = rank_drives(after, group);
    std::erase(b, 9u);
    EXPECT_EQ(a, b) << "the order of the others does not change";
    auto first = rank_drives(after, group);
    first.resize(4);
    moved += std::find(first.begin(), first.end(), 9u) != first.end();
  }
  EXPECT_NEAR(moved, 4096 * 4 / 9, 4096 * 0.05);
}

TEST(Placement, is_frozen) {
  // The answer is part of the on-disk contract: if this fails, existing data would not be found.
  const auto ranked = rank_drives(make_drives(4, 2), 17);
  EXPECT_EQ(fmt::format("{}", fmt::join(ranked, " ")), "1 5 7 4 2 6 8 3");
}

TEST(Placement, groups_are_even) {
  std::vector<int> counts(256);
  for (WriteId id = 1; id <= 256'000; ++id) ++counts[group_of(id, 256)];
  for (int count : counts) EXPECT_NEAR(count, 1000, 150);
}

}  // namespace
}  // namespace quarry::cluster
