#include "meta/log_store/recovery.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/log.h"
#include "codec/crc32c.h"
#include "io/sync.h"
#include "meta/log_frame.h"

namespace quarry::meta {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFramesReadAhead = 8;  // during replay
constexpr size_t kRestorePiece = 4u << 20;
constexpr size_t kRestoreFilesAtOnce = 4;
constexpr char kDamagedName[] = "DAMAGED";

struct Paths {
  explicit Paths(const std::string& directory)
      : database(directory + "/db"),
        restoring(directory + "/restoring"),
        links(directory + "/checkpoint"),
        set_aside(directory + "/set-aside"),
        damaged(directory + "/" + kDamagedName) {}
  std::string database, restoring, links, set_aside, damaged;
};

Result<void> remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return fail(Code::misconfigured, "cannot remove '{}': {}", path, error.message());
  return {};
}

Database::Settings settings_of(const RocksdbMetaOptions& options, std::function<void(const std::string&)> on_damage) {
  return {options.directory + "/db", options.block_cache_bytes, options.memtable_bytes, options.table_file_bytes,
          options.open_files_max,    options.background_jobs,   options.blob_size_min,  std::move(on_damage)};
}

// Why a directory is not believed, and what becomes of it. Damaged and stale ones are deleted; one that knows what the log does not
// is kept aside, for a person to look at.
struct Verdict {
  std::shared_ptr<Database> database;  // null: not believed
  Applied applied;
  std::string reason;
  bool keep_aside = false;
};

// The directory as it is: opens, and has an applied row.
Result<Verdict> examine(const RocksdbMetaOptions& options, const std::function<void(const std::string&)>& on_damage) {
  const Paths paths(options.directory);
  std::error_code error;
  fs::create_directories(options.directory, error);
  if (error) {
    const Code code = error == std::errc::no_space_on_device ? Code::no_space : Code::misconfigured;
    return fail(code, "cannot make the metadata directory '{}': {}", options.directory, error.message());
  }
  TRY(remove_tree(paths.links));
  TRY(remove_tree(paths.restoring));
  Verdict verdict;
  if (fs::exists(paths.damaged, error)) {
    verdict.reason = "it was found damaged: " + read_small_file(paths.damaged, 64 << 10).value_or("unknown");
    return verdict;
  }
  if (!fs::exists(paths.database + "/CURRENT", error)) {
    verdict.reason = "there is none";
    return verdict;
  }
  auto database = Database::open(settings_of(options, on_damage), false);
  if (!database) {
    // A lock or a full disk is no reason to throw the directory away.
    const Code code = database.error().code();
    if (code == Code::busy || code == Code::no_space) return std::move(database).error();
    verdict.reason = "it does not open: " + database.error().to_string();
    return verdict;
  }
  auto applied = (*database)->applied();
  if (!applied || !*applied) {
    verdict.reason = !applied ? "it cannot be read: " + applied.error().to_string() : "it is empty";
    return verdict;
  }
  verdict.applied = **applied;
  verdict.database = std::move(*database);
  return verdict;
}

Result<void> discard(const RocksdbMetaOptions& options, bool keep_aside) {
  const Paths paths(options.directory);
  std::error_code error;
  if (keep_aside && fs::exists(paths.database, error)) {
    TRY(remove_tree(paths.set_aside));
    fs::rename(paths.database, paths.set_aside, error);
    if (error) return fail(Code::misconfigured, "cannot move '{}' aside: {}", paths.database, error.message());
  }
  TRY(remove_tree(paths.database));
  fs::remove(paths.damaged, error);
  TRY(sync_directory(options.directory));
  return {};
}

