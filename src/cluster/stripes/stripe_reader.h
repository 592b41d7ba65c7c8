// StripeReader: reads the data shards of a range in order, several ahead, each piece a slice of what the drive or the cache holds.
//
// A shard that cannot be read (drive away, chunk missing or damaged) is read from where it was before a move, then rebuilt from any k
// others of its stripe, and repair is asked for. A drive that answers late is raced against that rebuild (a hedge), within 5 % of the bytes
// read; a drive that is slow all the time is read around at once.
#pragma once
#include <memory>

#include "cluster/data_plane.h"

namespace quarry::cluster {

struct Plane;

std::unique_ptr<DataReader> make_stripe_reader(Plane& plane, const DataLayout& layout, uint64_t offset, uint64_t length,
                                               CachePolicy policy);

// One whole shard as stored, from wherever it can be had: its places, else rebuilt. For repair and scrub; no cache.
//   avoid_own: do not read it from its own place (known to be bad); rebuild it
// Errors: data_lost (fewer than k shards can be read).
Task<Result<SharedBytes>> rebuild_shard(Plane& plane, DataLayout layout, uint32_t stripe, unsigned shard, bool avoid_own);

}  // namespace quarry::cluster
