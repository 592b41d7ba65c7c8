#include "client/transfer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/coding.h"
#include "codec/checksum.h"
#include "codec/digest.h"

namespace quarry::client {
namespace {

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

Result<Buffer> read_range(const std::string& path, uint64_t offset, uint64_t length) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) return errno_error(errno, path);
  Buffer buffer(length);
  uint64_t done = 0;
  while (done < length) {
    const ssize_t n = ::pread(file.fd(), buffer.data() + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0) return errno_error(errno, path);
    if (n == 0) return fail(Code::out_of_range, "{} became shorter while it was read", path);
    done += static_cast<uint64_t>(n);
  }
  return buffer;
}

Result<void> write_range(const std::string& path, uint64_t offset, ByteView bytes) {
  const File file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (file.fd() < 0) return errno_error(errno, path);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(file.fd(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) return errno_error(errno, path);
    done += static_cast<size_t>(n);
  }
  return {};
}

Result<uint64_t> size_of(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return errno_error(errno, path);
  if (!S_ISREG(info.st_mode)) return fail(Code::invalid_argument, "{} is not a regular file", path);
  return static_cast<uint64_t>(info.st_size);
}

Result<std::string> md5_of_file(const std::string& path, uint64_t size) {
  Digest digest(DigestKind::md5);
  for (uint64_t offset = 0; offset < size; offset += 4 * kMiB) {
    TRY_ASSIGN(const Buffer piece, read_range(path, offset, std::min<uint64_t>(4 * kMiB, size - offset)));
    digest.update(piece);
  }
  return to_hex(digest.finish());
}

std::string content_type_of(const std::string& path) {
  static const std::map<std::string, std::string> kTypes = {
      {".txt", "text/plain"},      {".html", "text/html"},      {".json", "application/json"}, {".csv", "text/csv"},
      {".png", "image/png"},       {".jpg", "image/jpeg"},      {".jpeg", "image/jpeg"},       {".tar", "application/x-tar"},
      {".gz", "application/gzip"}, {".xz", "application/x-xz"}, {".zip", "application/zip"},   {".pdf", "application/pdf"}};
  const auto found = kTypes.find(std::filesystem::path(path).extension().string());
  return found == kTypes.end() ? "application/octet-stream" : found->second;
}

struct Multipart {
  S3Client& s3;
  BlockingPool& pool;
  Semaphore& slots;
  std::string path, bucket, key, upload_id;
  uint64_t size, part_bytes;
  const TransferOptions& options;
  std::map<uint32_t, RemotePart> present;  // parts the server already has
  std::vector<RemotePart> done;
  std::optional<Error> error;

  uint64_t length_of(uint32_t number) const { return std::min(part_bytes, size - uint64_t{number - 1} * part_bytes); }

  // Sends part `number`, or keeps the server's if it is the same. The caller holds a slot.
  Task<void> send_part(uint32_t number) {
    const uint64_t offset = uint64_t{number - 1} * part_bytes, length = length_of(number);
    const auto same = present.find(number);
    const bool compare = same != present.end() && same->second.size == length;
    std::string etag;
    Result<Buffer> data = co_await blocking(pool, [this, offset, length, compare, &etag]() -> Result<Buffer> {
      TRY_ASSIGN(Buffer bytes, read_range(path, offset, length));
      if (compare) etag = to_hex(md5(bytes));  // takes the loop's time, elsewhere
      return bytes;
    });
    if (!data) {
      error.emplace(std::move(data).error());
    } else {
      if (compare && same->second.etag == etag) {
        done[number - 1] = same->second;
      } else {
        std::vector<SharedBytes> body;
        body.emplace_back(std::move(*data));
        Result<RemotePart> sent = co_await s3.put_part(bucket, key, upload_id, number, std::move(body));
        if (sent) {
          done[number - 1] = std::move(*sent);
        } else {
          error.emplace(std::move(sent).error());
        }
      }
      if (!error) options.on_bytes(length);
    }
    slots.release();
  }
};

