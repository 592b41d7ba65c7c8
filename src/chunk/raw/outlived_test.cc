// What is decided before a wait and carried out after it, when something changed in between: slots and the table of a checkpoint, two
// removals of one chunk, segments emptied while their last chunks are being removed, a lane that fills behind a checkpoint. Each test sees
// that the two sides met.
#include <gtest/gtest.h>

#include "chunk/raw/geometry.h"
#include "chunk/raw/raw_store.h"
#include "chunk/raw/superblock_set.h"
#include "chunk/test_payload.h"
#include "io/clock.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

using std::chrono::milliseconds;

class RawStoreOutlived : public testing::Test {
 public:
  void SetUp() override { create({.size = 64 * kMiB}, {}); }
  void TearDown() override { close(); }
  void create(SimDisk::Options disk_options, RawStoreOptions options) {
    close();
    disk = SimDisk::create(std::move(disk_options));
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {})));
    auto set = executor.run(raw::SuperblockSet::load(*device));
    ASSERT_TRUE(set);
    geometry = raw::Geometry(set->superblock());
    executor.run(device->close());
    device.reset();
    open(disk, options);
  }
  void open(const std::shared_ptr<SimDisk>& from, RawStoreOptions options = {}) {
    auto opened = executor.run(RawStore::open(from->open(), options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void close() {
    if (disk) disk->set_fault_hook({});
    if (store) executor.run(store->close()).ignore("its drive may be broken");
    store.reset();
  }
  // The drive loses its power now; the store that was open is thrown away.
  void cut_power() {
    auto after = disk->stable_copy();
    close();
    disk = std::move(after);
    open(disk);
  }
  Task<Result<void>> put(uint64_t n, size_t size) {
    const std::string text = test_payload(n, size);
    std::vector<ByteView> parts = {bytes_of(text)};
    auto stored = co_await store->put({1, n}, std::move(parts), {});
    co_return stored;
  }
  Task<Result<void>> remove(uint64_t n) {
    std::vector<ChunkId> ids = {{1, n}};
    auto removed = co_await store->remove(std::move(ids));
    co_return removed;
  }
  // Small chunks of 50 KB, one after the other: 38 fill a segment.
  Task<void> fill_on(uint64_t first, uint64_t count, Stream stream) {
    for (uint64_t n = first; n < first + count; ++n) {
      const std::string text = test_payload(n, 50'000);
      std::vector<ByteView> parts = {bytes_of(text)};
      auto stored = co_await store->put({1, n}, std::move(parts), {stream});
      EXPECT_TRUE(stored) << n;
    }
  }
  void fill(uint64_t first, uint64_t count, Stream stream) { executor.run(fill_on(first, count, stream)); }
  static Task<void> keep(Task<Result<void>> task, std::optional<Result<void>>* result) { *result = co_await std::move(task); }
  bool has(uint64_t n) { return executor.run(store->stat({1, n})).has_value(); }

  // The segment whose slots, or data, this offset is in.
  uint32_t slot_of(const SimRequest& request) const {
    const uint32_t segment = geometry.segment_at(request.offset);
    return segment != raw::kNoSegment && request.offset >= geometry.offset_of(segment) + geometry.data_bytes() ? segment : raw::kNoSegment;
  }
  bool in_log(const SimRequest& request) const {
    return request.kind == SimRequestKind::write && geometry.segment_at(request.offset) == 0 && slot_of(request) == raw::kNoSegment;
  }

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
  std::unique_ptr<RawStore> store;
  raw::Geometry geometry;
};

// A checkpoint waits for a slot write of one segment; meanwhile the slot of another, which it has looked at already, begins to be written.
// The table must not let the log go before that slot is there: it holds what the log said.
TEST_F(RawStoreOutlived, a_checkpoint_waits_for_slot_writes_that_began_while_it_waited) {
  std::vector<uint32_t> opened;  // segments, in the order of their first slot
  std::map<uint32_t, Duration> slow;
  int begun = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    const uint32_t segment = slot_of(request);
    if (request.kind != SimRequestKind::write || request.durability != Durability::durable || segment == raw::kNoSegment) return fault;
    opened.push_back(segment);
    if (slow.contains(segment)) {
      fault.delay = slow[segment];
      ++begun;
    }
    return fault;
  });
  // The streams of data and log each fill most of a segment; then something is removed from both, which so far only the log knows.
  fill(1, 36, Stream::data);
  fill(101, 36, Stream::log);
  ASSERT_EQ(opened.size(), 2u);
  ASSERT_LT(opened[0], opened[1]);
  ASSERT_TRUE(executor.run(store->checkpoint()));
  ASSERT_TRUE(executor.run(remove(3)));
  ASSERT_TRUE(executor.run(remove(103)));
  slow = {{opened[0], milliseconds(500)}, {opened[1], milliseconds(10)}};
  std::shared_ptr<SimDisk> after;
  const auto meet = [](RawStoreOutlived& t, int& slots, std::shared_ptr<SimDisk>& cut) -> Task<void> {
    TaskGroup group;
    group.spawn(t.fill_on(201, 6, Stream::log));  // its segment is full and sealed
    while (slots < 1) co_await sleep_for(std::chrono::microseconds(50));
    std::optional<Result<void>> done;
    group.spawn(keep(t.store->checkpoint(), &done));
    co_await sleep_for(milliseconds(1));
    group.spawn(t.fill_on(301, 6, Stream::data));  // so is this one, while the checkpoint waits for the other
    co_await sleep_for(milliseconds(1));
    EXPECT_FALSE(done) << "they did not meet";
    while (!done) co_await sleep_for(milliseconds(1));
    EXPECT_TRUE(*done);
    cut = t.disk->stable_copy();
    co_await group.join();
  };
  executor.run(meet(*this, begun, after));
  close();
  disk = after;
  open(disk);
  EXPECT_FALSE(has(3)) << "a removed chunk is back";
  EXPECT_FALSE(has(103)) << "a removed chunk is back";
  EXPECT_TRUE(has(4));
}

// Two removals of one chunk are under way; it is put again when the first has returned (repair does that). The second is not meant for it.
TEST_F(RawStoreOutlived, a_removal_takes_nothing_that_was_put_after_another_removal_had_returned) {
  ASSERT_TRUE(executor.run(put(1, 3'000)));
  int frames = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (in_log(request)) {
      fault.delay = milliseconds(10);
      ++frames;
    }
    return fault;
  });
  const auto meet = [](RawStoreOutlived& t) -> Task<void> {
    TaskGroup group;
    std::optional<Result<void>> first, second;
    group.spawn(keep(t.remove(1), &first));
    group.spawn(keep(t.remove(1), &second));
    while (!first) co_await sleep_for(std::chrono::microseconds(100));
    EXPECT_TRUE(*first);
    auto stored = co_await t.put(1, 3'000);
    EXPECT_TRUE(stored);
    co_await group.join();
    EXPECT_TRUE(*second);
  };
  executor.run(meet(*this));
  EXPECT_GE(frames, 1);
  EXPECT_TRUE(has(1)) << "an acknowledged chunk is lost";
  cut_power();
  EXPECT_TRUE(has(1)) << "an acknowledged chunk is lost";
}

// A put needs a segment; the emptiest one holds a single chunk, which is just being removed. (It span for ever: what it waited for runs on
// the same thread.)
TEST_F(RawStoreOutlived, a_segment_whose_last_chunk_is_being_removed_is_waited_for) {
  // Two to a segment, until data may take no further one: every segment has a hole.
  for (uint64_t n = 1; n <= 2 * (geometry.segments() - 1 - 3); ++n) ASSERT_TRUE(executor.run(put(n, 900'000))) << n;
  ASSERT_TRUE(executor.run(remove(1)));  // chunks 1 and 2 shared a segment
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (in_log(request)) fault.delay = milliseconds(10);
    return fault;
  });
  const auto meet = [](RawStoreOutlived& t) -> Task<void> {
    TaskGroup group;
    std::optional<Result<void>> removed, stored;
    group.spawn(keep(t.remove(2), &removed));
    group.spawn(keep(t.put(1000, 3'000), &stored));
    co_await sleep_for(milliseconds(5));
    EXPECT_FALSE(removed || stored) << "they did not meet";
    co_await group.join();
    EXPECT_TRUE(*removed);
    EXPECT_TRUE(*stored) << stored->error().to_string();
  };
  executor.run(meet(*this));
  EXPECT_TRUE(has(1000));
  EXPECT_FALSE(has(2));
}

// One unreadable sector: what lies on it stays, everything else is moved, and the other segments have their turn.
TEST_F(RawStoreOutlived, an_unreadable_sector_ends_no_compaction) {
  create({.size = 64 * kMiB}, {.background = false});
  fill(1, 160, Stream::data);  // four segments and a bit, 38 chunks in each
  for (uint64_t n = 1; n <= 150; ++n) {
    if (n % 5 != 0) ASSERT_TRUE(executor.run(remove(n)));
  }
  const std::string text = test_payload(10, 50'000);
  const auto all = disk->peek(0, 64 * kMiB);
  const auto at = text_of(all.view()).find(std::string_view(text).substr(0, 1000));
  ASSERT_NE(at, std::string_view::npos);
  disk->add_bad_range(round_down(at + 20'000, raw::kBlock), 512);
  const auto compacted = executor.run(store->compact());
  EXPECT_TRUE(compacted) << compacted.error().to_string();
  EXPECT_GE(store->stats().segments_compacted, 3u);
  EXPECT_EQ(store->health().state, StoreState::online);
  for (uint64_t n = 5; n <= 160; n += 5) {
    auto got = executor.run(store->get({1, n}, 0, kChunkSizeMax));
    EXPECT_EQ(got.has_value(), n != 10) << n;
  }
  // Repair has put it elsewhere and removes it here: nothing holds its segment any more.
  const uint64_t before = store->space().free_bytes;
  ASSERT_TRUE(executor.run(remove(10)));
  EXPECT_GE(store->space().free_bytes, before + geometry.data_bytes());
}

// A checkpoint waits for slow slot writes; meanwhile the lane that it began is filled. Whoever waits for room in it needs one checkpoint
// more, and the one under way was not done when that was asked for. (Nothing was ever written again.)
TEST_F(RawStoreOutlived, a_lane_that_fills_during_a_checkpoint_is_left_by_the_next) {
  create({.size = 64 * kMiB}, {.background = false});
  static constexpr uint64_t kChunks = 1000;
  const auto put_all = [](RawStoreOutlived& t) -> Task<void> {
    for (uint64_t n = 1; n <= kChunks; ++n) {
      auto stored = co_await t.put(n, 100);
      EXPECT_TRUE(stored);
    }
  };
  executor.run(put_all(*this));
  int slow_slots = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind != SimRequestKind::write || request.durability == Durability::durable || slot_of(request) == raw::kNoSegment)
      return fault;
    fault.delay = milliseconds(500);
    ++slow_slots;
    return fault;
  });
  const uint64_t before = store->stats().checkpoints;
  uint64_t removed = 0;
  const auto remove_all = [](RawStoreOutlived& t, uint64_t* count) -> Task<void> {
    for (uint64_t n = 1; n <= kChunks; ++n) {  // a log frame each
      auto done = co_await t.remove(n);
      EXPECT_TRUE(done);
      ++*count;
    }
  };
  const auto meet = [&remove_all](RawStoreOutlived& t, uint64_t begun, uint64_t* count, int* slots) -> Task<void> {
    TaskGroup group;
    group.spawn(remove_all(t, count));
    co_await sleep_for(milliseconds(100));
    EXPECT_GE(*slots, 1);
    EXPECT_EQ(t.store->stats().checkpoints, begun);
    EXPECT_LT(*count, kChunks) << "they did not meet: the lane is not full";
    co_await sleep_for(std::chrono::seconds(60));
    EXPECT_EQ(*count, kChunks) << "the log stands still";
    if (*count < kChunks) {
      auto helped = co_await t.store->checkpoint();
      EXPECT_TRUE(helped);
    }
    co_await group.join();
  };
  executor.run(meet(*this, before, &removed, &slow_slots));
  EXPECT_GE(store->stats().checkpoints, before + 2);
  cut_power();
  for (uint64_t n = 1; n <= kChunks; n += 37) EXPECT_FALSE(has(n)) << n;
}

// Zeros are written ahead in a segment that is given up, since a frame failed in it, and its last chunk is removed. Whoever was given it
// would find zeros where he had written.
TEST_F(RawStoreOutlived, a_segment_is_not_given_away_while_zeros_are_written_ahead_in_it) {
  create({.size = 4 * kGiB, .drive_class = DriveClass::file}, {});
  std::optional<uint32_t> segment;
  int zeros = 0;
  bool failed = false;
  std::optional<int> discarded;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    const uint32_t at = geometry.segment_at(request.offset);
    if (at == raw::kNoSegment || slot_of(request) != raw::kNoSegment || (segment && at != *segment)) return fault;
    if (request.kind == SimRequestKind::discard) {
      discarded = zeros;
    } else if (request.kind == SimRequestKind::write && request.durability != Durability::durable && request.length == kMiB) {
      segment = at;
      ++zeros;
      fault.delay = milliseconds(100);
    } else if (request.kind == SimRequestKind::write && segment && !failed) {
      failed = true;
      fault.fail = Code::io_error;
    }
    return fault;
  });
  const auto meet = [](RawStoreOutlived& t, const int* begun, const bool* refused, const std::optional<int>* given) -> Task<void> {
    auto first = co_await t.put(1, 3'000);
    EXPECT_TRUE(first);
    TaskGroup group;
    std::optional<Result<void>> second;
    group.spawn(keep(t.put(2, 3'000), &second));
    co_await sleep_for(milliseconds(10));
    EXPECT_TRUE(*begun == 1 && *refused) << "they did not meet";
    auto removed = co_await t.remove(1);
    EXPECT_TRUE(removed);
    co_await group.join();
    EXPECT_TRUE(*second);
    while (!*given) co_await sleep_for(milliseconds(10));
  };
  executor.run(meet(*this, &zeros, &failed, &discarded));
  EXPECT_GT(zeros, 1);
  EXPECT_EQ(*discarded, zeros);
}

// To compact all is one call; the store is closed meanwhile. (It moved nothing any more, and chose the same segment for ever.)
TEST_F(RawStoreOutlived, a_close_ends_a_compaction_of_everything) {
  create({.size = 64 * kMiB}, {.background = false});
  fill(1, 80, Stream::data);
  for (uint64_t n = 1; n <= 24; ++n) ASSERT_TRUE(executor.run(remove(n)));
  int reads = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::read && request.length >= 256 * kKiB && ++reads > 0) fault.delay = milliseconds(50);
    return fault;
  });
  const auto meet = [](RawStoreOutlived& t, const int* begun) -> Task<void> {
    TaskGroup group;
    std::optional<Result<void>> compacted;
    group.spawn(keep(t.store->compact(), &compacted));
    while (*begun < 1) co_await sleep_for(std::chrono::microseconds(50));
    EXPECT_FALSE(compacted) << "they did not meet";
    auto closed = co_await t.store->close();
    EXPECT_TRUE(closed);
    co_await group.join();
    EXPECT_EQ(compacted->error().code(), Code::device_gone);
  };
  executor.run(meet(*this, &reads));
  store.reset();
  open(disk);
  for (uint64_t n = 1; n <= 80; ++n) EXPECT_EQ(has(n), n > 24) << n;
}

// Compaction in the background rests nine times as long as it worked. A put that needs the segment which it would make does not wait for
// that rest.
TEST_F(RawStoreOutlived, a_put_on_a_full_drive_does_not_wait_for_compaction_to_rest) {
  const auto small = [](RawStoreOutlived& t, uint64_t first, uint64_t end) -> Task<void> {
    for (uint64_t n = first; n < end; ++n) {
      auto stored = co_await t.put(n, 8'000);
      EXPECT_TRUE(stored);
    }
  };
  executor.run(small(*this, 1, 600));
  int slow_reads = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind != SimRequestKind::read || request.length < 256 * kKiB) return fault;
    fault.delay = std::chrono::seconds(1);
    ++slow_reads;
    return fault;
  });
  const auto meet = [](RawStoreOutlived& t) -> Task<void> {
    for (uint64_t n = 1; n < 480; ++n) {
      if (n % 4 == 0) continue;
      auto removed = co_await t.remove(n);
      EXPECT_TRUE(removed);
    }
    while (t.store->stats().segments_compacted < 1) co_await sleep_for(milliseconds(1));
    const TimePoint rests = Executor::here().now();
    Duration slowest{};
    for (uint64_t n = 1000; n < 3000 && t.store->stats().segments_compacted < 2; ++n) {
      const TimePoint begin = Executor::here().now();
      auto stored = co_await t.put(n, 60'000);
      EXPECT_TRUE(stored);
      if (t.store->stats().segments_compacted >= 2) EXPECT_LT(begin - rests, std::chrono::seconds(5)) << "they did not meet";
      slowest = std::max(slowest, Executor::here().now() - begin);
    }
    EXPECT_EQ(t.store->stats().segments_compacted, 2u) << "they did not meet";
    EXPECT_LT(slowest, std::chrono::seconds(4));
  };
  executor.run(meet(*this));
  EXPECT_GE(slow_reads, 2);
}

// A checkpoint is asked for while one runs that fails. The lane that it would begin still holds what the failed one could not save. (The
// process ended.)
TEST_F(RawStoreOutlived, a_checkpoint_that_waited_for_one_that_failed_is_refused) {
  ASSERT_TRUE(executor.run(put(1, 3'000)));
  int refused = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind != SimRequestKind::write || slot_of(request) == raw::kNoSegment) return fault;
    fault.fail = Code::io_error;
    fault.delay = milliseconds(10);
    ++refused;
    return fault;
  });
  const auto meet = [](RawStoreOutlived& t) -> Task<void> {
    TaskGroup group;
    std::optional<Result<void>> first, second;
    group.spawn(keep(t.store->checkpoint(), &first));
    group.spawn(keep(t.store->checkpoint(), &second));
    co_await sleep_for(milliseconds(5));
    EXPECT_FALSE(first || second) << "they did not meet";
    co_await group.join();
    EXPECT_EQ(first->error().code(), Code::io_error);
    EXPECT_EQ(second->error().code(), Code::read_only);
  };
  executor.run(meet(*this));
  EXPECT_GE(refused, 1);
  cut_power();
  EXPECT_TRUE(has(1));
}

}  // namespace
}  // namespace quarry::chunk
