// DriveKind: what a node can use as a drive, and the one place that knows the kinds: raw (a block device, or a file that stands for one),
// kfs:DIRECTORY (S-buckets in LevelDB) and dir:DIRECTORY (plain files). A drive is named KIND:PATH; a PATH alone is raw.
//
// A kind identifies, formats, opens, inspects and checks. Kinds are immutable and shared; a FoundDrive is confined to the executor that
// found it, which is the one that will own the drive.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chunk/chunk_store.h"
#include "io/executor.h"

namespace quarry::daemon {

struct DriveIdentity {
  Uuid drive;
  Uuid cluster;              // nil: formatted for nobody yet
  uint64_t owner_epoch = 0;  // ChunkStore::owner_epoch of whoever opened it last
};

// A drive that was looked at. Where the kind can hold it (raw), nobody else can open it until this is opened or closed.
class FoundDrive {
 public:
  virtual ~FoundDrive() = default;
  std::optional<DriveIdentity> identity;  // none: it carries no store yet, and may be formatted
  std::string carries;                    // without identity: what else is on it, which formatting destroys; empty: nothing

  // Makes an empty store for `cluster` (nil: for nobody yet). force: whatever it carries is DESTROYED (a dir drive keeps files it does not
  // know).
  virtual Task<Result<Uuid>> format(Uuid cluster, bool force) = 0;
  // Once, and not after close. cluster: refuse another's.
  virtual Task<Result<std::unique_ptr<chunk::ChunkStore>>> open(std::optional<Uuid> cluster) = 0;
  // A store that this opened and that was formatted for nobody joins a cluster. Errors: wrong_owner.
  virtual Task<Result<void>> join(chunk::ChunkStore& store, Uuid cluster) = 0;
  virtual Task<void> close() = 0;
  // How long requests of this drive have been under way while none came back; to be asked again and again, on its executor. Zero also
  // where that cannot be told.
  virtual Duration stuck_for() { return Duration(0); }
  virtual uint64_t size_bytes() const { return 0; }  // of the device; 0: as large as the file system lets it be
};

class DriveKind {
 public:
  virtual ~DriveKind() = default;
  virtual std::string_view name() const = 0;  // "raw", "kfs", "dir"
  virtual std::string_view help() const = 0;  // for usage texts
  // Looks at the place. One that is held by a process that was killed just now is waited for, a few seconds.
  // Errors: not_found, already_exists (carries something else, and not forced), busy, incompatible, corrupt, permission_denied, io_error.
  virtual Task<Result<std::unique_ptr<FoundDrive>>> find(std::string path, bool force) const = 0;
  // Who is there, without holding the place or changing anything. Errors: as find.
  virtual Task<Result<DriveIdentity>> identify(std::string path) const = 0;
  // Its structures as text for people, without changing anything.
  virtual Task<Result<std::string>> inspect(std::string path, std::string what) const = 0;
  // Offline check of a drive that nobody has open.
  virtual Task<Result<chunk::FsckReport>> fsck(std::string path) const = 0;
};

struct DriveSpec {
  const DriveKind* kind = nullptr;
  std::string path;          // absolute
  std::string text() const;  // as it is written in map and configuration: "dir:/srv/a", "/dev/sdb"
};
// Errors: invalid_argument (an unknown kind: says which there are; no path).
Result<DriveSpec> parse_drive_spec(std::string_view text);

// All kinds, raw first.
const std::vector<const DriveKind*>& drive_kinds();

const DriveKind& raw_drive_kind();
const DriveKind& kfs_drive_kind();
const DriveKind& dir_drive_kind();

}  // namespace quarry::daemon
