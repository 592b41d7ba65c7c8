// Format and mount. Mounting for writing ends with a checkpoint, so that nothing is ever recovered twice in different ways.
#include <bit>

#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/aside.h"
#include "chunk/raw/raw_store_impl.h"
#include "chunk/raw/recovery.h"
#include "io/clock.h"

namespace quarry::chunk {

Task<Result<Uuid>> RawStore::format(BlockDevice& device, FormatOptions options) {
  using namespace raw;
  const uint64_t size = device.info().size;
  CO_TRY(check_sectors(device.info()));
  if (!options.force) {
    auto present = co_await SuperblockSet::load(device);
    if (present) {
      co_return fail(Code::already_exists, "{}: holds drive {} of cluster {}: force formatting to lose it", device.info().path,
                     present->superblock().drive.to_string(), present->superblock().cluster.to_string());
    }
    if (present.error().code() == Code::device_gone) co_return std::move(present).error();
    if (present.error().code() != Code::not_found)
      co_return std::move(present).error().with("there was a Quarry store here; force formatting to lose it");
  }
  if (options.label.size() > kLabelMax) co_return fail(Code::too_large, "a label of {} bytes: at most {}", options.label.size(), kLabelMax);
  if (options.pack_limit > kPackLimitMax)
    co_return fail(Code::invalid_argument, "pack limit {}: at most {}", options.pack_limit, kPackLimitMax);
  const uint64_t segment_size = options.segment_size != 0 ? options.segment_size : default_segment_size(size);
  CO_TRY_ASSIGN(const Layout layout, plan_layout(size, segment_size));
  if (2 * lane_reserve(layout.segments) > lane_size(segment_size)) {
    co_return fail(Code::invalid_argument, "{}: {} segments of {} bytes are more than the log can list: use larger segments",
                   device.info().path, layout.segments, segment_size);
  }
  Superblock superblock;
  superblock.drive = options.drive.is_nil() ? Executor::here().random().uuid() : options.drive;
  superblock.cluster = options.cluster;
  superblock.device_size = size;
  superblock.segment_size = segment_size;
  superblock.segment_count = layout.segments;
  superblock.pack_limit = options.pack_limit != 0 ? options.pack_limit : kPackLimit;
  superblock.log_segment = 0;
  superblock.clean = true;
  superblock.clean_sequence = 1;
  superblock.log_epoch = 1;
  superblock.salt = Executor::here().random().u64();
  superblock.zones = layout.zones;
  superblock.spans = layout.spans;

  if (device.info().supports_discard) (co_await device.discard(0, size)).ignore("a hint");
  // The log is written all over, so that later its frames are pure overwrites.
  const Journal::Place place = log_place(superblock);
  Buffer zero(1 * kMiB);
  std::memset(zero.data(), 0, zero.size());
  for (uint64_t at = 0; at < 2 * place.lane_bytes; at += zero.size()) {
    const size_t bytes = std::min<uint64_t>(zero.size(), 2 * place.lane_bytes - at);
    CO_TRY(co_await device.write(place.offset + at, zero.view().first(bytes), Durability::volatile_));
  }
  SegmentSlot slot;
  slot.drive = superblock.drive;
  slot.segment = superblock.log_segment;
  slot.generation = 1;
  slot.sequence = 1;
  slot.role = Role::log;
  uint32_t slot_crc = 0;
  const Buffer slot_bytes = encode_slot(slot, segment_size, &slot_crc);
  const Geometry geometry(superblock);
  CO_TRY(co_await device.write(geometry.slot_offset(slot.segment, slot.sequence), slot_bytes, Durability::volatile_));
  std::string records;
  encode_record(TableRecord{0, 1, {{slot.sequence, slot_crc, slot.generation, slot.role, slot.state}}}, records);
  const LogFrame frame{superblock.drive, 1, 0, 0, 0, 1, 1, log_frame_blocks(records.size())};
  uint32_t crc = 0;
  const Buffer frame_bytes = encode_log_frame(frame, records, superblock.salt, &crc);
  CO_TRY(co_await device.write(place.offset + place.lane_at(1) * place.lane_bytes, frame_bytes, Durability::volatile_));
  CO_TRY(co_await device.flush());
  CO_TRY(co_await SuperblockSet::create(device, superblock, options.label));
  co_return superblock.drive;
}

namespace raw {

Task<Result<void>> RawStoreImpl::mount() {
  if (!options_.read_only) CO_TRY(co_await take_ownership());
  const Superblock superblock = supers_.superblock();
  CO_TRY_ASSIGN(Recovered recovered, co_await recover(*device_, superblock));
  report_ = std::move(recovered.report);
  co_await aside(recovered.entries.size() + space_.segments(), [&] { adopt(recovered); });
  if (options_.read_only) {
    become(StoreState::read_only, "opened read-only");
    mounted_ = true;
    co_return Result<void>{};
  }
  CO_TRY(co_await begin_serving(recovered));
  mounted_ = true;
  consider_compaction();
  co_return Result<void>{};
}

void RawStoreImpl::adopt(Recovered& recovered) {
  const Superblock& superblock = supers_.superblock();
  AllocationPolicy policy = options_.policy;
  if (policy == AllocationPolicy::automatic) {
    policy = device_->info().drive_class == DriveClass::hdd ? AllocationPolicy::ascending : AllocationPolicy::spread;
  }
  space_.reset(Geometry(superblock), policy);
  for (uint32_t i = 0; i < space_.segments(); ++i) {
    space_[i] = std::move(recovered.segments[i]);
    // Where a write failed another one is tried: drives mend a place when it is written.
    if (space_[i].role != Role::packed) space_[i].state = SegmentState::open;
  }
  Segment& log = space_[superblock.log_segment];
  if (log.role != Role::log) {
    const uint32_t sequence = log.slot_sequence, generation = log.generation;
    log = Segment{};
    log.role = Role::log;
    log.slot_sequence = sequence;
    log.generation = generation + 1;
    log.dirty = true;
  }
  space_.recount();
  const Geometry& geometry = space_.geometry();
  multi_ = std::move(recovered.multi);

  // Which blocks of each extent segment are whose; where two claim one, neither order of events can be told: the later place yields.
  std::vector<IndexEntry>& entries = recovered.entries;
  std::vector<bool> dropped(entries.size());
  struct Used {
    uint32_t block, blocks;
    size_t entry;
  };
  std::vector<std::vector<Used>> used(space_.segments());
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].packed()) {
      const uint32_t index = geometry.segment_at(entries[i].offset());
      dropped[i] = index == kNoSegment || space_[index].role != Role::packed;
      continue;
    }
    for (const auto& run : runs_of(entries[i])) {
      const uint32_t index = geometry.segment_of(run);
      if (index == kNoSegment || space_[index].role != Role::extent) {
        dropped[i] = true;
        continue;
      }
      used[index].push_back({static_cast<uint32_t>(run.block - geometry.block_of(index)), run.blocks, i});
    }
  }
  for (auto& runs : used) {
    std::sort(runs.begin(), runs.end(), [](const Used& a, const Used& b) { return a.block < b.block; });
    uint32_t at = 0;
    for (const auto& run : runs) {
      if (run.block < at)
        dropped[run.entry] = true;
      else if (!dropped[run.entry])
        at = run.block + run.blocks;
    }
  }
  for (uint32_t i = 0; i < space_.segments(); ++i) {
    Segment& s = space_[i];
    if (s.role != Role::extent) continue;
    std::vector<FreeRun> taken;
    taken.reserve(used[i].size());
    for (const auto& run : used[i]) {
      if (dropped[run.entry]) continue;
      taken.push_back({run.block, run.blocks});
      ++s.live;
      s.live_bytes += static_cast<uint64_t>(run.blocks) * kBlock;
      stored_bytes_ += static_cast<uint64_t>(run.blocks) * kBlock;
    }
    space_.restore_extents(i, taken);
    used[i] = {};
  }
  std::vector<IndexEntry> kept;
  kept.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const IndexEntry& entry = entries[i];
    if (dropped[i]) {
      report_.damage.push_back(fmt::format("chunk {} at {} shares its place with another: dropped", entry.id.to_string(), entry.offset()));
      LOG_ERROR("a drive is damaged", {"device", device_->info().path}, {"what", report_.damage.back()});
      multi_.erase(entry.id);
      continue;
    }
    if (entry.packed()) {
      Segment& s = space_[geometry.segment_at(entry.offset())];
      ++s.live;
      s.live_bytes += entry.size;
      stored_bytes_ += round_up(entry.size, kItemAlignment) + kFrameItemSize;
    }
    payload_bytes_ += entry.size;
    kept.push_back(entry);
  }
  recovered.entries = {};
  index_.load(std::move(kept));

  // One open packed segment for each stream: the one with the most room. The others are done.
  for (auto& open : recovered.open) {
    Segment& s = space_[open.segment];
    if (s.suspect) {  // to be emptied, not continued
      retire_packed(open.segment);
      continue;
    }
    const uint8_t stream = s.stream < kStreams ? s.stream : 0;
    const uint32_t current = streams_[stream]->segment();
    if (current == kNoSegment || space_[current].data_end > s.data_end) {
      if (current != kNoSegment) retire_packed(current);
      streams_[stream]->resume(open.segment, std::move(open.unlisted));
    } else {
      retire_packed(open.segment);
    }
  }
  for (uint32_t i = 0; i < space_.segments(); ++i) {
    const Segment& s = space_[i];
    if (s.live > 0 || i == superblock.log_segment) continue;
    if (s.role == Role::extent || (s.role == Role::packed && s.state != SegmentState::open)) space_.give_segment(i);
  }
}

