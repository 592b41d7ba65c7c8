// The part of the metadata log that keeps every frame, file and root in as many copies as it should have: drives that come, go, fail and
// are scrubbed. The log itself is in metadata_log.cc.
#include "base/coding.h"
#include "base/log.h"
#include "cluster/log/metadata_log.h"
#include "cluster/log/metadata_log_chunks.h"

namespace quarry::cluster {

MetadataLog::Copies* MetadataLog::copies_of(const ChunkName& name) {
  switch (name.kind) {
    case ChunkKind::metadata_frame: {
      auto found = frames_.find(name.serial);
      return found != frames_.end() && static_cast<uint16_t>(found->second.first) == name.generation ? &found->second.second : nullptr;
    }
    case ChunkKind::metadata_file: {
      auto found = pieces_.find({name.serial, name.stripe});
      return found != pieces_.end() ? &found->second : nullptr;
    }
    case ChunkKind::metadata_root: {
      auto found = roots_.find({name.serial, name.stripe});
      return found != roots_.end() ? &found->second : nullptr;
    }
    default: return nullptr;
  }
}

std::vector<ChunkName> MetadataLog::names(bool files_too) const {
  std::vector<ChunkName> all;
  for (const auto& [key, copies] : roots_) all.push_back(root_name(key.first, key.second));
  for (const auto& [number, frame] : frames_) {
    if (number <= durable_frame_) all.push_back(frame_name(number, frame.first));
  }
  if (files_too) {
    for (const auto& [key, copies] : pieces_) all.push_back(piece_name(key.first, key.second));
  }
  return all;
}

Task<Result<void>> MetadataLog::restore(ChunkName name) {
  const Copies* now = copies_of(name);
  if (now == nullptr || (counted(*now) >= options_.copies && enough(*now))) co_return Result<void>();
  if (candidates(*now, {}).empty()) co_return Result<void>();  // as good as it gets; the caller counts
  const Copies before = *now;
  CO_TRY_ASSIGN(SharedBytes bytes, co_await fetch(name, before, 0, before.size, describe(name)));
  std::vector<ByteView> parts{bytes.view()};
  Spread result = co_await spread(name, std::move(parts), stream_of(name), before);
  Copies* after = copies_of(name);
  std::vector<std::pair<uint32_t, uint8_t>> added(result.copies.at.begin() + before.at.size(), result.copies.at.end());
  if (after != nullptr) {
    after->at.insert(after->at.end(), added.begin(), added.end());
  } else {  // trimmed meanwhile
    std::map<uint32_t, std::vector<ChunkId>> removal;
    add_for_removal(removal, name, Copies{.at = std::move(added), .size = 0});
    co_await remove_chunks(std::move(removal));
  }
  co_return Result<void>();
}

Task<Result<void>> MetadataLog::restore_all(bool files_too) {
  co_await restoring_.acquire();
  const std::vector<ChunkName> all = names(files_too);
  std::optional<Error> error;
  for (size_t begin = 0; begin < all.size(); begin += kRestoreParallel) {
    std::vector<Task<Result<void>>> tasks;
    for (size_t i = begin; i < std::min(begin + kRestoreParallel, all.size()); ++i) {
      const Copies* copies = copies_of(all[i]);
      if (copies != nullptr && (counted(*copies) < options_.copies || !enough(*copies))) tasks.push_back(restore(all[i]));
    }
    if (tasks.empty()) continue;
    std::vector<Result<void>> results = co_await when_all(std::move(tasks));
    for (auto& result : results) {
      if (!result && !error) error = std::move(result).error();
    }
  }
  restoring_.release();
  if (error) co_return std::move(*error);
  co_return Result<void>();
}

Task<Result<void>> MetadataLog::restore_copies() {
  if (!writable_ && !enough_drives()) co_return fail(Code::unavailable, "the metadata is read-only: too few drives");
  co_return co_await restore_all(true);
}

Task<Result<void>> MetadataLog::leave_drive(uint32_t number) {
  if (!writable_) co_return fail(Code::unavailable, "the metadata is read-only: too few drives to make further copies");
  leaving_.insert(number);
  CO_TRY(co_await restore_all(true));
  // Enough as long as the labels name it, and then.
  std::set<uint32_t> without = unnamed_;
  without.insert(leaving_.begin(), leaving_.end());
  const Ground then = ground_without(std::move(without));
  size_t least = options_.copies;
  for (const ChunkName& name : names(true)) {
    const Copies* copies = copies_of(name);
    if (copies == nullptr) continue;
    Copies named = *copies;
    std::erase_if(named.at, [this](const auto& at) { return unnamed_.contains(at.first); });
    least = std::min(least, drives_of(named));
    if (!enough(*copies) || !suffices(named, then)) least = std::min<size_t>({least, counted(named), options_.copies - 1});
  }
  if (least < options_.copies) {
    co_return fail(Code::unavailable, "without drive {} the metadata has {} of {} copies: add a drive first", number, least,
                   options_.copies);
  }
  co_return Result<void>();
}

void MetadataLog::forget_drive(uint32_t number) {
  std::erase_if(options_.absent, [&](const AbsentDrive& drive) { return drive.number == number; });
  std::erase_if(options_.drives, [&](Drive* drive) { return drive->number() == number; });
  leaving_.erase(number);
  unnamed_.erase(number);
  look_at_drives();
  auto forget = [&](Copies& copies) { std::erase_if(copies.at, [&](const auto& at) { return at.first == number; }); };
  for (auto& [key, frame] : frames_) forget(frame.second);
  for (auto& [key, copies] : pieces_) forget(copies);
  for (auto& [key, copies] : roots_) forget(copies);
}

Task<Result<void>> MetadataLog::add_drive(Drive& drive, Named named) {
  CO_TRY_ASSIGN(std::vector<chunk::ChunkStat> listing, co_await list_all(&drive));
  for (const chunk::ChunkStat& stat : listing) {
    const ChunkName name = chunk_name(stat.id);
    if (name.kind == ChunkKind::metadata_root && name.serial > epoch_) {
      co_return fail(Code::busy, "drive {} holds newer metadata (log epoch {}) than this store has open ({}): restart with it",
                     drive.number(), name.serial, epoch_);
    }
  }
  leaving_.erase(drive.number());
  if (named == Named::yes) {
    unnamed_.erase(drive.number());
  } else {
    unnamed_.insert(drive.number());
  }
  std::erase_if(options_.absent, [&](const AbsentDrive& absent) { return absent.number == drive.number(); });
  Drive* before = find(drive.number());
  if (before != &drive) {  // new, or opened again: only what is on it now counts
    std::erase(options_.drives, before);
    options_.drives.push_back(&drive);
    std::set<ChunkId> there;
    for (const chunk::ChunkStat& stat : listing) there.insert(stat.id);
    for (const ChunkName& name : names(true)) {
      Copies* copies = copies_of(name);
      if (copies == nullptr) continue;
      std::erase_if(copies->at, [&](const auto& at) {
        ChunkName copy = name;
        copy.shard = at.second;
        return at.first == drive.number() && !there.contains(chunk_id(copy));
      });
    }
  }
  look_at_drives();
  std::vector<ChunkId> obsolete;
  for (const chunk::ChunkStat& stat : listing) {
    const ChunkName name = chunk_name(stat.id);
    Copies* copies = copies_of(name);
    if (copies == nullptr) {
      // The drive may be in use all the while, and a checkpoint under way: what is just being put is not registered before all copies are
      // there.
      if (!in_flight(stat.id)) obsolete.push_back(stat.id);
    } else if (std::pair at{drive.number(), name.shard}; std::ranges::find(copies->at, at) == copies->at.end()) {
      copies->at.push_back(at);
    }
  }
  CO_TRY(co_await write_if_possible());
  if (writable_ && !obsolete.empty()) (co_await remove_from(&drive, std::move(obsolete))).ignore("removed when the drive is next opened");
  co_return Result<void>();
}

Result<void> MetadataLog::check_copies() const {
  for (const ChunkName& name : names(true)) {
    const Copies* copies = copies_of(name);
    if (copies != nullptr && !suffices(*copies, all_))
      return fail(Code::unavailable, "{} has {} of {} copies that are needed", describe(name), counted(*copies), writable_copies_min());
  }
  return {};
}

Task<Result<void>> MetadataLog::note_named(std::vector<uint32_t> numbers) {
  for (const uint32_t number : numbers) unnamed_.erase(number);
  look_at_drives();
  co_return co_await write_if_possible();
}

Task<Result<void>> MetadataLog::write_if_possible() {
  if (writable_ || !enough_drives() || usable(named_) < copies_for_sure(named_.units)) co_return Result<void>();
  co_return co_await establish();
}

Task<Result<void>> MetadataLog::replace_copy(ChunkName name, uint32_t number, uint8_t rewrite) {
  const Copies* now = copies_of(name);
  Drive* drive = find(number);
  if (now == nullptr || drive == nullptr) co_return fail(Code::not_found, "{} on drive {} is not in use", describe(name), number);
  Copies others = *now;
  std::erase_if(others.at, [&](const auto& at) { return at.first == number && at.second == rewrite; });
  CO_TRY_ASSIGN(SharedBytes bytes, co_await fetch(name, others, 0, others.size, describe(name)));
  ChunkName replacement = name;
  for (unsigned next = rewrite + 1u;; ++next) {
    if (next > std::numeric_limits<uint8_t>::max()) {
      co_return fail(Code::io_error, "{} was damaged too often on drive {}: replace the drive", describe(name), number);
    }
    replacement.shard = static_cast<uint8_t>(next);
    std::vector<ByteView> parts{bytes.view()};
    Result<void> put = co_await drive->put(chunk_id(replacement), std::move(parts), stream_of(name));
    if (put) break;
    if (put.error().code() != Code::already_exists) co_return put;
  }
  std::vector<ChunkId> old;
  ChunkName damaged = name;
  damaged.shard = rewrite;
  old.push_back(chunk_id(damaged));
  Copies* after = copies_of(name);
  if (after != nullptr) {
    std::erase_if(after->at, [&](const auto& at) { return at.first == number && at.second == rewrite; });
    after->at.emplace_back(number, replacement.shard);
  } else {
    old.push_back(chunk_id(replacement));
  }
  co_return co_await drive->remove(std::move(old));
}

Task<Result<MetadataLog::ScrubResult>> MetadataLog::scrub() {
  ScrubResult result;
  for (const ChunkName& name : names(true)) {
    const Copies* now = copies_of(name);
    if (now == nullptr) continue;
    const Copies copies = *now;
    for (const auto& [number, rewrite] : copies.at) {
      Drive* drive = find(number);
      if (drive == nullptr || !drive->readable()) continue;
      ChunkName copy = name;
      copy.shard = rewrite;
      Result<SharedBytes> bytes = co_await drive->get(chunk_id(copy), 0, copies.size);
      ++result.chunks_checked;
      if (bytes) {
        result.bytes_checked += bytes->size();
        continue;
      }
      if (copies_of(name) == nullptr) break;  // trimmed meanwhile
      if (!drive->readable()) continue;
      ++result.damaged;
      std::string problem = fmt::format("{} on drive {}: {}", describe(name), number, bytes.error().to_string());
      Result<void> repaired = co_await replace_copy(name, number, rewrite);
      if (repaired) {
        ++result.repaired;
      } else {
        problem += fmt::format("; not repaired: {}", repaired.error().to_string());
      }
      result.problems.push_back(std::move(problem));
    }
  }
  co_return result;
}

Task<Result<void>> MetadataLog::repair_copy(uint32_t drive, ChunkId id) {
  const ChunkName name = chunk_name(id);
  return replace_copy(name, drive, name.shard);
}

}  // namespace quarry::cluster
