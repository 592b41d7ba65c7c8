// What this process may use of the machine: its memory and processors, or less where a control group (a container, a service with limits,
// both versions) or an affinity says so. Who plans for more is killed, or waits for itself.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quarry {

struct MachineLimits {
  uint64_t memory_bytes = 0;
  unsigned processors = 0;  // at least 1; of a quota in time, rounded up
};

// As things are now; a few small files are read. Thread-safe.
MachineLimits machine_limits();
// The same with files below `root` (/proc/self/cgroup, /sys/fs/cgroup) instead of the machine's, which has `whole`.
MachineLimits machine_limits_below(const std::string& root, MachineLimits whole);

// A control group that this process is in, or one above.
struct ControlGroup {
  std::string directory;  // with its files
  int version = 2;
};
// Those that steer `controller` ("memory", "cpu"), each hierarchy's own group first, then those above up to its root. A container may see
// its own group as the root, whatever the path says, so directories that are not there are among them. root: as above, "" for the
// machine's.
std::vector<ControlGroup> control_groups(const std::string& root, std::string_view controller);

}  // namespace quarry
