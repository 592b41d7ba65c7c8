// Segments take and lose roles, their slots are written, and a checkpoint makes the log short again.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/raw_store_impl.h"

namespace quarry::chunk::raw {
namespace {

// 16 bytes each, so that a frame takes fewer blocks than a lane's reserve has to spare: one that cannot be written is put behind.
constexpr uint32_t kTableSlotsPerFrame = 4'000;
constexpr size_t kDiscardsQueuedMax = 4096;  // more are forgotten: a discard is a hint

struct SlotWrite {
  uint32_t segment = 0;
  uint32_t sequence = 0;
  uint32_t crc = 0;
  Buffer bytes;
  Result<void> result;
};

// Holds a permit already.
Task<void> write_slot_bytes(BlockDevice& device, uint64_t offset, SlotWrite* write, Semaphore* permits) {
  write->result = co_await device.write(offset, write->bytes, Durability::volatile_);
  write->bytes = Buffer();
  permits->release();
}

}  // namespace

SegmentSlot RawStoreImpl::make_slot(uint32_t index) const {
  const Segment& s = space_[index];
  SegmentSlot slot;
  slot.drive = drive_id();
  slot.segment = index;
  slot.generation = s.generation;
  slot.sequence = s.slot_sequence + 1;
  slot.role = s.role;
  slot.state = s.state;
  slot.stream = s.stream;
  slot.through = journal_.settled();
  slot.epoch = journal_.epoch();
  if (s.role == Role::packed) {
    slot.data_end = s.listed_end;
    slot.next_frame = s.listed_frame;
    slot.chain = s.listed_chain;
    slot.items = s.listed_items;
    slot.inventories = s.inventories;
    slot.dead = s.dead;
    std::sort(slot.dead.begin(), slot.dead.end());
    slot.dead.erase(std::unique(slot.dead.begin(), slot.dead.end()), slot.dead.end());
  }
  return slot;
}

Task<Result<void>> RawStoreImpl::write_slot(uint32_t index) {
  while (space_[index].writing_slot) co_await slot_written_.wait();
  CHECK(space_[index].role != Role::extent || space_[index].live + space_[index].pending == 0);
  space_[index].writing_slot = true;
  if (owner_look_due()) {  // it may have waited for a checkpoint
    auto looked = co_await look_at_owner();
    if (!looked) {
      space_[index].writing_slot = false;
      slot_written_.pulse();
      co_return looked;
    }
  }
  space_[index].dirty = false;
  const SegmentSlot slot = make_slot(index);
  uint32_t crc = 0;
  const Buffer bytes = encode_slot(slot, space_.geometry().segment_size(), &crc);
  auto written = co_await device_->write(space_.geometry().slot_offset(index, slot.sequence), bytes, Durability::durable);
  space_[index].writing_slot = false;
  slot_written_.pulse();
  if (!written) {
    space_[index].dirty = true;
    co_return noted(std::move(written).error(), true);
  }
  space_[index].slot_sequence = slot.sequence;
  space_[index].slot_crc = crc;
  Journal::Entry entry;
  encode_record(SlotRecord{index, {slot.sequence, crc, slot.generation, slot.role, slot.state}}, entry.records);
  entry.count = 1;
  auto logged = co_await journal_.append(entry);
  if (!logged) co_return noted(std::move(logged).error(), true);
  co_return Result<void>{};
}

Task<Result<uint32_t>> RawStoreImpl::open_segment(Role role, uint8_t stream) {
  CO_TRY(co_await look_at_owner());  // room may have been made for it first
  for (uint32_t attempt = 0; attempt < kPutAttempts; ++attempt) {
    uint32_t index = space_.take_segment();
    // Those that are free are held back while their slots are written or they are discarded.
    while (index == kNoSegment && space_.free_segments() > 0) {
      co_await slot_written_.wait();
      index = space_.take_segment();
    }
    if (index == kNoSegment) co_return fail(Code::no_space, "{}: all segments are in use", device_->info().path);
    Segment& fresh = space_[index];
    const uint32_t generation = fresh.generation + 1, sequence = fresh.slot_sequence, crc = fresh.slot_crc;
    const uint8_t failed = fresh.failed;
    const bool dirty = fresh.dirty;
    fresh = Segment{};
    fresh.failed = failed;
    fresh.role = role;
    fresh.stream = stream;
    fresh.generation = generation;
    fresh.slot_sequence = sequence;
    fresh.slot_crc = crc;
    auto written = co_await write_slot(index);
    if (written) {
      if (role == Role::extent) space_.open_extents(index);
      co_return index;
    }
    // Its end cannot be written: others come first. What its slot said is right still, and a checkpoint need not write it.
    const bool failed_here = written.error().code() == Code::io_error;
    if (failed_here) space_.retire(index);
    space_.give_segment(index);
    space_[index].dirty = dirty || space_[index].slot_sequence != sequence;
    if (!failed_here || health_.state != StoreState::online) co_return std::move(written).error();
    ++stats_.segments_retired;
  }
  co_return fail(Code::io_error, "{}: no segment can be opened", device_->info().path);
}

Task<Result<void>> RawStoreImpl::write_dirty_slots() {
  // Those with extents last: to list them takes longer, and a free segment is held back while its slot is written.
  std::deque<uint32_t> left, extents;
  for (uint32_t i = 0; i < space_.used(); ++i) (space_[i].role == Role::extent ? extents : left).push_back(i);
  left.insert(left.end(), extents.begin(), extents.end());
  while (!left.empty()) {
    std::vector<uint32_t> group;
    uint64_t listed = 0;
    while (!left.empty() && group.size() < kSlotsPerGroup && listed < kExtentsPerGroup) {
      const uint32_t i = left.front();
      if (space_[i].role == Role::extent && listed == 0 && !group.empty()) break;
      left.pop_front();
      // Somebody else's write of it may have begun before the checkpoint, and say less than the log that is about to go; or it may fail.
      while (space_[i].writing_slot) co_await slot_written_.wait();
      if (!space_[i].dirty) continue;
      space_[i].writing_slot = true;
      if (space_[i].role == Role::extent) listed += std::max(space_[i].live, 1u);
      group.push_back(i);
    }
    if (!group.empty()) CO_TRY(co_await write_claimed_slots(std::move(group)));
  }
  co_return Result<void>{};
}

// Each slot is of one moment, that in which it is encoded; they need not be of the same one: what the log says after `through` is added to
// each at a mount.
Task<Result<void>> RawStoreImpl::write_claimed_slots(std::vector<uint32_t> segments) {
  listing_.emplace(space_.geometry());
  for (const uint32_t i : segments) {
    if (space_[i].role == Role::extent) listing_->add_segment(i);
  }
  if (!listing_->empty()) co_await list_extents();
  Result<void> result = co_await look_at_owner();  // that took a while
  std::vector<SlotWrite> writes(segments.size());
  Semaphore permits(kSlotWritesMax);
  TaskGroup group;
  for (size_t k = 0; k < segments.size() && result; ++k) {
    co_await permits.acquire();
    if (owner_look_due()) result = co_await look_at_owner();  // and so do many slots
    if (!result) break;
    const uint32_t i = segments[k];
    SegmentSlot slot = make_slot(i);
    if (listing_->has(i)) slot.extents = listing_->take(i);
    space_[i].dirty = false;
    writes[k] = {.segment = i, .sequence = slot.sequence, .crc = 0, .bytes = {}, .result = {}};
    writes[k].bytes = encode_slot(slot, space_.geometry().segment_size(), &writes[k].crc);
    group.spawn(write_slot_bytes(*device_, space_.geometry().slot_offset(i, slot.sequence), &writes[k], &permits));
    co_await Executor::here().yield();
  }
  co_await group.join();
  listing_.reset();
  if (result) result = co_await device_->flush();
  for (size_t k = 0; k < segments.size(); ++k) {
    Segment& s = space_[segments[k]];
    s.writing_slot = false;
    if (writes[k].result && result) {
      s.slot_sequence = writes[k].sequence;
      s.slot_crc = writes[k].crc;
    } else {
      s.dirty = true;
    }
  }
  slot_written_.pulse();
  for (auto& write : writes) {
    if (!write.result) co_return noted(std::move(write.result).error(), true);
  }
  if (!result) co_return noted(std::move(result).error(), true);
  co_return Result<void>{};
}

Task<void> RawStoreImpl::list_extents() {
  for (int leaf = 1;; ++leaf) {
    const auto entries = index_.leaf_from(listing_->walked_to());
    if (entries.empty()) break;
    for (const IndexEntry& entry : entries) {
      if (entry.packed()) {
        listing_->walk(entry, {});
      } else if (entry.multi()) {
        listing_->walk(entry, multi_.at(entry.id));
      } else {
        const Run run = single_run(entry);
        listing_->walk(entry, {&run, 1});
      }
    }
    if (listing_->walked_to() == entries.back().id) break;  // the last id there can be
    if (leaf % kLeavesPerStep == 0) co_await Executor::here().yield();
  }
  listing_->finish_walk();
}

Task<Result<void>> RawStoreImpl::write_table() {
  uint32_t first = 0;
  do {
    const uint32_t total = space_.used();
    TableRecord part{first, total, {}};
    for (uint32_t i = first; i < std::min(total, first + kTableSlotsPerFrame); ++i) part.slots.push_back(space_[i].summary());
    first += static_cast<uint32_t>(part.slots.size());
    Journal::Entry entry;
    encode_record(part, entry.records);
    entry.count = 1;
    entry.is_table = true;
    CO_TRY(co_await journal_.append(entry));
  } while (first < space_.used());
  co_return Result<void>{};
}

Task<void> RawStoreImpl::run_checkpoint(bool rotate) {
  checkpointing_ = true;
  checkpoint_done_.reset();
  co_await super_turn_.acquire();
  Result<void> result = co_await look_at_owner_now();
  super_turn_.release();
  for (auto& stream : streams_) {
    if (stream->queued() > 0 || !result) continue;
    result = co_await stream->list_items();
  }
  if (result) {
    if (rotate) co_await journal_.rotate();
    // The epoch before goes when this is done: whatever it promises must be in the slots, so its puts must have ended.
    const uint64_t last = journal_.durable();
    co_await journal_.wait_settled(last);
    // A copy in flight of a chunk that was removed meanwhile: its tombstone goes with the epoch, so the slot must name the copy dead.
    for (auto& stream : streams_) co_await stream->wait_for_items();
    result = co_await write_dirty_slots();
  }
  if (result) result = co_await write_table();
  if (result) {
    journal_.lane_freed();
    ++stats_.checkpoints;
  } else {
    // Without a checkpoint the log can only fill up: better to stop accepting now and say why.
    become(StoreState::read_only, "a checkpoint failed: " + result.error().to_string());
    journal_.fail_all(result.error());
  }
  checkpoint_result_ = result;
  checkpointing_ = false;
  checkpoint_done_.set();
}

void RawStoreImpl::request_checkpoint() {
  if (checkpointing_ || closed_ || health_.state == StoreState::failed || journal_.error()) return;
  checkpointing_ = true;
  checkpoint_done_.reset();
  background_.spawn(run_checkpoint(true));
}

Task<Result<void>> RawStoreImpl::checkpoint() {
  CO_TRY(writable());
  Use use(*this);
  while (checkpointing_) co_await checkpoint_done_.wait();
  CO_TRY(writable());  // that one may have failed
  co_await run_checkpoint(true);
  co_return checkpoint_result_;
}

void RawStoreImpl::discard_later(uint32_t segment) {
  if (!options_.background || !device_->info().supports_discard || closing_) return;
  if (discards_.size() < kDiscardsQueuedMax) discards_.push_back(segment);
  if (!discarding_) {
    discarding_ = true;
    background_.spawn(run_discards());
  }
}

Task<void> RawStoreImpl::run_discards() {
  while (!discards_.empty() && !closing_ && health_.state == StoreState::online) {
    auto looked = co_await look_at_owner();
    if (!looked || discards_.empty()) break;
    const uint32_t segment = discards_.front();
    discards_.pop_front();
    if (space_[segment].role != Role::free || space_[segment].writing_slot) continue;
    // What a slot still lists must be there at the next mount: the slot says free first.
    if (space_[segment].dirty) {
      auto written = co_await write_slot(segment);
      if (!written) continue;
      looked = co_await look_at_owner();  // its record may have waited in the log
      if (!looked) break;
    }
    if (space_[segment].role != Role::free || space_[segment].writing_slot) continue;
    space_[segment].writing_slot = true;  // held back from use while the request runs
    const uint64_t length = space_.geometry().data_bytes();
    auto discarded = co_await device_->discard(space_.geometry().offset_of(segment), length);
    space_[segment].writing_slot = false;
    slot_written_.pulse();
    if (discarded)
      stats_.bytes_discarded += length;
    else if (discarded.error().code() == Code::device_gone)
      note_error(discarded.error(), true);
  }
  discards_.clear();
  discarding_ = false;
}

void RawStoreImpl::schedule_idle_seal() {
  if (idle_seal_scheduled_ || !options_.background || closing_) return;
  idle_seal_scheduled_ = true;
  background_.spawn(run_idle_seal());
}

// When writes pause, the log gets one more frame that says how far the packed segments reach: so that the frames before it are
// not the last ones any more, and their loss shows.
Task<void> RawStoreImpl::run_idle_seal() {
  uint64_t seen = 0;
  for (;;) {
    const uint64_t now = stats_.packed_frames + journal_.frames();
    if (now == seen || closing_) break;
    seen = now;
    const bool stopped = co_await stop_.wait_until(Executor::here().now() + options_.idle_seal);
    if (stopped) break;
  }
  auto looked = co_await look_at_owner();
  if (looked && !closing_ && health_.state == StoreState::online) {
    Journal::Entry entry;
    for (const auto& stream : streams_) {
      if (stream->segment() == kNoSegment) continue;
      const Segment& s = space_[stream->segment()];
      encode_record(TailRecord{stream->segment(), s.generation, s.next_frame, s.data_end}, entry.records);
      ++entry.count;
    }
    auto logged = co_await journal_.append(entry);
    if (!logged) note_error(logged.error(), true);
  }
  idle_seal_scheduled_ = false;
}

}  // namespace quarry::chunk::raw
