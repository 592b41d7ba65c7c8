#include "meta/rocksdb/index_room.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>

#include "base/log.h"
#include "codec/crc32c.h"
#include "meta/rocksdb/checkpoint_files.h"

namespace quarry::meta {
namespace {

namespace fs = std::filesystem;

// Files are written anew before old ones go, and the log since the checkpoint comes on top.
constexpr uint64_t kSpareFactor = 2, kSpareExtra = 256u << 20;

std::string spare_path(const std::string& candidate, const std::string& directory) {
  return fmt::format("{}/quarry-index-{:08x}", candidate, crc32c(0, bytes_of(directory)));
}

// Whether nothing is there any more. Candidates may be open to everybody: only what is this user's own is removed.
bool remove_own(const std::string& path) {
  struct stat before{};
  if (::lstat(path.c_str(), &before) != 0) return errno == ENOENT;
  if (!S_ISDIR(before.st_mode) || before.st_uid != ::geteuid()) return false;
  std::error_code error;
  fs::remove_all(path, error);
  return !error;
}

}  // namespace

bool IndexRoom::give_up() { return bytes_ > 0 && ::unlink(path_.c_str()) == 0; }

bool IndexRoom::keep() {
  if (bytes_ == 0) return false;
  const Result<void> written = write_ballast(path_, bytes_);
  if (!written) LOG_WARNING("no room is kept for the next start of the metadata index", {"error", written.error().to_string()});
  return written.has_value();
}

Result<std::string> make_spare_directory(const std::vector<std::string>& candidates, const std::string& directory, uint64_t bytes) {
  // The nearest part of the path that is there says on which file system it lies.
  struct stat own{};
  for (fs::path at = directory; ::stat(at.c_str(), &own) != 0 && at.has_relative_path();) at = at.parent_path();
  std::string tried;
  for (const std::string& candidate : candidates) {
    struct stat there{};
    struct statvfs space{};
    if (::stat(candidate.c_str(), &there) != 0 || there.st_dev == own.st_dev || ::statvfs(candidate.c_str(), &space) != 0) continue;
    const uint64_t free = uint64_t{space.f_bavail} * space.f_frsize;
    const std::string path = spare_path(candidate, directory);
    tried += fmt::format("{}'{}' has {} bytes free", tried.empty() ? "" : ", ", candidate, free);
    if (free < kSpareFactor * bytes + kSpareExtra) continue;
    if (remove_own(path) && ::mkdir(path.c_str(), 0700) == 0) return path;
  }
  return fail(Code::no_space, "no other file system has room for the metadata index of {} bytes ({})", bytes,
              tried.empty() ? std::string("there is none") : tried);
}

void remove_spare_directories(const std::vector<std::string>& candidates, const std::string& directory) {
  for (const std::string& candidate : candidates) remove_own(spare_path(candidate, directory));
}

}  // namespace quarry::meta
