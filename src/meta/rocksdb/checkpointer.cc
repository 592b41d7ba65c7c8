#include "meta/rocksdb/checkpointer.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/coding.h"
#include "base/log.h"
#include "codec/crc32c.h"

namespace quarry::meta {
namespace {

namespace fs = std::filesystem;

// Reads pieces of one file; the log calls it on a blocking pool.
CommitLog::ReadPiece piece_reader(std::string path, uint64_t size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const int error = errno;
  const std::shared_ptr<const int> file(new int(fd), [](const int* owned) {
    if (*owned >= 0) ::close(*owned);
    delete owned;
  });
  return [file, path = std::move(path), size, error](uint64_t offset, size_t length) -> Result<Buffer> {
    if (*file < 0) return errno_error(error, fmt::format("opening '{}'", path));
    if (offset > size || length > size - offset) return fail(Code::out_of_range, "'{}' has {} bytes", path, size);
    Buffer out(length);
    size_t done = 0;
    while (done < length) {
      const ssize_t n = ::pread(*file, out.data() + done, length - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error(errno, fmt::format("reading '{}'", path));
      if (n == 0) return fail(Code::corrupt, "'{}' ends at {} where {} bytes were expected", path, offset + done, size);
      done += static_cast<size_t>(n);
    }
    return out;
  };
}

}  // namespace

Checkpointer::Checkpointer(const RocksdbMetaOptions& options, CommitLog& log, std::shared_ptr<Database> database, ThreadPool& pool,
                           const Committer::Counters& counters, KnownFiles known, uint64_t log_bytes_at_checkpoint, uint64_t last_size)
    : options_(options),
      log_(log),
      database_(std::move(database)),
      pool_(pool),
      counters_(counters),
      known_(std::move(known)),
      database_directory_(options.directory + "/db"),
      link_directory_(options.directory + "/checkpoint"),
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
    if (!done) self.retry_at_ = self.home_.now() + self.options_.checkpoint_retry;
  }(*this));
}

Task<Result<void>> Checkpointer::run_now() {
  for (;;) {
    while (running_) co_await idle_.wait();
    if (stopping_ || dead_) co_return fail(Code::cancelled, "the metadata store is closing");
    if (!running_) break;
  }
  Task<Result<void>> work = run_once(UINT64_MAX);
  Result<void> done = co_await std::move(work);
  co_return done;
}

