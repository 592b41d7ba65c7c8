// Small chunks: gathered into frames, each one durable device write that is its own commit record.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/raw_store_impl.h"

namespace quarry::chunk::raw {
namespace {
// An inventory frame is written after so many items, or so much data: what recovery scans at most.
constexpr size_t kUnlistedMax = 4096;
// Zero-ahead: how far, how long a gap is left for frames issued meanwhile, and frames so large that the journal commit does not matter.
constexpr uint32_t kZeroAheadBlocks = 8 * kMiB / kBlock;
constexpr uint32_t kZeroAheadGap = 2 * kMiB / kBlock;
constexpr uint32_t kZeroAheadFrameMax = 256 * kKiB / kBlock;
uint64_t unlisted_bytes_max(uint64_t segment_size) { return std::max<uint64_t>(1 * kMiB, segment_size / 16); }
}  // namespace

uint32_t PackedStream::inventory_blocks(size_t items) const {
  return items == 0 ? 0 : static_cast<uint32_t>(div_up(frame_table_end(items), kBlock));
}

uint64_t PackedStream::room() const {
  if (segment_ == kNoSegment) return 0;
  const Segment& s = store_.space_[segment_];
  return static_cast<uint64_t>(store_.space_.geometry().data_blocks() - s.data_end) * kBlock;
}

Task<Result<void>> PackedStream::put(PackedPut& item) {
  queue_.push_back(&item);
  if (!writing_) {
    writing_ = true;
    tasks_.spawn(write_loop());
  }
  co_await item.done;
  co_return std::move(item.result);
}

void PackedStream::resume(uint32_t segment, std::vector<FrameItem> unlisted) {
  segment_ = segment;
  unlisted_ = std::move(unlisted);
}

void PackedStream::fail_queue(const Error& error) {
  while (!queue_.empty()) {
    PackedPut* item = queue_.front();
    queue_.pop_front();
    item->result = Result<void>(error);
    item->done.fire();
  }
}

Task<void> PackedStream::write_loop() {
  while (!queue_.empty()) {
    co_await turn_.acquire();
    auto result = co_await ensure_segment();
    if (result) result = co_await write_items();
    turn_.release();
    if (!result) fail_queue(result.error());
  }
  writing_ = false;
}

uint32_t PackedStream::reserve() const {
  if (stream_ == kStreamCompacted) return 0;
  return kReserveCompaction + (stream_ == static_cast<uint8_t>(Stream::data) ? kReserveMetadata : 0);
}

Task<Result<void>> PackedStream::ensure_segment() {
  if (segment_ != kNoSegment) co_return Result<void>{};
  const uint32_t reserve = this->reserve();
  if (!store_.may_use_segments(reserve) && stream_ != kStreamCompacted) co_await store_.reclaim_segments(reserve);
  co_await store_.opening_.acquire();
  Result<uint32_t> opened = fail(Code::no_space, "{}: all segments are in use", store_.device_->info().path);
  if (store_.may_use_segments(reserve)) opened = co_await store_.open_segment(Role::packed, stream_);
  store_.opening_.release();
  if (!opened) co_return std::move(opened).error();
  segment_ = *opened;
  unlisted_.clear();
  co_return Result<void>{};
}

Task<Result<void>> PackedStream::write_items() {
  const Geometry& geometry = store_.space_.geometry();
  const uint64_t segment_size = geometry.segment_size();
  FrameHeader header;
  std::vector<PackedPut*> batch;
  uint64_t payload = 0;
  uint32_t blocks = 0;
  {
    const Segment& s = store_.space_[segment_];
    // A chunk removed before its copy is issued must not be copied: the frame would be newer than the tombstone.
    std::erase_if(queue_, [this](PackedPut* item) {
      if (!item->moved) return false;
      const IndexEntry* present = store_.index_.find(item->id);
      if (present != nullptr && present->place == item->from) return false;
      item->done.fire();
      return true;
    });
    if (queue_.empty()) co_return Result<void>{};
    for (PackedPut* item : queue_) {
      const size_t count = batch.size() + 1;
      const uint64_t bytes = frame_table_end(count) + payload + round_up(item->size, kItemAlignment);
      const auto need = static_cast<uint32_t>(div_up(bytes, kBlock));
      if (count > kFrameItemsMax || (count > 1 && bytes > kFrameSizeMax) || s.items + count > items_max(segment_size) ||
          s.inventories.size() + 1 >= kInventoriesMax ||
          s.data_end + need + inventory_blocks(unlisted_.size() + count) > geometry.data_blocks()) {
        break;
      }
      batch.push_back(item);
      payload += round_up(item->size, kItemAlignment);
      blocks = need;
    }
    if (batch.empty()) {
      auto sealed = co_await seal();
      co_return sealed;
    }
    header.segment = segment_;
    header.generation = s.generation;
    header.number = s.next_frame;
    header.chain = s.chain;
  }
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(batch.size()));
  header.kind = FrameKind::items;
  header.stream = stream_;
  header.blocks = blocks;
  Buffer frame(static_cast<size_t>(blocks) * kBlock);
  uint32_t at = frame_table_end(batch.size());
  header.items.reserve(batch.size());
  for (PackedPut* item : batch) {
    header.items.push_back({item->id, at, item->size, item->crc});
    for (const ByteView part : item->parts) {
      if (!part.empty()) std::memcpy(frame.data() + at, part.data(), part.size());
      at += static_cast<uint32_t>(part.size());
    }
    const auto end = static_cast<uint32_t>(round_up(at, kItemAlignment));
    std::memset(frame.data() + at, 0, end - at);
    at = end;
  }
  std::memset(frame.data() + at, 0, frame.size() - at);
  const uint32_t start = store_.space_[segment_].data_end;
  ++items_frames_;
  items_in_flight_ = true;
  auto written = co_await write_frame(header, std::move(frame), nullptr);
  items_in_flight_ = false;
  items_landed_.pulse();
  if (!written) {
    const Code code = written.error().code();
    if (code == Code::io_error && store_.health_.state == StoreState::online) {
      // Another place: the segment is closed to writes, the items try again at the head of the queue.
      // The frame may have landed all the same: what a mount finds there must not outlive the removal of the copies made elsewhere.
      Segment& failed = store_.space_[segment_];
      for (const FrameItem& item : header.items) failed.dead.push_back((start * kBlock + item.offset) / kItemAlignment);
      failed.dirty = true;
      co_await retire_segment();
      if (store_.health_.write_errors <= kWriteErrorsMax) {
        queue_.insert(queue_.begin(), batch.begin(), batch.end());
        co_return Result<void>{};
      }
    }
    for (PackedPut* item : batch) {
      item->result = Result<void>(written.error());
      item->done.fire();
    }
    co_return Result<void>{};
  }
  // Durable: from here to the end of the loop nothing else runs.
  Segment& s = store_.space_[segment_];
  const uint64_t base = geometry.offset_of(segment_);
  for (size_t i = 0; i < batch.size(); ++i) {
    PackedPut& item = *batch[i];
    const uint32_t offset = start * kBlock + header.items[i].offset;
    unlisted_.push_back({item.id, offset, item.size, item.crc});
    ++s.items;
    s.used_bytes += item.size;
    const IndexEntry* present = store_.index_.find(item.id);
    if (item.moved && (present == nullptr || present->place != item.from)) {
      s.dead.push_back(offset / kItemAlignment);  // removed while it was copied
    } else {
      if (item.moved) store_.release_entry(*present);
      IndexEntry entry{item.id, (base + offset) | IndexEntry::kPacked | static_cast<uint64_t>(item.stream) << IndexEntry::kStreamShift,
                       item.size, item.crc};
      store_.index_.put(entry);
      ++s.live;
      ++s.changes;
      s.live_bytes += item.size;
      store_.payload_bytes_ += item.size;
      store_.stored_bytes_ += round_up(item.size, kItemAlignment) + kFrameItemSize;
    }
    item.done.fire();
  }
  s.dirty = true;
  store_.stats_.packed_items += batch.size();
  store_.schedule_idle_seal();
  const bool listing =
      unlisted_.size() >= kUnlistedMax || static_cast<uint64_t>(s.data_end - s.listed_end) * kBlock >= unlisted_bytes_max(segment_size);
  if (listing) {
    auto listed = co_await write_inventory();
    if (!listed)
      LOG_WARNING("an inventory frame cannot be written", {"device", store_.device_->info().path}, {"error", listed.error().to_string()});
  }
  co_return Result<void>{};
}

