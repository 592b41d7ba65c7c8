#include "meta/rocksdb/checkpoint_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/coding.h"
#include "codec/crc32c.h"

namespace quarry::meta {
namespace {

constexpr char kKnownFilesName[] = "STORED_FILES";
constexpr size_t kKnownFilesSizeMax = 256u << 20;

class FileHandle {
 public:
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(const FileHandle&) = delete;
  ~FileHandle() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

KnownFiles KnownFiles::load(const std::string& database_directory, const std::string& identity) {
  KnownFiles none{identity, {}};
  const auto bytes = read_small_file(database_directory + "/" + kKnownFilesName, kKnownFilesSizeMax);
  if (!bytes) return none;
  const auto body = unseal(*bytes, kKnownFilesName);
  if (!body) return none;
  Decoder in(*body);
  KnownFiles known{std::string(in.text(256)), {}};
  if (!in.ok() || known.identity != identity || identity.empty()) return none;
  const uint64_t count = in.varint();
  for (uint64_t i = 0; i < count; ++i) {
    auto entry = CheckpointEntry::decode(in);
    if (!entry) return none;
    std::string name = entry->name;
    known.files.emplace(std::move(name), std::move(*entry));
  }
  if (!in.done()) return none;
  return known;
}

Result<void> KnownFiles::save(const std::string& database_directory) const {
  std::string out;
  Encoder to(out);
  to.text(identity).varint(files.size());
  for (const auto& [name, entry] : files) entry.encode(to);
  return write_file_durably(database_directory + "/" + kKnownFilesName, seal(std::move(out)));
}

Result<void> sync_directory(const std::string& path) {
  const FileHandle directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.fd() < 0) return errno_error(errno, fmt::format("opening '{}'", path));
  if (::fsync(directory.fd()) != 0) return errno_error(errno, fmt::format("syncing '{}'", path));
  return {};
}

Result<void> write_file_durably(const std::string& path, std::string_view bytes) {
  const std::string fresh = path + ".new";
  {
    const FileHandle file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (file.fd() < 0) return errno_error(errno, fmt::format("creating '{}'", fresh));
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::write(file.fd(), bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error(errno, fmt::format("writing '{}'", fresh));
      done += static_cast<size_t>(n);
    }
    if (::fsync(file.fd()) != 0) return errno_error(errno, fmt::format("syncing '{}'", fresh));
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) return errno_error(errno, fmt::format("renaming '{}'", fresh));
  return sync_directory(path.substr(0, path.rfind('/')));
}

Result<void> write_ballast(const std::string& path, uint64_t bytes) {
  std::string block(64 << 10, '\0');
  uint64_t noise = 0x9e3779b97f4a7c15;
  for (size_t at = 0; at < block.size(); at += sizeof noise) {  // does not compress
    noise ^= noise << 13;
    noise ^= noise >> 7;
    noise ^= noise << 17;
    std::memcpy(block.data() + at, &noise, sizeof noise);
  }
  const FileHandle file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (file.fd() < 0) return errno_error(errno, fmt::format("creating '{}'", path));
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t n = ::write(file.fd(), block.data(), std::min<uint64_t>(block.size(), bytes - done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::unlink(path.c_str());
      return errno_error(error, fmt::format("writing '{}'", path));
    }
    done += static_cast<uint64_t>(n);
  }
  return {};
}

Result<std::string> read_small_file(const std::string& path, size_t size_max) {
  const FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) {
    if (errno == ENOENT) return fail(Code::not_found, "'{}' is not there", path);
    return errno_error(errno, fmt::format("opening '{}'", path));
  }
  std::string out;
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(file.fd(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(errno, fmt::format("reading '{}'", path));
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > size_max) return fail(Code::too_large, "'{}' is larger than {} bytes", path, size_max);
  }
}

Result<uint32_t> crc_of_file(const std::string& path, uint64_t size) {
  const FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) return errno_error(errno, fmt::format("opening '{}'", path));
  Buffer buffer(1u << 20);
  uint32_t crc = 0;
  uint64_t done = 0;
  for (;;) {
    const ssize_t n = ::read(file.fd(), buffer.data(), buffer.capacity());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(errno, fmt::format("reading '{}'", path));
    if (n == 0) break;
    crc = crc32c(crc, ByteView(buffer.data(), static_cast<size_t>(n)));
    done += static_cast<uint64_t>(n);
  }
  if (done != size) return fail(Code::corrupt, "'{}' has {} bytes where {} were expected", path, done, size);
  return crc;
}

}  // namespace quarry::meta
