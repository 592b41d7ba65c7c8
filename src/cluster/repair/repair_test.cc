// Drives that die, return, are replaced, drained and added; damaged chunks; slow drives.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/reached.h"
#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

class RepairTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void fill(int count, size_t size = 400'000) {
    for (int i = 0; i < count; ++i) {
      contents.push_back(random_bytes(1000 + contents.size(), i % 3 == 0 ? 50'000 : size + i));
      auto layout = write(contents.back());
      ASSERT_TRUE(layout) << layout.error().to_string();
      layouts.push_back(*layout);
    }
  }
  void check_all() {
    for (size_t i = 0; i < layouts.size(); ++i) {
      auto back = read(layouts[i]);
      ASSERT_TRUE(back) << i << " " << back.error().to_string();
      ASSERT_TRUE(*back == contents[i]) << i;
    }
  }
  uint32_t count_chunks(size_t medium) { return static_cast<uint32_t>(media[medium]->of_kind(ChunkKind::data).size()); }

  std::vector<DataLayout> layouts;
  std::vector<std::string> contents;
};

TEST_F(RepairTest, reads_survive_any_m_drives_and_not_more) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(12);
  for (size_t a = 0; a < 6; ++a) {
    for (size_t b = a + 1; b < 6; ++b) {
      media[a]->gone = media[b]->gone = true;
      ASSERT_TRUE(open()) << a << b;
      check_all();
      media[a]->gone = media[b]->gone = false;
    }
  }
  ASSERT_TRUE(open());
  media[0]->gone = media[1]->gone = media[2]->gone = true;
  bool lost = false;
  for (size_t i = 0; i < layouts.size(); ++i) {
    auto back = read(layouts[i]);
    if (back) {
      EXPECT_EQ(*back, contents[i]);
    } else {
      lost = true;
      EXPECT_EQ(back.error().code(), Code::data_lost) << back.error().to_string();
    }
  }
  EXPECT_TRUE(lost);
}

TEST_F(RepairTest, a_drive_that_dies_during_reads_is_not_noticed_by_the_reader) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(6, 2'000'000);
  for (size_t i = 0; i < layouts.size(); ++i) {
    auto reader = cluster->data().read(layouts[i], 0, layouts[i].size, CachePolicy::normal);
    std::string back;
    for (int piece = 0;; ++piece) {
      auto bytes = executor.run(reader->next(kMiB));
      ASSERT_TRUE(bytes) << bytes.error().to_string();
      if (bytes->empty()) break;
      back.append(text_of(*bytes));
      if (piece == 3) media[i % 2]->gone = true;
    }
    ASSERT_EQ(back, contents[i]);
  }
}

TEST_F(RepairTest, writes_go_on_with_drives_away_and_are_completed_when_they_return) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(4);
  media[2]->gone = true;
  fill(6);
  check_all();
  // A second loss leaves four drives: enough to read, too few to promise a loss.
  media[4]->gone = true;
  EXPECT_EQ(write(random_bytes(5, 500'000)).error().code(), Code::unavailable);
  media[4]->gone = false;
  media[2]->gone = false;
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(fsck(), "");
  media[0]->gone = media[1]->gone = true;
  ASSERT_TRUE(open());
  check_all();
}

TEST_F(RepairTest, a_lost_drive_is_rebuilt_on_a_spare) {
  add_media(8);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("ec:4+2"));
  fill(20);
  media[1]->gone = true;
  settle();
  EXPECT_EQ(cluster->data().drives()[1].state, "failed");
  EXPECT_EQ(fsck(), "");
  media[0]->gone = media[5]->gone = true;  // two more
  check_all();
  ASSERT_TRUE(open());
  check_all();
  settle();
  EXPECT_EQ(cluster->data().repair_status().lost_writes, 0u);
  check_all();
}

TEST_F(RepairTest, without_a_spare_data_stays_degraded_and_says_so_until_a_drive_is_added) {
  add_media(4);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("ec:2+2"));
  fill(10);
  media[3]->gone = true;
  settle();
  EXPECT_EQ(cluster->data().repair_status().lowest_redundancy, 1u);
  EXPECT_NE(cluster->data().repair_status().activity.find("add a drive"), std::string::npos);
  fill(4);
  auto added = executor.run(cluster->data().add_drive("new", false));
  ASSERT_TRUE(added) << added.error().to_string();
  settle();
  EXPECT_EQ(cluster->data().repair_status().lowest_redundancy, 2u);
  EXPECT_EQ(cluster->data().repair_status().activity, "idle");
  EXPECT_EQ(fsck(), "");
  media[0]->gone = media[1]->gone = true;
  check_all();
  ASSERT_TRUE(open());
  check_all();
}

