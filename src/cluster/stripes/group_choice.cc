#include "cluster/stripes/group_choice.h"

namespace quarry::cluster {
namespace {

// Writes of unknown size, and those that run beside this one, need room too: a drive that has less than this is passed over.
constexpr uint64_t kMarginMax = 64 * kMiB;
constexpr unsigned kMarginShare = 64;  // of the device, at most

uint64_t margin(const Drive& drive) { return std::min<uint64_t>(kMarginMax, drive.size_bytes() / kMarginShare); }

bool packed(const WriteDemand& demand) {
  return demand.redundancy.kind == RedundancyKind::erasure && demand.size > 0 && demand.size <= demand.pack_limit;
}

GroupFitness judge_members(const Topology& topology, const Members& members, const WriteDemand& demand) {
  GroupFitness fitness = GroupFitness::good;
  for (unsigned shard = 0; shard < members.size(); ++shard) {
    const Drive* drive = topology.drive(members[shard].at.drive);
    if (drive == nullptr || !drive->writable()) {
      const bool only_copy = demand.redundancy.kind == RedundancyKind::whole && shard == 0;
      fitness = std::max(fitness, only_copy ? GroupFitness::no_copy : GroupFitness::degraded);
      continue;
    }
    uint64_t wanted = room_wanted(demand, shard, *drive);
    // Members on one file system take from the same room.
    if (topology.sharers(drive->number()) > 1) {
      const std::string& file_system = topology.file_system[drive->number()];
      for (unsigned other = 0; other < members.size(); ++other) {
        const uint32_t number = members[other].at.drive;
        const bool shares = other != shard && number < topology.file_system.size() && topology.file_system[number] == file_system;
        if (shares) wanted += room_wanted(demand, other, *drive);
      }
    }
    if (drive->room() < wanted) return GroupFitness::full;
  }
  return fitness;
}

}  // namespace

uint64_t room_wanted(const WriteDemand& demand, unsigned shard, const Drive& drive) {
  const uint64_t share = packed(demand) || demand.redundancy.is_copy(shard) ? demand.size : div_up(demand.size, demand.redundancy.k);
  return share + margin(drive);
}

GroupFitness judge_group(const Topology& topology, const WriteDemand& demand, GroupId group) {
  GroupFitness fitness = GroupFitness::good;
  auto look = [&](unsigned width) {
    const Members* members = topology.map.find_members(static_cast<uint8_t>(width), group);
    if (members != nullptr) fitness = std::max(fitness, judge_members(topology, *members, demand));
  };
  // A write that may turn out small goes to fewer members of the group.
  const bool may_pack = demand.redundancy.kind == RedundancyKind::erasure && (packed(demand) || demand.size == 0);
  if (may_pack) look(demand.redundancy.m + 1u);
  if (!packed(demand)) look(demand.redundancy.width());
  return fitness;
}

std::optional<GroupId> choose_group(const Topology& topology, const WriteDemand& demand, GroupId start) {
  std::optional<GroupId> best;
  GroupFitness best_fitness = GroupFitness::full;
  const uint32_t count = topology.map.group_count;
  for (uint32_t i = 0; i < count; ++i) {
    const auto group = static_cast<GroupId>((start + i) % count);
    const GroupFitness fitness = judge_group(topology, demand, group);
    if (fitness == GroupFitness::good) return group;
    if (fitness >= best_fitness) continue;
    best = group;
    best_fitness = fitness;
  }
  return best;
}

std::optional<Redundancy> narrower(const Redundancy& redundancy) {
  if (redundancy.kind == RedundancyKind::mirror || redundancy.k < 2) return std::nullopt;
  if (redundancy.k == 2) return Redundancy{RedundancyKind::mirror, 1, static_cast<uint8_t>(redundancy.losses())};
  return Redundancy{redundancy.kind, static_cast<uint8_t>(redundancy.k - 1), redundancy.m};
}

}  // namespace quarry::cluster
