// A checkpoint that was cut short is ended by the next mount, in the same lane. The lane is laid out here as a cut leaves it.
#include <gtest/gtest.h>

#include "chunk/raw/log_reader.h"
#include "chunk/raw/raw_store.h"
#include "chunk/raw/superblock_set.h"
#include "chunk/test_payload.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk::raw {
namespace {

class RawLogResume : public testing::Test {
 public:
  void format(uint64_t size) {
    disk = SimDisk::create({.size = size, .supports_discard = false});
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {.segment_size = kSegmentSizeMin})));
    superblock = executor.run(SuperblockSet::load(*device))->superblock();
    auto log = executor.run(read_log(*device, superblock));
    ASSERT_TRUE(log);
    table = log->table;
    executor.run(device->close());
    place = log_place(superblock);
    position = log->position;  // behind the table of epoch 1
    ++position.epoch;
    position.number = position.block = 0;
  }
  // One more frame of epoch 2.
  void append(std::string_view records, uint32_t count, bool landed = true) {
    const LogFrame frame{superblock.drive,      position.epoch,    position.number, position.chain,
                         position.sequence - 1, position.sequence, count,           log_frame_blocks(records.size())};
    const Buffer bytes = encode_log_frame(frame, records, superblock.salt, &position.chain);
    if (landed) disk->poke(place.offset + place.lane_at(position.epoch) * place.lane_bytes + uint64_t{position.block} * kBlock, bytes);
    ++position.number;
    position.block += frame.blocks;
    position.sequence += count;
  }
  template <class Record>
  static std::string encoded(const Record& record) {
    std::string out;
    encode_record(record, out);
    return out;
  }
  void update_superblock(bool clean) {
    auto device = disk->open();
    auto set = executor.run(SuperblockSet::load(*device));
    ASSERT_TRUE(set);
    Superblock next = set->superblock();
    next.clean = clean;
    next.log_epoch = position.epoch;
    if (clean) next.clean_sequence = position.sequence - 1;
    ASSERT_TRUE(executor.run(set->update(*device, next)));
    executor.run(device->close());
  }
  Result<std::unique_ptr<RawStore>> open() { return executor.run(RawStore::open(disk->open(), {.background = false})); }
  // A table of several parts begins in epoch 2, and the power goes behind the first one. `full`: the lane is full up to its reserve, which
  // has room for one table and a little more.
  void cut_in_table(bool full) {
    constexpr uint32_t kLast = 12'400;
    format(26 * kGiB);
    const Geometry geometry(superblock);
    ASSERT_GT(geometry.segments(), kLast);
    SegmentSlot slot;  // of a segment that was used once
    slot.drive = superblock.drive;
    slot.segment = kLast;
    slot.generation = slot.sequence = 1;
    SlotSummary summary{.sequence = 1, .header_crc = 0, .generation = 1, .role = slot.role, .state = slot.state};
    const Buffer bytes = encode_slot(slot, superblock.segment_size, &summary.header_crc);
    disk->poke(geometry.slot_offset(kLast, 1), bytes);
    append(encoded(SlotRecord{kLast, summary}), 1);
    for (uint64_t n = 1; full && (position.block + 1) * uint64_t{kBlock} + place.reserve <= place.lane_bytes; ++n)
      append(encoded(RemoveRecord{{7, n}}), 1);
    TableRecord part{0, kLast + 1, table};
    part.slots.resize(kPart);
    part_bytes = encoded(part).size();
    part_at = place.offset + place.lane_at(position.epoch) * place.lane_bytes + uint64_t{position.block} * kBlock;
    append(encoded(part), 1);
    update_superblock(false);
  }
  bool in_log(const SimRequest& request) const {
    return request.kind == SimRequestKind::write && request.offset >= place.offset && request.offset < place.offset + 2 * place.lane_bytes;
  }
  // And the mount after it finds nothing wrong.
  void expect_a_put_survives_a_cut(std::unique_ptr<RawStore> store) {
    const std::string text = test_payload(1, 100'000);
    ASSERT_TRUE(executor.run(store->put({1, 1}, {bytes_of(text)}, {})));
    const auto after = disk->stable_copy();
    disk->set_fault_hook({});
    EXPECT_TRUE(executor.run(store->close()));
    disk = after;
    auto again = open();
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_FALSE((*again)->open_report().log_rebuilt);
    EXPECT_TRUE((*again)->open_report().damage.empty()) << (*again)->open_report().damage.front();
    EXPECT_TRUE(executor.run((*again)->stat({1, 1})));
    EXPECT_TRUE(executor.run((*again)->close()));
  }

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk;
  Superblock superblock;
  std::vector<SlotSummary> table;
  Journal::Place place;
  Journal::Position position;
  static constexpr uint32_t kPart = 4'000;  // segments
  uint64_t part_bytes = 0, part_at = 0;
};

