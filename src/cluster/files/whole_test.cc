// whole:k+m: a full copy beside the slices of an erasure code: what is read where, which losses are survived, what repair makes of them.
#include <gtest/gtest.h>

#include <bit>

#include "cluster/files/files.h"
#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

class WholeTest : public ::testing::Test, protected ClusterHarness {
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
  // The medium on which the shard of this write lies.
  size_t medium_of(const DataLayout& layout, unsigned shard) {
    const auto topology = plane().plane().drives.topology();
    return topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group)[shard].at.drive - 1;
  }
  std::vector<ChunkId> chunks_of(const DataLayout& layout, unsigned shard) {
    std::vector<ChunkId> ids;
    for (ChunkId id : media[medium_of(layout, shard)]->of_kind(ChunkKind::data)) {
      if (chunk_name(id).serial == layout.write_id && chunk_name(id).shard == shard) ids.push_back(id);
    }
    return ids;
  }
  void put_back_all() {
    for (auto& medium : media) medium->gone = false;
    ASSERT_TRUE(open());
  }
  static constexpr std::array<size_t, 12> kSizes{1, 63, 64, 65, 4096, 65'535, 65'536, 131'073, 200'000, 262'144, 262'145, 1'000'003};
  const Redundancy two_one{RedundancyKind::whole, 2, 1};
};

