#include "cluster/group_choice.h"

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
  for (const Member& member : members) {
    const Drive* drive = topology.drive(member.at.drive);
    if (drive == nullptr || !drive->writable()) {
      fitness = GroupFitness::degraded;
      continue;
    }
    if (drive->room() < room_wanted(demand, *drive)) return GroupFitness::full;
  }
  return fitness;
}

}  // namespace

uint64_t room_wanted(const WriteDemand& demand, const Drive& drive) {
  const uint64_t share = packed(demand) ? demand.size : div_up(demand.size, demand.redundancy.k);
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
  std::optional<GroupId> second_best;
  const uint32_t count = topology.map.group_count;
  for (uint32_t i = 0; i < count; ++i) {
    const auto group = static_cast<GroupId>((start + i) % count);
    const GroupFitness fitness = judge_group(topology, demand, group);
    if (fitness == GroupFitness::good) return group;
    if (fitness == GroupFitness::degraded && !second_best) second_best = group;
  }
  return second_best;
}

std::optional<Redundancy> narrower(const Redundancy& redundancy) {
  if (redundancy.kind != RedundancyKind::erasure || redundancy.k < 2) return std::nullopt;
  if (redundancy.k == 2) return Redundancy{RedundancyKind::mirror, 1, redundancy.m};
  return Redundancy{RedundancyKind::erasure, static_cast<uint8_t>(redundancy.k - 1), redundancy.m};
}

}  // namespace quarry::cluster
