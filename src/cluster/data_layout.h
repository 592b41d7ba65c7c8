// DataLayout: where the bytes of one write lie: stored in object records and data rows. Page: docs/formats/stripe.md.
#pragma once
#include <cstdint>
#include <string>

#include "base/coding.h"
#include "cluster/chunk_ids.h"
#include "cluster/redundancy.h"

namespace quarry::cluster {

// A write of `size` bytes is cut into stripes of k * shard_size bytes; stripe s has k + m chunks (kind data, serial write_id, the
// group, stripe s, shard i) of shard_size bytes, shard i on member i of the group. The last stripe is shorter: its shards shrink to
// ceil(rest / k), so nothing is padded to full size (docs/formats/stripe.md). A mirror is k = 1: every shard holds the same bytes.
struct DataLayout {
  WriteId write_id = 0;
  GroupId group = 0;
  Redundancy redundancy;
  uint64_t size = 0;        // bytes of data
  uint32_t shard_size = 0;  // bytes of each shard in a full stripe

  uint64_t stripe_bytes() const { return uint64_t{shard_size} * redundancy.k; }
  uint32_t stripe_count() const { return size == 0 ? 0 : static_cast<uint32_t>((size + stripe_bytes() - 1) / stripe_bytes()); }
  bool operator==(const DataLayout&) const = default;
  void encode(std::string& out) const;
  static Result<DataLayout> decode(Decoder& in);
};

}  // namespace quarry::cluster