Task<Result<void>> find_unfinished(Multipart& work) {
  CO_TRY_ASSIGN(const auto uploads, co_await work.s3.list_uploads(work.bucket, work.key));
  for (const auto& [key, upload_id] : uploads) {
    if (key != work.key) continue;
    CO_TRY_ASSIGN(const auto parts, co_await work.s3.list_parts(work.bucket, work.key, upload_id));
    bool fits = !parts.empty();
    for (const auto& part : parts) fits = fits && part.number <= work.done.size() && part.size == work.length_of(part.number);
    if (!fits) continue;
    work.upload_id = upload_id;
    for (const auto& part : parts) work.present[part.number] = part;
    co_return Result<void>();
  }
  co_return Result<void>();
}

Task<Result<void>> upload_multipart(Multipart& work) {
  if (work.options.resume) {
    CO_TRY(co_await find_unfinished(work));
  }
  if (work.upload_id.empty()) {
    CO_TRY_ASSIGN(work.upload_id, co_await work.s3.create_upload(work.bucket, work.key, content_type_of(work.path)));
  }
  TaskGroup group;
  for (uint32_t number = 1; number <= work.done.size() && !work.error; ++number) {
    co_await work.slots.acquire();
    group.spawn(work.send_part(number));
  }
  co_await group.join();
  // An interrupted upload stays on the server, so that the next attempt continues it.
  if (work.error) co_return std::move(*work.error);
  CO_TRY(co_await work.s3.complete_upload(work.bucket, work.key, work.upload_id, work.done));
  co_return Result<void>();
}

}  // namespace

Task<Result<TransferResult>> upload_file(S3Client& s3, BlockingPool& pool, Semaphore& slots, std::string path, std::string bucket,
                                         std::string key, TransferOptions options) {
  Result<uint64_t> size = co_await blocking(pool, [&path] { return size_of(path); });
  if (!size) co_return std::move(size).error();
  TransferResult result;
  result.bytes = *size;

  if (options.skip_same) {
    Result<RemoteObject> remote = co_await s3.head(bucket, key);
    if (remote && remote->size == *size && remote->etag.size() == 32) {
      const uint64_t bytes = *size;
      Result<std::string> local = co_await blocking(pool, [&path, bytes] { return md5_of_file(path, bytes); });
      if (local && *local == remote->etag) {
        result.skipped = true;
        options.on_bytes(*size);
        co_return result;
      }
    }
  }

  if (*size < options.multipart_from_bytes) {
    co_await slots.acquire();
    const uint64_t bytes = *size;
    Result<Buffer> data = co_await blocking(pool, [&path, bytes] { return read_range(path, 0, bytes); });
    if (!data) {
      slots.release();
      co_return std::move(data).error();
    }
    std::vector<SharedBytes> body;
    body.emplace_back(std::move(*data));
    std::vector<std::pair<std::string, std::string>> headers = {{"content-type", content_type_of(path)}};
    Result<RemoteObject> sent = co_await s3.put(bucket, key, std::move(body), std::move(headers));
    slots.release();
    if (!sent) co_return std::move(sent).error();
    options.on_bytes(*size);
    co_return result;
  }

  uint64_t part_bytes = options.part_bytes;
  while (div_up(*size, part_bytes) > 10000) part_bytes *= 2;
  Multipart work{s3, pool, slots, path, bucket, key, {}, *size, part_bytes, options, {}, {}, {}};
  work.done.resize(div_up(*size, part_bytes));
  CO_TRY(co_await upload_multipart(work));
  co_return result;
}

namespace {
// Appends the body of `response` to the file at `offset`; returns the new end.
Task<Result<uint64_t>> receive(ClientResponse& response, BlockingPool& pool, const std::string& path, uint64_t offset,
                               const TransferOptions& options) {
  for (;;) {
    Buffer buffer(4 * kMiB);
    CO_TRY_ASSIGN(const size_t n, co_await response.body().read_into(buffer.mutable_view()));
    if (n == 0) co_return offset;
    buffer.resize(n);
    Result<void> written = co_await blocking(pool, [&path, offset, &buffer] { return write_range(path, offset, buffer); });
    if (!written) co_return std::move(written).error();
    offset += n;
    options.on_bytes(n);
  }
}

Result<std::string> crc64_of_file(const std::string& path, uint64_t size) {
  uint64_t crc = 0;
  for (uint64_t offset = 0; offset < size; offset += 4 * kMiB) {
    TRY_ASSIGN(const Buffer piece, read_range(path, offset, std::min<uint64_t>(4 * kMiB, size - offset)));
    crc = crc64nvme(crc, piece);
  }
  uint8_t raw[8];
  store_le(raw, std::byteswap(crc));
  return to_base64(raw);
}
}  // namespace

