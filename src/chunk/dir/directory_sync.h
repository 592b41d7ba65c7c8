// DirectorySync: one sync of a directory serves all who asked before it began. Confined to its loop.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "chunk/dir/file_system.h"
#include "io/sync.h"
#include "io/thread_pool.h"

namespace quarry::chunk::dir {

class DirectorySync {
 public:
  // A name that was taken from a directory, until that is durable: follows the directory that has lost it. When that one was removed as
  // well, and perhaps made anew under its old path, the directory above it has lost the name.
  class Taken {
   public:
    // To be made before another change of names can begin.
    Taken(DirectorySync& syncs, std::string directory) : syncs_(syncs), directory_(std::move(directory)) { syncs_.taken_.insert(this); }
    ~Taken() { syncs_.taken_.erase(this); }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;

   private:
    friend class DirectorySync;
    DirectorySync& syncs_;
    std::string directory_;
  };
  DirectorySync(std::shared_ptr<FileSystem> files, BlockingPool& pool) : files_(std::move(files)), pool_(pool) {}
  // Every name that was put into or taken from the directory before the call is durable.
  Task<Result<void>> sync(std::string path);
  // The same for several, side by side; the first error if there is one.
  Task<Result<void>> sync_all(std::set<std::string> paths);
  // The same for a name taken from a directory that may be gone by now: the directory that lost it says so.
  Task<Result<void>> sync_taken(std::string path);
  Task<Result<void>> sync_taken(Taken& taken);
  // To be said of directories that were removed, the inner ones first, before any can be made anew.
  void note_removed(const std::vector<std::string>& paths);
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
  BlockingPool& pool_;
  std::map<std::string, Slot> slots_;  // directories being synced; bounded by the requests in flight
  std::set<Taken*> taken_;             // likewise
};

}  // namespace quarry::chunk::dir
