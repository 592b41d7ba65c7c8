// Journal: the log that makes large chunks, removals and slot changes durable. Frames of records are appended, each one durable
// write; while one is in flight the next gathers (group commit). Frames carry epoch, number and the checksum of the frame before, so
// what recovery finds is a prefix, or damage that shows.
//
// The log has two lanes, the halves of one segment. An epoch fills one lane; a checkpoint begins the next epoch in the other, and
// when its segment table is durable there, the first lane is free. Each record has a sequence number; they never restart.
// Confined to its loop.
#pragma once
#include <deque>
#include <set>

#include "chunk/raw/geometry.h"
#include "chunk/raw/one_shot.h"
#include "io/block_device.h"
#include "io/sync.h"

namespace quarry::chunk::raw {

inline constexpr uint64_t kLaneMax = 16 * kMiB;
constexpr uint64_t lane_size(uint64_t segment_size) { return std::min(kLaneMax, round_down(data_size(segment_size) / 2, kBlock)); }
// Kept free at the end of a lane for the segment table of a checkpoint.
constexpr uint64_t lane_reserve(uint32_t segments) { return round_up(static_cast<uint64_t>(segments) * 20, kBlock) + 16 * kBlock; }

class Journal {
 public:
  struct Place {
    uint64_t offset = 0;  // of the log segment, bytes
    uint64_t lane_bytes = 0;
    uint64_t reserve = 0;
    uint32_t lane_at(uint64_t epoch) const { return static_cast<uint32_t>(epoch % 2); }
  };
  struct Position {  // where the next frame goes
    uint64_t epoch = 1;
    uint32_t number = 0;
    uint32_t block = 0;  // from the lane's start
    uint32_t chain = 0;
    uint64_t sequence = 1;  // of the next record
  };
  // One appender's records. Lives in the appender's frame until append returns.
  struct Entry {
    std::string records;
    uint32_t count = 0;
    bool settles_later = false;  // a put whose data is still on its way: call settle(sequence) when it is stable
    bool is_table = false;       // may use the reserve, and goes first
    // Called when the entry is durable, in log order, before anybody else runs. sequence: of its first record.
    void (*apply)(void* context, uint64_t sequence) = nullptr;
    void* context = nullptr;
    Result<void> result;
    uint64_t sequence = 0;  // of the first record, once it is durable
    OneShot done;
  };

  Journal() = default;
  ~Journal();
  void start(BlockDevice& device, Uuid drive, uint64_t salt, Place place, Position position);
  // on_full: a checkpoint is needed (called each time writing is held up, or a lane is half full).
  void set_on_full(std::function<void()> on_full) { on_full_ = std::move(on_full); }
  // Whose drive it is, asked before each write of a frame, and before what it holds is acknowledged, when that is due: what is appended may
  // wait long for room, for the frame before, or for the write. An error of `look` is final for the log.
  void set_look(std::function<bool()> due, std::function<Task<Result<void>>()> look) {
    look_due_ = std::move(due);
    look_ = std::move(look);
  }

  // Durable when it returns. Errors: io_error, no_space, device_gone: final for the log; nothing later is accepted.
  Task<Result<void>> append(Entry& entry);
  // Begins the next epoch in the other lane, which must be free.
  Task<void> rotate();
  void lane_freed();  // the other lane's records are no longer needed. The next checkpoint may be asked for at once.
  Task<void> drain();

  uint64_t durable() const { return position_.sequence - 1; }  // sequence of the last durable record
  // Every put up to this record is complete, data and all. Frames carry it: recovery checks the data of later puts only.
  uint64_t settled() const { return unsettled_.empty() ? durable() : *unsettled_.begin() - 1; }
  void settle(uint64_t sequence);
  // The data of this put could not be written: it is settled, but no frame may say so while its record can still be read, or recovery would
  // believe the record. (Slots may: they do not list it.) Forgotten when its epoch is no longer needed. At most kWriteErrorsMax.
  void settle_failed(uint64_t sequence);
  Task<void> wait_settled(uint64_t sequence);
  uint64_t epoch() const { return position_.epoch; }
  const Position& position() const { return position_; }
  bool half_full() const { return position_.block * static_cast<uint64_t>(kBlock) > place_.lane_bytes / 2; }
  bool other_lane_free() const { return other_free_; }
  void set_reserve(uint64_t bytes) { place_.reserve = bytes; }
  void set_other_lane_free(bool free) { other_free_ = free; }
  uint64_t frames() const { return frames_; }
  uint64_t records() const { return records_; }
  const std::optional<Error>& error() const { return error_; }
  void fail_all(Error error);
  // The last frame repeated as far as it is idle: whether anything was written since the last call.
  bool written_since_mark() const { return marked_ != records_; }
  void mark() { marked_ = records_; }

 private:
  Task<void> write_loop();
  Task<Result<void>> write_frame(std::string_view records, uint32_t count, bool table);
  bool room_for(uint32_t blocks, bool table) const;

  BlockDevice* device_ = nullptr;
  Uuid drive_;
  uint64_t salt_ = 0;
  Place place_;
  Position position_;
  bool other_free_ = true;
  std::deque<Entry*> queue_;
  std::set<uint64_t> unsettled_;
  std::set<uint64_t> failed_;
  uint64_t epoch_first_ = 0;  // the first record of this epoch
  bool writing_ = false;
  Semaphore frame_turn_{1};  // held while a frame is in flight; rotate takes it
  Event lane_changed_;
  Event settled_changed_;
  TaskGroup tasks_;
  std::function<void()> on_full_;
  std::function<bool()> look_due_;
  std::function<Task<Result<void>>()> look_;
  std::optional<Error> error_;
  uint64_t frames_ = 0, records_ = 0, marked_ = 0;
};

}  // namespace quarry::chunk::raw
