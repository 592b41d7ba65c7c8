#include "chunk/raw/format.h"

#include <algorithm>

#include "base/check.h"
#include "base/coding.h"
#include "codec/crc32c.h"

namespace quarry::chunk::raw {
namespace {

// Most structures are: magic (8), checksum (4) of everything after it, fields. This writes and checks that shape.
constexpr size_t kCrcAt = 8, kBodyAt = 12;
constexpr std::string_view kSuperblockMagic = "QRYRAWSB", kLabelMagic = "QRYLABEL", kSlotMagic = "QRYSEGMT", kChunkMagic = "QRYCHUNK",
                           kFrameMagic = "QRYFRAME", kLogMagic = "QRYLOGFR";

// A cursor over memory that is large enough by construction.
class Writer {
 public:
  explicit Writer(MutableByteView out) : out_(out) {}
  template <class T>
  Writer& put(T value) {
    store_le<T>(out_.data() + at_, value);
    at_ += sizeof(T);
    return *this;
  }
  Writer& bytes(ByteView bytes) {
    std::memcpy(out_.data() + at_, bytes.data(), bytes.size());
    at_ += bytes.size();
    return *this;
  }
  Writer& magic(std::string_view magic) { return bytes(bytes_of(magic)).put<uint32_t>(0); }
  Writer& uuid(const Uuid& uuid) { return bytes(uuid.bytes); }
  Writer& id(const ChunkId& id) { return put(id.high).put(id.low); }
  Writer& at(size_t offset) {
    at_ = offset;
    return *this;
  }
  size_t position() const { return at_; }

