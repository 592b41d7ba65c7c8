#include "daemon/sizes.h"

#include <algorithm>

namespace quarry::daemon {

Sizes sizes_for(uint64_t memory) {
  const auto part = [memory](uint64_t divisor, uint64_t least, uint64_t most) { return std::clamp(memory / divisor, least, most); };
  Sizes sizes;
  sizes.read_cache = memory < 4 * kGiB ? part(8, 16 * kMiB, 4 * kGiB) : part(4, 0, 4 * kGiB);
  sizes.write_memory = part(8, 48 * kMiB, 384 * kMiB);
  sizes.read_ahead = part(16, 16 * kMiB, 128 * kMiB);
  sizes.buffers_in_motion = part(8, 64 * kMiB, 256 * kMiB);
  sizes.index_cache = part(16, 16 * kMiB, kGiB);
  sizes.index_memtable = part(32, 8 * kMiB, 64 * kMiB);
  return sizes;
}

}  // namespace quarry::daemon
