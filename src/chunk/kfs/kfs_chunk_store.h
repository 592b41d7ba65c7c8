// KfsChunkStore: the ChunkStore in a directory of an ordinary file system: 256 bounded LevelDB instances (S-buckets).
//
//   co_await KfsChunkStore::format("/srv/quarry/a", {.cluster = cluster});
//   auto store = co_await KfsChunkStore::open("/srv/quarry/a", {.cluster = cluster});
//
// A chunk is one record and up to 256 values of 64 KiB in the bucket that its id sorts it into, written as one synced batch: it is
// there whole or not at all. docs/formats/kfs.md has every byte; docs/decisions/0006-kfs.md the reasons.
//
// Confined to the executor that opened it. LevelDB blocks, so calls run on a pool of the store's own, several buckets at a time.
// Damage in one bucket (a bad table, a lost directory) costs the chunks in it: they answer corrupt, the other 255 go on.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chunk/chunk_store.h"
#include "chunk/kfs/kfs_options.h"

namespace quarry::chunk {

struct KfsFormatOptions {
  Uuid cluster;        // nil: belongs to nobody yet; open accepts any cluster
  Uuid drive;          // nil: drawn from system_random
  bool force = false;  // a directory that is not empty: an old store is DESTROYED; foreign files stay, beside the store
  std::string label;   // see ChunkStore::set_label
  uint64_t bucket_bytes = kKfsBucketBytes;
};

struct KfsChunkStoreOptions {
  std::optional<Uuid> cluster;  // refuse a directory that belongs to another
  size_t threads = 8;           // of the pool that calls LevelDB
  KfsTuning tuning;
};

// What open found, for logs and tests.
struct KfsOpenReport {
  bool clean = false;  // closed properly the last time
  uint64_t chunks = 0;
  uint64_t buckets = 0;             // that exist
  uint64_t leftovers_removed = 0;   // interrupted writes and removals that were finished or undone
  std::vector<std::string> damage;  // one sentence each: what is lost or suspect
};

class KfsChunkStore : public ChunkStore {
 public:
  // Makes the directory (its parent must exist) and an empty store in it. Durable when it returns.
  // Errors: already_exists (holds a store or other files, and not forced), busy (open elsewhere), invalid_argument (no directory),
  // io_error.
  static Task<Result<Uuid>> format(std::string directory, KfsFormatOptions options);
  // Errors: wrong_owner, incompatible (newer format: says which), corrupt (descriptor), not_found (not a kfs store), busy (open elsewhere),
  // io_error.
  static Task<Result<std::unique_ptr<KfsChunkStore>>> open(std::string directory, KfsChunkStoreOptions options);

  // What a directory says about itself, without opening the store. Errors: not_found (missing, empty or not a kfs chunk store),
  // busy (open elsewhere), incompatible, corrupt, io_error.
  struct Identity {
    Uuid drive, cluster;
    uint64_t bucket_bytes = 0, mounts = 0;
    uint32_t format_version = 0;
    bool clean = false;
    std::string label;
  };
  static Task<Result<Identity>> identify(std::string directory);
  // One sentence about what else lies in the directory; none: it is missing or empty and may be formatted. Errors: io_error,
  // invalid_argument.
  static Result<std::optional<std::string>> foreign_content(const std::string& directory);

  virtual Uuid cluster_id() const = 0;
  // Joins a store formatted without a cluster. Durable when it returns. Errors: wrong_owner (has another).
  virtual Task<Result<void>> set_cluster_id(Uuid cluster) = 0;
  // Compacts every bucket now. For tests and idle times.
  virtual Task<Result<void>> compact() = 0;
  virtual const KfsOpenReport& open_report() const = 0;
};

}  // namespace quarry::chunk
