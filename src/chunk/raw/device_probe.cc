#include "chunk/raw/device_probe.h"

#include <blkid/blkid.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "base/check.h"
#include "chunk/raw/superblock_set.h"

namespace quarry::chunk {
namespace {

struct Descriptor {
  int fd = -1;
  explicit Descriptor(int descriptor) : fd(descriptor) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
};

Result<uint64_t> size_of(int fd, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return errno_error(errno, path);
  if (S_ISREG(status.st_mode)) return static_cast<uint64_t>(status.st_size);
  if (!S_ISBLK(status.st_mode)) return fail(Code::invalid_argument, "{}: neither a block device nor a file", path);
  uint64_t size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return errno_error(errno, path);
  return size;
}

// Our own superblock in any of the places that do not depend on the layout.
std::optional<ForeignContent> probe_quarry(int fd, uint64_t size) {
  if (size < raw::kDeviceSizeMin) return std::nullopt;
  std::vector<uint64_t> zones;
  for (size_t i = 0; i < raw::kZoneCandidates.size(); ++i) {
    if (raw::zone_candidate(i) + raw::kZoneSize <= size) zones.push_back(raw::zone_candidate(i));
  }
  zones.push_back(raw::end_zone(size));
  Buffer block(raw::kBlock);
  for (const uint64_t zone : zones) {
    for (uint64_t slot = 0; slot < 2; ++slot) {
      if (::pread(fd, block.data(), block.size(), static_cast<off_t>(zone + slot * raw::kBlock)) != static_cast<ssize_t>(block.size()))
        continue;
      const auto superblock = raw::decode_superblock(block, zone);
      if (superblock) {
        return ForeignContent{"quarry store", "quarry",
                              fmt::format("drive {} of cluster {}", superblock->drive.to_string(),
                                          superblock->cluster.is_nil() ? "none" : superblock->cluster.to_string())};
      }
      if (superblock.error().code() == Code::incompatible) return ForeignContent{"quarry store", "quarry", superblock.error().context()};
    }
  }
  return std::nullopt;
}

std::string value_of(blkid_probe probe, const char* name) {
  const char* text = nullptr;
  return blkid_probe_lookup_value(probe, name, &text, nullptr) == 0 && text != nullptr ? text : "";
}

Result<std::optional<ForeignContent>> probe_foreign(int fd, const std::string& path) {
  const std::unique_ptr<std::remove_pointer_t<blkid_probe>, void (*)(blkid_probe)> probe(blkid_new_probe(), blkid_free_probe);
  if (!probe || blkid_probe_set_device(probe.get(), fd, 0, 0) != 0) return fail(Code::io_error, "{}: cannot be examined", path);
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID);
  blkid_probe_enable_partitions(probe.get(), 1);
  const int found = blkid_do_safeprobe(probe.get());
  if (found == -2) return std::optional(ForeignContent{"file system", "several", "more than one kind of content was recognised"});
  if (found < 0) return fail(Code::io_error, "{}: cannot be examined", path);
  if (found == 1) return std::optional<ForeignContent>{};
  const std::string type = value_of(probe.get(), "TYPE"), usage = value_of(probe.get(), "USAGE"), table = value_of(probe.get(), "PTTYPE");
  if (!type.empty()) {
    ForeignContent content;
    content.kind = usage == "raid" ? "raid member" : usage == "crypto" ? "encrypted volume" : "file system";
    content.type = type;
    const std::string label = value_of(probe.get(), "LABEL"), uuid = value_of(probe.get(), "UUID");
    content.description =
        fmt::format("{}{}{}", type, label.empty() ? "" : " labelled '" + label + "'", uuid.empty() ? "" : " with uuid " + uuid);
    return std::optional(content);
  }
  if (!table.empty()) return std::optional(ForeignContent{"partition table", table, fmt::format("a partition table of type {}", table)});
  return std::optional<ForeignContent>{};
}

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

bool has_entries(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return false;
  bool any = false;
  while (const dirent* entry = ::readdir(directory)) any |= entry->d_name[0] != '.';
  ::closedir(directory);
  return any;
}

}  // namespace

Result<std::optional<ForeignContent>> probe_device(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0) return errno_error(errno, path);
  TRY_ASSIGN(const uint64_t size, size_of(file.fd, path));
  if (auto own = probe_quarry(file.fd, size)) return own;
  return probe_foreign(file.fd, path);
}

Result<std::vector<DeviceCandidate>> list_devices() {
  std::vector<DeviceCandidate> devices;
  DIR* directory = ::opendir("/sys/block");
  if (directory == nullptr) return errno_error(errno, "/sys/block");
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  ::closedir(directory);
  std::sort(names.begin(), names.end());
  for (const auto& name : names) {
    const std::string base = "/sys/block/" + name;
    DeviceCandidate device;
    device.path = "/dev/" + name;
    device.size = std::strtoull(first_line(base + "/size").c_str(), nullptr, 10) * 512;
    if (device.size == 0 || name.starts_with("ram") || name.starts_with("zram")) continue;
    device.rotational = first_line(base + "/queue/rotational") == "1";
    device.mounted_or_held = has_entries(base + "/holders");
    // Whoever mounts it, or uses it as swap, holds it exclusively.
    const Descriptor exclusive(::open(device.path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    if (exclusive.fd < 0 && (errno == ENOENT || errno == ENXIO)) continue;
    if (exclusive.fd < 0 && errno == EBUSY) device.mounted_or_held = true;
    auto content = probe_device(device.path);
    if (content) {
      device.content = std::move(*content);
    } else {
      device.unreadable = content.error().to_string();
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace quarry::chunk
