#include "chunk/raw/recovery.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/aside.h"
#include "chunk/raw/segment_reader.h"
#include "io/sync.h"

namespace quarry::chunk::raw {
namespace {

constexpr uint64_t kReadsInFlight = 64;
constexpr size_t kDamageListMax = 1000;  // sentences kept; the rest is counted
// More records than both lanes can hold: of a damaged log so many may have been lost behind the last one that something knows of.
constexpr uint64_t kLostRecordsMax = 1ull << 24;
static_assert(2 * kLaneMax / (1 + sizeof(ChunkId)) < kLostRecordsMax);

// A copy of a chunk, or one run of it.
struct Copy {
  IndexEntry entry;
  uint64_t stamp = 0;
  bool operator<(const Copy& other) const {  // by id; the best copy first
    if (entry.id != other.entry.id) return entry.id < other.entry.id;
    return std::pair(stamp, entry.place) > std::pair(other.stamp, other.entry.place);
  }
};
struct Piece {
  ChunkId id;
  uint64_t stamp = 0;
  uint32_t size = 0, header_crc = 0;
  uint8_t run = 0, runs = 0, stream = 0;
  Run place;
};

struct Work {
  BlockDevice& device;
  const Superblock& superblock;
  SegmentReader reader;
  Semaphore permits{kReadsInFlight};
  std::optional<Error> error;
};

Task<void> read_segment(Work& work, uint32_t index, SlotSummary expected, std::optional<TailRecord> tail,
                        std::optional<SegmentContents>* out) {
  co_await work.permits.acquire();
  if (!work.error) {
    auto contents = co_await work.reader.read(index, expected, tail);
    if (contents)
      out->emplace(std::move(*contents));
    else
      work.error = std::move(contents).error();
  }
  work.permits.release();
}

// Every segment that the table names, or all. Those in `contents` already are left as they are.
Task<Result<void>> read_segments(Work& work, const LogContents& log, bool all, std::vector<std::optional<SegmentContents>>& contents) {
  std::unordered_map<uint32_t, TailRecord> tails;
  for (const auto& [sequence, record] : log.records) {
    if (const auto* tail = std::get_if<TailRecord>(&record)) tails[tail->segment] = *tail;
  }
  const uint32_t segments = work.reader.geometry.segments();
  contents.resize(all ? segments : std::min<size_t>(log.table.size(), segments));
  TaskGroup group;
  for (uint32_t i = 0; i < contents.size(); ++i) {
    const SlotSummary expected = i < log.table.size() ? log.table[i] : SlotSummary{};
    if (contents[i] || (!all && expected.sequence == 0)) continue;
    std::optional<TailRecord> tail;
    if (const auto found = tails.find(i); found != tails.end()) tail = found->second;
    group.spawn(read_segment(work, i, expected, tail, &contents[i]));
  }
  co_await group.join();
  if (work.error) co_return std::move(*work.error);
  co_return Result<void>{};
}

// The latest record and epoch of the log that anything outside it knows of.
struct Known {
  uint64_t record = 0, epoch = 0;
  void add(uint64_t of_record, uint64_t of_epoch) {
    record = std::max(record, of_record);
    epoch = std::max(epoch, of_epoch);
  }
};

// Where a damaged log goes on: behind everything that is known of it.
void continue_behind(Journal::Position& position, const LogContents& log, const Known& known) {
  position.sequence = std::max(position.sequence, known.record + 1) + kLostRecordsMax;
  uint64_t epoch = std::max(position.epoch, known.epoch);
  if (epoch == log.epoch) return;
  // The next one begins in the lane that does not hold what was found: it is needed until the table is complete.
  if (log.epoch != 0 && (epoch + 1) % 2 == log.epoch % 2) ++epoch;
  position = {.epoch = epoch, .number = 0, .block = 0, .chain = 0, .sequence = position.sequence};
}

uint64_t place_of(uint64_t offset, bool packed, bool multi, uint8_t stream) {
  return offset | (packed ? IndexEntry::kPacked : 0) | (multi ? IndexEntry::kMulti : 0) |
         static_cast<uint64_t>(stream) << IndexEntry::kStreamShift;
}

class Assembler {
 public:
  Assembler(Recovered& out, const Geometry& geometry) : out_(out), geometry_(geometry) {}

  void take_removals(const LogContents& log) {
    for (const auto& [sequence, record] : log.records) {
      if (const auto* remove = std::get_if<RemoveRecord>(&record)) {
        uint64_t& last = removed_[remove->id];
        last = std::max(last, sequence);
      }
    }
    out_.report.log_records_replayed = log.records.size();
  }

