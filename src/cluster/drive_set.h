// DriveSet: the open drives by number, and the current topology: the map together with the drives it names. Thread-safe.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "cluster/cluster_map.h"
#include "cluster/drive.h"

namespace quarry::cluster {

// Immutable once published. Drives live as long as the set.
struct Topology {
  ClusterMap map;
  std::vector<Drive*> by_number;  // null: not open
  Drive* drive(uint32_t number) const { return number < by_number.size() ? by_number[number] : nullptr; }
};

class DriveSet {
 public:
  Drive& add(std::unique_ptr<Drive> drive);
  Drive* find(uint32_t number) const;
  std::vector<Drive*> all() const;
  // Replaces the topology; names the drives that are open now.
  void publish(ClusterMap map);
  std::shared_ptr<const Topology> topology() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Drive>> drives_;
  std::shared_ptr<const Topology> topology_ = std::make_shared<Topology>();
};

}  // namespace quarry::cluster
