// The in-memory CommitLog, with the faults a real one has. What survives a crash is MemoryLogMedia; a MemoryCommitLog is one run
// over it.
//
//   auto media = std::make_shared<MemoryLogMedia>();
//   MemoryCommitLog log(media, {.append_delay = 200us});
//   log.crash(seed);              // appends in flight: each survives whole or not at all, in order; their callers get unavailable
//   MemoryCommitLog again(media); // last_frame() is the last whole one
//
// MemoryCommitLog is confined to its executor. MemoryLogMedia is a plain value behind a lock: tests damage it between runs.
#pragma once
#include <map>
#include <memory>
#include <mutex>

#include "io/blocking_pool.h"
#include "io/clock.h"
#include "io/sync.h"
#include "meta/commit_log.h"

namespace quarry::meta {

struct MemoryLogMedia {
  struct StoredFile {
    std::string name;
    std::string bytes;
  };
  std::mutex mutex;
  std::map<FrameNumber, std::string> frames;  // retained, contiguous
  std::map<uint64_t, StoredFile> files;       // by handle
  std::optional<CheckpointManifest> manifest;
  FrameNumber last_frame = 0;  // also when its bytes were trimmed
  uint64_t next_handle = 1;
  std::map<FrameNumber, Code> unreadable;  // frames that answer this error
};

struct MemoryLogFaults {
  Duration append_delay{0};   // each append takes this; the next does not wait for it
  Duration append_jitter{0};  // plus up to this, drawn
  uint64_t seed = 1;
  std::optional<FrameNumber> fail_append;    // this append and all later answer unavailable (the frame itself survives or not, drawn)
  bool full = false;                         // appends answer no_space; the frames are taken when they are appended again after this ended
  std::optional<uint64_t> fail_store_after;  // so many store_file calls work, then no_space
  bool fail_publish = false;
  BlockingPool* pool = nullptr;  // where pieces of files are read; null: in place
};

class MemoryCommitLog : public CommitLog {
 public:
  explicit MemoryCommitLog(std::shared_ptr<MemoryLogMedia> media, MemoryLogFaults faults = {});

  Task<Result<void>> append(FrameNumber number, std::vector<ByteView> parts) override;
  FrameNumber last_frame() const override;
  Task<Result<Buffer>> read(FrameNumber number) override;
  Task<Result<CheckpointFile>> store_file(std::string name, uint64_t size, ReadPiece read_piece) override;
  Task<Result<Buffer>> read_file(const CheckpointFile& file, uint64_t offset, size_t length) override;
  Task<Result<void>> publish_checkpoint(CheckpointManifest manifest) override;
  Result<std::optional<CheckpointManifest>> checkpoint() const override;

  // The process dies: of the appends in flight a drawn number survives, in order. Every later call answers unavailable and
  // changes nothing.
  void crash();
  void set_faults(MemoryLogFaults faults);
  MemoryLogMedia& media() { return *media_; }
  uint64_t appends() const { return appends_; }
  uint64_t bytes_stored() const { return bytes_stored_; }  // by store_file, in this run

 private:
  void settle();
  std::shared_ptr<MemoryLogMedia> media_;
  MemoryLogFaults faults_;
  SeededRandom random_;
  bool crashed_ = false;
  bool failed_ = false;
  FrameNumber next_append_ = 0;
  std::map<FrameNumber, std::string> in_flight_;  // written, not yet part of the media (an earlier one is missing)
  std::map<FrameNumber, bool> written_;
  uint64_t appends_ = 0, stores_ = 0, bytes_stored_ = 0;
};

}  // namespace quarry::meta