// Reads one file of the checkpoint into the directory being restored; verified by its length and CRC.
Task<Result<void>> restore_file(CommitLog& log, ThreadPool& pool, std::string directory, CheckpointEntry entry, CheckpointFile stored) {
  const std::string path = directory + "/" + entry.name;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) co_return errno_error(errno, fmt::format("creating '{}'", path));
  const std::shared_ptr<const int> file(new int(fd), [](const int* owned) {
    ::close(*owned);
    delete owned;
  });
  uint32_t crc = 0;
  for (uint64_t offset = 0; offset < entry.size;) {
    const size_t length = std::min<uint64_t>(kRestorePiece, entry.size - offset);
    Task<Result<Buffer>> reading = log.read_file(stored, offset, length);
    CO_TRY_ASSIGN(const Buffer piece, co_await std::move(reading));
    if (piece.size() != length) co_return fail(Code::corrupt, "checkpoint file '{}' is short at {}", entry.stored, offset);
    const auto write = [&piece, &crc, fd, offset, &path]() -> Result<void> {
      crc = crc32c(crc, piece.view());
      size_t done = 0;
      while (done < piece.size()) {
        const ssize_t n = ::pwrite(fd, piece.data() + done, piece.size() - done, static_cast<off_t>(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno_error(errno, fmt::format("writing '{}'", path));
        done += static_cast<size_t>(n);
      }
      return {};
    };
    auto writing = blocking(pool, write);
    CO_TRY(co_await std::move(writing));
    offset += length;
  }
  if (crc != entry.crc) co_return fail(Code::corrupt, "checkpoint file '{}' fails its checksum", entry.stored);
  const auto sync = [fd, &path]() -> Result<void> {
    if (::fsync(fd) != 0) return errno_error(errno, fmt::format("syncing '{}'", path));
    return {};
  };
  auto syncing = blocking(pool, sync);
  CO_TRY(co_await std::move(syncing));
  co_return Result<void>();
}

Task<Result<void>> restore_files(CommitLog& log, ThreadPool& pool, std::string directory, CheckpointExtra extra,
                                 CheckpointManifest manifest) {
  std::map<std::string, CheckpointFile> stored;
  for (const auto& file : manifest.files) stored.emplace(file.name, file);
  for (size_t next = 0; next < extra.files.size();) {
    std::vector<Task<Result<void>>> group;
    for (; next < extra.files.size() && group.size() < kRestoreFilesAtOnce; ++next) {
      const CheckpointEntry& entry = extra.files[next];
      const auto at = stored.find(entry.stored);
      if (at == stored.end() || at->second.size != entry.size) {
        co_return fail(Code::corrupt, "the metadata checkpoint describes '{}', which it does not hold", entry.stored);
      }
      group.push_back(restore_file(log, pool, directory, entry, at->second));
    }
    auto working = when_all(std::move(group));
    std::vector<Result<void>> results = co_await std::move(working);
    CO_TRY(first_error(results));
  }
  co_return Result<void>();
}

Task<Result<Uuid>> store_of_frame(CommitLog& log, FrameNumber number) {
  Task<Result<Buffer>> reading = log.read(number);
  CO_TRY_ASSIGN(const Buffer bytes, co_await std::move(reading));
  CO_TRY_ASSIGN(const LogFrameHeader header, decode_log_frame_header(bytes));
  if (header.number != number) co_return fail(Code::corrupt, "log frame {} says it is frame {}", number, header.number);
  co_return header.store;
}

// Is `applied` a point of this log's history? Empty: yes. Reads at most two frames.
struct Standing {
  std::string reason;
  bool ahead = false;
  bool unproven = false;  // the frame that would prove it cannot be read
};
Task<Result<Standing>> place_in_history(CommitLog& log, Applied applied, Uuid store, const std::optional<CheckpointExtra>& extra) {
  const FrameNumber last = log.last_frame();
  const FrameNumber base = extra ? extra->applied.frame : 0;
  if (applied.store != store)
    co_return Standing{fmt::format("it belongs to another store ({}, not {})", applied.store.to_string(), store.to_string()), true};
  if (applied.frame > last) co_return Standing{fmt::format("it is at frame {}, but the log ends at {}", applied.frame, last), true};
  if (applied.frame < base) co_return Standing{fmt::format("it is at frame {}, and the log begins after {}", applied.frame, base)};
  const Standing diverged{fmt::format("its history differs from the log's at frame {}", applied.frame), true};
  if (applied.frame == base) {
    const uint32_t expected = extra ? extra->applied.check : 0;
    co_return applied.check == expected ? Standing{} : diverged;
  }
  Task<Result<Buffer>> reading = log.read(applied.frame);
  const Result<Buffer> own = co_await std::move(reading);
  if (own) {
    const auto header = decode_log_frame_header(*own);
    if (header) co_return header->check == applied.check && header->number == applied.frame ? Standing{} : diverged;
  }
  // That frame is damaged, and not needed: its effect is here. The next one names it.
  if (applied.frame < last) {
    Task<Result<Buffer>> next_reading = log.read(applied.frame + 1);
    CO_TRY_ASSIGN(const Buffer next, co_await std::move(next_reading));
    CO_TRY_ASSIGN(const LogFrameHeader header, decode_log_frame_header(next));
    Standing standing = header.previous_check == applied.check ? Standing{} : diverged;
    standing.unproven = true;
    co_return standing;
  }
  co_return Standing{{}, false, true};
}

Task<Result<Buffer>> read_frame(CommitLog& log, FrameNumber number) {
  Task<Result<Buffer>> reading = log.read(number);
  Result<Buffer> bytes = co_await std::move(reading);
  if (!bytes) co_return std::move(bytes).error().with(fmt::format("replaying frame {} of the metadata log", number));
  co_return bytes;
}

Task<Result<void>> replay(CommitLog& log, ThreadPool& pool, Recovered& to) {
  const FrameNumber last = log.last_frame();
  while (to.applied.frame < last) {
    std::vector<Task<Result<Buffer>>> reads;
    const FrameNumber end = std::min(last, to.applied.frame + kFramesReadAhead);
    for (FrameNumber number = to.applied.frame + 1; number <= end; ++number) reads.push_back(read_frame(log, number));
    auto reading = when_all(std::move(reads));
    std::vector<Result<Buffer>> frames = co_await std::move(reading);
    CO_TRY(first_error(frames));
    const auto apply = [&to, &frames]() -> Result<void> {
      for (auto& bytes : frames) {
        if (!bytes) return std::move(bytes).error();
        TRY_ASSIGN(const LogFrame frame, decode_log_frame(*bytes));
        const LogFrameHeader& header = frame.header;
        if (header.number != to.applied.frame + 1 || header.store != to.applied.store || header.previous_check != to.applied.check ||
            header.first_version != to.applied.version + 1) {
          return fail(Code::corrupt, "frame {} of the metadata log does not continue frame {}", header.number, to.applied.frame);
        }
        Applied next = to.applied;
        next.frame = header.number;
        next.version += header.transactions;
        next.check = header.check;
        next.log_bytes += bytes->size();
        TRY(to.database->apply(frame.transactions, next, true));
        to.applied = next;
        ++to.frames_replayed;
      }
      return {};
    };
    auto applying = blocking(pool, apply);
    CO_TRY(co_await std::move(applying));
  }
  co_return Result<void>();
}

}  // namespace

