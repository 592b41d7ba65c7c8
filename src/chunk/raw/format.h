// The bytes of a raw device: constants, and every structure's encoding and decoding. docs/formats/raw-device.md is its page.
// Pure functions on memory, any thread. Decoders take hostile bytes: whatever is wrong is `corrupt` (or `incompatible`), never a CHECK.
//
// All integers are little-endian; all structures start on 4 KiB blocks; reserved bytes are zero and checked. Every structure names the
// drive, and where it lies or belongs, so that a structure of another drive, place or time is never taken for the one expected.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"
#include "chunk/chunk_store.h"

namespace quarry::chunk::raw {

inline constexpr uint32_t kBlock = 4096;
inline constexpr uint16_t kFormatVersion = 1;
inline constexpr uint64_t kDeviceSizeMin = 64 * kMiB;
inline constexpr uint64_t kDeviceSizeMax = 1ull << 50;
inline constexpr uint64_t kSegmentSizeMin = 2 * kMiB;
inline constexpr uint64_t kSegmentSizeMax = 256 * kMiB;
inline constexpr uint32_t kPackLimit = 64 * kKiB - 1;  // default: chunks up to this are packed, larger ones are extents
inline constexpr uint32_t kPackLimitMax = 256 * kKiB;

// ---- feature bits this program knows. Unknown bits: ignore, open read-only, or refuse.
inline constexpr uint64_t kKnownIgnorable = 0;
inline constexpr uint64_t kKnownReadOnly = 0;
inline constexpr uint64_t kKnownRefuse = 0;

// ---- superblock zones
inline constexpr uint64_t kZoneSize = 256 * kKiB;
inline constexpr size_t kZonesMax = 32;
inline constexpr size_t kSpansMax = 64;
inline constexpr uint32_t kLabelMax = 64 * kKiB;
inline constexpr uint64_t kLabelSlotSize = kBlock + kLabelMax;
// Inside a zone: superblock slots at 0 and 4 KiB, label slots at 8 KiB and 76 KiB.
constexpr uint64_t superblock_at(uint64_t zone, uint64_t sequence) { return zone + (sequence % 2) * kBlock; }
constexpr uint64_t label_at(uint64_t zone, uint64_t sequence) { return zone + 2 * kBlock + (sequence % 2) * kLabelSlotSize; }
static_assert(2 * kBlock + 2 * kLabelSlotSize <= kZoneSize);

// Consecutive segments that lie one after the other.
struct Span {
  uint64_t offset = 0;
  uint32_t first = 0;
  uint32_t count = 0;
  bool operator==(const Span&) const = default;
};

struct Superblock {
  uint16_t version = kFormatVersion;
  uint64_t ignorable = 0, read_only = 0, refuse = 0;  // feature bits
  Uuid drive, cluster;
  uint64_t sequence = 0;
  uint32_t previous = 0;  // identity of the superblock with sequence - 1; 0 for the first
  uint64_t device_size = 0;
  uint64_t segment_size = 0;
  uint32_t segment_count = 0;
  uint32_t pack_limit = kPackLimit;
  uint32_t log_segment = 0;
  bool clean = false;      // closed properly: clean_sequence is the last record of the log; else there was one of at least that number
  uint64_t log_epoch = 0;  // the log's newest epoch is at least this
  uint64_t mounts = 0;
  uint64_t fencing_epoch = 0;
  uint64_t salt = 0;  // random, seeds checksums of log frames and packed frames
  uint64_t clean_sequence = 0;
  std::vector<uint64_t> zones;
  std::vector<Span> spans;
};

// The block for the copy at `zone`. Decoding checks version, features are the caller's business.
Buffer encode_superblock(const Superblock& superblock, uint64_t zone);
// Errors: not_found (no magic), corrupt, incompatible (newer version).
Result<Superblock> decode_superblock(ByteView block, uint64_t zone);
// What must be equal in all copies of one sequence: a checksum of everything but the zone.
uint32_t superblock_identity(ByteView block);

struct Label {
  Uuid drive;
  uint64_t sequence = 0;
  std::string text;
};
Buffer encode_label(const Label& label, uint64_t zone);  // block and text, rounded up to blocks
Result<Label> decode_label(ByteView slot, uint64_t zone);

// ---- segments
enum class Role : uint8_t { free = 0, extent = 1, packed = 2, log = 3 };
enum class SegmentState : uint8_t { open = 0, sealed = 1, retired = 2 };
inline constexpr uint32_t kNoSegment = UINT32_MAX;

// Two slots at the end of each segment, written in turn: a header block and a body.
constexpr uint64_t slot_body_size(uint64_t segment_size) { return kBlock + segment_size / 512; }
constexpr uint64_t slot_size(uint64_t segment_size) { return kBlock + slot_body_size(segment_size); }
constexpr uint64_t data_size(uint64_t segment_size) { return segment_size - 2 * slot_size(segment_size); }
constexpr uint64_t slot_at(uint64_t segment_size, uint32_t sequence) {
  return data_size(segment_size) + (sequence % 2) * slot_size(segment_size);
}
// Items in one packed segment at most: so that the list of dead ones always fits a slot's body.
constexpr uint32_t items_max(uint64_t segment_size) { return static_cast<uint32_t>(segment_size / 1024); }

inline constexpr uint32_t kInventoriesMax = 256;  // frames of one packed segment

inline constexpr uint32_t kExtentEntrySize = 40;
constexpr uint32_t extent_entries_max(uint64_t segment_size) {
  return static_cast<uint32_t>(slot_body_size(segment_size) / kExtentEntrySize);
}

// A run of blocks inside one segment that belongs to a large chunk.
struct ExtentEntry {
  ChunkId id;
  uint32_t block = 0;  // first, from the segment's start
  uint32_t blocks = 0;
  uint32_t size = 0;        // of the chunk, bytes
  uint32_t header_crc = 0;  // of the chunk's header block
  uint8_t run = 0;          // which of the chunk's runs this is; run 0 starts with the header
  uint8_t runs = 1;
  uint8_t stream = 0;
};

// An inventory frame inside a packed segment.
struct InventoryPointer {
  uint32_t block = 0;
  uint32_t blocks = 0;
};

struct SegmentSlot {
  Uuid drive;
  uint32_t segment = 0;
  uint32_t generation = 0;  // grows each time the segment takes a role
  uint32_t sequence = 0;    // of this slot
  Role role = Role::free;
  SegmentState state = SegmentState::open;
  uint8_t stream = 0;
  uint64_t through = 0;  // effects of log records up to this are contained
  uint64_t epoch = 0;    // of the log when it was written
  // packed: where scanning goes on
  uint32_t data_end = 0;  // blocks
  uint32_t next_frame = 0;
  uint32_t chain = 0;
  uint32_t items = 0;  // listed by the inventories
  std::vector<InventoryPointer> inventories;
  std::vector<uint32_t> dead;  // offsets of dead items / 8, ascending
  // extent
  std::vector<ExtentEntry> extents;
};

// Header and body, rounded up to blocks. `header_crc` gets the header's checksum, which the log's segment table repeats.
// CHECKs that the body fits (allocation keeps to items_max and extent_entries_max).
Buffer encode_slot(const SegmentSlot& slot, uint64_t segment_size, uint32_t* header_crc);
struct SlotHeader {
  SegmentSlot slot;  // without its lists
  uint32_t body_bytes = 0;
  uint32_t body_crc = 0;
  uint32_t header_crc = 0;
  uint32_t entries = 0;
};
Result<SlotHeader> decode_slot_header(ByteView block, const Uuid& drive, uint32_t segment);
Result<void> decode_slot_body(SlotHeader& header, ByteView body, uint64_t segment_size);

// ---- large chunks
struct Run {
  uint64_t block = 0;  // of the device
  uint32_t blocks = 0;
  bool operator==(const Run&) const = default;
};
inline constexpr size_t kRunsMax = 16;
inline constexpr uint32_t kChunkHeaderTable = 320;  // where the checksums start
inline constexpr uint32_t kChunkChecksumsMax = (kBlock - kChunkHeaderTable) / 4;

struct ChunkHeader {
  Uuid drive;
  ChunkId id;
  uint32_t size = 0;
  uint8_t stream = 0;
  uint64_t after = 0;  // last durable log record when the put was issued
  uint64_t epoch = 0;  // of the log then
  std::vector<Run> runs;
  std::vector<uint32_t> checksums;  // one per checksum block
};
constexpr uint8_t checksum_shift(uint32_t size) { return div_up(size, 16 * kKiB) <= kChunkChecksumsMax ? 14 : 15; }
static_assert(div_up(kChunkSizeMax, 1u << checksum_shift(kChunkSizeMax)) <= kChunkChecksumsMax);
// Seed of the checksum of block `number` of a chunk (small chunks: block 0).
uint32_t checksum_seed(const ChunkId& id, uint32_t number);
void encode_chunk_header(const ChunkHeader& header, MutableByteView block, uint32_t* header_crc);
Result<ChunkHeader> decode_chunk_header(ByteView block, uint32_t* header_crc);

// ---- packed frames
inline constexpr uint32_t kFrameHeaderSize = 96;
inline constexpr uint32_t kFrameItemSize = 32;
inline constexpr uint32_t kFrameSizeMax = 1 * kMiB;
inline constexpr uint32_t kFrameItemsMax = 16384;
inline constexpr uint32_t kItemAlignment = 8;
enum class FrameKind : uint8_t { items = 1, inventory = 2 };

struct FrameItem {
  ChunkId id;
  uint32_t offset = 0;  // items: from the frame's start; inventory: from the segment's start. Bytes.
  uint32_t size = 0;
  uint32_t crc = 0;  // seeded with the id
};
struct FrameHeader {
  FrameKind kind = FrameKind::items;
  uint8_t stream = 0;
  Uuid drive;
  uint32_t segment = 0;
  uint32_t generation = 0;
  uint32_t number = 0;  // in its segment, from 0
  uint32_t chain = 0;   // checksum of the frame before; 0 for the first
  uint64_t after = 0;   // last durable log record when the frame was issued
  uint32_t blocks = 0;
  std::vector<FrameItem> items;
};
// Bytes of header and table; payload follows (rounded up to 8).
constexpr uint32_t frame_table_end(size_t items) { return kFrameHeaderSize + static_cast<uint32_t>(items) * kFrameItemSize; }
// Writes header and table to the start of `frame` (which holds at least frame_table_end bytes). Returns the frame's checksum, which
// covers header and table, and so, through the items' checksums, everything.
uint32_t encode_frame_header(const FrameHeader& header, uint64_t salt, MutableByteView frame);
// `frame`: as many bytes as are at hand. corrupt if it is not a frame of this drive, segment, generation; `bytes_needed` is set when the
// table reaches past what is at hand (then out_of_range).
struct FrameExpectation {
  Uuid drive;
  uint32_t segment = 0;
  uint32_t generation = 0;
  uint64_t salt = 0;
  uint32_t data_blocks = 0;  // of the segment
};
Result<FrameHeader> decode_frame_header(ByteView frame, const FrameExpectation& expected, uint32_t* crc, uint32_t* bytes_needed);

// ---- log
inline constexpr uint32_t kLogHeaderSize = 80;
inline constexpr uint32_t kLogFrameMax = 256 * kKiB;
enum class RecordKind : uint8_t { put = 1, remove = 2, slot = 3, table = 4, tail = 5 };

// What the log knows of a segment's newest slot: so that a lost or stale slot is noticed.
struct SlotSummary {
  uint32_t sequence = 0;  // 0: the segment was never used
  uint32_t header_crc = 0;
  uint32_t generation = 0;
  Role role = Role::free;
  SegmentState state = SegmentState::open;
  bool operator==(const SlotSummary&) const = default;
};
struct PutRecord {
  ChunkId id;
  uint32_t size = 0;
  uint32_t header_crc = 0;
  uint8_t stream = 0;
  std::vector<Run> runs;
};
struct RemoveRecord {
  ChunkId id;
};
struct SlotRecord {
  uint32_t segment = 0;
  SlotSummary summary;
};
struct TableRecord {  // part of the table of all segments; the checkpoint is complete with its last part
  uint32_t first = 0;
  uint32_t total = 0;
  std::vector<SlotSummary> slots;
};
struct TailRecord {  // a packed segment's frames reached this far, durably
  uint32_t segment = 0;
  uint32_t generation = 0;
  uint32_t next_frame = 0;
  uint32_t data_end = 0;
};
void encode_record(const PutRecord& record, std::string& out);
void encode_record(const RemoveRecord& record, std::string& out);
void encode_record(const SlotRecord& record, std::string& out);
void encode_record(const TableRecord& record, std::string& out);
void encode_record(const TailRecord& record, std::string& out);
using LogRecord = std::variant<PutRecord, RemoveRecord, SlotRecord, TableRecord, TailRecord>;

struct LogFrame {
  Uuid drive;
  uint64_t epoch = 0;
  uint32_t number = 0;   // in its epoch, from 0
  uint32_t chain = 0;    // checksum of the frame before, also across epochs
  uint64_t settled = 0;  // the data of every put up to this record is stable
  uint64_t first = 0;    // sequence of the first record
  uint32_t records = 0;
  uint32_t blocks = 0;
};
constexpr uint32_t log_frame_blocks(size_t record_bytes) { return static_cast<uint32_t>(div_up(kLogHeaderSize + record_bytes, kBlock)); }
Buffer encode_log_frame(const LogFrame& frame, std::string_view records, uint64_t salt, uint32_t* crc);
// `bytes`: from the frame's start to the end of what is at hand.
Result<LogFrame> decode_log_frame(ByteView bytes, const Uuid& drive, uint64_t salt, uint32_t* crc);
// The records of a frame that decode_log_frame accepted.
Result<std::vector<LogRecord>> decode_log_records(ByteView frame_bytes, const LogFrame& frame);

}  // namespace quarry::chunk::raw
