#include "meta/log_store/log_meta_store.h"

#include <filesystem>

#include "base/log.h"
#include "meta/leases.h"
#include "meta/log_store/checkpointer.h"
#include "meta/log_store/committer.h"
#include "meta/log_store/recovery.h"
#include "meta/rocksdb/index_room.h"

namespace quarry::meta {
namespace {

constexpr int kLeaseAttemptsMax = 64;

Error closed_error() { return fail(Code::cancelled, "the metadata store is closed"); }

class RocksdbMetaStoreImpl final : public RocksdbMetaStore {
 public:
  RocksdbMetaStoreImpl(RocksdbMetaOptions options, std::unique_ptr<ThreadPool> own_pool)
      : options_(std::move(options)), own_pool_(std::move(own_pool)), home_(Executor::here()) {}

  ~RocksdbMetaStoreImpl() override { CHECK(database_ == nullptr, "a RocksdbMetaStore dies open: close or kill it first"); }

  Task<Result<void>> start(CommitLog& log) {
    reserve_ = std::make_unique<IndexRoom>(options_.directory, options_.reserve_bytes);
    const auto give_up = [this] { return reserve_->give_up(); };
    auto giving_up = blocking(*options_.pool, give_up);
    co_await std::move(giving_up);
    Task<Result<void>> starting = start_in_directory(log);
    Result<void> started = co_await std::move(starting);
    if (!started && started.error().code() == Code::no_space && !options_.spare_directories.empty()) {
      Task<Result<void>> elsewhere = start_elsewhere(log, started.error());
      started = co_await std::move(elsewhere);
    }
    const auto keep = [this] {
      if (spare_.empty()) remove_spare_directories(options_.spare_directories, options_.directory);
      return reserve_->keep();
    };
    auto keeping = blocking(*options_.pool, keep);
    co_await std::move(keeping);
    co_return started;
  }

  // The directory's file system is full. What is in the directory stays as it is; it is caught up at a start that finds room.
  Task<Result<void>> start_elsewhere(CommitLog& log, Error why) {
    CO_TRY_ASSIGN(const std::optional<CheckpointManifest> manifest, log.checkpoint());
    uint64_t bytes = 0;
    if (manifest) {
      for (const CheckpointFile& file : manifest->files) bytes += file.size;
    }
    const auto make = [this, bytes] { return make_spare_directory(options_.spare_directories, options_.directory, bytes); };
    auto making = blocking(*options_.pool, make);
    Result<std::string> spare = co_await std::move(making);
    if (!spare) co_return std::move(why).with(spare.error().context());
    const std::string meant = std::exchange(options_.directory, *spare);
    spare_ = *spare;
    LOG_ERROR("the metadata index finds no room and is made anew elsewhere", {"directory", meant}, {"at", spare_},
              {"error", why.to_string()});
    {
      const std::lock_guard lock(trouble_->mutex);
      trouble_->what = fmt::format("there is no room for it in '{}': until a start that finds some it is in '{}'", meant, spare_);
    }
    Task<Result<void>> starting = start_in_directory(log);
    Result<void> started = co_await std::move(starting);
    if (!started) remove_spare();
    co_return started;
  }

