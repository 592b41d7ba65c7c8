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

std::vector<std::string> what_to_do(std::span<const JsonValue> drives) {
  std::vector<std::string> notes;
  for (const auto& drive : drives) {
    const uint64_t number = drive.u64_at("number").value_or(0);
    const std::string state = drive.string_at("state").value_or(""), cause = drive.string_at("cause").value_or("");
    const std::string path = drive.string_at("path").value_or("");
    if (state == "disabled") {
      notes.push_back(fmt::format("drive {0} is used for nothing until it is enabled: `quarry device enable {0}`", number));
    } else if (state == "missing" || (state == "failed" && cause == "away")) {
      notes.push_back(
          fmt::format("drive {0} is away: once {1} has it again it is taken back; if it is lost, put another in its place: `quarry device "
                      "replace {0} NEW`",
                      number, path));
    } else if (state == "failed" && cause != "replaced" && cause != "forced") {
      notes.push_back(
          fmt::format("drive {0} was given up: if it is sound again: `quarry device enable {0}`; another in its place: `quarry "
                      "device replace {0} NEW`",
                      number));
    }
  }
  return notes;
}

}  // namespace quarry::cli
