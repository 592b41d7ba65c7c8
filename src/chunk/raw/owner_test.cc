// One drive, seen by two nodes that no lock tells of each other: fencing epochs (owner.cc).
#include <gtest/gtest.h>

#include "chunk/raw/raw_store.h"
#include "chunk/raw/superblock_set.h"
#include "chunk/test_payload.h"
#include "io/clock.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

using std::chrono::milliseconds;

// A SimDisk has one handle at a time, as a drive with a lock has. This is one of several on it. One writes at a time: where two write to
// one block, one is first.
class SharedHandle final : public BlockDevice {
 public:
  SharedHandle(std::shared_ptr<BlockDevice> device, Semaphore& turn) : device_(std::move(device)), turn_(turn) {}
  const DeviceInfo& info() const override { return device_->info(); }
  Task<Result<void>> read(uint64_t offset, MutableByteView into) override { return device_->read(offset, into); }
  Task<Result<void>> write(uint64_t offset, ByteView from, Durability how) override {
    co_await turn_.acquire();
    auto written = co_await device_->write(offset, from, how);
    turn_.release();
    co_return written;
  }
  Task<Result<void>> write_gather(uint64_t offset, std::vector<ByteView> parts, Durability how) override {
    co_await turn_.acquire();
    auto written = co_await device_->write_gather(offset, std::move(parts), how);
    turn_.release();
    co_return written;
  }
  Task<Result<void>> flush() override { return device_->flush(); }
  Task<Result<void>> discard(uint64_t offset, uint64_t length) override { return device_->discard(offset, length); }
  Task<Result<uint64_t>> refresh_size() override { return device_->refresh_size(); }
  Task<void> close() override { co_return; }

 private:
  const std::shared_ptr<BlockDevice> device_;
  Semaphore& turn_;
};

class RawStoreOwner : public testing::Test {
 public:
  void SetUp() override { create(1); }
  void create(uint64_t seed) {
    disk = SimDisk::create(
        {.size = 64 * kMiB, .latency_min = std::chrono::microseconds(20), .latency_max = std::chrono::microseconds(400), .seed = seed});
    device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {})));
  }
  std::unique_ptr<BlockDevice> handle() { return std::make_unique<SharedHandle>(device, turn); }
  std::unique_ptr<RawStore> open() {
    auto opened = executor.run(RawStore::open(handle(), {}));
    EXPECT_TRUE(opened) << opened.error().to_string();
    return opened ? std::move(*opened) : nullptr;
  }
  static Task<Result<void>> put(RawStore& store, uint64_t n) {
    const std::string text = test_payload(n, size_of(n));
    std::vector<ByteView> parts = {bytes_of(text)};
    auto stored = co_await store.put({1, n}, std::move(parts), {});
    co_return stored;
  }
  static size_t size_of(uint64_t n) { return n % 3 == 0 ? 100'000 : 3'000; }
  // Puts, every few milliseconds, until one is refused. Returns that error.
  static Task<Error> write_on(RawStore& store, uint64_t first, std::vector<uint64_t>& acknowledged) {
    for (uint64_t n = first;; ++n) {
      auto stored = co_await put(store, n);
      if (!stored) co_return std::move(stored).error();
      acknowledged.push_back(n);
      co_await sleep_for(milliseconds(7));
    }
  }
  static Task<void> keep_writing(RawStore& store, std::vector<uint64_t>& acknowledged, std::optional<Error>& ended) {
    ended = co_await write_on(store, 1, acknowledged);
  }
  static Task<void> keep_open(std::unique_ptr<BlockDevice> device, std::optional<Result<std::unique_ptr<RawStore>>>& opened) {
    opened = co_await RawStore::open(std::move(device), {});
  }
  void expect_all(RawStore& store, const std::vector<uint64_t>& numbers) {
    for (const uint64_t n : numbers) {
      auto got = executor.run(store.get({1, n}, 0, kChunkSizeMax));
      EXPECT_TRUE(got) << "an acknowledged chunk is lost: " << n;
      if (got) EXPECT_TRUE(text_of(got->view()) == test_payload(n, size_of(n))) << n;
    }
  }
  void expect_silence_after(const std::function<Task<Result<void>>(RawStore&)>& act,
                            const std::function<bool(const SimRequest&, int)>& slow, bool fails);

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
  std::shared_ptr<BlockDevice> device;
  Semaphore turn{1};
};

