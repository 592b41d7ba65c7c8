// FileSystem: the few file operations that DirStore uses, rooted in one mountpath. Paths are relative to it ("" is the mountpath itself).
// Real: posix_file_system(). A twin in memory that can lose and reorder what was not synced: testing/memory_file_system.h.
//
// All calls block. Thread-safe; two threads may use one File. Nothing is durable before the sync of the file (its bytes, size and
// attributes) and of the directory (its names), and names may become durable in any order between directories.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace quarry::chunk::dir {

enum class FileKind : uint8_t { file, directory, other };

struct FileInfo {
  FileKind kind = FileKind::other;
  uint64_t size = 0;       // bytes
  uint64_t allocated = 0;  // bytes of the device
  uint64_t inode = 0;
  uint64_t device = 0;
  uint64_t mount = 0;  // through which it was reached; only FileSystem::info says, 0: not known
  uint64_t links = 0;
  int64_t modified_ns = 0;  // mtime, ns since 1970
  int64_t changed_ns = 0;   // ctime
};

// Names can be given to what is there only within one file system, seen through one mount.
inline bool same_file_system(const FileInfo& a, const FileInfo& b) { return a.device == b.device && a.mount == b.mount; }

struct DirectoryEntry {
  std::string name;
  FileKind kind = FileKind::other;
};

struct FileSystemSpace {
  uint64_t total = 0, free = 0;  // bytes; free: to us, without what is kept for the administrator
  bool read_only = false;
};

// An open file; closed by its destructor.
class File {
 public:
  virtual ~File() = default;
  // Fills `into` but for what lies past the end. Returns the bytes read.
  virtual Result<size_t> read_at(uint64_t offset, MutableByteView into) = 0;
  virtual Result<void> write_at(uint64_t offset, std::span<const ByteView> parts) = 0;
  virtual Result<void> sync() = 0;
  virtual Result<FileInfo> info() = 0;
  // None: the file has no such attribute. Errors: unsupported (none on this file system), io_error.
  virtual Result<std::optional<std::string>> attribute(const char* name) = 0;
  // Atomic. Errors: unsupported, no_space (no room beside the inode, too), too_large, read_only, io_error.
  virtual Result<void> set_attribute(const char* name, std::string_view value) = 0;
  // Gives back the space of the range, which reads as zeros from then on; size and modification time stay. Errors: unsupported, io_error.
  virtual Result<void> punch_hole(uint64_t /*offset*/, uint64_t /*length*/) { return fail(Code::unsupported, "holes"); }
  // Hints. Let the device begin to write the range; drop what is cached of the file, so that the next read asks the device.
  virtual void begin_writeback(uint64_t /*offset*/, uint64_t /*length*/) {}
  virtual void drop_cached() {}
};

enum class OpenMode : uint8_t {
  read,
  write,   // an existing file, for reading and writing
  create,  // a new file, for reading and writing; already_exists if the name is taken
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual const std::string& root() const = 0;  // path of the mountpath, for people

  // Never follows a symbolic link in the last component. Errors: not_found (also where a directory on the way is missing or is none),
  // already_exists, too_large (a name), no_space, read_only, permission_denied, io_error, device_gone; of rename and link also unsupported:
  // the two names lie on different file systems, one of which is mounted inside the mountpath.
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<FileInfo> info(const std::string& path) = 0;
  virtual Result<std::vector<DirectoryEntry>> list(const std::string& path) = 0;  // without "." and "..", in any order
  virtual Result<void> make_directory(const std::string& path) = 0;
  virtual Result<void> remove_directory(const std::string& path) = 0;               // not_empty
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;  // atomic; replaces a file
  virtual Result<void> link(const std::string& from, const std::string& to) = 0;    // a hard link
  virtual Result<void> remove(const std::string& path) = 0;
  // Whether names may be put into a directory and taken from it. Errors: permission_denied, read_only, not_found.
  virtual Result<void> check_writable(const std::string& /*directory*/) { return {}; }
  virtual Result<void> sync_directory(const std::string& path) = 0;
  virtual Result<FileSystemSpace> space() = 0;
  // The path of the mountpath still leads to the directory that was opened. Errors: device_gone (removed, unmounted, replaced).
  virtual Result<void> check_root() = 0;
  // Held until the File dies or the process ends. Errors: busy.
  virtual Result<std::unique_ptr<File>> lock(const std::string& path) = 0;
};

// Errors: not_found, invalid_argument (not a directory), permission_denied, io_error.
Result<std::shared_ptr<FileSystem>> posix_file_system(const std::string& root);

// "a/b/c" -> "a/b"; "a" -> "".
inline std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

}  // namespace quarry::chunk::dir
