#include "cluster/administration.h"

#include <set>

#include "base/log.h"
#include "base/units.h"
#include "cluster/drive_path.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr Duration kLook = std::chrono::seconds(1);
constexpr Duration kCheckHealth = std::chrono::seconds(5);      // of every drive; at once after errors
constexpr Duration kHealthPatience = std::chrono::seconds(30);  // a check, or a put to a raw drive, that takes longer: the drive hangs
constexpr Duration kCheckTime = std::chrono::seconds(2);        // so long a look waits for the checks that it began
constexpr unsigned kUnwellMax = 2;                              // failed checks in a row until the drive is disabled
constexpr Duration kClosingPatience = std::chrono::seconds(8);  // of enabling, for the old store to close
constexpr std::string_view kRefuses = "it refuses writes";      // start of the reason of a drive that is drained because of that
constexpr std::string_view kDisabled = "disabled";              // start of the reason of a drive that was given up because it was disabled
constexpr Duration kCleanAgain = std::chrono::minutes(10);
constexpr std::string_view kReplaced = "replaced by drive";  // start of the reason of a drive whose successor takes its places
constexpr std::string_view kMissing = "missing";             // start of the reason of a drive that was given up because it was away

Error no_drive(uint32_t number) {
  return fail(Code::not_found, "the store has no drive {}, or it was removed: quarry status lists the drives", number);
}

struct Turn {
  Semaphore& semaphore;
  ~Turn() { semaphore.release(); }
};

}  // namespace

Administration::Administration(Plane& plane, DriveSet& drives, MapKeeper& maps, LabelKeeper& labels, MetadataLog& log, Repairer& repairer,
                               Auditor& auditor, OpenNewDrive open_drive, OpenKnownDrive open_known)
    : plane_(plane),
      drives_(drives),
      maps_(maps),
      labels_(labels),
      log_(log),
      repairer_(repairer),
      auditor_(auditor),
      open_drive_(std::move(open_drive)),
      open_known_(std::move(open_known)),
      guarding_(plane.background.home()),
      alarm(plane.background) {}

std::string Administration::read_only_reason() const {
  std::lock_guard lock(mutex_);
  return read_only_reason_;
}

void Administration::update_read_only() {
  std::string reason;
  if (!log_.writable()) {
    reason =
        fmt::format("the metadata needs {} drives to be written, fewer are there; bring back or add a drive", log_.writable_copies_min());
  }
  std::lock_guard lock(mutex_);
  read_only_reason_ = std::move(reason);
}

Task<Result<void>> Administration::register_width(uint8_t width) {
  co_return co_await maps_.change([width](ClusterMap& map) -> Result<void> {
    if (map.register_width(width)) return {};
    return fail(Code::unavailable, "{} drives are needed for this redundancy, {} are active: add drives or choose a narrower one", width,
                map.active_domains());
  });
}

bool Administration::holds_data(const ClusterMap& map, uint32_t number) const {
  for (uint8_t width : map.widths()) {
    for (uint32_t group = 0; group < map.group_count; ++group) {
      for (const Member& member : *map.find_members(width, static_cast<GroupId>(group))) {
        for (const Place& place : places_of(member)) {
          if (place.drive == number) return true;
        }
      }
    }
  }
  return false;
}

