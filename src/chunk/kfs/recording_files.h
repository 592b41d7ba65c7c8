// RecordingFiles: runs a store over a real directory and remembers every step that a power cut could undo, so that the states in which
// one may leave the directory can be built again somewhere else.
//
// The model. Bytes appended to a file are safe after its sync; unsynced ones may be there up to any length, the last page torn or filled
// with rubbish. Names (create, rename, remove, make directory) are journalled by the file system: they survive in the order in which they
// were made, up to some point, and at least up to the last sync of a directory, or of a file that was created before.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "chunk/kfs/files.h"
#include "io/clock.h"

namespace quarry::chunk::kfs {

class RecordingFiles : public Files {
 public:
  // Paths below root are recorded, relative to it.
  explicit RecordingFiles(std::string root) : root_(std::move(root)) {}

  Result<std::unique_ptr<Writable>> create(const std::string& path) override;
  Result<std::unique_ptr<Readable>> open(const std::string& path) override { return posix_files().open(path); }
  bool exists(const std::string& path) override { return posix_files().exists(path); }
  Result<std::vector<std::string>> children(const std::string& directory) override { return posix_files().children(directory); }
  Result<uint64_t> size(const std::string& path) override { return posix_files().size(path); }
  Result<void> remove(const std::string& path) override;
  Result<void> make_directory(const std::string& path) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> sync_directory(const std::string& path) override;
  Result<Space> space(const std::string& path) override { return posix_files().space(path); }

  // Takes what lies below root as made and synced. Before the first step.
  void adopt();
  size_t first_step() const { return first_step_; }
  // Steps so far; a point in time of the recording.
  size_t now() const;
  // Builds in `target` (empty) a state that a power cut after step `at` may leave. What is not certain is drawn from random.
  void build(size_t at, Random& random, const std::string& target) const;

 private:
  friend class RecordingWritable;
  enum class Kind : uint8_t { create, append, sync_file, rename, remove, make_directory, sync_names };
  struct Step {
    Kind kind;
    std::string path, to;
    uint64_t file = 0;
    std::string bytes;
  };
  std::string relative(const std::string& path) const { return path.substr(root_.size() + 1); }
  void add(Step step);

  const std::string root_;
  mutable std::mutex mutex_;
  std::vector<Step> steps_;
  uint64_t next_file_ = 1;
  size_t first_step_ = 0;
};

}  // namespace quarry::chunk::kfs
