// Hostile bytes for every decoder of the raw device: superblock, label, slot, chunk header, packed frame, log frame. The first byte
// chooses; checksums are made right when the second byte is odd, so that what lies behind them is reached too.
#include <cstdlib>

#include "chunk/raw/format.h"
#include "codec/crc32c.h"

using namespace quarry;              // NOLINT
using namespace quarry::chunk::raw;  // NOLINT

namespace {
constexpr uint64_t kSalt = 0x0123456789abcdefull;
const Uuid kDrive{{1, 2, 3, 4}};

void seal(MutableByteView bytes, uint32_t seed) {
  if (bytes.size() < 12) return;
  const uint32_t crc = crc32c(seed, bytes.subspan(12));
  std::memcpy(bytes.data() + 8, &crc, 4);
}
uint32_t frame_seed(uint32_t segment, uint32_t generation) {
  uint8_t bytes[32];
  std::memcpy(bytes, kDrive.bytes.data(), 16);
  std::memcpy(bytes + 16, &kSalt, 8);
  std::memcpy(bytes + 24, &segment, 4);
  std::memcpy(bytes + 28, &generation, 4);
  return crc32c(0, bytes);
}
void set(MutableByteView bytes, size_t at, const void* from, size_t size) {
  if (bytes.size() >= at + size) std::memcpy(bytes.data() + at, from, size);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint8_t which = data[0] % 6;
  const bool right = data[1] % 2 == 1;
  data += 2;
  size -= 2;
  Buffer buffer(std::max<size_t>(round_up(size, kBlock), 3 * kBlock));
  std::memset(buffer.data(), 0, buffer.size());
  std::memcpy(buffer.data(), data, size);
  MutableByteView bytes = buffer.mutable_view();
  const auto magic = [&](const char* text) {
    if (right) set(bytes, 0, text, 8);
  };
  constexpr uint64_t kSegment = 4 * kMiB;
  switch (which) {
    case 0: {
      magic("QRYRAWSB");
      const uint64_t zone = 0;
      if (right) set(bytes, 16, &zone, 8);
      if (right) seal(bytes.first(kBlock), 0);
      auto superblock = decode_superblock(bytes, 0);
      if (superblock) {
        // What decodes, encodes to what decodes equally.
        const Buffer again = encode_superblock(*superblock, 0);
        if (!decode_superblock(again, 0)) std::abort();
      }
      break;
    }
    case 1: {
      magic("QRYLABEL");
      if (right) seal(bytes.first(kBlock), 0);
      decode_label(bytes, 0).ignore("fuzz");
      break;
    }
    case 2: {
      magic("QRYSEGMT");
      const uint32_t segment = 3;
      if (right) {
        set(bytes, 16, kDrive.bytes.data(), 16);
        set(bytes, 32, &segment, 4);
        const uint32_t body_bytes = static_cast<uint32_t>(std::min<size_t>(size > kBlock ? size - kBlock : 0, slot_body_size(kSegment)));
        const uint32_t body_crc = crc32c(0, bytes.subspan(kBlock, body_bytes));
        set(bytes, 84, &body_bytes, 4);
        set(bytes, 88, &body_crc, 4);
        seal(bytes.first(kBlock), 0);
      }
      auto header = decode_slot_header(bytes, kDrive, segment);
      if (header && decode_slot_body(*header, bytes.subspan(kBlock), kSegment)) {
        uint32_t crc = 0;
        const Buffer again = encode_slot(header->slot, kSegment, &crc);
        auto second = decode_slot_header(again, kDrive, segment);
        if (!second || !decode_slot_body(*second, again.view().subspan(kBlock), kSegment)) std::abort();
      }
      break;
    }
    case 3: {
      magic("QRYCHUNK");
      if (right) seal(bytes.first(kBlock), 0);
      uint32_t crc = 0;
      auto header = decode_chunk_header(bytes, &crc);
      if (header) {
        Buffer again(kBlock);
        encode_chunk_header(*header, again.mutable_view(), &crc);
        if (!decode_chunk_header(again, &crc)) std::abort();
      }
      break;
    }
    case 4: {
      magic("QRYFRAME");
      const uint32_t place[2] = {3, 2};
      uint32_t items = 0;
      if (right) {
        set(bytes, 16, kDrive.bytes.data(), 16);
        set(bytes, 32, place, 8);
        std::memset(bytes.data() + 64, 0, 32);
        std::memcpy(&items, bytes.data() + 60, 4);
        const size_t end = frame_table_end(items % 512);
        if (end <= bytes.size()) seal(bytes.first(end), frame_seed(3, 2));
      }
      const FrameExpectation expected{kDrive, 3, 2, kSalt, static_cast<uint32_t>(data_size(kSegment) / kBlock)};
      uint32_t crc = 0, needed = 0;
      auto frame = decode_frame_header(bytes, expected, &crc, &needed);
      if (frame && frame->kind == FrameKind::items) {
        for (const auto& item : frame->items) {
          if (item.offset + uint64_t{item.size} > frame->blocks * uint64_t{kBlock}) std::abort();
        }
      }
      break;
    }
    default: {
      magic("QRYLOGFR");
      if (right) {
        set(bytes, 16, kDrive.bytes.data(), 16);
        const auto record_bytes =
            static_cast<uint32_t>(size > kLogHeaderSize ? std::min<size_t>(size - kLogHeaderSize, kLogFrameMax - kBlock) : 0);
        const uint32_t blocks = log_frame_blocks(record_bytes);
        set(bytes, 60, &record_bytes, 4);
        set(bytes, 64, &blocks, 4);
        std::memset(bytes.data() + 14, 0, 2);
        std::memset(bytes.data() + 76, 0, 4);
        if (blocks * size_t{kBlock} <= bytes.size()) seal(bytes.first(blocks * size_t{kBlock}), frame_seed(0, 0));
      }
      uint32_t crc = 0;
      auto frame = decode_log_frame(bytes, kDrive, kSalt, &crc);
      if (frame) decode_log_records(bytes, *frame).ignore("fuzz");
      break;
    }
  }
  return 0;
}