Task<Result<uint32_t>> Administration::join(std::string path, bool force) {
  if (!open_drive_) co_return fail(Code::unsupported, "this node cannot open further drives");
  auto topology = drives_.topology();
  CO_TRY_ASSIGN(OpenedDrive opened, co_await open_drive_(path, topology->map.cluster, force));
  const Uuid drive_id = opened.store->drive_id();
  if (topology->map.find(drive_id) != nullptr) {
    CO_TRY(co_await on(*opened.owner, opened.store->close()));
    const MapDrive& known = *topology->map.find(drive_id);
    if (known.state == DriveState::removed)
      co_return fail(Code::already_exists,
                     "{} is drive {}, which was removed: to use it again as a new drive, and DESTROY what is on it, use --force", path,
                     known.number);
    if (known.state == DriveState::failed || known.disabled)
      co_return fail(Code::already_exists, "{} is drive {} of this store, out of use now ({}): quarry device enable {}", path, known.number,
                     known.reason, known.number);
    co_return fail(Code::already_exists, "{} is in use already: it is drive {}", path, known.number);
  }
  uint32_t number = topology->map.next_drive;
  for (const LabelDrive& drive : labels_.label().drives) number = std::max(number, drive.number + 1);
  const std::string domain = opened.domain.empty() ? fmt::format("drive-{}", number) : opened.domain;
  MapDrive row{.number = number, .id = opened.store->drive_id(), .path = path, .domain = domain, .weight = opened.weight};
  const std::string file_system = opened.file_system;
  drives_.note_file_system(number, file_system);
  auto owned = std::make_unique<Drive>(Drive::Identity{number, path, domain}, std::move(opened.store), *opened.owner);
  Drive& drive = drives_.add(std::move(owned));
  drive.set_listener([this](Drive&) { alarm.ring(); });
  co_await drive.refresh();
  // A file system gets its share of the data once: the drives that are on it already give up a part.
  std::vector<uint32_t> sharers;
  for (const auto& [other, known] : topology->map.drives) {
    const bool in_use = known.state == DriveState::active || known.state == DriveState::draining;
    if (in_use && !file_system.empty() && drives_.file_system(other) == file_system) sharers.push_back(other);
  }
  const uint64_t share = std::max<uint64_t>(drive.space().device_bytes / (sharers.size() + 1), 1);
  if (row.weight == 0) row.weight = share;
  if (!sharers.empty())
    LOG_WARNING("the new drive is on the file system of others: they share its space, and die together", {"path", path},
                {"drives", fmt::format("{}", fmt::join(sharers, ", "))});
  Result<void> joined = co_await log_.add_drive(drive);
  if (joined) joined = co_await log_.restore_copies();
  if (joined) joined = co_await labels_.add({number, row.id, domain, path}, log_.writable_copies_min());
  if (joined) {
    joined = co_await maps_.change([row, sharers, share](ClusterMap& map) -> Result<void> {
      for (const uint32_t other : sharers) map.drives.at(other).weight = std::min(map.drives.at(other).weight, share);
      map.drives.insert_or_assign(row.number, row);
      map.next_drive = std::max(map.next_drive, row.number + 1);
      map.replan();
      return {};
    });
  }
  update_read_only();
  if (!joined) {
    drive.take_down("it could not be added");
    co_return std::move(joined).error();
  }
  LOG_INFO("drive added", {"drive", number}, {"path", path});
  co_return number;
}

Task<Result<void>> Administration::add_drive(std::string path, bool force) {
  co_await turn_.acquire();
  Turn turn{turn_};
  CO_TRY_ASSIGN(uint32_t number, co_await join(std::move(path), force));
  static_cast<void>(number);
  repairer_.alarm.ring();
  co_return Result<void>();
}

Task<Result<void>> Administration::drain_drive(uint32_t number) {
  co_await turn_.acquire();
  Turn turn{turn_};
  co_return co_await start_drain(number, "");
}

Task<Result<void>> Administration::start_drain(uint32_t number, std::string reason) {
  CO_TRY(co_await maps_.change([number, reason](ClusterMap& map) -> Result<void> {
    auto drive = map.drives.find(number);
    if (drive == map.drives.end() || drive->second.state == DriveState::removed) return no_drive(number);
    if (drive->second.state == DriveState::draining) return {};
    if (drive->second.state == DriveState::failed)
      return fail(
          Code::precondition_failed,
          "drive {} was given up ({}), and what it held is rebuilt elsewhere: there is nothing to drain; quarry device remove {} once "
          "quarry status shows that repair is idle, or quarry device enable {} if it is back",
          number, drive->second.reason, number, number);
    drive->second.state = DriveState::draining;
    drive->second.reason = reason;
    for (uint8_t width : map.widths()) {
      if (map.active_domains() < width) {
        return fail(
            Code::precondition_failed,
            "data is stored over {} drives that fail independently, and without drive {} there are {}: add a drive first, or quarry "
            "device replace {} NEW",
            width, number, map.active_domains(), number);
      }
    }
    map.replan();
    return {};
  }));
  repairer_.alarm.ring();
  co_return Result<void>();
}

