// MapKeeper: changes the cluster map: what is stored is read, changed, and the rows that differ are committed; then the new topology is
// published. The published map is what is believed to be stored; its epoch is compared with the stored one in every transaction that
// changes it. Where the outcome of a change stays unknown the belief may be behind until settle(), or the next change, has looked.
// Confined to the home executor; changes are made one after the other.
#pragma once
#include <functional>

#include "cluster/drives/drive_set.h"
#include "io/sync.h"
#include "meta/meta_store.h"

namespace quarry::cluster {

class MapKeeper {
 public:
  MapKeeper(meta::MetaStore& meta, DriveSet& drives) : meta_(meta), drives_(drives) {}

  // Reads the map from the metadata and publishes it. not_found: there is none.
  Task<Result<void>> load();
  // The first map. already_exists: there is another.
  Task<Result<void>> create(ClusterMap map);
  // Durable and published when it returns. `edit` may be run more than once; its error is passed up and nothing changes.
  // unknown_outcome: it may take effect later.
  using Edit = std::function<Result<void>(ClusterMap&)>;
  Task<Result<void>> change(Edit edit);
  // After a change of unknown outcome: publishes what became of it, once the metadata can be written again. Nothing to do otherwise.
  Task<Result<void>> settle();

 private:
  meta::MetaStore& meta_;
  DriveSet& drives_;
  Semaphore turn_{1};
  bool in_doubt_ = false;
};

}  // namespace quarry::cluster
