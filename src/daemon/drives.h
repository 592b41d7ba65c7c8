// Opening the drives a node is given: formats fresh ones, refuses foreign ones.
#pragma once
#include <string>
#include <vector>

#include "cluster/cluster.h"
#include "daemon/node_config.h"
#include "io/ring_executor.h"

namespace quarry::daemon {

struct DriveToOpen {
  std::string path;  // KIND:PATH (daemon/drive_kind.h)
  Executor* owner = nullptr;
  bool known = false;  // was in use at this root before: never formatted, and its loss does not stop the others
};

// The devices of the configuration, or root/drives/drive-NN (made as sparse files of exactly drive_bytes on the first start, found on later
// ones), and those that were added while the node ran (root/drives.list). Without owners.
Result<std::vector<DriveToOpen>> drives_of(const NodeConfig& config);
// root/drives.list: the drives in use, so that a start on the same root finds them. A convenience: the drives alone are enough.
std::vector<std::string> remembered_drives(const std::string& root);
Result<void> remember_drives(const std::string& root, const std::vector<std::string>& drives);

struct OpenedDrives {
  std::vector<cluster::OpenedDrive> drives;
  std::vector<cluster::UnopenedDrive> unusable;  // although others could be opened
  Uuid cluster;                                  // nil: all are fresh
  bool fresh = false;
};
// Opens each on its owner. If no drive carries Quarry's format all are formatted for one new cluster; if some do, the others must too.
// Foreign content is refused unless force. A drive that is gone or damaged, or that hangs (kStartPatience), does not stop the others: the
// cluster decides whether enough are there. All are looked at, and then opened, side by side.
Task<Result<OpenedDrives>> open_drives(std::vector<DriveToOpen> drives, bool force);

// Formats (if it is fresh, or force) and opens one drive for `cluster`, on `owner`: for device add and replace.
Task<Result<cluster::OpenedDrive>> open_new_drive(Executor& owner, std::string path, Uuid cluster, bool force);

// Opens a drive that has a store, for device enable; never formats. Both wait for kAskedPatience for a drive that hangs: timed_out.
Task<Result<cluster::OpenedDrive>> open_known_drive(Executor& owner, std::string path, Uuid cluster);

}  // namespace quarry::daemon
