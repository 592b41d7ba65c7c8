// MemoryProbe: how much memory this process could still take before somebody suffers: of the machine, or of the cgroup that limits it if
// that has less. What the kernel can take back at once (clean files' pages) counts as available. Real and manual.
#pragma once
#include <mutex>
#include <string>

#include "base/result.h"

namespace quarry {

struct MemoryReport {
  uint64_t total = 0;      // bytes that there are: of the machine, or the smallest limit above this process
  uint64_t available = 0;  // bytes of them that could be taken now
  double pressure = 0;  // share of the last ten seconds in which something waited for memory (PSI, "some"); 0 where the kernel does not say
};

// Thread-safe.
class MemoryProbe {
 public:
  virtual ~MemoryProbe() = default;
  // Reads files of the kernel: microseconds, at times milliseconds. Errors: unsupported (it does not say).
  virtual Result<MemoryReport> look() = 0;
};

// proc: where /proc is; cgroups: where the cgroup file systems are. Versions 1 and 2.
class SystemMemoryProbe final : public MemoryProbe {
 public:
  explicit SystemMemoryProbe(std::string proc = "/proc", std::string cgroups = "/sys/fs/cgroup")
      : proc_(std::move(proc)), cgroups_(std::move(cgroups)) {}
  Result<MemoryReport> look() override;

 private:
  const std::string proc_, cgroups_;
};
MemoryProbe& system_memory_probe();

// Says what it is told.
class ManualMemoryProbe final : public MemoryProbe {
 public:
  explicit ManualMemoryProbe(MemoryReport report) : report_(report) {}
  void set(MemoryReport report) {
    const std::lock_guard lock(mutex_);
    report_ = report;
  }
  Result<MemoryReport> look() override {
    const std::lock_guard lock(mutex_);
    return report_;
  }

 private:
  std::mutex mutex_;
  MemoryReport report_;
};

}  // namespace quarry
