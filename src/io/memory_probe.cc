#include "io/memory_probe.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/bytes.h"

namespace quarry {
namespace {

std::optional<std::string> read_text(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<uint64_t> number_of(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  uint64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// The number behind a name at the beginning of a line.
std::optional<uint64_t> field(std::string_view text, std::string_view name) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.starts_with(name)) return number_of(line.substr(name.size()));
    at = end + 1;
  }
  return std::nullopt;
}

// "some avg10=1.23 avg60=..." as a share.
double pressure_in(const std::optional<std::string>& text) {
  constexpr std::string_view kName = "some avg10=";
  const size_t at = text ? text->find(kName) : std::string::npos;
  return at == std::string::npos ? 0 : std::clamp(std::strtod(text->c_str() + at + kName.size(), nullptr) / 100, 0.0, 1.0);
}

// The files of one version of cgroups.
struct Hierarchy {
  std::string root;  // of the file system
  const char* limit;
  const char* current;
  const char* reclaimable[3];  // in memory.stat
};

void narrow(MemoryReport& report, const Hierarchy& kind, std::string path) {
  for (;;) {
    const std::string directory = kind.root + path;
    const auto limit_text = read_text(directory + "/" + kind.limit), current_text = read_text(directory + "/" + kind.current);
    const auto limit = limit_text ? number_of(*limit_text) : std::nullopt;  // none: "max"
    const auto current = current_text ? number_of(*current_text) : std::nullopt;
    if (limit && current) {  // a group above ours may be wide, and full of others
      const std::string stat = read_text(directory + "/memory.stat").value_or("");
      uint64_t reclaimable = 0;
      for (const char* name : kind.reclaimable) reclaimable += field(stat, name).value_or(0);
      const uint64_t held = *current - std::min(reclaimable, *current);
      report.total = std::min(report.total, *limit);
      report.available = std::min(report.available, *limit - std::min(held, *limit));
    }
    report.pressure = std::max(report.pressure, pressure_in(read_text(directory + "/memory.pressure")));
    const size_t parent = path.rfind('/');
    if (path.empty() || parent == std::string::npos) return;
    path.resize(parent);
  }
}

}  // namespace

Result<MemoryReport> SystemMemoryProbe::look() {
  const auto info = read_text(proc_ + "/meminfo");
  const auto total = info ? field(*info, "MemTotal:") : std::nullopt, available = info ? field(*info, "MemAvailable:") : std::nullopt;
  if (!total || !available) return fail(Code::unsupported, "{}/meminfo does not say how much memory is available", proc_);
  MemoryReport report{.total = *total * kKiB, .available = *available * kKiB};
  report.pressure = pressure_in(read_text(proc_ + "/pressure/memory"));
  const std::string groups = read_text(proc_ + "/self/cgroup").value_or("");
  std::istringstream lines(groups);
  for (std::string line; std::getline(lines, line);) {  // "0::/path" (version 2), "7:memory:/path" (version 1)
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    if (controllers == ",,") {
      narrow(report, {cgroups_, "memory.max", "memory.current", {"inactive_file ", "active_file ", "slab_reclaimable "}}, path);
    } else if (controllers.find(",memory,") != std::string::npos) {
      narrow(report,
             {cgroups_ + "/memory",
              "memory.limit_in_bytes",
              "memory.usage_in_bytes",
              {"total_inactive_file ", "total_active_file ", "total_slab_reclaimable "}},
             path);
    }
  }
  return report;
}

MemoryProbe& system_memory_probe() {
  static SystemMemoryProbe probe;
  return probe;
}

}  // namespace quarry
