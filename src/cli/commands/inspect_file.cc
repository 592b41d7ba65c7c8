// quarry device inspect FILE, of a file below a mountpath: what Quarry knows of it.
#include "chunk/dir/inspect.h"

#include <ctime>
#include <filesystem>

#include "base/units.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "wire/json.h"

namespace quarry::cli {
namespace {

using chunk::dir::InspectedFile;

std::string time_text(int64_t ns) {
  if (ns == 0) return "-";
  const std::time_t seconds = static_cast<std::time_t>(ns / 1'000'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:09}Z", text, ns % 1'000'000'000);
}

std::string checksum_state(const InspectedFile& file) {
  if (file.checksums == 0) return "none";
  return fmt::format("{} of 64 KiB blocks, {}", file.checksums,
                     !file.verified            ? "not verified"
                     : file.bad_checksums == 0 ? "all verified"
                                               : fmt::format("{} WRONG", file.bad_checksums));
}

void print_json(const InspectedFile& file) {
  JsonWriter json;
  json.begin_object().field("mountpath", file.mountpath).field("path", file.path).field("drive", file.drive.to_string());
  json.field("what", file.what).field("size", file.size).field("modified_ns", file.modified_ns);
  if (file.chunks > 0) {
    json.field("chunk", file.first.to_string()).field("recorded_size", file.recorded_size).field("chunk_size", file.chunk_size);
    json.field("chunks", file.chunks).field("removed_chunks", file.removed_chunks).field("stride", file.stride);
  }
  if (!file.record_place.empty()) {
    json.field("record", file.record_place).field("recorded_modified_ns", file.recorded_modified_ns);
    json.field("bucket", file.bucket).field("key", file.key).field("adopted", file.adopted);
    json.key("attributes").begin_object();
    for (const auto& [name, value] : file.attributes) json.field(name, value);
    json.end_object();
  }
  json.field("checksums", file.checksums).field("bad_checksums", file.bad_checksums).field("verified", file.verified);
  json.field("problem", file.problem).end_object();
  fmt::print("{}\n", json.str());
}

void print_text(const InspectedFile& file) {
  const auto line = [](const char* name, const std::string& value) { fmt::print("  {:<15} {}\n", name, value); };
  fmt::print("{}\n", file.path);
  line("mountpath", file.mountpath);
  line("drive", file.drive.to_string());
  line("what",
       file.what == "foreign" ? "foreign: Quarry knows nothing of it (quarry adopt)" : file.what + (file.adopted ? ", adopted" : ""));
  if (file.chunks > 0) line(file.what == "chunk" ? "chunk" : "first chunk", file.first.to_string());
  if (!file.record_place.empty()) {
    line("bucket", file.bucket);
    line("key", file.key);
    line("record", file.record_place);
  }
  line("size", fmt::format("{} bytes{}", file.size,
                           file.chunks > 0 && file.what != "absent" && file.recorded_size != file.size
                               ? fmt::format(", recorded {}", file.recorded_size)
                               : ""));
  line("modified", time_text(file.modified_ns));
  if (file.recorded_modified_ns != 0 && file.recorded_modified_ns != file.modified_ns)
    line("recorded", time_text(file.recorded_modified_ns));
  if (file.chunks > 0)
    line("chunks", fmt::format("{} of {} bytes{}", file.chunks, file.chunk_size,
                               file.removed_chunks > 0 ? fmt::format(", {} removed", file.removed_chunks) : ""));
  for (const auto& [name, value] : file.attributes) line(name.c_str(), value);
  if (file.what != "foreign" && file.what != "own") line("checksums", checksum_state(file));
  line("state", file.problem.empty() ? "as it was stored, as far as was looked at" : file.problem);
}

}  // namespace

// Whether it was a file of a mountpath; then all is said.
Result<bool> inspect_mountpath_file(const DeviceOptions& options, const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(std::filesystem::symlink_status(path, error))) return false;
  const auto absolute = std::filesystem::canonical(
      std::filesystem::path(path).parent_path().empty() ? std::filesystem::path(".") : std::filesystem::path(path).parent_path(), error);
  if (error) return false;
  TRY_ASSIGN(const auto file, chunk::dir::inspect_file((absolute / std::filesystem::path(path).filename()).string(), !options.no_verify));
  if (!file) return false;
  options.target.json ? print_json(*file) : print_text(*file);
  if (!file->problem.empty()) return fail(Code::corrupt, "{}: {}", path, file->problem);
  return true;
}

}  // namespace quarry::cli
