#include "daemon/mount_notes.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <mntent.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>

#include "base/result.h"

namespace quarry::daemon {
namespace {

namespace fs = std::filesystem;

std::set<std::string> mount_targets(const std::string& table) {
  std::set<std::string> targets;
  FILE* file = ::setmntent(table.c_str(), "re");
  if (file == nullptr) return targets;
  mntent entry{};
  char line[4096];
  while (::getmntent_r(file, &entry, line, sizeof line) != nullptr) {
    std::string target = entry.mnt_dir;
    while (target.size() > 1 && target.back() == '/') target.pop_back();
    if (target.size() > 1 && target[0] == '/') targets.insert(std::move(target));
  }
  ::endmntent(file);
  return targets;
}

// The directory and all above it, longest first, without "/".
std::vector<fs::path> and_above(const std::string& directory) {
  std::error_code error;
  fs::path at = fs::weakly_canonical(directory, error);
  if (error) at = directory;
  std::vector<fs::path> all;
  for (; at.has_relative_path(); at = at.parent_path()) all.push_back(at);
  return all;
}

}  // namespace

std::string missing_mount(const std::string& directory, const std::string& fstab) {
  const std::set<std::string> wanted = mount_targets(fstab), mounted = mount_targets("/proc/self/mounts");
  for (const fs::path& at : and_above(directory)) {
    std::error_code error;
    if (wanted.contains(at.string()) && !mounted.contains(at.string()))
      return fmt::format("nothing is mounted on {}, although {} says so: `mount {}`", at.string(), fstab, at.string());
    if (mounted.contains(at.string())) return {};  // what lies above is another file system's
    if (fs::exists(at / kMountNote, error)) {
      return fmt::format(
          "nothing is mounted on {}, where the file system of a drive belongs: mount it. If the bare directory is meant: `rm {}`",
          at.string(), (at / kMountNote).string());
    }
  }
  return {};
}

void note_mount(const std::string& directory) {
  const std::set<std::string> mounted = mount_targets("/proc/self/mounts");
  for (const fs::path& at : and_above(directory)) {
    if (!mounted.contains(at.string())) continue;
    struct statfs system{};
    if (::statfs(at.c_str(), &system) != 0 || system.f_type == TMPFS_MAGIC) return;  // nothing there outlives the mount
    // A copy of the parent's mount alone shows what lies below the other.
    const int below =
        static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, at.parent_path().c_str(), OPEN_TREE_CLONE | static_cast<unsigned>(O_CLOEXEC)));
    if (below < 0) return;
    const int bare = ::openat(below, at.filename().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ::close(below);
    if (bare < 0) return;
    const int note = ::openat(bare, kMountNote, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (note >= 0) {
      constexpr std::string_view kText =
          "The file system of a drive of Quarry is mounted over this directory. If you can read this, it is not mounted now.\n";
      static_cast<void>(::write(note, kText.data(), kText.size()));
      ::close(note);
    }
    ::close(bare);
    return;
  }
}

}  // namespace quarry::daemon
