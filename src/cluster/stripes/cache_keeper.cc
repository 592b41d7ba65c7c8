#include "cluster/stripes/cache_keeper.h"

#include "base/buffer_arena.h"
#include "base/log.h"

namespace quarry::cluster {
namespace {

constexpr Duration kLook = std::chrono::milliseconds(250);
constexpr uint64_t kReserveShare = 10;  // one part of so many of the memory stays for others, who may ask faster than we look
constexpr uint64_t kReserveMax = 8 * kGiB;
constexpr double kPressureMax = 0.1;  // more: somebody waits for memory, whatever is said to be available
constexpr uint64_t kPressureStep = 8;
constexpr uint64_t kChangeShare = 64;  // smaller changes are not worth it

// On the pool.
Result<uint64_t> look(Plane& plane) {
  const ClusterTuning& tuning = plane.tuning;
  TRY_ASSIGN(const MemoryReport memory, tuning.memory_probe->look());
  ReadCache& cache = plane.cache;
  const uint64_t used = cache.used_bytes(), before = cache.capacity();
  const uint64_t wanted = CacheKeeper::capacity_for(memory, used, tuning.cache_bytes, std::max(tuning.cache_bytes, tuning.cache_bytes_max));
  if (wanted != tuning.cache_bytes && std::max(wanted, before) - std::min(wanted, before) < before / kChangeShare) return before;
  cache.resize(wanted);
  if (wanted < used) buffer_arena_trim();
  return wanted;
}

}  // namespace

uint64_t CacheKeeper::capacity_for(const MemoryReport& memory, uint64_t used, uint64_t least, uint64_t most) {
  const uint64_t reserve = std::min(memory.total / kReserveShare, kReserveMax);
  uint64_t wanted = used + memory.available;
  wanted -= std::min(reserve, wanted);
  if (memory.pressure > kPressureMax) wanted = std::min(wanted, used - used / kPressureStep);
  return std::clamp(wanted, least, most);
}

Task<void> CacheKeeper::run() {
  const ClusterTuning& tuning = plane_.tuning;
  if (tuning.memory_probe == nullptr || tuning.cache_bytes_max <= tuning.cache_bytes || !plane_.cache.enabled()) co_return;
  Plane* plane = &plane_;
  while (!plane_.background.stopping()) {
    auto looking = blocking(pool_, [plane] { return look(*plane); });
    Result<uint64_t> capacity = co_await std::move(looking);
    if (!capacity) {
      LOG_WARNING("the read cache keeps its size: how much memory is available cannot be told", {"error", capacity.error().to_string()});
      co_return;
    }
    co_await alarm.wait(kLook);
  }
}

}  // namespace quarry::cluster
