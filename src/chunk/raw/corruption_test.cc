// The corruption matrix: each structure x each kind of damage. Damage is always noticed (an error, a report, a repair); wrong bytes are never
// returned; what exists twice is repaired, so that the next mount finds nothing.
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
constexpr const char* kDamageNames[] = {"bit flip", "zeroed sector", "garbage block", "swapped with neighbour", "stale version", "truncated", "misdirected write"};

// A structure on the device: where it starts, how many of its bytes mean something, another one of its kind.
struct Structure {
  std::string name;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t sibling = 0;    // of its kind elsewhere: what a misdirected write puts here
  bool repairable = true;  // nothing is lost whatever happens to it
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
      if (round == 1) earlier = disk->copy();
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
      case Damage::zeroed_sector: target.poke(s.offset + round_down(s.bytes / 2, 512), bytes_of(zeros_)); break;
      case Damage::garbage_block: target.poke(s.offset, bytes_of(garbage_)); break;
      case Damage::swapped: target.swap_ranges(s.offset, s.offset + kBlock, kBlock); break;
      case Damage::stale: {
        const Buffer old = earlier->peek(s.offset, round_up(s.bytes, kBlock));
        target.poke(s.offset, old);
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

  // Finds the places of structures through the code that reads them.
  std::vector<Structure> structures(const std::shared_ptr<SimDisk>& from) {
    std::vector<Structure> found;
    auto device = copy_of(from)->open();
    auto set = executor.run(SuperblockSet::load(*device));
    EXPECT_TRUE(set);
    const Superblock superblock = set->superblock();
    const auto& zones = superblock.zones;
    found.push_back({"superblock", superblock_at(zones[0], superblock.sequence), kBlock, superblock_at(zones[1], superblock.sequence)});
    found.push_back({"last superblock", superblock_at(zones.back(), superblock.sequence), kBlock, superblock_at(zones[0], superblock.sequence)});
    // Set at format and three times since: sequence 4.
    found.push_back({"label", label_at(zones[0], 4), kBlock + 7, superblock_at(zones[1], 0)});
    auto log = executor.run(read_log(*device, superblock));
    EXPECT_TRUE(log);
    const auto place = log_place(superblock);
    const auto frame_offset = [&](const FoundFrame& frame) { return place.offset + frame.lane * place.lane_bytes + frame.block * uint64_t{kBlock}; };
    std::vector<Structure> frames;
    for (const auto& frame : log->frames) {
      if (frame.frame.epoch != log->epoch) continue;
      frames.push_back({fmt::format("log frame {}", frame.frame.number), frame_offset(frame), 70, frame_offset(log->frames.front())});
    }
    log_frames = frames;
    if (!frames.empty()) found.push_back(frames.front());
    const SegmentReader reader{*device, superblock, Geometry(superblock)};
    const Geometry geometry(superblock);
    bool extent = false, packed = false;
    uint64_t other_slot = 0;
    for (uint32_t i = 0; i < log->table.size(); ++i) {
      auto contents = executor.run(reader.read(i, log->table[i], std::nullopt));
      EXPECT_TRUE(contents);
      const Segment& s = contents->segment;
      const uint64_t slot = geometry.slot_offset(i, s.slot_sequence);
      if (s.role == Role::log) other_slot = slot;
      if (s.role == Role::extent && contents->extents.size() > 2 && !extent) {
        extent = true;
        found.push_back({"extent slot", slot, kBlock + contents->extents.size() * kExtentEntrySize, other_slot});
        const auto& entry = contents->extents[1].entry;
        const uint64_t chunk = geometry.offset_of(i) + entry.block * uint64_t{kBlock};
        const uint64_t other = geometry.offset_of(i) + contents->extents[2].entry.block * uint64_t{kBlock};
        found.push_back({"chunk header", chunk, 380, other, false});
        found.push_back({"chunk payload", chunk + kBlock, 100'000, other + kBlock, false});
      }
      if (s.role == Role::packed && contents->items.size() > 20 && !packed) {
        packed = true;
        found.push_back({"packed slot", slot, 112, other_slot});
        EXPECT_FALSE(s.inventories.empty());
        found.push_back({"inventory", geometry.offset_of(i) + s.inventories[0].block * uint64_t{kBlock}, 1500, geometry.offset_of(i)});
        // The second frame's header and payload.
        Buffer frame = copy_of(from)->peek(geometry.offset_of(i), 2 * kMiB - 64 * kKiB);
        uint32_t crc = 0, needed = 0, block = 0;
        const FrameExpectation expectation{superblock.drive, i, s.generation, superblock.salt, geometry.data_blocks()};
        for (int k = 0; k < 3; ++k) {
          auto header = decode_frame_header(frame.view().subspan(block * uint64_t{kBlock}), expectation, &crc, &needed);
          if (!header) break;
          if (k == 2) {
            found.push_back({"packed frame header", geometry.offset_of(i) + block * uint64_t{kBlock}, 120, geometry.offset_of(i), false});
            found.push_back({"packed payload", geometry.offset_of(i) + block * uint64_t{kBlock} + 1024, 2000, geometry.offset_of(i) + 1024, false});
          }
          block += header->blocks;
        }
      }
    }
    EXPECT_TRUE(extent);
    EXPECT_TRUE(packed);
    executor.run(device->close());
    return found;
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

  SimExecutor executor;
  std::shared_ptr<SimDisk> disk, earlier, running, closed;
  std::unique_ptr<RawStore> store;
  std::map<uint64_t, size_t> sizes;
  std::vector<Structure> log_frames;
  const std::string zeros_ = std::string(512, '\0');
  const std::string garbage_ = test_payload(4711, 4096);
};

TEST_F(RawStoreCorruption, every_damage_to_every_structure_of_a_closed_drive_is_noticed) {
  for (const auto& structure : structures(closed)) {
    for (const Damage kind : kDamages) {
      const std::string what = structure.name + ": " + kDamageNames[static_cast<size_t>(kind)];
      auto victim = copy_of(closed);
      const Buffer before = victim->peek(structure.offset, round_up(structure.bytes, kBlock));
      damage(*victim, structure, kind);
      const Buffer after = victim->peek(structure.offset, round_up(structure.bytes, kBlock));
      if (std::memcmp(before.data(), after.data(), structure.bytes) == 0) continue;  // this damage changes nothing here
      const Outcome outcome = check(victim, what);
      // A damaged frame whose items are listed elsewhere and whose payload is whole costs nothing and is found by nobody but scrub.
      // A log frame that lies behind its place is found there, by its number and chain.
      const bool redundant = outcome.lost == 0 && (structure.name == "packed frame header" || (structure.name == "log frame 0" && kind == Damage::swapped));
      EXPECT_TRUE(outcome.noticed || redundant) << what;
      if (structure.repairable && kind != Damage::swapped) EXPECT_EQ(outcome.lost, 0u) << what;
    }
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

TEST_F(RawStoreCorruption, a_lost_log_is_rebuilt_from_payload_headers) {
  const auto place = log_place([&] {
    auto device = copy_of(running)->open();
    auto set = executor.run(SuperblockSet::load(*device));
    executor.run(device->close());
    return set->superblock();
  }());
  auto victim = copy_of(running);
  const Buffer zero_lanes = [&] {
    Buffer buffer(2 * place.lane_bytes);
    std::memset(buffer.data(), 0, buffer.size());
    return buffer;
  }();
  victim->poke(place.offset, zero_lanes);
  const Outcome outcome = check(victim, "lost log");
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