Task<Result<void>> Administration::part(uint32_t number) {
  if (!labels_.names(number)) co_return Result<void>();
  CO_TRY(co_await log_.leave_drive(number));
  CO_TRY(co_await labels_.drop(number, log_.writable_copies_min()));
  log_.forget_drive(number);
  co_return Result<void>();
}

Task<Result<void>> Administration::remove_drive(uint32_t number, bool force) {
  co_await turn_.acquire();
  Turn turn{turn_};
  auto topology = drives_.topology();
  auto known = topology->map.drives.find(number);
  if (known == topology->map.drives.end() || known->second.state == DriveState::removed) co_return no_drive(number);
  if (!force && holds_data(topology->map, number)) {
    const char* next = known->second.state == DriveState::draining
                           ? "it is being drained: wait until quarry status shows that repair is idle"
                       : known->second.state == DriveState::failed
                           ? "it is being rebuilt from the others: wait until quarry status shows that repair is idle"
                           : "quarry device drain it, or replace it";
    co_return fail(
        Code::precondition_failed,
        "drive {} still holds data that is not elsewhere yet: {}; --force takes it out now, and what it held has to be rebuilt from "
        "the others",
        number, next);
  }
  if (force) {  // what it held is rebuilt as if it had died
    CO_TRY(co_await maps_.change([number](ClusterMap& map) -> Result<void> {
      map.drives.at(number).state = DriveState::failed;
      map.drives.at(number).reason = "removed by force";
      map.replan();
      return {};
    }));
  }
  CO_TRY(co_await retire(number));
  repairer_.alarm.ring();
  co_return Result<void>();
}

Task<Result<void>> Administration::retire(uint32_t number) {
  CO_TRY(co_await part(number));
  CO_TRY(co_await maps_.change([number](ClusterMap& map) -> Result<void> {
    map.drives.at(number).state = DriveState::removed;
    map.replan();
    return {};
  }));
  if (Drive* drive = drives_.find(number); drive != nullptr) {
    if (drive->readable()) {
      Result<void> cleared = co_await drive->set_label("");
      std::move(cleared).ignore("its number is retired in the map: an old label is recognised");
    }
    Result<void> closed = co_await drive->close();
    std::move(closed).ignore("it is removed");
  }
  co_return Result<void>();
}

Task<Result<void>> Administration::replace_drive(uint32_t number, std::string path, bool force) {
  co_await turn_.acquire();
  Turn turn{turn_};
  auto topology = drives_.topology();
  auto known = topology->map.drives.find(number);
  if (known == topology->map.drives.end() || known->second.state == DriveState::removed) co_return no_drive(number);
  CO_TRY_ASSIGN(uint32_t successor, co_await join(std::move(path), force));
  Drive* drive = drives_.find(number);
  const bool readable = drive != nullptr && drive->readable();
  CO_TRY(co_await maps_.change([number, successor, readable](ClusterMap& map) -> Result<void> {
    MapDrive& old = map.drives.at(number);
    if (old.state == DriveState::failed) return {};
    old.state = readable ? DriveState::draining : DriveState::failed;
    old.reason = fmt::format("{} {}", kReplaced, successor);
    map.replan();
    return {};
  }));
  repairer_.alarm.ring();
  co_return Result<void>();
}