TEST_F(RepairTest, a_lost_drive_that_returns_serves_again) {
  add_media(6);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("ec:2+2"));
  fill(12);
  close();
  media[2]->gone = true;
  ASSERT_TRUE(open());
  settle();
  ASSERT_TRUE(retire(layouts[0]));
  layouts.erase(layouts.begin());
  contents.erase(contents.begin());
  fill(6);
  settle();
  EXPECT_EQ(fsck(), "");
  close();
  media[2]->gone = false;
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(cluster->data().drives()[2].state, "active");
  EXPECT_EQ(fsck(), "");
  check_all();
  media[0]->gone = media[5]->gone = true;
  ASSERT_TRUE(open());
  check_all();
}

TEST_F(RepairTest, a_drained_drive_ends_empty_and_can_be_removed) {
  add_media(6);
  ASSERT_TRUE(create("ec:2+2"));
  fill(16);
  EXPECT_EQ(executor.run(cluster->data().remove_drive(3, false)).error().code(), Code::precondition_failed);
  ASSERT_GT(count_chunks(2), 0u);
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(3)));
  fill(4);
  settle();
  EXPECT_EQ(count_chunks(2), 0u);
  check_all();
  auto removed = executor.run(cluster->data().remove_drive(3, false));
  ASSERT_TRUE(removed) << removed.error().to_string();
  EXPECT_EQ(fsck(), "");
  media.erase(media.begin() + 2);
  ASSERT_TRUE(open());
  EXPECT_EQ(cluster->data().drives()[2].state, "removed");
  check_all();
  media[0]->gone = media[1]->gone = true;
  ASSERT_TRUE(open()) << "neither data nor metadata waits for the removed drive";
  check_all();
}

TEST_F(RepairTest, a_drive_that_refuses_writes_is_drained) {
  add_media(6);
  tuning.missing_grace = Duration(0);
  ASSERT_TRUE(create("ec:2+2"));
  fill(12);
  media[1]->read_only = true;
  fill(12);
  settle();
  EXPECT_EQ(cluster->data().drives()[1].state, "draining");
  EXPECT_EQ(count_chunks(1), 0u);
  EXPECT_EQ(fsck(), "");
  check_all();
}

TEST_F(RepairTest, draining_below_the_width_is_refused) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  auto refused = executor.run(cluster->data().drain_drive(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::precondition_failed);
  EXPECT_NE(refused.error().context().find("add a drive first"), std::string::npos);
}

TEST_F(RepairTest, a_replaced_drive_hands_its_data_to_the_new_one) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  fill(10);
  ASSERT_TRUE(executor.run(cluster->data().replace_drive(2, "new", false)));
  settle();
  EXPECT_EQ(count_chunks(1), 0u);
  EXPECT_GT(count_chunks(4), 0u);
  EXPECT_EQ(fsck(), "");
  check_all();
  EXPECT_EQ(cluster->data().drives()[1].state, "removed") << "it holds nothing any more";
  media[1]->gone = true;
  media[0]->gone = media[2]->gone = true;
  ASSERT_TRUE(open());
  check_all();
}