TEST_F(RawStoreOwner, a_newcomer_finds_all_that_the_older_owner_acknowledged_which_then_writes_nothing_more) {
  auto older = open();
  std::vector<uint64_t> acknowledged;
  std::optional<Error> ended;
  std::optional<Result<std::unique_ptr<RawStore>>> opened;
  const auto meet = [](RawStoreOwner& t, RawStore& store, std::vector<uint64_t>& numbers, std::optional<Error>& end,
                       std::optional<Result<std::unique_ptr<RawStore>>>& newer) -> Task<void> {
    TaskGroup group;
    group.spawn(keep_writing(store, numbers, end));
    co_await sleep_for(milliseconds(500));
    const size_t before = numbers.size();
    EXPECT_GT(before, 10u);
    group.spawn(keep_open(t.handle(), newer));
    co_await group.join();
    EXPECT_GT(numbers.size(), before) << "they did not meet";
  };
  executor.run(meet(*this, *older, acknowledged, ended, opened));
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->code(), Code::device_gone);
  EXPECT_EQ(older->health().state, StoreState::failed);
  EXPECT_NE(older->health().reason.find("another node"), std::string::npos) << older->health().reason;
  ASSERT_TRUE(opened && *opened) << (*opened).error().to_string();
  auto newer = std::move(**opened);
  EXPECT_TRUE(newer->open_report().damage.empty());
  EXPECT_GT(newer->fencing_epoch(), older->fencing_epoch());
  expect_all(*newer, acknowledged);
  // What the older one still does changes nothing.
  EXPECT_FALSE(executor.run(older->remove({{1, acknowledged.front()}})));
  EXPECT_FALSE(executor.run(older->set_label("mine")));
  executor.run(older->close()).ignore("it may say so or not");
  ASSERT_TRUE(executor.run(put(*newer, 5000)));
  acknowledged.push_back(5000);
  const auto cut = disk->stable_copy();
  EXPECT_TRUE(executor.run(newer->close()));
  auto after = executor.run(RawStore::open(cut->open(), {}));
  ASSERT_TRUE(after);
  EXPECT_TRUE((*after)->open_report().damage.empty());
  expect_all(**after, acknowledged);
  EXPECT_TRUE(executor.run((*after)->close()));
}