// A drive that refuses writes after a failure keeps what it has for now: its data moves away while it can be read.
Task<Result<void>> Administration::leave_read_only(uint32_t number, Drive& drive, TimePoint now) {
  if (drive.condition() != DriveCondition::read_only) {
    read_only_since_.erase(number);
    co_return Result<void>();
  }
  const TimePoint since = read_only_since_.try_emplace(number, now).first->second;
  if (now - since < plane_.tuning.missing_grace) co_return Result<void>();
  const std::string reason = fmt::format("{}: {}", kRefuses, drive.reason());
  Result<void> drained = co_await start_drain(number, reason);
  if (!drained && drained.error().code() != Code::precondition_failed) co_return drained;
  if (!drained) {
    read_only_since_[number] = now;  // asked again after another grace
    LOG_WARNING("a drive that refuses writes cannot be drained", {"drive", number}, {"error", drained.error().to_string()});
  }
  co_return Result<void>();
}

Task<Result<void>> Administration::lose(uint32_t number, std::string reason) {
  LOG_ERROR("drive is given up", {"drive", number}, {"reason", reason});
  CO_TRY(co_await maps_.change([number, reason](ClusterMap& map) -> Result<void> {
    auto drive = map.drives.find(number);
    if (drive == map.drives.end() || drive->second.state == DriveState::failed || drive->second.state == DriveState::removed) return {};
    drive->second.state = DriveState::failed;
    drive->second.reason = reason;
    drive->second.audit = true;  // what is removed from now on stays on it
    map.replan();
    return {};
  }));
  repairer_.alarm.ring();
  co_return Result<void>();
}

// Some data could not be read without this drive, as things are now.
bool Administration::needed_for_reading(const Topology& topology, uint32_t number) const {
  for (uint8_t width : topology.map.widths()) {
    // Layouts of a width survive as many losses as the default, unless a bucket asked for something else.
    const unsigned needed = static_cast<unsigned>(std::max(1, int{width} - static_cast<int>(topology.map.redundancy.losses())));
    for (uint32_t group = 0; group < topology.map.group_count; ++group) {
      unsigned left = 0;
      bool holds = false;
      for (const Member& member : *topology.map.find_members(width, static_cast<GroupId>(group))) {
        holds = holds || member.at.drive == number;
        const Drive* drive = topology.drive(member.at.drive);
        left += member.at.drive != number && drive != nullptr && drive->readable();
      }
      if (holds && left < needed) return true;
    }
  }
  return false;
}

// Why it may not be disabled, and what to do.
Error Administration::needed(const Topology& topology, uint32_t number) const {
  std::vector<uint32_t> away;
  for (const auto& [other, known] : topology.map.drives) {
    const Drive* drive = topology.drive(other);
    if (other != number && known.state != DriveState::removed && (drive == nullptr || !drive->readable())) away.push_back(other);
  }
  const std::string why = away.empty() ? std::string("it holds data that the other drives cannot make up for")
                                       : fmt::format("drive{} {} {} away already", away.size() > 1 ? "s" : "", fmt::join(away, ", "),
                                                     away.size() > 1 ? "are" : "is");
  const std::string what = away.empty()
                               ? fmt::format("move its data away first (quarry device drain {0}, or quarry device replace {0} NEW)", number)
                               : "bring back what is away (quarry device enable), or wait until it is rebuilt elsewhere (quarry status)";
  return fail(
      Code::precondition_failed,
      "without drive {} some data could not be read: {}; {}. With --force it is disabled all the same, and such data cannot be read "
      "until it is enabled",
      number, why, what);
}

Task<Result<void>> Administration::disable_drive(uint32_t number, std::string reason, bool force) {
  co_await turn_.acquire();
  Turn turn{turn_};
  auto topology = drives_.topology();
  auto known = topology->map.drives.find(number);
  if (known == topology->map.drives.end() || known->second.state == DriveState::removed) co_return no_drive(number);
  if (known->second.disabled) co_return Result<void>();
  if (!force && needed_for_reading(*topology, number)) co_return needed(*topology, number);
  CO_TRY(co_await mark_disabled(number, std::move(reason)));
  co_return Result<void>();
}

