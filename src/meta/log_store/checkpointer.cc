#include "meta/log_store/checkpointer.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/coding.h"
#include "base/log.h"
#include "codec/crc32c.h"

namespace quarry::meta {
namespace {

namespace fs = std::filesystem;

constexpr Duration kDamagedRetry = std::chrono::minutes(10);

// Reads pieces of one file for the log, which calls it on a blocking pool, and sums up what it handed over.
class PieceReader {
 public:
  PieceReader(std::string path, uint64_t size) : path_(std::move(path)), size_(size), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) error_ = errno;
  }
  PieceReader(const PieceReader&) = delete;
  ~PieceReader() {
    if (fd_ >= 0) ::close(fd_);
  }

  Result<Buffer> read(uint64_t offset, size_t length) {
    if (fd_ < 0) return errno_error(error_, fmt::format("opening '{}'", path_));
    if (offset > size_ || length > size_ - offset) return fail(Code::out_of_range, "'{}' has {} bytes", path_, size_);
    Buffer out(length);
    size_t done = 0;
    while (done < length) {
      const ssize_t n = ::pread(fd_, out.data() + done, length - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno_error(errno, fmt::format("reading '{}'", path_));
      if (n == 0) return fail(Code::corrupt, "'{}' ends at {} where {} bytes were expected", path_, offset + done, size_);
      done += static_cast<size_t>(n);
    }
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
  const std::string path_;
  const uint64_t size_;
  const int fd_;
  int error_ = 0;
  mutable std::mutex mutex_;
  std::map<uint64_t, std::pair<uint64_t, uint32_t>> sums_;  // offset -> length, CRC32C
};

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
    if (done) co_return;
    const bool damaged = done.error().code() == Code::corrupt;  // nothing changes that before the index is rebuilt
    self.retry_at_ = self.home_.now() + (damaged ? kDamagedRetry : self.options_.checkpoint_retry);
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

// Flush, link, look what is there. On the pool.
Result<Checkpointer::Plan> Checkpointer::prepare(const std::optional<CheckpointManifest>& manifest) {
  std::error_code error;
  fs::remove_all(link_directory_, error);
  if (error) return fail(Code::io_error, "removing '{}': {}", link_directory_, error.message());
  TRY(database_->make_checkpoint(link_directory_));
  if (dying("checkpoint.flushed")) return fail(Code::cancelled, "died");
  Plan plan;
  Result<Database::Contents> contents = Database::examine(link_directory_);
  if (!contents) {
    if (contents.error().code() == Code::corrupt) return database_->damaged(contents.error().context());
    return std::move(contents).error();
  }
  plan.extra.applied = contents->applied;
  std::map<std::string, CheckpointFile> in_log;
  if (manifest) {
    for (const auto& file : manifest->files) in_log.emplace(file.name, file);
  }
  std::vector<std::string> names;
  for (fs::directory_iterator at(link_directory_, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    // What looking at it left behind, and RocksDB's empty write-ahead log, are no part of the state.
    if (name.ends_with(".log") || name == "LOCK" || name == "IDENTITY" || name.starts_with("LOG")) continue;
    names.push_back(name);
  }
  if (error) return fail(Code::io_error, "listing '{}': {}", link_directory_, error.message());
  std::sort(names.begin(), names.end());
  bool unproven = false;
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
    // The log is what could make the file anew, and the checkpoint lets it go: so a table must be as it was made.
    const Result<uint32_t> crc = crc_of_file(link_directory_ + "/" + name, entry.size);
    if (!crc) return immutable && crc.error().code() == Code::corrupt ? database_->damaged(crc.error().context()) : crc.error();
    entry.crc = *crc;
    if (immutable) {
      const auto made = contents->sums.find(std::strtoull(name.c_str(), nullptr, 10));
      unproven |= made == contents->sums.end();
      if (made != contents->sums.end() && made->second != entry.crc)
        return database_->damaged(fmt::format("'{}' is not as it was written: its checksum differs", name));
    }
    plan.bytes_to_store += entry.size;
    plan.extra.files.push_back(std::move(entry));
  }
  if (unproven) {  // made by an earlier program
    const Result<void> sound = Database::verify(link_directory_);
    if (!sound) return sound.error().code() == Code::corrupt ? database_->damaged(sound.error().context()) : sound.error();
  }
  return plan;
}

Task<Result<CheckpointFile>> Checkpointer::store(CheckpointEntry* entry) {
  const auto reader = std::make_shared<PieceReader>(link_directory_ + "/" + entry->name, entry->size);
  Task<Result<CheckpointFile>> work =
      log_.store_file(entry->stored, entry->size, [reader](uint64_t offset, size_t length) { return reader->read(offset, length); });
  Result<CheckpointFile> file = co_await std::move(work);
  // A second reading: it may differ from the first, and a start would refuse it.
  if (file && reader->sum() != entry->crc) co_return database_->damaged(fmt::format("'{}' changed while it was stored", entry->name));
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