// No frame is added to this segment any more. What no inventory lists is scanned at each mount.
void RawStoreImpl::retire_packed(uint32_t segment) {
  Segment& s = space_[segment];
  s.state = s.listed_end == s.data_end ? SegmentState::sealed : SegmentState::retired;
  s.dirty = true;
}

Task<Result<void>> RawStoreImpl::take_back(TablePart part) {
  Buffer nothing(kBlock);
  std::memset(nothing.data(), 0xff, nothing.size());  // no block of a table is that, but many are zero
  Result<void> erased;
  // Any block of it will do: the frame's checksum covers all.
  for (uint32_t block = 0; block < part.blocks; ++block) {
    CO_TRY(co_await look_at_owner());
    erased = co_await device_->write(part.offset + uint64_t{block} * kBlock, nothing, Durability::durable);
    if (erased || erased.error().code() != Code::io_error) co_return erased;
  }
  // All refused, and perhaps one of them has landed: a frame put behind what is no frame any more would be taken for one after a gap.
  Buffer frame(size_t{part.blocks} * kBlock);
  CO_TRY(co_await read_tolerant(*device_, part.offset, frame.mutable_view()));
  uint32_t crc = 0;
  const auto found = decode_log_frame(frame, drive_id(), supers_.superblock().salt, &crc);
  if (!found) co_return Result<void>{};
  co_return erased;
}