Task<Result<void>> PackedStream::write_frame(FrameHeader header, Buffer frame, uint32_t* crc_out) {
  const Segment& before = store_.space_[segment_];
  header.drive = store_.drive_id();
  header.after = store_.journal_.durable();
  const uint32_t crc = encode_frame_header(header, store_.supers_.superblock().salt, frame.mutable_view());
  const uint64_t offset = store_.space_.geometry().offset_of(segment_) + static_cast<uint64_t>(before.data_end) * kBlock;
  const uint32_t frame_end = before.data_end + header.blocks;
  while (zeroing_ && frame_end > zero_from_) co_await zeroed_.wait();
  for (uint32_t attempt = 1;; ++attempt) {
    if (store_.owner_look_due()) CO_TRY(co_await store_.look_at_owner());  // it may have waited for a segment, or for the frame before
    auto written = co_await store_.device_->write(offset, frame, Durability::durable);
    if (written) break;
    // Where there is no other segment the same place is tried again: to give up one that compaction has begun to fill would leave it no
    // room to go on, ever.
    const bool again = written.error().code() == Code::io_error && attempt < kPutAttempts && !store_.may_use_segments(reserve());
    auto error = store_.noted(std::move(written).error(), true);
    if (!again || store_.health_.state != StoreState::online) co_return error;
  }
  if (store_.owner_look_due()) CO_TRY(co_await store_.look_at_owner());  // a newcomer may have read before it was there
  Segment& s = store_.space_[segment_];
  s.data_end += header.blocks;
  ++s.next_frame;
  s.chain = crc;
  if (crc_out != nullptr) *crc_out = crc;
  ++store_.stats_.packed_frames;
  zero_ahead(header.blocks);
  co_return Result<void>{};
}

