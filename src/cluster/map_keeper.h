// MapKeeper: changes the cluster map: a copy is changed, the rows that differ are committed, then the new topology is published.
// Confined to the home executor; changes are made one after the other.
#pragma once
#include <functional>

#include "cluster/drive_set.h"
#include "io/sync.h"
#include "meta/meta_store.h"

namespace quarry::cluster {

class MapKeeper {
 public:
  MapKeeper(meta::MetaStore& meta, DriveSet& drives) : meta_(meta), drives_(drives) {}

  // Reads the map from the metadata and publishes it. not_found: there is none.
  Task<Result<void>> load();
  // The first map.
  Task<Result<void>> create(ClusterMap map);
  // Durable and published when it returns. `edit` may be run more than once; its error is passed up and nothing changes.
  using Edit = std::function<Result<void>(ClusterMap&)>;
  Task<Result<void>> change(Edit edit);
  // The drives that are open changed, not the map.
  void republish();

 private:
  Task<Result<void>> commit(const ClusterMap& before, const ClusterMap& after);
  meta::MetaStore& meta_;
  DriveSet& drives_;
  Semaphore turn_{1};
};

}  // namespace quarry::cluster
