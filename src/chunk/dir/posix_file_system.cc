// The operating system's files, through directory descriptors relative to the mountpath: a path stays meant even when the mountpath is
// renamed or something is mounted over it (check_root finds that).
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "chunk/dir/file_system.h"

namespace quarry::chunk::dir {
namespace {

constexpr size_t kGatherMax = 64;  // parts of one system call

Error failure(int error_number, const std::string& what) {
  switch (error_number) {
    case ENOTDIR: return fail(Code::not_found, "{}: a directory on the way is a file", what);
    case ELOOP: return fail(Code::invalid_argument, "{}: a symbolic link", what);
    case EXDEV:
      return fail(Code::unsupported,
                  "{}: another file system is mounted there, inside the mountpath: unmount it, or attach it as a mountpath of its own",
                  what);
    case ENOTEMPTY: return fail(Code::not_empty, "{}", what);
    case ENOTSUP: return fail(Code::unsupported, "{}: not supported by this file system", what);
    case ENAMETOOLONG:
    case E2BIG:
    case ERANGE: return fail(Code::too_large, "{}: too long for this file system", what);
    case EMFILE:
    case ENFILE: return fail(Code::overloaded, "{}: too many open files: raise the limit (ulimit -n)", what);
    case ESTALE:
    case ENOTCONN: return fail(Code::device_gone, "{}: the file system is gone", what);
    default: return errno_error(error_number, what);
  }
}

int64_t nanoseconds(const timespec& time) { return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec; }

FileInfo info_of(const struct stat& from) {
  FileInfo info;
  info.kind = S_ISREG(from.st_mode) ? FileKind::file : S_ISDIR(from.st_mode) ? FileKind::directory : FileKind::other;
  info.size = static_cast<uint64_t>(from.st_size);
  info.allocated = static_cast<uint64_t>(from.st_blocks) * 512;
  info.inode = from.st_ino;
  info.device = from.st_dev;
  info.links = from.st_nlink;
  info.modified_ns = nanoseconds(from.st_mtim);
  info.changed_ns = nanoseconds(from.st_ctim);
  return info;
}

// Reads from this size on take what the page cache has and ask the device for the rest, past the cache: several in flight at once defeat
// the kernel's read-ahead, and what deserves memory is kept by the read cache above.
constexpr size_t kDirectMin = 256 * 1024;
constexpr size_t kDirectAlignment = 4096;

class PosixFile : public File {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override {
    ::close(fd_);
    if (direct_fd_ >= 0) ::close(direct_fd_);
  }

