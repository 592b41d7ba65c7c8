#include "io/uring_block_device.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/log.h"

namespace quarry {
namespace {
constexpr uint32_t kBlockMin = 4096;
constexpr uint32_t kBlockMax = 64 * kKiB;
// BLOCK_URING_CMD_DISCARD of Linux 6.12 (linux/blkdev.h); Debian 12's headers do not have it.
constexpr uint32_t kDiscardCommand = _IO(0x12, 0);
constexpr int kTransientRetriesMax = 1000;

void add(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// One value of a device's queue/ directory; 0 if there is none.
uint64_t queue_number(const std::string& queue, const char* name) {
  unsigned long long value = 0;
  if (FILE* file = std::fopen((queue + name).c_str(), "re")) {
    if (std::fscanf(file, "%llu", &value) != 1) value = 0;
    std::fclose(file);
  }
  return value;
}
std::string queue_word(const std::string& queue, const char* name) {
  char text[64] = "";
  if (FILE* file = std::fopen((queue + name).c_str(), "re")) {
    if (std::fgets(text, sizeof(text), file) == nullptr) text[0] = 0;
    std::fclose(file);
  }
  return text;
}

Result<uint64_t> size_of(int fd, bool is_block, const std::string& path) {
  if (is_block) {
    uint64_t size = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0) return errno_error(errno, fmt::format("size of {}", path));
    return size;
  }
  struct stat status{};
  if (fstat(fd, &status) != 0) return errno_error(errno, fmt::format("size of {}", path));
  return static_cast<uint64_t>(status.st_size);
}

Result<DeviceInfo> probe(int fd, const struct stat& status, const std::string& path) {
  DeviceInfo info{.path = path};
  const bool is_block = S_ISBLK(status.st_mode);
  if (is_block) {
    int logical = 0;
    unsigned physical = 0;
    if (ioctl(fd, BLKSSZGET, &logical) != 0) return errno_error(errno, fmt::format("sector size of {}", path));
    if (ioctl(fd, BLKPBSZGET, &physical) != 0) return errno_error(errno, fmt::format("sector size of {}", path));
    info.block_size = std::max({kBlockMin, static_cast<uint32_t>(logical), physical});
    if (info.block_size > kBlockMax) {
      return fail(Code::incompatible, "{} has sectors of {} bytes; at most {} are handled", path, info.block_size, kBlockMax);
    }
    // A partition has no queue of its own; the drive's is one level up.
    const auto node = fmt::format("/sys/dev/block/{}:{}", major(status.st_rdev), minor(status.st_rdev));
    std::error_code missing;
    const std::string queue = node + (std::filesystem::exists(node + "/queue", missing) ? "/queue/" : "/../queue/");
    const auto real = std::filesystem::canonical(node, missing).string();
    info.volatile_cache = queue_word(queue, "write_cache").find("through") == std::string::npos;
    info.supports_discard = queue_number(queue, "discard_max_bytes") > 0;
    info.atomic_write =
        static_cast<uint32_t>(std::max<uint64_t>(static_cast<uint64_t>(logical), queue_number(queue, "atomic_write_unit_max_bytes")));
    info.drive_class = queue_number(queue, "rotational") != 0     ? DriveClass::hdd
                       : real.find("/nvme/") != std::string::npos ? DriveClass::nvme
                                                                  : DriveClass::ssd;
  } else {
    info.supports_discard = true;
    info.drive_class = DriveClass::file;
  }
  TRY_ASSIGN(const uint64_t size, size_of(fd, is_block, path));
  info.size = round_down(size, info.block_size);
  if (info.size == 0) return fail(Code::invalid_argument, "{} is smaller than one block of {} bytes", path, info.block_size);
  return info;
}

// Opens and locks; the descriptor is ready for use.
Result<int> open_descriptor(const std::string& path, const UringBlockDevice::Options& options) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return errno_error(errno, fmt::format("open {}", path));
  if (!S_ISBLK(status.st_mode) && !S_ISREG(status.st_mode)) {
    return fail(Code::invalid_argument, "{} is neither a block device nor a plain file", path);
  }
  int flags = (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  if (S_ISBLK(status.st_mode) && options.exclusive) flags |= O_EXCL;
  int fd = ::open(path.c_str(), flags | O_DIRECT);
  if (fd < 0 && errno == EINVAL) {
    LOG_WARNING("the file system does not offer O_DIRECT; the page cache will hold a second copy", {"path", path});
    fd = ::open(path.c_str(), flags);
  }
  if (fd < 0 && errno == EBUSY) return fail(Code::busy, "{} is mounted, or already open by another process", path);
  if (fd < 0) return errno_error(errno, fmt::format("open {}", path));
  Descriptor descriptor(fd);
  if (S_ISREG(status.st_mode) && options.exclusive && flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::busy, "{} is already open by another process", path);
    return errno_error(errno, fmt::format("lock {}", path));
  }
  return descriptor.release();
}
}  // namespace

