// The data plane on healthy and on failing drives: what is written is read back, what is not committed is removed.
#include <gtest/gtest.h>

#include "cluster/testing/cluster_harness.h"

namespace quarry::cluster {
namespace {

class DataPlaneTest : public ::testing::Test, protected ClusterHarness {
 protected:
  void pass(Duration time) { executor.run(sleep_for(time)); }
};

TEST_F(DataPlaneTest, every_size_is_read_back) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  uint64_t seed = 0;
  for (size_t size : {1, 63, 64, 4096, 100'000, 131'072, 131'073, 200'000, 262'143, 262'144, 262'145, 1'000'000, 3'333'333}) {
    for (bool known : {true, false}) {
      for (size_t piece : {size_t{1000}, size_t{65'536}, size_t{1'000'000}}) {
        if (size / piece > 400) continue;
        const std::string bytes = random_bytes(++seed, size);
        auto layout = write(bytes, default_redundancy(), known, piece);
        ASSERT_TRUE(layout) << layout.error().to_string();
        EXPECT_EQ(layout->size, size);
        EXPECT_EQ(layout->redundancy.kind == RedundancyKind::mirror, size <= 131'072) << size;
        auto back = read(*layout);
        ASSERT_TRUE(back) << back.error().to_string();
        ASSERT_EQ(*back, bytes) << "size " << size << " piece " << piece;
      }
    }
  }
  EXPECT_EQ(fsck(), "");
}

TEST_F(DataPlaneTest, any_range_is_read_back) {
  add_media(6);
  tuning.cache_bytes = 4 * kMiB;
  ASSERT_TRUE(create("ec:4+2"));
  const std::string bytes = random_bytes(1, 1'500'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout);
  SeededRandom rng(5);
  for (int i = 0; i < 300; ++i) {
    const uint64_t offset = rng.below(bytes.size());
    const uint64_t length = rng.below(2) == 0 ? rng.below(5000) : rng.below(bytes.size() - offset + 1);
    const uint64_t cut = std::min<uint64_t>(length, bytes.size() - offset);
    auto back = read(*layout, offset, cut, rng.below(4) == 0 ? CachePolicy::bypass : CachePolicy::normal);
    ASSERT_TRUE(back) << back.error().to_string();
    ASSERT_EQ(*back, bytes.substr(offset, cut)) << offset << "+" << cut;
  }
}

TEST_F(DataPlaneTest, explicit_redundancies_work_side_by_side) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  for (const char* text : {"mirror:1", "mirror:3", "mirror:6", "ec:2+0", "ec:1+1", "ec:3+3", "ec:5+1"}) {
    const std::string bytes = random_bytes(9, 500'001);
    auto layout = write(bytes, *parse_redundancy(text, 6));
    ASSERT_TRUE(layout) << text << layout.error().to_string();
    EXPECT_EQ(*read(*layout), bytes) << text;
  }
  EXPECT_EQ(write("x", *parse_redundancy("ec:6+2", 32)).error().code(), Code::unavailable);
  EXPECT_EQ(fsck(), "");
}

TEST_F(DataPlaneTest, data_and_map_survive_close_and_open) {
  add_media(6);
  ASSERT_TRUE(create("standard"));
  const std::string key = cluster->master_key();
  const std::string bytes = random_bytes(1, 700'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout);
  ASSERT_TRUE(open());
  EXPECT_EQ(cluster->master_key(), key);
  EXPECT_EQ(cluster->default_redundancy(), "ec:4+2");
  EXPECT_EQ(*read(*layout), bytes);
  auto second = write(bytes);
  ASSERT_TRUE(second);
  EXPECT_GT(second->write_id, layout->write_id);
  EXPECT_EQ(fsck(), "");
}

TEST_F(DataPlaneTest, an_abandoned_write_leaves_nothing) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  struct Run {
    static Task<Result<void>> abandon(Cluster* cluster, bool finish) {
      WriteOptions options;
      options.redundancy = {RedundancyKind::erasure, 4, 2};
      CO_TRY_ASSIGN(auto writer, cluster->data().begin_write(options));
      for (int i = 0; i < 10; ++i) {
        Buffer part(100'000);
        std::memset(part.data(), i, part.size());
        CO_TRY(co_await writer->append(std::move(part)));
      }
      if (finish) {
        CO_TRY_ASSIGN(DataLayout layout, co_await writer->finish());
        static_cast<void>(layout);
      }
      co_return Result<void>();
    }
  };
  ASSERT_TRUE(executor.run(Run::abandon(cluster.get(), false)));
  ASSERT_TRUE(executor.run(Run::abandon(cluster.get(), true)));
  executor.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_EQ(data_chunks(), 0u);
}

TEST_F(DataPlaneTest, what_a_crash_left_uncommitted_is_removed_at_the_next_start) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  const std::string bytes = random_bytes(2, 600'000);
  auto kept = write(bytes);
  ASSERT_TRUE(kept);
  const size_t chunks = data_chunks();
  struct Run {
    static Task<Result<void>> half(ClusterHarness* self, Cluster* cluster) {
      WriteOptions options;
      options.redundancy = {RedundancyKind::erasure, 4, 2};
      CO_TRY_ASSIGN(auto writer, cluster->data().begin_write(options));
      Buffer part(1'000'000);
      std::memset(part.data(), 1, part.size());
      CO_TRY(co_await writer->append(std::move(part)));
      CO_TRY_ASSIGN(DataLayout layout, co_await writer->finish());
      *self->dead = true;
      static_cast<void>(layout);
      co_return Result<void>();
    }
  };
  ASSERT_TRUE(executor.run(Run::half(this, cluster.get())));
  crash();
  EXPECT_GT(data_chunks(), chunks);
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(data_chunks(), chunks);
  EXPECT_EQ(*read(*kept), bytes);
  EXPECT_EQ(fsck(), "");
}

TEST_F(DataPlaneTest, a_retired_write_goes_when_its_readers_have_left) {
  add_media(6);
  ASSERT_TRUE(create("ec:4+2"));
  const std::string bytes = random_bytes(3, 900'000);
  auto layout = write(bytes);
  ASSERT_TRUE(layout);
  auto guard = cluster->data().guard_reads();
  ASSERT_TRUE(retire(*layout));
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_GT(data_chunks(), 0u) << "a guard was held since before";
  auto reader = cluster->data().read(*layout, 0, layout->size, CachePolicy::normal);
  guard.reset();
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_GT(data_chunks(), 0u) << "a reader is there";
  EXPECT_EQ(executor.run(reader->next(1000))->size(), 1000u);
  reader.reset();
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_EQ(data_chunks(), 0u);
  EXPECT_EQ(fsck(), "");
}

TEST_F(DataPlaneTest, a_slow_reader_keeps_what_it_reads_and_nothing_else) {
  add_media(4, 4 * kMiB);
  ASSERT_TRUE(create("ec:2+2"));
  const std::string bytes = random_bytes(3, 300'000);
  auto read_slowly = write(bytes), other = write(bytes);
  ASSERT_TRUE(read_slowly && other);
  auto guard = cluster->data().guard_reads();
  ASSERT_TRUE(retire(*read_slowly));
  ASSERT_TRUE(retire(*other));
  executor.run(sleep_for(std::chrono::seconds(20)));
  const size_t both = data_chunks();
  EXPECT_GT(both, 0u) << "a guard that does not say what it keeps keeps all";
  guard->narrow({read_slowly->write_id});
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_EQ(data_chunks(), both / 2);
  // Writes and deletions that together are many times the store's size.
  for (int i = 0; i < 60; ++i) {
    auto layout = write(random_bytes(i, 500'000));
    ASSERT_TRUE(layout) << i << ": " << layout.error().to_string();
    ASSERT_TRUE(retire(*layout));
    executor.run(sleep_for(std::chrono::seconds(1)));
  }
  EXPECT_EQ(*read(*read_slowly), bytes);
  guard.reset();
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_EQ(data_chunks(), 0u);
  EXPECT_EQ(fsck(), "");
}

TEST_F(DataPlaneTest, a_drive_that_fails_to_remove_keeps_only_its_own_chunks) {
  add_media(5);
  ASSERT_TRUE(create("ec:2+1"));
  std::vector<DataLayout> layouts;
  for (int i = 0; i < 40; ++i) {
    auto layout = write(random_bytes(i, 200'000));
    ASSERT_TRUE(layout);
    layouts.push_back(*layout);
  }
  const size_t on_it = media[0]->of_kind(ChunkKind::data).size();
  std::set<WriteId> writes_on_it;
  for (const ChunkId id : media[0]->of_kind(ChunkKind::data)) writes_on_it.insert(chunk_name(id).serial);
  ASSERT_GT(on_it, 0u);
  media[0]->fail_removes = true;
  for (const DataLayout& layout : layouts) ASSERT_TRUE(retire(layout));
  executor.run(sleep_for(std::chrono::seconds(30)));
  EXPECT_EQ(data_chunks(), on_it);
  auto rows = executor.run(cluster->meta().scan({.range = meta::KeyRange::prefix("cr")}));
  ASSERT_TRUE(rows);
  EXPECT_EQ(rows->size(), writes_on_it.size()) << "only the rows of writes with something on it are left";
  media[0]->fail_removes = false;
  executor.run(sleep_for(std::chrono::seconds(60)));
  EXPECT_EQ(data_chunks(), 0u);
  EXPECT_EQ(fsck(), "");
}

// Puts data and does not say what becomes of it.
struct OpenWrite {
  std::unique_ptr<DataWriter> writer;
  static Task<Result<void>> begin(Cluster* cluster, OpenWrite* open, bool finish) {
    WriteOptions options;
    options.redundancy = {RedundancyKind::erasure, 2, 2};
    CO_TRY_ASSIGN(open->writer, cluster->data().begin_write(options));
    Buffer part(400'000);
    std::memset(part.data(), 1, part.size());
    CO_TRY(co_await open->writer->append(std::move(part)));
    if (!finish) co_return Result<void>();
    CO_TRY_ASSIGN(DataLayout layout, co_await open->writer->finish());
    static_cast<void>(layout);
    co_return Result<void>();
  }
};

TEST_F(DataPlaneTest, what_a_start_looks_through_does_not_grow_with_what_was_written) {
  add_media(4);
  tuning.write_id_block = 16;
  ASSERT_TRUE(create("ec:2+2"));
  std::map<WriteId, std::string> contents;
  std::vector<DataLayout> kept;
  OpenWrite early, late;
  ASSERT_TRUE(executor.run(OpenWrite::begin(cluster.get(), &early, false)));
  for (int i = 0; i < 400; ++i) {
    auto layout = write(random_bytes(i, 1000));
    ASSERT_TRUE(layout);
    contents[layout->write_id] = random_bytes(i, 1000);
    kept.push_back(*layout);
  }
  executor.run(sleep_for(std::chrono::seconds(1)));
  ASSERT_TRUE(executor.run(OpenWrite::begin(cluster.get(), &late, true)));
  auto rows = executor.run(cluster->meta().scan({.range = meta::KeyRange::prefix("cs")}));
  ASSERT_TRUE(rows);
  EXPECT_LE(rows->size(), 3u) << "the block of the write that is still open, the current one and the next one";
  EXPECT_GE(rows->size(), 2u);
  *dead = true;
  early.writer.reset();
  late.writer.reset();
  crash();
  for (auto& medium : media) medium->listed = 0;
  ASSERT_TRUE(open());
  settle();
  uint64_t listed = 0;
  for (auto& medium : media) listed += medium->listed;
  EXPECT_LE(listed, 3 * 16 * 4 + 100u) << "of " << data_chunks() << " chunks";
  for (const DataLayout& layout : kept) EXPECT_EQ(*read(layout), contents[layout.write_id]);
  EXPECT_EQ(fsck(), "");
  auto again = executor.run(cluster->meta().scan({.range = meta::KeyRange::prefix("cs")}));
  EXPECT_TRUE(again && again->empty());
  EXPECT_EQ(data_chunks(), kept.size() * 3) << "three copies of each, and nothing of the others";
}

TEST_F(DataPlaneTest, an_abandoned_write_that_stays_on_a_drive_keeps_its_block_over_a_clean_end) {
  add_media(4);
  tuning.write_id_block = 4;
  ASSERT_TRUE(create("ec:2+2"));
  OpenWrite one;
  ASSERT_TRUE(executor.run(OpenWrite::begin(cluster.get(), &one, true)));
  media[2]->fail_removes = true;
  one.writer.reset();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(write(random_bytes(i, 1000)));
  executor.run(sleep_for(std::chrono::seconds(1)));
  EXPECT_GT(media[2]->of_kind(ChunkKind::data).size(), 0u);
  close();
  auto row = meta::KeyRange::prefix("cs");
  media[2]->fail_removes = false;
  ASSERT_TRUE(open());
  settle();
  EXPECT_EQ(fsck(), "");
  auto rows = executor.run(cluster->meta().scan({.range = row}));
  EXPECT_TRUE(rows && rows->empty());
  EXPECT_EQ(executor.run(cluster->data().fsck(false))->orphan_chunks, 0u);
}

TEST_F(DataPlaneTest, retired_space_comes_back_while_a_start_still_looks_through_drives) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  auto before = write(random_bytes(1, 300'000));
  ASSERT_TRUE(before);
  const size_t of_before = data_chunks();
  OpenWrite one;
  ASSERT_TRUE(executor.run(OpenWrite::begin(cluster.get(), &one, true)));
  *dead = true;
  one.writer.reset();
  crash();
  for (auto& medium : media) medium->list_delay = std::chrono::seconds(20);  // less than what is taken for a drive that hangs
  const size_t orphans = data_chunks() - of_before;
  ASSERT_GT(orphans, 0u);
  ASSERT_TRUE(open());
  ASSERT_TRUE(retire(*before));
  executor.run(sleep_for(std::chrono::seconds(15)));
  EXPECT_FALSE(plane().plane().sessions_recovered.load());
  EXPECT_EQ(data_chunks(), orphans);
  executor.run(sleep_for(std::chrono::seconds(300)));
  EXPECT_TRUE(plane().plane().sessions_recovered.load());
  EXPECT_EQ(data_chunks(), 0u);
}

TEST_F(DataPlaneTest, write_memory_is_bounded_and_never_deadlocks) {
  add_media(6);
  tuning.write_memory_bytes = 4 * kMiB;
  ASSERT_TRUE(create("ec:4+2"));
  for (auto& medium : media) medium->put_delay = std::chrono::milliseconds(3);
  std::vector<Task<Result<DataLayout>>> writes;
  std::vector<std::string> contents;
  for (int i = 0; i < 40; ++i) {
    contents.push_back(random_bytes(i, 700'000 + i));
    writes.push_back(write_task(this, contents.back(), default_redundancy(), i % 2 == 0, 65'536));
  }
  auto layouts = executor.run(when_all(std::move(writes)));
  for (size_t i = 0; i < layouts.size(); ++i) {
    ASSERT_TRUE(layouts[i]) << layouts[i].error().to_string();
    EXPECT_EQ(*read(*layouts[i]), contents[i]);
  }
  EXPECT_EQ(plane().plane().write_memory.available(), 2 * kMiB);
  EXPECT_EQ(plane().plane().write_ahead.available(), 2 * kMiB);
}

TEST_F(DataPlaneTest, slow_writers_leave_room_for_others_and_too_many_are_told_to_come_later) {
  add_media(6);
  tuning.write_memory_bytes = 48 * kMiB;
  ASSERT_TRUE(create("ec:4+2"));
  WriteOptions options;
  options.redundancy = default_redundancy();
  options.size_hint = kGiB;
  std::vector<std::unique_ptr<DataWriter>> writers;
  std::optional<Error> refused;
  while (!refused && writers.size() < 1000) {
    auto writer = cluster->data().begin_write(options);
    ASSERT_TRUE(writer);
    auto appended = executor.run((*writer)->append(Buffer::copy_of(bytes_of(random_bytes(writers.size(), 1000)))));
    if (appended)
      writers.push_back(std::move(*writer));
    else
      refused = std::move(appended).error();
  }
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code(), Code::overloaded) << refused->to_string();
  EXPECT_GE(writers.size(), 40u);
  // Each of those that were let in gets on, whatever the others do.
  for (size_t round = 0; round < 12; ++round) {
    auto appended = executor.run(writers.front()->append(Buffer::copy_of(bytes_of(random_bytes(round, 1'000'000)))));
    ASSERT_TRUE(appended) << appended.error().to_string();
  }
  writers.pop_back();
  auto writer = cluster->data().begin_write(options);
  ASSERT_TRUE(executor.run((*writer)->append(Buffer::copy_of(bytes_of(random_bytes(1, 1000))))));
  writers.clear();
  writer->reset();
  executor.run(sleep_for(std::chrono::seconds(20)));
  EXPECT_EQ(data_chunks(), 0u);
}

TEST_F(DataPlaneTest, a_full_drive_is_no_space_and_leaves_nothing) {
  add_media(4, 4 * kMiB);
  ASSERT_TRUE(create("ec:2+2"));
  std::vector<DataLayout> kept;
  std::vector<std::string> contents;
  for (int i = 0;; ++i) {
    ASSERT_LT(i, 100);
    const std::string bytes = random_bytes(i, 500'000);
    auto layout = write(bytes);
    if (!layout) {
      EXPECT_EQ(layout.error().code(), Code::no_space) << layout.error().to_string();
      break;
    }
    kept.push_back(*layout);
    contents.push_back(bytes);
  }
  executor.run(sleep_for(std::chrono::seconds(5)));
  EXPECT_EQ(fsck(), "");
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(*read(kept[i]), contents[i]);
  ASSERT_TRUE(retire(kept[0]));
  ASSERT_TRUE(retire(kept[1]));
  executor.run(sleep_for(std::chrono::seconds(10)));
  EXPECT_TRUE(write(random_bytes(77, 500'000)));
}

TEST_F(DataPlaneTest, references_come_in_order) {
  add_media(4);
  ASSERT_TRUE(create("ec:2+2"));
  std::vector<WriteId> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(write(random_bytes(i, 200'000))->write_id);
  std::vector<WriteId> listed;
  WriteId after = 0;
  for (;;) {
    auto page = executor.run(cluster->data().references(after, 7));
    ASSERT_TRUE(page);
    if (page->empty()) break;
    for (auto& reference : *page) {
      EXPECT_EQ(reference.owner, "test");
      listed.push_back(after = reference.layout.write_id);
    }
  }
  EXPECT_EQ(listed, ids);
}

TEST_F(DataPlaneTest, pinned_data_stays_in_memory_within_its_bound) {
  add_media(4);
  tuning.cache_bytes = 8 * kMiB;
  tuning.cache_pin_bytes = 2 * kMiB;
  ASSERT_TRUE(create("ec:2+2"));
  auto hot = write(random_bytes(1, 1'000'000));
  auto more = write(random_bytes(2, 1'500'000));
  ASSERT_TRUE(executor.run(cluster->data().set_pinned(*hot, true)));
  EXPECT_EQ(executor.run(cluster->data().set_pinned(*more, true)).error().code(), Code::no_space);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(read(*write(random_bytes(10 + i, 2'000'000))));
  const auto before = cluster->data().cache_status();
  EXPECT_LE(before.used_bytes, before.capacity_bytes);
  ASSERT_TRUE(read(*hot));
  const auto after = cluster->data().cache_status();
  EXPECT_EQ(after.misses, before.misses) << "all of it came from memory";
  ASSERT_TRUE(executor.run(cluster->data().set_pinned(*hot, false)));
  EXPECT_EQ(cluster->data().cache_status().pinned_bytes, 0u);
}

TEST_F(DataPlaneTest, strange_drives_are_refused) {
  add_media(3);
  ASSERT_TRUE(create("ec:2+1"));
  close();
  auto first = media;
  media.clear();
  EXPECT_EQ(open().error().code(), Code::not_found);
  meta_media = meta::make_memory_meta_media();
  media.push_back(std::make_shared<MemoryMedium>(11));
  media.push_back(std::make_shared<MemoryMedium>(12));
  random = SeededRandom(99);
  ASSERT_TRUE(create("mirror:2"));
  close();
  media.push_back(first[0]);
  EXPECT_EQ(open().error().code(), Code::wrong_owner);
  EXPECT_EQ(create("mirror:2").error().code(), Code::wrong_owner);
}

// The drives fill up in the middle; looking for others needs a map of narrower groups. What was put lies where the older one says.
TEST_F(DataPlaneTest, a_write_that_is_sent_elsewhere_leaves_nothing_though_its_group_moves) {
  add_media(5);
  ASSERT_TRUE(create("ec:3+1"));
  auto begun = cluster->data().begin_write({.redundancy = default_redundancy()});
  ASSERT_TRUE(begun) << begun.error().to_string();
  auto writer = std::move(*begun);
  const std::string bytes = random_bytes(1, 3 * 64 * kKiB);
  for (int i = 0; i < 2; ++i) {
    auto taken = executor.run(writer->append(Buffer::copy_of(bytes_of(bytes))));
    ASSERT_TRUE(taken) << taken.error().to_string();
  }
  pass(std::chrono::milliseconds(100));
  ASSERT_GT(data_chunks(), 0u);
  std::vector<uint32_t> holders;
  for (size_t i = 0; i < media.size(); ++i) {
    if (!media[i]->of_kind(ChunkKind::data).empty()) holders.push_back(static_cast<uint32_t>(i + 1));
  }
  ASSERT_EQ(holders.size(), 4u);
  for (size_t i = 0; i < 2; ++i) media[holders[i] - 1]->ballast = media[holders[i] - 1]->capacity;
  pass(std::chrono::seconds(5));
  Result<void> refused;
  for (int i = 0; i < 8 && refused; ++i) refused = executor.run(writer->append(Buffer::copy_of(bytes_of(bytes))));
  ASSERT_FALSE(refused);
  ASSERT_EQ(refused.error().code(), Code::overloaded) << refused.error().to_string();
  ASSERT_TRUE(plane().plane().drives.topology()->map.knows_width(3)) << "no narrower groups were looked for: nothing was tested";
  ASSERT_TRUE(executor.run(cluster->data().drain_drive(holders[3])));
  settle();
  writer.reset();
  pass(std::chrono::seconds(5));
  for (size_t i = 0; i < 2; ++i) media[holders[i] - 1]->ballast = 0;
  settle();
  EXPECT_EQ(data_chunks(), 0u);
  EXPECT_EQ(fsck(), "");
}

}  // namespace
}  // namespace quarry::cluster