void mark_damaged(const std::string& directory, const std::string& what) {
  const Result<void> written = write_file_durably(directory + "/" + kDamagedName, what);
  LOG_ERROR("the metadata index is damaged; it is rebuilt from the drives at the next start", {"directory", directory}, {"what", what},
            {"noted", written.has_value()});
}

Task<Result<Recovered>> recover(const RocksdbMetaOptions& options, CommitLog& log, ThreadPool& pool,
                                std::function<void(const std::string&)> on_damage) {
  CO_TRY_ASSIGN(const std::optional<CheckpointManifest> manifest, log.checkpoint());
  std::optional<CheckpointExtra> extra;
  if (manifest) {
    CO_TRY_ASSIGN(extra, CheckpointExtra::decode(manifest->extra));
    if (extra->applied.frame != manifest->frame)
      co_return fail(Code::corrupt, "the metadata checkpoint contradicts itself about its frame");
  }
  const FrameNumber base = extra ? extra->applied.frame : 0;
  const FrameNumber last = log.last_frame();
  if (last < base) co_return fail(Code::corrupt, "the metadata log ends at frame {}, before its checkpoint at {}", last, base);

  const auto look = [&options, &on_damage] { return examine(options, on_damage); };
  auto looking = blocking(pool, look);
  CO_TRY_ASSIGN(Verdict verdict, co_await std::move(looking));

  // Whose log is it? An empty log is a new store's.
  std::optional<Uuid> store;
  if (extra) {
    store = extra->applied.store;
  } else if (last > 0) {
    Task<Result<Uuid>> identifying = store_of_frame(log, 1);
    Result<Uuid> first = co_await std::move(identifying);
    // Frame 1 is damaged: any other tells, and only a directory that holds its effect will do.
    for (FrameNumber number = 2; !first && number <= std::min<FrameNumber>(last, 16); ++number) {
      Task<Result<Uuid>> next = store_of_frame(log, number);
      first = co_await std::move(next);
    }
    CO_TRY_ASSIGN(store, std::move(first));
  }

  Recovered out;
  if (verdict.database != nullptr) {
    Standing standing;
    if (!store) {
      standing.reason = verdict.applied.frame == 0 ? "the log is empty" : "the log is empty, and the directory is not";
      standing.ahead = verdict.applied.frame > 0;
    } else {
      Task<Result<Standing>> placing = place_in_history(log, verdict.applied, *store, extra);
      CO_TRY_ASSIGN(standing, co_await std::move(placing));
    }
    if (standing.reason.empty()) {
      out.database = std::move(verdict.database);
      out.applied = verdict.applied;
      out.opened_by = "directory";
      out.checkpoint_due = standing.unproven;
      Database& database = *out.database;
      const std::string path = options.directory + "/db";
      const auto load = [&database, &path] { return KnownFiles::load(path, database.identity()); };
      auto loading = blocking(pool, load);
      out.known = co_await std::move(loading);
    } else {
      verdict.reason = standing.reason;
      verdict.keep_aside = standing.ahead;
      std::shared_ptr<Database> dropped = std::move(verdict.database);
      const auto drop = [&dropped] {
        dropped.reset();
        return true;
      };
      auto dropping = blocking(pool, drop);
      co_await std::move(dropping);
    }
  }
  if (out.database == nullptr) {
    out.reason = verdict.reason;
    if (verdict.keep_aside) {
      LOG_WARNING("the metadata directory does not fit the log on the drives and is set aside", {"directory", options.directory},
                  {"reason", verdict.reason});
    } else {
      LOG_INFO("the metadata index is rebuilt from the drives", {"directory", options.directory}, {"reason", verdict.reason});
    }
    const bool keep_aside = verdict.keep_aside;
    const auto drop = [&options, keep_aside] { return discard(options, keep_aside); };
    auto dropping = blocking(pool, drop);
    CO_TRY(co_await std::move(dropping));
    const Paths paths(options.directory);
    if (extra) {
      out.opened_by = "checkpoint";
      std::error_code error;
      fs::create_directories(paths.restoring, error);
      if (error) co_return fail(Code::misconfigured, "cannot make '{}': {}", paths.restoring, error.message());
      Task<Result<void>> restoring = restore_files(log, pool, paths.restoring, *extra, *manifest);
      CO_TRY(co_await std::move(restoring));
      const auto place = [&paths, &options]() -> Result<void> {
        TRY(sync_directory(paths.restoring));
        std::error_code failed;
        fs::rename(paths.restoring, paths.database, failed);
        if (failed) return fail(Code::misconfigured, "cannot rename '{}': {}", paths.restoring, failed.message());
        return sync_directory(options.directory);
      };
      auto placing = blocking(pool, place);
      CO_TRY(co_await std::move(placing));
    } else {
      out.opened_by = last > 0 ? "log" : "empty";
    }
    const bool fresh = !extra;
    if (!store) store = (options.random != nullptr ? *options.random : system_random()).uuid();
    const Applied start = extra ? extra->applied : Applied{0, 0, 0, 0, *store};
    const auto open = [&options, &on_damage, &extra, fresh, &start, &out]() -> Result<void> {
      TRY_ASSIGN(out.database, Database::open(settings_of(options, on_damage), fresh));
      if (fresh) {
        TRY(out.database->apply({}, start, true));
      } else {
        TRY_ASSIGN(const auto applied, out.database->applied());
        if (!applied || applied->encode() != start.encode())
          return fail(Code::corrupt, "the restored metadata checkpoint is not at the frame it states");
      }
      out.applied = start;
      out.known.identity = out.database->identity();
      if (!extra) return {};
      for (const auto& entry : extra->files) out.known.files.emplace(entry.name, entry);
      return out.known.save(options.directory + "/db");
    };
    auto opening = blocking(pool, open);
    CO_TRY(co_await std::move(opening));
  }
  if (extra) {
    out.checkpoint_log_bytes = extra->applied.log_bytes;
    out.checkpoint_frame = extra->applied.frame;
    out.checkpoint_version = extra->applied.version;
    for (const auto& file : extra->files) out.checkpoint_size += file.size;
  }
  Task<Result<void>> replaying = replay(log, pool, out);
  CO_TRY(co_await std::move(replaying));
  co_return out;
}

}  // namespace quarry::meta
