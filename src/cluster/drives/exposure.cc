#include "cluster/drives/exposure.h"

#include "cluster/map/placement.h"

namespace quarry::cluster {
namespace {

// Shards that a layout of this width is read from. Layouts of a width survive as many losses as the default, unless a bucket asked for
// something else.
unsigned shards_needed(const Topology& topology, uint8_t width) {
  return static_cast<unsigned>(std::max(1, int{width} - static_cast<int>(topology.map.redundancy.losses())));
}

// The position can be read from a drive other than `without`. What is being moved is still where it was.
bool is_there(const Topology& topology, const Member& member, uint32_t without) {
  const auto readable = [&](const Place& place) {
    const Drive* drive = topology.drive(place.drive);
    return place.drive != without && drive != nullptr && drive->readable();
  };
  return member.pending ? std::ranges::any_of(member.before, readable) : readable(member.at);
}

template <class See>  // See(width, members)
void each_group(const ClusterMap& map, See see) {
  for (const uint8_t width : map.widths()) {
    for (uint32_t group = 0; group < map.group_count; ++group) {
      const Members* members = map.find_members(width, static_cast<GroupId>(group));
      if (members != nullptr && !members->empty()) see(width, *members);
    }
  }
}

unsigned positions_there(const Topology& topology, const Members& members, uint32_t without) {
  return static_cast<unsigned>(std::ranges::count_if(members, [&](const Member& member) { return is_there(topology, member, without); }));
}

}  // namespace

std::vector<bool> holders(const ClusterMap& map) {
  std::vector<bool> holds(map.next_drive);
  each_group(map, [&](uint8_t, const Members& members) {
    for (const Member& member : members) {
      for (const Place& place : places_of(member)) {
        if (place.drive < holds.size()) holds[place.drive] = true;
      }
    }
  });
  return holds;
}

Exposure exposure_of(const Topology& topology) {
  Exposure exposure{.spare = topology.map.redundancy.losses()};
  each_group(topology.map, [&](uint8_t width, const Members& members) {
    const unsigned needed = shards_needed(topology, width);
    const unsigned there = positions_there(topology, members, 0);
    ++exposure.groups;
    exposure.short_of += there < members.size();
    exposure.unreadable += there < needed;
    exposure.spare = std::min(exposure.spare, there - std::min(there, needed));
  });
  return exposure;
}

bool needed_for_reading(const Topology& topology, uint32_t number) {
  bool is_needed = false;
  each_group(topology.map, [&](uint8_t width, const Members& members) {
    if (is_needed) return;
    const unsigned needed = shards_needed(topology, width);
    const bool holds = std::ranges::any_of(members, [&](const Member& member) {
      return std::ranges::any_of(places_of(member), [&](const Place& place) { return place.drive == number; });
    });
    is_needed = holds && positions_there(topology, members, number) < needed;
  });
  return is_needed;
}

}  // namespace quarry::cluster
