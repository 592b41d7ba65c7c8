// KfsStore: files named by the hash of their content, in a directory with 256 bounded LevelDB instances (S-buckets), usable on its own.
//
//   TRY_ASSIGN(auto store, KfsStore::create("/srv/files", {.key = "any bytes"}));      // or open()
//   TRY_ASSIGN(auto writer, store->write());                                            // bytes whose hash is not known yet
//   TRY(writer->append(bytes));
//   TRY_ASSIGN(KfsFile file, writer->finish());                                         // visible and durable from here on
//   TRY(store->read(file.hash, offset, length, [](ByteView piece) { ...; return Result<void>(); }));
//
// A file's bucket is the first byte of its hash XOR the first byte of the store's key. docs/formats/kfs.md explains the format to
// other programs; docs/decisions/0006-kfs.md the choices.
//
// Thread-safe and blocking. What write acknowledged survives; what it did not leaves no trace. Every block is verified against a
// checksum seeded with the file's hash and the block's number on every read: corrupt, never wrong bytes.
// One process at a time may have a store open. Writers end before their store; callbacks do not call the store.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "chunk/kfs/kfs_options.h"

namespace quarry::chunk {

enum class KfsHash : uint8_t { sha256 = 1, sha512 = 2 };  // frozen numbers
std::string_view kfs_hash_name(KfsHash hash);             // "sha256"
std::optional<KfsHash> kfs_hash_of(std::string_view name);

struct KfsCreateOptions {
  std::optional<std::string> key;  // any byte string; none: 16 random bytes
  KfsHash hash = KfsHash::sha256;
  uint64_t bucket_bytes = kKfsBucketBytes;
};

struct KfsFile {
  std::string hash;     // lower-case hex
  uint64_t size = 0;    // bytes
  uint32_t blocks = 0;  // values of 64 KiB
  uint8_t bucket = 0;
  bool existed = false;  // write: the store had it already
};

struct KfsBucketReport {
  uint8_t bucket = 0;
  uint64_t files = 0, payload_bytes = 0;
  uint64_t stored_bytes = 0;  // of the file system: LevelDB's files, garbage included
  uint64_t free_bytes = 0;    // until the bucket's limit
};

struct KfsDamage {
  std::string hash;  // empty: it concerns the bucket
  uint8_t bucket = 0;
  std::string what;  // one sentence
};
struct KfsVerifyReport {
  uint64_t files = 0, bytes = 0, buckets = 0;
  uint64_t leftovers_removed = 0;
  std::vector<KfsDamage> damaged;
  std::vector<std::string> repaired;  // what was mended, one sentence each
};

// Takes the bytes of one new file. One thread at a time. Dropped without finish: no trace.
class KfsWriter {
 public:
  virtual ~KfsWriter() = default;
  // Errors: too_large (over 999,999 blocks), no_space, read_only, io_error.
  virtual Result<void> append(ByteView bytes) = 0;
  // Durable and visible when it returns. Errors: as append; no_space names the full bucket and its fill level; checksum_mismatch
  // (the bytes do not have the hash that was promised to write()).
  virtual Result<KfsFile> finish() = 0;
};

class KfsStore {
 public:
  // Makes the directory (its parent must exist). Errors: already_exists, invalid_argument, io_error.
  static Result<std::unique_ptr<KfsStore>> create(const std::string& directory, KfsCreateOptions options, KfsTuning tuning = {});
  // Errors: not_found (no store there), incompatible (newer format), corrupt, busy (another process has it open), io_error.
  static Result<std::unique_ptr<KfsStore>> open(const std::string& directory, KfsTuning tuning = {});
  static bool exists(const std::string& directory);
  virtual ~KfsStore() = default;  // closes

  virtual KfsHash hash() const = 0;
  virtual uint64_t bucket_bytes() const = 0;

  // hash: of the whole content in hex, when it is known beforehand: the bytes then go straight to their bucket. Without it they
  // are spooled (memory up to 16 MiB, then a nameless file in the store's directory) until their bucket is known.
  virtual Result<std::unique_ptr<KfsWriter>> write(std::optional<std::string> hash = std::nullopt) = 0;
  // Verified bytes [offset, offset + length) in pieces of at most 64 KiB, in order; length may reach past the end. Errors: not_found,
  // out_of_range (offset > size), corrupt (names the block), and what `piece` returns.
  virtual Result<void> read(std::string_view hash, uint64_t offset, uint64_t length,
                            const std::function<Result<void>(ByteView piece)>& piece) = 0;
  virtual Result<KfsFile> stat(std::string_view hash) = 0;
  // Every file, bucket by bucket, by hash within one; until visit returns false. Buckets that cannot be read are skipped and the first
  // error is returned at the end.
  virtual Result<void> list(const std::function<bool(const KfsFile&)>& visit) = 0;
  // Durable when it returns; the space comes back with the next compaction of the bucket, which is scheduled when much was unlinked.
  virtual Result<void> unlink(std::string_view hash) = 0;
  // Compacts one bucket now; others go on undisturbed. A bucket that does not exist is done.
  virtual Result<void> compact(uint8_t bucket) = 0;
  virtual Result<KfsBucketReport> bucket(uint8_t bucket) = 0;
  virtual std::vector<uint8_t> buckets() const = 0;  // that exist
  virtual uint64_t file_system_free() const = 0;     // bytes
  // Reads and verifies every file (deep) or every record. repair: a bucket that LevelDB cannot open is rebuilt from what can be read of it,
  // and files that are not whole any more are named and removed.
  struct VerifyOptions {
    bool deep = true, repair = false;
    std::function<void(uint64_t bytes)> progress;
  };
  virtual Result<KfsVerifyReport> verify(const VerifyOptions& options) = 0;
  // Files lost in repairs and leftovers removed since open, one sentence each.
  virtual std::vector<std::string> events() const = 0;
};

}  // namespace quarry::chunk
