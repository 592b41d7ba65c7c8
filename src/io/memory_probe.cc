#include "io/memory_probe.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/bytes.h"
#include "base/machine.h"

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

void narrow(MemoryReport& report, const ControlGroup& group) {
  const bool old = group.version == 1;
  std::optional<uint64_t> limit;  // none: "max"
  for (const char* name : old ? std::vector{"/memory.limit_in_bytes"} : std::vector{"/memory.max", "/memory.high"}) {
    const auto text = read_text(group.directory + name);
    if (const auto bytes = text ? number_of(*text) : std::nullopt) limit = std::min(limit.value_or(UINT64_MAX), *bytes);
  }
  const auto current_text = read_text(group.directory + (old ? "/memory.usage_in_bytes" : "/memory.current"));
  const auto current = current_text ? number_of(*current_text) : std::nullopt;
  if (limit && current) {  // a group above ours may be wide, and full of others
    const std::string stat = read_text(group.directory + "/memory.stat").value_or("");
    uint64_t reclaimable = 0;
    for (const char* name : {"inactive_file ", "active_file ", "slab_reclaimable "}) {
      reclaimable += field(stat, old ? fmt::format("total_{}", name) : name).value_or(0);
    }
    const uint64_t held = *current - std::min(reclaimable, *current);
    report.total = std::min(report.total, *limit);
    report.available = std::min(report.available, *limit - std::min(held, *limit));
  }
  report.pressure = std::max(report.pressure, pressure_in(read_text(group.directory + "/memory.pressure")));
}

}  // namespace

Result<MemoryReport> SystemMemoryProbe::look() {
  const auto info = read_text(root_ + "/proc/meminfo");
  const auto total = info ? field(*info, "MemTotal:") : std::nullopt, available = info ? field(*info, "MemAvailable:") : std::nullopt;
  if (!total || !available) return fail(Code::unsupported, "{}/proc/meminfo does not say how much memory is available", root_);
  MemoryReport report{.total = *total * kKiB, .available = *available * kKiB};
  report.pressure = pressure_in(read_text(root_ + "/proc/pressure/memory"));
  for (const ControlGroup& group : control_groups(root_, "memory")) narrow(report, group);
  return report;
}

MemoryProbe& system_memory_probe() {
  static SystemMemoryProbe probe;
  return probe;
}

}  // namespace quarry
