// Redundancy: how many pieces a datum has and how many may be lost; and the named profiles.
//
//   erasure  k data shards and m parity shards; any k give the data
//   mirror   k = 1: every shard is the data
//   whole    shard 0 is the data, a full copy; shards 1 .. k + m are the shards of an erasure code of the same data, slices of 1/k each,
//            that are read only where the copy cannot be (docs/decisions/0009-whole-and-slices.md)
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quarry::cluster {

enum class RedundancyKind : uint8_t { erasure = 1, mirror = 2, whole = 3 };  // frozen numbers

struct Redundancy {
  RedundancyKind kind = RedundancyKind::erasure;
  uint8_t k = 1;  // data shards of the code (mirror: 1)
  uint8_t m = 0;  // parity shards of the code (mirror: further copies)
  bool operator==(const Redundancy&) const = default;
  unsigned width() const { return first_slice() + k + m; }  // all shards
  // So many shards may be lost, whichever they are.
  unsigned losses() const { return first_slice() + m; }
  // The shard holds all bytes of its stripe as they are.
  bool is_copy(unsigned shard) const { return kind == RedundancyKind::mirror || (kind == RedundancyKind::whole && shard == 0); }
  bool has_copies() const { return kind != RedundancyKind::erasure; }
  // The shard that is the code's first.
  unsigned first_slice() const { return kind == RedundancyKind::whole ? 1 : 0; }
  // Shards that suffice to read a stripe, and to lose one more where there is redundancy at all.
  unsigned durable_min() const { return k + (losses() > 0 ? 1u : 0u); }
  // These shards (bit i: shard i) give the data.
  bool readable_from(uint32_t shards) const;
  std::string to_string() const;  // "ec:4+2", "mirror:3", "whole:2+1"
};

// "ec:k+m" (k + m <= 32), "mirror:n" (n copies), "whole:k+m" (1 + k + m <= 32), or a profile name. A profile fixes m: kamikaze 0, economy
// 1, standard 2, resilient 3, fortress 4; k is the largest that `domains` failure domains allow, at most 8, 8, 8, 12, 16 in that order.
// With room for no more than one data shard the profile becomes mirror:(m+1). Errors: malformed, misconfigured (too few domains; says how
// many).
Result<Redundancy> parse_redundancy(std::string_view text, unsigned domains);

// The profile chosen when the user names none: standard from 4 domains on, economy from 2, else kamikaze.
std::string_view default_profile(unsigned domains);

}  // namespace quarry::cluster
