// Redundancy: how many pieces a datum has and how many may be lost; and the named profiles.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quarry::cluster {

enum class RedundancyKind : uint8_t { erasure = 1, mirror = 2 };  // frozen numbers

struct Redundancy {
  RedundancyKind kind = RedundancyKind::erasure;
  uint8_t k = 1;  // data shards (mirror: 1)
  uint8_t m = 0;  // parity shards (mirror: further copies); so many losses are survived
  bool operator==(const Redundancy&) const = default;
  unsigned width() const { return unsigned{k} + m; }
  std::string to_string() const;  // "ec:4+2", "mirror:3"
};

// "ec:k+m" (k + m <= 32), "mirror:n" (n copies), or a profile name. A profile fixes m: kamikaze 0, economy 1, standard 2,
// resilient 3, fortress 4; k is the largest that `domains` failure domains allow, at most 8, 8, 8, 12, 16 in that order. With room
// for no more than one data shard the profile becomes mirror:(m+1). Errors: malformed, misconfigured (too few domains; says how many).
Result<Redundancy> parse_redundancy(std::string_view text, unsigned domains);

// The profile chosen when the user names none: standard from 4 domains on, economy from 2, else kamikaze.
std::string_view default_profile(unsigned domains);

}  // namespace quarry::cluster
