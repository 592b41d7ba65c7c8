// FileService: what drives that keep writes as plain files under readable names (chunk/dir) offer beyond the chunk interface: names that
// are shown and hidden, files that are taken in where they lie. Behind DataPlane::files(). This class is the service of a store without
// such drives. Thread-safe: any executor may call; results come home to the caller's executor.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/data_writer.h"

namespace quarry::cluster {

// The name under which drives that keep files (chunk/dir) show the copies of a write (mirrors, and the full copy beside slices). Both
// empty: it has none.
struct FileName {
  std::string directory;  // the bucket
  std::string name;       // the key: any bytes
  bool empty() const { return name.empty(); }
  bool operator==(const FileName&) const = default;
};
// Short texts kept with a file (content type and the like).
using FileAttributes = std::vector<std::pair<std::string, std::string>>;

// An existing file on a mountpath that becomes a write where it lies (chunk::DirStore::adopt).
struct AdoptOptions {
  uint32_t drive = 0;
  std::string path;  // below the mountpath
  FileName file;     // the object it becomes
  FileAttributes attributes;
};
struct Adoption {
  std::unique_ptr<DataWriter> writer;  // to be kept or settled, as that of any write; else the file is let go and stays as it was
  DataLayout layout;
  int64_t modified_ns = 0;
  std::string md5;  // 16 bytes
};
struct UnrecordedFile {
  std::string path;  // below the mountpath
  uint64_t size = 0;
  int64_t modified_ns = 0;
  std::string why_not;  // not empty: no file that can be adopted, and why
};
// What can be said of an adopted write's file at a look.
enum class FileState : uint8_t {
  unchanged,
  changed,    // somebody changed it behind our back
  vanished,   // it is not there any more, or another one is in its place
  elsewhere,  // it is no file of one drive (moved by repair, or never adopted)
};

class FileService {
 public:
  FileService() = default;
  FileService(const FileService&) = delete;
  virtual ~FileService() = default;

  virtual bool on_some_drives() const { return false; }  // cheap: an atomic
  virtual bool on_all_drives() const { return false; }   // each object should be one write of whole copies

  // The names of files are shown and hidden by whoever knows which version of an object is the current one, after its transaction
  // committed. Durably on every drive of the layout that keeps files and is there. False: a drive is away; it is seen to when it is back,
  // or at the next start if the caller then asks once more. Repeating is harmless.
  virtual Task<Result<bool>> show(DataLayout layout, FileAttributes attributes);
  virtual Task<Result<bool>> hide(DataLayout layout);
  // Says whether a write is what is to be seen under the name (then with which attributes): asked after a crash, and for files that were
  // repaired. Without a judge whatever is recorded is shown.
  using Judge = std::function<Task<Result<std::optional<FileAttributes>>>(DataLayout layout, FileName file)>;
  virtual void set_judge(Judge) {}
  // Shows and hides what is to be seen under a name, in turn with others who do. Called for a write whose file could not be shown or hidden
  // while a drive was away, when the drive is back. What it holds must live as long as the data plane.
  using NameSettler = std::function<Task<void>(FileName file, DataLayout layout)>;
  virtual void set_name_settler(NameSettler) {}

  // Takes a file in without copying it: reads it once for its checksums. Errors: not_found, already_exists (has a record), busy (it
  // changes), invalid_argument (no drive of that kind, no plain file), unavailable.
  virtual Task<Result<Adoption>> adopt(AdoptOptions options);
  // Files of a mountpath that belong to no write, in order of path.
  virtual Task<Result<std::vector<UnrecordedFile>>> unrecorded(uint32_t drive, std::string under, std::string after, size_t limit);
  virtual Task<Result<FileState>> state(DataLayout layout);
  // Whether the write is, or has among its copies, an adopted file that still lies where it was found; with `at`: in this place.
  struct At {
    uint32_t drive = 0;
    std::string path;  // below the mountpath
  };
  virtual Task<Result<bool>> is_adopted(DataLayout layout, std::optional<At> at = std::nullopt);
  // A changed file is let go: its write's record is forgotten and the file stays, so that it can be adopted again.
  virtual Task<Result<void>> let_go(DataLayout layout);
};

inline Task<Result<bool>> FileService::show(DataLayout, FileAttributes) { co_return true; }
inline Task<Result<bool>> FileService::hide(DataLayout) { co_return true; }
inline Task<Result<Adoption>> FileService::adopt(AdoptOptions) { co_return fail(Code::unsupported, "no drive of this store keeps files"); }
inline Task<Result<std::vector<UnrecordedFile>>> FileService::unrecorded(uint32_t, std::string, std::string, size_t) {
  co_return fail(Code::unsupported, "no drive of this store keeps files");
}
inline Task<Result<FileState>> FileService::state(DataLayout) { co_return FileState::elsewhere; }
inline Task<Result<bool>> FileService::is_adopted(DataLayout, std::optional<At>) { co_return false; }
inline Task<Result<void>> FileService::let_go(DataLayout) { co_return fail(Code::unsupported, "no drive of this store keeps files"); }

}  // namespace quarry::cluster
