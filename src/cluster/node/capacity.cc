#include "cluster/node/capacity.h"

#include "cluster/stripes/group_choice.h"

namespace quarry::cluster {
namespace {

// A group that may take writes, and what a byte of them costs each drive.
struct Candidate {
  std::vector<std::pair<uint32_t, double>> costs;  // drive number, bytes of it per byte of data
};

class Filling {
 public:
  explicit Filling(const Topology& topology) : topology_(topology), room_(topology.by_number.size()) {
    for (uint32_t number = 0; number < room_.size(); ++number) {
      const Drive* drive = topology.drive(number);
      if (drive == nullptr || !drive->writable()) continue;
      const uint64_t margin = room_wanted({.redundancy = topology.map.redundancy}, 0, *drive);  // of the last writes
      const uint64_t room = drive->room() / topology.sharers(number);
      room_[number] = static_cast<double>(room - std::min(room, margin));
    }
  }

  // Writes of this redundancy go to all groups alike, until none is left all of whose members have room. Where `degraded`, to groups that
  // lack members, too. Returns the bytes of data.
  double fill(const Redundancy& redundancy, bool degraded) {
    std::vector<Candidate> open = candidates(redundancy, degraded);
    double stored = 0;
    while (!open.empty()) {
      std::vector<double> rate(room_.size());
      for (const Candidate& group : open) {
        for (const auto& [drive, cost] : group.costs) rate[drive] += cost;
      }
      double each = std::numeric_limits<double>::max();  // into every group, until the first drive is full
      for (size_t drive = 0; drive < rate.size(); ++drive) {
        if (rate[drive] > 0) each = std::min(each, room_[drive] / rate[drive]);
      }
      stored += each * static_cast<double>(open.size());
      for (size_t drive = 0; drive < rate.size(); ++drive) room_[drive] -= each * rate[drive];
      std::erase_if(open, [&](const Candidate& group) {
        return std::ranges::any_of(group.costs, [&](const auto& cost) { return room_[cost.first] < 1; });
      });
    }
    return stored;
  }

 private:
  std::vector<Candidate> candidates(const Redundancy& redundancy, bool degraded) const {
    const auto width = static_cast<uint8_t>(redundancy.width());
    const unsigned needed = redundancy.losses() > 0 ? redundancy.width() - redundancy.losses() + 1 : redundancy.width();
    std::vector<Candidate> found;
    for (uint32_t group = 0; group < topology_.map.group_count; ++group) {
      const Members* known = topology_.map.find_members(width, static_cast<GroupId>(group));
      const Members members = known != nullptr ? *known : topology_.map.members(width, static_cast<GroupId>(group));
      Candidate candidate;
      for (unsigned shard = 0; shard < members.size(); ++shard) {
        const uint32_t number = members[shard].at.drive;
        const Drive* drive = topology_.drive(number);
        if (drive != nullptr && drive->writable())
          candidate.costs.emplace_back(number, redundancy.is_copy(shard) ? 1.0 : 1.0 / redundancy.k);
      }
      const size_t there = candidate.costs.size();
      const bool usable = there == redundancy.width() ? !degraded : degraded && there >= needed;
      const bool has_room = std::ranges::all_of(candidate.costs, [&](const auto& cost) { return room_[cost.first] >= 1; });
      if (usable && has_room && there > 0) found.push_back(std::move(candidate));
    }
    return found;
  }

  const Topology& topology_;
  std::vector<double> room_;  // by drive number
};

}  // namespace

uint64_t storable_bytes(const Topology& topology) {
  Filling filling(topology);
  double stored = 0;
  for (std::optional<Redundancy> next = topology.map.redundancy; next; next = narrower(*next)) {
    stored += filling.fill(*next, false);
    stored += filling.fill(*next, true);
  }
  return static_cast<uint64_t>(stored);
}

}  // namespace quarry::cluster
