// REACHED("repair.ground_changed") marks a rare branch: a test that plays for it asserts that it was taken. Counts in `dev` builds, nothing
// in `release`. Thread-safe; a hit costs one relaxed increment.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <string>

namespace quarry {

// Hits since start, by name; only places that were passed at least once. Empty in release.
std::map<std::string, uint64_t> points_reached();

namespace detail {
class ReachedPoint {
 public:
  explicit ReachedPoint(const char* name);
  void hit() { hits_.fetch_add(1, std::memory_order_relaxed); }

 private:
  friend std::map<std::string, uint64_t> quarry::points_reached();
  const char* name_;
  std::atomic<uint64_t> hits_{0};
};
}  // namespace detail
}  // namespace quarry

#ifdef QUARRY_DEV
#define REACHED(name)                                   \
  ([] {                                                 \
    static ::quarry::detail::ReachedPoint point_(name); \
    point_.hit();                                       \
  }())
#else
#define REACHED(name) static_cast<void>(0)
#endif