// ---------------------------------------------------------------- operations

// Awaited in the frame of the request. The preparation is a member, so that one type serves all.
struct UringBlockDevice::Op : RingOp {
  UringBlockDevice& device;
  std::coroutine_handle<> handle{};
  int result = 0;
  io_uring_sqe* sqe = nullptr;

  explicit Op(UringBlockDevice& d) : RingOp{&finished}, device(d) { sqe = d.ring_.prepare(*this); }
  static void finished(RingOp& op, int result, uint32_t) {
    auto& self = static_cast<Op&>(op);
    self.result = result;
    self.handle.resume();
  }
  int fd() const { return device.slot_ >= 0 ? device.slot_ : device.fd_; }
  void use_file() {
    if (device.slot_ >= 0) sqe->flags |= IOSQE_FIXED_FILE;
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) noexcept { handle = h; }
  int await_resume() const noexcept { return result; }
};

// Counts a request from check to completion.
struct UringBlockDevice::Use {
  UringBlockDevice& device;
  TimePoint start;
  explicit Use(UringBlockDevice& d) : device(d), start(d.ring_.now()) {
    auto& counters = d.counters_;
    counters.in_flight.store(++d.in_flight_, std::memory_order_relaxed);
    if (d.in_flight_ > counters.in_flight_max.load(std::memory_order_relaxed)) {
      counters.in_flight_max.store(d.in_flight_, std::memory_order_relaxed);
    }
  }
  Use(const Use&) = delete;
  uint64_t elapsed() const { return static_cast<uint64_t>((device.ring_.now() - start).count()); }
  ~Use() {
    device.counters_.in_flight.store(--device.in_flight_, std::memory_order_relaxed);
    if (device.in_flight_ == 0 && device.closing_) device.idle_.set();
  }
};

Result<void> UringBlockDevice::check(const char* verb, uint64_t offset, uint64_t length, uintptr_t memory_bits, bool writes) const {
  DCHECK(Executor::current() == &ring_);
  if (closing_) return fail(Code::device_gone, "{}: the device is closed", info_.path);
  if (offset > info_.size || length > info_.size - offset) {
    return fail(Code::out_of_range, "{}: {} of {} bytes at {} passes the end at {}", info_.path, verb, length, offset, info_.size);
  }
  if (length == 0 || (offset | length) % info_.block_size != 0 || memory_bits % kBufferAlignment != 0) {
    return fail(Code::invalid_argument, "{}: {} of {} bytes at {}: offset, length and memory must be aligned to {} (memory: {})",
                info_.path, verb, length, offset, info_.block_size, kBufferAlignment);
  }
  if (writes && read_only_) return fail(Code::read_only, "{} is open for reading only", info_.path);
  return {};
}

Error UringBlockDevice::failure(int error_number, const char* verb, uint64_t offset, uint64_t length) {
  add(counters_.errors, 1);
  const auto what = fmt::format("{}: {} of {} bytes at {}", info_.path, verb, length, offset);
  if ((error_number == EIO || error_number == ENOSPC) && is_block_) {
    // A drive that was pulled out fails like a bad sector or, when written to, like a full disk; but it has no size any more.
    uint64_t size = 0;
    if (ioctl(fd_, BLKGETSIZE64, &size) != 0 || size == 0) return fail(Code::device_gone, "{}: the device is gone", what);
  }
  return errno_error(error_number, what);
}