Task<Result<void>> Administration::mark_disabled(uint32_t number, std::string reason) {
  static const Counter disabled =
      metrics::counter("cluster_drives_disabled_total", "Drives that were disabled, by operators or by the health check");
  if (reason.starts_with(fmt::format("{}: ", kDisabled))) reason.erase(0, kDisabled.size() + 2);
  const std::string text = fmt::format("{}: {}", kDisabled, reason.empty() ? std::string("by an operator") : reason);
  // First in the map, so that it is durable; if the map cannot be written the drive stays in use by an operator's wish, but not when it
  // fails.
  Result<void> marked = co_await maps_.change([number, text](ClusterMap& map) -> Result<void> {
    MapDrive& drive = map.drives.at(number);
    drive.disabled = true;
    drive.reason = text;
    return {};
  });
  Drive* drive = drives_.find(number);
  if (marked || (drive != nullptr && unwell_[number] >= kUnwellMax)) {
    if (drive != nullptr) drive->disable(text);
    disabled.add();
    LOG_WARNING("drive is disabled", {"drive", number}, {"path", drive != nullptr ? drive->path() : std::string()}, {"reason", text});
  }
  update_read_only();
  co_return marked;
}

// The store of a drive that vanished is of no use any more, also when the device is back: it is opened again, beside the old one.
Task<Result<Drive*>> Administration::reopen(uint32_t number) {
  if (!open_known_) co_return fail(Code::unsupported, "this node cannot open drives while it runs: restart it");
  auto topology = drives_.topology();
  const MapDrive known = topology->map.drives.at(number);
  Drive* old = drives_.find(number);
  std::string path = known.path;
  if (old != nullptr) {
    path = old->path();
    Result<void> closed = co_await old->close();
    std::move(closed).ignore("it is broken, that is why it is opened again");
    const TimePoint patience = Executor::here().now() + kClosingPatience;
    while (!old->closed() && !old->hangs() && Executor::here().now() < patience) co_await sleep_for(std::chrono::milliseconds(20));
    if (!old->closed())
      co_return fail(Code::busy, "drive {} ({}) still hangs: what was asked of it has not come back; try again later", number, path);
  }
  Result<OpenedDrive> opened = co_await open_known_(path, topology->map.cluster);
  if (!opened) {
    co_return std::move(opened).error().with(
        fmt::format("drive {} cannot be opened: bring {} back, or `quarry device replace {} NEW`", number, path, number));
  }
  std::optional<Error> wrong;
  if (opened->store->drive_id() != known.id) {
    wrong.emplace(Code::wrong_owner, fmt::format("{} is another drive ({}), not drive {}: add it, or use it to replace drive {}", path,
                                                 opened->store->drive_id().to_string(), number, number));
  }
  if (wrong) {
    Result<void> closed = co_await on(*opened->owner, opened->store->close());
    std::move(closed).ignore("it is not ours");
    co_return std::move(*wrong);
  }
  drives_.note_file_system(number, opened->file_system);
  auto owned = std::make_unique<Drive>(Drive::Identity{number, path, known.domain}, std::move(opened->store), *opened->owner);
  Drive& drive = drives_.add(std::move(owned));
  drive.set_listener([this](Drive&) { alarm.ring(); });
  co_await drive.refresh();
  LOG_INFO("drive opened again", {"drive", number}, {"path", path});
  co_return &drive;
}

