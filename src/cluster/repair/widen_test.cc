// Widening: more copies of a write, beside those that are there.
#include <gtest/gtest.h>

#include "cluster/map/keys.h"
#include "cluster/testing/cluster_harness.h"
#include "meta/transact.h"

namespace quarry::cluster {
namespace {

class WidenTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void add_file_media(size_t count) {
    add_media(count);
    for (size_t i = media.size() - count; i < media.size(); ++i) media[i]->files = true;
  }
  Result<DataLayout> widen(DataLayout layout, Redundancy wanted) {
    auto commit = [this, layout](DataLayout wide) { return commit_widened(this, layout, wide); };
    return executor.run(cluster->data().widen(layout, wanted, commit));
  }
  static Task<Result<void>> add_rows(DataPlane* data, meta::Transaction* transaction, DataLayout before, DataLayout wide) {
    data->record_widened(*transaction, before, wide, "owner");
    co_return Result<void>();
  }
  static Task<Result<void>> commit_widened(WidenTest* self, DataLayout before, DataLayout wide) {
    auto body = [&](meta::Transaction& transaction) { return add_rows(&self->cluster->data(), &transaction, before, wide); };
    Result<meta::Version> done = co_await meta::transact(*self->meta_store, body);
    if (!done) co_return std::move(done).error();
    co_return Result<void>();
  }
  size_t shown(const std::string& path, const std::string& bytes) {
    size_t count = 0;
    for (auto& medium : media) count += medium->tree.contains(path) && medium->text_of_file(path) == bytes;
    return count;
  }
  static Redundancy mirror(uint8_t copies) { return {RedundancyKind::mirror, 1, static_cast<uint8_t>(copies - 1)}; }
};

TEST_F(WidenTest, what_is_there_stays_and_further_copies_appear) {
  add_file_media(3);
  ASSERT_TRUE(create("mirror:1"));
  for (const size_t size : {0, 1000, 300'000}) {
    const std::string name = fmt::format("f{}", size), bytes = random_bytes(size, size);
    auto layout = write_file(name, bytes, mirror(1));
    ASSERT_TRUE(layout);
    ASSERT_EQ(shown("bucket/" + name, bytes), 1u);
    std::vector<ChunkId> where;
    for (auto& medium : media) where.push_back(medium->tree.contains("bucket/" + name) ? medium->tree.at("bucket/" + name) : ChunkId{});
    auto wide = widen(*layout, mirror(2));
    ASSERT_TRUE(wide) << wide.error().to_string();
    EXPECT_EQ(wide->write_id, layout->write_id);
    if (size > 0) EXPECT_EQ(*read(*wide), bytes) << "at once";
    settle();
    EXPECT_EQ(shown("bucket/" + name, bytes), 2u);
    for (size_t i = 0; i < media.size(); ++i) {
      if (where[i] != ChunkId{}) EXPECT_EQ(media[i]->tree.at("bucket/" + name), where[i]) << "it was not written again";
    }
    EXPECT_FALSE(*executor.run(cluster->data().awaits_repair(*wide)));
    auto wider = widen(*wide, mirror(3));
    ASSERT_TRUE(wider) << wider.error().to_string();
    settle();
    EXPECT_EQ(shown("bucket/" + name, bytes), 3u);
    if (size > 0) EXPECT_EQ(*read(*wider), bytes);
    ASSERT_TRUE(retire(*wider));
    settle();
    EXPECT_EQ(data_chunks(), 0u) << "all copies go with it";
  }
  EXPECT_EQ(fsck(), "");
}

TEST_F(WidenTest, a_copy_gets_slices_beside_it) {
  add_file_media(4);
  ASSERT_TRUE(create("mirror:1"));
  const std::string bytes = random_bytes(5, 400'000);
  auto layout = write_file("s", bytes, mirror(1));
  ASSERT_TRUE(layout);
  auto wide = widen(*layout, {RedundancyKind::whole, 2, 1});
  ASSERT_TRUE(wide) << wide.error().to_string();
  settle();
  EXPECT_EQ(shown("bucket/s", bytes), 1u);
  EXPECT_EQ(fsck(), "");
  for (auto& medium : media) medium->corrupt.clear();
  for (size_t i = 0; i < media.size(); ++i) {
    if (!media[i]->tree.contains("bucket/s")) continue;
    for (const ChunkId id : media[i]->of_kind(ChunkKind::data)) media[i]->corrupt.insert(id);
  }
  EXPECT_EQ(*read(*wide), bytes) << "from the slices alone";
}

TEST_F(WidenTest, what_asked_for_copies_survives_a_crash) {
  add_file_media(2);
  ASSERT_TRUE(create("mirror:1"));
  const std::string bytes = random_bytes(5, 100'000);
  auto layout = write_file("c", bytes, mirror(1));
  ASSERT_TRUE(layout);
  auto wide = widen(*layout, mirror(2));
  ASSERT_TRUE(wide);
  crash();
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(shown("bucket/c", bytes), 2u);
  EXPECT_EQ(*read(*wide), bytes);
  EXPECT_EQ(fsck(), "");
}

// A drive that is added takes the place of the drive that leaves a group, which is the last one, although it may rank before the others.
TEST_F(WidenTest, the_only_copy_on_a_drive_that_was_added_gets_further_ones) {
  add_file_media(2);
  ASSERT_TRUE(create("mirror:2"));
  std::vector<std::pair<DataLayout, std::string>> old, fresh;
  for (int i = 0; i < 40; ++i) {
    const std::string bytes = random_bytes(i, 20'000);
    auto layout = write_file(fmt::format("old{}", i), bytes, mirror(2));
    ASSERT_TRUE(layout);
    old.emplace_back(*layout, bytes);
  }
  new_media_keep_files = true;
  ASSERT_TRUE(executor.run(cluster->data().add_drive("new", false)));
  settle();
  std::vector<ChunkId> where;
  for (int i = 0; i < 60; ++i) {
    const std::string name = fmt::format("n{}", i), bytes = random_bytes(100 + i, 20'000);
    auto layout = write_file(name, bytes, mirror(1));
    ASSERT_TRUE(layout);
    if (!media[2]->tree.contains("bucket/" + name)) continue;
    fresh.emplace_back(*layout, bytes);
    where.push_back(media[2]->tree.at("bucket/" + name));
  }
  ASSERT_GT(fresh.size(), 5u);
  size_t rearranged = 0;
  for (auto& [layout, bytes] : fresh) {
    auto wide = widen(layout, mirror(2));
    for (int again = 0; !wide && wide.error().code() == Code::busy && again < 5; ++again) {
      ++rearranged;
      settle();
      wide = widen(layout, mirror(2));
    }
    ASSERT_TRUE(wide) << wide.error().to_string();
    layout = *wide;
  }
  EXPECT_GT(rearranged, 0u);
  settle();
  for (size_t i = 0; i < fresh.size(); ++i) {
    EXPECT_EQ(*read(fresh[i].first), fresh[i].second);
    EXPECT_TRUE(std::ranges::any_of(media[2]->tree, [&](const auto& file) { return file.second == where[i]; }))
        << "it was not written again";
  }
  for (const auto& [layout, bytes] : old) EXPECT_EQ(*read(layout), bytes);
  EXPECT_EQ(fsck(), "");
  crash();
  ASSERT_TRUE(open());
  for (const auto& [layout, bytes] : fresh) EXPECT_EQ(*read(layout), bytes);
  for (const auto& [layout, bytes] : old) EXPECT_EQ(*read(layout), bytes);
  EXPECT_EQ(fsck(), "");
}

TEST_F(WidenTest, what_cannot_be_widened_is_said_and_left) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  auto layout = write_file("e", random_bytes(5, 300'000), {RedundancyKind::erasure, 2, 2});
  ASSERT_TRUE(layout);
  EXPECT_EQ(widen(*layout, mirror(4)).error().code(), Code::unsupported);
  auto twice = write_file("m", random_bytes(6, 1000), mirror(2));
  ASSERT_TRUE(twice);
  EXPECT_EQ(widen(*twice, mirror(1)).error().code(), Code::unsupported);
  EXPECT_EQ(widen(*twice, mirror(9)).error().code(), Code::unavailable);
  EXPECT_EQ(*read(*twice), random_bytes(6, 1000));
}

// Whoever reads holds the layout that he began with, and groups of each width move for themselves.
TEST_F(WidenTest, a_read_that_began_before_it_goes_on_when_both_groups_have_moved) {
  add_media(7);
  ASSERT_TRUE(create("mirror:1"));
  for (const Redundancy wanted : {mirror(2), Redundancy{RedundancyKind::whole, 2, 1}}) {
    const std::string bytes = random_bytes(wanted.width(), 3'000'000);
    auto layout = write(bytes, mirror(1));
    ASSERT_TRUE(layout) << layout.error().to_string();
    const auto members = plane().plane().drives.topology()->map.members(1, layout->group);
    auto reader = cluster->data().read(*layout, 0, layout->size, CachePolicy::normal);
    auto first = executor.run(reader->next(1000));
    ASSERT_TRUE(first) << first.error().to_string();
    std::string got(text_of(*first));
    auto wide = widen(*layout, wanted);
    for (int again = 0; !wide && wide.error().code() == Code::busy && again < 5; ++again) {
      settle();
      wide = widen(*layout, wanted);
    }
    ASSERT_TRUE(wide) << wide.error().to_string();
    settle();
    ASSERT_TRUE(executor.run(cluster->data().drain_drive(members[0].at.drive)));
    settle();
    ASSERT_TRUE(media[members[0].at.drive - 1]->of_kind(ChunkKind::data).empty()) << "nothing moved: nothing was tested";
    while (got.size() < bytes.size()) {
      auto next = executor.run(reader->next(kMiB));
      ASSERT_TRUE(next) << "after " << got.size() << " bytes: " << next.error().to_string();
      ASSERT_FALSE(next->empty());
      got += text_of(*next);
    }
    EXPECT_TRUE(got == bytes);
  }
}

}  // namespace
}  // namespace quarry::cluster
