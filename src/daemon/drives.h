// Opening the drives a node is given: formats those of a new store, and no others.
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cluster/cluster.h"
#include "daemon/drive_kind.h"
#include "daemon/node_config.h"
#include "daemon/root_memory.h"
#include "io/ring_executor.h"

namespace quarry::daemon {

struct DriveToOpen {
  std::string path;  // KIND:PATH (daemon/drive_kind.h)
  Executor* owner = nullptr;
};

// The devices of the configuration, or root/drives/drive-NN (made as sparse files of exactly drive_bytes while the store is made, found
// later), and those that were added while the node ran. Without owners.
Result<std::vector<DriveToOpen>> drives_of(const NodeConfig& config, const RootMemory& memory);

// What a start may do where no drive carries a store.
struct StartRules {
  RootMemory memory;       // a root that had a store gets no other one by itself
  bool may_create = true;  // false: nothing is ever formatted
  bool force = false;      // make a new store all the same, and format what carries something else
  bool has_index = false;  // the root holds the index of a store
  // Before anything is formatted: writes down that the store of this id is being made.
  std::function<Result<void>(const Uuid& store)> begin_creation;
};

struct OpenedDrives {
  std::vector<cluster::OpenedDrive> drives;
  std::vector<cluster::UnopenedDrive> unusable;  // although others could be opened
  Uuid cluster;
  bool fresh = false;  // they were formatted just now
};
// Opens each on its owner. Where a drive carries a store, nothing is formatted: one that is blank, gone, damaged, of another store, or that
// hangs (kStartPatience), does not stop the others; the cluster decides whether enough are there. Where none does, a new store is made,
// if the rules allow; what the creation that the root remembers left behind is formatted again, unless it holds data. Foreign content is
// refused unless force. A drive that is named twice (by two names of one device) is opened once. All are looked at, and then opened,
// side by side. Errors: misconfigured (nothing may be formatted: says why), those of a drive that cannot be formatted.
Task<Result<OpenedDrives>> open_drives(std::vector<DriveToOpen> drives, StartRules rules);

// The drives that this node has opened, as it left them. What another node has opened since is that one's, and is not taken from it unless
// somebody says so. Thread-safe.
class OwnedDrives {
 public:
  void note(const cluster::OpenedDrive& opened);
  // An attempt to open it came to nothing; who opened it last is not known any more.
  void forget(const Uuid& drive);
  // Errors: wrong_owner.
  Result<void> check(const std::string& path, const DriveIdentity& there) const;

 private:
  mutable std::mutex mutex_;
  std::map<Uuid, uint64_t> epochs_;  // guarded
};

// Formats (if it is fresh, or force) and opens one drive for `cluster`, on `owner`: for device add and replace.
// Errors: wrong_owner (another node has opened it since, and not forced).
Task<Result<cluster::OpenedDrive>> open_new_drive(Executor& owner, OwnedDrives& owned, std::string path, Uuid cluster, bool force);

// Opens a drive that has a store, for device enable; never formats. Both wait for kAskedPatience for a drive that hangs: timed_out.
// Errors: wrong_owner (as above).
Task<Result<cluster::OpenedDrive>> open_known_drive(Executor& owner, OwnedDrives& owned, std::string path, Uuid cluster, bool force);

}  // namespace quarry::daemon