void PackedStream::zero_ahead(uint32_t frame_blocks) {
  if (store_.device_->info().drive_class != DriveClass::file || !store_.options_.background || store_.closing_ || zeroing_) return;
  const uint32_t data_end = store_.space_[segment_].data_end;
  zeroed_end_ = std::max(zeroed_end_, data_end);
  if (frame_blocks > kZeroAheadFrameMax || zeroed_end_ > data_end + kZeroAheadBlocks / 2) return;
  const uint32_t from = std::max(zeroed_end_, data_end + kZeroAheadGap);
  const uint32_t to = std::min(from + kZeroAheadBlocks, store_.space_.geometry().data_blocks());
  if (from >= to) return;
  zeroing_ = true;
  zero_from_ = from;
  store_.background_.spawn(run_zero_ahead(store_.space_.geometry().offset_of(segment_), from, to));
}

Task<void> PackedStream::run_zero_ahead(uint64_t offset, uint32_t from, uint32_t to) {
  Buffer zeros(1 * kMiB);
  std::memset(zeros.data(), 0, zeros.size());
  bool good = true;
  for (uint32_t at = from; at < to && good;) {
    const uint32_t count = std::min<uint32_t>(to - at, static_cast<uint32_t>(zeros.size() / kBlock));
    auto written = co_await store_.device_->write(offset + static_cast<uint64_t>(at) * kBlock,
                                                  zeros.view().first(static_cast<size_t>(count) * kBlock), Durability::volatile_);
    good = written.has_value();
    at += count;
  }
  if (good) {
    auto flushed = co_await store_.device_->flush();
    good = flushed.has_value();
  }
  // Whatever went wrong here meets the next frame too, and is dealt with there.
  zeroed_end_ = to;
  zeroing_ = false;
  zeroed_.pulse();
}

Task<void> PackedStream::leave_segment() {
  while (zeroing_) co_await zeroed_.wait();
  segment_ = kNoSegment;
  zeroed_end_ = 0;
}

Task<void> PackedStream::retire_segment() {
  const uint32_t segment = segment_;
  co_await leave_segment();  // first: while it is open nobody else is given it, and zeros may be on their way to it
  unlisted_.clear();
  store_.space_.retire(segment);
  ++store_.stats_.segments_retired;
  if (store_.space_[segment].live == 0) store_.free_packed_later(segment);
}

Task<Result<void>> PackedStream::write_inventory() {
  if (segment_ == kNoSegment || unlisted_.empty()) co_return Result<void>{};
  FrameHeader header;
  {
    const Segment& s = store_.space_[segment_];
    header.kind = FrameKind::inventory;
    header.stream = stream_;
    header.segment = segment_;
    header.generation = s.generation;
    header.number = s.next_frame;
    header.chain = s.chain;
    header.blocks = inventory_blocks(unlisted_.size());
    header.items = unlisted_;
  }
  const uint32_t blocks = header.blocks;
  Buffer frame(static_cast<size_t>(blocks) * kBlock);
  std::memset(frame.data(), 0, frame.size());
  const uint32_t at = store_.space_[segment_].data_end;
  auto written = co_await write_frame(std::move(header), std::move(frame), nullptr);
  if (!written) {
    if (written.error().code() == Code::io_error) co_await retire_segment();
    co_return std::move(written).error();
  }
  Segment& s = store_.space_[segment_];
  s.inventories.push_back({at, blocks});
  s.listed_items += static_cast<uint32_t>(unlisted_.size());
  s.listed_end = s.data_end;
  s.listed_frame = s.next_frame;
  s.listed_chain = s.chain;
  s.dirty = true;
  unlisted_.clear();
  co_return Result<void>{};
}

Task<Result<void>> PackedStream::list_items() {
  co_await turn_.acquire();
  auto result = co_await write_inventory();
  turn_.release();
  // A segment that cannot take its inventory is scanned at the next mount instead.
  if (!result && result.error().code() == Code::io_error) result = Result<void>{};
  co_return result;
}

Task<Result<void>> PackedStream::seal() {
  auto listed = co_await write_inventory();
  if (!listed && segment_ == kNoSegment) co_return Result<void>{};  // retired instead
  if (!listed) co_return std::move(listed).error();
  const uint32_t segment = segment_;
  co_await leave_segment();
  store_.space_[segment].state = SegmentState::sealed;
  store_.space_[segment].dirty = true;
  store_.packed_segment_sealed(segment);
  co_return Result<void>{};
}

Task<void> PackedStream::wait_for_items() {
  const uint64_t frame = items_frames_;
  while (items_in_flight_ && items_frames_ == frame) co_await items_landed_.wait();
}

Task<void> PackedStream::drain() { co_await tasks_.join(); }

}  // namespace quarry::chunk::raw
