#include "meta/log_store/recovery.h"

#include "base/log.h"
#include "codec/crc32c.h"
#include "io/sync.h"
#include "meta/log_frame.h"

namespace quarry::meta {
namespace {

constexpr size_t kFramesReadAhead = 8;  // during replay
constexpr size_t kRestorePiece = 4u << 20;
constexpr size_t kRestoreFilesAtOnce = 4;

// Reads one file of the checkpoint into the index being restored; verified by its length and CRC.
Task<Result<void>> restore_file(CommitLog& log, BlockingPool& pool, IndexPlace& place, CheckpointEntry entry, CheckpointFile stored) {
  const auto create = [&place, &entry] { return place.restore_file(entry.name); };
  auto creating = blocking(pool, create);
  CO_TRY_ASSIGN(const std::shared_ptr<RestoredFile> file, co_await std::move(creating));
  uint32_t crc = 0;
  for (uint64_t offset = 0; offset < entry.size;) {
    const size_t length = std::min<uint64_t>(kRestorePiece, entry.size - offset);
    Task<Result<Buffer>> reading = log.read_file(stored, offset, length);
    CO_TRY_ASSIGN(const Buffer piece, co_await std::move(reading));
    if (piece.size() != length) co_return fail(Code::corrupt, "checkpoint file '{}' is short at {}", entry.stored, offset);
    const auto write = [&piece, &crc, &file, offset]() -> Result<void> {
      crc = crc32c(crc, piece.view());
      return file->write(offset, piece.view());
    };
    auto writing = blocking(pool, write);
    CO_TRY(co_await std::move(writing));
    offset += length;
  }
  if (crc != entry.crc) co_return fail(Code::corrupt, "checkpoint file '{}' fails its checksum", entry.stored);
  const auto sync = [&file] { return file->sync(); };
  auto syncing = blocking(pool, sync);
  CO_TRY(co_await std::move(syncing));
  co_return Result<void>();
}

Task<Result<void>> restore_files(CommitLog& log, BlockingPool& pool, IndexPlace& place, CheckpointExtra extra,
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
      group.push_back(restore_file(log, pool, place, entry, at->second));
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

Task<Result<void>> replay(CommitLog& log, BlockingPool& pool, Recovered& to) {
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
        TRY(to.index->apply(frame.transactions, next, true));
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

Task<Result<Recovered>> recover(const LogMetaOptions& options, IndexPlace& place, CommitLog& log, OnIndexDamage on_damage) {
  BlockingPool& pool = *options.pool;
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

  const auto look = [&place, &on_damage] { return place.look(on_damage); };
  auto looking = blocking(pool, look);
  CO_TRY_ASSIGN(IndexPlace::Found found, co_await std::move(looking));
  bool keep_aside = false;

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
  if (found.index != nullptr) {
    Standing standing;
    if (!store) {
      standing.reason = found.applied.frame == 0 ? "the log is empty" : "the log is empty, and the directory is not";
      standing.ahead = found.applied.frame > 0;
    } else {
      Task<Result<Standing>> placing = place_in_history(log, found.applied, *store, extra);
      CO_TRY_ASSIGN(standing, co_await std::move(placing));
    }
    if (standing.reason.empty()) {
      out.index = std::move(found.index);
      out.applied = found.applied;
      out.opened_by = "directory";
      out.checkpoint_due = standing.unproven;
      Index& index = *out.index;
      const auto load = [&index] { return index.stored_files(); };
      auto loading = blocking(pool, load);
      out.known = co_await std::move(loading);
    } else {
      found.reason = standing.reason;
      // One that knows what the log does not is kept aside, for a person to look at; damaged and stale ones are deleted.
      keep_aside = standing.ahead;
      std::shared_ptr<Index> dropped = std::move(found.index);
      const auto drop = [&dropped] {
        dropped.reset();
        return true;
      };
      auto dropping = blocking(pool, drop);
      co_await std::move(dropping);
    }
  }
  if (out.index == nullptr) {
    out.reason = found.reason;
    if (keep_aside) {
      LOG_WARNING("the metadata directory does not fit the log on the drives and is set aside", {"directory", place.name()},
                  {"reason", found.reason});
    } else {
      LOG_INFO("the metadata index is rebuilt from the drives", {"directory", place.name()}, {"reason", found.reason});
    }
    const auto drop = [&place, keep_aside] { return place.discard(keep_aside); };
    auto dropping = blocking(pool, drop);
    CO_TRY(co_await std::move(dropping));
    if (extra) {
      out.opened_by = "checkpoint";
      const auto begin = [&place] { return place.begin_restore(); };
      auto beginning = blocking(pool, begin);
      CO_TRY(co_await std::move(beginning));
      Task<Result<void>> restoring = restore_files(log, pool, place, *extra, *manifest);
      CO_TRY(co_await std::move(restoring));
      const auto put = [&place] { return place.end_restore(); };
      auto placing = blocking(pool, put);
      CO_TRY(co_await std::move(placing));
    } else {
      out.opened_by = last > 0 ? "log" : "empty";
    }
    const bool fresh = !extra;
    if (!store) store = (options.random != nullptr ? *options.random : Executor::here().random()).uuid();
    const Applied start = extra ? extra->applied : Applied{0, 0, 0, 0, *store};
    const auto open = [&place, &on_damage, &extra, fresh, &start, &out]() -> Result<void> {
      TRY_ASSIGN(out.index, place.open(fresh, on_damage));
      if (fresh) {
        TRY(out.index->apply({}, start, true));
      } else {
        TRY_ASSIGN(const auto applied, out.index->applied());
        if (!applied || applied->encode() != start.encode())
          return fail(Code::corrupt, "the restored metadata checkpoint is not at the frame it states");
      }
      out.applied = start;
      if (!extra) return {};
      for (const auto& entry : extra->files) out.known.emplace(entry.name, entry);
      return out.index->note_stored_files(out.known);
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