Task<Result<void>> Administration::enable_drive(uint32_t number) {
  co_await turn_.acquire();
  Turn turn{turn_};
  auto topology = drives_.topology();
  auto found = topology->map.drives.find(number);
  if (found == topology->map.drives.end() || found->second.state == DriveState::removed) co_return no_drive(number);
  const MapDrive known = found->second;
  if (known.reason.starts_with(kReplaced))
    co_return fail(Code::precondition_failed,
                   "drive {} was {}: to use {} again as a new drive, and DESTROY what is on it: quarry device add --force {}", number,
                   known.reason, known.path, known.path);
  Drive* drive = drives_.find(number);
  const bool of_use = drive != nullptr && !drive->broken() && !drive->closing() && !drive->hangs() && (drive->sound() || !open_known_);
  if (!of_use) {
    CO_TRY_ASSIGN(drive, co_await reopen(number));
  } else if (!known.disabled && known.state != DriveState::failed) {
    co_return Result<void>();  // it is in use
  }
  drive->enable();
  Result<void> healthy = co_await drive->check_health();
  if (healthy) healthy = co_await log_.add_drive(*drive);
  if (!healthy) {
    drive->disable(known.disabled ? known.reason : std::string(kDisabled));
    co_return std::move(healthy).error().with(fmt::format("drive {} stays disabled", number));
  }
  unwell_.erase(number);
  away_since_.erase(number);
  CO_TRY(co_await maps_.change([number](ClusterMap& map) -> Result<void> {
    MapDrive& each = map.drives.at(number);
    if (each.disabled) each.reason.clear();
    each.disabled = false;
    if (each.state == DriveState::draining && each.reason.starts_with(kRefuses)) {
      each.state = DriveState::active;
      each.reason.clear();
      map.replan();
    }
    return {};
  }));
  if (known.state == DriveState::failed) CO_TRY(co_await readmit(number));
  update_read_only();
  LOG_INFO("drive enabled", {"drive", number}, {"path", drive->path()});
  repairer_.alarm.ring();
  plane_.wake_sweeper();
  co_return Result<void>();
}

// From now on it is used for nothing, and nobody waits for it any more. That has to work without the map, which may wait for this drive;
// the next look writes it down.
void Administration::give_up(Drive& drive, std::string why) {
  if (!drive.disabled()) drive.disable(fmt::format("{}: {}", kDisabled, why));
  drive.give_up();
  alarm.ring();
}

void Administration::failed_check(Drive& drive, const Error& error, bool decided) {
  const uint32_t number = drive.number();
  if (drive.disabled() || drives_.find(number) != &drive) return;
  LOG_WARNING("drive fails its health check", {"drive", number}, {"path", drive.path()}, {"error", error.to_string()});
  if (++unwell_[number] >= kUnwellMax || decided) give_up(drive, fmt::format("its health check failed: {}", error.to_string()));
}

Task<void> Administration::check_one(Drive* drive) {
  Result<void> well = co_await drive->check_health();
  checking_.erase(drive);
  if (well) {
    unwell_.erase(drive->number());
  } else if (drive->readable()) {
    failed_check(*drive, well.error(), well.error().code() == Code::timed_out);
  }
}

// Every few seconds, and at once when a drive answered errors of the kind that may come from a failing path.
void Administration::begin_checks(TimePoint now) {
  const bool all = now - checked_at_ >= kCheckHealth;
  if (all) checked_at_ = now;
  for (Drive* drive : drives_.all()) {
    const bool suspicious = drive->suspicious();
    if (!drive->readable() || checking_.contains(drive) || !(all || suspicious || unwell_.contains(drive->number()))) continue;
    checking_.emplace(drive, now);
    guarding_.spawn_here(check_one(drive));
  }
}

Task<void> Administration::guard() {
  // Drives are checked while the store closes, too: who waits for one that hangs could not come to an end otherwise.
  while (!guarding_.stopping() || !checking_.empty()) {
    const TimePoint now = Executor::here().now();
    if (!guarding_.stopping()) begin_checks(now);
    const auto checking = checking_;
    for (const auto& [drive, since] : checking) {
      if (now - since >= kHealthPatience)
        failed_check(*drive, fail(Code::timed_out, "it has not answered for {}: it hangs", format_duration(now - since)), true);
    }
    for (Drive* drive : drives_.all()) {
      const Duration oldest = now - drive->oldest_put(now);
      // A directory has a check of its own, which tells a disk that hangs from one that has much to do.
      const bool judged = drive->disabled() || parse_drive_path(drive->path()).kind == "raw";
      if (oldest >= kHealthPatience && judged)
        give_up(*drive, fmt::format("a write has not come back for {}: it hangs", format_duration(oldest)));
    }
    if (guarding_.stopping()) {
      co_await sleep_for(std::chrono::milliseconds(5));
    } else {
      co_await guard_ends_.wait_until(Executor::here().now() + kLook / 4);
    }
  }
}