// What was accepted after a look, and waits in the store itself until the next is due, is written after another look or not at all.
TEST_F(RawStoreOwner, what_waits_for_its_turn_while_a_newcomer_opens_is_not_acknowledged) {
  auto quiet = executor.run(RawStore::open(handle(), {.background = false}));  // nobody looks in its stead
  ASSERT_TRUE(quiet);
  auto older = std::move(*quiet);
  disk->set_fault_hook([](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::write && request.length >= 512 * kKiB) fault.delay = milliseconds(200);
    return fault;
  });
  std::vector<uint64_t> acknowledged;
  std::optional<Result<std::unique_ptr<RawStore>>> opened;
  static constexpr uint64_t kPuts = 400;
  const auto put_one = [](RawStore& store, uint64_t n, std::vector<uint64_t>& numbers) -> Task<void> {
    const std::string text = test_payload(n, 60'000);
    std::vector<ByteView> parts = {bytes_of(text)};
    auto stored = co_await store.put({1, n}, std::move(parts), {});
    if (stored) numbers.push_back(n);
  };
  const auto meet = [&put_one](RawStoreOwner& t, RawStore& store, std::vector<uint64_t>& numbers,
                               std::optional<Result<std::unique_ptr<RawStore>>>& newer) -> Task<void> {
    TaskGroup group;
    for (uint64_t n = 1; n <= kPuts; ++n) group.spawn(put_one(store, n, numbers));
    co_await sleep_for(milliseconds(100));
    EXPECT_LT(numbers.size(), kPuts) << "they did not meet";
    group.spawn(keep_open(t.handle(), newer));
    co_await group.join();
  };
  executor.run(meet(*this, *older, acknowledged, opened));
  EXPECT_GT(acknowledged.size(), 0u);
  EXPECT_LT(acknowledged.size(), kPuts);
  EXPECT_EQ(older->health().state, StoreState::failed);
  ASSERT_TRUE(opened && *opened) << (*opened).error().to_string();
  auto newer = std::move(**opened);
  EXPECT_TRUE(newer->open_report().damage.empty());
  for (const uint64_t n : acknowledged) {
    auto got = executor.run(newer->get({1, n}, 0, kChunkSizeMax));
    ASSERT_TRUE(got) << "an acknowledged chunk is lost: " << n;
    EXPECT_TRUE(text_of(got->view()) == test_payload(n, 60'000)) << n;
  }
  executor.run(older->close()).ignore("it may say so or not");
  EXPECT_TRUE(executor.run(newer->close()));
}

// What waits in the log for the frame before it was accepted after a look, too.
TEST_F(RawStoreOwner, a_log_frame_that_waits_for_another_while_a_newcomer_opens_is_not_acknowledged) {
  auto quiet = executor.run(RawStore::open(handle(), {.background = false}));
  ASSERT_TRUE(quiet);
  auto older = std::move(*quiet);
  ASSERT_TRUE(executor.run(put(*older, 3)));
  ASSERT_TRUE(executor.run(put(*older, 6)));
  auto set = executor.run(raw::SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  const raw::Geometry geometry(set->superblock());
  int slow = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind != SimRequestKind::write || request.durability != Durability::durable) return fault;
    if (geometry.segment_at(request.offset) == set->superblock().log_segment && slow++ == 0) fault.delay = std::chrono::seconds(3);
    return fault;
  });
  Semaphore other_turn{1};  // the newcomer does not wait for the slow write
  std::optional<Result<void>> first, removed, stored;
  std::optional<Result<std::unique_ptr<RawStore>>> opened;
  const auto keep = [](Task<Result<void>> task, std::optional<Result<void>>* result) -> Task<void> { *result = co_await std::move(task); };
  const auto meet = [&]() -> Task<void> {
    TaskGroup group;
    std::vector<ChunkId> six = {{1, 6}}, three = {{1, 3}};
    group.spawn(keep(older->remove(std::move(six)), &first));
    co_await sleep_for(milliseconds(50));
    EXPECT_EQ(slow, 1) << "they did not meet";
    group.spawn(keep(older->remove(std::move(three)), &removed));
    group.spawn(keep(put(*older, 9), &stored));
    group.spawn(keep_open(std::make_unique<SharedHandle>(device, other_turn), opened));
    co_await sleep_for(milliseconds(2500));
    EXPECT_TRUE(opened && !first && !removed && !stored) << "they did not meet";
    co_await group.join();
  };
  executor.run(meet());
  ASSERT_TRUE(opened && *opened) << (*opened).error().to_string();
  auto newer = std::move(**opened);
  ASSERT_TRUE(first && removed && stored);
  EXPECT_FALSE(*first && executor.run(newer->stat({1, 6}))) << "a removed chunk is back";
  EXPECT_FALSE(*removed && executor.run(newer->stat({1, 3}))) << "a removed chunk is back";
  EXPECT_FALSE(*stored && !executor.run(newer->stat({1, 9}))) << "an acknowledged chunk is lost";
  EXPECT_EQ(older->health().state, StoreState::failed);
  EXPECT_NE(older->health().reason.find("another node"), std::string::npos) << older->health().reason;
  executor.run(older->close()).ignore("it may say so or not");
  EXPECT_TRUE(executor.run(newer->close()));
}

// What was freed is discarded when its slot says so, and the slot's record waits in the log. By then a newcomer may use the segment.
TEST_F(RawStoreOwner, a_discard_that_waits_for_the_log_while_a_newcomer_opens_is_not_made) {
  auto older = open();
  ASSERT_TRUE(executor.run(put(*older, 3)));
  auto set = executor.run(raw::SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  const raw::Geometry geometry(set->superblock());
  std::optional<Result<std::unique_ptr<RawStore>>> opened;
  bool slot_written = false;
  int slow = 0, discards = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::discard) ++discards;
    if (request.kind != SimRequestKind::write || request.durability != Durability::durable) return fault;
    const uint32_t segment = geometry.segment_at(request.offset);
    if (segment == raw::kNoSegment) return fault;
    if (segment != set->superblock().log_segment) {
      slot_written = slot_written || request.offset >= geometry.offset_of(segment) + geometry.data_bytes();
    } else if (slot_written && slow++ == 0) {
      fault.delay = std::chrono::seconds(3);
    }
    return fault;
  });
  const auto newcomer = [](std::unique_ptr<BlockDevice> on, std::optional<Result<std::unique_ptr<RawStore>>>* to) -> Task<void> {
    *to = co_await RawStore::open(std::move(on), {.background = false});
  };
  Semaphore other_turn{1};
  const auto meet = [&]() -> Task<void> {
    TaskGroup group;
    std::vector<ChunkId> three = {{1, 3}};
    auto removed = co_await older->remove(std::move(three));
    EXPECT_TRUE(removed);
    co_await sleep_for(milliseconds(20));
    group.spawn(newcomer(std::make_unique<SharedHandle>(device, other_turn), &opened));
    co_await sleep_for(milliseconds(2500));
    EXPECT_TRUE(opened && slow >= 1 && discards == 0) << "they did not meet";
    co_await sleep_for(milliseconds(2500));
    EXPECT_EQ(discards, 0);
    co_await group.join();
  };
  executor.run(meet());
  ASSERT_TRUE(opened && *opened) << (*opened).error().to_string();
  EXPECT_EQ(older->health().state, StoreState::failed);
  executor.run(older->close()).ignore("it may say so or not");
  EXPECT_TRUE(executor.run((**opened)->close()));
}

