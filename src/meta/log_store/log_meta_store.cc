#include "meta/log_store/log_meta_store.h"

#include "base/log.h"
#include "meta/leases.h"
#include "meta/log_store/checkpointer.h"
#include "meta/log_store/committer.h"
#include "meta/log_store/recovery.h"

namespace quarry::meta {
namespace {

constexpr int kLeaseAttemptsMax = 64;

Error closed_error() { return fail(Code::cancelled, "the metadata store is closed"); }

class LogMetaStoreImpl final : public LogMetaStore {
 public:
  LogMetaStoreImpl(LogMetaOptions options, std::unique_ptr<IndexPlace> place)
      : options_(std::move(options)), home_(Executor::here()), place_(std::move(place)) {}

  ~LogMetaStoreImpl() override { CHECK(index_ == nullptr, "a LogMetaStore dies open: close or kill it first"); }

  Task<Result<void>> start(CommitLog& log) {
    auto on_damage = [trouble = trouble_](const std::string& what) {
      const std::lock_guard lock(trouble->mutex);
      trouble->what = fmt::format("damaged: {}; nothing is lost: restart the node, which rebuilds it from the drives", what);
    };
    Task<Result<Recovered>> recovering = recover(options_, *place_, log, on_damage);
    CO_TRY_ASSIGN(Recovered recovered, co_await std::move(recovering));
    opened_by_ = recovered.opened_by;
    reason_ = recovered.reason;
    frames_replayed_ = recovered.frames_replayed;
    index_ = std::move(recovered.index);
    {
      const std::lock_guard lock(trouble_->mutex);
      trouble_->what = place_->trouble();  // an index that was found damaged on the way is replaced
    }
    auto committer = std::make_unique<Committer>(options_, log, index_, recovered.applied);
    checkpointer_ = std::make_unique<Checkpointer>(options_, log, index_, committer->counters(), std::move(recovered.known),
                                                   recovered.checkpoint_log_bytes, recovered.checkpoint_size);
    checkpointer_->start_at(recovered.checkpoint_frame, recovered.checkpoint_version);
    if (recovered.checkpoint_due) checkpointer_->set_overdue();
    committer->on_applied([this] { checkpointer_->consider(); });
    committer->start();
    committer_ = std::move(committer);
    checkpointer_->consider();
    LOG_INFO("metadata store open", {"directory", place_->name()}, {"by", opened_by_}, {"replayed", frames_replayed_},
             {"frame", recovered.applied.frame}, {"version", recovered.applied.version});
    co_return Result<void>();
  }

  Task<Result<std::optional<std::string>>> get(std::string key) override {
    CO_TRY(check_key(key));
    const auto view = current();
    if (view == nullptr) co_return closed_error();
    key.insert(key.begin(), space::kUser);
    CO_TRY_ASSIGN(auto found, view->get_in_memory(key));
    if (found) co_return std::move(*found);
    auto reading = view->get_row(std::move(key));
    auto value = co_await std::move(reading);
    co_return value;
  }

  Task<Result<std::vector<std::optional<std::string>>>> get_many(std::vector<std::string> keys) override {
    const auto view = current();
    if (view == nullptr) co_return closed_error();
    for (const auto& key : keys) CO_TRY(check_key(key));
    for (auto& key : keys) key.insert(key.begin(), space::kUser);
    auto reading = view->get_rows(std::move(keys));
    auto values = co_await std::move(reading);
    co_return values;
  }

  Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) override {
    const auto view = current();
    if (view == nullptr) co_return closed_error();
    options.range = row_range(space::kUser, options.range);
    auto scanning = view->scan_rows(std::move(options));
    CO_TRY_ASSIGN(std::vector<KeyValue> rows, co_await std::move(scanning));
    strip_space(rows);
    co_return rows;
  }

  Task<Result<std::unique_ptr<Snapshot>>> snapshot() override {
    auto view = current();
    if (view == nullptr) co_return closed_error();
    co_return make_snapshot(std::move(view), space::kUser);
  }
  Task<Result<std::unique_ptr<Cursor>>> cursor(KeyRange range, Direction direction) override {
    const auto view = current();
    if (view == nullptr) co_return closed_error();
    co_return view->cursor(std::move(range), direction);
  }
  Task<Result<std::unique_ptr<Transaction>>> begin() override {
    auto view = current();
    if (view == nullptr) co_return closed_error();
    co_return make_transaction(std::move(view), *committer_, space::kUser);
  }

  Version version() const override { return committer_->version(); }

  Task<Result<Version>> watch(std::string prefix, Version after, TimePoint deadline) override {
    auto waiting = WatchHub::watch(committer_->watches(), row_key(space::kUser, prefix), after, deadline);
    Result<Version> result = co_await std::move(waiting);
    co_return result;
  }

  Task<Result<LeaseGrant>> lease(std::string name, std::string holder, Duration duration) override {
    Clock& clock = options_.clock != nullptr ? *options_.clock : system_clock();
    for (int attempt = 1;; ++attempt) {
      auto view = current();
      if (view == nullptr) co_return closed_error();
      auto transaction = make_transaction(std::move(view), *committer_, space::kLease);
      auto taking = take_lease(std::move(transaction), name, holder, clock.wall_now(), duration);
      Result<LeaseGrant> grant = co_await std::move(taking);
      if (grant || grant.error().code() != Code::conflict || attempt >= kLeaseAttemptsMax) co_return grant;
    }
  }
  Task<Result<void>> release_lease(std::string name, std::string holder) override {
    for (int attempt = 1;; ++attempt) {
      auto view = current();
      if (view == nullptr) co_return closed_error();
      auto transaction = make_transaction(std::move(view), *committer_, space::kLease);
      auto dropping = drop_lease(std::move(transaction), name, holder);
      Result<void> dropped = co_await std::move(dropping);
      if (dropped || dropped.error().code() != Code::conflict || attempt >= kLeaseAttemptsMax) co_return dropped;
    }
  }

