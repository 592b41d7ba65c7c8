// Group choice: the placement group that a new write goes to. Usually the one its id hashes to; another one when a member of that group is
// down or has no room, so that one full drive does not stop writes while others have room. Where no group of the wanted width has room, a
// narrower layout with the same number of parity shards (mirror copies) may have: fewer data shards, never less protection.
// Pure functions of a topology and of what its drives say of their room.
#pragma once
#include <optional>

#include "cluster/drives/drive_set.h"
#include "cluster/map/data_layout.h"

namespace quarry::cluster {

enum class GroupFitness : uint8_t {
  good,      // every member is writable and has room
  degraded,  // members that are there have room, others are away: the write would lack shards until repair
  no_copy,   // degraded, and the member that keeps the full copy is among those that are away (whole:k+m)
  full,      // a member that is there has no room
};

// What a write brings, for judging room.
struct WriteDemand {
  Redundancy redundancy;
  uint64_t size = 0;        // bytes, if known; 0: unknown
  uint32_t pack_limit = 0;  // up to here it is mirrored m + 1 times instead
};

// Bytes that the member at this position should have free for this write: its share if the size is known, and a margin for others that
// write meanwhile.
uint64_t room_wanted(const WriteDemand& demand, unsigned shard, const Drive& drive);

GroupFitness judge_group(const Topology& topology, const WriteDemand& demand, GroupId group);

// The best group for this write, looking from `start` on: the first of the best fitness. nullopt: all are full.
std::optional<GroupId> choose_group(const Topology& topology, const WriteDemand& demand, GroupId start);

// The next narrower redundancy with the same m: ec:4+2 -> ec:3+2 -> ec:2+2 -> mirror:3. nullopt: there is none.
// whole:3+1 -> whole:2+1 -> mirror:3, which survives as many losses (whole:1+1 would be the same bytes with fewer names).
std::optional<Redundancy> narrower(const Redundancy& redundancy);

}  // namespace quarry::cluster
