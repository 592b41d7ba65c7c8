// Mirrored writes on drives that keep files: names, crashes between commit and show, repair.
#include <gtest/gtest.h>

#include "cluster/files/files.h"
#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

class FilesTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void add_file_media(size_t count) {
    add_media(count);
    for (size_t i = media.size() - count; i < media.size(); ++i) media[i]->files = true;
  }
  size_t shown(const std::string& path, const std::string& bytes) {
    size_t count = 0;
    for (auto& medium : media) count += medium->tree.contains(path) && medium->text_of_file(path) == bytes;
    return count;
  }
  const Redundancy twice{RedundancyKind::mirror, 1, 1};
};

TEST_F(FilesTest, a_pool_of_such_drives_mirrors_by_default) {
  add_file_media(3);
  ASSERT_TRUE(create(""));
  EXPECT_EQ(cluster->default_redundancy(), "mirror:2");
  EXPECT_TRUE(cluster->data().files().on_all_drives());
}

TEST_F(FilesTest, a_mixed_pool_has_the_usual_default) {
  add_file_media(1);
  add_media(3);
  ASSERT_TRUE(create(""));
  EXPECT_EQ(cluster->default_redundancy(), "ec:2+2");
  EXPECT_TRUE(cluster->data().files().on_some_drives());
  EXPECT_FALSE(cluster->data().files().on_all_drives());
}

TEST_F(FilesTest, files_of_every_size_are_whole_under_their_names) {
  add_file_media(3);
  ASSERT_TRUE(create("mirror:2"));
  for (const size_t size : {0, 1, 4096, 65'535, 65'536, 65'537, 1'000'000}) {
    const std::string bytes = random_bytes(size, size), name = fmt::format("a/{}", size);
    auto layout = write_file(name, bytes, twice);
    ASSERT_TRUE(layout) << layout.error().to_string();
    EXPECT_EQ(shown("bucket/" + name, bytes), 2u) << size;
    if (size > 0) EXPECT_EQ(*read(*layout), bytes);
  }
  EXPECT_EQ(fsck(), "");
}

TEST_F(FilesTest, a_hidden_file_is_readable_and_a_removed_one_is_gone) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  auto layout = write_file("x", "content", twice);
  ASSERT_TRUE(layout);
  ASSERT_TRUE(executor.run(cluster->data().files().hide(*layout)));
  EXPECT_EQ(shown("bucket/x", "content"), 0u);
  EXPECT_EQ(*read(*layout), "content");
  ASSERT_TRUE(executor.run(cluster->data().files().show(*layout, {})));
  EXPECT_EQ(shown("bucket/x", "content"), 2u);
  auto empty = write_file("empty", "", twice);
  ASSERT_TRUE(empty);
  ASSERT_TRUE(retire(*layout));
  ASSERT_TRUE(retire(*empty));
  settle();
  EXPECT_EQ(data_chunks(), 0u);
  EXPECT_TRUE(media[0]->tree.empty());
  EXPECT_FALSE(executor.run(meta_store->get(keys::file(layout->write_id)))->has_value());
}

// Else an adoption that was not committed counts as undone, and no start looks for what the drive knows of it.
TEST_F(FilesTest, a_file_is_not_let_go_while_its_drive_is_away) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  const Redundancy once{RedundancyKind::mirror, 1, 0};
  auto layout = write_file("k", "content", once);
  ASSERT_TRUE(layout) << layout.error().to_string();
  MemoryMedium& medium = *media[media[0]->of_kind(ChunkKind::data).empty() ? 1 : 0];
  medium.gone = true;
  executor.run(sleep_for(std::chrono::seconds(20)));
  auto gone = executor.run(cluster->data().files().let_go(*layout));
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code(), Code::unavailable) << gone.error().to_string();
  EXPECT_EQ(medium.of_kind(ChunkKind::data).size(), 1u);
}