Task<void> Administration::stop_guard() {
  guarding_.request_stop();
  guard_ends_.set();
  co_await guarding_.join();
}

Task<void> Administration::close_disabled(Drive* drive) {
  Result<void> closed = co_await drive->close();
  if (!closed)
    LOG_WARNING("a disabled drive could not be closed", {"drive", drive->number()}, {"path", drive->path()},
                {"error", closed.error().to_string()});
}

Task<Result<void>> Administration::check_health(TimePoint now) {
  begin_checks(now);
  const TimePoint patience = now + kCheckTime;
  const auto begun_now = [&] { return std::ranges::any_of(checking_, [&](const auto& check) { return check.second >= now; }); };
  while (begun_now() && Executor::here().now() < patience) co_await sleep_for(std::chrono::milliseconds(5));
  // A directory whose store gave up is a failing path too: it may come and go with its mount, so an operator decides when it is back.
  const auto topology = drives_.topology();
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = drives_.find(number);  // one that was opened again and found wanting is in no topology
    const bool expected = known.state == DriveState::active || known.state == DriveState::draining;
    if (!expected || drive == nullptr) continue;
    const bool failing = drive->disabled() || (drive->broken() && parse_drive_path(drive->path()).kind != "raw");
    if (!known.disabled && failing) {
      Result<void> marked = co_await mark_disabled(number, drive->reason());
      if (!marked)
        LOG_WARNING("that a drive is disabled cannot be written down yet", {"drive", number}, {"error", marked.error().to_string()});
    }
    // With its files open its file system could not be unmounted.
    if (drive->disabled() && !drive->closing() && !drive->hangs() && open_known_) plane_.background.spawn_here(close_disabled(drive));
  }
  co_return Result<void>();
}

Task<Result<void>> Administration::readmit(uint32_t number) {
  Drive* drive = drives_.find(number);
  auto topology = drives_.topology();
  const MapDrive known = topology->map.drives.at(number);
  CO_TRY(co_await log_.add_drive(*drive));
  CO_TRY(co_await log_.restore_copies());
  CO_TRY(co_await labels_.add({number, known.id, known.domain, drive->path()}, log_.writable_copies_min()));
  CO_TRY(co_await maps_.change([number](ClusterMap& map) -> Result<void> {
    map.drives.at(number).state = DriveState::active;
    map.drives.at(number).reason.clear();
    map.replan();
    return {};
  }));
  LOG_INFO("drive came back", {"drive", number});
  repairer_.alarm.ring();
  co_return Result<void>();
}

// Listing a whole drive is not free: it waits until everything that explains chunks has come to rest, and is not repeated often.
bool Administration::may_clean(uint32_t number, TimePoint now) {
  if (!plane_.sessions_recovered.load() || drives_.topology()->map.health().pending > 0) return false;
  auto last = cleaned_at_.find(number);
  if (last != cleaned_at_.end() && now - last->second < kCleanAgain) return false;
  cleaned_at_[number] = now;
  return true;
}

// It was away when some of its chunks became obsolete.
Task<Result<void>> Administration::clean(uint32_t number) {
  CO_TRY_ASSIGN(Auditor::Leftovers leftovers, co_await auditor_.remove_leftovers(*drives_.find(number)));
  LOG_INFO("drive cleaned of what became obsolete while it was away", {"drive", number}, {"chunks", leftovers.removed},
           {"undecided", leftovers.in_motion});
  if (leftovers.in_motion > 0) co_return Result<void>();  // looked at again later
  cleaned_at_.erase(number);
  co_return co_await maps_.change([number](ClusterMap& map) -> Result<void> {
    map.drives.at(number).audit = false;
    return {};
  });
}