  Stats stats() const override {
    Stats stats;
    const auto& counters = committer_->counters();
    stats.version = committer_->version();
    if (const auto view = current()) {
      stats.keys_estimate = view->index().keys_estimate();
      stats.bytes_on_disk = view->index().bytes_on_disk();
    }
    stats.commits = counters.commits;
    stats.commit_groups = counters.groups;
    stats.conflicts = counters.conflicts;
    const uint64_t log_bytes = counters.log_bytes, checkpointed = checkpointer_->progress().log_bytes;
    stats.log_bytes_since_checkpoint = log_bytes > checkpointed ? log_bytes - checkpointed : 0;
    stats.checkpoint_version = checkpointer_->progress().version;
    stats.failure = committer_->failure();
    const std::lock_guard lock(trouble_->mutex);
    stats.index_trouble = trouble_->what;
    return stats;
  }

  LogMetaStatus status() const override {
    LogMetaStatus status;
    status.opened_by = opened_by_;
    status.reason = reason_;
    status.frames_replayed = frames_replayed_;
    if (const auto view = current()) status.reads_on_pool = view->index().reads_on_pool();
    const auto& counters = committer_->counters();
    status.frame_appended = counters.frame_appended;
    status.frame_applied = counters.frame_applied;
    status.failure = committer_->failure();
    status.queued_transactions = committer_->queued();
    const auto& progress = checkpointer_->progress();
    status.checkpoint_frame = progress.frame;
    status.checkpoint_running = progress.running;
    status.checkpoint_bytes_done = progress.bytes_done;
    status.checkpoint_bytes_total = progress.bytes_total;
    status.checkpoints = progress.made;
    status.checkpoint_failures = progress.failures;
    status.checkpoint_error = checkpointer_->last_error();
    return status;
  }

  Task<Result<void>> checkpoint() override {
    auto running = on(home_, checkpointer_->run_now());
    Result<void> done = co_await std::move(running);
    co_return done;
  }

  Task<Result<void>> close() override {
    auto closing = on(home_, close_at_home());
    Result<void> done = co_await std::move(closing);
    co_return done;
  }

  Task<void> kill() override {
    if (stopped_) co_return;
    stopped_ = true;
    checkpointer_->die();
    co_await committer_->stop(false);
    co_await checkpointer_->stop();
    co_await release();
  }

 private:
  // Null once closed.
  std::shared_ptr<IndexView> current() const { return committer_->view(); }

  Task<Result<void>> close_at_home() {
    if (stopped_) co_return Result<void>();
    stopped_ = true;
    co_await committer_->stop(true);
    co_await checkpointer_->stop();
    Result<void> flushed;
    if (!(options_.die_at && options_.die_at("close.flush"))) {
      Index& index = *index_;
      const auto flush = [&index] { return index.flush(); };
      auto flushing = blocking(*options_.pool, flush);
      flushed = co_await std::move(flushing);
      auto last = checkpointer_->run_at_close();
      // Without it the next start on another machine replays more; nothing is lost.
      (co_await std::move(last)).ignore("logged where it failed");
    }
    co_await release();
    co_return flushed;
  }

  // Closes the index, off the event loop. Views that callers still hold keep it open until they go.
  Task<void> release() {
    checkpointer_->release_index();
    const auto drop = [this] {
      index_.reset();
      place_.reset();
      return true;
    };
    auto dropping = blocking(*options_.pool, drop);
    co_await std::move(dropping);
  }

  LogMetaOptions options_;
  Executor& home_;
  std::unique_ptr<IndexPlace> place_;
  std::shared_ptr<Index> index_;
  std::unique_ptr<Committer> committer_;
  std::unique_ptr<Checkpointer> checkpointer_;
  struct Trouble {
    std::mutex mutex;
    std::string what;
  };
  std::string opened_by_, reason_;
  const std::shared_ptr<Trouble> trouble_ = std::make_shared<Trouble>();  // shared: the index may outlive the store, in views
  uint64_t frames_replayed_ = 0;
  bool stopped_ = false;  // its home's
};

}  // namespace

void LogMetaOptions::need_pool() {
  if (pool != nullptr) return;
  own_pool = Executor::here().make_pool("meta", std::max<size_t>(1, own_pool_threads));
  pool = own_pool.get();
}

Task<Result<std::unique_ptr<LogMetaStore>>> LogMetaStore::open(LogMetaOptions options, std::unique_ptr<IndexPlace> place, CommitLog& log) {
  options.need_pool();
  if (options.frames_in_flight_max == 0) options.frames_in_flight_max = 1;
  auto store = std::make_unique<LogMetaStoreImpl>(std::move(options), std::move(place));
  Task<Result<void>> starting = store->start(log);
  CO_TRY(co_await std::move(starting));
  co_return std::unique_ptr<LogMetaStore>(std::move(store));
}

}  // namespace quarry::meta