// More segments than one frame can list; the lane was full up to its reserve when the power went between two parts of the table. The
// reserve has room for one table. And then it goes again and again, at the same point of the mount.
TEST_F(RawLogResume, a_drive_opens_however_often_the_power_goes_between_two_parts_of_its_table) {
  cut_in_table(true);
  for (int cut = 0; cut < 4; ++cut) {
    int parts = 0, behind = 0;
    disk->set_fault_hook([&](const SimRequest& request) {
      SimFault fault;
      if (!in_log(request)) return fault;
      if (parts > 0) {
        fault.fail = Code::device_gone;
        ++behind;
      } else if (request.length >= part_bytes) {
        ++parts;
      }
      return fault;
    });
    const auto refused = open();
    ASSERT_FALSE(refused);
    ASSERT_TRUE(parts == 1 && behind == 1) << "they did not meet: " << refused.error().to_string();
    disk = disk->stable_copy();
  }
  auto store = open();
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_TRUE((*store)->open_report().damage.empty()) << (*store)->open_report().damage.front();
  expect_a_put_survives_a_cut(std::move(*store));
}

// What is to be taken back lies where the drive refuses to write: the first block for good, or every one at this mount, and of what is
// refused nothing lands, or all of it.
TEST_F(RawLogResume, a_part_that_cannot_be_taken_back_as_a_whole_stops_no_mount_and_leaves_no_gap) {
  for (const bool full : {false, true}) {
    for (const bool all : {false, true}) {
      for (const bool lands : {false, true}) {
        SCOPED_TRACE(fmt::format("full {}, all {}, lands {}", full, all, lands));
        cut_in_table(full);
        const uint64_t bad_end = part_at + (all ? log_frame_blocks(part_bytes) : 1) * uint64_t{kBlock};
        int refused = 0, whole = 0;
        disk->set_fault_hook([&](const SimRequest& request) {
          SimFault fault;
          if (!in_log(request) || request.offset >= bad_end || request.offset + request.length <= part_at) return fault;
          if (all && request.length > kBlock) return fault;  // the next part, where this one was
          ++(request.length == kBlock ? refused : whole);
          fault.fail = Code::io_error;
          if (lands) fault.landed_before_failure = request.length;
          return fault;
        });
        auto store = open();
        ASSERT_TRUE(store) << store.error().to_string();
        EXPECT_EQ(refused, all ? static_cast<int>(log_frame_blocks(part_bytes)) : 1) << "they did not meet";
        EXPECT_EQ(whole, all ? 0 : 1);
        EXPECT_EQ((*store)->health().state, StoreState::online);
        EXPECT_TRUE((*store)->open_report().damage.empty()) << (*store)->open_report().damage.front();
        expect_a_put_survives_a_cut(std::move(*store));
      }
    }
  }
}

// A frame that is refused is put behind its place, but not where the lane keeps room for the table: the checkpoint that leaves the lane,
// and each mount that is to end it, would find none.
TEST_F(RawLogResume, a_refused_frame_takes_no_room_from_the_table) {
  format(64 * kMiB);
  const uint64_t reserve = place.reserve / kBlock;  // in blocks
  for (uint64_t n = 1; position.block + 2 * reserve < place.lane_bytes / kBlock; ++n) append(encoded(RemoveRecord{{7, n}}), 1);
  update_superblock(false);
  int refused = 0;
  disk->set_fault_hook([&](const SimRequest& request) {
    SimFault fault;
    if (in_log(request) && ++refused == 1) fault.fail = Code::io_error;
    return fault;
  });
  {
    auto device = disk->open();
    Journal journal;
    journal.start(*device, superblock.drive, superblock.salt, place, position);
    Journal::Entry entry;  // as much as there is room for
    for (; log_frame_blocks(entry.records.size() + 32) <= reserve; ++entry.count)
      encode_record(RemoveRecord{{8, entry.count}}, entry.records);
    ASSERT_EQ(log_frame_blocks(entry.records.size()), reserve);
    const auto appended = executor.run(journal.append(entry));
    EXPECT_FALSE(appended);
    executor.run(journal.drain());
    executor.run(device->close());
  }
  EXPECT_GE(refused, 1) << "they did not meet";
  disk->set_fault_hook({});
  auto store = open();
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_EQ((*store)->health().state, StoreState::online) << (*store)->health().reason;
  expect_a_put_survives_a_cut(std::move(*store));
}

// After a clean close the log is not needed, so two rotten places in it cost nothing: but the first would be a gap in the middle of the
// lane that is gone on in, at the mount after a power cut.
TEST_F(RawLogResume, a_gap_that_a_clean_close_made_harmless_is_not_found_again_after_a_power_cut) {
  format(64 * kMiB);
  ASSERT_EQ(table.size(), 1u);
  for (uint32_t n = 0; n < 4; ++n) {
    TableRecord part{n, 4, std::vector<SlotSummary>(1)};
    if (n == 0) part.slots = table;
    append(encoded(part), 1, n % 2 == 0);
  }
  update_superblock(true);
  auto store = open();
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_FALSE((*store)->open_report().damage.empty()) << "they did not meet";
  EXPECT_FALSE((*store)->open_report().log_rebuilt);
  expect_a_put_survives_a_cut(std::move(*store));
}

}  // namespace
}  // namespace quarry::chunk::raw
