// Room for the index on a file system that may be full when the store starts. All calls block.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"

namespace quarry::meta {

// A file of so many bytes beside the index, which is given up for a start and made again after it.
class IndexRoom {
 public:
  IndexRoom(const std::string& directory, uint64_t bytes) : path_(directory + "/reserve"), bytes_(bytes) {}
  bool give_up();  // whether there was one
  bool keep();     // whether there is one now

 private:
  const std::string path_;
  const uint64_t bytes_;
};

// An empty directory for an index of so many bytes instead of `directory`, in one of the candidates that lies on another file system and
// has room. It has a name of its own for each `directory`; what an earlier run left there is removed. Errors: no_space (none has room).
Result<std::string> make_spare_directory(const std::vector<std::string>& candidates, const std::string& directory, uint64_t bytes);
// After a start that needed none: what a run that was killed left there.
void remove_spare_directories(const std::vector<std::string>& candidates, const std::string& directory);

}  // namespace quarry::meta
