// The parts of the raw store that need no device: layout, index, space, reader gate, superblock agreement, and the page's example.
#include <gtest/gtest.h>

#include "base/coding.h"
#include "chunk/raw/chunk_index.h"
#include "chunk/raw/extent_lists.h"
#include "chunk/raw/geometry.h"
#include "chunk/raw/journal.h"
#include "chunk/raw/reader_gate.h"
#include "chunk/raw/space_map.h"
#include "chunk/raw/superblock_set.h"
#include "codec/crc32c.h"
#include "io/clock.h"

namespace quarry::chunk::raw {
namespace {

TEST(RawFormat, the_example_of_the_format_page_is_what_the_code_writes) {
  FrameHeader header;
  header.stream = 1;
  for (int i = 0; i < 16; ++i) header.drive.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(0x10 + i);
  header.segment = 3;
  header.generation = 2;
  header.number = 5;
  header.chain = 0x11223344;
  header.after = 77;
  header.blocks = 1;
  const ChunkId id{0x0102030405060708ull, 0x0a};
  header.items.push_back({id, 128, 5, crc32c(checksum_seed(id, 0), bytes_of("hello"))});
  Buffer frame(kBlock);
  encode_frame_header(header, 0x0123456789abcdefull, frame.mutable_view());
  EXPECT_EQ(to_hex(frame.view().first(64)),
            "51525946"
            "52414d45c4a12fa601000101"
            "101112131415161718191a1b1c1d1e1f"
            "03000000020000000500000044332211"
            "4d000000000000000100000001000000");
  EXPECT_EQ(to_hex(frame.view().subspan(96, 32)), "08070605040302010a0000000000000080000000050000006e4fa0d100000000");
}

TEST(RawFormat, layouts_tile_the_device_from_64_mib_to_30_tib) {
  for (const uint64_t size : {64 * kMiB, 65 * kMiB + 4096, 512 * kMiB, 1 * kGiB, 10 * kGiB, 64 * kGiB, 1 * kTiB, 30 * kTiB}) {
    const uint64_t segment = default_segment_size(size);
    const auto layout = plan_layout(size, segment);
    ASSERT_TRUE(layout) << size;
    EXPECT_GE(layout->zones.size(), 3u) << size;
    const Geometry geometry(layout->spans, segment);
    EXPECT_GE(static_cast<double>(geometry.segments() * segment), 0.93 * static_cast<double>(size)) << size;
    if (size >= kGiB) EXPECT_GE(static_cast<double>(geometry.segments() * segment), 0.985 * static_cast<double>(size)) << size;
    uint64_t end = kZoneSize;
    for (uint32_t i = 0; i < geometry.segments(); i += 1 + geometry.segments() / 1000) {
      const uint64_t at = geometry.offset_of(i);
      EXPECT_GE(at, end);
      end = at + segment;
      EXPECT_EQ(geometry.segment_at(at), i);
      EXPECT_EQ(geometry.segment_at(at + segment - 1), i);
      EXPECT_EQ(geometry.segment_of({at / kBlock, geometry.data_blocks()}), i);
      EXPECT_EQ(geometry.segment_of({at / kBlock, geometry.data_blocks() + 1}), kNoSegment);
      for (const uint64_t zone : layout->zones) EXPECT_TRUE(zone + kZoneSize <= at || zone >= at + segment) << "a segment covers a zone";
    }
    EXPECT_LE(end, size);
    EXPECT_LE(lane_reserve(geometry.segments()) * 2, lane_size(segment)) << "the table must fit a lane";
    // Grown, every segment stays where it was.
    const auto grown = grow_layout(*layout, size, size * 2, segment);
    ASSERT_TRUE(grown);
    const Geometry larger(grown->spans, segment);
    EXPECT_GT(larger.segments(), geometry.segments());
    for (uint32_t i = 0; i < geometry.segments(); i += 1 + geometry.segments() / 100) EXPECT_EQ(larger.offset_of(i), geometry.offset_of(i));
    EXPECT_FALSE(grow_layout(*layout, size, size - kMiB, segment));
  }
  EXPECT_FALSE(plan_layout(32 * kMiB, 2 * kMiB));
  EXPECT_FALSE(plan_layout(kGiB, 3 * kMiB));
}

TEST(RawChunkIndex, behaves_like_a_sorted_map_and_stays_small) {
  ChunkIndex index;
  std::map<ChunkId, uint64_t> model;
  SeededRandom random(1);
  for (int i = 0; i < 60'000; ++i) {
    const ChunkId id{random.below(4), random.below(40'000)};
    if (random.below(3) == 0) {
      EXPECT_EQ(index.erase(id), model.erase(id) == 1);
    } else {
      const uint64_t place = random.u64();
      index.put({id, place, 1, 2});
      model[id] = place;
    }
  }
  EXPECT_EQ(index.size(), model.size());
  auto expected = model.begin();
  index.visit({}, [&](const IndexEntry& entry) {
    EXPECT_EQ(entry.id, expected->first);
    EXPECT_EQ(entry.place, expected->second);
    ++expected;
    return true;
  });
  EXPECT_EQ(expected, model.end());
  EXPECT_EQ(index.find({9, 9}), nullptr);
  const ChunkId middle{2, 0};
  const auto leaf = index.leaf_from(middle);
  ASSERT_FALSE(leaf.empty());
  EXPECT_EQ(leaf.front().id, model.lower_bound(middle)->first);
  EXPECT_LT(index.bytes(), model.size() * 64);
  for (const auto& [id, place] : model) ASSERT_TRUE(index.erase(id));
  EXPECT_EQ(index.size(), 0u);
  EXPECT_TRUE(index.leaf_from({}).empty());
}

TEST(RawChunkIndex, a_million_chunks_take_under_64_bytes_each_in_any_order) {
  for (const bool ascending : {true, false}) {
    ChunkIndex index;
    for (uint64_t i = 0; i < 200'000; ++i) index.put({ascending ? ChunkId{1, i} : ChunkId{i * 0x9e3779b97f4a7c15ull, i}, i, 1, 1});
    EXPECT_LE(index.bytes(), 200'000u * (ascending ? 40 : 48)) << ascending;
  }
}

TEST(RawSpaceMap, gives_out_and_takes_back_every_block) {
  const auto layout = plan_layout(64 * kMiB, 2 * kMiB);
  ASSERT_TRUE(layout);
  for (const auto policy : {AllocationPolicy::spread, AllocationPolicy::ascending}) {
    SpaceMap space;
    space.reset(Geometry(layout->spans, 2 * kMiB), policy);
    const uint32_t segments = space.free_segments();
    std::vector<uint32_t> mine;
    for (int i = 0; i < 4; ++i) {
      mine.push_back(space.take_segment());
      space[mine.back()].role = Role::extent;
      space.open_extents(mine.back());
    }
    EXPECT_EQ(space.free_segments(), segments - 4);
    SeededRandom random(7);
    std::vector<raw::Run> held;
    std::set<uint64_t> blocks;
    for (int i = 0; i < 20'000; ++i) {
      if (random.below(2) == 0 && !held.empty()) {
        const size_t at = random.below(held.size());
        for (uint32_t k = 0; k < held[at].blocks; ++k) ASSERT_EQ(blocks.erase(held[at].block + k), 1u);
        --space[space.geometry().segment_of(held[at])].pending;
        space.release(held[at]);
        held.erase(held.begin() + static_cast<ptrdiff_t>(at));
        continue;
      }
      std::vector<raw::Run> runs;
      const auto want = static_cast<uint32_t>(1 + random.below(200));
      if (const auto run = space.allocate(want))
        runs.push_back(*run);
      else if (random.below(2) == 0)
        runs = space.allocate_scattered(want);
      uint32_t got = 0;
      for (const auto& run : runs) {
        got += run.blocks;
        ASSERT_NE(space.geometry().segment_of(run), kNoSegment);
        for (uint32_t k = 0; k < run.blocks; ++k) ASSERT_TRUE(blocks.insert(run.block + k).second) << "given out twice";
        held.push_back(run);
      }
      if (!runs.empty()) EXPECT_EQ(got, want);
    }
    EXPECT_EQ(space.free_run_blocks() + blocks.size(), 4u * space.geometry().data_blocks());
    for (const auto& run : held) {
      --space[space.geometry().segment_of(run)].pending;
      space.release(run);
    }
    for (const uint32_t segment : mine) {
      ASSERT_EQ(space[segment].free_runs.size(), 1u);
      EXPECT_EQ(space[segment].largest, space.geometry().data_blocks());
      space.give_segment(segment);
    }
    EXPECT_EQ(space.free_segments(), segments);
    EXPECT_EQ(space.free_run_blocks(), 0u);
  }
}

TEST(RawSpaceMap, a_segment_in_which_a_write_failed_is_the_last_to_be_taken) {
  const auto layout = plan_layout(64 * kMiB, 2 * kMiB);
  ASSERT_TRUE(layout);
  for (const auto policy : {AllocationPolicy::spread, AllocationPolicy::ascending}) {
    SpaceMap space;
    space.reset(Geometry(layout->spans, 2 * kMiB), policy);
    const uint32_t segments = space.free_segments();
    const uint32_t bad = space.take_segment();
    space[bad].role = Role::extent;
    space.open_extents(bad);
    const auto run = space.allocate(10);
    ASSERT_TRUE(run);
    space.retire(bad);
    EXPECT_EQ(space.free_run_blocks(), 0u) << "nothing is put there";
    --space[bad].pending;
    space.release(*run);
    space.give_segment(bad);
    EXPECT_EQ(space.free_run_blocks(), 0u);
    const auto take = [&space] {
      const uint32_t taken = space.take_segment();
      if (taken != kNoSegment) space[taken].role = Role::packed;
      return taken;
    };
    for (int failures = 1;; ++failures) {
      EXPECT_EQ(space.free_segments(), segments);
      for (uint32_t i = 1; i < segments; ++i) ASSERT_NE(take(), bad);
      ASSERT_EQ(take(), bad);
      EXPECT_EQ(take(), kNoSegment);
      space.retire(bad);
      for (uint32_t i = 0; i < segments; ++i) space.give_segment(i);
      if (failures + 1 == kSegmentFailuresMax) break;
    }
    EXPECT_EQ(space.free_segments(), segments - 1);
    for (uint32_t i = 1; i < segments; ++i) ASSERT_NE(take(), bad);
    EXPECT_EQ(take(), kNoSegment);
  }
}

TEST(RawReaderGate, waits_for_the_reads_that_were_there_and_no_others) {
  ReaderGate gate;
  int freed = 0;
  gate.when_quiet([&] { ++freed; });
  EXPECT_EQ(freed, 1);
  const auto first = gate.enter(), second = gate.enter();
  gate.when_quiet([&] { ++freed; });
  const auto third = gate.enter();
  gate.leave(second);
  EXPECT_EQ(freed, 1);
  gate.leave(first);
  EXPECT_EQ(freed, 2);
  gate.leave(third);
  EXPECT_EQ(gate.reading(), 0u);
}

SuperblockCopy copy_of(uint64_t zone, uint64_t sequence, uint32_t identity, uint32_t previous = 0, uint8_t drive = 1) {
  SuperblockCopy copy;
  copy.zone = zone;
  copy.identity = identity;
  copy.superblock.sequence = sequence;
  copy.superblock.previous = previous;
  copy.superblock.drive = {{drive}};
  return copy;
}

TEST(RawSuperblock, agreement_follows_the_rule) {
  EXPECT_FALSE(agree({}));
  EXPECT_EQ(agree({copy_of(0, 5, 50)}), 0u);                                              // the only one left
  EXPECT_EQ(agree({copy_of(0, 4, 40), copy_of(1, 5, 50), copy_of(2, 5, 50)}), 1u);        // two agree on the newest
  EXPECT_EQ(agree({copy_of(0, 4, 40), copy_of(1, 4, 40), copy_of(2, 5, 50, 40)}), 2u);    // cut short, but it follows
  EXPECT_EQ(agree({copy_of(0, 4, 40), copy_of(1, 4, 40), copy_of(2, 5, 50, 99)}), 0u);    // a stranger
  EXPECT_EQ(agree({copy_of(0, 4, 40), copy_of(1, 4, 40), copy_of(2, 9, 90, 0, 2)}), 0u);  // of another drive
  EXPECT_EQ(agree({copy_of(0, 5, 50), copy_of(1, 5, 51), copy_of(2, 5, 51)}), 1u);        // the majority
  EXPECT_FALSE(agree({copy_of(0, 3, 30), copy_of(1, 5, 50)}));                            // nothing links them
}

// A checkpoint lists what lies in some segments by a walk over the index, while chunks come, go and are moved.
TEST(RawExtentLists, are_exact_whatever_changes_while_the_index_is_walked) {
  constexpr uint64_t kSegment = 2 * kMiB;
  const auto layout = plan_layout(64 * kMiB, kSegment);
  ASSERT_TRUE(layout);
  const Geometry geometry(layout->spans, kSegment);
  constexpr uint32_t kBlocks = 8, kPlaces = 60, kSegments = 10;
  uint64_t changed_behind = 0, changed_ahead = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SeededRandom random(seed);
    ChunkIndex index;
    std::map<ChunkId, IndexEntry> present;
    std::set<uint64_t> free;  // offsets
    for (uint32_t segment = 1; segment <= kSegments; ++segment) {
      for (uint32_t k = 0; k < kPlaces; ++k) free.insert((geometry.block_of(segment) + k * kBlocks) * kBlock);
    }
    ExtentLists lists(geometry);
    for (const uint32_t segment : {2u, 3u, 7u}) lists.add_segment(segment);
    const auto run_of = [](const IndexEntry& entry) { return raw::Run{entry.offset() / kBlock, kBlocks}; };
    const auto enter = [&](ChunkId id) {
      auto at = free.begin();
      std::advance(at, random.below(free.size()));
      const IndexEntry entry{id, *at, (kBlocks - 1) * kBlock, static_cast<uint32_t>(random.u64())};
      free.erase(at);
      index.put(entry);
      present[id] = entry;
      const raw::Run run = run_of(entry);
      lists.entered(entry, {&run, 1});
      ++(id < lists.walked_to() ? changed_behind : changed_ahead);
    };
    const auto leave = [&](const IndexEntry entry, bool moved) {
      const raw::Run run = run_of(entry);
      lists.left(entry, {&run, 1});
      free.insert(entry.offset());
      present.erase(entry.id);
      if (!moved) index.erase(entry.id);
    };
    const auto change = [&] {
      auto one = present.begin();
      std::advance(one, random.below(present.size()));
      const IndexEntry entry = one->second;
      switch (random.below(3)) {
        case 0: leave(entry, false); break;
        case 1: enter({random.u64(), random.u64()}); break;
        default: leave(entry, true); enter(entry.id);
      }
    };
    for (int i = 0; i < 400; ++i) enter({random.u64(), random.u64()});
    for (;;) {
      const auto leaf = index.leaf_from(lists.walked_to());
      if (leaf.empty()) break;
      for (const auto& entry : leaf) {
        const raw::Run run = run_of(entry);
        lists.walk(entry, {&run, 1});
      }
      for (int i = 0; i < 20; ++i) change();
    }
    lists.finish_walk();
    for (const uint32_t segment : {2u, 3u, 7u}) {
      for (int i = 0; i < 20; ++i) change();
      std::map<uint32_t, std::pair<ChunkId, uint32_t>> truth, listed;
      for (const auto& [id, entry] : present) {
        if (geometry.segment_at(entry.offset()) == segment)
          truth[static_cast<uint32_t>(entry.offset() / kBlock - geometry.block_of(segment))] = {id, entry.crc};
      }
      const auto list = lists.take(segment);
      for (const auto& one : list) listed[one.block] = {one.id, one.header_crc};
      EXPECT_EQ(list.size(), truth.size()) << "seed " << seed;
      EXPECT_EQ(listed, truth) << "seed " << seed;
    }
  }
  EXPECT_GT(changed_behind, 1000u);
  EXPECT_GT(changed_ahead, 1000u);
}

}  // namespace
}  // namespace quarry::chunk::raw