TEST_F(RepairTest, an_added_drive_takes_its_share) {
  add_media(5);
  ASSERT_TRUE(create("ec:2+2"));
  fill(40, 150'000);
  ASSERT_TRUE(executor.run(cluster->data().add_drive("new", false)));
  settle();
  EXPECT_GT(count_chunks(5), 0u);
  EXPECT_EQ(fsck(), "");
  check_all();
  ASSERT_TRUE(open());
  check_all();
  EXPECT_EQ(fsck(), "");
}

TEST_F(RepairTest, a_crash_in_the_middle_of_a_move_is_resumed) {
  add_media(5);
  ASSERT_TRUE(create("ec:2+2"));
  fill(20, 150'000);
  ASSERT_TRUE(executor.run(cluster->data().add_drive("new", false)));
  media[5]->puts_until_gone = 9;  // the move stops after some chunks
  auto stopped = executor.run(cluster->settle());
  std::move(stopped).ignore("the drive died on the way");
  check_all();
  crash();
  media[5]->gone = false;
  ASSERT_TRUE(open());
  check_all();
  settle();
  EXPECT_EQ(fsck(), "");
  check_all();
}

TEST_F(RepairTest, damaged_and_missing_chunks_are_read_around_and_repaired) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(9);
  size_t damaged = 0;
  for (size_t i = 0; i < 2; ++i) {
    for (ChunkId id : media[i]->of_kind(ChunkKind::data)) {
      if (++damaged % 2 == 0) {
        media[i]->corrupt.insert(id);
      } else {
        media[i]->chunks.erase(id);
      }
    }
  }
  check_all();  // repair is asked for on the way
  executor.run(sleep_for(std::chrono::seconds(30)));
  settle();
  ASSERT_TRUE(executor.run(plane().scrubber().pass()));  // parity that no reader met
  settle();
  EXPECT_EQ(fsck(), "");
  for (auto& medium : media) EXPECT_TRUE(medium->corrupt.empty());
  media[2]->gone = media[3]->gone = true;
  check_all();
}

// No drive is due: that somebody asked is all there is.
TEST_F(RepairTest, scrub_that_was_asked_for_and_ended_early_goes_on_later) {
  add_media(4);
  ASSERT_TRUE(create("mirror:2"));
  fill(5);
  executor.run(sleep_for(std::chrono::seconds(1)));
  meta_store->set_faults({.unavailable_probability = 1});
  ASSERT_TRUE(executor.run(cluster->data().start_scrub()));
  executor.run(sleep_for(std::chrono::seconds(5)));
  ASSERT_NE(cluster->data().scrub_status().reason.find("ended early"), std::string::npos) << "it did not begin: nothing was tested";
  meta_store->set_faults({});
  executor.run(sleep_for(std::chrono::hours(1)));
  EXPECT_GT(cluster->data().scrub_status().last_complete, 0);
}

TEST_F(RepairTest, scrub_finds_silent_damage_and_repairs_it) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(9);
  size_t damaged = 0;
  for (ChunkId id : media[3]->of_kind(ChunkKind::data)) {
    if (damaged++ % 3 == 0) media[3]->corrupt.insert(id);
  }
  const size_t expected = media[3]->corrupt.size();
  ASSERT_GT(expected, 0u);
  auto passed = executor.run(plane().scrubber().pass());
  ASSERT_TRUE(passed) << passed.error().to_string();
  EXPECT_EQ(cluster->data().scrub_status().damaged, expected);
  EXPECT_EQ(cluster->data().scrub_status().repaired, expected);
  EXPECT_TRUE(media[3]->corrupt.empty());
  EXPECT_EQ(fsck(), "");
  check_all();
  // Damage the rewritten ones again: a chunk id is never reused, however often it happens.
  for (int round = 0; round < 5; ++round) {
    for (ChunkId id : media[3]->of_kind(ChunkKind::data)) media[3]->corrupt.insert(id);
    ASSERT_TRUE(executor.run(plane().scrubber().pass()));
    EXPECT_TRUE(media[3]->corrupt.empty());
  }
  check_all();
}

