#include "cluster/map/placement.h"

namespace quarry::cluster {
namespace {

constexpr uint64_t mix(uint64_t x) {  // splitmix64's finalizer
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

uint64_t hash_bytes(ByteView bytes) {  // FNV-1a, then mixed
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3ull;
  return mix(hash);
}

uint64_t hash_of(uint64_t node, uint64_t group, uint64_t salt) { return mix(node ^ mix(group * 0x9e3779b97f4a7c15ull + salt)); }

// A candidate costs -log(u) / weight: the smallest wins with a probability in proportion to its weight. Compared without division.
struct Candidate {
  uint64_t log = 0;
  uint64_t weight = 1;
  uint64_t tie = 0;
  bool operator<(const Candidate& other) const {
    const auto left = static_cast<unsigned __int128>(log) * other.weight;
    const auto right = static_cast<unsigned __int128>(other.log) * weight;
    return left != right ? left < right : tie < other.tie;
  }
};

}  // namespace

uint64_t negative_log2(uint64_t hash) {
  if (hash == 0) hash = 1;
  const int zeros = std::countl_zero(hash);
  uint64_t mantissa = hash << zeros;  // [2^63, 2^64): a number in [1, 2) times 2^63
  uint64_t fraction = 0;              // log2 of it, 32 bits, by repeated squaring
  for (int bit = 31; bit >= 0; --bit) {
    const auto square = static_cast<unsigned __int128>(mantissa) * mantissa;
    mantissa = static_cast<uint64_t>(square >> 63);
    if (square >> 127 != 0) {
      mantissa = static_cast<uint64_t>(square >> 64);
      fraction |= uint64_t{1} << bit;
    }
  }
  return (static_cast<uint64_t>(zeros + 1) << 32) - fraction;
}

std::vector<uint32_t> rank_drives(const std::vector<PlacementDrive>& drives, GroupId group) {
  struct Entry {
    Candidate candidate;
    uint32_t number;
    bool operator<(const Entry& other) const { return candidate < other.candidate; }
  };
  struct Domain {
    Candidate candidate;
    std::vector<Entry> drives;
    bool operator<(const Domain& other) const { return candidate < other.candidate; }
  };
  std::map<std::string_view, Domain> by_name;
  for (const PlacementDrive& drive : drives) {
    const uint64_t weight = std::max<uint64_t>(drive.weight, 1);
    Domain& domain = by_name[drive.domain];
    if (domain.drives.empty()) {
      domain.candidate = {negative_log2(hash_of(hash_bytes(bytes_of(drive.domain)), group, 1)), 0, hash_bytes(bytes_of(drive.domain))};
    }
    domain.candidate.weight += weight;
    const uint64_t id = hash_bytes(drive.id.bytes);
    domain.drives.push_back({{negative_log2(hash_of(id, group, 2)), weight, id}, drive.number});
  }
  std::vector<Domain> domains;
  size_t rounds = 0;
  for (auto& [name, domain] : by_name) {
    std::sort(domain.drives.begin(), domain.drives.end());
    rounds = std::max(rounds, domain.drives.size());
    domains.push_back(std::move(domain));
  }
  std::sort(domains.begin(), domains.end());
  std::vector<uint32_t> ranked;
  for (size_t round = 0; round < rounds; ++round) {
    for (const Domain& domain : domains) {
      if (round < domain.drives.size()) ranked.push_back(domain.drives[round].number);
    }
  }
  return ranked;
}

GroupId group_of(WriteId write_id, uint32_t group_count) {
  return static_cast<GroupId>(mix(write_id * 0x9e3779b97f4a7c15ull) % group_count);
}

}  // namespace quarry::cluster