TEST_F(WholeTest, every_size_is_one_file_and_its_slices) {
  add_file_media(4);
  ASSERT_TRUE(create("whole:2+1"));
  EXPECT_EQ(cluster->default_redundancy(), "whole:2+1");
  for (const size_t size : kSizes) {
    for (const bool known : {true, false}) {
      const std::string bytes = random_bytes(size, size), name = fmt::format("a/{}{}", size, known);
      auto layout = executor.run(write_task(this, bytes, two_one, known, 70'000, {"bucket", name}));
      ASSERT_TRUE(layout) << layout.error().to_string();
      ASSERT_TRUE(executor.run(cluster->data().files().show(*layout, {})));
      EXPECT_EQ(layout->redundancy.to_string(), "whole:2+1");
      EXPECT_EQ(shown("bucket/" + name, bytes), 1u) << size;
      EXPECT_EQ(*read(*layout), bytes) << size;
      uint64_t stored = 0;
      for (unsigned shard = 0; shard < 4; ++shard) {
        for (ChunkId id : chunks_of(*layout, shard)) stored += media[medium_of(*layout, shard)]->chunks.at(id)->size();
      }
      EXPECT_EQ(stored, layout->stored_bytes());
      EXPECT_GE(stored, size * 5 / 2);
      EXPECT_LE(stored, size * 5 / 2 + 4096 * layout->stripe_count());
    }
  }
  EXPECT_EQ(fsck(), "");
}

TEST_F(WholeTest, reads_touch_the_copy_alone) {
  add_media(4);
  ASSERT_TRUE(create("whole:2+1"));
  const std::string bytes = random_bytes(1, 900'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout);
  const size_t home = medium_of(*layout, 0);
  std::vector<uint64_t> before;
  for (auto& medium : media) before.push_back(medium->gets);
  media[home]->delay = std::chrono::seconds(1);  // slow is no reason
  EXPECT_EQ(*read(*layout), bytes);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(*read(*layout, 40'000 * i, 30'000), bytes.substr(40'000 * i, 30'000));
  for (size_t i = 0; i < 4; ++i) {
    if (i != home) EXPECT_EQ(media[i]->gets, before[i]) << i;
  }
}

// Every set of drives that is away: what is left decides, and nothing else.
TEST_F(WholeTest, any_m_plus_one_losses_are_survived_and_all_others_that_leave_the_copy_or_k_slices) {
  for (const char* text : {"whole:2+1", "whole:2+0", "whole:1+1", "whole:3+2", "whole:4+1"}) {
    SCOPED_TRACE(text);
    close();
    media.clear();
    meta_media = meta::make_memory_meta_media();
    const Redundancy redundancy = *parse_redundancy(text, 32);
    const unsigned width = redundancy.width();
    add_file_media(width);
    ASSERT_TRUE(create(text));
    std::vector<std::pair<DataLayout, std::string>> written;
    for (int i = 0; i < 10; ++i) {
      const std::string bytes = random_bytes(i, i % 3 == 0 ? 90 : i % 3 == 1 ? 150'000 : 700'001);
      written.emplace_back(*write_file(fmt::format("f{}", i), bytes, redundancy), bytes);
    }
    size_t read_ones = 0, lost_ones = 0;
    for (uint32_t away = 1; away + 1 < 1u << width; ++away) {
      SCOPED_TRACE(fmt::format("away {:b}", away));
      const bool few = static_cast<unsigned>(std::popcount(away)) <= redundancy.losses();
      for (unsigned i = 0; i < width; ++i) media[i]->gone = (away >> i & 1) != 0;
      if (few && width > redundancy.losses() + 1) {  // else the metadata asks for one drive more
        const auto opened = open();
        ASSERT_TRUE(opened) << opened.error().to_string();
      }
      for (const auto& [layout, bytes] : written) {
        uint32_t left = 0;
        for (unsigned shard = 0; shard < width; ++shard) {
          if (!media[medium_of(layout, shard)]->gone || layout.stored_size(layout.stripe_count() - 1, shard) == 0) left |= 1u << shard;
        }
        if (few) EXPECT_TRUE(redundancy.readable_from(left));
        auto back = read(layout);
        static_cast<void>(back.has_value());  // of several stripes some may be readable: either is right
        if (redundancy.readable_from(left)) {
          ASSERT_TRUE(back) << back.error().to_string();
          ASSERT_TRUE(*back == bytes);
          const uint64_t offset = bytes.size() / 3, length = bytes.size() / 2;
          ASSERT_TRUE(*read(layout, offset, length) == bytes.substr(offset, length));
          ++read_ones;
        } else if (layout.stripe_count() == 1) {
          ASSERT_FALSE(back);
          EXPECT_EQ(back.error().code(), Code::data_lost);
          ++lost_ones;
        }
      }
      put_back_all();
    }
    EXPECT_GT(read_ones, 0u);
    if (width > redundancy.losses() + 1) EXPECT_GT(lost_ones, 0u);
    settle();
    EXPECT_EQ(fsck(), "");
  }
}

TEST_F(WholeTest, any_range_is_read_back_with_any_pieces_missing) {
  add_media(6);
  tuning.cache_bytes = 2 * kMiB;
  ASSERT_TRUE(create("whole:3+2"));
  SeededRandom rng(5);
  for (int round = 0; round < 12; ++round) {
    const std::string bytes = random_bytes(round, round % 3 == 0 ? 100 + 37 * round : 1'100'000 + 1000 * round);
    auto layout = write(bytes);
    ASSERT_TRUE(layout);
    // In each stripe the copy and any two slices.
    for (uint32_t stripe = 0; stripe < layout->stripe_count(); ++stripe) {
      const auto a = static_cast<unsigned>(1 + rng.below(5)), b = static_cast<unsigned>(1 + (a + rng.below(4)) % 5);
      for (unsigned shard : {0u, a, b}) {
        const ChunkId id = chunk_id(shard_name(*layout, stripe, shard, 0));
        auto& medium = *media[medium_of(*layout, shard)];
        if (!medium.chunks.contains(id)) continue;
        if (rng.below(2) == 0) {
          medium.corrupt.insert(id);
        } else {
          medium.chunks.erase(id);
        }
      }
    }
    for (int i = 0; i < 40; ++i) {
      const uint64_t offset = rng.below(bytes.size());
      const uint64_t length = rng.below(3) == 0 ? rng.below(200'000) : rng.below(bytes.size() - offset + 1);
      const uint64_t cut = std::min<uint64_t>(length, bytes.size() - offset);
      auto back = read(*layout, offset, cut, rng.below(3) == 0 ? CachePolicy::bypass : CachePolicy::normal);
      ASSERT_TRUE(back) << back.error().to_string();
      ASSERT_TRUE(*back == bytes.substr(offset, cut)) << offset << "+" << cut;
    }
  }
  executor.run(sleep_for(std::chrono::seconds(30)));
  settle();
  ASSERT_TRUE(executor.run(plane().scrubber().pass()));
  settle();
  EXPECT_EQ(fsck(), "");
  for (auto& medium : media) EXPECT_TRUE(medium->corrupt.empty());
}

TEST_F(WholeTest, a_damaged_file_is_read_right_and_made_whole_under_its_name) {
  for (const Reason reason : {Reason::rot, Reason::vanished}) {
    close();
    media.clear();
    meta_media = meta::make_memory_meta_media();
    add_file_media(5);
    ASSERT_TRUE(create("whole:2+1"));
    const std::string bytes = random_bytes(4, 500'000);
    auto layout = write_file("d", bytes, two_one);
    ASSERT_TRUE(layout);
    auto& home = *media[medium_of(*layout, 0)];
    home.corrupt_reason = reason;
    home.corrupt.insert(chunks_of(*layout, 0)[1]);
    EXPECT_EQ(*read(*layout), bytes);
    settle();
    EXPECT_TRUE(home.corrupt.empty());
    EXPECT_EQ(shown("bucket/d", bytes), 1u);
    EXPECT_EQ(home.text_of_file("bucket/d"), bytes);
    EXPECT_EQ(fsck(), "");
    // And every slice, from the copy.
    for (unsigned shard = 1; shard < 4; ++shard) {
      auto& medium = *media[medium_of(*layout, shard)];
      for (ChunkId id : chunks_of(*layout, shard)) {
        medium.corrupt_reason = Reason::rot;
        medium.corrupt.insert(id);
      }
    }
    ASSERT_TRUE(executor.run(plane().scrubber().pass()));
    settle();
    for (auto& medium : media) EXPECT_TRUE(medium->corrupt.empty());
    EXPECT_EQ(fsck(), "");
    home.gone = true;
    EXPECT_EQ(*read(*layout), bytes);
  }
}

TEST_F(WholeTest, a_file_that_somebody_changed_is_read_from_slices_and_left_to_them) {
  add_file_media(4);
  ASSERT_TRUE(create("whole:2+1"));
  const std::string bytes = random_bytes(4, 300'000);
  auto layout = write_file("theirs", bytes, two_one);
  ASSERT_TRUE(layout);
  auto& home = *media[medium_of(*layout, 0)];
  home.corrupt_reason = Reason::changed;
  for (ChunkId id : chunks_of(*layout, 0)) home.corrupt.insert(id);
  EXPECT_EQ(*read(*layout), bytes);
  settle();
  EXPECT_EQ(*read(*layout), bytes);
  EXPECT_EQ(fsck(), "");
  for (unsigned shard = 1; shard < 4; ++shard) media[medium_of(*layout, shard)]->gone = true;
  EXPECT_EQ(*read(*layout), bytes);  // the copy is whole again, beside their file
}

TEST_F(WholeTest, a_write_counts_when_any_one_more_loss_leaves_it_readable) {
  for (unsigned down = 0; down < 1u << 4; ++down) {
    SCOPED_TRACE(fmt::format("down {:b}", down));
    close();
    media.clear();
    meta_media = meta::make_memory_meta_media();
    add_file_media(4);
    ASSERT_TRUE(create("whole:2+1"));
    auto warm = write_file("warm", random_bytes(1, 300'000), two_one);
    ASSERT_TRUE(warm);
    // By position of the next write, whatever its group.
    for (unsigned i = 0; i < 4; ++i) {
      if ((down >> i & 1) != 0) media[i]->read_only = true;
    }
    const std::string bytes = random_bytes(2, 300'000);
    auto layout = write_file("w", bytes, two_one);
    const bool enough = std::popcount(down) <= 1;
    ASSERT_EQ(layout.has_value(), enough) << (layout ? "" : layout.error().to_string());
    for (auto& medium : media) medium->read_only = false;
    if (!enough) {
      EXPECT_EQ(layout.error().code(), Code::unavailable) << layout.error().to_string();
      executor.run(sleep_for(std::chrono::seconds(5)));
      ASSERT_TRUE(open());
      settle();
      EXPECT_EQ(fsck(), "");
      EXPECT_EQ(shown("bucket/w", bytes), 0u);
      continue;
    }
    for (unsigned i = 0; i < 4; ++i) {  // one more
      if ((down >> i & 1) != 0) continue;
      media[i]->gone = true;
      ASSERT_TRUE(open());
      EXPECT_EQ(*read(*layout), bytes) << i;
      media[i]->gone = false;
    }
    ASSERT_TRUE(open());
    settle();
    EXPECT_EQ(shown("bucket/w", bytes), 1u);
    EXPECT_EQ(fsck(), "");
  }
}

TEST_F(WholeTest, a_copy_that_cannot_be_finished_is_made_from_the_slices) {
  add_file_media(4);
  ASSERT_TRUE(create("whole:2+1"));
  for (int i = 0; i < 12; ++i) {
    const std::string bytes = random_bytes(i, 600'000), name = fmt::format("n{}", i);
    media[i % 4]->fail_puts = 1;  // a stripe of the copy, or a slice
    auto layout = write_file(name, bytes, two_one);
    ASSERT_TRUE(layout) << layout.error().to_string();
    EXPECT_EQ(*read(*layout), bytes);
    settle();
    EXPECT_EQ(shown("bucket/" + name, bytes), 1u);
  }
  EXPECT_EQ(fsck(), "");
}

TEST_F(WholeTest, with_a_drive_away_new_writes_keep_their_copy_where_they_can) {
  add_file_media(4);
  ASSERT_TRUE(create("whole:2+1"));
  media[1]->gone = true;
  ASSERT_TRUE(open());
  for (int i = 0; i < 30; ++i) {
    const std::string bytes = random_bytes(i, 1000), name = fmt::format("n{}", i);
    auto layout = write_file(name, bytes, two_one);
    ASSERT_TRUE(layout) << layout.error().to_string();
    EXPECT_EQ(shown("bucket/" + name, bytes), 1u);
  }
  media[1]->gone = false;
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(fsck(), "");
}

TEST_F(WholeTest, an_empty_object_is_a_file_and_nothing_else) {
  add_file_media(5);
  ASSERT_TRUE(create("whole:2+1"));
  auto layout = write_file("empty", "", two_one);
  ASSERT_TRUE(layout) << layout.error().to_string();
  EXPECT_EQ(shown("bucket/empty", ""), 1u);
  EXPECT_EQ(data_chunks(), 1u);
  EXPECT_EQ(*read(*layout), "");
  EXPECT_EQ(fsck(), "");
  tuning.missing_grace = Duration(0);
  const size_t home = medium_of(*layout, 0);
  media[home]->gone = true;
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(shown("bucket/empty", ""), 2u);  // also on the drive that is away
  media[home]->gone = false;
  ASSERT_TRUE(retire(*layout));
  settle();
  EXPECT_EQ(shown("bucket/empty", ""), 1u);
}

TEST_F(WholeTest, files_move_as_files_and_slices_as_slices_when_a_drive_is_drained) {
  add_file_media(5);
  ASSERT_TRUE(create("whole:2+1"));
  std::vector<DataLayout> layouts;
  for (int i = 0; i < 20; ++i) {
    auto layout = write_file(fmt::format("f{}", i), random_bytes(i, 20'000 * i), two_one);
    ASSERT_TRUE(layout);
    layouts.push_back(*layout);
  }
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(1)));
  settle();
  EXPECT_TRUE(media[0]->tree.empty());
  EXPECT_EQ(media[0]->of_kind(ChunkKind::data).size(), 0u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(shown(fmt::format("bucket/f{}", i), random_bytes(i, 20'000 * i)), 1u) << i;
  EXPECT_EQ(fsck(), "");
  for (const DataLayout& layout : layouts) ASSERT_TRUE(retire(layout));
  settle();
  EXPECT_EQ(data_chunks(), 0u);
  for (auto& medium : media) EXPECT_TRUE(medium->tree.empty());
}

TEST_F(WholeTest, a_lost_drive_is_rebuilt_on_a_spare_with_its_names) {
  add_file_media(5);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("whole:2+1"));
  std::vector<std::pair<DataLayout, std::string>> written;
  for (int i = 0; i < 20; ++i) {
    const std::string bytes = random_bytes(i, 30'000 * i + 1);
    written.emplace_back(*write_file(fmt::format("f{}", i), bytes, two_one), bytes);
  }
  media[2]->gone = true;
  settle();
  EXPECT_EQ(cluster->data().repair_status().lowest_redundancy, 2u);
  EXPECT_EQ(fsck(), "");
  const auto lost = media[2]->tree;
  EXPECT_FALSE(lost.empty());
  for (size_t i = 0; i < written.size(); ++i) {
    const std::string path = fmt::format("bucket/f{}", i);
    EXPECT_EQ(shown(path, written[i].second), lost.contains(path) ? 2u : 1u) << path;
  }
  media[0]->gone = media[4]->gone = true;  // two more
  for (const auto& [layout, bytes] : written) EXPECT_EQ(*read(layout), bytes);
}

TEST_F(WholeTest, full_drives_make_writes_narrower_never_less_safe) {
  add_media(6);
  ASSERT_TRUE(create("whole:3+2"));
  media[3]->ballast = 256 * kMiB;
  ASSERT_TRUE(open());
  const std::string bytes = random_bytes(1, 2'000'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout) << layout.error().to_string();
  EXPECT_EQ(layout->redundancy.to_string(), "whole:2+2");
  EXPECT_EQ(media[3]->of_kind(ChunkKind::data).size(), 0u);
  media[2]->ballast = 256 * kMiB;
  ASSERT_TRUE(open());
  auto narrow = write(bytes);
  ASSERT_TRUE(narrow) << narrow.error().to_string();
  EXPECT_EQ(narrow->redundancy.to_string(), "mirror:4");
  media[0]->gone = media[1]->gone = media[4]->gone = true;
  EXPECT_EQ(*read(*layout), bytes);
  EXPECT_EQ(*read(*narrow), bytes);
}

TEST_F(WholeTest, the_room_that_is_left_is_told_for_copy_and_slices) {
  add_media(4);
  ASSERT_TRUE(create("whole:2+1"));
  uint64_t room = 0;
  for (int number = 1; number <= 4; ++number) room += plane().plane().drives.topology()->drive(number)->room();
  const auto told = static_cast<double>(cluster->data().space_status().usable_free_bytes);
  EXPECT_LE(told, static_cast<double>(room) / 2.5);
  EXPECT_GT(told, static_cast<double>(room) / 2.5 * 0.85) << "groups do not load the drives quite alike";
}

TEST_F(WholeTest, too_few_drives_are_named) {
  add_media(3);
  const auto refused = create("whole:2+1");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().context().find("needs 4 drives or failure domains, there are 3: add 1"), std::string::npos)
      << refused.error().context();
}

TEST_F(WholeTest, stripes_of_many_slices_stay_within_a_chunk) {
  add_media(20);
  tuning.shard_bytes = kMiB;
  ASSERT_TRUE(create("whole:16+3"));
  const std::string bytes = random_bytes(1, 9'000'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout) << layout.error().to_string();
  EXPECT_LE(layout->stripe_bytes(), 4 * kMiB);
  EXPECT_EQ(*read(*layout), bytes);
  for (unsigned shard : {0u, 3u, 9u, 17u}) media[medium_of(*layout, shard)]->gone = true;
  EXPECT_EQ(*read(*layout), bytes);
}

}  // namespace
}  // namespace quarry::cluster