Task<Result<TransferResult>> download_file(S3Client& s3, BlockingPool& pool, Semaphore& slots, std::string bucket, std::string key,
                                           std::string path, TransferOptions options) {
  co_await slots.acquire();
  struct Release {
    Semaphore& semaphore;
    ~Release() { semaphore.release(); }
  } release{slots};
  const std::string part = path + ".quarry-part", stamp = path + ".quarry-etag";
  CO_TRY_ASSIGN(const RemoteObject remote, co_await s3.head(bucket, key));

  // The stamp says which version the partial file belongs to.
  uint64_t offset = 0;
  const std::string etag = remote.etag;
  Result<uint64_t> have = co_await blocking(pool, [&part, &stamp, &etag]() -> Result<uint64_t> {
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(part).parent_path(), ignored);
    auto old = size_of(stamp);
    if (old && *old == etag.size()) {
      auto text = read_range(stamp, 0, *old);
      if (text && text_of(*text) == etag) {
        if (auto bytes = size_of(part)) return *bytes;
      }
    }
    std::filesystem::remove(part, ignored);
    std::filesystem::remove(stamp, ignored);
    TRY(write_range(stamp, 0, bytes_of(etag)));
    TRY(write_range(part, 0, {}));
    return uint64_t{0};
  });
  if (!have) co_return std::move(have).error();
  if (options.resume && *have <= remote.size) offset = *have;
  if (*have > remote.size) {  // somebody else's bytes: what is beyond the end would stay
    Result<void> cut = co_await blocking(pool, [&part]() -> Result<void> {
      if (::truncate(part.c_str(), 0) != 0) return errno_error(errno, part);
      return {};
    });
    if (!cut) co_return std::move(cut).error();
  }
  if (offset > 0) options.on_bytes(offset);

  if (offset < remote.size) {
    const std::string range = offset == 0 ? "" : fmt::format("bytes={}-", offset);
    CO_TRY_ASSIGN(auto response, co_await s3.get(bucket, key, range, etag));
    CO_TRY_ASSIGN(offset, co_await receive(*response, pool, part, offset, options));
  }
  if (offset != remote.size)
    co_return fail(Code::connection_closed, "{}/{}: {} of {} bytes arrived; run the command again to continue", bucket, key, offset,
                   remote.size);

  const uint64_t size = remote.size;
  const std::string expected = remote.checksum_crc64nvme;
  Result<void> finished = co_await blocking(pool, [&]() -> Result<void> {
    std::error_code ignored;
    const bool whole = expected.size() == 12;  // composite checksums end in "-N" and cover parts, not the file
    std::string mismatch;
    if (whole) {
      TRY_ASSIGN(const std::string actual, crc64_of_file(part, size));
      if (actual != expected) mismatch = "CRC64NVME";
    } else if (etag.size() == 32) {
      TRY_ASSIGN(const std::string actual, md5_of_file(part, size));
      if (actual != etag) mismatch = "MD5";
    }
    if (!mismatch.empty()) {
      std::filesystem::remove(part, ignored);
      std::filesystem::remove(stamp, ignored);
      return fail(Code::checksum_mismatch, "{}/{}: the downloaded bytes fail their {}; the partial file was removed, try again", bucket,
                  key, mismatch);
    }
    if (::rename(part.c_str(), path.c_str()) != 0) return errno_error(errno, path);
    std::filesystem::remove(stamp, ignored);
    return {};
  });
  if (!finished) co_return std::move(finished).error();
  co_return TransferResult{.bytes = remote.size};
}

}  // namespace quarry::client
