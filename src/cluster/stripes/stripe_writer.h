// StripeWriter: cuts a write into stripes, computes parity, puts the shards of a stripe in parallel and several stripes at once.
//
// Memory: a writer holds a permit for one stripe (data and parity) from its first byte to its end; memory for further stripes in flight
// comes from another budget and only if it is to be had at once. So writers cannot starve each other into a deadlock, and all of them
// together stay inside ClusterTuning::write_memory_bytes. When memory gets short, new writers use smaller shards.
// Data is not copied where it comes in pieces of 64 KiB or more: shards are slices of the caller's buffers.
#pragma once
#include <memory>

#include "cluster/data_plane.h"

namespace quarry::cluster {

struct Plane;

std::unique_ptr<DataWriter> make_stripe_writer(Plane& plane, const WriteOptions& options);

}  // namespace quarry::cluster
