#include "chunk/kfs/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>

namespace quarry::chunk::kfs {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int fd;
  do {
    fd = ::open(path, flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> sync_directory_at(const std::string& path) {
  const Descriptor directory(open_retrying(path.c_str(), O_RDONLY | O_DIRECTORY));
  if (directory.get() < 0) return file_error(errno, path);
  if (::fsync(directory.get()) != 0) return file_error(errno, path);
  return {};
}

class PosixWritable : public Files::Writable {
 public:
  PosixWritable(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Result<void> append(ByteView bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return file_error(errno, path_);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }

  void begin_writeback() override { (void)::sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE); }

  Result<void> sync() override {
    if (::fdatasync(fd_.get()) != 0) return file_error(errno, path_);
    if (!named_) {
      TRY(sync_directory_at(parent_of(path_)));
      named_ = true;
    }
    // A file that somebody deleted takes writes and syncs without complaint, and all is lost when it is closed.
    struct stat status;
    if (::fstat(fd_.get(), &status) != 0) return file_error(errno, path_);
    if (status.st_nlink == 0) return fail(Code::device_gone, "{} was deleted while it was in use", path_);
    return {};
  }

 private:
  Descriptor fd_;
  const std::string path_;
  bool named_ = false;  // the directory entry is durable
};

Result<size_t> read_at(int fd, uint64_t offset, MutableByteView into, const std::string& path) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t n = ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file_error(errno, path);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

class PosixReadable : public Files::Readable {
 public:
  PosixReadable(Descriptor fd, std::string path, std::atomic<int64_t>& permits)
      : fd_(std::move(fd)), path_(std::move(path)), permits_(permits) {}
  ~PosixReadable() override { permits_.fetch_add(1); }
  Result<size_t> read(uint64_t offset, MutableByteView into) const override { return read_at(fd_.get(), offset, into, path_); }

 private:
  const Descriptor fd_;
  const std::string path_;
  std::atomic<int64_t>& permits_;
};

// Too many are open: opened anew for each read.
class UnheldReadable : public Files::Readable {
 public:
  explicit UnheldReadable(std::string path) : path_(std::move(path)) {}
  Result<size_t> read(uint64_t offset, MutableByteView into) const override {
    const Descriptor fd(open_retrying(path_.c_str(), O_RDONLY));
    if (fd.get() < 0) return file_error(errno, path_);
    return read_at(fd.get(), offset, into, path_);
  }

 private:
  const std::string path_;
};

class PosixFiles : public Files {
 public:
  PosixFiles() {
    struct rlimit limit;
    const bool known = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    permits_ = known ? static_cast<int64_t>(limit.rlim_cur / 4) : 65'536;
  }

  Result<std::unique_ptr<Writable>> create(const std::string& path) override {
    Descriptor fd(open_retrying(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
    if (fd.get() < 0) return file_error(errno, path);
    return std::make_unique<PosixWritable>(std::move(fd), path);
  }

  Result<std::unique_ptr<Readable>> open(const std::string& path) override {
    if (permits_.fetch_sub(1) <= 0) {
      permits_.fetch_add(1);
      if (!exists(path)) return file_error(ENOENT, path);
      return std::make_unique<UnheldReadable>(path);
    }
    Descriptor fd(open_retrying(path.c_str(), O_RDONLY));
    if (fd.get() < 0) {
      const int error_number = errno;
      permits_.fetch_add(1);
      return file_error(error_number, path);
    }
    return std::make_unique<PosixReadable>(std::move(fd), path, permits_);
  }

  bool exists(const std::string& path) override { return ::access(path.c_str(), F_OK) == 0; }

  Result<std::vector<std::string>> children(const std::string& directory) override {
    DIR* dir = ::opendir(directory.c_str());
    if (dir == nullptr) return file_error(errno, directory);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error_number = errno;
    ::closedir(dir);
    if (error_number != 0) return file_error(error_number, directory);
    return names;
  }

  Result<uint64_t> size(const std::string& path) override {
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) return file_error(errno, path);
    return static_cast<uint64_t>(status.st_size);
  }

  Result<void> remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return file_error(errno, path);
    return {};
  }

  Result<void> make_directory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0755) != 0) {
      if (errno == EEXIST) return {};
      return file_error(errno, path);
    }
    return {};
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return file_error(errno, to);
    return sync_directory_at(parent_of(to));
  }

  Result<void> sync_directory(const std::string& path) override { return sync_directory_at(path); }

  Result<Space> space(const std::string& path) override {
    struct statvfs status;
    if (::statvfs(path.c_str(), &status) != 0) return file_error(errno, path);
    Space space;
    space.total = status.f_blocks * status.f_frsize;
    space.free = status.f_bavail * status.f_frsize;
    space.read_only = (status.f_flag & ST_RDONLY) != 0;
    return space;
  }

 private:
  std::atomic<int64_t> permits_;
};

}  // namespace

Files& posix_files() {
  static PosixFiles* files = new PosixFiles();  // never destroyed: LevelDB's threads may outlive static objects
  return *files;
}

Error file_error(int error_number, std::string_view what) {
  if (error_number == ENOENT) return fail(Code::not_found, "{}: {}", what, std::strerror(error_number));
  if (error_number == EACCES || error_number == EPERM) return fail(Code::permission_denied, "{}: {}", what, std::strerror(error_number));
  if (error_number == EDQUOT) return fail(Code::no_space, "{}: {}", what, std::strerror(error_number));
  return errno_error(error_number, what);
}

Result<void> replace_file(Files& files, const std::string& path, ByteView content) {
  const std::string fresh = path + ".new";
  {
    TRY_ASSIGN(auto file, files.create(fresh));
    TRY(file->append(content));
    TRY(file->sync());
  }
  return files.rename(fresh, path);
}

Result<std::string> read_whole_file(Files& files, const std::string& path, size_t size_max) {
  TRY_ASSIGN(const auto file, files.open(path));
  TRY_ASSIGN(const uint64_t size, files.size(path));
  if (size > size_max) return fail(Code::too_large, "{} has {} bytes, at most {} were expected", path, size, size_max);
  std::string content(size, '\0');
  TRY_ASSIGN(const size_t got, file->read(0, {reinterpret_cast<uint8_t*>(content.data()), content.size()}));
  content.resize(got);
  return content;
}

Result<DirectoryLock> DirectoryLock::take(const std::string& directory) {
  const int directory_fd = open_retrying(directory.c_str(), O_RDONLY | O_DIRECTORY);
  if (directory_fd < 0) return file_error(errno, directory);
  DirectoryLock lock(directory_fd, -1);
  // On a file system that is mounted read-only the lock file cannot be made, and need not be: the directory itself is locked.
  lock.fd_ = ::openat(directory_fd, "kfs.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock.fd_ < 0 && errno != EROFS && errno != ENOSPC) return file_error(errno, directory + "/kfs.lock");
  if (::flock(lock.fd_ < 0 ? directory_fd : lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::busy, "{} is open in another process: stop that one first", directory);
    return file_error(errno, directory);
  }
  return lock;
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
  if (directory_fd_ >= 0) ::close(directory_fd_);
}

bool DirectoryLock::directory_is_gone() const {
  struct stat status;
  return directory_fd_ >= 0 && ::fstat(directory_fd_, &status) == 0 && status.st_nlink == 0;
}

}  // namespace quarry::chunk::kfs
