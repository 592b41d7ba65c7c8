#include "cluster/redundancy.h"

#include <charconv>

namespace quarry::cluster {
namespace {

struct Profile {
  std::string_view name;
  unsigned m;
  unsigned k_max;
};
constexpr std::array<Profile, 5> kProfiles{{{"kamikaze", 0, 8}, {"economy", 1, 8}, {"standard", 2, 8}, {"resilient", 3, 12}, {"fortress", 4, 16}}};
constexpr unsigned kWidthMax = 32;

std::optional<unsigned> number(std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || text.size() > 3) return std::nullopt;
  return value;
}

Result<Redundancy> checked(std::string_view text, RedundancyKind kind, unsigned k, unsigned m, unsigned domains) {
  if (k + m > domains) {
    return fail(Code::misconfigured, "redundancy '{}' needs {} drives or failure domains, there are {}: add {} or choose a narrower one", text, k + m,
                domains, k + m - domains);
  }
  return Redundancy{kind, static_cast<uint8_t>(k), static_cast<uint8_t>(m)};
}

}  // namespace

std::string Redundancy::to_string() const {
  return kind == RedundancyKind::mirror ? fmt::format("mirror:{}", width()) : fmt::format("ec:{}+{}", k, m);
}

Result<Redundancy> parse_redundancy(std::string_view text, unsigned domains) {
  for (const Profile& profile : kProfiles) {
    if (text != profile.name) continue;
    if (domains < profile.m + 1) {
      return fail(Code::misconfigured, "profile '{}' survives {} losses and needs at least {} drives or failure domains, there are {}", text, profile.m,
                  profile.m + 1, domains);
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
  if (text.starts_with("ec:")) {
    const size_t plus = text.find('+');
    if (plus != std::string_view::npos) {
      const auto k = number(text.substr(3, plus - 3));
      const auto m = number(text.substr(plus + 1));
      if (k && m && *k >= 1 && *k + *m <= kWidthMax) return checked(text, RedundancyKind::erasure, *k, *m, domains);
    }
    return fail(Code::malformed, "redundancy '{}': write ec:K+M with K >= 1 and K + M <= {}, such as ec:4+2", text, kWidthMax);
  }
  return fail(Code::malformed, "redundancy '{}' is none of kamikaze, economy, standard, resilient, fortress, ec:K+M, mirror:N", text);
}

std::string_view default_profile(unsigned domains) {
  if (domains >= 4) return "standard";
  if (domains >= 2) return "economy";
  return "kamikaze";
}

}  // namespace quarry::cluster