  bool removed_after(const ChunkId& id, uint64_t stamp) const {
    const auto found = removed_.find(id);
    return found != removed_.end() && found->second > stamp;
  }

  void add_contents(SegmentContents& contents) {
    const uint64_t base = geometry_.offset_of(contents.index);
    Segment& s = out_.segments[contents.index];
    s = std::move(contents.segment);
    through_[contents.index] = contents.through;
    s.items = static_cast<uint32_t>(contents.items.size());
    for (const auto& [item, stamp, dead] : contents.items) {
      s.used_bytes += item.size;
      if (dead || removed_after(item.id, stamp)) {
        s.dead.push_back(item.offset / kItemAlignment);
        s.dirty = s.dirty || !dead;
        continue;
      }
      copies_.push_back({{item.id, place_of(base + item.offset, true, false, s.stream == 3 ? 0 : s.stream), item.size, item.crc}, stamp});
    }
    for (const auto& [entry, stamp] : contents.extents) {
      if (removed_after(entry.id, stamp)) {
        s.dirty = true;
        continue;
      }
      const Run run{geometry_.block_of(contents.index) + entry.block, entry.blocks};
      if (entry.runs == 1) {
        copies_.push_back({{entry.id, place_of(run.block * kBlock, false, false, entry.stream), entry.size, entry.header_crc}, stamp});
      } else {
        pieces_.push_back({entry.id, stamp, entry.size, entry.header_crc, entry.run, entry.runs, entry.stream, run});
      }
    }
    if (contents.rebuilt || contents.frames_scanned > 0) s.dirty = true;
    s.suspect = contents.rebuilt && s.role == Role::packed;
    OpenReport& report = out_.report;
    report.inventories_read += contents.inventories_read + (s.slot_sequence != 0 ? 1 : 0);
    report.frames_scanned += contents.frames_scanned;
    report.torn_tails += contents.torn_tails;
    report.segments_rebuilt += contents.rebuilt ? 1 : 0;
    for (auto& sentence : contents.damage) note(std::move(sentence));
    if (s.role == Role::packed && s.state == SegmentState::open) out_.open.push_back({contents.index, std::move(contents.unlisted)});
  }

  void add_chunk(const ChunkId& id, uint32_t size, uint32_t header_crc, uint8_t stream, const std::vector<Run>& runs, uint64_t stamp) {
    if (removed_after(id, stamp)) return;
    copies_.push_back({{id, place_of(runs.front().block * kBlock, false, runs.size() > 1, stream), size, header_crc}, stamp});
    if (runs.size() > 1) multi_candidates_[{id.high, id.low, runs.front().block}] = runs;
    for (const auto& run : runs) out_.segments[geometry_.segment_of(run)].dirty = true;
  }

  // Puts in the log that some slot does not contain yet.
  std::vector<LoggedRecord> newer_puts(const LogContents& log) {
    std::vector<LoggedRecord> puts;
    for (const auto& logged : log.records) {
      const auto* put = std::get_if<PutRecord>(&logged.record);
      if (put == nullptr) continue;
      bool newer = false, possible = true;
      for (const auto& run : put->runs) {
        const uint32_t segment = geometry_.segment_of(run);
        possible = possible && segment != kNoSegment;
        newer = newer || (possible && through_[segment] < logged.sequence);
      }
      if (!possible)
        note(fmt::format("log record {}: chunk {} lies outside the device", logged.sequence, put->id.to_string()));
      else if (newer && !removed_after(put->id, logged.sequence))
        puts.push_back(logged);
    }
    return puts;
  }

  // Chunks in several runs, from what the segments' slots list.
  void join_pieces() {
    std::sort(pieces_.begin(), pieces_.end(),
              [](const Piece& a, const Piece& b) { return std::tuple(a.id, a.header_crc, a.run) < std::tuple(b.id, b.header_crc, b.run); });
    for (size_t i = 0; i < pieces_.size();) {
      size_t end = i + 1;
      while (end < pieces_.size() && pieces_[end].id == pieces_[i].id && pieces_[end].header_crc == pieces_[i].header_crc) ++end;
      std::vector<Run> runs;
      uint64_t stamp = UINT64_MAX;
      for (size_t k = i; k < end; ++k) {
        if (pieces_[k].run == runs.size()) runs.push_back(pieces_[k].place);
        stamp = std::min(stamp, pieces_[k].stamp);
      }
      const Piece& first = pieces_[i];
      if (runs.size() == first.runs) {
        copies_.push_back(
            {{first.id, place_of(runs.front().block * kBlock, false, true, first.stream), first.size, first.header_crc}, stamp});
        multi_candidates_[{first.id.high, first.id.low, runs.front().block}] = runs;
      } else {
        partial_.push_back(first);
        for (size_t k = i; k < end; ++k) out_.segments[geometry_.segment_of(pieces_[k].place)].dirty = true;
      }
      i = end;
    }
    pieces_.clear();
  }

