// Placement: which drives hold the shards of a placement group: weighted rendezvous hashing in two dimensions, failure domain first,
// then drive. Pure and in integers only: every program on every machine computes the same, for ever (the result is part of the
// on-disk contract: groups without a row in the map lie where this says). Page: docs/formats/cluster-keys.md.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "cluster/map/chunk_ids.h"

namespace quarry::cluster {

struct PlacementDrive {
  uint32_t number = 0;
  Uuid id;
  std::string domain;
  uint64_t weight = 1;  // > 0; share of the data
  bool operator==(const PlacementDrive&) const = default;
};

// All drives in order of preference for a group: first the best drive of each domain, in order of the domains; then the second drives;
// and so on. The first `width` are the members of a group of that width, so shards share a domain only when domains run out.
// Adding a drive moves to it only what it wins; losing one moves only what it held.
std::vector<uint32_t> rank_drives(const std::vector<PlacementDrive>& drives, GroupId group);

// The group of a write: uniform over group_count.
GroupId group_of(WriteId write_id, uint32_t group_count);

// -log2(hash / 2^64) in units of 2^-32; hash 0 counts as 1. Exposed for tests.
uint64_t negative_log2(uint64_t hash);

}  // namespace quarry::cluster