Task<Result<void>> Checkpointer::run_at_close() {
  while (running_) co_await idle_.wait();
  if (dead_ || (!overdue_ && counters_.frame_applied == progress_.frame)) co_return Result<void>();
  Task<Result<void>> work = run_once(options_.checkpoint_at_close_bytes);
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
    LOG_WARNING("metadata checkpoint failed, will be tried again", {"error", done.error().to_string()});
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

// Flush, link, look what is there. On the pool.
Result<Checkpointer::Plan> Checkpointer::prepare(const std::optional<CheckpointManifest>& manifest) {
  std::error_code error;
  fs::remove_all(link_directory_, error);
  if (error) return fail(Code::io_error, "removing '{}': {}", link_directory_, error.message());
  TRY(database_->make_checkpoint(link_directory_));
  if (dying("checkpoint.flushed")) return fail(Code::cancelled, "died");
  Plan plan;
  TRY_ASSIGN(plan.extra.applied, Database::peek(link_directory_));
  std::map<std::string, CheckpointFile> in_log;
  if (manifest) {
    for (const auto& file : manifest->files) in_log.emplace(file.name, file);
  }
  std::vector<std::string> names;
  for (fs::directory_iterator at(link_directory_, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    // What peek() left behind, and RocksDB's empty write-ahead log, are no part of the state.
    if (name.ends_with(".log") || name == "LOCK" || name == "IDENTITY" || name.starts_with("LOG")) continue;
    names.push_back(name);
  }
  if (error) return fail(Code::io_error, "listing '{}': {}", link_directory_, error.message());
  std::sort(names.begin(), names.end());
  for (const auto& name : names) {
    CheckpointEntry entry;
    entry.name = name;
    entry.size = fs::file_size(link_directory_ + "/" + name, error);
    if (error) return fail(Code::io_error, "measuring '{}': {}", name, error.message());
    plan.bytes += entry.size;
    const bool immutable = name.ends_with(".sst") || name.ends_with(".blob");
    const auto known = known_.files.find(name);
    if (immutable && known != known_.files.end() && known->second.size == entry.size) {
      const auto held = in_log.find(known->second.stored);
      if (held != in_log.end() && held->second.size == entry.size) {
        plan.held.emplace(held->first, held->second);
        plan.extra.files.push_back(known->second);
        continue;
      }
    }
    TRY_ASSIGN(entry.crc, crc_of_file(link_directory_ + "/" + name, entry.size));
    plan.bytes_to_store += entry.size;
    plan.extra.files.push_back(std::move(entry));
  }
  return plan;
}

Task<Result<CheckpointFile>> Checkpointer::store(CheckpointEntry* entry) {
  Task<Result<CheckpointFile>> work =
      log_.store_file(entry->stored, entry->size, piece_reader(link_directory_ + "/" + entry->name, entry->size));
  Result<CheckpointFile> file = co_await std::move(work);
  co_return file;
}

Task<Result<void>> Checkpointer::attempt(uint64_t bytes_to_store_max) {
  CO_TRY_ASSIGN(const std::optional<CheckpointManifest> published, log_.checkpoint());
  const auto preparing = [this, &published] { return prepare(published); };
  auto work = blocking(pool_, preparing);
  CO_TRY_ASSIGN(Plan plan, co_await std::move(work));
  const auto clean = [this]() -> bool {
    std::error_code error;
    fs::remove_all(link_directory_, error);
    return !error;
  };
  if (plan.bytes_to_store > bytes_to_store_max) {
    auto cleaning = blocking(pool_, clean);
    co_await std::move(cleaning);
    co_return Result<void>();
  }
  progress_.bytes_done = 0;
  progress_.bytes_total = plan.bytes_to_store;
  // Unique for ever: no two attempts share it, whatever became of the others.
  Random& random = options_.random != nullptr ? *options_.random : system_random();
  const std::string suffix = fmt::format(".{:016x}{:016x}", random.u64(), random.u64());
  CheckpointManifest manifest;
  manifest.frame = plan.extra.applied.frame;
  for (auto& entry : plan.extra.files) {
    if (!entry.stored.empty()) {
      manifest.files.push_back(plan.held.at(entry.stored));
      continue;
    }
    entry.stored = entry.name + suffix;
    if (dying("checkpoint.storing")) co_return fail(Code::cancelled, "died");
    Task<Result<CheckpointFile>> storing = store(&entry);
    CO_TRY_ASSIGN(CheckpointFile file, co_await std::move(storing));
    manifest.files.push_back(std::move(file));
    progress_.bytes_done += entry.size;
    if (options_.checkpoint_bytes_per_second > 0 && !stopping_) {
      co_await sleep_for(Duration(
          static_cast<Duration::rep>(1e9 * static_cast<double>(entry.size) / static_cast<double>(options_.checkpoint_bytes_per_second))));
    }
  }
  if (dying("checkpoint.stored")) co_return fail(Code::cancelled, "died");
  manifest.extra = plan.extra.encode();
  Task<Result<void>> publishing = log_.publish_checkpoint(std::move(manifest));
  CO_TRY(co_await std::move(publishing));
  if (dying("checkpoint.published")) co_return fail(Code::cancelled, "died");
  progress_.frame = plan.extra.applied.frame;
  progress_.version = plan.extra.applied.version;
  progress_.log_bytes = plan.extra.applied.log_bytes;
  ++progress_.made;
  last_size_ = plan.bytes;
  overdue_ = false;
  known_.files.clear();
  for (auto& entry : plan.extra.files) {
    std::string name = entry.name;
    known_.files.emplace(std::move(name), std::move(entry));
  }
  const auto remember = [this, &clean]() -> Result<void> {
    clean();
    return known_.save(database_directory_);
  };
  auto remembering = blocking(pool_, remember);
  const Result<void> remembered = co_await std::move(remembering);
  // Without it the next checkpoint stores everything again: more work, nothing lost.
  if (!remembered) LOG_WARNING("could not note what is checkpointed", {"error", remembered.error().to_string()});
  co_return Result<void>();
}

}  // namespace quarry::meta