  std::vector<Piece>& partial() { return partial_; }
  size_t pieces() const { return pieces_.size(); }
  size_t copies() const { return copies_.size(); }
  bool known(const ChunkId& id, uint64_t block) const { return multi_candidates_.contains({id.high, id.low, block}); }

  // Chooses one copy for each id; the others are dead.
  void choose() {
    std::sort(copies_.begin(), copies_.end());
    out_.entries.reserve(copies_.size());
    for (const auto& copy : copies_) {
      const IndexEntry& entry = copy.entry;
      if (!out_.entries.empty() && out_.entries.back().id == entry.id) {
        if (out_.entries.back().offset() == entry.offset() && out_.entries.back().packed() == entry.packed())
          continue;  // the same copy, known twice
        const uint32_t segment = geometry_.segment_at(entry.offset());
        Segment& s = out_.segments[segment];
        s.dirty = true;
        if (entry.packed()) s.dead.push_back(static_cast<uint32_t>((entry.offset() - geometry_.offset_of(segment)) / kItemAlignment));
        continue;
      }
      out_.entries.push_back(entry);
    }
    copies_.clear();
    copies_.shrink_to_fit();
    for (const auto& entry : out_.entries) {
      if (entry.multi()) out_.multi[entry.id] = multi_candidates_[{entry.id.high, entry.id.low, entry.offset() / kBlock}];
    }
    out_.report.chunks = out_.entries.size();
  }

  void note(std::string sentence) {
    if (out_.report.damage.size() < kDamageListMax) out_.report.damage.push_back(std::move(sentence));
  }

