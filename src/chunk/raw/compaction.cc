// Compaction of packed segments: the live items of a segment that is mostly dead are copied to the compacted stream; then the
// segment is free. A copy is a frame like any other; until it is durable the old place stays valid.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/raw_store_impl.h"
#include "codec/crc32c.h"

namespace quarry::chunk::raw {
namespace {
Task<void> move_item(PackedStream& stream, PackedPut* item, Result<void>* result) { *result = co_await stream.put(*item); }
}  // namespace

void RawStoreImpl::packed_segment_sealed(uint32_t segment) {
  if (space_[segment].live == 0) {
    free_packed_later(segment);
  } else if (!closing_) {
    background_.spawn([](RawStoreImpl& store, uint32_t index) -> Task<void> {
      if (store.space_[index].role != Role::packed || !store.space_[index].dirty) co_return;
      auto written = co_await store.write_slot(index);
      if (!written) LOG_WARNING("the slot of a sealed segment cannot be written", {"device", store.device_->info().path}, {"error", written.error().to_string()});
    }(*this, segment));
  }
  consider_compaction();
}

// Cost and benefit: what is gained (dead bytes) over what must be copied (live bytes). Below the threshold the lowest live share is best.
std::optional<uint32_t> RawStoreImpl::worst_packed_segment() const {
  std::optional<uint32_t> worst;
  double lowest = options_.compaction_live_below;
  for (uint32_t i = 0; i < space_.used(); ++i) {
    const Segment& s = space_[i];
    if (s.role != Role::packed || s.state == SegmentState::open || s.emptying || s.compacting || s.live == 0 || s.unreadable) continue;
    const double live = static_cast<double>(s.live_bytes + s.live * kFrameItemSize) / static_cast<double>(space_.geometry().data_bytes());
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
  if (!worst_packed_segment()) return;
  compacting_ = true;
  background_.spawn(run_compaction());
}

Task<void> RawStoreImpl::run_compaction() {
  while (!closing_ && health_.state == StoreState::online) {
    const auto segment = worst_packed_segment();
    if (!segment) break;
    const TimePoint start = Executor::here().now();
    auto done = co_await compact_segment(*segment);
    if (!done) break;
    // A bounded share of the device's time, unless space is short.
    if (space_.free_segments() <= kReserveCompaction + kReserveMetadata) continue;
    const Duration busy = Executor::here().now() - start;
    const auto pause = std::chrono::duration_cast<Duration>(busy * (1.0 / options_.compaction_share - 1.0));
    const bool stopped = co_await stop_.wait_until(Executor::here().now() + pause);
    if (stopped) break;
  }
  compacting_ = false;
}

Task<Result<void>> RawStoreImpl::compact() {
  CO_TRY(writable());
  Use use(*this);
  for (;;) {
    const auto segment = worst_packed_segment();
    if (!segment) break;
    CO_TRY(co_await compact_segment(*segment));
  }
  co_return Result<void>{};
}

Task<Result<void>> RawStoreImpl::compact_segment(uint32_t segment) {
  space_[segment].compacting = true;
  const uint64_t base = space_.geometry().offset_of(segment);
  const FrameExpectation expectation{drive_id(), segment, space_[segment].generation, supers_.superblock().salt, space_.geometry().data_blocks()};
  const auto ticket = readers_.enter();
  Result<void> result;
  uint32_t block = 0;
  const uint32_t end = space_[segment].data_end;
  uint64_t moved_bytes = 0;
  Buffer window;
  uint32_t window_at = 0;
  constexpr uint32_t kWindow = 2 * (kFrameSizeMax / kBlock);
  while (block < end && result && !closing_ && space_[segment].live > 0) {
    if (window.empty() || (block + kFrameSizeMax / kBlock > window_at + window.size() / kBlock && window_at + window.size() / kBlock < end)) {
      window_at = block;
      window = Buffer(static_cast<size_t>(std::min(kWindow, end - block)) * kBlock);
      result = co_await device_->read(base + static_cast<uint64_t>(block) * kBlock, window.mutable_view());
      if (!result) {
        result = noted(std::move(result).error(), false);
        break;
      }
    }
    const ByteView bytes = window.view().subspan(static_cast<size_t>(block - window_at) * kBlock);
    uint32_t crc = 0, needed = 0;
    auto frame = decode_frame_header(bytes, expectation, &crc, &needed);
    if (!frame) {
      ++block;  // a damaged frame: its items, if any live, keep the segment
      continue;
    }
    const uint32_t frame_block = block;
    block += frame->blocks;
    if (frame->kind != FrameKind::items) continue;
    std::deque<PackedPut> moves;
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
    }
    std::vector<Result<void>> results(moves.size());
    TaskGroup group;
    for (size_t i = 0; i < moves.size(); ++i) group.spawn(move_item(*streams_[kStreamCompacted], &moves[i], &results[i]));
    co_await group.join();
    for (auto& one : results) {
      if (!one) result = std::move(one);
    }
  }
  readers_.leave(ticket);
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

}  // namespace quarry::chunk::raw
