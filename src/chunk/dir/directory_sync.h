// DirectorySync: one sync of a directory serves all who asked before it began. Confined to its loop.
#pragma once
#include <map>
#include <memory>
#include <set>

#include "chunk/dir/file_system.h"
#include "io/sync.h"
#include "io/thread_pool.h"

namespace quarry::chunk::dir {

class DirectorySync {
 public:
  DirectorySync(std::shared_ptr<FileSystem> files, ThreadPool& pool) : files_(std::move(files)), pool_(pool) {}
  // Every name that was put into or taken from the directory before the call is durable.
  Task<Result<void>> sync(std::string path);
  // The same for several, side by side; the first error if there is one.
  Task<Result<void>> sync_all(std::set<std::string> paths);
  // The same for a name taken from a directory that may be gone by now: the directory that lost it says so.
  Task<Result<void>> sync_taken(std::string path);
  // After a rename: the new name is durable first, then that the old one is gone. A journal does both at once; btrfs leaves the old name
  // beside the new one when only the new directory was synced.
  Task<Result<void>> sync_moved(std::string from, std::string to);

 private:
  struct Wave {
    Event done;
    Result<void> result;
  };
  struct Slot {
    std::shared_ptr<Wave> running, next;
  };
  std::shared_ptr<FileSystem> files_;
  ThreadPool& pool_;
  std::map<std::string, Slot> slots_;  // directories being synced; bounded by the requests in flight
};

}  // namespace quarry::chunk::dir