// One zone takes the next superblock, the others do not: the update fails, and what the one holds is still nobody else's.
TEST_F(RawStoreOwner, a_superblock_that_landed_in_part_is_not_taken_for_another_nodes) {
  auto store = open();
  auto set = executor.run(raw::SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  const std::vector<uint64_t> zones = set->superblock().zones;
  ASSERT_GE(zones.size(), 3u);
  bool first_lands = true;
  int landed = 0, refused = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    for (size_t i = 0; i < zones.size(); ++i) {
      if (request.kind != SimRequestKind::write || request.offset < zones[i] || request.offset >= zones[i] + 2 * raw::kBlock) continue;
      if ((i == 0) == first_lands) {
        ++landed;
      } else {
        fault.fail = Code::io_error;
        ++refused;
      }
    }
    return fault;
  });
  const Uuid one{{1, 1}}, other{{2, 2}};
  ASSERT_FALSE(executor.run(store->set_cluster_id(one)));
  ASSERT_EQ(landed, 1);
  ASSERT_EQ(refused, static_cast<int>(zones.size()) - 1);
  const auto there = disk->copy()->open();
  EXPECT_EQ(executor.run(RawStore::identify(*there))->cluster, one) << "they did not meet";
  executor.run(sleep_for(milliseconds(1500)));
  EXPECT_TRUE(executor.run(put(*store, 3)));
  EXPECT_TRUE(executor.run(store->check_health()));
  EXPECT_EQ(store->health().state, StoreState::online) << store->health().reason;
  // The next one lands everywhere else.
  first_lands = false;
  EXPECT_TRUE(executor.run(store->set_cluster_id(other)));
  executor.run(sleep_for(milliseconds(1500)));
  EXPECT_TRUE(executor.run(put(*store, 6)));
  EXPECT_EQ(store->health().state, StoreState::online) << store->health().reason;
  disk->set_fault_hook({});
  // Another node's is still seen.
  auto newer = open();
  ASSERT_TRUE(newer);
  EXPECT_EQ(newer->cluster_id(), other);
  expect_all(*newer, {3, 6});
  executor.run(sleep_for(milliseconds(1500)));
  EXPECT_EQ(executor.run(store->check_health()).error().code(), Code::device_gone);
  executor.run(store->close()).ignore("it may say so or not");
  EXPECT_TRUE(executor.run(newer->close()));
}

// Two zones take a newcomer's superblock, in any way that leaves one of them readable: the older set sees it, whichever zone is read first.
TEST_F(RawStoreOwner, a_newer_superblock_is_seen_in_whatever_zones_it_is) {
  auto first = executor.run(raw::SuperblockSet::load(*device));
  ASSERT_TRUE(first);
  const std::vector<uint64_t> zones = first->superblock().zones;
  ASSERT_EQ(zones.size(), 3u);
  const auto zone_of = [&zones](const SimRequest& request) {
    for (size_t i = 0; i < zones.size(); ++i) {
      if (request.offset >= zones[i] && request.offset < zones[i] + 2 * raw::kBlock) return i;
    }
    return zones.size();
  };
  for (size_t refusing = 0; refusing <= zones.size(); ++refusing) {
    for (uint64_t unreadable = 0; unreadable < 64; ++unreadable) {  // a bit for each block of a superblock
      disk->clear_bad_ranges();
      auto older = executor.run(raw::SuperblockSet::load(*device));
      auto newer = executor.run(raw::SuperblockSet::load(*device));
      ASSERT_TRUE(older && newer);
      disk->set_fault_hook([&](const SimRequest& request) {
        SimFault fault;
        if (request.kind == SimRequestKind::write && zone_of(request) == refusing) fault.fail = Code::io_error;
        return fault;
      });
      raw::Superblock next = newer->superblock();
      ++next.fencing_epoch;
      ASSERT_TRUE(executor.run(newer->update(*device, next)));
      disk->set_fault_hook({});
      const uint64_t slot = newer->superblock().sequence % 2;
      bool readable = false;
      for (size_t i = 0; i < zones.size(); ++i) {
        for (uint64_t k = 0; k < 2; ++k) {
          const bool bad = (unreadable >> (2 * i + k) & 1) != 0;
          if (bad) disk->add_bad_range(zones[i] + k * raw::kBlock, 512);
          readable = readable || (i != refusing && k == slot && !bad);
        }
      }
      const auto of_older = executor.run(older->is_newest(*device)), of_newer = executor.run(newer->is_newest(*device));
      ASSERT_TRUE(of_older && of_newer);
      EXPECT_EQ(*of_older, !readable) << "zone " << refusing << " refuses, unreadable " << unreadable;
      EXPECT_TRUE(*of_newer) << "zone " << refusing << " refuses, unreadable " << unreadable;
    }
  }
}