 private:
  MutableByteView out_;
  size_t at_ = 0;
};

Uuid read_uuid(Decoder& in) {
  Uuid uuid;
  const auto bytes = in.bytes(16);
  if (bytes.size() == 16) std::memcpy(uuid.bytes.data(), bytes.data(), 16);
  return uuid;
}
ChunkId read_id(Decoder& in) {
  ChunkId id;
  id.high = in.u64();
  id.low = in.u64();
  return id;
}
void put_id(Encoder& out, const ChunkId& id) { out.u64(id.high).u64(id.low); }

uint32_t seal(MutableByteView block, uint32_t seed = 0) {
  const uint32_t crc = crc32c(seed, block.subspan(kBodyAt));
  store_le<uint32_t>(block.data() + kCrcAt, crc);
  return crc;
}
bool has_magic(ByteView block, std::string_view magic) { return block.size() >= kBodyAt && text_of(block.first(magic.size())) == magic; }
uint32_t stored_crc(ByteView block) { return load_le<uint32_t>(block.data() + kCrcAt); }
bool all_zero(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
}
Error damaged(std::string_view what, std::string_view why) { return fail(Code::corrupt, "{}: {}", what, why); }

// Checksums of frames are seeded with what would make a stale or misdirected frame look right otherwise.
uint32_t frame_seed(const Uuid& drive, uint64_t salt, uint32_t segment, uint32_t generation) {
  uint8_t bytes[32];
  std::memcpy(bytes, drive.bytes.data(), 16);
  store_le<uint64_t>(bytes + 16, salt);
  store_le<uint32_t>(bytes + 24, segment);
  store_le<uint32_t>(bytes + 28, generation);
  return crc32c(0, bytes);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------------- superblock
namespace {
constexpr size_t kIdentityAt = 24;
constexpr size_t kZonesAt = 200, kSpansAt = kZonesAt + kZonesMax * 8, kSuperblockEnd = kSpansAt + kSpansMax * 16;
static_assert(kSuperblockEnd <= kBlock);
}  // namespace

Buffer encode_superblock(const Superblock& s, uint64_t zone) {
  CHECK(s.zones.size() <= kZonesMax && s.spans.size() <= kSpansMax);
  Buffer block(kBlock);
  std::memset(block.data(), 0, kBlock);
  Writer out(block.mutable_view());
  out.magic(kSuperblockMagic).put<uint32_t>(0).put(zone);
  out.put(s.version).put<uint16_t>(0).put<uint32_t>(0).put(s.ignorable).put(s.read_only).put(s.refuse);
  out.uuid(s.drive).uuid(s.cluster).put(s.sequence).put(s.previous).put(kBlock).put(s.device_size).put(s.segment_size);
  out.put(s.segment_count).put(s.pack_limit).put(s.log_segment).put<uint32_t>(s.clean ? 1 : 0).put(s.log_epoch).put(s.mounts);
  out.put(s.fencing_epoch).put(s.salt).put(s.clean_sequence);
  out.put(static_cast<uint32_t>(s.zones.size())).put(static_cast<uint32_t>(s.spans.size()));
  CHECK(out.position() <= kZonesAt);
  out.at(kZonesAt);
  for (const uint64_t at : s.zones) out.put(at);
  out.at(kSpansAt);
  for (const auto& span : s.spans) out.put(span.offset).put(span.first).put(span.count);
  seal(block.mutable_view());
  return block;
}

uint32_t superblock_identity(ByteView block) { return crc32c(0, block.first(kBlock).subspan(kIdentityAt)); }

Result<Superblock> decode_superblock(ByteView block, uint64_t zone) {
  constexpr std::string_view what = "superblock";
  if (block.size() < kBlock || !has_magic(block, kSuperblockMagic)) return Error(Code::not_found, "no superblock here");
  block = block.first(kBlock);
  if (crc32c(0, block.subspan(kBodyAt)) != stored_crc(block)) return damaged(what, "checksum mismatch");
  Decoder in(block.subspan(kBodyAt));
  const uint32_t reserved = in.u32();
  if (in.u64() != zone) return damaged(what, "belongs to another place (misdirected write)");
  Superblock s;
  s.version = in.u16();
  if (s.version > kFormatVersion) {
    return fail(Code::incompatible, "the device has format version {}, this program knows up to {}: use a newer program", s.version,
                kFormatVersion);
  }
  const uint32_t reserved2 = in.u16() | in.u32();
  s.ignorable = in.u64();
  s.read_only = in.u64();
  s.refuse = in.u64();
  s.drive = read_uuid(in);
  s.cluster = read_uuid(in);
  s.sequence = in.u64();
  s.previous = in.u32();
  const uint32_t block_size = in.u32();
  s.device_size = in.u64();
  s.segment_size = in.u64();
  s.segment_count = in.u32();
  s.pack_limit = in.u32();
  s.log_segment = in.u32();
  const uint32_t flags = in.u32();
  s.clean = (flags & 1) != 0;
  s.log_epoch = in.u64();
  s.mounts = in.u64();
  s.fencing_epoch = in.u64();
  s.salt = in.u64();
  s.clean_sequence = in.u64();
  const uint32_t zones = in.u32(), spans = in.u32();
  if (reserved != 0 || reserved2 != 0 || flags > 1 || block_size != kBlock || zones > kZonesMax || spans > kSpansMax || s.version == 0) {
    return damaged(what, "impossible field");
  }
  in = Decoder(block.subspan(kZonesAt));
  for (uint32_t i = 0; i < zones; ++i) s.zones.push_back(in.u64());
  in = Decoder(block.subspan(kSpansAt));
  uint64_t segments = 0;
  for (uint32_t i = 0; i < spans; ++i) {
    Span span;
    span.offset = in.u64();
    span.first = in.u32();
    span.count = in.u32();
    if (span.first != segments || span.offset % kBlock != 0 || span.offset > s.device_size ||
        span.count > (s.device_size - span.offset) / std::max<uint64_t>(s.segment_size, 1)) {
      return damaged(what, "impossible segment layout");
    }
    segments += span.count;
    s.spans.push_back(span);
  }
  if (!std::has_single_bit(s.segment_size) || s.segment_size < kSegmentSizeMin || s.segment_size > kSegmentSizeMax ||
      s.device_size > kDeviceSizeMax || segments != s.segment_count || s.log_segment >= s.segment_count || s.pack_limit > kPackLimitMax) {
    return damaged(what, "impossible geometry");
  }
  for (const uint64_t at : s.zones) {
    if (at % kZoneSize != 0 || at > s.device_size - kZoneSize) return damaged(what, "impossible zone");
  }
  if (!all_zero(block.subspan(kZonesAt + zones * 8, (kZonesMax - zones) * 8)) || !all_zero(block.subspan(kSpansAt + spans * 16))) {
    return damaged(what, "reserved bytes are not zero");
  }
  return s;
}

Buffer encode_label(const Label& label, uint64_t zone) {
  CHECK(label.text.size() <= kLabelMax);
  Buffer slot(round_up(kBlock + label.text.size(), kBlock));
  std::memset(slot.data(), 0, slot.size());
  Writer out(slot.mutable_view());
  out.magic(kLabelMagic).put<uint32_t>(static_cast<uint32_t>(label.text.size())).put(zone).uuid(label.drive).put(label.sequence);
  out.put(crc32c(0, bytes_of(label.text)));
  if (!label.text.empty()) std::memcpy(slot.data() + kBlock, label.text.data(), label.text.size());
  seal(slot.mutable_view().first(kBlock));
  return slot;
}

Result<Label> decode_label(ByteView slot, uint64_t zone) {
  if (slot.size() < kBlock || !has_magic(slot, kLabelMagic)) return Error(Code::not_found, "no label here");
  const ByteView block = slot.first(kBlock);
  if (crc32c(0, block.subspan(kBodyAt)) != stored_crc(block)) return damaged("label", "checksum mismatch");
  Decoder in(block.subspan(kBodyAt));
  const uint32_t size = in.u32();
  if (in.u64() != zone) return damaged("label", "belongs to another place (misdirected write)");
  Label label;
  label.drive = read_uuid(in);
  label.sequence = in.u64();
  const uint32_t crc = in.u32();
  if (!all_zero(in.rest())) return damaged("label", "reserved bytes are not zero");
  if (size > kLabelMax || slot.size() < kBlock + size) return damaged("label", "impossible size");
  const ByteView text = slot.subspan(kBlock, size);
  if (crc32c(0, text) != crc) return damaged("label", "checksum mismatch of the text");
  label.text = std::string(text_of(text));
  return label;
}

// ------------------------------------------------------------------------------------------------------------------ segments
namespace {
constexpr size_t kSlotHeaderEnd = 112;
}

Buffer encode_slot(const SegmentSlot& slot, uint64_t segment_size, uint32_t* header_crc) {
  std::string body;
  Encoder lists(body);
  uint32_t entries = 0;
  if (slot.role == Role::extent) {
    entries = static_cast<uint32_t>(slot.extents.size());
    body.reserve(entries * kExtentEntrySize);
    for (const auto& e : slot.extents) {
      put_id(lists, e.id);
      lists.u32(e.block).u32(e.blocks).u32(e.size).u32(e.header_crc).u8(e.run).u8(e.runs).u8(e.stream).u8(0).u32(0);
    }
  } else if (slot.role == Role::packed) {
    entries = static_cast<uint32_t>(slot.dead.size());
    lists.u32(static_cast<uint32_t>(slot.inventories.size()));
    for (const auto& pointer : slot.inventories) lists.u32(pointer.block).u32(pointer.blocks);
    uint32_t last = 0;
    for (const uint32_t offset : slot.dead) {
      lists.varint(offset - last);
      last = offset;
    }
  }
  CHECK(body.size() <= slot_body_size(segment_size), "a segment's inventory outgrew its slot");
  Buffer out_bytes(kBlock + round_up(body.size(), kBlock));
  std::memset(out_bytes.data(), 0, out_bytes.size());
  Writer out(out_bytes.mutable_view());
  out.magic(kSlotMagic).put(kFormatVersion).put(static_cast<uint8_t>(slot.role)).put(static_cast<uint8_t>(slot.state));
  out.uuid(slot.drive).put(slot.segment).put(slot.generation).put(slot.sequence).put<uint32_t>(slot.stream);
  out.put(slot.through).put(slot.epoch);
  out.put(slot.data_end).put(slot.next_frame).put(slot.chain).put(slot.items).put(entries);
  out.put(static_cast<uint32_t>(body.size())).put(crc32c(0, bytes_of(body)));
  CHECK(out.position() <= kSlotHeaderEnd);
  *header_crc = seal(out_bytes.mutable_view().first(kBlock));
  if (!body.empty()) std::memcpy(out_bytes.data() + kBlock, body.data(), body.size());
  return out_bytes;
}

Result<SlotHeader> decode_slot_header(ByteView block, const Uuid& drive, uint32_t segment) {
  constexpr std::string_view what = "segment slot";
  if (block.size() < kBlock || !has_magic(block, kSlotMagic)) return Error(Code::not_found, "no segment slot here");
  block = block.first(kBlock);
  if (crc32c(0, block.subspan(kBodyAt)) != stored_crc(block)) return damaged(what, "checksum mismatch");
  Decoder in(block.subspan(kBodyAt));
  SlotHeader header;
  SegmentSlot& slot = header.slot;
  header.header_crc = stored_crc(block);
  const uint16_t version = in.u16();
  if (version > kFormatVersion) return fail(Code::incompatible, "segment slot of format version {}", version);
  const uint8_t role = in.u8(), state = in.u8();
  slot.drive = read_uuid(in);
  slot.segment = in.u32();
  slot.generation = in.u32();
  slot.sequence = in.u32();
  const uint32_t stream = in.u32();
  slot.through = in.u64();
  slot.epoch = in.u64();
  slot.data_end = in.u32();
  slot.next_frame = in.u32();
  slot.chain = in.u32();
  slot.items = in.u32();
  header.entries = in.u32();
  header.body_bytes = in.u32();
  header.body_crc = in.u32();
  if (slot.drive != drive) return Error(Code::not_found, "a segment slot of another drive or an earlier format");
  if (slot.segment != segment) return damaged(what, "belongs to another segment (misdirected write)");
  if (version == 0 || role > 3 || state > 2 || stream > 255 || !all_zero(block.subspan(kSlotHeaderEnd)))
    return damaged(what, "impossible field");
  slot.role = static_cast<Role>(role);
  slot.state = static_cast<SegmentState>(state);
  slot.stream = static_cast<uint8_t>(stream);
  return header;
}

Result<void> decode_slot_body(SlotHeader& header, ByteView body, uint64_t segment_size) {
  constexpr std::string_view what = "segment inventory";
  SegmentSlot& slot = header.slot;
  if (header.body_bytes > slot_body_size(segment_size) || body.size() < header.body_bytes) return damaged(what, "impossible size");
  body = body.first(header.body_bytes);
  if (crc32c(0, body) != header.body_crc) return damaged(what, "checksum mismatch");
  const auto data_blocks = static_cast<uint32_t>(data_size(segment_size) / kBlock);
  Decoder in(body);
  if (slot.role == Role::extent) {
    if (header.entries > extent_entries_max(segment_size) || body.size() != header.entries * kExtentEntrySize)
      return damaged(what, "impossible count");
    slot.extents.reserve(header.entries);
    for (uint32_t i = 0; i < header.entries; ++i) {
      ExtentEntry e;
      e.id = read_id(in);
      e.block = in.u32();
      e.blocks = in.u32();
      e.size = in.u32();
      e.header_crc = in.u32();
      e.run = in.u8();
      e.runs = in.u8();
      e.stream = in.u8();
      const uint32_t reserved = in.u8() | in.u32();
      if (reserved != 0 || e.blocks == 0 || e.block >= data_blocks || e.blocks > data_blocks - e.block || e.runs == 0 ||
          e.runs > kRunsMax || e.run >= e.runs || e.size > kChunkSizeMax || (e.runs == 1 && e.blocks != 1 + div_up(e.size, kBlock))) {
        return damaged(what, "impossible entry");
      }
      slot.extents.push_back(e);
    }
  } else if (slot.role == Role::packed) {
    const uint32_t pointers = in.u32();
    if (pointers > kInventoriesMax || slot.data_end > data_blocks || slot.items > items_max(segment_size))
      return damaged(what, "impossible count");
    for (uint32_t i = 0; i < pointers; ++i) {
      InventoryPointer pointer;
      pointer.block = in.u32();
      pointer.blocks = in.u32();
      if (pointer.blocks == 0 || pointer.block >= slot.data_end || pointer.blocks > slot.data_end - pointer.block) {
        return damaged(what, "impossible inventory pointer");
      }
      slot.inventories.push_back(pointer);
    }
    if (header.entries > items_max(segment_size)) return damaged(what, "impossible count");
    uint64_t offset = 0;
    slot.dead.reserve(header.entries);
    for (uint32_t i = 0; i < header.entries; ++i) {
      const uint64_t delta = in.varint();
      if (i > 0 && delta == 0) return damaged(what, "impossible entry");
      offset += delta;
      if (!in.ok() || offset >= static_cast<uint64_t>(data_blocks) * (kBlock / kItemAlignment)) return damaged(what, "impossible entry");
      slot.dead.push_back(static_cast<uint32_t>(offset));
    }
  } else if (header.body_bytes != 0 || header.entries != 0) {
    return damaged(what, "a free segment lists something");
  }
  return in.finish(what);
}

// -------------------------------------------------------------------------------------------------------------- large chunks
namespace {
constexpr size_t kChunkHeaderRuns = 68;
static_assert(kChunkHeaderRuns + kRunsMax * 12 <= kChunkHeaderTable);
}  // namespace

uint32_t checksum_seed(const ChunkId& id, uint32_t number) {
  uint8_t bytes[20];
  store_le(bytes, id.high);
  store_le(bytes + 8, id.low);
  store_le(bytes + 16, number);
  return crc32c(0, bytes);
}

void encode_chunk_header(const ChunkHeader& h, MutableByteView block, uint32_t* header_crc) {
  CHECK(block.size() == kBlock && !h.runs.empty() && h.runs.size() <= kRunsMax && h.checksums.size() <= kChunkChecksumsMax);
  std::memset(block.data(), 0, kBlock);
  Writer out(block);
  out.magic(kChunkMagic).put(kFormatVersion).put(static_cast<uint8_t>(h.runs.size())).put(h.stream).uuid(h.drive).id(h.id).put(h.size);
  out.put(h.after).put(h.epoch);
  CHECK(out.position() == kChunkHeaderRuns);
  for (const auto& run : h.runs) out.put(run.block).put(run.blocks);
  CHECK(out.position() <= kChunkHeaderTable);
  out.at(kChunkHeaderTable);
  for (const uint32_t crc : h.checksums) out.put(crc);
  *header_crc = seal(block);
}

Result<ChunkHeader> decode_chunk_header(ByteView block, uint32_t* header_crc) {
  constexpr std::string_view what = "chunk header";
  if (block.size() < kBlock || !has_magic(block, kChunkMagic)) return Error(Code::corrupt, "chunk header: no magic");
  block = block.first(kBlock);
  if (crc32c(0, block.subspan(kBodyAt)) != stored_crc(block)) return damaged(what, "checksum mismatch");
  *header_crc = stored_crc(block);
  Decoder in(block.subspan(kBodyAt));
  const uint16_t version = in.u16();
  if (version > kFormatVersion) return fail(Code::incompatible, "chunk header of format version {}", version);
  ChunkHeader h;
  const uint8_t runs = in.u8();
  h.stream = in.u8();
  h.drive = read_uuid(in);
  h.id = read_id(in);
  h.size = in.u32();
  h.after = in.u64();
  h.epoch = in.u64();
  if (version == 0 || runs == 0 || runs > kRunsMax || h.size > kChunkSizeMax) return damaged(what, "impossible field");
  uint64_t blocks = 0;
  for (uint8_t i = 0; i < runs; ++i) {
    Run run;
    run.block = in.u64();
    run.blocks = in.u32();
    blocks += run.blocks;
    if (run.blocks == 0) return damaged(what, "empty run");
    h.runs.push_back(run);
  }
  if (blocks != 1 + div_up(h.size, kBlock)) return damaged(what, "runs do not add up to the size");
  const auto count = static_cast<uint32_t>(div_up(h.size, 1u << checksum_shift(h.size)));
  const size_t runs_end = kChunkHeaderRuns + runs * 12u;
  if (!all_zero(block.subspan(runs_end, kChunkHeaderTable - runs_end)) || !all_zero(block.subspan(kChunkHeaderTable + count * size_t{4}))) {
    return damaged(what, "reserved bytes are not zero");
  }
  in = Decoder(block.subspan(kChunkHeaderTable));
  h.checksums.reserve(count);
  for (uint32_t i = 0; i < count; ++i) h.checksums.push_back(in.u32());
  return h;
}

// ------------------------------------------------------------------------------------------------------------- packed frames
namespace {
constexpr size_t kFrameHeaderEnd = 64, kLogHeaderEnd = 76;
}

uint32_t encode_frame_header(const FrameHeader& h, uint64_t salt, MutableByteView frame) {
  CHECK(frame.size() >= frame_table_end(h.items.size()));
  std::memset(frame.data(), 0, kFrameHeaderSize);
  Writer out(frame);
  out.magic(kFrameMagic).put(kFormatVersion).put(static_cast<uint8_t>(h.kind)).put(h.stream).uuid(h.drive);
  out.put(h.segment).put(h.generation).put(h.number).put(h.chain).put(h.after).put(h.blocks).put(static_cast<uint32_t>(h.items.size()));
  CHECK(out.position() == kFrameHeaderEnd);
  out.at(kFrameHeaderSize);
  for (const auto& item : h.items) out.id(item.id).put(item.offset).put(item.size).put(item.crc).put<uint32_t>(0);
  return seal(frame.first(out.position()), frame_seed(h.drive, salt, h.segment, h.generation));
}

Result<FrameHeader> decode_frame_header(ByteView frame, const FrameExpectation& expected, uint32_t* crc, uint32_t* bytes_needed) {
  constexpr std::string_view what = "packed frame";
  *bytes_needed = kFrameHeaderSize;
  if (frame.size() < kFrameHeaderSize) return Error(Code::out_of_range, "packed frame: cut short");
  if (!has_magic(frame, kFrameMagic)) return damaged(what, "no magic");
  Decoder in(frame.subspan(kBodyAt));
  FrameHeader h;
  const uint16_t version = in.u16();
  const uint8_t kind = in.u8();
  h.stream = in.u8();
  h.drive = read_uuid(in);
  h.segment = in.u32();
  h.generation = in.u32();
  h.number = in.u32();
  h.chain = in.u32();
  h.after = in.u64();
  h.blocks = in.u32();
  const uint32_t items = in.u32();
  if (h.drive != expected.drive || h.segment != expected.segment || h.generation != expected.generation)
    return damaged(what, "of another time or place");
  if (!all_zero(frame.subspan(kFrameHeaderEnd, kFrameHeaderSize - kFrameHeaderEnd))) return damaged(what, "reserved bytes are not zero");
  if (items > kFrameItemsMax || h.blocks == 0 || h.blocks > kFrameSizeMax / kBlock || h.blocks > expected.data_blocks || kind < 1 ||
      kind > 2) {
    return damaged(what, "impossible field");
  }
  const uint32_t table_end = frame_table_end(items);
  if (table_end > static_cast<uint64_t>(h.blocks) * kBlock) return damaged(what, "impossible count");
  *bytes_needed = table_end;
  if (frame.size() < table_end) return Error(Code::out_of_range, "packed frame: cut short");
  const uint32_t computed =
      crc32c(frame_seed(expected.drive, expected.salt, expected.segment, expected.generation), frame.subspan(kBodyAt, table_end - kBodyAt));
  if (computed != stored_crc(frame)) return damaged(what, "checksum mismatch");
  if (version > kFormatVersion) return fail(Code::incompatible, "packed frame of format version {}", version);
  *crc = computed;
  h.kind = static_cast<FrameKind>(kind);
  in = Decoder(frame.subspan(kFrameHeaderSize));
  h.items.reserve(items);
  const uint64_t limit =
      h.kind == FrameKind::items ? static_cast<uint64_t>(h.blocks) * kBlock : static_cast<uint64_t>(expected.data_blocks) * kBlock;
  for (uint32_t i = 0; i < items; ++i) {
    FrameItem item;
    item.id = read_id(in);
    item.offset = in.u32();
    item.size = in.u32();
    item.crc = in.u32();
    const uint32_t reserved = in.u32();
    if (reserved != 0 || item.offset % kItemAlignment != 0 || item.offset > limit || item.size > limit - item.offset ||
        item.size > kPackLimitMax || (h.kind == FrameKind::items && item.offset < table_end)) {
      return damaged(what, "impossible item");
    }
    h.items.push_back(item);
  }
  return h;
}

// ----------------------------------------------------------------------------------------------------------------------- log
void encode_record(const PutRecord& r, std::string& out) {
  Encoder e(out);
  e.u8(static_cast<uint8_t>(RecordKind::put));
  put_id(e, r.id);
  e.u32(r.size).u32(r.header_crc).u8(r.stream).u8(static_cast<uint8_t>(r.runs.size()));
  for (const auto& run : r.runs) e.u64(run.block).u32(run.blocks);
}
void encode_record(const RemoveRecord& r, std::string& out) {
  Encoder e(out);
  e.u8(static_cast<uint8_t>(RecordKind::remove));
  put_id(e, r.id);
}
namespace {
void put_summary(Encoder& e, const SlotSummary& s) {
  e.u32(s.sequence).u32(s.header_crc).u32(s.generation).u8(static_cast<uint8_t>(s.role)).u8(static_cast<uint8_t>(s.state)).u16(0);
}
bool read_summary(Decoder& in, SlotSummary& s) {
  s.sequence = in.u32();
  s.header_crc = in.u32();
  s.generation = in.u32();
  const uint8_t role = in.u8(), state = in.u8();
  const uint16_t reserved = in.u16();
  s.role = static_cast<Role>(role);
  s.state = static_cast<SegmentState>(state);
  return in.ok() && role <= 3 && state <= 2 && reserved == 0;
}
}  // namespace
void encode_record(const SlotRecord& r, std::string& out) {
  Encoder e(out);
  e.u8(static_cast<uint8_t>(RecordKind::slot)).u32(r.segment);
  put_summary(e, r.summary);
}
void encode_record(const TableRecord& r, std::string& out) {
  Encoder e(out);
  e.u8(static_cast<uint8_t>(RecordKind::table)).u32(r.first).u32(r.total).u32(static_cast<uint32_t>(r.slots.size()));
  for (const auto& slot : r.slots) put_summary(e, slot);
}
void encode_record(const TailRecord& r, std::string& out) {
  Encoder(out).u8(static_cast<uint8_t>(RecordKind::tail)).u32(r.segment).u32(r.generation).u32(r.next_frame).u32(r.data_end);
}

Buffer encode_log_frame(const LogFrame& frame, std::string_view records, uint64_t salt, uint32_t* crc) {
  Buffer bytes(static_cast<size_t>(log_frame_blocks(records.size())) * kBlock);
  std::memset(bytes.data(), 0, kLogHeaderSize);
  Writer out(bytes.mutable_view());
  out.magic(kLogMagic).put(kFormatVersion).put<uint16_t>(0).uuid(frame.drive).put(frame.epoch).put(frame.number).put(frame.chain);
  out.put(frame.first)
      .put(frame.records)
      .put(static_cast<uint32_t>(records.size()))
      .put(static_cast<uint32_t>(bytes.size() / kBlock))
      .put(frame.settled);
  CHECK(out.position() == kLogHeaderEnd);
  std::memcpy(bytes.data() + kLogHeaderSize, records.data(), records.size());
  const size_t end = kLogHeaderSize + records.size();
  std::memset(bytes.data() + end, 0, bytes.size() - end);
  *crc = seal(bytes.mutable_view(), frame_seed(frame.drive, salt, 0, 0));
  return bytes;
}

Result<LogFrame> decode_log_frame(ByteView bytes, const Uuid& drive, uint64_t salt, uint32_t* crc) {
  constexpr std::string_view what = "log frame";
  if (bytes.size() < kBlock || !has_magic(bytes, kLogMagic)) return damaged(what, "no magic");
  Decoder in(bytes.subspan(kBodyAt));
  LogFrame frame;
  const uint16_t version = in.u16();
  const uint16_t reserved = in.u16();
  frame.drive = read_uuid(in);
  frame.epoch = in.u64();
  frame.number = in.u32();
  frame.chain = in.u32();
  frame.first = in.u64();
  frame.records = in.u32();
  const uint32_t record_bytes = in.u32();
  frame.blocks = in.u32();
  frame.settled = in.u64();
  if (frame.drive != drive) return damaged(what, "of another drive or an earlier format");
  if (frame.blocks == 0 || frame.blocks > kLogFrameMax / kBlock || frame.blocks != log_frame_blocks(record_bytes) ||
      static_cast<uint64_t>(frame.blocks) * kBlock > bytes.size() || record_bytes > kLogFrameMax) {
    return damaged(what, "impossible size");
  }
  bytes = bytes.first(static_cast<size_t>(frame.blocks) * kBlock);
  *crc = crc32c(frame_seed(drive, salt, 0, 0), bytes.subspan(kBodyAt));
  if (*crc != stored_crc(bytes)) return damaged(what, "checksum mismatch");
  if (version > kFormatVersion) return fail(Code::incompatible, "log frame of format version {}", version);
  if (version == 0 || reserved != 0 || !all_zero(bytes.subspan(kLogHeaderSize + record_bytes)) ||
      !all_zero(bytes.subspan(kLogHeaderEnd, kLogHeaderSize - kLogHeaderEnd))) {
    return damaged(what, "impossible field");
  }
  return frame;
}

Result<std::vector<LogRecord>> decode_log_records(ByteView bytes, const LogFrame& frame) {
  constexpr std::string_view what = "log record";
  const auto record_bytes = load_le<uint32_t>(bytes.data() + kBodyAt + 4 + 16 + 8 + 4 + 4 + 8 + 4);
  Decoder in(bytes.subspan(kLogHeaderSize, record_bytes));
  std::vector<LogRecord> records;
  for (uint32_t i = 0; i < frame.records; ++i) {
    const uint8_t kind = in.u8();
    if (!in.ok()) return damaged(what, "cut short");
    switch (static_cast<RecordKind>(kind)) {
      case RecordKind::put: {
        PutRecord r;
        r.id = read_id(in);
        r.size = in.u32();
        r.header_crc = in.u32();
        r.stream = in.u8();
        const uint8_t runs = in.u8();
        if (runs == 0 || runs > kRunsMax || r.size > kChunkSizeMax) return damaged(what, "impossible put");
        uint64_t blocks = 0;
        for (uint8_t k = 0; k < runs; ++k) {
          Run run;
          run.block = in.u64();
          run.blocks = in.u32();
          blocks += run.blocks;
          r.runs.push_back(run);
        }
        if (blocks != 1 + div_up(r.size, kBlock)) return damaged(what, "impossible put");
        records.push_back(std::move(r));
        break;
      }
      case RecordKind::remove: {
        RemoveRecord r;
        r.id = read_id(in);
        records.push_back(r);
        break;
      }
      case RecordKind::slot: {
        SlotRecord r;
        r.segment = in.u32();
        if (!read_summary(in, r.summary)) return damaged(what, "impossible slot");
        records.push_back(r);
        break;
      }
      case RecordKind::table: {
        TableRecord r;
        r.first = in.u32();
        r.total = in.u32();
        const uint32_t count = in.u32();
        if (r.first > r.total || count > r.total - r.first || count > in.remaining() / 16) return damaged(what, "impossible table");
        r.slots.resize(count);
        for (auto& slot : r.slots) {
          if (!read_summary(in, slot)) return damaged(what, "impossible table");
        }
        records.push_back(std::move(r));
        break;
      }
      case RecordKind::tail: {
        TailRecord r;
        r.segment = in.u32();
        r.generation = in.u32();
        r.next_frame = in.u32();
        r.data_end = in.u32();
        records.push_back(r);
        break;
      }
      default: return damaged(what, "unknown kind");
    }
    if (!in.ok()) return damaged(what, "cut short");
  }
  if (!in.done()) return damaged(what, "bytes left over");
  return records;
}

}  // namespace quarry::chunk::raw
