// Health: from what is known of drives, placement groups, repair and scrub to sentences for people. Pure.
#pragma once
#include <map>

#include "cluster/data_plane.h"
#include "cluster/drives/exposure.h"

namespace quarry::cluster {

struct HealthFacts {
  std::vector<DriveStatus> drives;
  Exposure exposure;
  unsigned losses = 0;  // that data should survive
  RepairStatus repair;
  ScrubStatus scrub;
  std::string read_only_reason;
  std::map<std::string, std::string> waiting;  // drives that are here and not used, by path: why, and what to do
};
HealthStatus judge_health(const HealthFacts& facts);

}  // namespace quarry::cluster
