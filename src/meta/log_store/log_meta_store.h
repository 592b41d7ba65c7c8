// The embedded metadata store: an index that may be lost (meta/index.h), over a CommitLog that may not.
//
//   commit:  transactions queue up -> one committer validates them against recent writes, gives versions, packs a group into one
//            log frame (docs/formats/metadata-log.md) -> CommitLog::append -> applied to the index -> visible -> acknowledged. Several
//            frames are in flight; they are applied in order.
//   read:    at the newest applied version, on the caller's thread if the index can tell from memory, else on the blocking pool.
//   restart: the index says itself up to which frame it is current; the rest is replayed from the log. One that is missing, damaged, of
//            another store, or not a prefix of this log's history is thrown away and restored from the newest checkpoint in the log. So the
//            index is a cache: deleting it loses nothing.
//   checkpoint: in the background; only files that the last one does not hold are stored.
//
// Thread-safe. The committer runs on the executor that owns the log; open and close are called there. With an index in memory the whole
// store runs in a simulator, in one thread.
#pragma once
#include <memory>
#include <string>

#include "io/blocking_pool.h"
#include "io/clock.h"
#include "meta/commit_log.h"
#include "meta/index.h"
#include "meta/meta_store.h"

namespace quarry::meta {

struct LogMetaOptions {
  BlockingPool* pool = nullptr;  // for calls of the index that block; null: an own one of own_pool_threads
  size_t own_pool_threads = 4;
  std::shared_ptr<BlockingPool> own_pool{};  // made by need_pool(); the store keeps it
  void need_pool();                          // on an executor, which makes it
  Clock* clock = nullptr;                    // leases; null: the system's
  Random* random = nullptr;                  // identities; null: the executor's

  // Commits. Memory: the queue, and the conflict window.
  size_t frames_in_flight_max = 4;
  size_t group_bytes_max = 1u << 20;        // a group is closed at this size (one transaction may exceed it)
  size_t queued_transactions_max = 65536;   // more: overloaded
  size_t queued_bytes_max = 256u << 20;     // likewise
  size_t conflict_window_entries = 131072;  // remembered recent writes; a transaction older than the window conflicts
  size_t conflict_window_bytes = 32u << 20;

  // Checkpoints: when the log has grown by max(checkpoint_log_bytes, checkpoint_ratio * size of the last checkpoint), at most
  // checkpoint_log_bytes_max, since the last one; and at close if no more than checkpoint_at_close_bytes must be stored.
  uint64_t checkpoint_log_bytes = 64u << 20;
  double checkpoint_ratio = 0.5;
  uint64_t checkpoint_log_bytes_max = 1u << 30;
  uint64_t checkpoint_at_close_bytes = 64u << 20;
  uint64_t checkpoint_bytes_per_second = 256u << 20;  // throttle; 0: none
  Duration checkpoint_retry{std::chrono::seconds(30)};

  // For crash tests: called at named points ("append.before", "append.after", "apply.after", "checkpoint.flushed",
  // "checkpoint.stored", "checkpoint.published", ...), on any thread. true: behave as if the process died there: nothing more is
  // written to the log, everything waiting and everything later answers an error. Once true, it stays true.
  std::function<bool(std::string_view point)> die_at;
};

// Where the store stands, beyond MetaStore::Stats. For status pages and tests.
struct LogMetaStatus {
  std::string opened_by;  // "directory" (the index that was there, with the replay of the log's rest), "checkpoint" (restored), "log" (all
                          // of it), "empty"
  std::string reason;     // why the index that was there was not believed; empty if it was
  uint64_t frames_replayed = 0;
  uint64_t frame_appended = 0;  // durable
  uint64_t frame_applied = 0;
  uint64_t checkpoint_frame = 0;  // of the newest published checkpoint
  bool checkpoint_running = false;
  uint64_t checkpoint_bytes_done = 0, checkpoint_bytes_total = 0;  // of the running or the last one: to be stored
  uint64_t checkpoints = 0, checkpoint_failures = 0;
  std::string checkpoint_error;  // of the last failure, empty after a success
  std::string failure;           // why the store takes no more commits; empty if it does
  size_t queued_transactions = 0;
  uint64_t reads_on_pool = 0;  // reads that had to hop to the blocking pool; 0 once closed
};

class LogMetaStore : public MetaStore {
 public:
  // On the executor that owns `log`, which must outlive the store. Durable and complete when it returns: everything that was
  // acknowledged under this log is there. Errors: corrupt, data_lost (the log cannot give what is needed, and the index does
  // not hold it either), io_error, no_space, misconfigured (the index's place cannot be used), busy (open already).
  static Task<Result<std::unique_ptr<LogMetaStore>>> open(LogMetaOptions options, std::unique_ptr<IndexPlace> place, CommitLog& log);

  virtual LogMetaStatus status() const = 0;
  // Makes a checkpoint now, or after the one that runs, and waits for it. Any executor.
  virtual Task<Result<void>> checkpoint() = 0;
  // Ends as if the process had died: no flush, no checkpoint; waiting commits get unknown_outcome. For tests. On the log's executor.
  virtual Task<void> kill() = 0;
};

}  // namespace quarry::meta
