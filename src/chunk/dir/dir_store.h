// DirStore: a chunk store in a directory of a local file system (a mountpath), in the open format: one object, one plain file, under a
// readable path made of bucket and key. docs/formats/dir.md has every name, attribute and byte; docs/decisions/0007-dir.md the reasons.
//
//   co_await DirStore::format("/srv/data", {.cluster = cluster});
//   auto store = co_await DirStore::open("/srv/data", {.cluster = cluster});
//
// Chunks put with a FilePlace lie in one file: unfinished (invisible, gone after a crash) until finish_file, then under .quarry until
// show_file gives it its readable name. Chunks without a FilePlace are plain files under .quarry/chunks. Every file has a record
// (extended attribute, or a side file where that cannot be) with its checksums; all that get returns was verified against it.
//
// Confined to the executor that opened it. System calls run on a small pool of threads of its own, so a disk that hangs blocks no loop.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "chunk/chunk_store.h"

namespace quarry::chunk {

namespace dir {
class FileSystem;
}

struct DirFormatOptions {
  Uuid cluster;        // nil: belongs to nobody yet; open accepts any cluster
  Uuid drive;          // nil: drawn from system_random
  std::string label;   // see ChunkStore::set_label
  bool force = false;  // a mountpath that is there is no more: what it keeps for itself goes, readable files stay, as nobody's
};

struct DirStoreOptions {
  std::optional<Uuid> cluster;   // refuse a mountpath that belongs to another
  size_t threads = 4;            // for blocking calls; also how many walk the tree at open
  size_t open_files_max = 128;   // handles kept open for reading; beyond this the one unused for longest is closed
  size_t unfinished_max = 1024;  // files being written at once; more are refused: overloaded
  bool use_attributes = true;    // false: records always go to side files, as where the file system has no user attributes
  Duration health_timeout = std::chrono::seconds(30);  // check_health calls a disk that takes longer hung; zero: waits as long as it takes
  std::shared_ptr<dir::FileSystem> file_system{};      // null: the real one. For tests.
};

// What open had to do, for logs and tests.
struct DirOpenReport {
  bool clean = false;  // closed properly the last time
  uint64_t files = 0;  // with a record, shown or not
  uint64_t chunks = 0;
  uint64_t foreign_files = 0;       // files without a record in the readable tree: left alone, counted as overhead
  uint64_t unfinished_removed = 0;  // unacknowledged writes of the last run
  uint64_t records_in_side_files = 0;
  Duration walk{};                  // wall time of reading the tree
  std::vector<std::string> damage;  // one sentence each: what is lost or suspect
};

class DirStore : public ChunkStore {
 public:
  // Makes the directory a mountpath; it may hold files already, which are left alone (adopt takes them in). The directory itself is made
  // if its parent exists. Durable when it returns. Errors: already_exists (a mountpath already), not_found (no parent), permission_denied,
  // invalid_argument (not a directory; inside another mountpath of the same file system; a file system that folds case or normalises
  // names), io_error.
  static Task<Result<Uuid>> format(std::string path, DirFormatOptions options);
  // Takes the lock, becomes the owner (fencing epoch), removes what was not finished, reads the tree and serves. Errors: not_found (no
  // directory, or not a mountpath), wrong_owner (of another cluster: says which), incompatible (newer format), busy (open in another
  // process), corrupt (descriptor), permission_denied, io_error.
  static Task<Result<std::unique_ptr<DirStore>>> open(std::string path, DirStoreOptions options);

  // What a directory says about itself, without opening the store; reads two small files, takes no lock. Blocks for a moment.
  struct Identity {
    Uuid drive, cluster;
    uint32_t format_version = 0;
    uint64_t fencing_epoch = 0;
    bool clean = false;
    std::string label;
  };
  // Errors: not_found (no directory or not a mountpath), incompatible, corrupt, permission_denied, io_error.
  static Result<Identity> identify(const std::string& path);
  // One sentence about what is left there of a mountpath that has lost its descriptor; empty: nothing (also where no directory is).
  // Blocks. Errors: permission_denied, io_error.
  static Result<std::string> remains(const std::string& path);

  virtual Uuid cluster_id() const = 0;
  // Joins a mountpath formatted without a cluster. Durable when it returns. Errors: wrong_owner (has another).
  virtual Task<Result<void>> set_cluster_id(Uuid cluster) = 0;
  // Of this open; see chunk/fencing.h. check_health looks whether it is still the one that the mountpath carries.
  virtual uint64_t fencing_epoch() const = 0;
  uint64_t owner_epoch() const override { return fencing_epoch(); }

  // Takes an existing file in, where it lies, without copying or moving it: reads it once for its checksums and records it. Durable
  // when it returns; its chunks are readable, and it counts as shown under `directory` and `name`.
  struct Adoption {
    std::string path;  // relative to the mountpath, as the file system has it; any name, canonical or not
    ChunkId first;
    uint32_t chunk_size = 0;  // at most kChunkSizeMax
    uint64_t stride = 0;
    std::string directory;  // the bucket
    std::string name;       // the key; see dir::key_of_path for the one that an existing path stands for
    std::vector<std::pair<std::string, std::string>> attributes;
    bool want_md5 = false;
    uint64_t size_max = UINT64_MAX;  // bytes
  };
  struct Adopted {
    uint64_t size = 0;        // bytes
    int64_t modified_ns = 0;  // mtime, ns since 1970
    std::string md5;          // of the whole file, 16 bytes; empty unless asked for
  };
  // Errors: not_found, already_exists (the id, or the file has a record already, or another file is shown under that name),
  // invalid_argument (not a plain file, or inside .quarry), busy (it changed while it was read: try again), permission_denied (this file),
  // too_large (size_max), as put.
  virtual Task<Result<Adopted>> adopt(Adoption adoption) = 0;
  // Where an adopted file lies; none: it was not adopted, or there is no such file. Errors: corrupt (its record), io_error.
  virtual Task<Result<std::optional<std::string>>> adopted_path(ChunkId first) = 0;
  // Plain files of the readable tree without a record, in order of path, after `after` (exclusive), at most `limit`: what adopt may take.
  struct Unrecorded {
    std::string path;
    uint64_t size = 0;
    int64_t modified_ns = 0;
    std::string why_not;  // not empty: no file that adopt may take (a symbolic link, another file system), and why
  };
  virtual Task<Result<std::vector<Unrecorded>>> unrecorded(std::string under, std::string after, size_t limit) = 0;

  virtual const DirOpenReport& open_report() const = 0;
};

}  // namespace quarry::chunk
