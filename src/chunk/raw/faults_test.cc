// Drives that fail while a store uses them: the caller gets a clear error, the rest keeps working, nothing acknowledged is lost.
#include <gtest/gtest.h>

#include "chunk/raw/geometry.h"
#include "chunk/raw/log_reader.h"
#include "chunk/raw/raw_store.h"
#include "chunk/test_payload.h"
#include "io/clock.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

class RawStoreFaults : public testing::Test {
 protected:
  void create(SimDisk::Options options) {
    disk = SimDisk::create(std::move(options));
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {})));
    executor.run(device->close());
    device.reset();
    open();
  }
  void SetUp() override { create({.size = 64 * kMiB}); }
  void open(RawStoreOptions options = {}) {
    auto opened = executor.run(RawStore::open(disk->open(), options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void close() {
    if (store) (executor.run(store->close())).ignore("the drive may be broken");
    store.reset();
  }
  void TearDown() override {
    disk->set_fault_hook({});
    close();
  }
  Result<void> put(uint64_t n, size_t size, Stream stream = Stream::data) {
    const std::string text = test_payload(n, size);
    auto result = executor.run(store->put({1, n}, {bytes_of(text)}, {stream}));
    if (result) sizes[n] = size;
    return result;
  }
  Result<void> remove(uint64_t n) {
    auto result = executor.run(store->remove({{1, n}}));
    if (result) sizes.erase(n);
    return result;
  }
  Code get_code(uint64_t n) {
    auto got = executor.run(store->get({1, n}, 0, kChunkSizeMax));
    return got ? Code{0} : got.error().code();
  }
  void expect_all() {
    for (const auto& [n, size] : sizes) {
      auto got = executor.run(store->get({1, n}, 0, kChunkSizeMax));
      ASSERT_TRUE(got) << n << ": " << got.error().to_string();
      EXPECT_TRUE(text_of(got->view()) == test_payload(n, size)) << n;
    }
    const auto report = executor.run(store->fsck());
    ASSERT_TRUE(report);
    for (const auto& sentence : report->violations) ADD_FAILURE() << sentence;
  }
  raw::Superblock superblock() {
    auto block = disk->peek(0, 2 * raw::kBlock);
    auto a = raw::decode_superblock(block.view().first(raw::kBlock), 0);
    auto b = raw::decode_superblock(block.view().subspan(raw::kBlock), 0);
    EXPECT_TRUE(a && b);
    return a->sequence > b->sequence ? *a : *b;
  }
  // The segment, other than the log's, in whose data (or slots) a write lands.
  static std::optional<uint32_t> written_to(const SimRequest& request, const raw::Geometry& geometry, bool slots = false) {
    const uint32_t segment = geometry.segment_at(request.offset);
    if (request.kind != SimRequestKind::write || segment == raw::kNoSegment || segment == 0) return std::nullopt;
    if ((request.offset >= geometry.offset_of(segment) + geometry.data_bytes()) != slots) return std::nullopt;
    return segment;
  }
  // The power goes; the store that was open is thrown away.
  void cut_power() {
    auto after = disk->stable_copy();
    disk->set_fault_hook({});
    close();
    disk = std::move(after);
  }

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
  std::unique_ptr<RawStore> store;
  std::map<uint64_t, size_t> sizes;
};

TEST_F(RawStoreFaults, a_device_of_which_a_part_went_away_fails_its_health_check) {
  ASSERT_TRUE(put(1, 100'000));
  EXPECT_TRUE(executor.run(store->check_health()));
  disk->cut(48 * kMiB);
  const auto cut = executor.run(store->check_health());
  ASSERT_FALSE(cut);
  EXPECT_NE(cut.error().to_string().find("has shrunk from 64.0 MiB to 48.0 MiB"), std::string::npos) << cut.error().to_string();
  disk->grow(64 * kMiB);
  EXPECT_TRUE(executor.run(store->check_health()));
}

TEST_F(RawStoreFaults, a_full_drive_still_reads_removes_and_takes_metadata) {
  uint64_t n = 1;
  for (const size_t size : {1'000'000ul, 100'000ul, 3'000ul}) {
    Result<void> result;
    while ((result = put(n, size))) ++n;
    EXPECT_EQ(result.error().code(), Code::no_space) << result.error().to_string();
    ASSERT_LT(n, 20'000u);
  }
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_GT(store->space().payload_bytes, 64 * kMiB * 8 / 10);
  EXPECT_TRUE(put(1'000'000, 2'000, Stream::log));
  expect_all();
  close();
  open();
  expect_all();
  const auto before = sizes;
  for (const auto& [number, size] : before) {
    if (number % 2 == 0) ASSERT_TRUE(remove(number)) << number;
  }
  EXPECT_TRUE(put(2'000'001, 900'000));
  EXPECT_TRUE(executor.run(store->compact()));
  EXPECT_TRUE(put(2'000'002, 3'000));
  expect_all();
}

// One chunk in each frame, which fills three quarters of it: to copy them together gains a quarter once, and then never again.
TEST_F(RawStoreFaults, a_drive_full_of_small_frames_is_compacted_once_and_then_full) {
  uint64_t n = 1;
  Result<void> result;
  const auto fill = [](RawStore& into, SimDisk& drive, uint64_t& number, Result<void>& last) -> Task<void> {
    bool done = false;
    TaskGroup group;
    group.spawn([](RawStore& looked_at, SimDisk& away, const bool& over) -> Task<void> {  // else it would never end
      while (!over && looked_at.stats().segments_compacted < 500) co_await sleep_for(std::chrono::milliseconds(1));
      if (!over) away.set_gone(true);
    }(into, drive, done));
    const std::string text = test_payload(7, 3'000);
    for (; last; ++number) last = co_await into.put({1, number}, {bytes_of(text)}, {});
    done = true;
    co_await group.join();
  };
  executor.run(fill(*store, *disk, n, result));
  EXPECT_EQ(result.error().code(), Code::no_space) << result.error().to_string();
  EXPECT_GT(n * 3'000, 64 * kMiB * 3 / 4);
  EXPECT_GT(store->stats().segments_compacted, 5u);
  EXPECT_LT(store->stats().segments_compacted, 64u);
}

TEST_F(RawStoreFaults, filling_and_emptying_again_and_again_loses_no_space) {
  uint64_t n = 1;
  uint64_t first_round = 0;
  for (int round = 0; round < 4; ++round) {
    uint64_t bytes = 0;
    SeededRandom random(static_cast<uint64_t>(round));
    for (;;) {
      const size_t size = random.below(3) == 0 ? 70'000 + random.below(900'000) : random.below(30'000);
      if (!put(n, size)) break;
      bytes += size;
      ++n;
    }
    if (round == 0) first_round = bytes;
    EXPECT_GT(bytes, first_round * 85 / 100) << "round " << round;
    const auto all = sizes;
    for (const auto& [number, size] : all) ASSERT_TRUE(remove(number));
    ASSERT_TRUE(executor.run(store->compact()));
    EXPECT_EQ(store->space().used_bytes, 0u);
    if (round == 1) {
      close();
      open();
    }
  }
}

TEST_F(RawStoreFaults, a_bad_sector_under_a_frame_header_costs_its_items_and_stops_nothing) {
  for (uint64_t n = 1; n <= 20; ++n) ASSERT_TRUE(put(n, 5'000));
  const std::string text = test_payload(1, 5'000);
  const auto all = disk->peek(0, 64 * kMiB);
  const auto found = text_of(all.view()).find(std::string_view(text).substr(0, 1000));
  ASSERT_NE(found, std::string_view::npos);
  disk->add_bad_range(round_down(found, 4096), 512);  // the first frame: header, and the first bytes of chunk 1
  const auto progress = executor.run(store->scrub({}, UINT64_MAX));
  ASSERT_TRUE(progress) << progress.error().to_string();
  EXPECT_TRUE(progress->complete);
  EXPECT_GT(store->health().read_errors, 0u);
  EXPECT_EQ(store->health().state, StoreState::online);
  for (uint64_t n = 2; n <= 20; ++n) EXPECT_EQ(get_code(n), Code{0}) << n;
  EXPECT_TRUE(put(21, 5'000));
  EXPECT_TRUE(executor.run(store->compact()));
}

TEST_F(RawStoreFaults, a_bad_sector_costs_one_chunk) {
  for (uint64_t n = 1; n <= 5; ++n) ASSERT_TRUE(put(n, 200'000));
  for (uint64_t n = 6; n <= 10; ++n) ASSERT_TRUE(put(n, 5'000));
  // Find chunk 3 by its bytes.
  const std::string text = test_payload(3, 200'000);
  uint64_t at = 0;
  const auto all = disk->peek(0, 64 * kMiB);
  for (; at < all.size(); at += 4096) {
    if (std::memcmp(all.data() + at, text.data(), 4096) == 0) break;
  }
  ASSERT_LT(at, all.size());
  disk->add_bad_range(at + 8192, 512);
  for (uint64_t n = 1; n <= 10; ++n) EXPECT_EQ(get_code(n), n == 3 ? Code::io_error : Code{0}) << n;
  EXPECT_GT(store->health().read_errors, 0u);
  EXPECT_EQ(store->health().state, StoreState::online);
  const auto part = executor.run(store->get({1, 3}, 100'000, 1000));  // the other blocks are readable
  EXPECT_TRUE(part);
  const auto progress = executor.run(store->scrub({}, UINT64_MAX));
  ASSERT_TRUE(progress);
  ASSERT_EQ(progress->damaged.size(), 1u);
  EXPECT_EQ(progress->damaged[0].id, (ChunkId{1, 3}));
  EXPECT_TRUE(remove(3));
}

TEST_F(RawStoreFaults, a_failed_write_goes_to_another_place) {
  for (const uint64_t n : {1, 2, 3, 4, 5, 6}) {
    disk->fail_next_writes(1, Code::io_error, n % 3 * 4096);
    EXPECT_TRUE(put(n, n % 2 == 0 ? 3'000 : 300'000)) << n;
  }
  EXPECT_GT(store->health().write_errors, 0u);
  EXPECT_EQ(store->health().state, StoreState::online);
  expect_all();
  close();
  open();
  expect_all();
  EXPECT_TRUE(store->open_report().damage.empty());
}

TEST_F(RawStoreFaults, a_frame_that_failed_but_landed_brings_nothing_removed_back) {
  ASSERT_TRUE(put(1, 3'000));
  disk->fail_next_writes(1, Code::io_error, 64 * kKiB);  // all of it reached the media
  ASSERT_TRUE(put(2, 3'000));
  ASSERT_TRUE(put(3, 3'000));
  ASSERT_TRUE(remove(2));
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(executor.run(store->checkpoint()));  // the tombstone is in no epoch that is read
  const auto crashed = disk->copy();
  close();
  disk = crashed;
  open();
  EXPECT_EQ(get_code(2), Code::not_found);
  expect_all();
  EXPECT_TRUE(store->open_report().damage.empty());
}

// A full drive, a third of it garbage. The second frame of every segment that compaction fills is refused once: segments given up must not
// use up the few that it has.
TEST_F(RawStoreFaults, compaction_of_a_full_drive_outlives_a_failed_write_in_every_segment) {
  close();
  open({.background = false});
  uint64_t n = 1;
  while (put(n, 50'000)) ++n;
  for (uint64_t k = 1; k < n; k += 3) ASSERT_TRUE(remove(k));
  for (uint64_t k = 2; k < n; k += 15) ASSERT_TRUE(remove(k));
  const raw::Geometry geometry(superblock());
  std::map<uint32_t, int> frames;
  int failed = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    const auto segment = written_to(request, geometry);
    if (segment && ++frames[*segment] == 2) {
      fault.fail = Code::io_error;
      ++failed;
    }
    return fault;
  });
  const auto compacted = executor.run(store->compact());
  EXPECT_TRUE(compacted) << compacted.error().to_string();
  EXPECT_GE(failed, 4) << "they did not meet";
  for (uint64_t k = 1; k <= 100; ++k) ASSERT_TRUE(put(10'000 + k, 50'000)) << k;
  EXPECT_EQ(store->health().state, StoreState::online);
  expect_all();
  cut_power();
  open();
  expect_all();
  EXPECT_TRUE(store->open_report().damage.empty());
}

// A write failed, the power went, and the mount finds two open segments where one is continued. The other one is free when it is empty.
TEST_F(RawStoreFaults, a_segment_that_a_mount_does_not_continue_is_not_lost) {
  const uint64_t free = store->space().free_bytes;
  for (uint64_t round = 0; round < 40; ++round) {
    ASSERT_TRUE(put(1, 3'000)) << round;
    disk->fail_next_writes(1, Code::io_error, 0);
    ASSERT_TRUE(put(2, 3'000)) << round;
    cut_power();
    open();
    expect_all();
    ASSERT_TRUE(remove(1));
    ASSERT_TRUE(remove(2));
  }
  EXPECT_GE(store->space().free_bytes + 3 * 2 * kMiB, free);
}

// Where a write failed nothing more is put until the next mount, and then it is tried again.
TEST_F(RawStoreFaults, a_segment_in_which_a_write_failed_is_not_lost) {
  const uint64_t free = store->space().free_bytes;
  const raw::Geometry geometry(superblock());
  for (const bool slots : {false, true}) {
    for (const size_t size : {3'000ul, 300'000ul}) {
      for (uint64_t round = 0; round < 40; ++round) {
        int failures = 1;
        disk->set_fault_hook([&](const SimRequest& request) {
          SimFault fault;
          if (written_to(request, geometry, slots) && failures-- > 0) fault.fail = Code::io_error;
          return fault;
        });
        ASSERT_TRUE(put(1, size)) << round;
        disk->set_fault_hook({});
        ASSERT_TRUE(remove(1));
        close();
        open();
      }
      EXPECT_GE(store->space().free_bytes + 3 * 2 * kMiB, free) << size << (slots ? ", slots" : "");
    }
  }
}

// Every segment has one small hole left, and a chunk is put into several of them.
TEST_F(RawStoreFaults, a_failed_write_of_one_run_gives_up_one_segment) {
  uint64_t n = 1;
  while (put(n, 900'000) && store->space().free_bytes > 0 && n < 2 * (raw::Geometry(superblock()).segments() - 1 - 3)) ++n;
  ASSERT_EQ(store->stats().segments_retired, 0u);
  const raw::Geometry geometry(superblock());
  int writes = 0;
  std::set<uint32_t> segments;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    const auto segment = written_to(request, geometry);
    if (!segment) return fault;
    if (++writes <= 2) segments.insert(*segment);
    if (writes == 2) fault.fail = Code::io_error;
    return fault;
  });
  ASSERT_TRUE(put(1000, 900'000));
  disk->set_fault_hook({});
  EXPECT_EQ(segments.size(), 2u) << "they did not meet";
  EXPECT_EQ(store->stats().segments_retired, 1u);
  expect_all();
  cut_power();
  open();
  expect_all();
}

// Nothing is in the segment, so nothing of it need be said by a checkpoint.
TEST_F(RawStoreFaults, a_slot_that_cannot_be_written_costs_its_free_segment_and_no_more) {
  const raw::Geometry geometry(superblock());
  std::optional<uint32_t> broken;
  int failures = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    const auto segment = written_to(request, geometry, true);
    if (segment && !broken) broken = segment;
    if (segment && segment == broken) {
      fault.fail = Code::io_error;
      ++failures;
    }
    return fault;
  });
  for (int mount = 0; mount < 2; ++mount) {
    for (uint64_t n = 1; n <= 10; ++n) ASSERT_TRUE(put(static_cast<uint64_t>(mount) * 100 + n, n % 2 == 0 ? 3'000 : 900'000)) << n;
    const auto done = executor.run(store->checkpoint());
    EXPECT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(store->health().state, StoreState::online) << store->health().reason;
    expect_all();
    close();
    open();
    EXPECT_TRUE(store->open_report().clean);
    EXPECT_TRUE(store->open_report().damage.empty());
  }
  EXPECT_GE(failures, 1) << "they did not meet";
  expect_all();
}

// The mount lists what the last frames hold; the drive refuses that, and nothing, half or all of it lands.
TEST_F(RawStoreFaults, an_inventory_that_a_mount_cannot_write_costs_no_chunk) {
  for (const uint64_t landed : {0ul, 512ul, 1'000'000ul}) {
    close();
    create({.size = 64 * kMiB});
    sizes.clear();
    for (uint64_t n = 1; n <= 60; ++n) ASSERT_TRUE(put(n, 3'000, n % 2 == 0 ? Stream::data : Stream::log));
    ASSERT_TRUE(remove(7));
    const raw::Geometry geometry(superblock());
    cut_power();
    int failures = 0;
    disk->set_fault_hook([&](const SimRequest& request) {
      SimFault fault;
      if (written_to(request, geometry) && ++failures > 0) {
        fault.fail = Code::io_error;
        fault.landed_before_failure = std::min(landed, request.length);
      }
      return fault;
    });
    open();
    EXPECT_EQ(failures, 2) << "they did not meet";
    disk->set_fault_hook({});
    EXPECT_EQ(get_code(7), Code::not_found);
    ASSERT_TRUE(remove(8));
    ASSERT_TRUE(put(100, 3'000));
    expect_all();
    for (int cut = 0; cut < 2; ++cut) {
      cut_power();
      open();
      EXPECT_TRUE(store->open_report().damage.empty());
      EXPECT_EQ(get_code(7), Code::not_found);
      EXPECT_EQ(get_code(8), Code::not_found);
      expect_all();
    }
  }
}

// Each mount has to write a slot, and the place for it is broken for good.
TEST_F(RawStoreFaults, a_drive_whose_mount_can_write_no_checkpoint_is_read) {
  for (uint64_t n = 1; n <= 10; ++n) ASSERT_TRUE(put(n, n % 2 == 0 ? 3'000 : 300'000));
  const raw::Geometry geometry(superblock());
  cut_power();
  int refused = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (written_to(request, geometry, true) && ++refused > 0) fault.fail = Code::io_error;
    return fault;
  });
  for (int mount = 0; mount < 2; ++mount) {
    open();
    EXPECT_EQ(store->health().state, StoreState::read_only);
    EXPECT_NE(store->health().reason.find("checkpoint"), std::string::npos) << store->health().reason;
    expect_all();
    const auto stored = put(11, 3'000);
    EXPECT_EQ(stored.error().code(), Code::read_only);
    EXPECT_FALSE(remove(1));
    expect_all();
    close();
  }
  EXPECT_GE(refused, 2) << "they did not meet";
  disk->set_fault_hook({});
  open();
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_TRUE(remove(1));
  EXPECT_TRUE(put(11, 3'000));
  expect_all();
}

// A damaged log, and slots of which each mount can write one more, but not that of the segment with a chunk which now only its own header
// tells of. Such a mount passes over numbers of epochs; the chunk grows no older by that.
TEST_F(RawStoreFaults, a_chunk_that_only_its_header_tells_of_is_found_by_every_mount_until_a_slot_lists_it) {
  ASSERT_TRUE(put(1, 300'000));
  ASSERT_TRUE(put(2, 3'000));
  ASSERT_TRUE(executor.run(store->checkpoint()));
  ASSERT_TRUE(put(3, 300'000));
  ASSERT_TRUE(put(4, 310'000));
  for (uint64_t n = 5; n <= 14; ++n) ASSERT_TRUE(put(n, 900'000));  // two to a segment
  cut_power();
  const raw::Geometry geometry(superblock());
  const auto place = raw::log_place(superblock());
  auto device = disk->open();
  const auto log = executor.run(raw::read_log(*device, superblock()));
  executor.run(device->close());
  device.reset();
  ASSERT_TRUE(log);
  std::optional<uint32_t> segment;  // of chunk 3, whose record is lost in front of that of 4
  for (const auto& found : log->frames) {
    const uint64_t at = place.offset + found.lane * place.lane_bytes + uint64_t{found.block} * raw::kBlock;
    const auto records = raw::decode_log_records(disk->peek(at, uint64_t{found.frame.blocks} * raw::kBlock), found.frame);
    ASSERT_TRUE(records);
    const auto* lost = std::get_if<raw::PutRecord>(&records->front());
    if (lost == nullptr || lost->id != ChunkId{1, 3}) continue;
    segment = geometry.segment_of(lost->runs.front());
    disk->poke(at, bytes_of(std::string(raw::kBlock, '\0')));
  }
  ASSERT_TRUE(segment);
  std::set<uint32_t> written;
  const auto refuse_all_but_one = [&] {
    disk->set_fault_hook([&, granted = false](const SimRequest& request) mutable {
      SimFault fault;
      const auto at = written_to(request, geometry, true);
      if (!at) return fault;
      if (!granted && at != segment && written.insert(*at).second)
        granted = true;
      else
        fault.fail = Code::io_error;
      return fault;
    });
  };
  const auto expect_chunks = [&] {
    for (uint64_t n = 1; n <= 14; ++n) EXPECT_EQ(get_code(n), Code{0}) << n;
  };
  for (size_t mount = 1; mount <= 5; ++mount) {
    SCOPED_TRACE(fmt::format("mount {}", mount));
    refuse_all_but_one();
    open();
    EXPECT_EQ(store->health().state, StoreState::read_only);
    EXPECT_EQ(written.size(), mount) << "they did not meet";
    expect_chunks();
    close();
  }
  disk->set_fault_hook({});
  for (int mount = 0; mount < 2; ++mount) {
    open();
    EXPECT_EQ(store->health().state, StoreState::online);
    expect_chunks();
    cut_power();
  }
}

TEST_F(RawStoreFaults, a_bad_place_in_the_log_is_stepped_over) {
  const auto place = raw::log_place(superblock());
  ASSERT_TRUE(put(1, 100'000));
  int failures = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    const bool in_log = request.offset >= place.offset && request.offset < place.offset + 2 * place.lane_bytes;
    if (request.kind == SimRequestKind::write && in_log && failures < 2) {
      ++failures;
      fault.fail = Code::io_error;
    }
    return fault;
  });
  ASSERT_TRUE(put(2, 100'000));
  ASSERT_TRUE(remove(1));
  EXPECT_EQ(failures, 2);
  disk->set_fault_hook({});
  const auto crashed = disk->stable_copy();
  close();
  disk = crashed;
  open();
  EXPECT_TRUE(store->open_report().damage.empty());
  EXPECT_EQ(get_code(1), Code::not_found);
  expect_all();
}

TEST_F(RawStoreFaults, a_dead_log_makes_the_store_read_only_with_a_reason) {
  for (uint64_t n = 1; n <= 10; ++n) ASSERT_TRUE(put(n, n % 2 == 0 ? 3'000 : 300'000));
  const auto place = raw::log_place(superblock());
  disk->set_fault_hook([place](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::write && request.offset >= place.offset && request.offset < place.offset + 2 * place.lane_bytes) {
      fault.fail = Code::io_error;
    }
    return fault;
  });
  EXPECT_FALSE(put(11, 300'000));
  EXPECT_EQ(store->health().state, StoreState::read_only);
  EXPECT_FALSE(store->health().reason.empty());
  const auto refused = put(12, 3'000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::read_only);
  expect_all();
  disk->set_fault_hook({});
  close();
  open();
  expect_all();
}

TEST_F(RawStoreFaults, a_vanished_drive_fails_everything_and_loses_nothing) {
  for (uint64_t n = 1; n <= 10; ++n) ASSERT_TRUE(put(n, n % 2 == 0 ? 3'000 : 300'000));
  disk->set_gone(true);
  EXPECT_EQ(get_code(1), Code::device_gone);
  EXPECT_EQ(store->health().state, StoreState::failed);
  const auto refused = put(11, 3'000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::device_gone);
  EXPECT_FALSE(executor.run(store->remove({{1, 1}})));
  close();
  disk->set_gone(false);
  open();
  expect_all();
}

TEST_F(RawStoreFaults, a_full_host_is_no_space_and_passes) {
  close();
  create({.size = 64 * kMiB, .discard = SimDiscard::zeros, .drive_class = DriveClass::file});
  for (uint64_t n = 1; n <= 4; ++n) ASSERT_TRUE(put(n, 300'000));
  disk->set_space_limit(0);
  const auto large = put(5, 3'000'000);
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code(), Code::no_space);
  EXPECT_EQ(get_code(5), Code::not_found);
  expect_all();
  disk->set_space_limit(SimDisk::kUnlimited);
  if (store->health().state != StoreState::online) {
    close();
    open();
  }
  EXPECT_TRUE(put(6, 3'000'000));
  EXPECT_TRUE(put(7, 3'000));
  expect_all();
  close();
  open();
  expect_all();
  EXPECT_EQ(get_code(5), Code::not_found);
}

TEST_F(RawStoreFaults, a_lost_or_misdirected_write_is_found_when_read) {
  ASSERT_TRUE(put(1, 300'000));
  ASSERT_TRUE(put(2, 3'000));
  disk->lose_next_write();
  ASSERT_TRUE(put(3, 3'000));
  EXPECT_EQ(get_code(3), Code::corrupt);
  disk->set_fault_hook([](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::write && request.length > 100'000) fault.lose = true;
    return fault;
  });
  ASSERT_TRUE(put(4, 300'000));
  EXPECT_EQ(get_code(4), Code::corrupt);
  disk->set_fault_hook([](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::write && request.length > 100'000) fault.misdirect = 40 * kMiB;
    return fault;
  });
  ASSERT_TRUE(put(5, 300'000));
  EXPECT_EQ(get_code(5), Code::corrupt);
  disk->set_fault_hook({});
  EXPECT_EQ(store->health().checksum_errors, 3u);
  sizes.erase(3);
  sizes.erase(4);
  sizes.erase(5);
  for (const auto& [n, size] : sizes) EXPECT_EQ(get_code(n), Code{0});
}

TEST_F(RawStoreFaults, opening_refuses_another_cluster_a_shrunk_drive_and_a_newer_format) {
  close();
  disk = SimDisk::create({.size = 64 * kMiB});
  const Uuid mine{{1}}, other{{2}};
  auto device = disk->open();
  auto empty = executor.run(RawStore::identify(*device));
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code(), Code::not_found);
  ASSERT_TRUE(executor.run(RawStore::format(*device, {.cluster = mine, .label = "hello"})));
  const auto again = executor.run(RawStore::format(*device, {.cluster = other}));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), Code::already_exists);
  auto identity = executor.run(RawStore::identify(*device));
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->cluster, mine);
  EXPECT_EQ(identity->label, "hello");
  executor.run(device->close());
  device.reset();
  auto refused = executor.run(RawStore::open(disk->open(), {.cluster = other}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::wrong_owner);
  auto opened = executor.run(RawStore::open(disk->open(), {.cluster = mine}));
  ASSERT_TRUE(opened);
  ASSERT_TRUE(executor.run((*opened)->close()));
  // A newer program's superblock, with its checksum right.
  store.reset();
  for (const uint64_t zone : {uint64_t{0}, raw::zone_candidate(1), raw::end_zone(64 * kMiB)}) {
    for (uint64_t slot = 0; slot < 2; ++slot) {
      auto block = disk->peek(zone + slot * raw::kBlock, raw::kBlock);
      auto superblock = raw::decode_superblock(block, zone);
      ASSERT_TRUE(superblock);
      superblock->version = raw::kFormatVersion + 1;
      disk->poke(zone + slot * raw::kBlock, raw::encode_superblock(*superblock, zone));
    }
  }
  refused = executor.run(RawStore::open(disk->open(), {}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::incompatible);
}

TEST_F(RawStoreFaults, sectors_above_4_kib_are_refused_and_what_to_do_is_said) {
  close();
  disk = SimDisk::create({.size = 64 * kMiB, .block_size = 16384});
  auto device = disk->open();
  for (const bool force : {false, true}) {
    const auto refused = executor.run(RawStore::format(*device, {.force = force}));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::incompatible);
    EXPECT_NE(refused.error().to_string().find("sectors of 16384 bytes"), std::string::npos) << refused.error().to_string();
    EXPECT_NE(refused.error().to_string().find("kfs:DIRECTORY"), std::string::npos) << refused.error().to_string();
  }
  const auto unknown = executor.run(RawStore::identify(*device));  // what a node asks first
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), Code::incompatible);
  EXPECT_EQ(disk->stats().writes, 0u);
  executor.run(device->close());
}

TEST_F(RawStoreFaults, a_grown_drive_takes_more) {
  uint64_t n = 1;
  while (put(n, 1'000'000)) ++n;
  const auto before = store->space();
  disk->grow(200 * kMiB);
  const auto size = executor.run(store->grow());
  ASSERT_TRUE(size) << size.error().to_string();
  EXPECT_EQ(*size, 200 * kMiB);
  EXPECT_GT(store->space().free_bytes, before.free_bytes + 120 * kMiB);
  for (uint64_t k = 0; k < 100; ++k) ASSERT_TRUE(put(10'000 + k, 1'000'000)) << k;
  expect_all();
  ASSERT_TRUE(executor.run(store->set_label("grown")));
  close();
  open();
  expect_all();
  EXPECT_EQ(store->label(), "grown");
  EXPECT_TRUE(store->open_report().damage.empty());
}

}  // namespace
}  // namespace quarry::chunk
