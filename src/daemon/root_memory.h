// RootMemory: what a root directory knows of its store, in root/drives.list, so that a start on it finds the drives and never takes a store
// whose drives are away for one that is yet to be made. Text, one drive a line, behind lines of comment; one of them says how far the store
// is:
//   # store UUID      it was made: its drives carry it
//   # creating UUID   it is being made: what carries this id, and no data, may be made anew
// A list without such a line is of a store that was made (by a program that did not say so). The drives alone are enough to start with.
#pragma once
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace quarry::daemon {

struct RootMemory {
  enum class Stage : uint8_t { nothing, creating, made };
  Stage stage = Stage::nothing;
  Uuid store;                       // nil: nobody wrote it down
  std::vector<std::string> drives;  // KIND:PATH
};

// Errors: io_error (there is one and it cannot be read), corrupt.
Result<RootMemory> read_root_memory(const std::string& root);
// Durable when it returns.
Result<void> write_root_memory(const std::string& root, const RootMemory& memory);

// Whether the root holds an index of a store's metadata: then it had a store, whatever became of the list.
bool has_index(const std::string& root);

}  // namespace quarry::daemon
