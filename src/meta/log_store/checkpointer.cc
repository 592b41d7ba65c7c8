#include "meta/log_store/checkpointer.h"

#include "base/log.h"
#include "codec/crc32c.h"

namespace quarry::meta {
namespace {

constexpr Duration kDamagedRetry = std::chrono::minutes(10);

// Hands pieces of one file to the log, which calls for them on a blocking pool, and sums up what it handed over.
class PieceSums {
 public:
  PieceSums(CommitLog::ReadPiece read, uint64_t size) : read_(std::move(read)), size_(size) {}

  Result<Buffer> read(uint64_t offset, size_t length) {
    TRY_ASSIGN(Buffer out, read_(offset, length));
    const uint32_t sum = crc32c(0, out.view());
    const std::lock_guard lock(mutex_);
    sums_[offset] = {length, sum};
    return out;
  }

  // Of the whole file, as it was handed over. none: some of it was not.
  std::optional<uint32_t> sum() const {
    const std::lock_guard lock(mutex_);
    uint64_t at = 0;
    uint32_t sum = 0;
    for (const auto& [offset, piece] : sums_) {
      if (offset != at) return std::nullopt;
      sum = crc32c_combine(sum, piece.second, piece.first);
      at += piece.first;
    }
    return at == size_ ? std::optional(sum) : std::nullopt;
  }

