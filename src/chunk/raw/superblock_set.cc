#include "chunk/raw/superblock_set.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/log.h"
#include "chunk/raw/log_reader.h"
#include "io/sync.h"

namespace quarry::chunk::raw {
namespace {

std::vector<uint64_t> candidate_zones(uint64_t device_size) {
  std::vector<uint64_t> zones;
  const uint64_t last = end_zone(device_size);
  for (size_t i = 0; i < kZoneCandidates.size(); ++i) {
    if (zone_candidate(i) + kZoneSize <= last) zones.push_back(zone_candidate(i));
  }
  zones.push_back(last);
  return zones;
}

// One write per zone at the same place inside it, then a flush. Succeeds when at least min(2, zones) zones took it.
Task<Result<void>> write_zones(BlockDevice& device, const std::vector<uint64_t>& zones, std::vector<Buffer> blocks,
                               std::vector<uint64_t> at) {
  size_t good = 0;
  std::optional<Error> error;
  for (size_t i = 0; i < zones.size(); ++i) {
    auto written = co_await device.write(at[i], blocks[i], Durability::volatile_);
    if (written) {
      ++good;
      continue;
    }
    LOG_WARNING("a superblock zone cannot be written", {"device", device.info().path}, {"offset", at[i]},
                {"error", written.error().to_string()});
    error = std::move(written).error();
    if (error->code() == Code::device_gone) co_return std::move(*error);
  }
  if (good < std::min<size_t>(2, zones.size())) co_return std::move(*error);
  CO_TRY(co_await device.flush());
  co_return Result<void>{};
}

}  // namespace

std::optional<size_t> agree(const std::vector<SuperblockCopy>& copies) {
  std::map<Uuid, size_t> votes;
  for (const auto& copy : copies) ++votes[copy.superblock.drive];
  const Uuid* drive = nullptr;
  for (const auto& copy : copies) {  // a tie goes to the copy that lies first
    if (drive == nullptr || votes[copy.superblock.drive] > votes[*drive]) drive = &copy.superblock.drive;
  }
  if (drive == nullptr) return std::nullopt;
  struct Group {
    size_t example = 0;
    size_t count = 0;
  };
  std::map<uint64_t, std::map<uint32_t, Group>, std::greater<>> sequences;
  for (size_t i = 0; i < copies.size(); ++i) {
    if (copies[i].superblock.drive != *drive) continue;
    Group& group = sequences[copies[i].superblock.sequence][copies[i].identity];
    if (group.count++ == 0) group.example = i;
  }
  for (const auto& [sequence, groups] : sequences) {
    const Group* best = nullptr;
    for (const auto& [identity, group] : groups) {
      if (best == nullptr || group.count > best->count) best = &group;
    }
    if (best->count >= 2 || sequences.size() == 1) return best->example;
    const auto before = sequences.find(sequence - 1);
    if (before != sequences.end() && before->second.contains(copies[best->example].superblock.previous)) return best->example;
  }
  return std::nullopt;
}

Result<void> check_sectors(const DeviceInfo& info) {
  if (info.block_size <= kBlock) return {};
  return fail(Code::incompatible,
              "{} has sectors of {} bytes; a raw drive needs {} or less, since a power cut while one is written may take what else lies in "
              "it: make a file system on it and use a directory there, as kfs:DIRECTORY or dir:DIRECTORY",
              info.path, info.block_size, kBlock);
}

Task<Result<SuperblockSet>> SuperblockSet::load(BlockDevice& device) {
  CO_TRY(check_sectors(device.info()));
  SuperblockSet set;
  std::vector<uint64_t> zones = candidate_zones(device.info().size);
  std::vector<SuperblockCopy> copies;
  std::set<uint64_t> read_zones;
  uint32_t bad = 0;
  std::optional<Error> incompatible, unreadable;
  Buffer block(2 * kBlock);
  std::map<uint64_t, uint32_t> copies_in_zone;
  for (size_t i = 0; i < zones.size(); ++i) {
    const uint64_t zone = zones[i];
    if (!read_zones.insert(zone).second) continue;
    for (uint64_t slot = 0; slot < 2; ++slot) {
      auto got = co_await device.read(zone + slot * kBlock, block.mutable_view().first(kBlock));
      if (!got) {
        if (got.error().code() == Code::device_gone) co_return std::move(got).error();
        unreadable = std::move(got).error();
        continue;
      }
      auto decoded = decode_superblock(block.view().first(kBlock), zone);
      if (!decoded) {
        if (decoded.error().code() == Code::incompatible)
          incompatible = std::move(decoded).error();
        else if (decoded.error().code() == Code::corrupt)
          ++bad;
        continue;
      }
      if (decoded->sequence % 2 != slot) {
        ++bad;  // a copy of the other slot: misdirected
        continue;
      }
      const auto identity = superblock_identity(block.view().first(kBlock));
      if (decoded->device_size <= device.info().size) {
        for (const uint64_t more : decoded->zones) zones.push_back(more);
      }
      copies.push_back({zone, identity, std::move(*decoded)});
    }
  }
  const auto chosen = agree(copies);
  if (!chosen) {
    if (incompatible) co_return std::move(*incompatible);
    if (!copies.empty() || bad > 0)
      co_return fail(Code::corrupt, "{}: no superblock copies agree ({} valid, {} damaged)", device.info().path, copies.size(), bad);
    if (unreadable) co_return std::move(*unreadable);
    co_return fail(Code::not_found, "{}: not a Quarry device: no superblock", device.info().path);
  }
  if (incompatible) co_return std::move(*incompatible);  // a newer program wrote here
  set.superblock_ = copies[*chosen].superblock;
  set.identity_ = copies[*chosen].identity;
  const Superblock& s = set.superblock_;
  if ((s.refuse & ~kKnownRefuse) != 0) {
    co_return fail(Code::incompatible, "{}: uses features this program does not know (refuse bits {:#x}): use a newer program",
                   device.info().path, s.refuse & ~kKnownRefuse);
  }
  if (s.device_size > device.info().size) {
    co_return fail(Code::corrupt, "{}: the device has shrunk from {} to {} bytes: restore its size", device.info().path, s.device_size,
                   device.info().size);
  }
  for (const uint64_t zone : s.zones) {
    const bool good =
        std::any_of(copies.begin(), copies.end(), [&](const SuperblockCopy& c) { return c.zone == zone && c.identity == set.identity_; });
    if (!good) ++set.damaged_;
  }
  CO_TRY(co_await set.load_label(device));
  co_return set;
}

Task<Result<void>> SuperblockSet::load_label(BlockDevice& device) {
  // Newest valid copy. A label is rewritten as a whole, so any valid copy is one that was set.
  Buffer slot(kLabelSlotSize);
  bool found = false;
  std::map<uint64_t, uint32_t> copies;  // of each sequence
  for (const uint64_t zone : superblock_.zones) {
    for (uint64_t i = 0; i < 2; ++i) {
      auto got = co_await device.read(label_at(zone, i), slot.mutable_view());
      if (!got) {
        if (got.error().code() == Code::device_gone) co_return std::move(got).error();
        continue;
      }
      auto label = decode_label(slot, zone);
      if (!label || label->drive != superblock_.drive || label->sequence % 2 != i) continue;
      ++copies[label->sequence];
      if (!found || label->sequence > label_.sequence) label_ = std::move(*label);
      found = true;
    }
  }
  label_.drive = superblock_.drive;
  label_lost_ = !found;
  damaged_ += static_cast<uint32_t>(superblock_.zones.size()) - (found ? copies[label_.sequence] : 0);
  co_return Result<void>{};
}

Task<Result<SuperblockSet>> SuperblockSet::create(BlockDevice& device, Superblock superblock, std::string label) {
  SuperblockSet set;
  Buffer zero(2 * kBlock);
  std::memset(zero.data(), 0, zero.size());
  for (const uint64_t zone : candidate_zones(device.info().size)) CO_TRY(co_await device.write(zone, zero, Durability::volatile_));
  CO_TRY(co_await device.flush());
  set.superblock_ = superblock;
  set.superblock_.sequence = 0;
  set.label_.drive = superblock.drive;
  CO_TRY(co_await set.set_label(device, std::move(label)));
  CO_TRY(co_await set.update(device, std::move(superblock)));
  // Twice, so that both slots of each zone hold this drive's.
  Superblock again = set.superblock_;
  CO_TRY(co_await set.update(device, std::move(again)));
  co_return set;
}

Task<Result<bool>> SuperblockSet::is_newest(BlockDevice& device) const {
  const std::vector<uint64_t> zones = superblock_.zones;
  std::vector<Buffer> blocks;
  std::vector<Task<Result<uint64_t>>> reads;  // at once: on a rotating drive in one sweep
  blocks.reserve(zones.size());
  for (const uint64_t zone : zones) {
    blocks.emplace_back(2 * kBlock);
    reads.push_back(read_tolerant(device, zone, blocks.back().mutable_view()));
  }
  auto got = co_await when_all(std::move(reads));
  std::optional<Error> error;
  for (auto& one : got) {
    if (!one) error = std::move(one).error();
  }
  if (error) co_return std::move(*error);
  size_t ours = 0, foreign = 0;  // copies of this drive, and of others
  for (size_t i = 0; i < zones.size(); ++i) {
    for (uint64_t slot = 0; slot < 2; ++slot) {
      const ByteView block = blocks[i].view().subspan(slot * kBlock, kBlock);
      const auto found = decode_superblock(block, zones[i]);
      if (!found && found.error().code() == Code::incompatible) co_return false;
      if (!found) continue;
      if (found->drive != superblock_.drive) {
        ++foreign;
        continue;
      }
      ++ours;
      if (found->sequence < superblock_.sequence) continue;
      const uint32_t identity = superblock_identity(block);
      if (found->sequence == superblock_.sequence && identity == identity_) continue;
      if (std::find(failed_.begin(), failed_.end(), identity) == failed_.end()) co_return false;
    }
  }
  // Somebody formatted it. A few copies of another drive may be older than this one: in a zone that could not be written since it grew.
  co_return foreign == 0 || ours > foreign;
}

Task<Result<void>> SuperblockSet::update(BlockDevice& device, Superblock next) {
  next.sequence = superblock_.sequence + 1;
  next.previous = identity_;
  std::vector<Buffer> blocks;
  std::vector<uint64_t> at;
  for (const uint64_t zone : next.zones) {
    blocks.push_back(encode_superblock(next, zone));
    at.push_back(superblock_at(zone, next.sequence));
  }
  const uint32_t identity = superblock_identity(blocks.front());
  const std::vector<uint64_t> zones = next.zones;
  auto written = co_await write_zones(device, zones, std::move(blocks), std::move(at));
  if (!written) {
    if (std::find(failed_.begin(), failed_.end(), identity) == failed_.end()) failed_.push_back(identity);
    co_return written;
  }
  superblock_ = std::move(next);
  identity_ = identity;
  co_return Result<void>{};
}

Task<Result<void>> SuperblockSet::set_label(BlockDevice& device, std::string text) {
  Label next{superblock_.drive, label_.sequence + 1, std::move(text)};
  std::vector<Buffer> slots;
  std::vector<uint64_t> at;
  const std::vector<uint64_t> zones = superblock_.zones;
  for (const uint64_t zone : zones) {
    slots.push_back(encode_label(next, zone));
    at.push_back(label_at(zone, next.sequence));
  }
  CO_TRY(co_await write_zones(device, zones, std::move(slots), std::move(at)));
  label_ = std::move(next);
  label_lost_ = false;
  co_return Result<void>{};
}

}  // namespace quarry::chunk::raw
