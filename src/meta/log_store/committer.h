// The one place where transactions become durable and visible.
//
//   commit() (any executor) -> queue -> [validate, give versions, pack a frame] -> CommitLog::append -> apply to the index,
//   frame by frame -> new view -> watches -> answers, each on its caller's executor.
//
// Everything in brackets and after it runs on the log's executor. Invariants:
//   - versions and frames are given in one order, and applied in that order;
//   - nothing is visible before its frame is durable, and nothing is acknowledged before it is visible;
//   - a frame that the log could not take is appended again until it can, and nothing is applied or acknowledged before it. Commits wait
//     for that kStallPatience long; then those in frames answer unknown_outcome (they become visible once the log goes on, or are perhaps
//     found at recovery), and all others answer why, at once, until the log goes on. The same where the index has no room.
#pragma once
#include <deque>
#include <memory>
#include <mutex>

#include "io/sync.h"
#include "meta/commit_log.h"
#include "meta/log_store/conflict_window.h"
#include "meta/log_store/log_meta_store.h"
#include "meta/watch_hub.h"

namespace quarry::meta {

class Committer final : public CommitSink {
 public:
  struct Counters {
    std::atomic<uint64_t> commits = 0, groups = 0, conflicts = 0;
    std::atomic<uint64_t> frame_appended = 0, frame_applied = 0, log_bytes = 0;
  };

  // On the log's executor.
  Committer(const LogMetaOptions& options, CommitLog& log, std::shared_ptr<Index> index, Applied start);
  ~Committer() override;

  void start();
  // Any executor.
  Task<Result<Version>> commit_rows(Version read_version, ReadSet reads, WriteSet writes) override;

  // The newest published view; null after stop. Any thread.
  std::shared_ptr<IndexView> view() const;
  Version version() const { return version_.load(std::memory_order_acquire); }
  std::shared_ptr<WatchHub> watches() const { return hub_; }
  const Counters& counters() const { return counters_; }
  size_t queued() const;
  std::string failure() const;  // why commits are refused now
  // Called on the log's executor after each applied frame.
  void on_applied(std::function<void()> fn) { on_applied_ = std::move(fn); }
  // Stops taking commits, for ever; what waits is finished. Also used when the index itself fails.
  void fail_with(Error error);

  // On the log's executor. finish: what was accepted is committed; else it is dropped as if the process died. Lets go of the index;
  // the committer stays, to refuse what comes later.
  Task<void> stop(bool finish);

 private:
  struct Pending;
  struct Frame;
  struct Submit;
  struct Sleep;

  Task<void> run();
  bool form_group();
  void requeue(Pending* pending);
  Task<void> check_apart(Pending* pending);
  Task<void> append(Frame* frame);
  bool ending() const { return stopping_ || dead_; }
  // The log or the index cannot go on because of `error`; called again while that lasts.
  void stalls(const Frame& frame, const Error& error);
  void goes_on(const Frame& frame);
  Task<void> pause(int attempt);
  Task<void> drain();
  Task<Result<void>> apply(Frame& frame);
  void finish(Frame& frame, const Error* error);
  static void answer(Pending& pending, Result<Version> result);
  void publish_view(Version version);
  bool die(std::string_view point);
  void nudge();
  size_t wake_threshold() const;

  // Shared with callers.
  mutable std::mutex queue_mutex_;
  std::deque<Pending*> queue_;
  size_t queued_bytes_ = 0;
  std::coroutine_handle<> sleeper_;
  size_t wake_at_ = 0;
  std::optional<Error> refuse_;   // new commits get this, for ever
  std::optional<Error> stalled_;  // new commits get this until the log goes on
  mutable std::mutex view_mutex_;
  std::shared_ptr<IndexView> view_;
  std::atomic<Version> version_;
  Counters counters_;

  // The log's executor only.
  const LogMetaOptions& options_;
  Executor& home_;
  CommitLog& log_;
  std::shared_ptr<Index> index_;
  const std::shared_ptr<WatchHub> hub_;
  ConflictWindow window_;
  Applied assigned_;  // as if every frame made so far were applied
  std::deque<std::unique_ptr<Frame>> in_flight_;
  std::optional<Error> broken_;
  std::atomic<bool> dead_ = false;
  bool stopping_ = false, draining_ = false;
  size_t apart_ = 0;  // transactions in check_apart
  std::optional<TimePoint> stalls_since_;
  TaskGroup tasks_;
  std::function<void()> on_applied_;
};

}  // namespace quarry::meta
