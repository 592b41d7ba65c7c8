// How a node divides the memory that it may use (base/machine.h) among what it keeps. From 4 GiB on each part has its full size but the
// caches, which go on growing; below, all become smaller, so that their sum stays well inside a limit of half a gigabyte.
#pragma once
#include "base/bytes.h"

namespace quarry::daemon {

struct Sizes {  // bytes
  uint64_t read_cache = 0;
  uint64_t write_memory = 0;
  uint64_t read_ahead = 0;
  uint64_t buffers_in_motion = 0;  // registered memory beside what the read cache holds
  uint64_t index_cache = 0;        // RocksDB's blocks
  uint64_t index_memtable = 0;     // there may be three
  uint64_t sum() const { return read_cache + write_memory + read_ahead + index_cache + 3 * index_memtable; }
};
Sizes sizes_for(uint64_t memory);

}  // namespace quarry::daemon
