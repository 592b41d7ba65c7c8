// Exposure: what the placement groups have left, as the drives are at this moment. Pure functions of a topology and of its drives'
// conditions; any thread.
#pragma once
#include "cluster/drives/drive_set.h"

namespace quarry::cluster {

struct Exposure {
  size_t groups = 0;      // looked at: those of every width in use
  size_t short_of = 0;    // some position cannot be read now
  size_t unreadable = 0;  // too few positions can be read for the data to be
  unsigned spare = 0;     // further drives that may be lost until data of the most endangered group cannot be read
};
// Drives that have, or may have, data of some group; by number.
std::vector<bool> holders(const ClusterMap& map);
Exposure exposure_of(const Topology& topology);

// Some data could not be read without this drive, as things are now.
bool needed_for_reading(const Topology& topology, uint32_t number);

}  // namespace quarry::cluster
