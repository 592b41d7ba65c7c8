// Compaction of packed segments: the live items of a segment that is mostly dead are copied to the compacted stream; then the
// segment is free. A copy is a frame like any other; until it is durable the old place stays valid.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/log_reader.h"
#include "chunk/raw/raw_store_impl.h"
#include "codec/crc32c.h"

namespace quarry::chunk::raw {
namespace {
// Short of free segments, compaction takes what gains less.
constexpr double kLiveWhenShort = 0.90;

Task<void> move_item(PackedStream& stream, PackedPut* item, Result<void>* result) { *result = co_await stream.put(*item); }

// Together, so that they share frames.
Task<Result<void>> move_items(PackedStream& stream, std::deque<PackedPut>& moves) {
  std::vector<Result<void>> results(moves.size());
  TaskGroup group;
  for (size_t i = 0; i < moves.size(); ++i) group.spawn(move_item(stream, &moves[i], &results[i]));
  co_await group.join();
  moves.clear();
  Result<void> result;
  for (auto& one : results) {
    if (!one) result = std::move(one);
  }
  co_return result;
}
}  // namespace

void RawStoreImpl::packed_segment_sealed(uint32_t segment) {
  if (space_[segment].live == 0) {
    free_packed_later(segment);
  } else if (!closing_) {
    background_.spawn([](RawStoreImpl& store, uint32_t index) -> Task<void> {
      if (store.space_[index].role != Role::packed || !store.space_[index].dirty) co_return;
      auto written = co_await store.write_slot(index);
      if (!written)
        LOG_WARNING("the slot of a sealed segment cannot be written", {"device", store.device_->info().path},
                    {"error", written.error().to_string()});
    }(*this, segment));
  }
  consider_compaction();
}

// Cost and benefit: what is gained (dead bytes) over what must be copied (live bytes). Below the threshold the lowest live share is best.
// What a segment was not filled with is gained as well, but not where compaction itself filled it: that is as dense as it gets, and only
// what died there since is gained. Else a full drive would be copied round and round.
std::optional<uint32_t> RawStoreImpl::worst_packed_segment(double live_below) const {
  std::optional<uint32_t> worst;
  double lowest = live_below;
  for (uint32_t i = 0; i < space_.used(); ++i) {
    const Segment& s = space_[i];
    if (s.role != Role::packed || s.state == SegmentState::open || s.emptying || s.compacting || s.live == 0 || s.unreadable) continue;
    if (s.failed == kSegmentFailuresMax) continue;  // it would not be free then
    if (s.suspect) return i;                        // a list of it was damaged: its items are better kept elsewhere
    const bool dense = s.stream == kStreamCompacted && s.state == SegmentState::sealed;
    const uint64_t all = dense ? s.used_bytes + uint64_t{s.items} * kFrameItemSize : space_.geometry().data_bytes();
    const double live = static_cast<double>(s.live_bytes + uint64_t{s.live} * kFrameItemSize) / static_cast<double>(all);
    if (live < lowest) {
      lowest = live;
      worst = i;
    }
  }
  return worst;
}

void RawStoreImpl::consider_compaction() {
  if (compacting_ || !options_.background || closing_ || !mounted_ || health_.state != StoreState::online) return;
  if (++deaths_since_look_ < kDeathsPerLook && space_.free_segments() > kReserveCompaction + kReserveMetadata) return;
  deaths_since_look_ = 0;
  const bool short_of_space = space_.free_segments() <= kReserveCompaction + kReserveMetadata;
  if (!worst_packed_segment(short_of_space ? kLiveWhenShort : options_.compaction_live_below)) return;
  compacting_ = true;
  background_.spawn(run_compaction());
}

Task<void> RawStoreImpl::run_compaction() {
  while (!closing_ && health_.state == StoreState::online) {
    const bool short_of_space = space_.free_segments() <= kReserveCompaction + kReserveMetadata;
    const auto segment = worst_packed_segment(short_of_space ? kLiveWhenShort : options_.compaction_live_below);
    if (!segment) break;
    const TimePoint start = Executor::here().now();
    auto done = co_await compact_segment(*segment);
    if (!done) break;
    // A bounded share of the device's time, unless space is short.
    if (short_of_space) continue;
    const Duration busy = Executor::here().now() - start;
    const auto pause = std::chrono::duration_cast<Duration>(busy * (1.0 / options_.compaction_share - 1.0));
    co_await hurry_.wait_until(Executor::here().now() + pause);
  }
  compacting_ = false;
}

Task<Result<void>> RawStoreImpl::compact() {
  CO_TRY(writable());
  Use use(*this);
  for (;;) {
    const auto segment = worst_packed_segment(options_.compaction_live_below);
    if (!segment) break;
    CO_TRY(co_await compact_segment(*segment));
    CO_TRY(writable());  // while the store closes nothing is moved, and the same segment would be chosen for ever
  }
  co_return Result<void>{};
}

Task<Result<void>> RawStoreImpl::compact_segment(uint32_t segment) {
  CO_TRY(co_await look_at_owner());
  // Somebody else's choice, or emptied, meanwhile; or another one by now.
  if (space_[segment].role != Role::packed || space_[segment].state == SegmentState::open || space_[segment].compacting ||
      space_[segment].emptying) {
    co_return Result<void>{};
  }
  space_[segment].compacting = true;  // it is not freed before this is done, so it needs no reader's ticket
  const uint64_t base = space_.geometry().offset_of(segment);
  const FrameExpectation expectation{drive_id(), segment, space_[segment].generation, supers_.superblock().salt,
                                     space_.geometry().data_blocks()};
  Result<void> result;
  uint32_t block = 0;
  const uint32_t end = space_[segment].data_end;
  uint64_t moved_bytes = 0;
  Buffer window;
  uint32_t window_at = 0;
  constexpr uint32_t kWindow = 2 * (kFrameSizeMax / kBlock);
  std::deque<PackedPut> moves;  // out of the window
  uint64_t gathered = 0;        // bytes of them
  while (block < end && result && !closing_ && space_[segment].live > 0) {
    if (window.empty() ||
        (block + kFrameSizeMax / kBlock > window_at + window.size() / kBlock && window_at + window.size() / kBlock < end)) {
      gathered = 0;
      result = co_await move_items(*streams_[kStreamCompacted], moves);
      if (!result) break;
      window_at = block;
      window = Buffer(static_cast<size_t>(std::min(kWindow, end - block)) * kBlock);
      const uint64_t at = base + static_cast<uint64_t>(block) * kBlock;
      auto read = co_await device_->read(at, window.mutable_view());
      if (!read) {
        // What lies on a bad sector stays, for whoever repairs it; the rest of the segment is moved all the same.
        note_error(read.error(), false);
        auto bad = co_await read_tolerant(*device_, at, window.mutable_view());
        if (!bad) {
          result = noted(std::move(bad).error(), false);
          break;
        }
      }
    }
    const ByteView bytes = window.view().subspan(static_cast<size_t>(block - window_at) * kBlock);
    uint32_t crc = 0, needed = 0;
    auto frame = decode_frame_header(bytes, expectation, &crc, &needed);
    if (!frame || static_cast<size_t>(frame->blocks) * kBlock > bytes.size()) {
      ++block;  // a damaged frame: see move_leftovers
      continue;
    }
    const uint32_t frame_block = block;
    block += frame->blocks;
    if (frame->kind != FrameKind::items) continue;
    for (const auto& item : frame->items) {
      const IndexEntry* entry = index_.find(item.id);
      const uint64_t offset = base + static_cast<uint64_t>(frame_block) * kBlock + item.offset;
      if (entry == nullptr || !entry->packed() || entry->offset() != offset) continue;
      const ByteView payload = bytes.subspan(item.offset, item.size);
      if (crc32c(checksum_seed(item.id, 0), payload) != entry->crc) continue;  // stays where it is: reading it says corrupt
      PackedPut& move = moves.emplace_back();
      move.id = item.id;
      move.parts = {payload};
      move.size = item.size;
      move.crc = item.crc;
      move.stream = entry->stream();
      move.moved = true;
      move.from = entry->place;
      moved_bytes += item.size;
      gathered += item.size;
    }
    if (gathered < kFrameSizeMax / 2) continue;
    gathered = 0;
    result = co_await move_items(*streams_[kStreamCompacted], moves);
  }
  auto last = co_await move_items(*streams_[kStreamCompacted], moves);
  if (result) result = std::move(last);
  if (result && !closing_ && space_[segment].live > 0) result = co_await move_leftovers(segment, &moved_bytes);
  Segment& s = space_[segment];
  s.compacting = false;
  if (result && !closing_ && s.live > 0) s.unreadable = true;  // not tried again before the next mount
  if (s.live == 0) {
    free_packed_later(segment);
    ++stats_.segments_compacted;
    stats_.bytes_compacted += moved_bytes;
  }
  co_return result;
}

// Items whose frame cannot be read as one, by the index. What is not readable at all stays.
Task<Result<void>> RawStoreImpl::move_leftovers(uint32_t segment, uint64_t* moved_bytes) {
  const auto entries = co_await entries_in(segment);
  for (const auto& entry : entries) {
    auto data = co_await get_verified(entry.id, 0, entry.size);
    if (!data || data->size() != entry.size) continue;
    PackedPut move;
    move.id = entry.id;
    move.parts = {data->view()};
    move.size = entry.size;
    move.crc = entry.crc;
    move.stream = entry.stream();
    move.moved = true;
    move.from = entry.place;
    CO_TRY(co_await streams_[kStreamCompacted]->put(move));
    *moved_bytes += entry.size;
  }
  co_return Result<void>{};
}

Task<void> RawStoreImpl::reclaim_segments(uint32_t reserve) {
  co_await reclaiming_.acquire();
  while (!may_use_segments(reserve) && !closing_ && health_.state == StoreState::online) {
    if (compacting_) {  // in the background, and for this: it knows that segments are short, if it does not rest just now
      hurry_.pulse();
      co_await sleep_for(std::chrono::microseconds(200));
      continue;
    }
    const auto packed = worst_packed_segment(kLiveWhenShort);
    const auto extent = emptiest_extent_segment();
    Result<void> done;
    if (packed) {
      done = co_await compact_segment(*packed);
    } else if (extent) {
      done = co_await evacuate_segment(*extent);
    } else {
      break;
    }
    // What cannot be read is not chosen again.
    if (!done && done.error().code() != Code::io_error && done.error().code() != Code::corrupt) break;
    // Freed places wait for readers that were there before.
    while (readers_.waiting() > 0 && !may_use_segments(reserve)) co_await sleep_for(std::chrono::microseconds(200));
    co_await Executor::here().yield();  // whatever came of it: what it may be waiting for runs on this thread
  }
  reclaiming_.release();
}

// The extent segment with the least live data, if the holes of the others can take it.
std::optional<uint32_t> RawStoreImpl::emptiest_extent_segment() const {
  std::optional<uint32_t> best;
  for (uint32_t i = 0; i < space_.used(); ++i) {
    const Segment& s = space_[i];
    if (s.role != Role::extent || s.state != SegmentState::open || s.pending > 0 || s.live == 0 || s.unreadable || s.evacuating) continue;
    if (!best || s.live_bytes < space_[*best].live_bytes) best = i;
  }
  if (!best) return best;
  const uint64_t own_free = space_.geometry().data_bytes() - space_[*best].live_bytes;
  const uint64_t holes = space_.free_run_blocks() * kBlock - own_free;
  // Some slack: holes are not all of a useful size.
  if (holes < space_[*best].live_bytes + space_[*best].live_bytes / 8) best.reset();
  return best;
}

bool RawStoreImpl::lies_in(const IndexEntry& entry, uint32_t segment) const {
  const Geometry& geometry = space_.geometry();
  if (entry.packed()) return geometry.segment_at(entry.offset()) == segment;
  if (!entry.multi()) return geometry.segment_of(single_run(entry)) == segment;
  const auto& runs = multi_.at(entry.id);
  return std::any_of(runs.begin(), runs.end(), [&](const Run& run) { return geometry.segment_of(run) == segment; });
}

Task<std::vector<IndexEntry>> RawStoreImpl::entries_in(uint32_t segment) {
  std::vector<IndexEntry> found;
  ChunkId from;
  for (int leaf = 1;; ++leaf) {
    const auto entries = index_.leaf_from(from);
    if (entries.empty()) break;
    for (const IndexEntry& entry : entries) {
      if (lies_in(entry, segment)) found.push_back(entry);
    }
    from = next_id(entries.back().id);
    if (from == entries.back().id) break;  // the last id there can be
    if (leaf % kLeavesPerStep == 0) co_await Executor::here().yield();
  }
  co_return found;
}

Task<Result<void>> RawStoreImpl::evacuate_segment(uint32_t segment) {
  space_.set_evacuating(segment, true);
  const auto entries = co_await entries_in(segment);
  Result<void> result;
  bool unreadable = false;
  for (const auto& [id, place, size, crc] : entries) {
    // A chunk that is being removed leaves by itself.
    while (removing_.contains(id)) co_await moved_or_removed_.wait();
    const IndexEntry* entry = index_.find(id);
    if (entry == nullptr || entry->packed() || !lies_in(*entry, segment)) continue;
    const IndexEntry copy = *entry;
    moving_.insert(id);
    auto data = co_await get_verified(id, 0, copy.size);
    unreadable = !data.has_value();
    if (data) {
      std::vector<ByteView> parts = {data->view()};
      result = co_await store_extent(id, std::move(parts), copy.size, copy.stream(), copy.place);
      if (result) stats_.bytes_compacted += copy.size;
    } else {
      result = std::move(data).error();
    }
    moving_.erase(id);
    moved_or_removed_.pulse();
    if (!result || closing_) break;
  }
  // An emptied segment was given back meanwhile and is another one now.
  if (space_[segment].role == Role::extent && space_[segment].evacuating) {
    if (unreadable) space_[segment].unreadable = true;  // not tried again before something of it is removed
    space_.set_evacuating(segment, false);
  } else if (result) {
    ++stats_.segments_compacted;
  }
  co_return result;
}

}  // namespace quarry::chunk::raw
