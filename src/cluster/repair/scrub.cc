#include "cluster/repair/scrub.h"

#include "base/log.h"
#include "base/units.h"
#include "cluster/map/keys.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {
constexpr uint64_t kSlice = 8 * kMiB;                 // between looks at the budget
constexpr uint64_t kStoreEvery = 1 * kGiB;            // between notes of the position
constexpr Duration kLook = std::chrono::minutes(10);  // how often it is asked whether a pass is due
constexpr Duration kLookMax = std::chrono::hours(8);  // after passes that failed one after the other
}  // namespace

Scrubber::Scrubber(Plane& plane, Repairer& repairer, Auditor& auditor, MetadataLog& log, Clock& clock)
    : plane_(plane),
      repairer_(repairer),
      auditor_(auditor),
      log_(log),
      clock_(clock),
      budget_(plane, plane.tuning.scrub_bytes_per_second),
      alarm(plane.background) {
  status_.state = "idle";
}

ScrubStatus Scrubber::status() const {
  const std::string read_only = plane_.read_only_reason();
  std::lock_guard lock(mutex_);
  ScrubStatus status = status_;
  if (status.state == "idle" && !read_only.empty()) status.reason = fmt::format("waits until the store can be written: {}", read_only);
  return status;
}

Task<Result<Scrubber::Position>> Scrubber::load(uint32_t drive) {
  Position position;
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await plane_.meta.get(keys::scrub(drive)));
  if (!row) co_return position;
  Decoder in(*row);
  position.next.high = in.u64();
  position.next.low = in.u64();
  position.last_complete = static_cast<int64_t>(in.u64());
  CO_TRY(in.finish("scrub row"));
  co_return position;
}

Task<Result<void>> Scrubber::store(uint32_t drive, Position position) {
  CO_TRY_ASSIGN(auto transaction, co_await plane_.meta.begin());
  std::string value;
  Encoder(value).u64(position.next.high).u64(position.next.low).u64(static_cast<uint64_t>(position.last_complete));
  transaction->put(keys::scrub(drive), std::move(value));
  Result<meta::Version> version = co_await transaction->commit();
  if (!version) co_return std::move(version).error();
  co_return Result<void>();
}

Task<bool> Scrubber::is_due() {
  if (plane_.tuning.scrub_interval.count() == 0) co_return false;
  bool due = false;
  auto topology = plane_.drives.topology();
  for (const auto& [number, known] : topology->map.drives) {
    if (known.state == DriveState::removed || known.state == DriveState::failed) continue;
    Result<Position> position = co_await load(number);
    if (!position) continue;
    if (position->last_complete == 0 && position->next == ChunkId{}) {  // new: its first pass is due an interval from now
      Position first;
      first.last_complete = clock_.wall_now();
      Result<void> stored = co_await store(number, first);
      std::move(stored).ignore("asked again at the next look");
      continue;
    }
    due = due || position->next != ChunkId{} || clock_.wall_now() - position->last_complete > plane_.tuning.scrub_interval.count();
  }
  co_return due;
}

Task<void> Scrubber::run() {
  Duration pause = kLook;
  bool told = false;  // that it waits
  while (!plane_.background.stopping()) {
    if (const std::string read_only = plane_.read_only_reason(); !read_only.empty()) {
      if (!std::exchange(told, true)) LOG_WARNING("scrub waits until the store can be written", {"reason", read_only});
      co_await alarm.wait(kLook);
      continue;
    }
    told = false;
    const bool asked = wanted_.exchange(false);
    bool due = asked;
    if (!due) due = co_await is_due();
    if (due) {
      Result<void> done = co_await pass();
      if (!done && asked) wanted_.store(true);  // nothing else says that it is due
      // It begins again where its position was noted last, and that may not have been possible.
      pause = done ? kLook : std::min(2 * pause, kLookMax);
      if (!done && !plane_.background.stopping())
        LOG_WARNING("scrub ended early; it goes on later", {"in", format_duration(pause)}, {"error", done.error().to_string()});
    }
    co_await alarm.wait(pause);
  }
}

