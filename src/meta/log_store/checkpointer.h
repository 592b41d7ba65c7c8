// Makes checkpoints of the index into the log, in the background: files, of which only those are stored that the newest published
// checkpoint does not hold. Never in the way of commits.
// Confined to the log's executor; what blocks runs on the pool.
#pragma once
#include "io/sync.h"
#include "meta/log_store/committer.h"

namespace quarry::meta {

class Checkpointer {
 public:
  // known: files of this index that the newest published checkpoint holds, by name.
  Checkpointer(const LogMetaOptions& options, CommitLog& log, std::shared_ptr<Index> index, const Committer::Counters& counters,
               std::map<std::string, CheckpointEntry> known, uint64_t log_bytes_at_checkpoint, uint64_t last_size);

  // What the log already holds, at open.
  void start_at(FrameNumber frame, Version version) {
    progress_.frame = frame;
    progress_.version = version;
  }
  // Starts one if the log has grown enough (or `overdue` was set at open) and none runs.
  void consider();
  void set_overdue() { overdue_ = true; }
  // Makes one now; after the one that runs, if one does.
  Task<Result<void>> run_now();
  // The one at close: only if little must be stored, or the log needs it.
  Task<Result<void>> run_at_close();
  // Waits for what runs; later calls do nothing.
  Task<void> stop();
  void release_index() { index_.reset(); }  // after stop and run_at_close
  void die() { dead_ = true; }

  struct Progress {
    std::atomic<bool> running = false;
    std::atomic<uint64_t> bytes_done = 0, bytes_total = 0, made = 0, failures = 0, frame = 0, version = 0, log_bytes = 0;
  };
  const Progress& progress() const { return progress_; }
  std::string last_error() const;

 private:
  struct Plan {
    std::shared_ptr<IndexCheckpoint> source;
    CheckpointExtra extra;                       // files without a stored name are to be stored
    std::map<std::string, CheckpointFile> held;  // by stored name: already in the log
    uint64_t bytes_to_store = 0, bytes = 0;
  };
  Task<Result<void>> run_once(uint64_t bytes_to_store_max);
  Task<Result<void>> attempt(uint64_t bytes_to_store_max);
  Result<void> prepare(const std::optional<CheckpointManifest>& published, Plan& plan);  // blocks
  Task<Result<void>> publish(Plan* plan);
  Task<Result<CheckpointFile>> store(IndexCheckpoint* source, CheckpointEntry* entry);
  uint64_t threshold() const;
  bool dying(std::string_view point);

  const LogMetaOptions& options_;
  CommitLog& log_;
  std::shared_ptr<Index> index_;
  const Committer::Counters& counters_;
  std::map<std::string, CheckpointEntry> known_;
  // By name: what attempts stored that failed later. The log keeps it until one is published, so it is not stored again and again.
  std::map<std::string, std::pair<CheckpointEntry, CheckpointFile>> unpublished_;
  Executor& home_;
  Progress progress_;
  mutable std::mutex error_mutex_;
  std::string error_;
  uint64_t last_size_;
  TimePoint retry_at_{};
  bool overdue_ = false, stopping_ = false;
  std::atomic<bool> dead_ = false;
  bool running_ = false;
  Event idle_;
  TaskGroup tasks_;
};

}  // namespace quarry::meta