// A drive is slow when its median read takes many times as long as the median of its peers: reads go around it, and look again now and
// then.
void Administration::judge_speed() {
  constexpr int kSlowFactor = 8;
  constexpr Duration kSlowMin = std::chrono::milliseconds(10);
  constexpr Duration kSlowAgain = std::chrono::seconds(30);
  const std::vector<Drive*> all = drives_.all();
  std::vector<Duration> medians;
  for (Drive* drive : all) {
    const Duration median = drive->read_latency.quantile(0.5, Duration(0));
    if (drive->readable() && median.count() > 0) medians.push_back(median);
  }
  if (medians.size() < 2) return;
  std::nth_element(medians.begin(), medians.begin() + (medians.size() - 1) / 2, medians.end());
  const Duration usual = medians[(medians.size() - 1) / 2];
  for (Drive* drive : all) {
    const Duration median = drive->read_latency.quantile(0.5, Duration(0));
    const bool slow = median > kSlowMin && median > usual * kSlowFactor;
    if (slow && !drive->slow.exchange(true)) {
      LOG_WARNING("drive is slow: reads go around it", {"drive", drive->number()}, {"median_us", median.count() / 1000},
                  {"peers_us", usual.count() / 1000});
    }
    if (!slow) {
      drive->slow.store(false);
      slow_since_.erase(drive->number());
      continue;
    }
    // Nobody reads from it any more, so nothing would show that it recovered: now and then its past is forgotten.
    const TimePoint now = Executor::here().now();
    if (now - slow_since_.try_emplace(drive->number(), now).first->second < kSlowAgain) continue;
    drive->read_latency.reset();
    drive->slow.store(false);
    slow_since_.erase(drive->number());
  }
}

Task<Result<void>> Administration::look() {
  co_await turn_.acquire();
  Turn turn{turn_};
  for (Drive* drive : drives_.all()) co_await drive->refresh();
  CO_TRY(co_await check_health(Executor::here().now()));
  judge_speed();
  update_read_only();
  if (!log_.writable()) co_return Result<void>();
  CO_TRY(co_await maps_.settle());
  auto topology = drives_.topology();
  const TimePoint now = Executor::here().now();
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = topology->drive(number);
    const bool here = drive != nullptr && drive->readable();
    if (known.state == DriveState::removed) continue;
    if (known.reason.starts_with(kReplaced) && known.state != DriveState::active && !holds_data(drives_.topology()->map, number)) {
      Result<void> gone = co_await retire(number);
      if (gone) LOG_INFO("a replaced drive holds nothing any more and is removed", {"drive", number});
      if (!gone && gone.error().code() != Code::unavailable) co_return gone;  // unavailable: no drive for the metadata copies yet
      if (gone) continue;
    }
    if (here) {
      away_since_.erase(number);
      if (known.state == DriveState::failed && known.reason.starts_with(kMissing)) CO_TRY(co_await readmit(number));
      if (known.audit && known.state != DriveState::failed && may_clean(number, now)) CO_TRY(co_await clean(number));
      if (known.state == DriveState::active) CO_TRY(co_await leave_read_only(number, *drive, now));
      if (known.state == DriveState::draining && !holds_data(drives_.topology()->map, number)) CO_TRY(co_await part(number));
      continue;
    }
    if (known.state == DriveState::failed) {
      // Its copies of the metadata are made again elsewhere; then it is not waited for at the next start.
      Result<void> parted = co_await part(number);
      if (!parted && parted.error().code() != Code::unavailable) co_return parted;
      continue;
    }
    const TimePoint since = away_since_.try_emplace(number, now).first->second;
    if (now - since < plane_.tuning.missing_grace) continue;
    std::string why = drive != nullptr ? drive->reason() : drives_.absence(known.path);
    if (why.empty()) why = "it was not there";
    CO_TRY(co_await lose(number, drive == nullptr || why.find("gone") != std::string::npos ? fmt::format("{}: {}", kMissing, why) : why));
  }
  co_return Result<void>();
}

Task<void> Administration::run() {
  while (!plane_.background.stopping()) {
    Result<void> done = co_await look();
    if (!done && !plane_.background.stopping())
      LOG_WARNING("looking after the drives failed; it will be tried again", {"error", done.error().to_string()});
    co_await alarm.wait(kLook);
  }
}

}  // namespace quarry::cluster
