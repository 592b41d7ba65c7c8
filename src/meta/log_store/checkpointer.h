// Makes checkpoints of the database into the log, in the background: hard-linked files, of which only those are stored that the
// newest published checkpoint does not hold. Never in the way of commits.
// Confined to the log's executor; what blocks runs on the pool.
#pragma once
#include "io/sync.h"
#include "meta/log_store/committer.h"
#include "meta/rocksdb/checkpoint_files.h"

namespace quarry::meta {

class Checkpointer {
 public:
  // `directory` is the store's; the database's is directory/db, the hard links go to directory/checkpoint.
  Checkpointer(const RocksdbMetaOptions& options, CommitLog& log, std::shared_ptr<Database> database, ThreadPool& pool,
               const Committer::Counters& counters, KnownFiles known, uint64_t log_bytes_at_checkpoint, uint64_t last_size);

  // What the log already holds, at open.
  void start_at(FrameNumber frame, Version version) {
    progress_.frame = frame;
    progress_.version = version;
  }
  // Starts one if the log has grown enough (or `overdue` was set at open) and none runs.
  void consider();
  void set_overdue() { overdue_ = true; }
  // Makes one now; if one runs, waits for it and makes another only if frames were applied since that one began.
  Task<Result<void>> run_now();
  // The one at close: only if little must be stored.
  Task<Result<void>> run_at_close();
  // Waits for what runs; later calls do nothing.
  Task<void> stop();
  void release_database() { database_.reset(); }  // after stop and run_at_close
  void die() { dead_ = true; }

  struct Progress {
    std::atomic<bool> running = false;
    std::atomic<uint64_t> bytes_done = 0, bytes_total = 0, made = 0, failures = 0, frame = 0, version = 0, log_bytes = 0;
  };
  const Progress& progress() const { return progress_; }
  std::string last_error() const;

 private:
  struct Plan {
    CheckpointExtra extra;                       // files without a stored name are to be stored
    std::map<std::string, CheckpointFile> held;  // by stored name: already in the log
    uint64_t bytes_to_store = 0, bytes = 0;
  };
  Task<Result<void>> run_once(uint64_t bytes_to_store_max);
  Task<Result<void>> attempt(uint64_t bytes_to_store_max);
  Result<Plan> prepare(const std::optional<CheckpointManifest>& published);  // blocks
  Task<Result<CheckpointFile>> store(CheckpointEntry* entry);
  uint64_t threshold() const;
  bool dying(std::string_view point);

  const RocksdbMetaOptions& options_;
  CommitLog& log_;
  std::shared_ptr<Database> database_;
  ThreadPool& pool_;
  const Committer::Counters& counters_;
  KnownFiles known_;
  std::string database_directory_, link_directory_;
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
