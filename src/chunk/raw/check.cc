// Looking for damage: scrub reads payloads of an open store, fsck compares its structures with each other.
#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/raw_store_impl.h"
#include "chunk/raw/recovery.h"

namespace quarry::chunk {
namespace raw {

namespace {
constexpr size_t kHeaderRead = 64 * kKiB;  // of a frame, to begin with: more than most headers take
}

// Headers of packed frames whose items an inventory lists too are read by nobody else until the segment is compacted. A damaged one loses
// nothing; the segment is emptied, so that what it still holds is listed twice again.
Task<Result<void>> RawStoreImpl::scrub_frames(uint32_t segment) {
  const auto walkable = [this, segment] {
    const Segment& s = space_[segment];
    return s.role == Role::packed && !s.suspect && !s.unreadable && !s.compacting && !s.emptying;
  };
  if (!walkable()) co_return Result<void>{};
  const uint32_t generation = space_[segment].generation, end = space_[segment].data_end;
  const Geometry& geometry = space_.geometry();
  const FrameExpectation expectation{drive_id(), segment, generation, supers_.superblock().salt, geometry.data_blocks()};
  Buffer buffer(kHeaderRead);
  for (uint32_t block = 0; block < end;) {
    const uint64_t at = geometry.offset_of(segment) + static_cast<uint64_t>(block) * kBlock;
    uint32_t crc = 0, needed = 0;
    Result<FrameHeader> header = FrameHeader();
    for (size_t bytes = kHeaderRead;;) {
      bytes = std::min<size_t>(bytes, static_cast<size_t>(end - block) * kBlock);
      if (buffer.size() < bytes) buffer = Buffer(bytes);
      auto read = co_await device_->read(at, buffer.mutable_view().first(bytes));
      if (!walkable() || space_[segment].generation != generation || closing_) {
        std::move(read).ignore("the segment is another one by now");
        co_return Result<void>{};
      }
      if (!read) {
        if (read.error().code() == Code::device_gone) co_return noted(std::move(read).error(), false);
        // A bad sector: what lies there is found by its chunks.
        note_error(read.error(), false);
        co_return Result<void>{};
      }
      header = decode_frame_header(buffer.view().first(bytes), expectation, &crc, &needed);
      if (header || needed <= bytes) break;
      bytes = round_up(needed, kBlock);
      if (bytes > static_cast<size_t>(end - block) * kBlock) break;
    }
    if (header) {
      block += header->blocks;
      continue;
    }
    ++health_.checksum_errors;
    LOG_WARNING("the header of a packed frame is damaged; nothing is lost, its segment is written anew", {"device", device_->info().path},
                {"segment", segment}, {"block", block}, {"error", header.error().to_string()});
    space_[segment].suspect = true;
    deaths_since_look_ = kDeathsPerLook;
    consider_compaction();
    break;
  }
  co_return Result<void>{};
}

Task<Result<ScrubProgress>> RawStoreImpl::scrub(ChunkId from, uint64_t budget_bytes) {
  CO_TRY(readable());
  Use use(*this);
  ScrubProgress progress;
  progress.next = from;
  if (from == ChunkId{}) scrub_segment_ = 0;
  do {
    std::vector<std::pair<ChunkId, uint32_t>> batch;
    for (const auto& entry : index_.leaf_from(progress.next)) batch.emplace_back(entry.id, entry.size);
    if (batch.empty()) {
      progress.complete = true;
      break;
    }
    for (const auto& [id, size] : batch) {
      auto read = co_await get_verified(id, 0, size);
      progress.next = {id.high, id.low + 1};
      if (progress.next.low == 0) ++progress.next.high;
      ++progress.chunks_checked;
      progress.bytes_checked += size;
      if (!read && read.error().code() == Code::device_gone) co_return noted(std::move(read).error(), false);
      if (!read && read.error().code() != Code::not_found) {
        if (read.error().code() == Code::corrupt) ++health_.checksum_errors;
        progress.damaged.push_back({id, read.error().to_string(), read.error().reason()});
      }
      if (progress.bytes_checked >= budget_bytes) break;
    }
    // One segment's frame headers with each batch of chunks, the rest at the end.
    if (scrub_segment_ < space_.used()) CO_TRY(co_await scrub_frames(scrub_segment_++));
  } while (progress.bytes_checked < budget_bytes);
  while (progress.complete && scrub_segment_ < space_.used()) CO_TRY(co_await scrub_frames(scrub_segment_++));
  co_return progress;
}

Task<Result<FsckReport>> RawStoreImpl::fsck() {
  CO_TRY(readable());
  Use use(*this);
  FsckReport report;
  const auto violation = [&report](std::string sentence) {
    constexpr size_t kViolationsMax = 1000;
    if (report.violations.size() < kViolationsMax) report.violations.push_back(std::move(sentence));
  };
  for (const auto& sentence : report_.damage) violation(sentence);
  // Every chunk lies in a segment of its role; no two share a block; live counts and free space add up.
  const Geometry& geometry = space_.geometry();
  struct Seen {
    uint32_t live = 0;
    uint64_t bytes = 0;
    std::vector<std::pair<uint32_t, uint32_t>> used;  // extent: [from, to)
  };
  std::vector<Seen> seen(space_.segments());
  // The walk lets others run in between: a segment in which something changed meanwhile is not judged.
  const auto moment = [this](uint32_t index) { return std::pair(space_[index].generation, space_[index].changes); };
  std::vector<std::pair<uint32_t, uint32_t>> began(seen.size());
  for (uint32_t i = 0; i < began.size(); ++i) began[i] = moment(i);
  const auto look = [&](const IndexEntry& entry) {
    ++report.chunks;
    if (entry.packed()) {
      const uint32_t index = geometry.segment_at(entry.offset());
      if (index == kNoSegment || space_[index].role != Role::packed) {
        violation(fmt::format("chunk {} lies at {} outside any packed segment", entry.id.to_string(), entry.offset()));
        return;
      }
      if (index >= seen.size()) return;  // the drive has grown meanwhile
      ++seen[index].live;
      seen[index].bytes += entry.size;
      return;
    }
    for (const auto& run : runs_of(entry)) {
      const uint32_t index = geometry.segment_of(run);
      if (index == kNoSegment || space_[index].role != Role::extent) {
        violation(fmt::format("chunk {} has a run at block {} outside any extent segment", entry.id.to_string(), run.block));
        continue;
      }
      if (index >= seen.size()) continue;
      const auto block = static_cast<uint32_t>(run.block - geometry.block_of(index));
      ++seen[index].live;
      seen[index].bytes += static_cast<uint64_t>(run.blocks) * kBlock;
      seen[index].used.emplace_back(block, block + run.blocks);
    }
  };
  ChunkId from;
  for (int leaf = 1;; ++leaf) {
    const auto entries = index_.leaf_from(from);
    for (const IndexEntry& entry : entries) look(entry);
    if (entries.empty() || from == next_id(entries.back().id)) break;
    from = next_id(entries.back().id);
    if (leaf % kLeavesPerStep == 0) co_await Executor::here().yield();
  }
  for (uint32_t i = 0; i < seen.size(); ++i) {
    if (i % 64 == 63) co_await Executor::here().yield();
    const Segment& s = space_[i];
    if (s.role != Role::free) ++report.segments;
    if (moment(i) != began[i]) continue;
    if (s.live != seen[i].live || s.live_bytes != seen[i].bytes) {
      violation(fmt::format("segment {} counts {} live entries of {} bytes, the index has {} of {}", i, s.live, s.live_bytes, seen[i].live,
                            seen[i].bytes));
    }
    if (s.role != Role::extent) continue;
    auto& used = seen[i].used;
    for (const auto& run : s.free_runs) used.emplace_back(run.block, run.block + run.blocks);
    std::sort(used.begin(), used.end());
    uint32_t at = 0;
    for (const auto& [begin, end] : used) {
      if (begin < at) violation(fmt::format("segment {}: blocks {} to {} belong to two", i, begin, at));
      if (begin > at && s.pending == 0) violation(fmt::format("segment {}: blocks {} to {} belong to nobody", i, at, begin));
      at = std::max(at, end);
    }
    if (at < geometry.data_blocks() && s.pending == 0) violation(fmt::format("segment {}: blocks from {} on belong to nobody", i, at));
  }
  report.space = space();
  co_return report;
}

}  // namespace raw

Task<Result<FsckReport>> fsck_raw_device(std::unique_ptr<BlockDevice> device, bool deep) {
  RawStoreOptions options;
  options.read_only = true;
  options.background = false;
  CO_TRY_ASSIGN(auto store, co_await RawStore::open(std::move(device), options));
  auto report = co_await store->fsck();
  if (report && deep) {
    auto progress = co_await store->scrub({}, UINT64_MAX);
    if (progress) {
      for (const auto& damage : progress->damaged) report->violations.push_back(damage.what);
    } else {
      report = std::move(progress).error();
    }
  }
  (co_await store->close()).ignore("it only read");
  co_return report;
}

}  // namespace quarry::chunk
