#include "chunk/raw/journal.h"

#include "base/check.h"
#include "base/log.h"

namespace quarry::chunk::raw {
namespace {
// A frame whose place cannot be written is put behind it; recovery follows the chain over the gap.
constexpr int kFrameAttempts = 4;
}  // namespace

Journal::~Journal() { CHECK(queue_.empty()); }

void Journal::start(BlockDevice& device, Uuid drive, uint64_t salt, Place place, Position position) {
  device_ = &device;
  drive_ = drive;
  salt_ = salt;
  place_ = place;
  position_ = position;
  error_.reset();
}

bool Journal::room_for(uint32_t blocks, bool table) const {
  const uint64_t end = (position_.block + static_cast<uint64_t>(blocks)) * kBlock;
  return end + (table ? 0 : place_.reserve) <= place_.lane_bytes;
}

Task<Result<void>> Journal::append(Entry& entry) {
  if (error_) co_return *error_;
  if (entry.is_table)
    queue_.push_front(&entry);
  else
    queue_.push_back(&entry);
  if (!writing_) {
    writing_ = true;
    tasks_.spawn(write_loop());
  } else if (entry.is_table) {
    lane_changed_.pulse();
  }
  co_await entry.done;
  co_return std::move(entry.result);
}

void Journal::fail_all(Error error) {
  if (!error_) error_ = std::move(error);
  while (!queue_.empty()) {
    Entry* entry = queue_.front();
    queue_.pop_front();
    entry->result = Result<void>(*error_);
    entry->done.fire();
  }
  lane_changed_.pulse();
}

Task<void> Journal::write_loop() {
  std::vector<Entry*> batch;
  std::string records;
  while (!queue_.empty()) {
    if (error_) {
      fail_all(*error_);
      break;
    }
    co_await frame_turn_.acquire();
    if (look_due_ && look_due_()) {
      auto looked = co_await look_();
      if (!looked) {
        frame_turn_.release();
        fail_all(std::move(looked).error());
        break;
      }
    }
    if (queue_.empty()) {
      frame_turn_.release();
      break;
    }
    batch.clear();
    records.clear();
    uint32_t count = 0;
    const bool table = queue_.front()->is_table;
    while (!queue_.empty()) {
      Entry* entry = queue_.front();
      if (entry->is_table != table) break;
      if (!batch.empty() && kLogHeaderSize + records.size() + entry->records.size() > kLogFrameMax) break;
      if (!room_for(log_frame_blocks(records.size() + entry->records.size()), table)) break;
      queue_.pop_front();
      batch.push_back(entry);
      records += entry->records;
      count += entry->count;
    }
    if (batch.empty()) {  // the lane is full: wait for a checkpoint
      frame_turn_.release();
      if (table) {
        fail_all(fail(Code::internal, "the segment table does not fit into the log's reserve"));
        break;
      }
      const uint64_t epoch = position_.epoch;
      if (on_full_) on_full_();
      // The checkpoint may have rotated at once.
      if (position_.epoch == epoch && !error_ && !queue_.empty() && !queue_.front()->is_table) co_await lane_changed_.wait();
      continue;
    }
    const uint64_t first = position_.sequence;
    auto written = co_await write_frame(records, count, table);
    uint64_t sequence = first;
    for (Entry* entry : batch) {
      entry->sequence = sequence;
      if (written && entry->settles_later) unsettled_.insert(sequence);
      if (written && entry->apply != nullptr) entry->apply(entry->context, sequence);
      sequence += entry->count;
      entry->result = written;
      entry->done.fire();
    }
    frame_turn_.release();
    if (!written) {
      fail_all(written.error());
      break;
    }
    if (half_full() && on_full_) on_full_();
  }
  writing_ = false;
}

Task<Result<void>> Journal::write_frame(std::string_view records, uint32_t count, bool table) {
  uint32_t crc = 0;
  const uint64_t settled_for_recovery = failed_.empty() ? settled() : std::min(settled(), *failed_.begin() - 1);
  const LogFrame frame{drive_,
                       position_.epoch,
                       position_.number,
                       position_.chain,
                       settled_for_recovery,
                       position_.sequence,
                       count,
                       log_frame_blocks(records.size())};
  const Buffer bytes = encode_log_frame(frame, records, salt_, &crc);
  const uint64_t lane = place_.offset + place_.lane_at(position_.epoch) * place_.lane_bytes;
  Result<void> written;
  for (int attempt = 0; attempt < kFrameAttempts; ++attempt) {
    if (attempt > 0 && look_due_ && look_due_()) CO_TRY(co_await look_());  // what fails may take long to
    const uint64_t at = lane + static_cast<uint64_t>(position_.block) * kBlock;
    written = co_await device_->write(at, bytes, Durability::durable);
    if (written) break;
    LOG_WARNING("a log frame cannot be written", {"device", device_->info().path}, {"offset", at}, {"error", written.error().to_string()});
    if (written.error().code() != Code::io_error || !room_for(2 * frame.blocks, table)) co_return std::move(written).error().with("log");
    position_.block += frame.blocks;
  }
  if (!written) co_return std::move(written).error().with("log");
  if (look_due_ && look_due_()) CO_TRY(co_await look_());  // a newcomer may have read before it was there
  position_.block += frame.blocks;
  ++position_.number;
  position_.chain = crc;
  position_.sequence += count;
  ++frames_;
  records_ += count;
  co_return Result<void>{};
}

Task<void> Journal::rotate() {
  co_await frame_turn_.acquire();
  CHECK(other_free_, "the log is rotated into a lane in use");
  ++position_.epoch;
  epoch_first_ = position_.sequence;
  position_.number = 0;
  position_.block = 0;
  other_free_ = false;
  frame_turn_.release();
  lane_changed_.pulse();
}

void Journal::settle(uint64_t sequence) {
  unsettled_.erase(sequence);
  settled_changed_.pulse();
}

void Journal::settle_failed(uint64_t sequence) {
  failed_.insert(sequence);
  settle(sequence);
}

Task<void> Journal::wait_settled(uint64_t sequence) {
  while (settled() < sequence) co_await settled_changed_.wait();
}

void Journal::lane_freed() {
  other_free_ = true;
  lane_changed_.pulse();  // who waits for room asks once more: a checkpoint that was wished for while one ran was not begun
  failed_.erase(failed_.begin(), failed_.lower_bound(epoch_first_));
}

Task<void> Journal::drain() { co_await tasks_.join(); }

}  // namespace quarry::chunk::raw