 private:
  Recovered& out_;
  const Geometry& geometry_;
  std::unordered_map<ChunkId, uint64_t, ChunkIdHash> removed_;
  std::unordered_map<uint32_t, uint64_t> through_;
  std::vector<Copy> copies_;
  std::vector<Piece> pieces_, partial_;
  std::map<std::tuple<uint64_t, uint64_t, uint64_t>, std::vector<Run>> multi_candidates_;
};

// Blocks of an extent segment that no known copy covers, as [from, to).
std::vector<std::pair<uint32_t, uint32_t>> uncovered(const SegmentContents& contents, uint32_t data_blocks) {
  std::vector<std::pair<uint32_t, uint32_t>> used, gaps;
  for (const auto& [entry, stamp] : contents.extents) used.emplace_back(entry.block, entry.block + entry.blocks);
  std::sort(used.begin(), used.end());
  uint32_t at = 0;
  for (const auto& [from, to] : used) {
    if (from > at) gaps.emplace_back(at, from);
    at = std::max(at, to);
  }
  if (at < data_blocks) gaps.emplace_back(at, data_blocks);
  return gaps;
}

}  // namespace

Task<Result<Recovered>> recover(BlockDevice& device, const Superblock& superblock) {
  Recovered out;
  const Geometry geometry(superblock);
  CO_TRY_ASSIGN(LogContents log, co_await read_log(device, superblock));
  uint64_t last_sequence = 0;
  if (!log.frames.empty()) last_sequence = log.position.sequence - 1;
  Work work{.device = device, .superblock = superblock, .reader = {device, superblock, geometry}, .error = std::nullopt};
  // Without a table any segment may have been used.
  std::vector<std::optional<SegmentContents>> contents;
  CO_TRY(co_await read_segments(work, log, log.damaged || !log.has_table, contents));
  Known known;
  const auto know = [&] {
    for (const auto& one : contents) {
      if (one) known.add(one->known_record, one->known_epoch);
    }
  };
  know();
  const uint64_t promised = std::max(last_sequence, superblock.clean_sequence);
  if (!log.damaged && known.record > promised) {
    log.damaged = true;
    log.damage = fmt::format("it ends at record {}, but record {} was durable", last_sequence, known.record);
    CO_TRY(co_await read_segments(work, log, true, contents));
    know();
  }
  // After a clean close the slots hold everything, whatever became of the log.
  out.report.clean = superblock.clean && last_sequence == superblock.clean_sequence && !log.damaged;
  const bool log_needed = !superblock.clean || std::max(last_sequence, known.record) > superblock.clean_sequence;
  out.report.log_rebuilt = log.damaged && log_needed;
  out.segments.assign(geometry.segments(), Segment{});

  Assembler assembler(out, geometry);
  co_await aside(log.records.size(), [&] { assembler.take_removals(log); });
  if (log.damaged)
    assembler.note("log: " + log.damage +
                   (log_needed ? "; rebuilt from payload headers, removed chunks may be back" : "; not needed after a clean close"));
  const uint64_t current_epoch = std::max({superblock.log_epoch, log.epoch, known.epoch});
  for (auto& one : contents) {
    if (!one) continue;
    std::vector<std::pair<uint32_t, uint32_t>> gaps;
    if (one->segment.role == Role::extent && (one->scan_headers || out.report.log_rebuilt)) gaps = uncovered(*one, geometry.data_blocks());
    const uint32_t index = one->index;
    const bool slot_lost = one->scan_headers;  // what lies here may be listed nowhere, however old it is
    const uint64_t through = one->through;
    assembler.add_contents(*one);
    one.reset();
    co_await Executor::here().yield();
    for (const auto& [from, to] : gaps) {
      CO_TRY_ASSIGN(const auto found, co_await work.reader.find_chunks(index, from, to));
      for (const auto& [header, crc] : found) {
        known.add(header.after, header.epoch);
        // Older than what the last two epochs can have lost, and than the slot: it was removed, and its space was not used since. (One
        // more: a mount that was cut short may have passed over a number. Many may have passed over many: what is newer than the slot is
        // kept.)
        if (out.report.log_rebuilt && !slot_lost && header.epoch + 3 < current_epoch && header.after < through) continue;
        assembler.add_chunk(header.id, header.size, crc, header.stream, header.runs, header.after);
      }
    }
  }
  std::vector<LoggedRecord> newer;
  co_await aside(log.records.size(), [&] { newer = assembler.newer_puts(log); });
  for (const auto& logged : newer) {
    const auto& put = std::get<PutRecord>(logged.record);
    if (logged.sequence > log.settled) {  // perhaps never acknowledged: only if its data is whole
      CO_TRY_ASSIGN(const bool whole, co_await work.reader.holds(put));
      if (!whole) {
        ++out.report.torn_tails;
        // Its segments' slots are written anew, so that they contain it (as nothing): later frames will call it settled.
        for (const auto& run : put.runs) out.segments[geometry.segment_of(run)].dirty = true;
        continue;
      }
    }
    assembler.add_chunk(put.id, put.size, put.header_crc, put.stream, put.runs, logged.sequence);
  }
  co_await aside(assembler.pieces(), [&] { assembler.join_pieces(); });
  std::vector<ChunkId> incomplete;
  for (const auto& piece : assembler.partial()) {
    // Its other runs were listed by a slot that is lost; the header knows them.
    if (piece.run != 0 || assembler.known(piece.id, piece.place.block)) continue;
    CO_TRY_ASSIGN(const auto found,
                  co_await work.reader.find_chunks(
                      geometry.segment_of(piece.place),
                      static_cast<uint32_t>(piece.place.block - geometry.block_of(geometry.segment_of(piece.place))),
                      static_cast<uint32_t>(piece.place.block - geometry.block_of(geometry.segment_of(piece.place))) + 1));
    if (found.empty()) {
      incomplete.push_back(piece.id);
      continue;
    }
    const auto& [header, crc] = found.front();
    assembler.add_chunk(header.id, header.size, crc, header.stream, header.runs, piece.stamp);
  }
  co_await aside(assembler.copies(), [&] { assembler.choose(); });
  out.position = log.position;
  if (out.report.log_rebuilt) continue_behind(out.position, log, known);
  out.resume_lane = !log.table_in_newest && log.epoch != 0 && log.epoch == out.position.epoch;
  out.log_damaged = log.damaged;
  if (out.resume_lane && !log.damaged) out.unfinished = std::move(log.unfinished);
  // A moved chunk's former place may be listed by one segment's slot and already reused in another's: no loss, it is known where it went.
  for (const ChunkId& id : incomplete) {
    const auto at = std::lower_bound(out.entries.begin(), out.entries.end(), id,
                                     [](const IndexEntry& entry, const ChunkId& wanted) { return entry.id < wanted; });
    if (at != out.entries.end() && at->id == id) continue;
    assembler.note(fmt::format("chunk {}: only part of its runs is known, and it cannot be rebuilt", id.to_string()));
  }
  for (const auto& sentence : out.report.damage) LOG_WARNING("a drive is damaged", {"device", device.info().path}, {"what", sentence});
  co_return out;
}

}  // namespace quarry::chunk::raw