 private:
  const CommitLog::ReadPiece read_;
  const uint64_t size_;
  mutable std::mutex mutex_;
  std::map<uint64_t, std::pair<uint64_t, uint32_t>> sums_;  // offset -> length, CRC32C
};

}  // namespace

Checkpointer::Checkpointer(const LogMetaOptions& options, CommitLog& log, std::shared_ptr<Index> index, const Committer::Counters& counters,
                           std::map<std::string, CheckpointEntry> known, uint64_t log_bytes_at_checkpoint, uint64_t last_size)
    : options_(options),
      log_(log),
      index_(std::move(index)),
      counters_(counters),
      known_(std::move(known)),
      home_(Executor::here()),
      last_size_(last_size) {
  progress_.log_bytes = log_bytes_at_checkpoint;
  idle_.set();
}

uint64_t Checkpointer::threshold() const {
  const auto scaled = static_cast<uint64_t>(options_.checkpoint_ratio * static_cast<double>(last_size_));
  return std::min(std::max(options_.checkpoint_log_bytes, scaled),
                  std::max(options_.checkpoint_log_bytes, options_.checkpoint_log_bytes_max));
}

bool Checkpointer::dying(std::string_view point) {
  if (!dead_ && options_.die_at && options_.die_at(point)) dead_ = true;
  return dead_;
}

std::string Checkpointer::last_error() const {
  const std::lock_guard lock(error_mutex_);
  return error_;
}

void Checkpointer::consider() {
  if (running_ || stopping_ || dead_ || home_.now() < retry_at_) return;
  if (!overdue_ && counters_.log_bytes - progress_.log_bytes < threshold()) return;
  tasks_.spawn([](Checkpointer& self) -> Task<void> {
    const Result<void> done = co_await self.run_once(UINT64_MAX);
    if (done) co_return;
    const bool damaged = done.error().code() == Code::corrupt;  // nothing changes that before the index is rebuilt
    self.retry_at_ = self.home_.now() + (damaged ? kDamagedRetry : self.options_.checkpoint_retry);
  }(*this));
}

Task<Result<void>> Checkpointer::run_now() {
  while (running_) co_await idle_.wait();
  if (stopping_ || dead_) co_return fail(Code::cancelled, "the metadata store is closing");
  Task<Result<void>> work = run_once(UINT64_MAX);
  Result<void> done = co_await std::move(work);
  co_return done;
}

Task<Result<void>> Checkpointer::run_at_close() {
  while (running_) co_await idle_.wait();
  if (dead_ || (!overdue_ && counters_.frame_applied == progress_.frame)) co_return Result<void>();
  Task<Result<void>> work = run_once(overdue_ ? UINT64_MAX : options_.checkpoint_at_close_bytes);
  Result<void> done = co_await std::move(work);
  co_return done;
}

Task<void> Checkpointer::stop() {
  stopping_ = true;
  co_await tasks_.join();
  while (running_) co_await idle_.wait();
}

Task<Result<void>> Checkpointer::run_once(uint64_t bytes_to_store_max) {
  running_ = true;
  progress_.running = true;
  idle_.reset();
  Task<Result<void>> work = attempt(bytes_to_store_max);
  Result<void> done = co_await std::move(work);
  if (!done && !dead_) {
    ++progress_.failures;
    LOG_WARNING("metadata checkpoint failed, will be tried again; the log is kept", {"error", done.error().to_string()});
  }
  {
    const std::lock_guard lock(error_mutex_);
    error_ = done ? std::string() : done.error().to_string();
  }
  running_ = false;
  progress_.running = false;
  idle_.set();
  co_return done;
}

// Flush, hold still, look what is there. On the pool.
Result<void> Checkpointer::prepare(const std::optional<CheckpointManifest>& manifest, Plan& plan) {
  TRY_ASSIGN(plan.source, index_->checkpoint());
  if (dying("checkpoint.flushed")) return fail(Code::cancelled, "died");
  IndexCheckpoint& source = *plan.source;
  TRY_ASSIGN(plan.extra.applied, source.examine());
  std::map<std::string, CheckpointFile> in_log;
  if (manifest) {
    for (const auto& file : manifest->files) in_log.emplace(file.name, file);
  }
  TRY_ASSIGN(const std::vector<IndexCheckpoint::File> files, source.files());
  for (const auto& file : files) {
    CheckpointEntry entry;
    entry.name = file.name;
    entry.size = file.size;
    plan.bytes += entry.size;
    const auto known = known_.find(file.name);
    if (file.immutable && known != known_.end() && known->second.size == entry.size) {
      const auto held = in_log.find(known->second.stored);
      if (held != in_log.end() && held->second.size == entry.size) {
        plan.held.emplace(held->first, held->second);
        plan.extra.files.push_back(known->second);
        continue;
      }
    }
    const auto unpublished = unpublished_.find(file.name);
    if (file.immutable && unpublished != unpublished_.end() && unpublished->second.first.size == entry.size) {
      plan.held.emplace(unpublished->second.first.stored, unpublished->second.second);
      plan.extra.files.push_back(unpublished->second.first);
      continue;
    }
    TRY_ASSIGN(entry.crc, source.check(file));
    plan.bytes_to_store += entry.size;
    plan.extra.files.push_back(std::move(entry));
  }
  return source.prove();
}

Task<Result<CheckpointFile>> Checkpointer::store(IndexCheckpoint* source, CheckpointEntry* entry) {
  const auto open = [source, entry] { return source->reader(*entry); };
  auto opening = blocking(*options_.pool, open);
  CommitLog::ReadPiece read = co_await std::move(opening);
  const auto reader = std::make_shared<PieceSums>(std::move(read), entry->size);
  Task<Result<CheckpointFile>> work =
      log_.store_file(entry->stored, entry->size, [reader](uint64_t offset, size_t length) { return reader->read(offset, length); });
  Result<CheckpointFile> file = co_await std::move(work);
  // A second reading: it may differ from the first, and a start would refuse it.
  if (file && reader->sum() != entry->crc) co_return index_->damaged(fmt::format("'{}' changed while it was stored", entry->name));
  co_return file;
}

Task<Result<void>> Checkpointer::attempt(uint64_t bytes_to_store_max) {
  CO_TRY_ASSIGN(const std::optional<CheckpointManifest> published, log_.checkpoint());
  Plan plan;
  const auto preparing = [this, &published, &plan] { return prepare(published, plan); };
  auto work = blocking(*options_.pool, preparing);
  Result<void> done = co_await std::move(work);
  const bool publishes = done && plan.bytes_to_store <= bytes_to_store_max;
  if (publishes) {
    Task<Result<void>> publishing = publish(&plan);
    done = co_await std::move(publishing);
  }
  if (dead_ || plan.source == nullptr) co_return done;
  // Also after a failure: what is held still takes room, which may be what is wanting.
  const bool published_it = publishes && done;
  const auto clean = [this, &plan, published_it]() -> Result<void> {
    plan.source->remove();
    return published_it ? index_->note_stored_files(known_) : Result<void>();
  };
  auto cleaning = blocking(*options_.pool, clean);
  const Result<void> remembered = co_await std::move(cleaning);
  // Without it the next checkpoint stores everything again: more work, nothing lost.
  if (!remembered) LOG_WARNING("could not note what is checkpointed", {"error", remembered.error().to_string()});
  co_return done;
}

Task<Result<void>> Checkpointer::publish(Plan* plan) {
  progress_.bytes_done = 0;
  progress_.bytes_total = plan->bytes_to_store;
  // Unique for ever: no two attempts share it, whatever became of the others.
  Random& random = options_.random != nullptr ? *options_.random : Executor::here().random();
  const std::string suffix = fmt::format(".{:016x}{:016x}", random.u64(), random.u64());
  CheckpointManifest manifest;
  manifest.frame = plan->extra.applied.frame;
  for (auto& entry : plan->extra.files) {
    if (!entry.stored.empty()) {
      manifest.files.push_back(plan->held.at(entry.stored));
      continue;
    }
    entry.stored = entry.name + suffix;
    if (dying("checkpoint.storing")) co_return fail(Code::cancelled, "died");
    Task<Result<CheckpointFile>> storing = store(plan->source.get(), &entry);
    CO_TRY_ASSIGN(CheckpointFile file, co_await std::move(storing));
    unpublished_[entry.name] = {entry, file};
    manifest.files.push_back(std::move(file));
    progress_.bytes_done += entry.size;
    if (options_.checkpoint_bytes_per_second > 0 && !stopping_) {
      co_await sleep_for(Duration(
          static_cast<Duration::rep>(1e9 * static_cast<double>(entry.size) / static_cast<double>(options_.checkpoint_bytes_per_second))));
    }
  }
  if (dying("checkpoint.stored")) co_return fail(Code::cancelled, "died");
  manifest.extra = plan->extra.encode();
  Task<Result<void>> publishing = log_.publish_checkpoint(std::move(manifest));
  CO_TRY(co_await std::move(publishing));
  if (dying("checkpoint.published")) co_return fail(Code::cancelled, "died");
  progress_.frame = plan->extra.applied.frame;
  progress_.version = plan->extra.applied.version;
  progress_.log_bytes = plan->extra.applied.log_bytes;
  ++progress_.made;
  last_size_ = plan->bytes;
  overdue_ = false;
  unpublished_.clear();
  known_.clear();
  for (auto& entry : plan->extra.files) {
    std::string name = entry.name;
    known_.emplace(std::move(name), std::move(entry));
  }
  co_return Result<void>();
}

}  // namespace quarry::meta
