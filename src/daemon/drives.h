// Opening the drives a node is given: formats fresh ones, refuses foreign ones.
#pragma once
#include <string>
#include <vector>

#include "cluster/cluster.h"
#include "daemon/node_config.h"
#include "io/ring_executor.h"

namespace quarry::daemon {

struct DriveToOpen {
  std::string path;
  Executor* owner = nullptr;
};

// The devices of the configuration, or root/drives/drive-NN: made as sparse files of exactly drive_bytes on the first start, found on later ones.
Result<std::vector<std::string>> drive_paths(const NodeConfig& config);

struct OpenedDrives {
  std::vector<cluster::OpenedDrive> drives;
  std::vector<std::string> unusable;  // "path: why", of drives that could not be opened although others could
  Uuid cluster;                       // nil: all are fresh
  bool fresh = false;
};
// Opens each on its owner. If no drive carries Quarry's format all are formatted for one new cluster; if some do, the others must too.
// Foreign content is refused unless force. A drive that is gone or damaged does not stop the others: the cluster decides whether enough are there.
Task<Result<OpenedDrives>> open_drives(std::vector<DriveToOpen> drives, bool force);

// Formats (if it is fresh, or force) and opens one drive for `cluster`, on `owner`: for device add and replace.
Task<Result<cluster::OpenedDrive>> open_new_drive(Executor& owner, std::string path, Uuid cluster, bool force);

}  // namespace quarry::daemon