// A zone that was never written since the drive grew may hold anything, also what another drive had there.
TEST_F(RawStoreOwner, another_drives_superblock_counts_where_it_is_not_alone) {
  auto set = executor.run(raw::SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  const std::vector<uint64_t> zones = set->superblock().zones;
  raw::Superblock other = set->superblock();
  other.drive = Uuid{{9, 9}};
  other.sequence += 2;
  for (size_t i = 0; i < zones.size(); ++i) {
    for (uint64_t sequence = other.sequence; sequence < other.sequence + 2; ++sequence) {
      raw::Superblock copy = other;
      copy.sequence = sequence;
      disk->poke(raw::superblock_at(zones[i], sequence), raw::encode_superblock(copy, zones[i]));
    }
    const auto newest = executor.run(set->is_newest(*device));
    ASSERT_TRUE(newest);
    EXPECT_EQ(*newest, i == 0) << i;  // one of three; two of three: it was formatted
  }
}

// The newcomer's superblock did not reach the zone that is read first.
TEST_F(RawStoreOwner, an_older_owner_gives_way_although_the_first_zone_says_that_it_need_not) {
  auto older = open();
  ASSERT_TRUE(executor.run(put(*older, 3)));
  disk->set_fault_hook([](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::write && request.offset < 2 * raw::kBlock) fault.fail = Code::io_error;
    return fault;
  });
  auto newer = open();
  ASSERT_TRUE(newer);
  executor.run(sleep_for(milliseconds(1500)));
  EXPECT_FALSE(executor.run(put(*older, 6)));
  EXPECT_EQ(older->health().state, StoreState::failed);
  EXPECT_TRUE(executor.run(put(*newer, 9)));
  disk->set_fault_hook({});
  executor.run(older->close()).ignore("it may say so or not");
  expect_all(*newer, {3, 9});
  EXPECT_TRUE(executor.run(newer->close()));
}

// A store looks, writes something that takes three seconds, and goes on to the next write of the same thing. Meanwhile a newcomer raises
// the epoch, and when it has waited nothing more may be written. `slow` says whether a write is that one, by its request and the number of
// slow ones so far.
void RawStoreOwner::expect_silence_after(const std::function<Task<Result<void>>(RawStore&)>& act,
                                         const std::function<bool(const SimRequest&, int)>& slow, bool fails) {
  Semaphore many{64};  // writes do not wait for each other
  auto opened = executor.run(RawStore::open(std::make_unique<SharedHandle>(device, many), {.background = false}));
  ASSERT_TRUE(opened) << opened.error().to_string();
  const auto older = std::move(*opened);
  ASSERT_TRUE(executor.run(put(*older, 1)));
  for (uint64_t n = 1; n <= 44; ++n) {
    const std::string text = test_payload(n, 900'000);
    ASSERT_TRUE(executor.run(older->put({2, n}, {bytes_of(text)}, {})));
  }
  int slowed = 0, late = 0;
  bool raised = false, waited = false;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind != SimRequestKind::write && request.kind != SimRequestKind::discard) return fault;
    if (waited) {
      ++late;
    } else if (!raised && slow(request, slowed)) {
      ++slowed;
      fault.delay = std::chrono::seconds(3);
      if (fails) fault.fail = Code::io_error;
    }
    return fault;
  });
  const auto keep = [](Task<Result<void>> task, std::optional<Result<void>>* to) -> Task<void> { *to = co_await std::move(task); };
  std::optional<Result<void>> acted;
  const auto meet = [&]() -> Task<void> {
    TaskGroup group;
    group.spawn(keep(act(*older), &acted));
    co_await sleep_for(milliseconds(50));
    EXPECT_GE(slowed, 1) << "they did not meet";
    raised = true;
    auto newcomer = co_await raw::SuperblockSet::load(*device);
    EXPECT_TRUE(newcomer);
    raw::Superblock next = newcomer->superblock();
    ++next.fencing_epoch;
    auto updated = co_await newcomer->update(*device, next);
    EXPECT_TRUE(updated);
    co_await sleep_for(milliseconds(1250));
    waited = true;
    EXPECT_FALSE(acted) << "they did not meet";
    co_await group.join();
  };
  executor.run(meet());
  ASSERT_TRUE(acted);
  EXPECT_FALSE(*acted) << "the newcomer may not have found it";
  EXPECT_EQ(older->health().state, StoreState::failed);
  executor.run(older->close()).ignore("it may say so or not");
  EXPECT_EQ(late, 0) << "written by a store that is not the owner";
  disk->set_fault_hook({});
}

