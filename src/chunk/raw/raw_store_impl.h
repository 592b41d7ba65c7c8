// The raw store's one object: what its parts share. The parts are files: open.cc (mount and recovery: recovery.h), put.cc, get.cc,
// remove.cc, packed_stream.cc, segments.cc (slots, checkpoint), compaction.cc, check.cc (scrub, fsck), owner.cc (fencing).
//
// Invariants, on its loop, between any two suspensions:
//   - the index holds exactly the chunks that are durable and not removed; changes to it happen where a frame becomes durable;
//   - a segment's slot says what the segment held after log record `through`, or the segment is marked dirty;
//   - blocks are given out only if no durable chunk holds them and no read that began while one did is still running.
#pragma once
#include <unordered_map>
#include <unordered_set>

#include "chunk/raw/chunk_index.h"
#include "chunk/raw/extent_lists.h"
#include "chunk/raw/journal.h"
#include "chunk/raw/raw_store.h"
#include "chunk/raw/reader_gate.h"
#include "chunk/raw/space_map.h"
#include "chunk/raw/superblock_set.h"

namespace quarry::chunk::raw {

class RawStoreImpl;
struct Recovered;
struct TablePart;

// Free segments that puts of object data leave alone: one for compaction, one for each stream of metadata, which must still be written
// when the drive is full (removing objects needs that).
inline constexpr uint32_t kReserveCompaction = 1;
inline constexpr uint32_t kReserveMetadata = 2;
inline constexpr uint32_t kSlotWritesMax = 16;           // of a checkpoint, in flight
inline constexpr size_t kSlotsPerGroup = 1024;           // of a checkpoint, written between two flushes
inline constexpr uint64_t kExtentsPerGroup = 1'000'000;  // entries that their lists may hold (and those of one segment more)
inline constexpr int kLeavesPerStep = 64;                // of the index, looked at before others run: a fraction of a millisecond
inline constexpr uint64_t kWriteErrorsMax = 64;          // then the store only reads
inline constexpr uint32_t kPutAttempts = 3;              // places tried for a large chunk when writes fail
inline constexpr size_t kRemovesPerEntry = 2048;
inline constexpr uint64_t kPutBytesInFlightMax = 256 * kMiB;

// A small chunk on its way into a frame. Lives in the putter's frame.
struct PackedPut {
  ChunkId id;
  std::vector<ByteView> parts;
  uint32_t size = 0;
  uint32_t crc = 0;
  uint8_t stream = 0;
  bool moved = false;  // by compaction: published only if the index still says `from`
  uint64_t from = 0;
  Result<void> result;
  OneShot done;
};

// Appends frames to one open packed segment at a time. One frame in flight; what arrives meanwhile shares the next one.
class PackedStream {
 public:
  PackedStream(RawStoreImpl& store, uint8_t stream) : store_(store), stream_(stream) {}
  // Durable when it returns.
  Task<Result<void>> put(PackedPut& item);
  uint32_t segment() const { return segment_; }
  // After recovery: go on in this segment, whose items from frames after its last inventory are `unlisted`.
  void resume(uint32_t segment, std::vector<FrameItem> unlisted);
  // Writes an inventory of what is not listed yet, for a cheap restart. Serialised with frames.
  Task<Result<void>> list_items();
  // Until the frame of items that is being written has landed, and what was removed meanwhile is known to be dead. Waits for nothing but
  // the device.
  Task<void> wait_for_items();
  Task<void> drain();
  size_t queued() const { return queue_.size(); }
  // Free bytes left in the open segment.
  uint64_t room() const;

 private:
  Task<void> write_loop();
  Task<Result<void>> ensure_segment();
  Task<Result<void>> write_items();
  Task<Result<void>> write_inventory();
  Task<Result<void>> write_frame(FrameHeader header, Buffer frame, uint32_t* crc);
  Task<Result<void>> seal();
  uint32_t inventory_blocks(size_t items) const;
  void fail_queue(const Error& error);
  // Files that stand for drives are sparse: the first write to a place costs the file system a journal commit, several times the write.
  // Zeros are written ahead, in the background, so that small frames are pure overwrites.
  void zero_ahead(uint32_t frame_blocks);
  Task<void> run_zero_ahead(uint64_t offset, uint32_t from, uint32_t to);
  Task<void> leave_segment();
  // A write failed in it: the next frame goes elsewhere.
  Task<void> retire_segment();
  // Segments that it leaves to others.
  uint32_t reserve() const;

