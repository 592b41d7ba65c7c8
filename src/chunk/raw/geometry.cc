#include "chunk/raw/geometry.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace quarry::chunk::raw {
namespace {

// Fills the gap [from, to) with segments.
void add_span(Layout& layout, uint64_t from, uint64_t to, uint64_t segment_size) {
  from = round_up(from, kZoneSize);
  if (to <= from) return;
  const auto count = static_cast<uint32_t>((to - from) / segment_size);
  if (count == 0) return;
  layout.spans.push_back({from, layout.segments, count});
  layout.segments += count;
}

}  // namespace

uint64_t default_segment_size(uint64_t device_size) {
  return std::clamp(std::bit_floor(device_size / 256), kSegmentSizeMin, kSegmentSizeMax);
}

Result<Layout> plan_layout(uint64_t device_size, uint64_t segment_size) {
  if (device_size < kDeviceSizeMin || device_size > kDeviceSizeMax) {
    return fail(Code::invalid_argument, "a device of {} bytes: must be between {} MiB and {} TiB", device_size, kDeviceSizeMin / kMiB,
                kDeviceSizeMax / kTiB);
  }
  if (!std::has_single_bit(segment_size) || segment_size < kSegmentSizeMin || segment_size > kSegmentSizeMax ||
      segment_size > device_size / 8) {
    return fail(Code::invalid_argument,
                "a segment size of {} bytes: must be a power of two between {} and {} MiB, at most an eighth of the device", segment_size,
                kSegmentSizeMin / kMiB, kSegmentSizeMax / kMiB);
  }
  Layout layout;
  const uint64_t last = end_zone(device_size);
  uint64_t cursor = 0;
  for (size_t i = 0; i < kZoneCandidates.size(); ++i) {
    const uint64_t zone = zone_candidate(i);
    if (kZoneCandidates[i] % segment_size != 0 || zone + kZoneSize > last) continue;
    if (i > 0) add_span(layout, cursor, zone, segment_size);
    layout.zones.push_back(zone);
    cursor = zone + kZoneSize;
  }
  add_span(layout, cursor, last, segment_size);
  layout.zones.push_back(last);
  return layout;
}

Result<Layout> grow_layout(const Layout& old, uint64_t old_size, uint64_t new_size, uint64_t segment_size) {
  if (new_size < old_size)
    return fail(Code::invalid_argument, "the device has shrunk from {} to {} bytes: restore its size", old_size, new_size);
  Layout layout = old;
  const uint64_t last = end_zone(new_size);
  const uint64_t old_last = old.zones.back();
  if (last <= old_last + kZoneSize) return layout;
  if (old.spans.size() + 2 > kSpansMax || old.zones.size() + 2 > kZonesMax) {
    return fail(Code::invalid_argument, "the device was grown too often: move its data to a freshly formatted one");
  }
  uint64_t cursor = old_last + kZoneSize;
  for (size_t i = 0; i < kZoneCandidates.size(); ++i) {
    const uint64_t zone = zone_candidate(i);
    if (zone < cursor || kZoneCandidates[i] % segment_size != 0 || zone + kZoneSize > last) continue;
    if (layout.spans.size() + 2 > kSpansMax || layout.zones.size() + 2 > kZonesMax) break;
    add_span(layout, cursor, zone, segment_size);
    layout.zones.push_back(zone);
    cursor = zone + kZoneSize;
  }
  add_span(layout, cursor, last, segment_size);
  if (layout.segments == old.segments) return old;  // not enough for one more segment
  layout.zones.push_back(last);
  return layout;
}

Geometry::Geometry(std::vector<Span> spans, uint64_t segment_size) : spans_(std::move(spans)), segment_size_(segment_size) {
  for (const auto& span : spans_) segments_ += span.count;
}

uint64_t Geometry::offset_of(uint32_t segment) const {
  CHECK(segment < segments_);
  auto span = std::upper_bound(spans_.begin(), spans_.end(), segment, [](uint32_t s, const Span& x) { return s < x.first; });
  --span;
  return span->offset + static_cast<uint64_t>(segment - span->first) * segment_size_;
}

uint32_t Geometry::segment_at(uint64_t offset) const {
  auto span = std::upper_bound(spans_.begin(), spans_.end(), offset, [](uint64_t o, const Span& x) { return o < x.offset; });
  if (span == spans_.begin()) return kNoSegment;
  --span;
  const uint64_t index = (offset - span->offset) / segment_size_;
  return index < span->count ? span->first + static_cast<uint32_t>(index) : kNoSegment;
}

uint32_t Geometry::segment_of(const Run& run) const {
  if (run.block >= kDeviceSizeMax / kBlock || run.blocks == 0) return kNoSegment;
  const uint64_t offset = run.block * kBlock;
  const uint32_t segment = segment_at(offset);
  if (segment == kNoSegment) return kNoSegment;
  const uint64_t inside = offset - offset_of(segment);
  return inside + static_cast<uint64_t>(run.blocks) * kBlock <= data_bytes() ? segment : kNoSegment;
}

}  // namespace quarry::chunk::raw
