#include "base/fault_points.h"

#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "base/check.h"

namespace quarry {
namespace {
struct Arming {
  FaultAction action = FaultAction::fail;
  uint64_t first_hit = 1;
  uint64_t times = 1;
  uint64_t hits = 0;
};

std::atomic<bool> any_armed{false};

struct Registry {
  std::mutex mutex;
  std::map<std::string, Arming, std::less<>> armed;
  std::vector<detail::FaultPoint*> points;
};
Registry& registry() {
  static Registry* const only = std::make_unique<Registry>().release();  // outlives static destructors
  return *only;
}

Result<std::vector<std::pair<std::string, Arming>>> parse(std::string_view text) {
  std::vector<std::pair<std::string, Arming>> parsed;
  while (!text.empty()) {
    std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const auto malformed = [item] {
      return fail(Code::malformed, "fault '{}': write NAME:fail or NAME:die, with @N for the Nth hit", item);
    };
    const std::string_view whole = item;
    const size_t colon = item.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return malformed();
    Arming arming;
    item.remove_prefix(colon + 1);
    if (const size_t at = item.find('@'); at != std::string_view::npos) {
      const std::string_view number = item.substr(at + 1);
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), arming.first_hit);
      if (error != std::errc() || end != number.data() + number.size() || arming.first_hit == 0) return malformed();
      item = item.substr(0, at);
    }
    if (item == "die") {
      arming.action = FaultAction::die;
    } else if (item != "fail") {
      return malformed();
    }
    parsed.emplace_back(whole.substr(0, colon), arming);
  }
  return parsed;
}

// Before main's first fault point: an environment that cannot be understood must not pass for a test that found nothing.
[[maybe_unused]] const bool from_environment = [] {
#ifdef QUARRY_DEV
  if (const char* text = std::getenv("QUARRY_FAULT")) {
    const auto result = arm_faults(text);
    if (!result) {
      std::fprintf(stderr, "QUARRY_FAULT: %s\n", result.error().to_string().c_str());
      std::_Exit(2);
    }
  }
#endif
  return true;
}();
}  // namespace

void arm_fault(std::string name, FaultAction action, uint64_t first_hit, uint64_t times) {
  const std::lock_guard lock(registry().mutex);
  registry().armed[std::move(name)] = {action, first_hit, times, 0};
  any_armed.store(true);
}

void disarm_faults() {
  const std::lock_guard lock(registry().mutex);
  registry().armed.clear();
  any_armed.store(false);
}

Result<void> arm_faults(std::string_view text) {
  TRY_ASSIGN(const auto parsed, parse(text));
  for (const auto& [name, arming] : parsed) arm_fault(name, arming.action, arming.first_hit, arming.times);
  return {};
}

std::map<std::string, uint64_t> points_reached() {
  std::map<std::string, uint64_t> all;
  const std::lock_guard lock(registry().mutex);
  for (const auto* point : registry().points) all[point->name_] += point->hits_.load(std::memory_order_relaxed);
  return all;
}

namespace detail {

FaultPoint::FaultPoint(const char* name) : name_(name) {
  const std::lock_guard lock(registry().mutex);
  registry().points.push_back(this);
}

bool FaultPoint::hit() {
  hits_.fetch_add(1, std::memory_order_relaxed);
  if (!any_armed.load(std::memory_order_relaxed)) return false;
  const std::lock_guard lock(registry().mutex);
  const auto it = registry().armed.find(std::string_view(name_));
  if (it == registry().armed.end()) return false;
  Arming& arming = it->second;
  ++arming.hits;
  if (arming.hits < arming.first_hit || arming.hits - arming.first_hit >= arming.times) return false;
  if (arming.action == FaultAction::die) {
    std::fprintf(stderr, "fault point %s: dying\n", name_);
    std::_Exit(137);  // as kill -9 would leave it
  }
  return true;
}

}  // namespace detail
}  // namespace quarry
