// Capacity: how much more can be stored at the default redundancy, the way new writes really choose their places (group_choice.h): drives
// of mixed sizes, drives that share a file system, groups with a full member. Pure function of a topology and of its drives' room.
#pragma once
#include "cluster/drives/drive_set.h"

namespace quarry::cluster {

uint64_t storable_bytes(const Topology& topology);

}  // namespace quarry::cluster
