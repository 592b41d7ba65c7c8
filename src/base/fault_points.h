// Named places in the program for tests: FAULT marks where it is worth to fail or to die, REACHED marks rare branches worth reaching.
// Both exist in `dev` builds and vanish from `release`.
//
//   if (FAULT("chunk.journal.after_append")) return fail(Code::io_error, "...");     // by hand
//   FAULT_TRY("chunk.journal.after_append");     CO_FAULT_TRY(...) in a task         // the usual: returns an io_error that names it
//   REACHED("repair.two_losses");
//
// Armed by a test (arm_fault) or from outside by QUARRY_FAULT="name:action[@n],..." with action `fail` or `die` and n the hit that
// acts (1, the default, is the first): QUARRY_FAULT="meta.after_commit:die@100". `die` ends the process as a power cut would: at
// once, nothing is flushed or destroyed. Thread-safe. A point that is not armed costs one relaxed load and one increment.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"

namespace quarry {

enum class FaultAction : uint8_t { fail, die };

// From its hit number `first_hit` on (counted from the arming), `times` times. Replaces an earlier arming of the name.
void arm_fault(std::string name, FaultAction action, uint64_t first_hit = 1, uint64_t times = 1);
void disarm_faults();
// "name:die@3,other:fail". Errors: malformed.
Result<void> arm_faults(std::string_view text);

// Hits of FAULT and REACHED since start, by name; only places that were passed at least once. Empty in release.
std::map<std::string, uint64_t> points_reached();

namespace detail {
class FaultPoint {
 public:
  explicit FaultPoint(const char* name);
  // Counts; true if this hit is to fail.
  bool hit();

 private:
  friend std::map<std::string, uint64_t> quarry::points_reached();
  const char* name_;
  std::atomic<uint64_t> hits_{0};
};
}  // namespace detail
}  // namespace quarry

#ifdef QUARRY_DEV
#define FAULT(name)                                   \
  ([]() -> bool {                                     \
    static ::quarry::detail::FaultPoint point_(name); \
    return point_.hit();                              \
  }())
#define REACHED(name) static_cast<void>(FAULT(name))
#else
#define FAULT(name) false
#define REACHED(name) static_cast<void>(0)
#endif
#define FAULT_TRY(name)                                                                       \
  do {                                                                                        \
    if (FAULT(name)) return ::quarry::fail(::quarry::Code::io_error, "fault point {}", name); \
  } while (false)
#define CO_FAULT_TRY(name)                                                                       \
  do {                                                                                           \
    if (FAULT(name)) co_return ::quarry::fail(::quarry::Code::io_error, "fault point {}", name); \
  } while (false)
