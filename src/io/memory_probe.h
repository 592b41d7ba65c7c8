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

// root: below which /proc and /sys/fs/cgroup are; the machine's for "".
class SystemMemoryProbe final : public MemoryProbe {
 public:
  explicit SystemMemoryProbe(std::string root = "") : root_(std::move(root)) {}
  Result<MemoryReport> look() override;

 private:
  const std::string root_;
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