  Task<Result<void>> start_in_directory(CommitLog& log) {
    ThreadPool& pool = *options_.pool;
    const std::string directory = options_.directory;
    auto on_damage = [directory, trouble = trouble_](const std::string& what) {
      mark_damaged(directory, what);
      const std::lock_guard lock(trouble->mutex);
      trouble->what = fmt::format("damaged: {}; nothing is lost: restart the node, which rebuilds it from the drives", what);
    };
    Task<Result<Recovered>> recovering = recover(options_, log, pool, on_damage);
    CO_TRY_ASSIGN(Recovered recovered, co_await std::move(recovering));
    opened_by_ = recovered.opened_by;
    reason_ = recovered.reason;
    frames_replayed_ = recovered.frames_replayed;
    database_ = std::move(recovered.database);
    auto committer = std::make_unique<Committer>(options_, log, database_, recovered.applied, pool, pool_reads_);
    checkpointer_ = std::make_unique<Checkpointer>(options_, log, database_, pool, committer->counters(), std::move(recovered.known),
                                                   recovered.checkpoint_log_bytes, recovered.checkpoint_size);
    checkpointer_->start_at(recovered.checkpoint_frame, recovered.checkpoint_version);
    if (recovered.checkpoint_due) checkpointer_->set_overdue();
    committer->on_applied([this] { checkpointer_->consider(); });
    committer->start();
    committer_ = std::move(committer);
    checkpointer_->consider();
    LOG_INFO("metadata store open", {"directory", directory}, {"by", opened_by_}, {"replayed", frames_replayed_},
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
    std::vector<std::optional<std::string>> values(keys.size());
    std::vector<size_t> missing;
    for (size_t i = 0; i < keys.size(); ++i) {
      keys[i].insert(keys[i].begin(), space::kUser);
      CO_TRY_ASSIGN(auto found, view->get_in_memory(keys[i]));
      if (found) {
        values[i] = std::move(*found);
      } else {
        missing.push_back(i);
      }
    }
    if (missing.empty()) co_return values;
    pool_reads_ += missing.size();
    const auto read = [&view, &keys, &missing, &values]() -> Result<void> {
      for (const size_t i : missing) {
        TRY_ASSIGN(auto found, view->database().get(view->snapshot(), keys[i], ReadTier::any));
        values[i] = std::move(*found);
      }
      return {};
    };
    auto reading = blocking(*options_.pool, read);
    CO_TRY(co_await std::move(reading));
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
    auto view = current();
    if (view == nullptr) co_return closed_error();
    co_return make_database_cursor(std::move(view), std::move(range), direction);
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
      stats.keys_estimate = view->database().keys_estimate();
      stats.bytes_on_disk = view->database().bytes_on_disk();
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

  RocksdbMetaStatus status() const override {
    RocksdbMetaStatus status;
    status.opened_by = opened_by_;
    status.reason = reason_;
    status.frames_replayed = frames_replayed_;
    status.reads_on_pool = pool_reads_;
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
  std::shared_ptr<DatabaseView> current() const { return committer_->view(); }

  Task<Result<void>> close_at_home() {
    if (stopped_) co_return Result<void>();
    stopped_ = true;
    co_await committer_->stop(true);
    co_await checkpointer_->stop();
    Result<void> flushed;
    if (!(options_.die_at && options_.die_at("close.flush"))) {
      Database& database = *database_;
      const auto flush = [&database] { return database.flush(); };
      auto flushing = blocking(*options_.pool, flush);
      flushed = co_await std::move(flushing);
      auto last = checkpointer_->run_at_close();
      // Without it the next start on another machine replays more; nothing is lost.
      (co_await std::move(last)).ignore("logged where it failed");
    }
    co_await release();
    co_return flushed;
  }

  // Closes the database, off the event loop. Views that callers still hold keep it open until they go.
  Task<void> release() {
    checkpointer_->release_database();
    const auto drop = [this] {
      database_.reset();
      remove_spare();
      return true;
    };
    auto dropping = blocking(*options_.pool, drop);
    co_await std::move(dropping);
  }

  RocksdbMetaOptions options_;
  std::unique_ptr<ThreadPool> own_pool_;
  Executor& home_;
  std::shared_ptr<Database> database_;
  std::unique_ptr<Committer> committer_;
  std::unique_ptr<Checkpointer> checkpointer_;
  std::atomic<uint64_t> pool_reads_ = 0;
  void remove_spare() {
    if (spare_.empty()) return;
    std::error_code ignored;  // the next start does it
    std::filesystem::remove_all(spare_, ignored);
  }

  struct Trouble {
    std::mutex mutex;
    std::string what;
  };
  std::string opened_by_, reason_;
  const std::shared_ptr<Trouble> trouble_ = std::make_shared<Trouble>();  // shared: the database may outlive the store, in views
  std::unique_ptr<IndexRoom> reserve_;
  std::string spare_;  // where the index is, if not where it should be
  uint64_t frames_replayed_ = 0;
  bool stopped_ = false;  // its home's
};

}  // namespace

Task<Result<std::unique_ptr<RocksdbMetaStore>>> RocksdbMetaStore::open(RocksdbMetaOptions options, CommitLog& log) {
  std::unique_ptr<ThreadPool> own_pool;
  if (options.pool == nullptr) {
    own_pool = std::make_unique<ThreadPool>("meta", std::max<size_t>(1, options.own_pool_threads));
    options.pool = own_pool.get();
  }
  if (options.frames_in_flight_max == 0) options.frames_in_flight_max = 1;
  auto store = std::make_unique<RocksdbMetaStoreImpl>(std::move(options), std::move(own_pool));
  Task<Result<void>> starting = store->start(log);
  CO_TRY(co_await std::move(starting));
  co_return std::unique_ptr<RocksdbMetaStore>(std::move(store));
}

}  // namespace quarry::meta
