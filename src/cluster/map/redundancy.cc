#include "cluster/map/redundancy.h"

#include <bit>
#include <charconv>

namespace quarry::cluster {
namespace {

struct Profile {
  std::string_view name;
  unsigned m;
  unsigned k_max;
};
constexpr std::array<Profile, 5> kProfiles{
    {{"kamikaze", 0, 8}, {"economy", 1, 8}, {"standard", 2, 8}, {"resilient", 3, 12}, {"fortress", 4, 16}}};
constexpr unsigned kWidthMax = 32;

std::optional<unsigned> number(std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || text.size() > 3) return std::nullopt;
  return value;
}

Result<Redundancy> checked(std::string_view text, RedundancyKind kind, unsigned k, unsigned m, unsigned domains) {
  const Redundancy wanted{kind, static_cast<uint8_t>(k), static_cast<uint8_t>(m)};
  if (const unsigned needed = wanted.width(); needed > domains) {
    return fail(Code::misconfigured, "redundancy '{}' needs {} drives or failure domains, there are {}: add {} or choose a narrower one",
                text, needed, domains, needed - domains);
  }
  return wanted;
}

}  // namespace

std::string Redundancy::to_string() const {
  if (kind == RedundancyKind::mirror) return fmt::format("mirror:{}", width());
  return fmt::format("{}:{}+{}", kind == RedundancyKind::whole ? "whole" : "ec", k, m);
}

bool Redundancy::readable_from(uint32_t shards) const {
  if (kind == RedundancyKind::whole && (shards & 1) != 0) return true;
  return static_cast<unsigned>(std::popcount(shards)) >= k;
}

Result<Redundancy> parse_redundancy(std::string_view text, unsigned domains) {
  for (const Profile& profile : kProfiles) {
    if (text != profile.name) continue;
    if (domains < profile.m + 1) {
      return fail(Code::misconfigured, "profile '{}' survives {} losses and needs at least {} drives or failure domains, there are {}",
                  text, profile.m, profile.m + 1, domains);
    }
    const unsigned k = std::min(domains - profile.m, profile.k_max);
    if (k == 1) return Redundancy{RedundancyKind::mirror, 1, static_cast<uint8_t>(profile.m)};
    return Redundancy{RedundancyKind::erasure, static_cast<uint8_t>(k), static_cast<uint8_t>(profile.m)};
  }
  if (text.starts_with("mirror:")) {
    const auto n = number(text.substr(7));
    if (!n || *n < 1 || *n > kWidthMax) return fail(Code::malformed, "redundancy '{}': write mirror:N with 1 <= N <= {}", text, kWidthMax);
    return checked(text, RedundancyKind::mirror, 1, *n - 1, domains);
  }
  const bool whole = text.starts_with("whole:");
  if (whole || text.starts_with("ec:")) {
    const unsigned sum_max = whole ? kWidthMax - 1 : kWidthMax;
    const size_t begin = text.find(':') + 1, plus = text.find('+');
    if (plus != std::string_view::npos) {
      const auto k = number(text.substr(begin, plus - begin));
      const auto m = number(text.substr(plus + 1));
      if (k && m && *k >= 1 && *k + *m <= sum_max)
        return checked(text, whole ? RedundancyKind::whole : RedundancyKind::erasure, *k, *m, domains);
    }
    return fail(Code::malformed, "redundancy '{}': write {}:K+M with K >= 1 and K + M <= {}, such as {}", text, whole ? "whole" : "ec",
                sum_max, whole ? "whole:2+1" : "ec:4+2");
  }
  return fail(Code::malformed, "redundancy '{}' is none of kamikaze, economy, standard, resilient, fortress, ec:K+M, mirror:N, whole:K+M",
              text);
}

std::string_view default_profile(unsigned domains) {
  if (domains >= 4) return "standard";
  if (domains >= 2) return "economy";
  return "kamikaze";
}

}  // namespace quarry::cluster
