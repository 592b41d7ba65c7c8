// What this process may use of the machine: its memory and processors, or less where a control group (a container, a service with limits,
// both versions) or an affinity says so. Who plans for more is killed, or waits for itself.
#pragma once
#include <cstdint>
#include <string>

namespace quarry {

struct MachineLimits {
  uint64_t memory_bytes = 0;
  unsigned processors = 0;  // at least 1; of a quota in time, rounded up
};

// As things are now; a few small files are read. Thread-safe.
MachineLimits machine_limits();
// The same with files below `root` (/proc/self/cgroup, /sys/fs/cgroup) instead of the machine's, which has `whole`.
MachineLimits machine_limits_below(const std::string& root, MachineLimits whole);

}  // namespace quarry
