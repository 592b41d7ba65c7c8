#include "base/machine.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

namespace quarry {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// A file of one number; "max", "-1", and files that are not there say nothing.
std::optional<uint64_t> number_in(const std::string& path) {
  const std::string line = first_line(path);
  if (line.empty() || line[0] < '0' || line[0] > '9') return std::nullopt;
  return std::strtoull(line.c_str(), nullptr, 10);
}

void apply_quota(MachineLimits& limits, uint64_t quota, uint64_t period) {
  if (quota == 0 || period == 0) return;
  const uint64_t processors = std::max<uint64_t>(1, (quota + period - 1) / period);
  limits.processors = static_cast<unsigned>(std::min<uint64_t>(limits.processors, processors));
}

}  // namespace

std::vector<ControlGroup> control_groups(const std::string& root, std::string_view controller) {
  std::vector<ControlGroup> groups;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "0::/a/b", or "4:cpu,cpuacct:/a/b"
    const size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && !fmt::format(",{},", controllers).contains(fmt::format(",{},", controller))) continue;
    const std::string base = root + "/sys/fs/cgroup" + (controllers.empty() ? "" : "/" + controllers);
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      groups.push_back({base + path, controllers.empty() ? 2 : 1});
      if (path.empty()) break;
    }
  }
  return groups;
}

MachineLimits machine_limits_below(const std::string& root, MachineLimits whole) {
  MachineLimits limits = whole;
  for (const ControlGroup& group : control_groups(root, "memory")) {
    for (const char* name : {"/memory.max", "/memory.high", "/memory.limit_in_bytes"}) {
      const auto bytes = number_in(group.directory + name);
      if (bytes && *bytes > 0) limits.memory_bytes = std::min(limits.memory_bytes, *bytes);
    }
  }
  for (const ControlGroup& group : control_groups(root, "cpu")) {
    std::istringstream line(first_line(group.directory + "/cpu.max"));
    uint64_t quota = 0, period = 0;
    if (line >> quota >> period) apply_quota(limits, quota, period);
    const auto old_quota = number_in(group.directory + "/cpu.cfs_quota_us"), old_period = number_in(group.directory + "/cpu.cfs_period_us");
    if (old_quota && old_period) apply_quota(limits, *old_quota, *old_period);
  }
  return limits;
}

MachineLimits machine_limits() {
  MachineLimits whole;
  whole.memory_bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0;
  whole.processors = known ? static_cast<unsigned>(CPU_COUNT(&set)) : std::max(1u, std::thread::hardware_concurrency());
  return machine_limits_below("", whole);
}

}  // namespace quarry
