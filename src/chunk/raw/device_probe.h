// What a device carries before it is formatted: asked of libblkid (partition tables, file systems, RAID and LVM members) and of
// our own superblock. `quarry device format` refuses what is not empty unless forced.
#pragma once
#include <optional>
#include <string>

#include "base/result.h"

namespace quarry::chunk {

struct ForeignContent {
  std::string kind;         // "partition table", "file system", "raid member", "quarry store", "data"
  std::string type;         // "gpt", "ext4", ...
  std::string description;  // one sentence for people, with label or uuid where there is one
};

// Nothing if the device or file carries none of these. Blocks (reads a few sectors): call on a blocking pool.
// Errors: not_found, permission_denied, busy, io_error.
Result<std::optional<ForeignContent>> probe_device(const std::string& path);

// Block devices and files that could become drives, for `quarry device list`: path, size and what they carry.
struct DeviceCandidate {
  std::string path;
  uint64_t size = 0;
  bool rotational = false;
  bool mounted_or_held = false;  // mounted, swap, member of another device
  std::optional<ForeignContent> content;
  std::string unreadable;  // not empty: why nobody knows what it carries (permission); it is not to be called free
};
// Without devices that have no file in /dev: a container sees those of its host in /sys.
Result<std::vector<DeviceCandidate>> list_devices();

}  // namespace quarry::chunk
