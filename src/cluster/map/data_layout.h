// DataLayout: where the bytes of one write lie: stored in object records and data rows. Page: docs/formats/stripe.md.
#pragma once
#include <cstdint>
#include <string>

#include "base/coding.h"
#include "cluster/map/chunk_ids.h"
#include "cluster/map/redundancy.h"

namespace quarry::cluster {

// A write of `size` bytes is cut into stripes of k * shard_size bytes; stripe s has k + m chunks (kind data, serial write_id, the
// group, stripe s, shard i) of shard_size bytes, shard i on member i of the group. The last stripe is shorter: its shards shrink to
// ceil(rest / k), so nothing is padded to full size (docs/formats/stripe.md). A mirror is k = 1: every shard holds the same bytes.
// Whole: shard 0 holds the bytes of the stripe as they are, shard 1 + i is shard i of the code.
struct DataLayout {
  WriteId write_id = 0;
  GroupId group = 0;
  Redundancy redundancy;
  uint64_t size = 0;        // bytes of data
  uint32_t shard_size = 0;  // bytes of each shard of the code in a full stripe

  uint64_t stripe_bytes() const { return uint64_t{shard_size} * redundancy.k; }
  uint32_t stripe_count() const { return size == 0 ? 0 : static_cast<uint32_t>((size + stripe_bytes() - 1) / stripe_bytes()); }

  // Data bytes in a stripe: stripe_bytes() but for the last.
  uint64_t stripe_size(uint32_t stripe) const;
  // Length of the code words of a stripe: of each parity shard, and of each data shard with the zeros that are thought behind its end.
  uint32_t stripe_shard_size(uint32_t stripe) const;
  // Data bytes of each of the shards that reads go to while all is well, but for the last.
  uint32_t read_shard_size(uint32_t stripe) const {
    return redundancy.kind == RedundancyKind::whole ? static_cast<uint32_t>(stripe_size(stripe)) : stripe_shard_size(stripe);
  }
  // Bytes of a shard as stored: trailing data shards of a short stripe are cut where the data ends; 0: the shard is not stored at all.
  uint32_t stored_size(uint32_t stripe, unsigned shard) const;
  // What all its chunks occupy.
  uint64_t stored_bytes() const;

  bool operator==(const DataLayout&) const = default;
  void encode(std::string& out) const;
  static Result<DataLayout> decode(Decoder& in);
};

// Shard size of a stripe of k data shards that holds `bytes` of data. Part of the format.
uint32_t shard_size_for(uint64_t bytes, unsigned k);

// The largest shard size of a full stripe that the format allows: a full copy is one chunk a stripe.
uint32_t shard_size_max(const Redundancy& redundancy);

}  // namespace quarry::cluster