TEST_F(RepairTest, leftovers_that_no_record_explains_are_named_and_removed) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  fill(3);
  const ChunkId orphan = chunk_id({.kind = ChunkKind::data, .serial = 0, .group = 3, .stripe = 0, .shard = 1});
  media[1]->chunks.emplace(orphan, std::make_shared<const std::string>("orphan"));
  const ChunkId frame = chunk_id({.kind = ChunkKind::metadata_frame, .serial = 0, .generation = 1});
  media[2]->chunks.emplace(frame, std::make_shared<const std::string>("frame"));
  const std::string found = fsck();
  EXPECT_NE(found.find("belongs to no data row"), std::string::npos) << found;
  EXPECT_NE(found.find("not in use by the metadata log"), std::string::npos) << found;
  ASSERT_TRUE(executor.run(cluster->data().fsck(true)));
  EXPECT_EQ(fsck(), "");
  check_all();
}

TEST_F(RepairTest, a_missing_shard_is_named) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  fill(3);
  const ChunkId victim = media[0]->of_kind(ChunkKind::data)[0];
  media[0]->chunks.erase(victim);
  const std::string found = fsck();
  EXPECT_NE(found.find(fmt::format("write {} stripe 0: shards missing", chunk_name(victim).serial)), std::string::npos) << found;
}

TEST_F(RepairTest, a_slow_drive_does_not_slow_reads) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  fill(30, 600'000);
  for (auto& medium : media) medium->delay = std::chrono::milliseconds(1);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(read(layouts[i]));  // the drives become known
  media[2]->delay = std::chrono::seconds(2);
  const TimePoint begin = executor.now();
  for (int round = 0; round < 3; ++round) check_all();
  const auto took = executor.now() - begin;
  EXPECT_LT(took, std::chrono::seconds(30)) << "90 reads, most of which would wait 2 s for the slow drive";
  const Plane& p = plane().plane();
  EXPECT_LE(p.bytes_hedged.load() * 20, p.bytes_read.load() + 4 * kMiB * 20);
}

// Random writes, reads, removals and clean or unclean restarts, with drives that fail, return, are replaced or drained, never more than m
// of them away at a time.
uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Life {
  const char* name;
  const char* redundancy;
  bool files;  // drives keep files: writes have names, and what is shown is what was written last
};
constexpr Life kLives[] = {
    {"slices", "ec:2+2", false},
    {"whole", "whole:2+1", false},
    {"files_and_slices", "whole:2+1", true},
    {"files", "mirror:3", true},
    {"single", "mirror:1", false}};  // what is lost for a moment is lost for good: no drive dies and nothing rots, all else goes on