TEST_F(RawStoreOwner, a_log_frame_that_failed_slowly_is_not_put_elsewhere_while_a_newcomer_opens) {
  const auto act = [](RawStore& store) -> Task<Result<void>> {
    std::vector<ChunkId> one = {{1, 1}};
    auto removed = co_await store.remove(std::move(one));
    co_return removed;
  };
  expect_silence_after(act, [](const SimRequest&, int slowed) { return slowed == 0; }, true);
}

TEST_F(RawStoreOwner, what_was_written_slowly_is_not_acknowledged_after_a_newcomer_has_read) {
  const auto remove_one = [](RawStore& store) -> Task<Result<void>> {
    std::vector<ChunkId> one = {{1, 1}};
    auto removed = co_await store.remove(std::move(one));
    co_return removed;
  };
  const auto put_small = [](RawStore& store) -> Task<Result<void>> {
    auto stored = co_await put(store, 2);
    co_return stored;
  };
  const auto put_large = [](RawStore& store) -> Task<Result<void>> {
    auto stored = co_await put(store, 3);
    co_return stored;
  };
  expect_silence_after(remove_one, [](const SimRequest&, int slowed) { return slowed == 0; }, false);
  create(2);
  expect_silence_after(put_small, [](const SimRequest&, int slowed) { return slowed == 0; }, false);
  create(3);
  expect_silence_after(put_large, [](const SimRequest& request, int) { return request.length >= 100'000; }, false);
}

TEST_F(RawStoreOwner, a_small_chunk_that_failed_slowly_is_not_put_elsewhere_while_a_newcomer_opens) {
  const auto act = [](RawStore& store) -> Task<Result<void>> {
    auto stored = co_await put(store, 2);
    co_return stored;
  };
  expect_silence_after(act, [](const SimRequest&, int slowed) { return slowed == 0; }, true);
}

TEST_F(RawStoreOwner, slots_that_wait_for_slow_ones_are_not_written_while_a_newcomer_opens) {
  auto set = executor.run(raw::SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  const raw::Geometry geometry(set->superblock());
  int slots = 0;  // of extents, of which sixteen are written at once
  const auto slow = [&](const SimRequest& request, int) {
    const uint32_t segment = geometry.segment_at(request.offset);
    const bool extents = request.durability != Durability::durable && segment != raw::kNoSegment && segment > 1;
    slots += extents ? 1 : 0;
    return extents;
  };
  const auto act = [](RawStore& store) -> Task<Result<void>> {
    auto done = co_await store.checkpoint();
    co_return done;
  };
  expect_silence_after(act, slow, false);
  EXPECT_EQ(slots, 16) << "they did not meet";
}

TEST_F(RawStoreOwner, the_second_run_of_a_chunk_is_not_written_while_a_newcomer_opens) {
  const auto act = [](RawStore& store) -> Task<Result<void>> {
    const std::string text = test_payload(3, 3'000'000);  // more than a segment
    std::vector<ByteView> parts = {bytes_of(text)};
    auto stored = co_await store.put({1, 3}, std::move(parts), {});
    co_return stored;
  };
  expect_silence_after(act, [](const SimRequest& request, int slowed) { return request.length > 200'000 && slowed == 0; }, false);
}

// A checkpoint waits for a frame, to list its items behind it.
TEST_F(RawStoreOwner, an_inventory_that_waits_for_a_slow_frame_is_not_written_while_a_newcomer_opens) {
  const auto act = [](RawStore& store) -> Task<Result<void>> {
    std::optional<Result<void>> stored;
    TaskGroup group;
    group.spawn([](RawStore& into, std::optional<Result<void>>* to) -> Task<void> { *to = co_await put(into, 2); }(store, &stored));
    auto done = co_await store.checkpoint();
    co_await group.join();
    EXPECT_FALSE(*stored) << "the newcomer may not have found it";
    co_return done;
  };
  expect_silence_after(act, [](const SimRequest& request, int slowed) { return request.length < 500'000 && slowed == 0; }, false);
}

// One node reads a large drive for longer than another one needs to open it.
TEST_F(RawStoreOwner, a_mount_that_took_long_to_read_writes_nothing_when_another_node_has_opened_meanwhile) {
  auto gone = open();
  ASSERT_TRUE(executor.run(put(*gone, 3)));
  int slowed = 0, late = 0;
  std::optional<Result<std::unique_ptr<RawStore>>> slow, quick;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::read && request.length >= 512 * kKiB && slowed++ == 0) fault.delay = std::chrono::seconds(6);
    if (request.kind == SimRequestKind::write && quick) ++late;
    return fault;
  });
  Semaphore many{64}, others{64};
  const auto newcomer = [](std::unique_ptr<BlockDevice> on, std::optional<Result<std::unique_ptr<RawStore>>>* to) -> Task<void> {
    *to = co_await RawStore::open(std::move(on), {.background = false});
  };
  const auto meet = [&]() -> Task<void> {
    TaskGroup group;
    group.spawn(newcomer(std::make_unique<SharedHandle>(device, many), &slow));
    co_await sleep_for(milliseconds(2000));
    EXPECT_EQ(slowed, 1) << "they did not meet";
    group.spawn(newcomer(std::make_unique<SharedHandle>(device, others), &quick));
    co_await sleep_for(milliseconds(3000));
    EXPECT_TRUE(quick && !slow) << "they did not meet";
    co_await group.join();
  };
  executor.run(meet());
  ASSERT_TRUE(quick && *quick) << (*quick).error().to_string();
  ASSERT_TRUE(slow);
  EXPECT_FALSE(*slow);
  EXPECT_EQ(late, 0) << "written by a store that is not the owner";
  disk->set_fault_hook({});
  expect_all(***quick, {3});
  EXPECT_TRUE(executor.run((**quick)->close()));
  executor.run(gone->close()).ignore("it may say so or not");
}

TEST_F(RawStoreOwner, an_older_owner_without_writes_is_told_by_its_health) {
  auto older = open();
  auto newer = open();
  executor.run(sleep_for(milliseconds(1500)));
  EXPECT_TRUE(executor.run(newer->check_health()));
  const auto health = executor.run(older->check_health());
  ASSERT_FALSE(health);
  EXPECT_EQ(health.error().code(), Code::device_gone);
  EXPECT_FALSE(executor.run(older->checkpoint()));
  executor.run(older->close()).ignore("it may say so or not");
  EXPECT_TRUE(executor.run(newer->close()));
  auto again = open();
  EXPECT_TRUE(again->open_report().clean);
  EXPECT_TRUE(executor.run(again->close()));
}

TEST_F(RawStoreOwner, of_two_that_open_at_once_at_most_one_writes) {
  int one = 0, none = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    create(seed);
    std::array<std::optional<Result<std::unique_ptr<RawStore>>>, 2> opened;
    const auto race = [](RawStoreOwner& t, std::optional<Result<std::unique_ptr<RawStore>>>& a,
                         std::optional<Result<std::unique_ptr<RawStore>>>& b) -> Task<void> {
      TaskGroup group;
      group.spawn(keep_open(t.handle(), a));
      group.spawn(keep_open(t.handle(), b));
      co_await group.join();
      co_await sleep_for(milliseconds(1500));
    };
    executor.run(race(*this, opened[0], opened[1]));
    int writing = 0;
    for (auto& store : opened) {
      if (*store && executor.run(put(***store, 10))) ++writing;
    }
    EXPECT_LE(writing, 1) << seed;
    ++(writing == 1 ? one : none);
    for (auto& store : opened) {
      if (*store) executor.run((**store)->close()).ignore("it may say so or not");
    }
  }
  EXPECT_GT(one, 0);
}

// On a long line: what it gets to see is a little old.
class LateReader final : public BlockDevice {
 public:
  LateReader(std::unique_ptr<BlockDevice> device, std::function<Duration(size_t bytes)> late)
      : device_(std::move(device)), late_(std::move(late)) {}
  const DeviceInfo& info() const override { return device_->info(); }
  Task<Result<void>> read(uint64_t offset, MutableByteView into) override {
    auto got = co_await device_->read(offset, into);
    co_await sleep_for(late_(into.size()));
    co_return got;
  }
  Task<Result<void>> write(uint64_t offset, ByteView from, Durability how) override { return device_->write(offset, from, how); }
  Task<Result<void>> write_gather(uint64_t offset, std::vector<ByteView> parts, Durability how) override {
    return device_->write_gather(offset, std::move(parts), how);
  }
  Task<Result<void>> flush() override { return device_->flush(); }
  Task<Result<void>> discard(uint64_t offset, uint64_t length) override { return device_->discard(offset, length); }
  Task<Result<uint64_t>> refresh_size() override { return device_->refresh_size(); }
  Task<void> close() override { co_return; }

 private:
  const std::unique_ptr<BlockDevice> device_;
  const std::function<Duration(size_t)> late_;
};

// Both nodes open a drive that was closed properly, so that none has to wait for an older owner, and write at once.
class RawStoreOwnerCrossing : public RawStoreOwner {
 public:
  struct Node {
    std::optional<Result<std::unique_ptr<RawStore>>> opened;
    std::vector<uint64_t> acknowledged;
    bool ended = false;
    bool serves() const { return opened && *opened; }
  };
  using Late = std::function<Duration(size_t bytes)>;
  static Task<void> open_and_write(RawStoreOwnerCrossing& t, Node& node, Late late, uint64_t first) {
    co_await keep_open(std::make_unique<LateReader>(t.handle(), std::move(late)), node.opened);
    for (uint64_t n = first; *node.opened && n < first + 60; ++n) {
      auto stored = co_await put(***node.opened, n);
      if (!stored) break;
      node.acknowledged.push_back(n);
      co_await sleep_for(milliseconds(7));
    }
    node.ended = true;
  }
  static Task<void> meet(RawStoreOwnerCrossing& t, Node& one, Late late, Duration later, Node& other, Late other_late) {
    TaskGroup group;
    group.spawn(open_and_write(t, one, std::move(late), 1));
    co_await sleep_for(later);
    EXPECT_FALSE(one.ended) << "they did not meet";
    group.spawn(open_and_write(t, other, std::move(other_late), 1001));
    co_await group.join();
  }
  void expect_nothing_lost(Node& one, Node& other) {
    for (Node* node : {&one, &other}) {
      if (node->serves()) executor.run((**node->opened)->close()).ignore("it may say so or not");
    }
    auto after = open();
    ASSERT_TRUE(after);
    for (const Node* node : {&one, &other}) expect_all(*after, node->acknowledged);
    EXPECT_TRUE(executor.run(after->close()));
  }
};

// Whatever point the one has come to when the other begins, what it acknowledges is found by the other.
TEST_F(RawStoreOwnerCrossing, what_one_of_two_that_open_a_closed_drive_acknowledges_the_other_finds) {
  int given_way = 0;
  for (int later = 0; later <= 120; later += 3) {
    SCOPED_TRACE(fmt::format("{} ms later", later));
    create(1);
    Node one, other;
    const auto late = [](int ms) { return [ms](size_t) -> Duration { return milliseconds(ms); }; };
    executor.run(meet(*this, one, late(2), milliseconds(later), other, late(6)));
    given_way += other.serves() && !one.acknowledged.empty() ? 1 : 0;
    expect_nothing_lost(one, other);
  }
  EXPECT_GT(given_way, 0);
}

// Neither sees the other when it raises the epoch: one looks a little too early, the other reads the log for long. When that one would
// serve, its last look is young, but the log that it has read is old.
TEST_F(RawStoreOwnerCrossing, of_two_that_do_not_see_each_other_at_first_the_slower_gives_way_before_it_writes) {
  int met = 0;
  for (int later = 0; later <= 60; later += 3) {
    SCOPED_TRACE(fmt::format("{} ms later", later));
    create(1);
    Node quick, slow;
    const auto late_look = [](size_t bytes) -> Duration { return milliseconds(bytes == 2 * raw::kBlock ? 60 : 0); };
    const auto late_log = [](size_t bytes) -> Duration { return milliseconds(bytes >= 512 * kKiB ? 150 : 0); };
    executor.run(meet(*this, quick, late_look, milliseconds(later), slow, late_log));
    met += !quick.acknowledged.empty() && !slow.serves() ? 1 : 0;
    expect_nothing_lost(quick, slow);
  }
  EXPECT_GT(met, 0) << "they did not meet";
}

TEST_F(RawStoreOwner, a_drive_that_was_closed_is_opened_without_a_wait) {
  auto store = open();
  EXPECT_TRUE(executor.run(store->close()));
  TimePoint before = executor.now();
  store = open();
  EXPECT_LT(executor.now() - before, milliseconds(100));
  const auto cut = disk->copy();
  EXPECT_TRUE(executor.run(store->close()));
  before = executor.now();
  auto after = executor.run(RawStore::open(cut->open(), {}));
  ASSERT_TRUE(after);
  EXPECT_GE(executor.now() - before, std::chrono::seconds(1));
  EXPECT_TRUE(executor.run((*after)->close()));
}

}  // namespace
}  // namespace quarry::chunk
