// BlockDevice: a range of bytes with sector semantics: a whole raw device, or a file that stands for one. No caching below it
// (O_DIRECT), so offsets, lengths and memory are multiples of `block_size` (memory: 4096-aligned, use Buffer).
// Real: io/uring_block_device.h. Simulated with faults, and a recorder that enumerates crash images: io/sim/.
#pragma once
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "io/task.h"

namespace quarry {

enum class DriveClass : uint8_t { nvme = 1, ssd = 2, hdd = 3, file = 4 };

struct DeviceInfo {
  std::string path;
  uint64_t size = 0;            // bytes
  uint32_t block_size = 4096;   // I/O granule used by us: max(logical, physical), at least 4096
  uint32_t atomic_write = 512;  // largest write that is never torn, bytes
  bool volatile_cache = true;   // writes need flush (or Durability::durable) to survive a power cut
  bool supports_discard = false;
  DriveClass drive_class = DriveClass::file;
};

enum class Durability : uint8_t {
  volatile_,  // complete when the device has it; may be lost in a power cut until the next flush
  durable,    // on stable media when complete (FUA / RWF_DSYNC)
};

// Since the device was opened. Times are sums over completed requests, ns; divide by the counts.
struct DeviceStats {
  uint64_t reads = 0, writes = 0, flushes = 0, discards = 0, errors = 0;
  uint64_t bytes_read = 0, bytes_written = 0;
  uint64_t read_ns = 0, write_ns = 0, flush_ns = 0;
  uint64_t in_flight = 0, in_flight_max = 0;
};

// Confined to the executor that opened it, unless an implementation says otherwise. Requests may overlap and complete in any
// order; overlapping writes in flight to the same block are the caller's mistake. A failed write leaves the range undefined.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  virtual const DeviceInfo& info() const = 0;

  // Fills `into` entirely or fails. Errors: io_error (bad sector, names the offset), device_gone, out_of_range.
  virtual Task<Result<void>> read(uint64_t offset, MutableByteView into) = 0;
  // Writes all of `from`. Errors: io_error, no_space (sparse file on a full disk), device_gone, read_only, out_of_range.
  virtual Task<Result<void>> write(uint64_t offset, ByteView from, Durability durability) = 0;
  // Gathers parts (each a multiple of block_size, aligned) into one device write. At most 64 parts.
  virtual Task<Result<void>> write_gather(uint64_t offset, std::vector<ByteView> parts, Durability durability) = 0;
  // When complete, every write that completed before the call is on stable media.
  virtual Task<Result<void>> flush() = 0;
  // Contents become undefined (zero on files); space may return to the host. A hint: unsupported is not an error.
  virtual Task<Result<void>> discard(uint64_t offset, uint64_t length) = 0;
  // Asks the operating system for the size again (a grown device or file). Returns the new size.
  virtual Task<Result<uint64_t>> refresh_size() = 0;
  // Completes what is in flight, then closes. Idempotent.
  virtual Task<void> close() = 0;
  // Any thread; the numbers of one moment, not of one instant.
  virtual DeviceStats stats() const { return {}; }
};

}  // namespace quarry
