// A checkpoint of the database: a directory of hard links with a flushed state.
#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/utilities/checkpoint.h>
#include <unistd.h>

#include <filesystem>

#include "meta/rocksdb/checkpoint_files.h"
#include "meta/rocksdb/database.h"

namespace quarry::meta {
namespace {

namespace fs = std::filesystem;

// Pieces of one file.
class PieceReader {
 public:
  PieceReader(std::string path, uint64_t size) : path_(std::move(path)), size_(size), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) error_ = errno;
  }
  PieceReader(const PieceReader&) = delete;
  ~PieceReader() {
    if (fd_ >= 0) ::close(fd_);
  }

  Result<Buffer> read(uint64_t offset, size_t length) const {
    if (fd_ < 0) return errno_error(error_, fmt::format("opening '{}'", path_));
    if (offset > size_ || length > size_ - offset) return fail(Code::out_of_range, "'{}' has {} bytes", path_, size_);
    Buffer out(length);
    size_t done = 0;
    while (done < length) {
      const ssize_t n = ::pread(fd_, out.data() + done, length - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error(errno, fmt::format("reading '{}'", path_));
      if (n == 0) return fail(Code::corrupt, "'{}' ends at {} where {} bytes were expected", path_, offset + done, size_);
      done += static_cast<size_t>(n);
    }
    return out;
  }

 private:
  const std::string path_;
  const uint64_t size_;
  const int fd_;
  int error_ = 0;
};

class DatabaseCheckpoint final : public IndexCheckpoint {
 public:
  // The database outlives it.
  DatabaseCheckpoint(Database& database, std::string links) : database_(database), links_(std::move(links)) {}

  Result<Applied> examine() override {
    Result<Database::Contents> contents = Database::examine(links_);
    if (!contents) return told(std::move(contents).error());
    contents_ = std::move(*contents);
    return contents_.applied;
  }

  Result<std::vector<File>> files() override {
    std::error_code error;
    std::vector<std::string> names;
    for (fs::directory_iterator at(links_, error), end; !error && at != end; at.increment(error)) {
      const std::string name = at->path().filename().string();
      // What looking at it left behind, and RocksDB's empty write-ahead log, are no part of the state.
      if (name.ends_with(".log") || name == "LOCK" || name == "IDENTITY" || name.starts_with("LOG")) continue;
      names.push_back(name);
    }
    if (error) return fail(Code::io_error, "listing '{}': {}", links_, error.message());
    std::sort(names.begin(), names.end());
    std::vector<File> files;
    for (auto& name : names) {
      const uint64_t size = fs::file_size(links_ + "/" + name, error);
      if (error) return fail(Code::io_error, "measuring '{}': {}", name, error.message());
      const bool immutable = name.ends_with(".sst") || name.ends_with(".blob");
      files.push_back({std::move(name), size, immutable});
    }
    return files;
  }

  Result<uint32_t> check(const File& file) override {
    Result<uint32_t> crc = crc_of_file(links_ + "/" + file.name, file.size);
    if (!crc) return file.immutable ? told(std::move(crc).error()) : std::move(crc).error();
    if (file.immutable) {
      const auto made = contents_.sums.find(std::strtoull(file.name.c_str(), nullptr, 10));
      unproven_ |= made == contents_.sums.end();
      if (made != contents_.sums.end() && made->second != *crc)
        return database_.damaged(fmt::format("'{}' is not as it was written: its checksum differs", file.name));
    }
    return crc;
  }

  Result<void> prove() override {
    if (!unproven_) return {};  // else made by an earlier program
    Result<void> sound = Database::verify(links_);
    if (!sound) return told(std::move(sound).error());
    return {};
  }

  CommitLog::ReadPiece reader(const CheckpointEntry& entry) override {
    const auto file = std::make_shared<PieceReader>(links_ + "/" + entry.name, entry.size);
    return [file](uint64_t offset, size_t length) { return file->read(offset, length); };
  }

  void remove() override {
    std::error_code ignored;  // the next one does it
    fs::remove_all(links_, ignored);
  }

 private:
  Error told(Error error) { return error.code() == Code::corrupt ? database_.damaged(error.context()) : error; }

  Database& database_;
  const std::string links_;
  Database::Contents contents_;
  bool unproven_ = false;
};

}  // namespace

Result<std::shared_ptr<IndexCheckpoint>> Database::checkpoint() {
  std::error_code error;
  fs::remove_all(settings_.links, error);
  if (error) return fail(Code::io_error, "removing '{}': {}", settings_.links, error.message());
  ::rocksdb::Checkpoint* raw = nullptr;
  ::rocksdb::Status status = ::rocksdb::Checkpoint::Create(db_.get(), &raw);
  const std::unique_ptr<::rocksdb::Checkpoint> checkpoint(raw);
  if (status.ok()) status = checkpoint->CreateCheckpoint(settings_.links, 0);
  if (!status.ok()) return error_of(status, fmt::format("making a checkpoint in '{}'", settings_.links));
  return std::make_shared<DatabaseCheckpoint>(*this, settings_.links);
}

}  // namespace quarry::meta
