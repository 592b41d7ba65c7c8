// What both users of S-buckets, KfsStore (files by content hash) and KfsChunkStore (chunks by id), can be told. No LevelDB header is
// needed.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/units.h"

namespace quarry::chunk {

namespace kfs {
class Files;  // the file system under the buckets; tests put faults and a recorder there (kfs/files.h)
}

inline constexpr size_t kKfsBuckets = 256;
inline constexpr uint32_t kKfsBlock = 64 * kKiB;        // bytes of a value; the last one of a file may be shorter
inline constexpr uint64_t kKfsBlocksMax = 999'999;      // six digits
inline constexpr uint64_t kKfsBucketBytes = 32 * kGiB;  // default limit of one bucket

// Bounds and sizes of one open store. Every one may be changed at each open.
struct KfsTuning {
  // Most LevelDB instances open at a time; 0: as many as fit into the process's limit of open files (24 each) and a sixteenth of the
  // memory (two write buffers each), 4 to 256.
  size_t instances_max = 0;
  Duration idle_close = std::chrono::seconds(60);  // an instance that nobody used for so long is closed
  size_t write_buffer_bytes = 4 * kMiB;            // per instance; two of them while one is being written out
  size_t table_bytes = 8 * kMiB;                   // LevelDB's max_file_size
  size_t cache_bytes = 32 * kMiB;                  // blocks that hold records, shared by all instances (payload is not cached)
  // A bucket is compacted in the background when this much was deleted since the last time, and this share of what is left.
  uint64_t compact_after_bytes = 64 * kMiB;
  double compact_after_share = 0.25;
  // New data is refused (no_space) while the file system has less than this free, so that removals and compaction always have room.
  uint64_t reserve_bytes = 256 * kMiB;  // at most a 20th of the file system
  kfs::Files* files = nullptr;          // tests; null: the operating system
};

}  // namespace quarry::chunk
