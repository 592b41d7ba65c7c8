// UringBlockDevice: a whole block device, or a file that stands for one, over the ring of the executor that opens it. O_DIRECT, a
// registered file, and registered memory where the bytes lie in Buffers of the arena. Durable writes are RWF_DSYNC (which the
// kernel makes a FUA write where the drive can), flush is fdatasync, discard a TRIM or a hole.
// Confined to the executor that opened it, destruction too; stats() from any thread.
#pragma once
#include <memory>
#include <string>

#include "io/block_device.h"
#include "io/ring_executor.h"
#include "io/thread_pool.h"

namespace quarry {

class UringBlockDevice : public BlockDevice {
 public:
  struct Options {
    bool read_only = false;
    // Nobody else may have it open in this way: O_EXCL on a block device (a mounted one refuses too), a lock on a file.
    bool exclusive = true;
  };
  // Parts of one gathered write at most.
  static constexpr size_t kPartsMax = 64;

  // On a RingExecutor. Errors: not_found, permission_denied, busy (already open by another process, or mounted), io_error,
  // invalid_argument (a directory, or smaller than one block), incompatible (sectors larger than we handle).
  static Task<Result<std::unique_ptr<BlockDevice>>> open(std::string path, Options options);
  static Task<Result<std::unique_ptr<BlockDevice>>> open(std::string path) { return open(std::move(path), Options{}); }
  ~UringBlockDevice() override;

  const DeviceInfo& info() const override { return info_; }
  Task<Result<void>> read(uint64_t offset, MutableByteView into) override;
  Task<Result<void>> write(uint64_t offset, ByteView from, Durability durability) override;
  Task<Result<void>> write_gather(uint64_t offset, std::vector<ByteView> parts, Durability durability) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> discard(uint64_t offset, uint64_t length) override;
  Task<Result<uint64_t>> refresh_size() override;
  Task<void> close() override;
  DeviceStats stats() const override;

 private:
  struct Op;
  struct Use;
  UringBlockDevice(RingExecutor& ring, int fd, bool is_block, DeviceInfo info, bool read_only);
  Result<void> check(const char* verb, uint64_t offset, uint64_t length, uintptr_t memory_bits, bool writes) const;
  Error failure(int error_number, const char* verb, uint64_t offset, uint64_t length);
  void release();

  RingExecutor& ring_;
  int fd_;
  int slot_ = -1;  // in the ring's file table, or -1
  const bool is_block_;
  const bool read_only_;
  DeviceInfo info_;
  Event idle_;
  uint64_t in_flight_ = 0;
  bool closing_ = false;
  enum class DiscardBy : uint8_t { ring_command, punch_hole, ioctl, nothing } discard_by_;
  std::unique_ptr<ThreadPool> discard_pool_;  // for kernels that discard only by a call that blocks
  struct Counters {
    std::atomic<uint64_t> reads{0}, writes{0}, flushes{0}, discards{0}, errors{0}, bytes_read{0}, bytes_written{0}, read_ns{0}, write_ns{0},
        flush_ns{0}, in_flight{0}, in_flight_max{0};
  } counters_;
};

// Makes a sparse file of exactly `size` bytes, durable when it returns (file and directory entry). Blocks for a moment.
// Errors: already_exists, invalid_argument (less than one block), no_space, permission_denied, io_error.
Result<void> create_file_device(const std::string& path, uint64_t size);

}  // namespace quarry
