#include "chunk/kfs/file_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/coding.h"

namespace quarry::chunk::kfs {
namespace {

uint8_t first_byte(std::string_view hash) {
  const auto byte = from_hex(hash.substr(0, 2));
  return byte ? static_cast<uint8_t>((*byte)[0]) : uint8_t{0};
}

// Cuts what comes into blocks.
class Blocks {
 public:
  Result<void> add(BucketSet::Writer& to, ByteView bytes) {
    while (!bytes.empty()) {
      if (filled_ == 0 && bytes.size() >= kKfsBlock) {
        TRY(to.add(bytes.first(kKfsBlock)));
        bytes = bytes.subspan(kKfsBlock);
        continue;
      }
      const size_t size = std::min<size_t>(bytes.size(), kKfsBlock - filled_);
      if (block_.empty()) block_ = Buffer(kKfsBlock);
      std::memcpy(block_.data() + filled_, bytes.data(), size);
      filled_ += size;
      bytes = bytes.subspan(size);
      if (filled_ == kKfsBlock) TRY(end(to));
    }
    return {};
  }
  Result<void> end(BucketSet::Writer& to) {
    if (filled_ == 0) return {};
    const size_t size = std::exchange(filled_, 0);
    return to.add(block_.view().first(size));
  }

 private:
  Buffer block_;
  size_t filled_ = 0;
};

// A file without a name in the store's directory.
class Spool {
 public:
  ~Spool() {
    if (fd_ >= 0) ::close(fd_);
  }
  Result<void> append(const std::string& directory, ByteView bytes) {
    if (fd_ < 0) TRY(make(directory));
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(size_));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return file_error(errno, directory + ": spool file");
      size_ += static_cast<uint64_t>(n);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }
  Result<void> read(uint64_t offset, MutableByteView into) {
    size_t done = 0;
    while (done < into.size()) {
      const ssize_t n = ::pread(fd_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return file_error(n < 0 ? errno : EIO, "spool file");
      done += static_cast<size_t>(n);
    }
    return {};
  }
  uint64_t size() const { return size_; }

 private:
  Result<void> make(const std::string& directory) {
    fd_ = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd_ >= 0) return {};
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) return file_error(errno, directory);
    std::string path = directory + "/kfs.spool.XXXXXX";  // file systems without O_TMPFILE
    fd_ = ::mkostemp(path.data(), O_CLOEXEC);
    if (fd_ < 0) return file_error(errno, directory);
    ::unlink(path.c_str());
    return {};
  }
  int fd_ = -1;
  uint64_t size_ = 0;
};

class FileWriter : public KfsWriter {
 public:
  FileWriter(BucketSet& set, KfsHash hash, std::optional<std::string> known)
      : set_(set), digest_(digest_of(hash)), known_(std::move(known)) {}

  Result<void> start() {
    if (!known_) return {};
    bucket_ = set_.bucket_of(first_byte(*known_));
    auto writer = set_.write(bucket_, *known_, 0);
    if (writer) {
      run_ = std::move(*writer);
    } else if (writer.error().code() == Code::already_exists) {
      existed_ = true;
    } else {
      return std::move(writer).error();
    }
    return {};
  }

  Result<void> append(ByteView bytes) override {
    if (failed_) return *failed_;
    auto taken = take(bytes);
    if (!taken) {
      failed_.emplace(taken.error());
      run_.reset();
    }
    return taken;
  }

  Result<KfsFile> finish() override {
    if (failed_) return *failed_;
    failed_.emplace(Code::invalid_argument, "the writer has finished");
    const std::string hash = to_hex(digest_.finish());
    if (known_ && hash != *known_) {
      run_.reset();
      return fail(Code::checksum_mismatch, "the content has the hash {}, not {}; nothing was stored", hash, *known_);
    }
    if (!known_) TRY(unspool(hash));
    if (run_) {
      TRY(blocks_.end(*run_));
      TRY(run_->finish());
      run_.reset();
    }
    return KfsFile{hash, size_, static_cast<uint32_t>(blocks_of(size_)), bucket_, existed_};
  }

 private:
  Result<void> take(ByteView bytes) {
    if (size_ + bytes.size() > kKfsBlocksMax * kKfsBlock) {
      return fail(Code::too_large, "a file has at most {} blocks of 64 KiB ({})", kKfsBlocksMax, format_size(kKfsBlocksMax * kKfsBlock));
    }
    digest_.update(bytes);
    size_ += bytes.size();
    if (existed_) return {};
    if (run_) return blocks_.add(*run_, bytes);
    memory_.append(text_of(bytes));
    if (memory_.size() < kSpoolMemory) return {};
    TRY(spool_.append(set_.directory(), bytes_of(memory_)));
    memory_.clear();
    return {};
  }

  Result<void> unspool(const std::string& hash) {
    bucket_ = set_.bucket_of(first_byte(hash));
    auto writer = set_.write(bucket_, hash, size_);
    if (!writer && writer.error().code() == Code::already_exists) {
      existed_ = true;
      return {};
    }
    if (!writer) return std::move(writer).error();
    run_ = std::move(*writer);
    Buffer piece(std::min<uint64_t>(kMiB, std::max<uint64_t>(spool_.size(), 1)));
    for (uint64_t at = 0; at < spool_.size(); at += piece.capacity()) {
      piece.resize(std::min<uint64_t>(piece.capacity(), spool_.size() - at));
      TRY(spool_.read(at, piece.mutable_view()));
      TRY(blocks_.add(*run_, piece.view()));
    }
    return blocks_.add(*run_, bytes_of(memory_));
  }

  BucketSet& set_;
  Digest digest_;
  const std::optional<std::string> known_;
  std::optional<Error> failed_;
  std::unique_ptr<BucketSet::Writer> run_;
  Blocks blocks_;
  std::string memory_;
  Spool spool_;
  uint64_t size_ = 0;
  uint8_t bucket_ = 0;
  bool existed_ = false;
};

}  // namespace

DigestKind digest_of(KfsHash hash) { return hash == KfsHash::sha512 ? DigestKind::sha512 : DigestKind::sha256; }

Result<std::unique_ptr<KfsWriter>> make_file_writer(BucketSet& set, KfsHash hash, std::optional<std::string> known) {
  auto writer = std::make_unique<FileWriter>(set, hash, std::move(known));
  TRY(writer->start());
  return writer;
}

}  // namespace quarry::chunk::kfs
