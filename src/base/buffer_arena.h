// The memory behind Buffer. Mapping and unmapping megabytes for each request costs more than moving them (every page faults), so
// sizes up to kBufferClassMax come from size classes (at most a quarter is wasted) in one reserved range of addresses, through a
// cache for each thread: a warm path takes no lock and makes no system call.
//   The range grows by chunks. The first ones, up to buffer_arena_limit, stay for the life of the process: an io_uring may have them
// registered (their pages pinned). Later ones are not registered; when more than kBufferFreeMax of them lies free, whole chunks go back
// to the operating system, and with buffer_arena_trim what is free between buffers. A program that keeps many buffers for long (a read
// cache) raises the limit by what it always keeps, so that those in motion find registered memory. Larger buffers come from the heap.
// Under sanitizers there is no range: everything is plain heap, so that each error is seen. Thread-safe.
#pragma once
#include "base/bytes.h"

namespace quarry {

inline constexpr size_t kBufferChunk = 32 * kMiB;     // unit of growth and of registration; a buffer never crosses two
inline constexpr size_t kBufferClassMax = 8 * kMiB;   // larger buffers come from the heap
inline constexpr size_t kBufferCacheMax = 16 * kMiB;  // free memory one thread may keep to itself
inline constexpr size_t kBufferFreeMax = 128 * kMiB;  // free chunks beyond the limit that are kept for the next burst

// The part that stays, bytes. Default: 256 MiB, or an eighth of the machine's memory if that is less.
size_t buffer_arena_limit();
// Only before the first Buffer of the process. Rounded down to chunks; 0: nothing stays and nothing is registered.
void set_buffer_arena_limit(size_t bytes);

// Gives the free memory of the part that does not stay back to the operating system, also where it lies between buffers in use: after many
// that were kept for long have died. Takes milliseconds a gigabyte; holds up others for microseconds.
void buffer_arena_trim();

// What a buffer of this size really takes, bytes.
size_t buffer_allocation_size(size_t size);
// 4096-aligned, uninitialised; size > 0. Never null: out of memory ends the process.
uint8_t* buffer_allocate(size_t size);
void buffer_release(uint8_t* data, size_t size);  // the size it was allocated with

// For those who register the range with a ring.
size_t buffer_arena_chunks_max();                          // those that may be registered; 0: none
MutableByteView buffer_arena_chunk(size_t index);          // addresses are fixed for the life of the process
int buffer_arena_chunk_of(const void* data, size_t size);  // the chunk that holds the whole range and may be registered, or -1

struct BufferArenaStats {
  uint64_t chunk_bytes = 0;       // of chunks that stay and are in use: at most buffer_arena_limit
  uint64_t extra_bytes = 0;       // of chunks beyond the limit that hold memory now
  uint64_t heap_allocations = 0;  // since start: too large for a class, or no range
  uint64_t refills = 0;           // since start: a thread's cache had to ask under the lock
};
BufferArenaStats buffer_arena_stats();

}  // namespace quarry