Task<Result<void>> Scrubber::pass() {
  if (const std::string reason = plane_.read_only_reason(); !reason.empty())
    co_return fail(Code::unavailable, "nothing is scrubbed while the store is read-only: {}", reason);
  co_await turn_.acquire();
  {
    std::lock_guard lock(mutex_);
    const int64_t last = status_.last_complete;
    status_ = {};
    status_.state = "running";
    status_.last_complete = last;
  }
  auto topology = plane_.drives.topology();
  std::vector<Task<Result<void>>> tasks;
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = topology->drive(number);
    if (known.state == DriveState::removed || known.state == DriveState::failed || drive == nullptr || !drive->readable()) continue;
    tasks.push_back(scrub_drive(drive));
  }
  std::vector<Result<void>> results = co_await when_all(std::move(tasks));
  std::optional<Error> error;
  for (auto& result : results) {
    if (!result && !error) error = std::move(result).error();
  }
  if (!error) {
    Result<uint64_t> missing = co_await auditor_.find_missing();
    if (!missing) {
      error = std::move(missing).error();
    } else if (*missing > 0) {
      LOG_WARNING("shards are missing and will be rebuilt", {"shards", *missing});
    }
  }
  {
    std::lock_guard lock(mutex_);
    status_.state = "idle";
    if (!error) {
      status_.position = 1;
      status_.last_complete = clock_.wall_now();
    }
    if (error) status_.reason = fmt::format("ended early: {}", error->to_string());
  }
  turn_.release();
  if (error) co_return std::move(*error);
  co_return Result<void>();
}

Task<Result<void>> Scrubber::scrub_drive(Drive* drive) {
  CO_TRY_ASSIGN(Position position, co_await load(drive->number()));
  uint64_t since_stored = 0;
  for (;;) {
    if (plane_.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    if (!plane_.may_remove()) co_return fail(Code::unavailable, "the store is read-only: {}", plane_.read_only_reason());
    co_await budget_.take(kSlice);
    CO_TRY_ASSIGN(chunk::ScrubProgress progress, co_await drive->scrub(position.next, kSlice));
    {
      std::lock_guard lock(mutex_);
      status_.bytes_checked += progress.bytes_checked;
      status_.chunks_checked += progress.chunks_checked;
      status_.damaged += progress.damaged.size();
      status_.state = budget_.busy() ? "paused" : "running";
    }
    for (const chunk::Damage& damage : progress.damaged) {
      LOG_WARNING("damaged chunk", {"drive", drive->number()}, {"chunk", damage.id.to_string()}, {"reason", reason_name(damage.reason)},
                  {"what", damage.what});
      co_await repair_damage(drive, damage.id);
    }
    if (progress.complete) break;
    position.next = progress.next;
    since_stored += progress.bytes_checked;
    if (since_stored >= kStoreEvery) {
      since_stored = 0;
      CO_TRY(co_await store(drive->number(), position));
    }
  }
  if (!plane_.may_remove()) co_return fail(Code::unavailable, "nothing is removed while the metadata cannot be written");
  CO_TRY_ASSIGN(Auditor::Leftovers leftovers, co_await auditor_.remove_leftovers(*drive));
  if (leftovers.removed > 0) LOG_INFO("removed chunks that no record explains", {"drive", drive->number()}, {"chunks", leftovers.removed});
  position = {.next = {}, .last_complete = clock_.wall_now()};
  co_return co_await store(drive->number(), position);
}

Task<void> Scrubber::repair_damage(Drive* drive, ChunkId id) {
  static const Counter found = metrics::counter("cluster_scrub_damaged_chunks_total", "Damaged chunks found by scrub");
  static const Counter fixed = metrics::counter("cluster_scrub_repaired_chunks_total", "Damaged chunks that scrub rewrote");
  found.add();
  const ChunkName name = chunk_name(id);
  Result<void> done;
  if (name.kind == ChunkKind::data) {
    Result<std::optional<std::string>> row = co_await plane_.meta.get(keys::data(name.group, name.serial));
    if (!row) {
      done = std::move(row).error();
    } else if (!*row) {
      co_return;  // retired, or an orphan: others remove it
    } else {
      Decoder in(**row);
      Result<DataLayout> layout = DataLayout::decode(in);
      if (layout) {
        done = co_await repairer_.repair_shard(*layout, name.stripe, name.shard);
      } else {
        done = std::move(layout).error();
      }
    }
  } else {
    if (!log_.uses(drive->number(), id)) co_return;
    done = co_await log_.repair_copy(drive->number(), id);
  }
  if (!done) {
    LOG_ERROR("damaged chunk could not be repaired", {"drive", drive->number()}, {"chunk", id.to_string()},
              {"error", done.error().to_string()});
    co_return;
  }
  fixed.add();
  std::lock_guard lock(mutex_);
  ++status_.repaired;
}

}  // namespace quarry::cluster
