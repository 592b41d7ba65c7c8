// quarry kfs write|read|stat|list|unlink|compact|verify: the store of files by hash, used without a node (chunk/kfs/kfs_store.h).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/coding.h"
#include "base/units.h"
#include "chunk/kfs/kfs_store.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "codec/digest.h"
#include "wire/json.h"

namespace quarry::cli {
namespace {

using chunk::KfsFile;
using chunk::KfsStore;

constexpr size_t kPiece = kMiB;
constexpr uint64_t kHashFirstFrom = 16 * kMiB;  // smaller ones are spooled in memory

int finish(const Result<void>& result) { return result ? 0 : print_error(result.error().to_string()); }

void print_file(const KfsFile& file, bool as_json) {
  if (!as_json) {
    fmt::print("{}  {} bytes, {} blocks, S-bucket {}\n", file.hash, file.size, file.blocks, file.bucket);
    return;
  }
  JsonWriter json;
  json.begin_object()
      .field("hash", file.hash)
      .field("size", file.size)
      .field("blocks", uint64_t{file.blocks})
      .field("bucket", uint64_t{file.bucket})
      .end_object();
  fmt::print("{}\n", json.str());
}

class Input {
 public:
  static Result<Input> open(const std::string& path) {
    if (path == "-") return Input(STDIN_FILENO, path);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? fail(Code::not_found, "{}: no such file", path) : errno_error(errno, path);
    return Input(fd, path);
  }
  Input(Input&& other) noexcept : fd_(std::exchange(other.fd_, STDIN_FILENO)), path_(std::move(other.path_)) {}
  ~Input() {
    if (fd_ != STDIN_FILENO) ::close(fd_);
  }
  // 0: the end.
  Result<size_t> read(MutableByteView into) {
    for (;;) {
      const ssize_t n = ::read(fd_, into.data(), into.size());
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) return errno_error(errno, path_);
    }
  }
  Result<void> rewind() {
    if (::lseek(fd_, 0, SEEK_SET) != 0) return errno_error(errno, path_);
    return {};
  }
  // Of a regular file; 0: not known.
  uint64_t size() const {
    struct stat status;
    if (fd_ == STDIN_FILENO || ::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
    return static_cast<uint64_t>(status.st_size);
  }

 private:
  Input(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

Result<std::unique_ptr<KfsStore>> open_or_create(const KfsOptions& options) {
  const bool settings = options.key_given || !options.hash.empty() || !options.bucket_size.empty();
  if (KfsStore::exists(options.store)) {
    if (settings)
      return fail(Code::invalid_argument, "{} exists already: --key, --hash and --bucket-size are chosen with the first write",
                  options.store);
    return KfsStore::open(options.store);
  }
  chunk::KfsCreateOptions create;
  if (options.key_given) create.key = options.key;
  if (!options.hash.empty()) {
    const auto hash = chunk::kfs_hash_of(options.hash);
    if (!hash) return fail(Code::invalid_argument, "--hash is sha256 or sha512, not '{}'", options.hash);
    create.hash = *hash;
  }
  if (!options.bucket_size.empty()) {
    TRY_ASSIGN(create.bucket_bytes, parse_size(options.bucket_size));
  }
  return KfsStore::create(options.store, create);
}

Result<void> write(const KfsOptions& options) {
  TRY_ASSIGN(auto input, Input::open(options.operand));
  TRY_ASSIGN(const auto store, open_or_create(options));
  Progress progress("write", !options.quiet && !options.json);
  const uint64_t size = input.size();
  Buffer piece(kPiece);
  std::optional<std::string> hash;
  if (size > kHashFirstFrom) {
    // A file can be read twice: hashed first, it goes straight to its bucket and not through a spool file.
    Digest digest(store->hash() == chunk::KfsHash::sha512 ? DigestKind::sha512 : DigestKind::sha256);
    progress.set_total(1, 2 * size);
    for (;;) {
      TRY_ASSIGN(const size_t got, input.read(piece.mutable_view()));
      if (got == 0) break;
      digest.update(piece.view().first(got));
      progress.add_bytes(got);
    }
    hash = to_hex(digest.finish());
    TRY(input.rewind());
  } else {
    progress.set_total(1, size);
  }
  TRY_ASSIGN(const auto writer, store->write(hash));
  for (;;) {
    TRY_ASSIGN(const size_t got, input.read(piece.mutable_view()));
    if (got == 0) break;
    TRY(writer->append(piece.view().first(got)));
    progress.add_bytes(got);
  }
  TRY_ASSIGN(const KfsFile file, writer->finish());
  if (!options.json) {
    fmt::print("{}  {}\n", file.hash, options.operand);
    return {};
  }
  JsonWriter json;
  json.begin_object()
      .field("hash", file.hash)
      .field("size", file.size)
      .field("blocks", uint64_t{file.blocks})
      .field("bucket", uint64_t{file.bucket});
  fmt::print("{}\n", json.field("existed", file.existed).end_object().str());
  return {};
}

Result<void> read(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  uint64_t offset = 0, length = UINT64_MAX;
  if (!options.offset.empty()) {
    TRY_ASSIGN(offset, parse_size(options.offset));
  }
  if (!options.length.empty()) {
    TRY_ASSIGN(length, parse_size(options.length));
  }
  TRY_ASSIGN(const KfsFile file, store->stat(options.operand));
  Progress progress("read", !options.quiet && ::isatty(STDOUT_FILENO) == 0);
  progress.set_total(1, std::min(length, file.size - std::min(offset, file.size)));
  return store->read(options.operand, offset, length, [&](ByteView bytes) -> Result<void> {
    progress.add_bytes(bytes.size());
    while (!bytes.empty()) {
      const ssize_t n = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error(errno, "standard output");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  });
}

Result<void> stat_file(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  TRY_ASSIGN(const KfsFile file, store->stat(options.operand));
  print_file(file, options.json);
  return {};
}

// The whole store: settings and one row a bucket.
Result<void> stat_store(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  std::vector<chunk::KfsBucketReport> buckets;
  std::vector<std::string> failures;
  for (const uint8_t number : store->buckets()) {
    auto report = store->bucket(number);
    if (report) {
      buckets.push_back(*report);
    } else {
      failures.push_back(report.error().to_string());
    }
  }
  chunk::KfsBucketReport total;
  for (const auto& one : buckets) {
    total.files += one.files;
    total.payload_bytes += one.payload_bytes;
    total.stored_bytes += one.stored_bytes;
  }
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .field("hash", std::string(chunk::kfs_hash_name(store->hash())))
        .field("bucket_bytes", store->bucket_bytes())
        .field("file_system_free_bytes", store->file_system_free());
    json.field("files", total.files)
        .field("payload_bytes", total.payload_bytes)
        .field("stored_bytes", total.stored_bytes)
        .key("buckets")
        .begin_array();
    for (const auto& one : buckets) {
      json.begin_object()
          .field("bucket", uint64_t{one.bucket})
          .field("files", one.files)
          .field("payload_bytes", one.payload_bytes)
          .field("stored_bytes", one.stored_bytes);
      json.field("free_bytes", one.free_bytes).end_object();
    }
    json.end_array().key("failures").begin_array();
    for (const auto& failure : failures) json.value(failure);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const auto& one : buckets) {
      rows.push_back({std::to_string(one.bucket), std::to_string(one.files), format_size(one.payload_bytes), format_size(one.stored_bytes),
                      format_size(one.free_bytes)});
    }
    print_table({"BUCKET", "FILES", "PAYLOAD", "ON DISK", "FREE"}, rows);
    fmt::print("{} files, {} in {} of 256 buckets of {}; {} on disk, {} free in the file system; names are {} hashes\n", total.files,
               format_size(total.payload_bytes), buckets.size(), format_size(store->bucket_bytes()), format_size(total.stored_bytes),
               format_size(store->file_system_free()), chunk::kfs_hash_name(store->hash()));
  }
  if (!failures.empty()) return fail(Code::corrupt, "{}", failures.front());
  return {};
}

Result<void> list(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  JsonWriter json;
  json.begin_array();
  const auto listed = store->list([&](const KfsFile& file) {
    if (options.json) {
      json.begin_object()
          .field("hash", file.hash)
          .field("size", file.size)
          .field("blocks", uint64_t{file.blocks})
          .field("bucket", uint64_t{file.bucket})
          .end_object();
    } else {
      fmt::print("{}  {}\n", file.hash, file.size);
    }
    return true;
  });
  if (options.json) fmt::print("{}\n", json.end_array().str());
  return listed;
}

Result<void> unlink(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  TRY(store->unlink(options.operand));
  if (options.json) fmt::print("{{\"unlinked\":\"{}\"}}\n", options.operand);
  return {};
}

Result<void> compact(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  uint64_t before = 0, after = 0;
  size_t done = 0;
  Progress progress("compact", !options.quiet && !options.json);
  const std::vector<uint8_t> all = options.bucket >= 0 ? std::vector<uint8_t>{static_cast<uint8_t>(options.bucket)} : store->buckets();
  progress.set_total(all.size(), 0);
  for (const uint8_t number : all) {
    TRY_ASSIGN(const auto old, store->bucket(number));
    TRY(store->compact(number));
    TRY_ASSIGN(const auto fresh, store->bucket(number));
    before += old.stored_bytes;
    after += fresh.stored_bytes;
    ++done;
    progress.add_items(1);
  }
  if (options.json) {
    JsonWriter json;
    json.begin_object().field("buckets", uint64_t{done}).field("bytes_before", before).field("bytes_after", after).end_object();
    fmt::print("{}\n", json.str());
  } else {
    fmt::print("compacted {} buckets: {} before, {} now\n", done, format_size(before), format_size(after));
  }
  return {};
}

Result<void> verify(const KfsOptions& options) {
  TRY_ASSIGN(const auto store, KfsStore::open(options.store));
  Progress progress("verify", !options.quiet && !options.json);
  KfsStore::VerifyOptions how;
  how.deep = !options.shallow;
  how.repair = options.repair;
  how.progress = [&progress](uint64_t bytes) { progress.add_bytes(bytes); };
  TRY_ASSIGN(const auto report, store->verify(how));
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .field("sound", report.damaged.empty())
        .field("files", report.files)
        .field("bytes", report.bytes)
        .field("buckets", report.buckets);
    json.field("leftovers_removed", report.leftovers_removed).key("damaged").begin_array();
    for (const auto& damage : report.damaged)
      json.begin_object().field("hash", damage.hash).field("bucket", uint64_t{damage.bucket}).field("what", damage.what).end_object();
    json.end_array().key("repaired").begin_array();
    for (const auto& sentence : report.repaired) json.value(sentence);
    fmt::print("{}\n", json.end_array().end_object().str());
  } else {
    for (const auto& damage : report.damaged)
      fmt::print("DAMAGED  {}  {}\n", damage.hash.empty() ? fmt::format("S-bucket {}", damage.bucket) : damage.hash, damage.what);
    for (const auto& sentence : report.repaired) fmt::print("REPAIRED  {}\n", sentence);
    fmt::print("{}: {} files, {} read, {} buckets\n", report.damaged.empty() ? "sound" : "NOT sound", report.files,
               format_size(report.bytes), report.buckets);
  }
  if (!report.damaged.empty()) {
    return fail(Code::corrupt, "{} of {} is damaged{}",
                report.damaged.size() == 1 ? "1 part" : fmt::format("{} parts", report.damaged.size()), options.store,
                options.repair ? "" : "; --repair mends what can be mended and removes files that are not whole");
  }
  return {};
}

}  // namespace

int run_kfs(const KfsOptions& options, KfsVerb verb) {
  switch (verb) {
    case KfsVerb::write: return finish(write(options));
    case KfsVerb::read: return finish(read(options));
    case KfsVerb::stat: return finish(options.operand.empty() ? stat_store(options) : stat_file(options));
    case KfsVerb::list: return finish(list(options));
    case KfsVerb::unlink: return finish(unlink(options));
    case KfsVerb::compact: return finish(compact(options));
    case KfsVerb::verify: return finish(verify(options));
  }
  return 2;
}

}  // namespace quarry::cli