TEST_F(FilesTest, a_crash_before_a_committed_file_is_shown_is_made_good_at_the_next_start) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  auto layout = write_file("late", random_bytes(3, 200'000), twice, false);
  ASSERT_TRUE(layout);
  EXPECT_EQ(shown("bucket/late", random_bytes(3, 200'000)), 0u);
  crash();
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(shown("bucket/late", random_bytes(3, 200'000)), 2u);
  EXPECT_EQ(fsck(), "");
}

TEST_F(FilesTest, the_judge_decides_what_is_shown_after_a_crash) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  auto old = write_file("k", "old", twice, false);
  auto current = write_file("k", "new", twice, false);
  ASSERT_TRUE(old && current);
  crash();
  tuning.files_have_judge = true;
  // A later writer may have an earlier id: what counts is what the owner says.
  const WriteId right = old->write_id;
  ASSERT_TRUE(open());
  cluster->data().files().set_judge([right](DataLayout layout, FileName file) -> Task<Result<std::optional<FileAttributes>>> {
    EXPECT_EQ(file.name, "k");
    if (layout.write_id != right) co_return std::optional<FileAttributes>();
    co_return std::optional<FileAttributes>(FileAttributes());
  });
  settle();
  EXPECT_EQ(shown("bucket/k", "old"), 2u);
}

// Whoever commits meanwhile has shown its own file already, and this one took its place.
TEST_F(FilesTest, a_commit_between_the_judgement_and_the_showing_of_a_recovered_file_wins) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  auto recovered = write_file("k", "recovered", twice, false);
  auto newer = write_file("k", "newer", twice);
  ASSERT_TRUE(recovered && newer);
  crash();
  tuning.files_have_judge = true;
  ASSERT_TRUE(open());
  int asked = 0;
  cluster->data().files().set_judge(
      [&, newest = newer->write_id](DataLayout layout, FileName) -> Task<Result<std::optional<FileAttributes>>> {
        std::optional<FileAttributes> shown;
        if (layout.write_id == newest || asked++ == 0) shown = FileAttributes();
        co_return shown;
      });
  cluster->data().files().set_name_settler([&](FileName, DataLayout layout) -> Task<void> {
    EXPECT_EQ(layout.write_id, recovered->write_id);
    auto done = co_await cluster->data().files().show(*newer, {});
    EXPECT_TRUE(done);
  });
  settle();
  EXPECT_GE(asked, 2);
  EXPECT_EQ(shown("bucket/k", "newer"), 2u);
}

TEST_F(FilesTest, nothing_is_shown_before_the_judge_is_there) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  auto layout = write_file("k", "content", twice, false);
  ASSERT_TRUE(layout);
  crash();
  tuning.files_have_judge = true;
  ASSERT_TRUE(open());
  executor.run(sleep_for(std::chrono::seconds(3)));
  EXPECT_EQ(shown("bucket/k", "content"), 0u);
  cluster->data().files().set_judge([](DataLayout, FileName) -> Task<Result<std::optional<FileAttributes>>> {
    co_return std::optional<FileAttributes>(FileAttributes());
  });
  executor.run(sleep_for(std::chrono::seconds(3)));
  EXPECT_EQ(shown("bucket/k", "content"), 2u);
}

TEST_F(FilesTest, a_store_without_a_judge_can_be_closed) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  ASSERT_TRUE(write_file("k", "content", twice, false));
  crash();
  tuning.files_have_judge = true;
  ASSERT_TRUE(open());
  executor.run(sleep_for(std::chrono::seconds(1)));
  close();
  EXPECT_EQ(shown("bucket/k", "content"), 0u);
}

// No restart is needed: the blocks of the session that crashed are looked through on each drive once it is there.
TEST_F(FilesTest, a_drive_that_was_away_at_the_start_after_a_crash_shows_its_files_when_it_is_back) {
  add_file_media(3);
  ASSERT_TRUE(create("mirror:3"));
  const std::string bytes = random_bytes(3, 200'000);
  auto layout = write_file("late", bytes, {RedundancyKind::mirror, 1, 2}, false);
  ASSERT_TRUE(layout);
  crash();
  media[1]->gone = true;
  ASSERT_TRUE(open());
  executor.run(sleep_for(std::chrono::seconds(10)));
  EXPECT_EQ(shown("bucket/late", bytes), 2u);
  media[1]->gone = false;
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_EQ(shown("bucket/late", bytes), 3u);
  settle();
  EXPECT_EQ(fsck(), "");
}

TEST_F(FilesTest, an_unacknowledged_write_leaves_nothing) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  WriteOptions options{.redundancy = twice, .file = {"bucket", "gone"}};
  {
    auto writer = cluster->data().begin_write(options);
    ASSERT_TRUE(writer);
    ASSERT_TRUE(executor.run((*writer)->append(Buffer::copy_of(bytes_of("bytes")))));
    ASSERT_TRUE(executor.run((*writer)->finish()));
  }
  executor.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_EQ(data_chunks(), 0u);
  EXPECT_TRUE(media[0]->open_files.empty());
}

TEST_F(FilesTest, a_copy_that_was_missed_is_made_whole_and_shown) {
  add_file_media(3);
  ASSERT_TRUE(create("mirror:3"));
  media[1]->fail_puts = 1;
  const std::string bytes = random_bytes(7, 300'000);
  auto layout = write_file("m", bytes, {RedundancyKind::mirror, 1, 2});
  ASSERT_TRUE(layout) << layout.error().to_string();
  settle();
  EXPECT_EQ(shown("bucket/m", bytes), 3u);
  EXPECT_EQ(fsck(), "");
}

// Finished, and committed, and then its drive was away when it should have been shown.
TEST_F(FilesTest, a_file_whose_drive_was_away_when_it_was_to_be_shown_is_shown_when_the_drive_is_back) {
  add_file_media(3);
  ASSERT_TRUE(create("mirror:3"));
  const std::string bytes = random_bytes(7, 300'000);
  auto layout = write_file("late", bytes, {RedundancyKind::mirror, 1, 2}, false);
  ASSERT_TRUE(layout) << layout.error().to_string();
  cluster->data().files().set_name_settler([this](FileName file, DataLayout write) -> Task<void> {
    EXPECT_EQ(file.name, "late");
    auto settled = co_await cluster->data().files().show(write, {});
    EXPECT_TRUE(settled);
  });
  ASSERT_TRUE(executor.run(cluster->data().disable_drive(2, "test", false)));
  ASSERT_TRUE(executor.run(cluster->data().files().show(*layout, {})));
  EXPECT_EQ(shown("bucket/late", bytes), 2u);
  ASSERT_TRUE(executor.run(cluster->data().enable_drive(2)));
  settle();
  EXPECT_EQ(shown("bucket/late", bytes), 3u);
  EXPECT_EQ(fsck(), "");
}

TEST_F(FilesTest, files_move_as_files_when_their_drive_is_drained) {
  add_file_media(3);
  ASSERT_TRUE(create("mirror:2"));
  std::vector<DataLayout> layouts;
  for (int i = 0; i < 20; ++i) {
    auto layout = write_file(fmt::format("f{}", i), random_bytes(i, 10'000 * i), twice);
    ASSERT_TRUE(layout);
    layouts.push_back(*layout);
  }
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  settle();
  for (int i = 0; i < 20; ++i) {
    const std::string bytes = random_bytes(i, 10'000 * i);
    EXPECT_EQ(shown(fmt::format("bucket/f{}", i), bytes), 2u) << i;
    if (i > 0) EXPECT_EQ(*read(layouts[i]), bytes);
  }
  EXPECT_TRUE(media[0]->tree.empty());
  EXPECT_EQ(fsck(), "");
}

TEST_F(FilesTest, a_damaged_file_is_replaced_by_a_whole_one) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  const std::string bytes = random_bytes(1, 200'000);
  auto layout = write_file("d", bytes, twice);
  ASSERT_TRUE(layout);
  media[0]->corrupt.insert(media[0]->of_kind(ChunkKind::data)[1]);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(*read(*layout), bytes);  // copies take turns: one of the reads meets it
  settle();
  EXPECT_TRUE(media[0]->corrupt.empty());
  EXPECT_EQ(shown("bucket/d", bytes), 2u);
  EXPECT_EQ(fsck(), "");
}

TEST_F(FilesTest, a_removed_file_comes_back_and_a_replaced_one_is_left_to_whoever_put_it_there) {
  for (const Reason reason : {Reason::vanished, Reason::replaced}) {
    close();
    media.clear();
    meta_media = meta::make_memory_meta_media();
    add_file_media(2);
    ASSERT_TRUE(create(""));
    const std::string bytes = random_bytes(1, 200'000);
    auto layout = write_file("d", bytes, twice);
    ASSERT_TRUE(layout);
    media[0]->corrupt_reason = reason;
    for (const ChunkId id : media[0]->of_kind(ChunkKind::data)) media[0]->corrupt.insert(id);
    const ChunkId before = media[0]->tree.at("bucket/d");
    for (int i = 0; i < 4; ++i) EXPECT_EQ(*read(*layout), bytes);
    settle();
    for (int i = 0; i < 4; ++i) EXPECT_EQ(*read(*layout), bytes);
    EXPECT_TRUE(media[0]->corrupt.empty());
    const auto now = media[0]->tree.find("bucket/d");
    if (reason == Reason::vanished) {
      ASSERT_TRUE(now != media[0]->tree.end());
      EXPECT_NE(now->second, before) << "a new file under the name";
      EXPECT_EQ(shown("bucket/d", bytes), 2u);
    } else {
      EXPECT_TRUE(now == media[0]->tree.end() || now->second == before) << "what lies there now is not ours to replace";
    }
    EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
    close();
  }
}

TEST_F(FilesTest, an_only_copy_that_somebody_changed_is_counted_until_it_is_put_back_or_let_go) {
  add_file_media(1);
  ASSERT_TRUE(create(""));
  auto layout = write_file("only", random_bytes(1, 100'000), {RedundancyKind::mirror, 1, 0});
  ASSERT_TRUE(layout);
  const auto damage = [&](Reason reason) {
    media[0]->corrupt_reason = reason;
    media[0]->corrupt.insert(media[0]->of_kind(ChunkKind::data)[0]);
    EXPECT_FALSE(read(*layout));
    settle();
  };
  const auto counts = [&] {
    const RepairStatus status = cluster->data().repair_status();
    return std::pair(status.changed_writes, status.lost_writes);
  };
  for (const Reason reason : {Reason::changed, Reason::rot}) {
    damage(reason);
    EXPECT_EQ(counts(), reason == Reason::rot ? std::pair(uint64_t{0}, uint64_t{1}) : std::pair(uint64_t{1}, uint64_t{0}));
    media[0]->corrupt.clear();
    executor.run(sleep_for(std::chrono::seconds(40)));
    settle();
    EXPECT_EQ(counts(), std::pair(uint64_t{0}, uint64_t{0})) << "it is as it was";
    EXPECT_TRUE(read(*layout));
  }
  damage(Reason::changed);
  ASSERT_TRUE(retire(*layout));
  settle();
  EXPECT_EQ(counts(), std::pair(uint64_t{0}, uint64_t{0})) << "nobody's any more";
}

TEST_F(FilesTest, a_drained_drive_keeps_an_only_copy_that_somebody_changed_until_it_is_put_back) {
  add_file_media(2);
  ASSERT_TRUE(create("mirror:1"));
  std::vector<DataLayout> layouts;
  for (int i = 0; i < 10; ++i) {
    auto layout = write_file(fmt::format("f{}", i), random_bytes(i, 5000), {RedundancyKind::mirror, 1, 0});
    ASSERT_TRUE(layout);
    layouts.push_back(*layout);
  }
  ASSERT_FALSE(media[0]->tree.empty());
  const ChunkId changed = media[0]->tree.begin()->second;
  media[0]->corrupt_reason = Reason::changed;
  media[0]->corrupt.insert(changed);
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  executor.run(sleep_for(std::chrono::seconds(30)));
  EXPECT_EQ(cluster->data().repair_status().changed_writes, 1u);
  EXPECT_TRUE(media[0]->chunks.contains(changed)) << "the map still knows where it lies";
  media[0]->corrupt.clear();
  executor.run(sleep_for(std::chrono::seconds(60)));
  settle();
  EXPECT_EQ(cluster->data().repair_status().changed_writes, 0u);
  EXPECT_TRUE(media[0]->tree.empty());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(*read(layouts[i]), random_bytes(i, 5000)) << i;
}

TEST_F(FilesTest, reads_of_a_mirror_are_spread_over_its_copies) {
  add_file_media(2);
  ASSERT_TRUE(create(""));
  auto layout = write_file("r", random_bytes(1, 60'000), twice);
  ASSERT_TRUE(layout);
  const uint64_t before[2] = {media[0]->gets, media[1]->gets};
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(read(*layout));
  EXPECT_EQ(media[0]->gets - before[0], 20u);
  EXPECT_EQ(media[1]->gets - before[1], 20u);
}

}  // namespace
}  // namespace quarry::cluster
