// Geometry: where superblock zones and segments lie on a device. Immutable once made; a grown device gets a new one.
//
// Zones start at fixed offsets (and one at the end), so that survivors are found without knowing anything else: zone i of the list
// lies at kZoneCandidates[i] + i * kZoneSize, which keeps the gaps between zones multiples of the segment size.
#pragma once
#include "chunk/raw/format.h"

namespace quarry::chunk::raw {

inline constexpr std::array<uint64_t, 7> kZoneCandidates = {0, 16 * kMiB, 256 * kMiB, 1 * kGiB, 16 * kGiB, 256 * kGiB, 4 * kTiB};
constexpr uint64_t zone_candidate(size_t i) { return kZoneCandidates[i] + i * kZoneSize; }
// The last zone of a device of this size.
constexpr uint64_t end_zone(uint64_t device_size) { return round_down(device_size, kZoneSize) - kZoneSize; }

struct Layout {
  std::vector<uint64_t> zones;  // ascending
  std::vector<Span> spans;
  uint32_t segments = 0;
};
// A power of two, about a 256th of the device.
uint64_t default_segment_size(uint64_t device_size);
// Errors: invalid_argument (device too small or too large, segment size impossible).
Result<Layout> plan_layout(uint64_t device_size, uint64_t segment_size);
// The layout of a grown device: zones and segments that exist stay where they are; new segments follow. Errors: invalid_argument
// (smaller than before, or grown too often: kSpansMax).
Result<Layout> grow_layout(const Layout& old, uint64_t old_size, uint64_t new_size, uint64_t segment_size);

class Geometry {
 public:
  Geometry() = default;
  Geometry(std::vector<Span> spans, uint64_t segment_size);
  explicit Geometry(const Superblock& superblock) : Geometry(superblock.spans, superblock.segment_size) {}
  uint64_t segment_size() const { return segment_size_; }
  uint64_t data_bytes() const { return data_size(segment_size_); }
  uint32_t data_blocks() const { return static_cast<uint32_t>(data_bytes() / kBlock); }
  uint32_t segments() const { return segments_; }
  uint64_t offset_of(uint32_t segment) const;  // bytes
  uint64_t block_of(uint32_t segment) const { return offset_of(segment) / kBlock; }
  uint32_t segment_at(uint64_t offset) const;  // kNoSegment if it is in none
  // Whether the run lies in the data part of one segment; then which.
  uint32_t segment_of(const Run& run) const;
  uint64_t slot_offset(uint32_t segment, uint32_t sequence) const { return offset_of(segment) + slot_at(segment_size_, sequence); }

 private:
  std::vector<Span> spans_;
  uint64_t segment_size_ = kSegmentSizeMin;
  uint32_t segments_ = 0;
};

}  // namespace quarry::chunk::raw
