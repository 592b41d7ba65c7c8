// The corruption matrix: each structure x each kind of damage, on a drive that was closed and on one that lost its power. Wrong bytes are
// never returned; what exists twice is repaired, so that the next mount finds nothing; what does not is reported. The whole product is
// pinned in kMatrix, and printed in docs/decisions/0008-crash-proofs.md. What parity repairs: cluster/corruption_test.cc.
#include <gtest/gtest.h>

#include "chunk/raw/log_reader.h"
#include "chunk/raw/raw_store.h"
#include "chunk/raw/segment_reader.h"
#include "chunk/raw/superblock_set.h"
#include "chunk/test_payload.h"
#include "io/clock.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

using namespace raw;  // NOLINT: this test is about the format

enum class Damage { bit_flip, zeroed_sector, garbage_block, swapped, stale, truncated, misdirected };
constexpr std::array kDamages = {Damage::bit_flip, Damage::zeroed_sector, Damage::garbage_block, Damage::swapped,
                                 Damage::stale,    Damage::truncated,     Damage::misdirected};
constexpr const char* kDamageNames[] = {"bit flip",      "zeroed sector", "garbage block",    "swapped with neighbour",
                                        "stale version", "truncated",     "misdirected write"};

// A structure on the device: where it starts, how many of its bytes mean something, another one of its kind.
struct Structure {
  std::string name;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t sibling = 0;  // of its kind elsewhere: what a misdirected write puts here
};

// What the damage of a structure comes to:
//   R  repaired: reported when the drive is opened or read, nothing is lost, the next mount finds nothing
//   L  lost, and said so: the chunks concerned answer corrupt (or are missing with a report); parity repairs them in a cluster
//   h  harmless: nothing depends on these bytes; everything is there
//   =  not applicable: the damage leaves the bytes as they are
// In the order of kDamages; first of a drive that was closed, then of one whose power was cut.
struct Row {
  const char* structure;
  const char* closed;
  const char* running;
};

// bit flip, zeroed sector, garbage block, swapped with the next block, stale, truncated, misdirected write
constexpr Row kMatrix[] = {
    {"superblock copy", "RRRRRRR", "RRRRRRR"},
    {"label copy", "RRRRRRR", "RRRRRRR"},
    {"segment table", "RRRhRRR", "RRRRRRR"},  // moved by a block it is found there, by its number and chain
    {"log frame", "", "RRRRRRR"},             // closed: the newest epoch is the table alone
    {"slot of extents", "RRRRRRR", "RRRRRRR"},
    {"slot of packed frames", "RRRRRRR", "RRRRRRR"},
    {"inventory frame", "RRRLRRR", "RRRLRRR"},  // swapped with a frame of items: that one loses its place
    {"chunk header", "LLLLLLL", "LLLLLLL"},
    {"extent payload", "LLLLLLL", "LLLLLLL"},
    {"packed frame header", "RLLLLLL", "RLLLLLL"},  // an inventory says the same; the other damages reach into its items
    {"item payload", "LLLLLLL", "LLLLLLL"},
    {"behind the last frame", "hhh==hh", "hhh==hh"},  // never written: the same before, and in the next block
    {"free segment", "hhh==hh", "hhh==hh"},
};