  RawStoreImpl& store_;
  const uint8_t stream_;
  uint32_t segment_ = kNoSegment;
  std::vector<FrameItem> unlisted_;  // items of segment_ after its last inventory, offsets from the segment's start
  std::deque<PackedPut*> queue_;
  bool writing_ = false;
  uint64_t items_frames_ = 0;  // frames of items begun
  bool items_in_flight_ = false;
  Event items_landed_;
  Semaphore turn_{1};
  TaskGroup tasks_;
  uint32_t zeroed_end_ = 0;  // blocks of segment_ before this are allocated in the file
  uint32_t zero_from_ = 0;   // zeros are being written from here on, while zeroing_
  bool zeroing_ = false;
  Event zeroed_;
};

// Where an extent in one run lies.
inline Run single_run(const IndexEntry& entry) { return {entry.offset() / kBlock, static_cast<uint32_t>(1 + div_up(entry.size, kBlock))}; }

inline constexpr uint8_t kStreamCompacted = 3;  // survivors of compaction, kept apart: they live longer
inline constexpr size_t kStreams = 4;

class RawStoreImpl final : public RawStore {
 public:
  RawStoreImpl(std::unique_ptr<BlockDevice> device, RawStoreOptions options, SuperblockSet supers);
  ~RawStoreImpl() override;
  Task<Result<void>> mount();

  Uuid drive_id() const override { return supers_.superblock().drive; }
  Uuid cluster_id() const override { return supers_.superblock().cluster; }
  std::string description() const override;
  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, PutOptions options) override;
  Task<Result<SharedBytes>> get(ChunkId id, uint32_t offset, uint32_t length) override;
  Task<Result<void>> remove(std::vector<ChunkId> ids) override;
  Task<Result<ChunkStat>> stat(ChunkId id) override;
  Task<Result<std::vector<ChunkStat>>> list(ChunkId from, ChunkId to, size_t limit) override;
  Task<Result<ScrubProgress>> scrub(ChunkId from, uint64_t budget_bytes) override;
  Task<Result<FsckReport>> fsck() override;
  Task<Result<void>> check_health() override;
  SpaceReport space() const override;
  StoreHealth health() const override { return health_; }
  Task<Result<void>> set_label(std::string label) override;
  std::string label() const override { return supers_.label(); }
  Task<Result<void>> close() override;
  Task<Result<void>> set_cluster_id(Uuid cluster) override;
  uint64_t fencing_epoch() const override { return supers_.superblock().fencing_epoch; }
  Task<Result<uint64_t>> grow() override;
  Task<Result<void>> checkpoint() override;
  Task<Result<void>> compact() override;
  const OpenReport& open_report() const override { return report_; }
  RawStoreStats stats() const override;

 private:
  friend class PackedStream;

  // ---- open.cc
  void adopt(Recovered& recovered);
  void retire_packed(uint32_t segment);
  Task<Result<void>> begin_serving(const Recovered& recovered);
  // Makes a frame of the log count no more. Errors: io_error (it counts), device_gone.
  Task<Result<void>> take_back(TablePart part);

  // ---- state
  Result<void> readable() const;
  Result<void> writable() const;
  // Looks at a failed device call: takes the store down where the error says so. Returns it.
  Error noted(Error error, bool write);
  void note_error(const Error& error, bool write);
  void become(StoreState state, std::string reason);
  Task<Result<void>> update_superblock(Superblock next);
  // ---- owner.cc
  Task<Result<void>> take_ownership();
  // Whether the next write needs a look at whose drive it is first.
  bool owner_look_due() const;
  // Unless the last look is younger than owner_look. Errors: device_gone (another node's by now).
  Task<Result<void>> look_at_owner();
  Task<Result<void>> look_at_owner_now();  // under super_turn_

  // ---- put.cc
  Task<Result<void>> put_packed(ChunkId id, std::vector<ByteView> parts, uint32_t size, uint8_t stream);
  // from: the place the chunk is moved from; then only holes in extent segments are used.
  Task<Result<void>> store_extent(ChunkId id, std::vector<ByteView> parts, uint32_t size, uint8_t stream, std::optional<uint64_t> from);
  std::vector<Run> allocate_from_holes(uint32_t blocks);
  Task<Result<std::vector<Run>>> allocate_runs(uint32_t blocks, uint8_t stream);
  // done: how many runs have been written.
  Task<Result<void>> write_runs(const std::vector<Run>& runs, const std::vector<ByteView>& pieces, size_t* done);
  // bad: the one whose write failed.
  void abandon_runs(const std::vector<Run>& runs, std::optional<size_t> bad);
  void commit_extent(const PutRecord& record);

  // ---- get.cc
  Task<Result<SharedBytes>> read_packed(IndexEntry entry, uint32_t offset, uint32_t length);
  Task<Result<SharedBytes>> read_extent(IndexEntry entry, std::vector<Run> runs, uint32_t offset, uint32_t length);
  Task<Result<void>> read_blocks(const std::vector<Run>& runs, uint32_t block, MutableByteView into);
  std::vector<Run> runs_of(const IndexEntry& entry) const;
  Task<Result<SharedBytes>> get_verified(ChunkId id, uint32_t offset, uint32_t length);