Task<Result<void>> UringBlockDevice::read(uint64_t offset, MutableByteView into) {
  CO_TRY(check("read", offset, into.size(), reinterpret_cast<uintptr_t>(into.data()), false));
  Use use(*this);
  const size_t length = into.size();
  int transient = 0;
  while (!into.empty()) {
    const int buffer = ring_.registered_buffer(into.data(), into.size());
    Op op(*this);
    if (buffer >= 0) {
      io_uring_prep_read_fixed(op.sqe, op.fd(), into.data(), static_cast<unsigned>(into.size()), offset, buffer);
    } else {
      io_uring_prep_read(op.sqe, op.fd(), into.data(), static_cast<unsigned>(std::min<size_t>(into.size(), kGiB)), offset);
    }
    op.use_file();
    const int done = co_await op;
    if ((done == -EINTR || done == -EAGAIN) && ++transient < kTransientRetriesMax) continue;
    if (done < 0) co_return failure(-done, "read", offset, into.size());
    if (done == 0 || static_cast<uint32_t>(done) % kBufferAlignment != 0) {
      co_return failure(EIO, "short read (was it truncated?)", offset, into.size());
    }
    into = into.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  add(counters_.reads, 1);
  add(counters_.bytes_read, length);
  add(counters_.read_ns, use.elapsed());
  co_return Result<void>();
}

Task<Result<void>> UringBlockDevice::write(uint64_t offset, ByteView from, Durability durability) {
  CO_TRY(check("write", offset, from.size(), reinterpret_cast<uintptr_t>(from.data()), true));
  Use use(*this);
  const size_t length = from.size();
  // A block device without a volatile cache is durable as it is; a file still has metadata of its own to write.
  const bool sync = durability == Durability::durable && (info_.volatile_cache || !is_block_);
  int transient = 0;
  while (!from.empty()) {
    const int buffer = ring_.registered_buffer(from.data(), from.size());
    Op op(*this);
    if (buffer >= 0) {
      io_uring_prep_write_fixed(op.sqe, op.fd(), from.data(), static_cast<unsigned>(from.size()), offset, buffer);
    } else {
      io_uring_prep_write(op.sqe, op.fd(), from.data(), static_cast<unsigned>(std::min<size_t>(from.size(), kGiB)), offset);
    }
    if (sync) op.sqe->rw_flags = RWF_DSYNC;
    op.use_file();
    const int done = co_await op;
    if ((done == -EINTR || done == -EAGAIN) && ++transient < kTransientRetriesMax) continue;
    if (done < 0) co_return failure(-done, "write", offset, from.size());
    if (done == 0 || static_cast<uint32_t>(done) % kBufferAlignment != 0) co_return failure(EIO, "short write", offset, from.size());
    from = from.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  add(counters_.writes, 1);
  add(counters_.bytes_written, length);
  add(counters_.write_ns, use.elapsed());
  co_return Result<void>();
}

Task<Result<void>> UringBlockDevice::write_gather(uint64_t offset, std::vector<ByteView> parts, Durability durability) {
  if (parts.size() == 1) {
    Result<void> only = co_await write(offset, parts.front(), durability);
    co_return only;
  }
  CHECK(parts.size() <= kPartsMax, "a gathered write has too many parts");
  uint64_t length = 0;
  uintptr_t bits = 0;
  iovec vectors[kPartsMax];
  for (size_t i = 0; i < parts.size(); ++i) {
    vectors[i] = {const_cast<uint8_t*>(parts[i].data()), parts[i].size()};
    length += parts[i].size();
    bits |= reinterpret_cast<uintptr_t>(parts[i].data()) | (parts[i].size() % info_.block_size);
  }
  CO_TRY(check("write", offset, length, bits, true));
  Use use(*this);
  const bool sync = durability == Durability::durable && (info_.volatile_cache || !is_block_);
  iovec* next = vectors;
  size_t left = parts.size();
  int transient = 0;
  while (left > 0) {
    Op op(*this);
    io_uring_prep_writev(op.sqe, op.fd(), next, static_cast<unsigned>(left), offset);
    if (sync) op.sqe->rw_flags = RWF_DSYNC;
    op.use_file();
    const int done = co_await op;
    if ((done == -EINTR || done == -EAGAIN) && ++transient < kTransientRetriesMax) continue;
    if (done < 0) co_return failure(-done, "write", offset, length);
    if (done == 0 || static_cast<uint32_t>(done) % kBufferAlignment != 0) co_return failure(EIO, "short write", offset, length);
    offset += static_cast<uint64_t>(done);
    auto rest = static_cast<size_t>(done);
    while (left > 0 && rest >= next->iov_len) {
      rest -= next->iov_len;
      ++next;
      --left;
    }
    if (left > 0) {
      next->iov_base = static_cast<uint8_t*>(next->iov_base) + rest;
      next->iov_len -= rest;
    }
  }
  add(counters_.writes, 1);
  add(counters_.bytes_written, length);
  add(counters_.write_ns, use.elapsed());
  co_return Result<void>();
}

Task<Result<void>> UringBlockDevice::flush() {
  CO_TRY(check("flush", 0, info_.block_size, 0, false));
  Use use(*this);
  int done = -EINTR;
  for (int tries = 0; (done == -EINTR || done == -EAGAIN) && tries < kTransientRetriesMax; ++tries) {
    Op op(*this);
    io_uring_prep_fsync(op.sqe, op.fd(), IORING_FSYNC_DATASYNC);
    op.use_file();
    done = co_await op;
  }
  if (done < 0) co_return failure(-done, "flush", 0, info_.size);
  add(counters_.flushes, 1);
  add(counters_.flush_ns, use.elapsed());
  co_return Result<void>();
}

Task<Result<void>> UringBlockDevice::discard(uint64_t offset, uint64_t length) {
  CO_TRY(check("discard", offset, length, 0, true));
  Use use(*this);
  add(counters_.discards, 1);
  int done = 0;
  if (discard_by_ == DiscardBy::ring_command) {
    Op op(*this);
    io_uring_prep_rw(IORING_OP_URING_CMD, op.sqe, op.fd(), nullptr, 0, 0);
    op.sqe->cmd_op = kDiscardCommand;
    op.sqe->addr = offset;
    op.sqe->addr3 = length;
    op.use_file();
    done = co_await op;
    if (done == -EINVAL || done == -EOPNOTSUPP || done == -ENOTTY) discard_by_ = DiscardBy::ioctl;
  }
  if (discard_by_ == DiscardBy::punch_hole) {
    Op op(*this);
    io_uring_prep_fallocate(op.sqe, op.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                            static_cast<off_t>(length));
    op.use_file();
    done = co_await op;
    if (done == -EOPNOTSUPP || done == -ENOSYS) discard_by_ = DiscardBy::nothing;
  }
  if (discard_by_ == DiscardBy::ioctl) {
    if (discard_pool_ == nullptr) discard_pool_ = std::make_unique<ThreadPool>("discard", 1);
    const int fd = fd_;
    auto call = [fd, offset, length] {
      uint64_t range[2] = {offset, length};
      return ioctl(fd, BLKDISCARD, range) == 0 ? 0 : -errno;
    };
    done = co_await blocking(*discard_pool_, call);
    if (done == -EOPNOTSUPP || done == -ENOTTY) discard_by_ = DiscardBy::nothing;
  }
  if (discard_by_ == DiscardBy::nothing) {
    info_.supports_discard = false;
    co_return Result<void>();
  }
  if (done < 0) co_return failure(-done, "discard", offset, length);
  co_return Result<void>();
}

Task<Result<uint64_t>> UringBlockDevice::refresh_size() {
  CO_TRY(check("size", 0, info_.block_size, 0, false));
  CO_TRY_ASSIGN(const uint64_t size, size_of(fd_, is_block_, info_.path));
  info_.size = round_down(size, info_.block_size);
  co_return info_.size;
}

// ---------------------------------------------------------------- life

UringBlockDevice::UringBlockDevice(RingExecutor& ring, int fd, bool is_block, DeviceInfo info, bool read_only)
    : ring_(ring), fd_(fd), slot_(ring.register_file(fd)), is_block_(is_block), read_only_(read_only), info_(std::move(info)) {
  discard_by_ = !info_.supports_discard ? DiscardBy::nothing : is_block ? DiscardBy::ring_command : DiscardBy::punch_hole;
}

Task<Result<std::unique_ptr<BlockDevice>>> UringBlockDevice::open(std::string path, Options options) {
  RingExecutor& ring = RingExecutor::here();
  // Opening may hang with the drive, or with the file system that the file is on: not on the loop.
  const auto attempt = [path, options] { return open_descriptor(path, options); };
  Result<int> opened = co_await blocking_apart(attempt);
  // A device closed a moment ago by this process is released by the kernel a little later.
  for (int tries = 0; !opened && opened.error().code() == Code::busy && tries < 5; ++tries) {
    co_await sleep_for(std::chrono::milliseconds(20));
    opened = co_await blocking_apart(attempt);
  }
  if (!opened) co_return std::move(opened).error();
  Descriptor descriptor(*opened);
  struct stat status{};
  if (fstat(descriptor.get(), &status) != 0) co_return errno_error(errno, fmt::format("open {}", path));
  CO_TRY_ASSIGN(DeviceInfo info, probe(descriptor.get(), status, path));
  std::unique_ptr<BlockDevice> device(
      new UringBlockDevice(ring, descriptor.release(), S_ISBLK(status.st_mode), std::move(info), options.read_only));
  co_return device;
}

void UringBlockDevice::release() {
  if (fd_ < 0) return;
  // The registered slot is a reference to the file too. Off the loop (after its end) the ring's own end drops it.
  if (Executor::current() == &ring_) ring_.unregister_file(slot_);
  slot_ = -1;
  if (!is_block_) flock(fd_, LOCK_UN);
  ::close(std::exchange(fd_, -1));
}

Task<void> UringBlockDevice::close() {
  closing_ = true;
  while (in_flight_ > 0) co_await idle_.wait();
  release();
}

UringBlockDevice::~UringBlockDevice() {
  CHECK(in_flight_ == 0, "a device dies under its requests: close it first");
  release();
}

DeviceStats UringBlockDevice::stats() const {
  const auto get = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  const Counters& c = counters_;
  return {.reads = get(c.reads),
          .writes = get(c.writes),
          .flushes = get(c.flushes),
          .discards = get(c.discards),
          .errors = get(c.errors),
          .bytes_read = get(c.bytes_read),
          .bytes_written = get(c.bytes_written),
          .read_ns = get(c.read_ns),
          .write_ns = get(c.write_ns),
          .flush_ns = get(c.flush_ns),
          .in_flight = get(c.in_flight),
          .in_flight_max = get(c.in_flight_max)};
}

Result<void> create_file_device(const std::string& path, uint64_t size) {
  if (size < kBlockMin) return fail(Code::invalid_argument, "{}: a device needs at least {} bytes", path, kBlockMin);
  const Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file.get() < 0) return errno_error(errno, fmt::format("create {}", path));
  if (ftruncate(file.get(), static_cast<off_t>(size)) != 0 || fsync(file.get()) != 0) {
    const int error_number = errno;
    unlink(path.c_str());
    return errno_error(error_number, fmt::format("create {} of {} bytes", path, size));
  }
  const auto parent = std::filesystem::path(path).parent_path();
  const Descriptor folder(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || fsync(folder.get()) != 0) return errno_error(errno, fmt::format("sync the folder of {}", path));
  return {};
}

}  // namespace quarry
