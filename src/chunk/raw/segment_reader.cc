#include "chunk/raw/segment_reader.h"

#include <algorithm>

#include "base/check.h"
#include "codec/crc32c.h"

namespace quarry::chunk::raw {
namespace {

// One frame is in flight in a segment at a time: a frame that follows a damaged one starts within the largest frame's size.
constexpr uint32_t kLookAheadBlocks = kFrameSizeMax / kBlock + 1;
constexpr uint32_t kWindowBlocks = 2 * kLookAheadBlocks;
// Read of a slot together with its header: most lists are no longer.
constexpr uint64_t kSlotPeek = 20 * kKiB;

bool is_dead(const std::vector<uint32_t>& dead, uint32_t offset) {
  return std::binary_search(dead.begin(), dead.end(), offset / kItemAlignment);
}

}  // namespace

Task<Result<void>> SegmentReader::read_slot(uint32_t index, uint32_t which, std::optional<SlotHeader>& out) const {
  const uint64_t segment_size = geometry.segment_size();
  const uint64_t offset = geometry.slot_offset(index, which);
  Buffer bytes(std::min(slot_size(segment_size), kSlotPeek));
  CO_TRY(co_await read_tolerant(device, offset, bytes.mutable_view()));
  auto header = decode_slot_header(bytes.view().first(kBlock), superblock.drive, index);
  if (!header && header.error().code() == Code::incompatible) co_return std::move(header).error();
  if (!header || header->slot.sequence % 2 != which || header->body_bytes > slot_body_size(segment_size)) co_return Result<void>{};
  Result<void> body;
  if (kBlock + header->body_bytes <= bytes.size()) {
    body = decode_slot_body(*header, bytes.view().subspan(kBlock), segment_size);
  } else {
    Buffer list(round_up(header->body_bytes, kBlock));
    CO_TRY(co_await read_tolerant(device, offset + kBlock, list.mutable_view()));
    body = decode_slot_body(*header, list, segment_size);
  }
  if (body) out = std::move(*header);
  co_return Result<void>{};
}

Task<Result<void>> SegmentReader::read_slots(SegmentContents& contents, SlotSummary expected, std::vector<uint32_t>& dead) const {
  const uint32_t index = contents.index;
  std::array<std::optional<SlotHeader>, 2> found;
  const auto is_expected = [&expected](const std::optional<SlotHeader>& header) {
    return header && header->slot.sequence == expected.sequence && header->header_crc == expected.header_crc;
  };
  // After a clean close the slot that the log names is the newest; else the other one may be newer still.
  const uint32_t first = expected.sequence % 2;
  CO_TRY(co_await read_slot(index, first, found[first]));
  if (!superblock.clean || !is_expected(found[first])) CO_TRY(co_await read_slot(index, 1 - first, found[1 - first]));
  SlotHeader* best = nullptr;
  for (auto& candidate : found) {
    if (candidate) {
      contents.known_record = std::max(contents.known_record, candidate->slot.through);
      contents.known_epoch = std::max(contents.known_epoch, candidate->slot.epoch);
    }
    if (candidate && (best == nullptr || candidate->slot.sequence > best->slot.sequence)) best = &*candidate;
  }
  const bool trusted = best != nullptr && (best->slot.sequence > expected.sequence ||
                                           (best->slot.sequence == expected.sequence && best->header_crc == expected.header_crc));
  Segment& s = contents.segment;
  if (best == nullptr && expected.sequence == 0) co_return Result<void>{};  // never used
  if (!trusted) {
    contents.rebuilt = true;
    s.role = expected.role;
    s.state = expected.state;
    s.generation = expected.generation;
    s.slot_sequence = std::max(expected.sequence, best != nullptr ? best->slot.sequence : 0);
    if (expected.role == Role::extent || expected.role == Role::packed) {
      contents.damage.push_back(
          fmt::format("segment {}: its newest inventory is lost ({}); rebuilt from payload headers, removed chunks may be back", index,
                      best == nullptr ? "no slot is valid" : "an older one is there"));
    }
    if (best == nullptr || best->slot.generation != expected.generation || best->slot.role != expected.role) {
      contents.scan_headers = s.role == Role::extent;
      co_return Result<void>{};
    }
  }
  SegmentSlot& slot = best->slot;
  s.role = slot.role;
  s.state = trusted ? slot.state : SegmentState::open;
  s.stream = slot.stream;
  s.generation = slot.generation;
  s.slot_sequence = std::max(slot.sequence, expected.sequence);
  s.slot_crc = trusted ? best->header_crc : 0;
  s.listed_end = slot.data_end;
  s.listed_frame = slot.next_frame;
  s.listed_chain = slot.chain;
  s.listed_items = slot.items;
  s.inventories = std::move(slot.inventories);
  contents.through = slot.through;
  dead = std::move(slot.dead);
  for (const auto& entry : slot.extents) contents.extents.push_back({entry, slot.through});
  contents.scan_headers = !trusted && s.role == Role::extent;
  co_return Result<void>{};
}

Task<Result<void>> SegmentReader::read_inventories(SegmentContents& contents, const std::vector<uint32_t>& dead) const {
  Segment& s = contents.segment;
  const FrameExpectation expectation{superblock.drive, contents.index, s.generation, superblock.salt, geometry.data_blocks()};
  uint32_t covered = 0, frame_number = 0, chain = 0;
  contents.items.reserve(s.listed_items);
  const std::vector<InventoryPointer> pointers = s.inventories;
  for (const auto& pointer : pointers) {
    Buffer bytes(static_cast<size_t>(pointer.blocks) * kBlock);
    CO_TRY(co_await read_tolerant(device, geometry.offset_of(contents.index) + static_cast<uint64_t>(pointer.block) * kBlock,
                                  bytes.mutable_view()));
    uint32_t crc = 0, needed = 0;
    auto frame = decode_frame_header(bytes, expectation, &crc, &needed);
    ++contents.inventories_read;
    if (frame && frame->kind == FrameKind::inventory) {
      contents.known_record = std::max(contents.known_record, frame->after);
      for (const auto& item : frame->items) contents.items.push_back({item, contents.through, is_dead(dead, item.offset)});
      frame_number = frame->number + 1;
      chain = crc;
    } else {
      contents.rebuilt = true;
      contents.damage.push_back(
          fmt::format("segment {}: the inventory frame at block {} is damaged; its {} blocks of frames were read instead", contents.index,
                      pointer.block, pointer.block - covered));
      const size_t before = contents.items.size();
      CO_TRY(co_await scan_frames(contents, {covered, frame_number, chain, pointer.block}, std::nullopt, dead));
      for (size_t i = before; i < contents.items.size(); ++i) contents.items[i].stamp = contents.through;
      frame_number = UINT32_MAX;  // unknown; the chain restarts behind
      chain = 0;
    }
    covered = pointer.block + pointer.blocks;
  }
  s.data_end = s.listed_end;
  s.next_frame = s.listed_frame;
  s.chain = s.listed_chain;
  co_return Result<void>{};
}

Task<Result<void>> SegmentReader::scan_frames(SegmentContents& contents, ScanFrom from, std::optional<TailRecord> tail,
                                              const std::vector<uint32_t>& dead) const {
  Segment& s = contents.segment;
  const bool repair = from.until != UINT32_MAX;  // only items; the segment's own position is known
  const uint32_t end = std::min(geometry.data_blocks(), from.until);
  const FrameExpectation expectation{superblock.drive, contents.index, s.generation, superblock.salt, geometry.data_blocks()};
  if (tail && tail->generation != s.generation) tail.reset();
  Buffer window;
  uint32_t window_at = 0;
  const auto load = [&](uint32_t block) -> std::pair<uint32_t, uint32_t> {  // block and count to read
    return {block, std::min(kWindowBlocks, end - block)};
  };
  uint32_t at = from.block, number = from.number, chain = from.chain;
  bool number_known = from.number != UINT32_MAX;
  std::vector<FrameItem> unlisted;
  while (at < end) {
    if (window.empty() || at < window_at ||
        (at + kLookAheadBlocks > window_at + window.size() / kBlock && window_at + window.size() / kBlock < end)) {
      const auto [block, count] = load(at);
      window = Buffer(static_cast<size_t>(count) * kBlock);
      window_at = block;
      CO_TRY(co_await read_tolerant(device, geometry.offset_of(contents.index) + static_cast<uint64_t>(block) * kBlock,
                                    window.mutable_view()));
    }
    // The frame here, or the first one after it.
    std::optional<FrameHeader> frame;
    uint32_t crc = 0;
    uint32_t found_at = at;
    for (; found_at < std::min(end, at + kLookAheadBlocks); ++found_at) {
      const ByteView bytes = window.view().subspan(static_cast<size_t>(found_at - window_at) * kBlock);
      uint32_t needed = 0;
      auto decoded = decode_frame_header(bytes, expectation, &crc, &needed);
      if (!decoded && decoded.error().code() == Code::incompatible) co_return std::move(decoded).error();
      if (!decoded || static_cast<size_t>(decoded->blocks) * kBlock > bytes.size()) continue;
      if (number_known && decoded->number < number) continue;
      frame = std::move(*decoded);
      break;
    }
    if (!frame) break;
    const bool gap = number_known && frame->number != number;
    if (gap || (number_known && number > 0 && frame->chain != chain)) {
      contents.damage.push_back(fmt::format("segment {}: {} frames before block {} are damaged; their chunks are lost", contents.index,
                                            frame->number - number, found_at));
    }
    const ByteView bytes =
        window.view().subspan(static_cast<size_t>(found_at - window_at) * kBlock, static_cast<size_t>(frame->blocks) * kBlock);
    ++contents.frames_scanned;
    contents.known_record = std::max(contents.known_record, frame->after);
    if (frame->kind == FrameKind::items) {
      std::vector<bool> bad(frame->items.size());
      bool any_bad = false;
      for (size_t i = 0; i < frame->items.size(); ++i) {
        const FrameItem& item = frame->items[i];
        bad[i] = crc32c(checksum_seed(item.id, 0), bytes.subspan(item.offset, item.size)) != item.crc;
        any_bad = any_bad || bad[i];
      }
      if (any_bad && !repair) {
        // Torn, unless something shows that it was complete once: a frame after it, or the log.
        bool later = tail && tail->next_frame > frame->number;
        for (uint32_t next = found_at + 1; !later && next < std::min(end, found_at + 2 * kLookAheadBlocks); ++next) {
          const size_t offset = static_cast<size_t>(next - window_at) * kBlock;
          if (offset >= window.size()) break;
          uint32_t needed = 0, other = 0;
          auto decoded = decode_frame_header(window.view().subspan(offset), expectation, &other, &needed);
          later = decoded && decoded->number > frame->number;
        }
        if (!later) {
          ++contents.torn_tails;
          break;
        }
        contents.damage.push_back(fmt::format("segment {}: items of the frame at block {} are damaged", contents.index, found_at));
      }
      for (const auto& item : frame->items) {
        FrameItem placed = item;
        placed.offset += found_at * kBlock;
        contents.items.push_back({placed, frame->after, is_dead(dead, placed.offset)});
        if (!repair) unlisted.push_back(placed);
      }
    } else if (!repair) {
      s.inventories.push_back({found_at, frame->blocks});
      s.listed_items += static_cast<uint32_t>(unlisted.size());
      unlisted.clear();
    }
    at = found_at + frame->blocks;
    number = frame->number + 1;
    number_known = true;
    chain = crc;
    if (!repair) {
      s.data_end = at;
      s.next_frame = number;
      s.chain = chain;
      if (frame->kind == FrameKind::inventory) {
        s.listed_end = at;
        s.listed_frame = number;
        s.listed_chain = chain;
      }
    }
  }
  if (repair) co_return Result<void>{};
  if (tail && tail->next_frame > number) {
    contents.damage.push_back(fmt::format("segment {}: {} acknowledged frames from block {} on are damaged; their chunks are lost",
                                          contents.index, tail->next_frame - number, at));
    s.data_end = std::max(s.data_end, tail->data_end);
    s.next_frame = tail->next_frame;
  }
  contents.unlisted = std::move(unlisted);
  co_return Result<void>{};
}

Task<Result<SegmentContents>> SegmentReader::read(uint32_t index, SlotSummary expected, std::optional<TailRecord> tail) const {
  SegmentContents contents;
  contents.index = index;
  std::vector<uint32_t> dead;
  CO_TRY(co_await read_slots(contents, expected, dead));
  const Segment& s = contents.segment;
  if (s.role != Role::packed) co_return contents;
  CO_TRY(co_await read_inventories(contents, dead));
  if (s.state != SegmentState::sealed || contents.rebuilt) {
    const ScanFrom from{s.listed_end, s.listed_frame, s.listed_chain, UINT32_MAX};
    CO_TRY(co_await scan_frames(contents, from, tail, dead));
  }
  co_return contents;
}

Task<Result<bool>> SegmentReader::payload_whole(const ChunkHeader& header) const {
  const uint32_t block_size = 1u << checksum_shift(header.size);
  Buffer bytes(round_up(header.size, kBlock) + kBlock);
  MutableByteView into = bytes.mutable_view();
  for (const auto& run : header.runs) {
    const size_t size = static_cast<size_t>(run.blocks) * kBlock;
    CO_TRY(co_await read_tolerant(device, run.block * kBlock, into.first(size)));
    into = into.subspan(size);
  }
  const ByteView payload = bytes.view().subspan(kBlock, header.size);
  for (uint32_t i = 0; i < header.checksums.size(); ++i) {
    const size_t at = static_cast<size_t>(i) * block_size;
    if (crc32c(checksum_seed(header.id, i), payload.subspan(at, std::min<size_t>(block_size, header.size - at))) != header.checksums[i])
      co_return false;
  }
  co_return true;
}

Task<Result<bool>> SegmentReader::holds(PutRecord put) const {
  Buffer block(kBlock);
  CO_TRY(co_await read_tolerant(device, put.runs.front().block * kBlock, block.mutable_view()));
  uint32_t crc = 0;
  const auto header = decode_chunk_header(block, &crc);
  if (!header || crc != put.header_crc || header->drive != superblock.drive || header->id != put.id || header->runs != put.runs)
    co_return false;
  auto whole = co_await payload_whole(*header);
  co_return whole;
}

Task<Result<std::vector<std::pair<ChunkHeader, uint32_t>>>> SegmentReader::find_chunks(uint32_t index, uint32_t from, uint32_t to) const {
  std::vector<std::pair<ChunkHeader, uint32_t>> found;
  Buffer window;
  uint32_t window_at = 0;
  for (uint32_t block = from; block < to; ++block) {
    if (window.empty() || block >= window_at + window.size() / kBlock || block < window_at) {
      window_at = block;
      window = Buffer(static_cast<size_t>(std::min<uint32_t>(256, to - block)) * kBlock);
      CO_TRY(co_await read_tolerant(device, geometry.offset_of(index) + static_cast<uint64_t>(block) * kBlock, window.mutable_view()));
    }
    uint32_t crc = 0;
    auto header = decode_chunk_header(window.view().subspan(static_cast<size_t>(block - window_at) * kBlock, kBlock), &crc);
    if (!header || header->drive != superblock.drive || header->runs.front().block != geometry.block_of(index) + block) continue;
    const bool placed =
        std::all_of(header->runs.begin(), header->runs.end(), [this](const Run& run) { return geometry.segment_of(run) != kNoSegment; });
    if (!placed) continue;
    CO_TRY_ASSIGN(const bool whole, co_await payload_whole(*header));
    if (!whole) continue;
    const uint32_t blocks = header->runs.front().blocks;
    found.emplace_back(std::move(*header), crc);
    block += blocks - 1;
  }
  co_return found;
}

}  // namespace quarry::chunk::raw