  // ---- remove.cc
  void forget(const ChunkId& id);
  void release_entry(const IndexEntry& entry);
  void packed_item_died(uint64_t device_offset, uint32_t size);
  void free_runs_later(std::vector<Run> runs);
  void free_packed_later(uint32_t segment);
  void packed_segment_sealed(uint32_t segment);

  // ---- segments.cc
  Task<Result<uint32_t>> open_segment(Role role, uint8_t stream);
  // Writes the segment's next slot and records it in the log. For extent segments only while they are empty.
  Task<Result<void>> write_slot(uint32_t segment);
  SegmentSlot make_slot(uint32_t segment) const;
  // Of all segments that are dirty or being written now. When it returns, what each held when this began is durable in a slot.
  Task<Result<void>> write_dirty_slots();
  Task<Result<void>> write_claimed_slots(std::vector<uint32_t> segments);
  Task<void> list_extents();
  Task<Result<void>> write_table();
  Task<void> run_checkpoint(bool rotate);
  void request_checkpoint();
  void discard_later(uint32_t segment);
  Task<void> run_discards();
  void schedule_idle_seal();
  Task<void> run_idle_seal();

  // ---- compaction.cc
  void consider_compaction();
  Task<Result<void>> scrub_frames(uint32_t segment);
  std::optional<uint32_t> worst_packed_segment(double live_below) const;
  Task<void> run_compaction();
  Task<Result<void>> compact_segment(uint32_t segment);
  Task<Result<void>> move_leftovers(uint32_t segment, uint64_t* moved_bytes);
  // Makes free segments, until there are more than `reserve` or nothing more can be done: compacts packed segments, empties extent
  // segments into the holes of others.
  Task<void> reclaim_segments(uint32_t reserve);
  std::optional<uint32_t> emptiest_extent_segment() const;
  // The chunks of which something lies in the segment: those that did all the time while it looked, and perhaps others.
  Task<std::vector<IndexEntry>> entries_in(uint32_t segment);
  bool lies_in(const IndexEntry& entry, uint32_t segment) const;
  Task<Result<void>> evacuate_segment(uint32_t segment);

  bool may_use_segments(uint32_t reserve) const { return space_.free_segments() > reserve; }

  std::unique_ptr<BlockDevice> device_;
  const RawStoreOptions options_;
  SuperblockSet supers_;
  Semaphore super_turn_{1};
  TimePoint owner_looked_at_{};  // when the last look that found this store as the owner began
  StoreHealth health_;
  OpenReport report_;
  RawStoreStats stats_;
  bool mounted_ = false;
  bool closing_ = false;
  bool closed_ = false;

  ChunkIndex index_;
  std::unordered_map<ChunkId, std::vector<Run>, ChunkIdHash> multi_;  // chunks in several runs
  std::unordered_set<ChunkId, ChunkIdHash> putting_;                  // ids on their way in
  SpaceMap space_;
  Journal journal_;
  ReaderGate readers_;
  std::vector<std::unique_ptr<PackedStream>> streams_;
  uint64_t payload_bytes_ = 0, stored_bytes_ = 0, quarantined_blocks_ = 0;
  Semaphore put_bytes_{kPutBytesInFlightMax};
  Semaphore opening_{1};  // one segment is opened at a time
  Semaphore reclaiming_{1};
  // A chunk that is being moved is not removed before it has arrived, and the other way round: the later record decides after a crash.
  // Nor is it removed twice at once: what is put again after the first removal is not the second one's.
  std::unordered_set<ChunkId, ChunkIdHash> moving_, removing_;
  Event moved_or_removed_;
  std::optional<ExtentLists> listing_;  // while a checkpoint lists extents

  TaskGroup background_;
  // Requests under way; close waits for them.
  class Use {
   public:
    explicit Use(RawStoreImpl& store) : store_(store) { ++store_.active_requests_; }
    ~Use() {
      if (--store_.active_requests_ == 0) store_.quiet_.set();
    }
    Use(const Use&) = delete;

   private:
    RawStoreImpl& store_;
  };
  uint64_t active_requests_ = 0;
  Event quiet_;
  Event slot_written_;
  bool checkpointing_ = false;
  Result<void> checkpoint_result_;
  Event checkpoint_done_;
  bool compacting_ = false;
  Event hurry_;  // ends a rest of the compaction in the background: segments are short, or the store closes
  static constexpr uint32_t kDeathsPerLook = 256;  // removals between two looks for a segment worth compacting
  uint32_t scrub_segment_ = 0;                     // whose frame headers the running pass of scrub looks at next
  uint32_t deaths_since_look_ = 0;
  bool discarding_ = false;
  std::deque<uint32_t> discards_;  // freed segments
  bool idle_seal_scheduled_ = false;
  Event stop_;  // wakes background sleeps at close
};

}  // namespace quarry::chunk::raw
