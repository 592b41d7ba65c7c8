#include "cli/drive_notes.h"

#include "cluster/data_plane.h"

namespace quarry::cli {

std::vector<std::string> shared_file_systems(const std::vector<JsonValue>& drives) {
  std::vector<cluster::DriveStatus> known;
  for (const auto& drive : drives) {
    cluster::DriveStatus status;
    status.number = static_cast<uint32_t>(drive.u64_at("number").value_or(0));
    status.state = drive.string_at("state").value_or("");
    status.file_system = drive.string_at("file_system").value_or("");
    known.push_back(std::move(status));
  }
  return cluster::shared_file_systems(known);
}

}  // namespace quarry::cli
