#include "daemon/drive_kind.h"

#include <filesystem>

#include "cluster/drives/drive_path.h"

namespace quarry::daemon {

const std::vector<const DriveKind*>& drive_kinds() {
  static const std::vector<const DriveKind*> kinds{&raw_drive_kind(), &kfs_drive_kind(), &dir_drive_kind()};
  return kinds;
}

std::string DriveSpec::text() const { return kind == drive_kinds().front() ? path : fmt::format("{}:{}", kind->name(), path); }

Result<DriveSpec> parse_drive_spec(std::string_view text) {
  const cluster::DrivePath parts = cluster::parse_drive_path(text);
  std::string known;
  for (const DriveKind* kind : drive_kinds()) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", kind->name());
    if (kind->name() != parts.kind) continue;
    if (parts.path.empty()) return fail(Code::invalid_argument, "'{}': a path is missing", text);
    std::error_code error;
    const auto absolute = std::filesystem::absolute(std::filesystem::path(parts.path), error);
    if (error) return fail(Code::io_error, "{}: {}", parts.path, error.message());
    std::string path = absolute.lexically_normal().string();
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return DriveSpec{kind, std::move(path)};
  }
  return fail(Code::invalid_argument,
              "'{}': there is no kind of drive '{}'; there are {} (a file whose name contains ':' is written ./NAME)", text, parts.kind,
              known);
}

}  // namespace quarry::daemon