class RandomLife : public RepairTest, public ::testing::WithParamInterface<Life> {
 protected:
  // Moves, an audit that removes, and writes, while drives come and go: all of it overlaps.
  static Task<void> settle_in(RandomLife* self, Duration delay) {
    co_await sleep_for(delay);
    Result<void> done = co_await self->cluster->settle();
    std::move(done).ignore("a drive may refuse what comes too early");
  }
  static Task<void> audit_in(RandomLife* self, Duration delay) {
    co_await sleep_for(delay);
    auto report = co_await self->cluster->data().fsck(true);
    std::move(report).ignore("what counts is what it removes");
  }
  static Task<void> write_in(RandomLife* self, Duration delay, std::string bytes) {
    co_await sleep_for(delay);
    auto layout = co_await write_task(self, bytes, self->default_redundancy(), true, 300'000);
    if (layout) self->written.emplace_back(*layout, std::move(bytes));
  }
  static Task<void> change_in(RandomLife* self, Duration delay, uint64_t what, uint32_t number) {
    co_await sleep_for(delay);
    DataPlane& data = self->cluster->data();
    Result<void> done;
    if (what == 0) done = co_await data.add_drive("new", false);
    if (what == 1) done = co_await data.drain_drive(number);
    if (what == 2) done = co_await data.replace_drive(number, "new", false);
    std::move(done).ignore("may be refused: too few drives, drained already");
  }
  static Task<void> overlap(RandomLife* self, SeededRandom* rng) {
    const auto soon = [&] { return Duration(std::chrono::microseconds(rng->below(30'000))); };
    for (auto& medium : self->media) medium->put_delay = std::chrono::microseconds(300);
    TaskGroup group;
    group.spawn(settle_in(self, Duration(0)));
    for (int i = 0; i < 3; ++i)
      group.spawn(change_in(self, soon(), rng->below(3), static_cast<uint32_t>(1 + rng->below(self->media.size()))));
    for (int i = 0; i < 3; ++i) group.spawn(write_in(self, soon(), random_bytes(rng->u64(), 1 + rng->below(300'000))));
    group.spawn(audit_in(self, soon()));
    co_await group.join();
    for (auto& medium : self->media) medium->put_delay = Duration(0);
  }
  std::vector<std::pair<DataLayout, std::string>> written;
};
INSTANTIATE_TEST_SUITE_P(Redundancies, RandomLife, ::testing::ValuesIn(kLives),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(RandomLife, of_a_cluster_loses_nothing) {
  const Life& life = GetParam();
  const uint64_t seeds = number_from("QUARRY_SEEDS", 12);  // for a night: QUARRY_SEEDS=1000
  const uint64_t from = number_from("QUARRY_SEED", 1);
  [[maybe_unused]] const uint64_t met_before = points_reached()["repair.ground_changed"];
  for (uint64_t seed = from; seed < from + seeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    SeededRandom rng(seed);
    close();
    media.clear();
    meta_media = meta::make_memory_meta_media();
    random = SeededRandom(seed);
    tuning.missing_grace = rng.below(2) == 0 ? Duration(0) : Duration(std::chrono::hours(1000));
    tuning.cache_bytes = rng.below(2) * 2 * kMiB;
    new_media_keep_files = life.files;
    add_media(6 + rng.below(3));
    for (auto& medium : media) medium->files = life.files;
    ASSERT_TRUE(create(life.redundancy));
    std::map<WriteId, std::pair<DataLayout, std::string>> oracle;
    std::map<WriteId, std::string> names;
    for (int step = 0; step < 60; ++step) {
      SCOPED_TRACE(fmt::format("step {}", step));
      size_t away = 0;
      for (auto& medium : media) away += medium->gone;
      switch (rng.below(14)) {
        case 0: {  // a drive dies
          // One at a time: a write needs three of four, and repair may not have rebuilt the last one yet.
          if (away == 0 && default_redundancy().losses() > 0) media[rng.below(media.size())]->gone = true;
          break;
        }
        case 1:
        case 2: {  // all come back, with a restart
          if (rng.below(2) == 0) crash();
          close();
          for (auto& medium : media) medium->gone = false;
          auto opened = open();
          ASSERT_TRUE(opened) << opened.error().to_string();
          settle();
          ASSERT_EQ(fsck(), "");
          break;
        }
        case 3: settle(); break;
        case 4: {
          if (away > 0 || media.size() > 12) break;
          const uint64_t what = rng.below(3);
          const auto number = static_cast<uint32_t>(1 + rng.below(media.size()));
          Result<void> done = what == 0   ? executor.run(cluster->data().add_drive("new", false))
                              : what == 1 ? executor.run(cluster->data().drain_drive(number))
                                          : executor.run(cluster->data().replace_drive(number, "new", false));
          std::move(done).ignore("may be refused: too few drives, drained already");
          break;
        }
        case 5: {
          if (oracle.empty()) break;
          auto victim = std::next(oracle.begin(), static_cast<long>(rng.below(oracle.size())));
          auto done = retire(victim->second.first);
          ASSERT_TRUE(done) << done.error().to_string();
          oracle.erase(victim);
          break;
        }
        case 12: {  // the map is planned anew while repair moves what was planned before
          if (away > 0 || media.size() > 12) break;
          executor.run(overlap(this, &rng));
          for (auto& [layout, bytes] : written) oracle[layout.write_id] = {layout, bytes};
          written.clear();
          break;
        }
        case 6: {  // rot
          if (away > 0 || default_redundancy().losses() == 0) break;
          auto& medium = media[rng.below(media.size())];
          auto ids = medium->of_kind(ChunkKind::data);
          // One at a time: another shard of the write may be on its way still.
          const bool rotten = std::ranges::any_of(media, [](const auto& each) { return !each->corrupt.empty(); });
          if (!ids.empty() && !rotten) medium->corrupt.insert(ids[rng.below(ids.size())]);
          break;
        }
        default: {
          const std::string bytes = random_bytes(rng.u64(), 1 + rng.below(rng.below(2) == 0 ? 10'000 : 700'000));
          auto layout = life.files ? write_file(fmt::format("n{}", step), bytes, default_redundancy(), false) : write(bytes);
          ASSERT_TRUE(layout) << layout.error().to_string();
          // As the object engine: what could not be shown is seen to at the next start.
          Result<bool> shown = life.files ? executor.run(cluster->data().files().show(*layout, {})) : Result<bool>(true);
          std::move(shown).ignore("a drive is away");
          oracle[layout->write_id] = {*layout, bytes};
          names[layout->write_id] = fmt::format("bucket/n{}", step);
        }
      }
      if (oracle.empty()) continue;
      for (int i = 0; i < 3; ++i) {
        auto& [layout, bytes] = std::next(oracle.begin(), static_cast<long>(rng.below(oracle.size())))->second;
        const uint64_t offset = rng.below(bytes.size());
        auto back = read(layout, offset, bytes.size() - offset);
        ASSERT_TRUE(back) << back.error().to_string();
        ASSERT_TRUE(*back == bytes.substr(offset)) << layout.write_id;
      }
    }
    close();
    for (auto& medium : media) medium->gone = false;
    ASSERT_TRUE(open());
    settle();
    ASSERT_TRUE(executor.run(plane().scrubber().pass()));
    EXPECT_EQ(fsck(), "");
    for (auto& [id, entry] : oracle) {
      auto back = read(entry.first);
      ASSERT_TRUE(back) << back.error().to_string();
      ASSERT_TRUE(*back == entry.second);
      if (!life.files || !names.contains(id)) continue;
      size_t shown = 0;
      std::string seen;  // for whoever has to find out why
      for (auto& medium : media) {
        const MapDrive* row = plane().plane().drives.topology()->map.find(medium->id);
        if (row == nullptr || row->state == DriveState::removed) continue;  // it was replaced while it was away
        shown += medium->tree.contains(names[id]) && medium->text_of_file(names[id]) == entry.second;
        for (const auto& [first, file] : medium->open_files) {
          if (file.path != names[id]) continue;
          const bool in_tree = medium->tree.contains(file.path) && medium->tree[file.path] == first;
          seen += fmt::format(" {}{}{}", first.to_string(), file.finished ? "" : " unfinished", in_tree ? " shown" : "");
        }
      }
      const Redundancy& redundancy = entry.first.redundancy;
      EXPECT_EQ(shown, redundancy.kind == RedundancyKind::whole ? 1u : redundancy.width())
          << names[id] << " of write " << id << ":" << seen;
    }
  }
#ifdef QUARRY_DEV
  if (seeds >= 12) EXPECT_GT(points_reached()["repair.ground_changed"], met_before) << "no settling met a change of the map";
#endif
}

}  // namespace
}  // namespace quarry::cluster
