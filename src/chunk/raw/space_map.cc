#include "chunk/raw/space_map.h"

#include <algorithm>

#include "base/check.h"

namespace quarry::chunk::raw {
namespace {
uint64_t free_blocks(const Segment& segment) {
  uint64_t blocks = 0;
  for (const auto& run : segment.free_runs) blocks += run.blocks;
  return blocks;
}
}  // namespace

void SpaceMap::reset(Geometry geometry, AllocationPolicy policy) {
  geometry_ = std::move(geometry);
  policy_ = policy;
  segments_.assign(geometry_.segments(), Segment{});
  by_largest_.clear();
  used_ = cursor_ = 0;
  free_run_blocks_ = 0;
  free_ = segments();
}

void SpaceMap::grow(Geometry geometry) {
  const uint32_t before = segments();
  geometry_ = std::move(geometry);
  CHECK(geometry_.segments() >= before);
  segments_.resize(geometry_.segments());
  free_ += segments() - before;
}

void SpaceMap::recount() {
  free_ = used_ = 0;
  for (uint32_t i = 0; i < segments(); ++i) {
    const Segment& s = segments_[i];
    if (s.role == Role::free && s.state != SegmentState::retired) ++free_;
    if (s.slot_sequence != 0 || s.role != Role::free) used_ = i + 1;
  }
}

uint32_t SpaceMap::take_segment() {
  if (free_ == 0) return kNoSegment;
  // Ascending keeps to the outer tracks. Spread goes round among those in use so far, and takes a new one when they are all taken: a
  // segment never used costs nothing at restart.
  const uint32_t limit = std::min(used_ + 1, segments());
  const uint32_t start = policy_ == AllocationPolicy::ascending ? 0 : cursor_;
  uint32_t chosen = kNoSegment;
  for (uint32_t k = 0; k < segments(); ++k) {
    const uint32_t i = k < limit ? (start + k) % limit : k;
    const Segment& s = segments_[i];
    if (s.role != Role::free || s.state == SegmentState::retired || s.writing_slot) continue;
    if (chosen == kNoSegment || s.failed == 0) chosen = i;
    if (s.failed == 0) break;
  }
  if (chosen == kNoSegment) return kNoSegment;
  cursor_ = chosen + 1 < limit ? chosen + 1 : 0;
  used_ = std::max(used_, chosen + 1);
  --free_;
  return chosen;
}

void SpaceMap::give_segment(uint32_t index) {
  Segment& s = segments_[index];
  if (s.role == Role::extent) {
    unindex_segment(index);
    if (s.state != SegmentState::retired) free_run_blocks_ -= free_blocks(s);
  }
  Segment fresh;
  fresh.state = s.failed < kSegmentFailuresMax ? SegmentState::open : SegmentState::retired;
  fresh.failed = s.failed;
  fresh.changes = s.changes + 1;
  fresh.generation = s.generation;
  fresh.slot_sequence = s.slot_sequence;
  fresh.slot_crc = s.slot_crc;
  fresh.writing_slot = s.writing_slot;
  fresh.dirty = true;
  s = std::move(fresh);
  if (s.state != SegmentState::retired) ++free_;
}

void SpaceMap::index_segment(uint32_t index) {
  Segment& s = segments_[index];
  s.largest = 0;
  for (const auto& run : s.free_runs) s.largest = std::max(s.largest, run.blocks);
  const bool has_room = s.live + s.pending < extent_entries_max(geometry_.segment_size());
  if (s.role == Role::extent && s.state == SegmentState::open && s.largest > 0 && has_room && !s.evacuating)
    by_largest_.emplace(s.largest, index);
}
void SpaceMap::unindex_segment(uint32_t index) { by_largest_.erase({segments_[index].largest, index}); }

void SpaceMap::open_extents(uint32_t index) {
  Segment& s = segments_[index];
  s.free_runs = {{0, geometry_.data_blocks()}};
  free_run_blocks_ += geometry_.data_blocks();
  index_segment(index);
}

Run SpaceMap::cut(uint32_t index, size_t run, uint32_t blocks) {
  unindex_segment(index);
  Segment& s = segments_[index];
  ++s.changes;
  FreeRun& hole = s.free_runs[run];
  const Run result{geometry_.block_of(index) + hole.block, blocks};
  hole.block += blocks;
  hole.blocks -= blocks;
  if (hole.blocks == 0) s.free_runs.erase(s.free_runs.begin() + static_cast<ptrdiff_t>(run));
  free_run_blocks_ -= blocks;
  ++s.pending;
  index_segment(index);
  return result;
}

std::optional<Run> SpaceMap::allocate(uint32_t blocks) {
  auto at = by_largest_.lower_bound({blocks, 0});
  if (at == by_largest_.end()) return std::nullopt;
  uint32_t index = at->second;
  if (policy_ == AllocationPolicy::ascending) {
    constexpr int kLook = 64;
    for (int k = 0; k < kLook && at != by_largest_.end(); ++k, ++at) index = std::min(index, at->second);
  }
  const Segment& s = segments_[index];
  size_t best = s.free_runs.size();
  for (size_t i = 0; i < s.free_runs.size(); ++i) {
    if (s.free_runs[i].blocks < blocks) continue;
    if (policy_ == AllocationPolicy::ascending) {
      best = i;
      break;
    }
    if (best == s.free_runs.size() || s.free_runs[i].blocks < s.free_runs[best].blocks) best = i;
  }
  CHECK(best < s.free_runs.size());
  return cut(index, best, blocks);
}

std::vector<Run> SpaceMap::allocate_scattered(uint32_t blocks) {
  std::vector<Run> runs;
  while (blocks > 0 && runs.size() < kRunsMax && !by_largest_.empty()) {
    const uint32_t index = std::prev(by_largest_.end())->second;
    const Segment& s = segments_[index];
    size_t best = 0;
    for (size_t i = 1; i < s.free_runs.size(); ++i) {
      if (s.free_runs[i].blocks > s.free_runs[best].blocks) best = i;
    }
    const uint32_t take = std::min(blocks, s.free_runs[best].blocks);
    runs.push_back(cut(index, best, take));
    blocks -= take;
  }
  if (blocks == 0) return runs;
  for (const auto& run : runs) {
    --segments_[geometry_.segment_of(run)].pending;
    release(run);
  }
  return {};
}

void SpaceMap::release(const Run& run) {
  const uint32_t index = geometry_.segment_of(run);
  CHECK(index != kNoSegment);
  Segment& s = segments_[index];
  unindex_segment(index);
  ++s.changes;
  const auto block = static_cast<uint32_t>(run.block - geometry_.block_of(index));
  auto at = std::lower_bound(s.free_runs.begin(), s.free_runs.end(), block, [](const FreeRun& r, uint32_t b) { return r.block < b; });
  CHECK(at == s.free_runs.end() || block + run.blocks <= at->block, "a run is freed twice");
  CHECK(at == s.free_runs.begin() || std::prev(at)->block + std::prev(at)->blocks <= block, "a run is freed twice");
  at = s.free_runs.insert(at, {block, run.blocks});
  if (const auto next = std::next(at); next != s.free_runs.end() && at->block + at->blocks == next->block) {
    at->blocks += next->blocks;
    at = std::prev(s.free_runs.erase(next));
  }
  if (at != s.free_runs.begin()) {
    const auto before = std::prev(at);
    if (before->block + before->blocks == at->block) {
      before->blocks += at->blocks;
      s.free_runs.erase(at);
    }
  }
  if (s.state != SegmentState::retired) free_run_blocks_ += run.blocks;
  index_segment(index);
}

void SpaceMap::retire(uint32_t index) {
  Segment& s = segments_[index];
  unindex_segment(index);
  if (s.state != SegmentState::retired) free_run_blocks_ -= free_blocks(s);
  s.state = SegmentState::retired;
  s.failed = std::min<uint8_t>(s.failed + 1, kSegmentFailuresMax);
  s.dirty = true;
}

void SpaceMap::set_evacuating(uint32_t index, bool evacuating) {
  unindex_segment(index);
  segments_[index].evacuating = evacuating;
  index_segment(index);
}

void SpaceMap::restore_extents(uint32_t index, const std::vector<FreeRun>& used) {
  Segment& s = segments_[index];
  uint32_t at = 0;
  for (const auto& run : used) {
    CHECK(run.block >= at && run.blocks <= geometry_.data_blocks() - run.block);
    if (run.block > at) s.free_runs.push_back({at, run.block - at});
    at = run.block + run.blocks;
  }
  if (at < geometry_.data_blocks()) s.free_runs.push_back({at, geometry_.data_blocks() - at});
  s.free_runs.shrink_to_fit();
  free_run_blocks_ += free_blocks(s);
  index_segment(index);
}

size_t SpaceMap::bytes() const {
  size_t total = segments_.capacity() * sizeof(Segment) + by_largest_.size() * 48;
  for (const auto& s : segments_) {
    total += s.free_runs.capacity() * sizeof(FreeRun) + s.dead.capacity() * 4 + s.inventories.capacity() * sizeof(InventoryPointer);
  }
  return total;
}

}  // namespace quarry::chunk::raw