class RawStoreCorruption : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 64 * kMiB;

  void SetUp() override {
    disk = SimDisk::create({.size = kSize});
    auto device = disk->open();
    ASSERT_TRUE(executor.run(RawStore::format(*device, {.label = "a label"})));
    executor.run(device->close());
    device.reset();
    before.push_back(disk->copy());
    auto opened = executor.run(RawStore::open(disk->open(), {}));
    ASSERT_TRUE(opened);
    store = std::move(*opened);
    uint64_t n = 1;
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 8; ++i, ++n) put(n, 250'000 + n * 1000);
      for (int i = 0; i < 60; ++i, ++n) put(n, 4'000 + n * 10);
      remove(n - 3);
      remove(n - 62);
      ASSERT_TRUE(executor.run(store->set_label(fmt::format("label {}", round))));
      ASSERT_TRUE(executor.run(store->checkpoint()));
      if (round < 2) before.push_back(disk->copy());
    }
    // What the last checkpoint does not hold.
    put(n++, 300'000);
    put(n++, 3'000);
    put(n++, 310'000);
    remove(5);
    running = disk->copy();
    ASSERT_TRUE(executor.run(store->close()));
    store.reset();
    closed = disk->copy();
    disk.reset();
  }

  void put(uint64_t n, size_t size) {
    const std::string text = test_payload(n, size);
    ASSERT_TRUE(executor.run(store->put({1, n}, {bytes_of(text)}, {})));
    sizes[n] = size;
  }
  void remove(uint64_t n) {
    ASSERT_TRUE(executor.run(store->remove({{1, n}})));
    sizes.erase(n);
  }

  void damage(SimDisk& target, const Structure& s, Damage kind) {
    const uint64_t last_block = s.offset + round_down(s.bytes - 1, kBlock);
    switch (kind) {
      case Damage::bit_flip: target.flip_bit(s.offset + s.bytes / 2, 3); break;
      case Damage::zeroed_sector: {  // the middle one, or the last before it that is not zero anyway
        uint64_t sector = round_down(s.bytes / 2, 512);
        while (sector > 0 && text_of(target.peek(s.offset + sector, 512).view()) == zeros_) sector -= 512;
        target.poke(s.offset + sector, bytes_of(zeros_));
        break;
      }
      case Damage::garbage_block: target.poke(s.offset, bytes_of(garbage_)); break;
      case Damage::swapped: target.swap_ranges(s.offset, s.offset + kBlock, kBlock); break;
      case Damage::stale: {  // the newest earlier contents that differ: the write that made the present ones is lost
        const Buffer now = target.peek(s.offset, round_up(s.bytes, kBlock));
        for (auto image = before.rbegin(); image != before.rend(); ++image) {
          const Buffer old = (*image)->peek(s.offset, now.size());
          if (text_of(old.view()) == text_of(now.view())) continue;
          target.poke(s.offset, old);
          break;
        }
        break;
      }
      case Damage::truncated: target.poke(last_block, bytes_of(std::string(kBlock, '\0'))); break;
      case Damage::misdirected: {
        const Buffer other = target.peek(s.sibling, round_up(s.bytes, kBlock));
        target.poke(s.offset, other);
        break;
      }
    }
  }

  std::shared_ptr<SimDisk> copy_of(const std::shared_ptr<SimDisk>& from) { return from->copy(); }

  void wipe_log(SimDisk& target) {
    auto device = target.copy()->open();
    auto set = executor.run(SuperblockSet::load(*device));
    executor.run(device->close());
    ASSERT_TRUE(set);
    const auto place = log_place(set->superblock());
    Buffer zeros(2 * place.lane_bytes);
    std::memset(zeros.data(), 0, zeros.size());
    target.poke(place.offset, zeros);
  }

  // Finds the places of structures through the code that reads them.
  std::vector<Structure> structures(const std::shared_ptr<SimDisk>& from) {
    std::vector<Structure> found;
    auto device = copy_of(from)->open();
    auto set = executor.run(SuperblockSet::load(*device));
    EXPECT_TRUE(set);
    const Superblock superblock = set->superblock();
    const auto& zones = superblock.zones;
    found.push_back(
        {"superblock copy", superblock_at(zones[0], superblock.sequence), kBlock, superblock_at(zones[1], superblock.sequence)});
    // Set at format and three times since: sequence 4.
    found.push_back({"label copy", label_at(zones[0], 4), kBlock + 7, label_at(zones[1], 4)});
    auto log = executor.run(read_log(*device, superblock));
    EXPECT_TRUE(log);
    add_log(found, superblock, *log);
    const SegmentReader reader{*device, superblock, Geometry(superblock)};
    const Geometry geometry(superblock);
    bool extent = false, packed = false;
    std::map<Role, uint64_t> other_slot;  // a slot of that role in another segment
    std::vector<SegmentContents> all;
    std::optional<uint32_t> empty;
    for (uint32_t i = 0; i < superblock.segment_count; ++i) {
      if (i >= log->table.size() || log->table[i].sequence == 0 || log->table[i].role == Role::free) {
        if (!empty) empty = i;
        continue;
      }
      auto contents = executor.run(reader.read(i, log->table[i], std::nullopt));
      EXPECT_TRUE(contents);
      all.push_back(std::move(*contents));
    }
    for (const auto& one : all) other_slot[one.segment.role] = geometry.slot_offset(one.index, one.segment.slot_sequence);
    uint64_t frame_start = 0;
    for (const auto& one : all) {
      const Segment& s = one.segment;
      const uint64_t slot = geometry.slot_offset(one.index, s.slot_sequence);
      if (s.role == Role::extent && one.extents.size() > 2 && !extent) {
        extent = true;
        found.push_back({"slot of extents", slot, kBlock + one.extents.size() * kExtentEntrySize, other_slot[Role::extent]});
        const auto& entry = one.extents[1].entry;
        const uint64_t chunk = geometry.offset_of(one.index) + entry.block * uint64_t{kBlock};
        const uint64_t other = geometry.offset_of(one.index) + one.extents[2].entry.block * uint64_t{kBlock};
        found.push_back({"chunk header", chunk, 380, other});
        found.push_back({"extent payload", chunk + kBlock, 100'000, other + kBlock});
      }
      if (s.role == Role::packed && one.items.size() > 20 && !packed) {
        packed = true;
        EXPECT_FALSE(s.inventories.empty());
        found.push_back({"slot of packed frames", slot, 112, other_slot[Role::log]});
        const uint64_t start = frame_start = geometry.offset_of(one.index);
        found.push_back({"inventory frame", start + s.inventories[0].block * uint64_t{kBlock}, 1500, start});
        add_frames(found, *copy_of(from), superblock, one, start);
      }
    }
    EXPECT_TRUE(extent);
    EXPECT_TRUE(packed);
    EXPECT_TRUE(empty);
    found.push_back({"free segment", geometry.offset_of(*empty), 8 * kBlock, frame_start});
    executor.run(device->close());
    return found;
  }

  // The oldest frame of the newest epoch that no other repeats, and the one with the table.
  void add_log(std::vector<Structure>& found, const Superblock& superblock, const LogContents& log) {
    const auto place = log_place(superblock);
    const auto at = [&](const FoundFrame& frame) { return place.offset + frame.lane * place.lane_bytes + frame.block * uint64_t{kBlock}; };
    log_frames.clear();
    std::optional<Structure> table;
    for (const auto& frame : log.frames) {
      if (frame.frame.epoch != log.epoch) continue;
      const Structure here{"log frame", at(frame), 70, at(log.frames.front())};
      log_frames.push_back(here);
      for (const auto& logged : log.records) {
        const bool inside = logged.sequence >= frame.frame.first && logged.sequence < frame.frame.first + frame.frame.records;
        if (inside && std::holds_alternative<TableRecord>(logged.record))
          table = Structure{"segment table", here.offset, here.bytes, here.sibling};
      }
    }
    EXPECT_TRUE(table);
    if (table) found.push_back(*table);
    for (const Structure& frame : log_frames) {
      if (table && frame.offset == table->offset) continue;
      found.push_back(frame);
      break;
    }
  }

  // The header and an item's payload of the third frame of a packed segment, and the place behind its last frame.
  void add_frames(std::vector<Structure>& found, SimDisk& copy, const Superblock& superblock, const SegmentContents& one, uint64_t start) {
    const FrameExpectation expectation{superblock.drive, one.index, one.segment.generation, superblock.salt,
                                       Geometry(superblock).data_blocks()};
    const Buffer frames = copy.peek(start, Geometry(superblock).data_bytes());
    uint32_t block = 0;
    for (int k = 0;; ++k) {
      uint32_t crc = 0, needed = 0;
      const auto header = decode_frame_header(frames.view().subspan(block * uint64_t{kBlock}), expectation, &crc, &needed);
      if (!header) break;
      const uint64_t at = start + block * uint64_t{kBlock};
      if (k == 2) {
        found.push_back({"packed frame header", at, 120, start});
        found.push_back({"item payload", at + 1024, 2000, start + 1024});
      }
      block += header->blocks;
    }
    EXPECT_GE(block, 3u);
    found.push_back({"behind the last frame", start + block * uint64_t{kBlock}, 4 * kBlock, start});
  }

  struct Outcome {
    bool noticed = false;
    size_t lost = 0;
  };
  Outcome check(const std::shared_ptr<SimDisk>& damaged, const std::string& what) {
    SCOPED_TRACE(what);
    Outcome outcome;
    auto opened = executor.run(RawStore::open(damaged->open(), {}));
    EXPECT_TRUE(opened) << opened.error().to_string();
    if (!opened) return outcome;
    auto& s = *opened;
    const auto& report = s->open_report();
    outcome.noticed = !report.damage.empty() || report.superblocks_repaired > 0 || report.segments_rebuilt > 0 || report.log_rebuilt;
    const auto scrubbed = executor.run(s->scrub({}, UINT64_MAX));
    EXPECT_TRUE(scrubbed && scrubbed->complete);
    outcome.noticed = outcome.noticed || (scrubbed && !scrubbed->damaged.empty()) || s->health().checksum_errors > 0;
    for (const auto& [n, size] : sizes) {
      auto got = executor.run(s->get({1, n}, 0, kChunkSizeMax));
      if (!got) {
        ++outcome.lost;
        EXPECT_TRUE(got.error().code() == Code::corrupt || (got.error().code() == Code::not_found && !report.damage.empty()))
            << "chunk " << n << " is lost without a word: " << got.error().to_string();
        if (got.error().code() == Code::corrupt) outcome.noticed = true;
        continue;
      }
      EXPECT_TRUE(text_of(got->view()) == test_payload(n, size)) << "wrong bytes: " << n;
    }
    // Something can be put and removed, whatever was found.
    const std::string text = test_payload(777, 200'000);
    EXPECT_TRUE(executor.run(s->put({7, 7}, {bytes_of(text)}, {})));
    EXPECT_TRUE(executor.run(s->remove({{7, 7}})));
    EXPECT_EQ(s->label(), "label 2");
    EXPECT_TRUE(executor.run(s->compact()));  // moves what lies in suspect segments, as the background does
    EXPECT_TRUE(executor.run(s->close()));
    opened->reset();
    // The second mount finds nothing wrong any more.
    auto again = executor.run(RawStore::open(damaged->open(), {}));
    EXPECT_TRUE(again);
    if (!again) return outcome;
    // Unless something could not be moved away from where the damage is.
    if (outcome.lost == 0) EXPECT_TRUE((*again)->open_report().damage.empty()) << (*again)->open_report().damage.front();
    EXPECT_EQ((*again)->open_report().superblocks_repaired, 0u);
    EXPECT_TRUE(executor.run((*again)->close()));
    return outcome;
  }

  // Damage, mount, put and remove, power cut, mount: what the first mount served and acknowledged is there, what it removed is not.
  void check_used_after_damage(const std::shared_ptr<SimDisk>& damaged, const std::string& what) {
    SCOPED_TRACE(what);
    auto opened = executor.run(RawStore::open(damaged->open(), {}));
    ASSERT_TRUE(opened) << opened.error().to_string();
    auto& s = *opened;
    std::map<uint64_t, size_t> there;
    for (const auto& [n, size] : sizes) {
      if (executor.run(s->get({1, n}, 0, kChunkSizeMax))) there[n] = size;
    }
    const bool lost_some = there.size() < sizes.size();
    EXPECT_TRUE(executor.run(s->compact()));  // what lies in suspect segments is moved, as the background does
    std::vector<uint64_t> gone;
    const auto take = [&](uint64_t n) {
      ASSERT_TRUE(executor.run(s->remove({{1, n}})));
      there.erase(n);
      gone.push_back(n);
    };
    const auto give = [&](uint64_t n, size_t size) {
      const std::string text = test_payload(n, size);
      ASSERT_TRUE(executor.run(s->put({1, n}, {bytes_of(text)}, {})));
      there[n] = size;
    };
    for (uint64_t n = 1000; n < 1012; ++n) give(n, n % 2 == 0 ? 150'000 + n : 5'000 + n);
    const std::map<uint64_t, size_t> before_removals = there;
    for (const auto& [n, size] : before_removals) {
      if (n % 7 == 0 || n == 1001 || n == 1002) take(n);
    }
    const auto cut = damaged->stable_copy();
    executor.run(s->close()).ignore("its drive is not looked at again");
    s.reset();
    auto again = executor.run(RawStore::open(cut->open(), {}));
    ASSERT_TRUE(again) << again.error().to_string();
    if (!lost_some) EXPECT_TRUE((*again)->open_report().damage.empty()) << (*again)->open_report().damage.front();
    for (const auto& [n, size] : there) {
      auto got = executor.run((*again)->get({1, n}, 0, kChunkSizeMax));
      EXPECT_TRUE(got) << "chunk " << n << " is lost: " << got.error().to_string();
      if (got) EXPECT_TRUE(text_of(got->view()) == test_payload(n, size)) << "wrong bytes: " << n;
    }
    for (const uint64_t n : gone) EXPECT_FALSE(executor.run((*again)->stat({1, n}))) << "a removed chunk is back: " << n;
    EXPECT_TRUE(executor.run((*again)->close()));
  }

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk, running, closed;
  std::vector<std::shared_ptr<SimDisk>> before;  // the drive at earlier times, oldest first
  std::unique_ptr<RawStore> store;
  std::map<uint64_t, size_t> sizes;
  std::vector<Structure> log_frames;
  const std::string zeros_ = std::string(512, '\0');
  const std::string garbage_ = test_payload(4711, 4096);
};

TEST_F(RawStoreCorruption, every_damage_to_every_structure_comes_to_what_the_matrix_says) {
  std::map<std::string, std::array<std::string, 2>> measured;
  for (const bool is_closed : {true, false}) {
    const auto& from = is_closed ? closed : running;
    for (const auto& structure : structures(from)) {
      for (const Damage kind : kDamages) {
        const std::string what = fmt::format("{} of a drive that {}: {}", structure.name, is_closed ? "was closed" : "lost its power",
                                             kDamageNames[static_cast<size_t>(kind)]);
        auto victim = copy_of(from);
        damage(*victim, structure, kind);
        char letter = '=';
        if (!(victim->contents() == from->contents())) {
          const Outcome outcome = check(victim, what);
          letter = outcome.lost > 0 ? 'L' : outcome.noticed ? 'R' : 'h';
          EXPECT_TRUE(outcome.noticed || outcome.lost == 0) << what << ": lost without a word";
        }
        measured[structure.name][is_closed ? 0 : 1] += letter;
      }
    }
  }
  EXPECT_EQ(measured.size(), std::size(kMatrix));
  for (const Row& row : kMatrix) {
    EXPECT_EQ(measured[row.structure][0], row.closed) << row.structure << ", closed";
    EXPECT_EQ(measured[row.structure][1], row.running) << row.structure << ", power cut";
  }
}

TEST_F(RawStoreCorruption, damage_before_the_last_log_frame_is_not_taken_for_a_torn_tail) {
  structures(running);
  ASSERT_GE(log_frames.size(), 4u);
  for (size_t i = 0; i + 1 < log_frames.size(); ++i) {
    for (const Damage kind : kDamages) {
      const std::string what = log_frames[i].name + ": " + kDamageNames[static_cast<size_t>(kind)];
      auto victim = copy_of(running);
      damage(*victim, log_frames[i], kind);
      const Outcome outcome = check(victim, what);
      EXPECT_TRUE(outcome.noticed) << what;
      EXPECT_EQ(outcome.lost, 0u) << what;
    }
  }
}

TEST_F(RawStoreCorruption, what_a_mount_after_damage_acknowledges_survives_a_power_cut) {
  for (const bool is_closed : {true, false}) {
    const auto& from = is_closed ? closed : running;
    auto all = structures(from);
    all.insert(all.end(), log_frames.begin(), log_frames.end());
    for (const auto& structure : all) {
      for (const Damage kind : {Damage::bit_flip, Damage::garbage_block, Damage::stale}) {
        auto victim = copy_of(from);
        damage(*victim, structure, kind);
        check_used_after_damage(victim, fmt::format("{} at {} of a drive that {}: {}", structure.name, structure.offset,
                                                    is_closed ? "was closed" : "lost its power", kDamageNames[static_cast<size_t>(kind)]));
      }
    }
    // The log from some frame on, and all of it.
    for (size_t first = 0; first <= log_frames.size(); ++first) {
      auto victim = copy_of(from);
      for (size_t i = first; i < log_frames.size(); ++i) damage(*victim, log_frames[i], Damage::garbage_block);
      if (first == log_frames.size()) wipe_log(*victim);
      check_used_after_damage(victim, fmt::format("the log from frame {} of {} on", first, log_frames.size()));
    }
  }
}

// Without it the frames left look whole. Something else knows of a later record.
TEST_F(RawStoreCorruption, a_log_that_lost_its_end_is_noticed_by_what_was_written_after_it) {
  auto opened = executor.run(RawStore::open(running->open(), {}));
  ASSERT_TRUE(opened);
  store = std::move(*opened);
  put(2000, 200'000);  // a record
  put(2001, 3'000);    // a frame that knows of it
  const auto cut = running->stable_copy();
  ASSERT_TRUE(executor.run(store->close()));
  store.reset();
  structures(cut);
  ASSERT_FALSE(log_frames.empty());
  auto victim = copy_of(cut);
  damage(*victim, log_frames.back(), Damage::garbage_block);
  const Outcome outcome = check(victim, "the last frame of the log");
  EXPECT_TRUE(outcome.noticed);
  EXPECT_EQ(outcome.lost, 0u);
  victim = copy_of(cut);
  damage(*victim, log_frames.back(), Damage::garbage_block);
  check_used_after_damage(victim, "the last frame of the log");
}

TEST_F(RawStoreCorruption, a_lost_log_is_rebuilt_from_payload_headers) {
  auto victim = copy_of(running);
  wipe_log(*victim);
  const Outcome outcome = check(victim, "lost log");
  EXPECT_TRUE(outcome.noticed);
  EXPECT_EQ(outcome.lost, 0u);
}

// Where a log is rebuilt, old headers that no slot lists are of removed chunks; but not where the slot itself is lost.
TEST_F(RawStoreCorruption, chunks_of_a_lost_slot_survive_a_damaged_log_however_old_they_are) {
  auto opened = executor.run(RawStore::open(running->open(), {}));
  ASSERT_TRUE(opened);
  store = std::move(*opened);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(executor.run(store->checkpoint()));
  for (uint64_t n = 2000; n < 2003; ++n) put(n, 200'000);  // a frame of the log each
  const auto cut = running->stable_copy();
  ASSERT_TRUE(executor.run(store->close()));
  store.reset();
  const auto all = structures(cut);
  const auto slot = std::ranges::find(all, "slot of extents", &Structure::name);
  ASSERT_NE(slot, all.end());
  ASSERT_GE(log_frames.size(), 4u);
  auto device = copy_of(cut)->open();
  auto set = executor.run(SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  executor.run(device->close());
  const Geometry geometry(set->superblock());
  const uint32_t segment = geometry.segment_at(slot->offset);
  auto victim = copy_of(cut);
  for (const uint32_t which : {0u, 1u}) victim->poke(geometry.slot_offset(segment, which), bytes_of(garbage_));
  damage(*victim, log_frames[2], Damage::garbage_block);
  const Outcome outcome = check(victim, "both slots of a segment, and a frame of the log");
  EXPECT_TRUE(outcome.noticed);
  EXPECT_EQ(outcome.lost, 0u);
}

TEST_F(RawStoreCorruption, any_two_zones_can_go) {
  auto device = copy_of(closed)->open();
  auto set = executor.run(SuperblockSet::load(*device));
  ASSERT_TRUE(set);
  executor.run(device->close());
  const auto zones = set->superblock().zones;
  ASSERT_GE(zones.size(), 3u);
  for (size_t keep = 0; keep < zones.size(); ++keep) {
    auto victim = copy_of(closed);
    for (size_t i = 0; i < zones.size(); ++i) {
      if (i == keep) continue;
      for (uint64_t at = 0; at < kZoneSize; at += kBlock) victim->poke(zones[i] + at, bytes_of(garbage_));
    }
    const Outcome outcome = check(victim, fmt::format("only zone {} is left", keep));
    EXPECT_TRUE(outcome.noticed);
    EXPECT_EQ(outcome.lost, 0u);
  }
}

}  // namespace
}  // namespace quarry::chunk
