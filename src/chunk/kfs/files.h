// Files: the operations on an ordinary file system that S-buckets are made of, so that tests can put a recorder or faults under them.
//
// Errors carry what the file system said: not_found (ENOENT), no_space, read_only, permission_denied, device_gone (the file or its device
// was taken away), else io_error. Thread-safe; a Writable belongs to one thread at a time.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry::chunk::kfs {

class Files {
 public:
  class Writable {
   public:
    virtual ~Writable() = default;  // closes, without sync
    virtual Result<void> append(ByteView bytes) = 0;
    // A sync follows soon: the device may begin.
    virtual void begin_writeback() {}
    // What was appended, and the file's name, survive a power cut. Errors: also device_gone (the file was deleted meanwhile).
    virtual Result<void> sync() = 0;
  };
  class Readable {
   public:
    virtual ~Readable() = default;
    // Up to into.size() bytes; fewer only at the end of the file. Any thread.
    virtual Result<size_t> read(uint64_t offset, MutableByteView into) const = 0;
  };
  struct Space {
    uint64_t total = 0, free = 0;  // bytes
    bool read_only = false;
  };

  virtual ~Files() = default;
  virtual Result<std::unique_ptr<Writable>> create(const std::string& path) = 0;  // empty, replacing what was there
  virtual Result<std::unique_ptr<Readable>> open(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  virtual Result<std::vector<std::string>> children(const std::string& directory) = 0;  // names, without . and ..
  virtual Result<uint64_t> size(const std::string& path) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
  virtual Result<void> make_directory(const std::string& path) = 0;  // there already: done
  // Replaces `to` atomically; durable when it returns.
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<void> sync_directory(const std::string& path) = 0;
  virtual Result<Space> space(const std::string& path) = 0;
};

// The operating system's. Reads use pread, never mmap: a bad sector is an error and not the end of the process. At most a quarter of the
// process's limit of open files is kept open for reading; beyond that a file is opened for each read.
Files& posix_files();

// Replaces a file atomically and durably (path.new, sync, rename). / Reads it all; errors: too_large.
Result<void> replace_file(Files& files, const std::string& path, ByteView content);
Result<std::string> read_whole_file(Files& files, const std::string& path, size_t size_max);

// The error of a failed system call. Like errno_error, with ENOENT -> not_found and EACCES, EPERM -> permission_denied.
Error file_error(int error_number, std::string_view what);

// Holds DIR/kfs.lock for this process. Errors: busy (another process, or another store of this one), else as file_error.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::string& directory);
  DirectoryLock(DirectoryLock&& other) noexcept
      : directory_fd_(std::exchange(other.directory_fd_, -1)), fd_(std::exchange(other.fd_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&& other) noexcept {
    std::swap(directory_fd_, other.directory_fd_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~DirectoryLock();
  static DirectoryLock none() { return {-1, -1}; }
  // The directory was deleted since.
  bool directory_is_gone() const;

 private:
  DirectoryLock(int directory_fd, int fd) : directory_fd_(directory_fd), fd_(fd) {}
  int directory_fd_, fd_;
};

}  // namespace quarry::chunk::kfs