Task<Result<void>> RawStoreImpl::begin_serving(const Recovered& recovered) {
  // To recover may have taken minutes; and where nobody had to wait, another node may be opening the drive just now: one sees the other.
  CO_TRY(co_await look_at_owner_now());
  Superblock next = supers_.superblock();
  next.clean = false;
  ++next.mounts;
  next.log_epoch = std::max(next.log_epoch, recovered.position.epoch);
  // Numbers of records are not given twice, also where the frames that bore them are taken back.
  Journal::Position position = recovered.position;
  if (!recovered.unfinished.empty()) next.clean_sequence = std::max(next.clean_sequence, position.sequence - 1);
  report_.superblocks_repaired = supers_.damaged_copies();
  // Both slots of each zone, where a copy was bad.
  if (supers_.damaged_copies() > 0) {
    CO_TRY(co_await update_superblock(next));
    std::string text = supers_.label();
    CO_TRY(co_await supers_.set_label(*device_, text));
    CO_TRY(co_await supers_.set_label(*device_, std::move(text)));
  }
  CO_TRY(co_await update_superblock(std::move(next)));
  for (auto part = recovered.unfinished.rbegin(); part != recovered.unfinished.rend(); ++part) {
    auto erased = co_await take_back(*part);
    if (!erased && erased.error().code() != Code::io_error) co_return noted(std::move(erased).error(), true);
    if (!erased) {  // goes on behind it: there may be room
      note_error(erased.error(), true);
      break;
    }
    position = part->before;
  }
  journal_.start(*device_, drive_id(), supers_.superblock().salt, log_place(supers_.superblock()), position);
  journal_.set_other_lane_free(!recovered.resume_lane);
  co_await run_checkpoint(!recovered.resume_lane);
  // A gap in the lane that was gone on in is there until the next epoch: not left for a mount after this one to find again.
  if (checkpoint_result_ && recovered.resume_lane && recovered.log_damaged) co_await run_checkpoint(true);
  // What is there can be read, and moved to other drives, also where no checkpoint can be written. (A full host has room again some time,
  // and a drive that is gone may come back: then it is opened anew.)
  if (!checkpoint_result_ && health_.state == StoreState::read_only) {
    const Code code = checkpoint_result_.error().code();
    if (code == Code::io_error || code == Code::internal) co_return Result<void>{};
  }
  co_return checkpoint_result_;
}

}  // namespace raw
}  // namespace quarry::chunk