  Result<size_t> read_at(uint64_t offset, MutableByteView into) override {
    size_t done = read_past_cache(offset, into);
    while (done < into.size()) {
      const ssize_t got = ::pread(fd_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return failure(errno, fmt::format("read {} at {}", path_, offset + done));
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

  Result<void> write_at(uint64_t offset, std::span<const ByteView> parts) override {
    size_t part = 0;
    size_t used = 0;
    while (part < parts.size()) {
      iovec vectors[kGatherMax];
      size_t count = 0;
      for (size_t i = part; i < parts.size() && count < kGatherMax; ++i) {
        const size_t skip = i == part ? used : 0;
        if (parts[i].size() == skip) continue;
        vectors[count++] = {const_cast<uint8_t*>(parts[i].data() + skip), parts[i].size() - skip};
      }
      if (count == 0) break;
      const ssize_t put = ::pwritev(fd_, vectors, static_cast<int>(count), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return failure(errno, fmt::format("write {} at {}", path_, offset));
      offset += static_cast<uint64_t>(put);
      auto left = static_cast<size_t>(put);
      while (part < parts.size() && left >= parts[part].size() - used) {
        left -= parts[part].size() - used;
        used = 0;
        ++part;
      }
      used += left;
    }
    return {};
  }

  Result<void> sync() override {
    if (::fsync(fd_) != 0) return failure(errno, "sync " + path_);
    return {};
  }
  Result<FileInfo> info() override {
    struct stat found{};
    if (::fstat(fd_, &found) != 0) return failure(errno, "stat " + path_);
    return info_of(found);
  }
  Result<std::optional<std::string>> attribute(const char* name) override {
    char room[4096];
    ssize_t size = ::fgetxattr(fd_, name, room, sizeof room);
    if (size >= 0) return std::optional(std::string(room, static_cast<size_t>(size)));
    if (errno == ENODATA) return std::optional<std::string>();
    if (errno != ERANGE) return failure(errno, fmt::format("attribute {} of {}", name, path_));
    std::string value(kAttributeMax, '\0');
    size = ::fgetxattr(fd_, name, value.data(), value.size());
    if (size < 0) return failure(errno, fmt::format("attribute {} of {}", name, path_));
    value.resize(static_cast<size_t>(size));
    return std::optional(std::move(value));
  }
  Result<void> set_attribute(const char* name, std::string_view value) override {
    if (::fsetxattr(fd_, name, value.data(), value.size(), 0) != 0)
      return failure(errno, fmt::format("set attribute {} of {}", name, path_));
    return {};
  }
  Result<void> punch_hole(uint64_t offset, uint64_t length) override {
    struct stat before{};
    if (::fstat(fd_, &before) != 0) return failure(errno, "stat " + path_);
    if (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0)
      return failure(errno, fmt::format("give back space of {} at {}", path_, offset));
    const timespec times[] = {{0, UTIME_OMIT}, before.st_mtim};
    if (::futimens(fd_, times) != 0) return failure(errno, "set the time of " + path_);
    return {};
  }
  void begin_writeback(uint64_t offset, uint64_t length) override {
    ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(length), SYNC_FILE_RANGE_WRITE);
  }
  void drop_cached() override { ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED); }

 private:
  // Bytes from the front of the range that were read: what is cached, and the whole blocks behind it from the device. The rest, or all of
  // it where the file system cannot do this, is for an ordinary read, which also says what is wrong.
  size_t read_past_cache(uint64_t offset, MutableByteView into) {
    if (into.size() < kDirectMin || offset % kDirectAlignment != 0 || reinterpret_cast<uintptr_t>(into.data()) % kDirectAlignment != 0)
      return 0;
    iovec all{into.data(), into.size()};
    const ssize_t cached = ::preadv2(fd_, &all, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (cached < 0 && errno != EAGAIN) return 0;
    size_t done = cached > 0 ? static_cast<size_t>(cached) : 0;
    if (done == into.size()) return done;
    done = round_down(done, kDirectAlignment);
    std::call_once(direct_opened_,
                   [this] { direct_fd_ = ::open(fmt::format("/proc/self/fd/{}", fd_).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC); });
    while (direct_fd_ >= 0) {
      const size_t want = round_down(into.size() - done, kDirectAlignment);
      if (want == 0) break;
      const ssize_t got = ::pread(direct_fd_, into.data() + done, want, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += static_cast<size_t>(got);
      if (static_cast<size_t>(got) % kDirectAlignment != 0) break;  // the end of the file
    }
    return done;
  }

  static constexpr size_t kAttributeMax = 65536;  // of the kernel
  const int fd_;
  const std::string path_;
  std::once_flag direct_opened_;
  int direct_fd_ = -1;  // the same file, past the page cache; -1: not needed yet, or not to be had
};

class PosixFileSystem : public FileSystem {
 public:
  PosixFileSystem(int fd, std::string root) : fd_(fd), root_(std::move(root)) {}
  ~PosixFileSystem() override { ::close(fd_); }
  const std::string& root() const override { return root_; }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;  // nonblocking: a pipe that somebody left there must not hang us
    if (mode == OpenMode::read) flags |= O_RDONLY | O_NOATIME;
    if (mode == OpenMode::write) flags |= O_RDWR;
    if (mode == OpenMode::create) flags |= O_RDWR | O_CREAT | O_EXCL;
    int fd = ::openat(fd_, path.c_str(), flags, 0644);
    if (fd < 0 && errno == EPERM && mode == OpenMode::read) fd = ::openat(fd_, path.c_str(), flags & ~O_NOATIME);  // not ours
    if (fd < 0) return failure(errno, "open " + full(path));
    return std::make_unique<PosixFile>(fd, full(path));
  }
  Result<FileInfo> info(const std::string& path) override {
    struct stat found{};
    if (::fstatat(fd_, path.c_str(), &found, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0) return failure(errno, "stat " + full(path));
    FileInfo info = info_of(found);
    if (info.kind == FileKind::directory) info.mount = mount_of(path);
    return info;
  }
  Result<std::vector<DirectoryEntry>> list(const std::string& path) override {
    const int fd = ::openat(fd_, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return failure(errno, "list " + full(path));
    DIR* stream = ::fdopendir(fd);
    if (stream == nullptr) {
      const int error_number = errno;
      ::close(fd);
      return failure(error_number, "list " + full(path));
    }
    std::vector<DirectoryEntry> entries;
    int error_number = 0;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(stream);
      if (entry == nullptr) {
        error_number = errno;
        break;
      }
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      FileKind kind = entry->d_type == DT_REG ? FileKind::file : entry->d_type == DT_DIR ? FileKind::directory : FileKind::other;
      if (entry->d_type == DT_UNKNOWN) {  // file systems that do not say
        struct stat found{};
        if (::fstatat(fd, entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0) kind = info_of(found).kind;
      }
      entries.push_back({std::string(name), kind});
    }
    ::closedir(stream);
    if (error_number != 0) return failure(error_number, "list " + full(path));
    return entries;
  }
  Result<void> make_directory(const std::string& path) override {
    return done(::mkdirat(fd_, path.c_str(), 0755), "make directory ", path);
  }
  Result<void> remove_directory(const std::string& path) override {
    return done(::unlinkat(fd_, path.c_str(), AT_REMOVEDIR), "remove directory ", path);
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    return done(::renameat(fd_, from.c_str(), fd_, to.c_str()), "rename to ", to);
  }
  Result<void> link(const std::string& from, const std::string& to) override {
    return done(::linkat(fd_, from.c_str(), fd_, to.c_str(), 0), "link to ", to);
  }
  Result<void> remove(const std::string& path) override { return done(::unlinkat(fd_, path.c_str(), 0), "remove ", path); }
  Result<void> sync_directory(const std::string& path) override {
    const int fd = ::openat(fd_, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failure(errno, "open directory " + full(path));
    const int result = ::fsync(fd);
    const int error_number = errno;
    ::close(fd);
    if (result != 0) return failure(error_number, "sync directory " + full(path));
    return {};
  }
  Result<FileSystemSpace> space() override {
    struct statvfs found{};
    if (::fstatvfs(fd_, &found) != 0) return failure(errno, "statvfs " + root_);
    return FileSystemSpace{found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, (found.f_flag & ST_RDONLY) != 0};
  }
  Result<void> check_root() override {
    struct stat opened{}, named{};
    if (::fstat(fd_, &opened) != 0) return fail(Code::device_gone, "{}: {}", root_, failure(errno, "stat").to_string());
    if (opened.st_nlink == 0) return fail(Code::device_gone, "{} was removed", root_);
    if (::stat(root_.c_str(), &named) != 0)
      return fail(Code::device_gone, "{} was removed or unmounted, or cannot be reached any more", root_);
    if (opened.st_ino != named.st_ino || opened.st_dev != named.st_dev) {
      return fail(Code::device_gone, "{} leads to another directory now: it was unmounted, replaced, or mounted over", root_);
    }
    return {};
  }
  Result<void> check_writable(const std::string& directory) override {
    if (::faccessat(fd_, directory.empty() ? "." : directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0)
      return failure(errno, "write into directory " + full(directory));
    return {};
  }
  Result<std::unique_ptr<File>> lock(const std::string& path) override {
    // For reading: a handle for writing would forbid to remount the file system read-only, and could not be had on such a one.
    int fd = ::openat(fd_, path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) fd = ::openat(fd_, path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return failure(errno, "open " + full(path));
    auto file = std::make_unique<PosixFile>(fd, full(path));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return fail(Code::busy, "{} is open in another process", root_);
      return failure(errno, "lock " + full(path));
    }
    return file;
  }

 private:
  std::string full(const std::string& path) const { return root_ + "/" + path; }
  Result<void> done(int result, const char* verb, const std::string& path) {
    if (result != 0) return failure(errno, verb + full(path));
    return {};
  }
  // Tells a bind mount of the same file system from the directory that it covers. Best effort: names across it fail with EXDEV anyway.
  uint64_t mount_of(const std::string& directory) {
    struct statx found{};
    if (::statx(fd_, directory.c_str(), AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, STATX_MNT_ID, &found) != 0) return 0;
    return (found.stx_mask & STATX_MNT_ID) != 0 ? found.stx_mnt_id : 0;
  }
  const int fd_;
  const std::string root_;
};

}  // namespace

Result<std::shared_ptr<FileSystem>> posix_file_system(const std::string& root) {
  const int fd = ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOTDIR) return fail(Code::invalid_argument, "{} is not a directory", root);
  if (fd < 0) return failure(errno, "open " + root);
  return std::make_shared<PosixFileSystem>(fd, root);
}

}  // namespace quarry::chunk::dir
