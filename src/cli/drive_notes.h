// What people should know of the drives of a node together.
#pragma once
#include <string>
#include <vector>

#include "wire/json.h"

namespace quarry::cli {

// One sentence for each file system that several drives in use are on. drives: as the node's status has them.
std::vector<std::string> shared_file_systems(const std::vector<JsonValue>& drives);

}  // namespace quarry::cli
