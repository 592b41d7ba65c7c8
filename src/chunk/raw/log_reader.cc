#include "chunk/raw/log_reader.h"

#include <algorithm>

#include "chunk/raw/aside.h"

namespace quarry::chunk::raw {
namespace {
constexpr size_t kPiece = 1 * kMiB;
}

Journal::Place log_place(const Superblock& superblock) {
  const Geometry geometry(superblock);
  return {geometry.offset_of(superblock.log_segment), lane_size(superblock.segment_size), lane_reserve(superblock.segment_count)};
}

Task<Result<uint64_t>> read_tolerant(BlockDevice& device, uint64_t offset, MutableByteView into) {
  uint64_t bad = 0;
  for (size_t at = 0; at < into.size(); at += kPiece) {
    const MutableByteView piece = into.subspan(at, std::min(kPiece, into.size() - at));
    auto got = co_await device.read(offset + at, piece);
    if (got) continue;
    if (got.error().code() == Code::device_gone) co_return std::move(got).error();
    for (size_t block = 0; block < piece.size(); block += kBlock) {
      auto one = co_await device.read(offset + at + block, piece.subspan(block, kBlock));
      if (one) continue;
      if (one.error().code() == Code::device_gone) co_return std::move(one).error();
      std::memset(piece.data() + block, 0, kBlock);
      bad += kBlock;
    }
  }
  co_return bad;
}

namespace {

void apply_tables(LogContents& log) {
  // A table part sets a range; the table is complete with its last part. Slot records after it say what changed since.
  bool complete = false;
  std::vector<SlotSummary> table;
  for (const auto& [sequence, record] : log.records) {
    if (const auto* part = std::get_if<TableRecord>(&record)) {
      if (part->first == 0 && !complete) table.clear();
      table.resize(std::max<size_t>(table.size(), part->total));
      std::copy(part->slots.begin(), part->slots.end(), table.begin() + part->first);
      if (part->first + part->slots.size() == part->total) complete = true;
    } else if (const auto* slot = std::get_if<SlotRecord>(&record)) {
      if (slot->segment >= table.size()) table.resize(slot->segment + 1);
      if (slot->summary.sequence > table[slot->segment].sequence) table[slot->segment] = slot->summary;
    }
  }
  log.has_table = complete;
  log.table = std::move(table);
}

bool has_complete_table(const std::vector<LogRecord>& records) {
  return std::any_of(records.begin(), records.end(), [](const LogRecord& r) {
    const auto* part = std::get_if<TableRecord>(&r);
    return part != nullptr && part->first + part->slots.size() == part->total;
  });
}

void add_damage(LogContents& log, std::string what) {
  log.damaged = true;
  if (!log.damage.empty()) log.damage += "; ";
  log.damage += what;
}

using Lanes = std::array<Buffer, 2>;

Result<LogContents> parse_log(const Lanes& lanes, const Superblock& superblock, const Journal::Place& place) {
  LogContents log;
  for (uint32_t lane = 0; lane < 2; ++lane) {
    const ByteView bytes = lanes[lane].view();
    for (uint32_t block = 0; static_cast<uint64_t>(block) * kBlock < place.lane_bytes;) {
      FoundFrame found;
      auto frame = decode_log_frame(bytes.subspan(static_cast<size_t>(block) * kBlock), superblock.drive, superblock.salt, &found.crc);
      if (!frame) {
        if (frame.error().code() == Code::incompatible) return std::move(frame).error();
        ++block;
        continue;
      }
      found.frame = *frame;
      found.lane = lane;
      found.block = block;
      block += frame->blocks;
      if (place.lane_at(frame->epoch) == lane) log.frames.push_back(found);  // else: misdirected
    }
  }
  std::sort(log.frames.begin(), log.frames.end(),
            [](const FoundFrame& a, const FoundFrame& b) { return std::pair(a.frame.epoch, a.block) < std::pair(b.frame.epoch, b.block); });
  if (log.frames.empty()) {
    add_damage(log, "the log holds no frame of this drive");
    log.position.epoch = superblock.log_epoch;
    log.position.sequence = superblock.clean_sequence + 1;
    return log;
  }
  log.epoch = log.frames.back().frame.epoch;
  if (log.epoch < superblock.log_epoch)
    add_damage(log, fmt::format("the newest log epoch is {}, the superblock knows of {}", log.epoch, superblock.log_epoch));

  // The frames of the two newest epochs, decoded; the older one is needed only until the newer one's table is complete.
  std::vector<std::pair<const FoundFrame*, std::vector<LogRecord>>> needed;
  size_t parts_at_end = 0;  // frames
  for (const auto& found : log.frames) {
    if (found.frame.epoch + 1 < log.epoch) continue;
    const ByteView bytes = lanes[found.lane].view().subspan(static_cast<size_t>(found.block) * kBlock);
    auto records = decode_log_records(bytes, found.frame);
    if (!records) {
      add_damage(log, fmt::format("frame {} of epoch {}: {}", found.frame.number, found.frame.epoch, records.error().context()));
      continue;
    }
    if (found.frame.epoch == log.epoch && has_complete_table(*records)) log.table_in_newest = true;
    const bool parts = std::ranges::all_of(*records, [](const LogRecord& r) { return std::holds_alternative<TableRecord>(r); });
    parts_at_end = parts ? parts_at_end + 1 : 0;
    needed.emplace_back(&found, std::move(*records));
  }
  const FoundFrame* before = nullptr;
  for (auto& [found, records] : needed) {
    const LogFrame& frame = found->frame;
    if (log.table_in_newest && frame.epoch != log.epoch) {
      before = found;
      continue;
    }
    if (before != nullptr && before->frame.epoch == frame.epoch && before->frame.number == frame.number && before->crc == found->crc)
      continue;
    const bool follows =
        before != nullptr && before->frame.epoch == frame.epoch ? frame.number == before->frame.number + 1 : frame.number == 0;
    const bool chained = before == nullptr || before->crc == frame.chain || (log.table_in_newest && before->frame.epoch != frame.epoch);
    if (!follows || !chained) {
      const std::string last = before == nullptr ? "none" : fmt::format("frame {} of epoch {}", before->frame.number, before->frame.epoch);
      add_damage(log, fmt::format("{} before frame {} of epoch {}; the last one found is {}",
                                  follows ? "other frames belong" : "frames are missing", frame.number, frame.epoch, last));
    }
    uint64_t sequence = frame.first;
    for (auto& record : records) log.records.push_back({sequence++, std::move(record)});
    before = found;
  }
  if (before == nullptr || before->frame.epoch != log.epoch) add_damage(log, "the newest epoch holds no usable frame");
  apply_tables(log);
  if (!log.has_table) add_damage(log, "no complete segment table");
  const FoundFrame& last = log.frames.back();
  uint64_t next = 1;
  for (const auto& found : log.frames) {
    next = std::max(next, found.frame.first + found.frame.records);
    log.settled = std::max(log.settled, found.frame.settled);
  }
  log.position.epoch = std::max(log.epoch, superblock.log_epoch);
  log.position.sequence = std::max(next, superblock.clean_sequence + 1);
  if (log.position.epoch == log.epoch) {
    log.position.number = last.frame.number + 1;
    log.position.block = last.block + last.frame.blocks;
    log.position.chain = last.crc;
    for (size_t i = log.frames.size() - parts_at_end; i < log.frames.size() && !log.table_in_newest && !log.damaged; ++i) {
      if (i == 0 || log.frames[i - 1].frame.epoch != log.epoch) continue;  // nothing of the epoch is before it
      const auto& [frame, crc, lane, block] = log.frames[i - 1];
      log.unfinished.push_back({place.offset + log.frames[i].lane * place.lane_bytes + static_cast<uint64_t>(log.frames[i].block) * kBlock,
                                log.frames[i].frame.blocks,
                                {log.epoch, frame.number + 1, block + frame.blocks, crc, log.position.sequence}});
    }
  }
  return log;
}

}  // namespace

Task<Result<LogContents>> read_log(BlockDevice& device, const Superblock& superblock) {
  const Journal::Place place = log_place(superblock);
  Lanes lanes;
  uint64_t unreadable = 0;
  for (uint32_t lane = 0; lane < 2; ++lane) {
    lanes[lane] = Buffer(place.lane_bytes);
    CO_TRY_ASSIGN(const uint64_t bad, co_await read_tolerant(device, place.offset + lane * place.lane_bytes, lanes[lane].mutable_view()));
    unreadable += bad;
  }
  std::optional<Result<LogContents>> parsed;
  constexpr size_t kRecordsPerBlock = 8;
  co_await aside(2 * place.lane_bytes / kBlock * kRecordsPerBlock, [&] { parsed = parse_log(lanes, superblock, place); });
  CO_TRY_ASSIGN(LogContents log, std::move(*parsed));
  log.unreadable_bytes = unreadable;
  co_return log;
}

}  // namespace quarry::chunk::raw
