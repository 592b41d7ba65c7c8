// What people should know of the drives of a node together.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "wire/json.h"

namespace quarry::cli {

// One sentence for each file system that several drives in use are on. drives: as the node's status has them.
std::vector<std::string> shared_file_systems(const std::vector<JsonValue>& drives);

// What an operator can do about each drive that is not in use, one sentence a drive, with the command.
std::vector<std::string> what_to_do(std::span<const JsonValue> drives);

}  // namespace quarry::cli
