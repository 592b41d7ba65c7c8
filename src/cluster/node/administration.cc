#include "cluster/node/administration.h"

#include <set>

#include "base/log.h"
#include "base/units.h"
#include "cluster/drives/drive_path.h"
#include "cluster/drives/exposure.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr Duration kLook = std::chrono::seconds(1);
constexpr Duration kLookSoonest = std::chrono::milliseconds(100);  // after the last look, however often it is rung
constexpr Duration kMapPauseMax = std::chrono::seconds(30);        // between attempts to change a map that cannot be changed
constexpr Duration kClosingPatience = std::chrono::seconds(8);     // of enabling, for the old store to close
constexpr std::string_view kDisabled = "disabled";  // start of the reason of a drive that was given up because it was disabled
constexpr Duration kCleanAgain = std::chrono::minutes(10);

Error no_drive(uint32_t number) {
  return fail(Code::not_found, "the store has no drive {}, or it was removed: `quarry status` lists the drives", number);
}

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
      guard_(drives, plane.background.home(), [this] { alarm.ring(); }),
      alarm(plane.background) {}

std::string Administration::read_only_reason() const {
  std::lock_guard lock(mutex_);
  return read_only_reason_;
}

void Administration::update_read_only() {
  std::string reason;
  if (!log_.writable()) {
    reason =
        fmt::format("the metadata needs {} drives to be written, fewer are there; bring back or add drives", log_.writable_copies_min());
  }
  std::map<std::string, std::string> waits;
  for (const Drive* drive : half_joined_)
    waits[drive->path()] =
        "whether it was added is known as soon as the metadata can be written; if it was not, it can be added again then";
  for (const Joining& one : waiting_) {
    waits[one.label.path] = fmt::format(
        "it is ready and waits for another drive: the metadata needs {} to be written, and fewer are there; `quarry device add "
        "NEW` adds the next one, or bring one back",
        log_.writable_copies_min());
  }
  std::lock_guard lock(mutex_);
  read_only_reason_ = std::move(reason);
  waits_told_ = std::move(waits);
}

std::map<std::string, std::string> Administration::waiting() const {
  std::lock_guard lock(mutex_);
  return waits_told_;
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

Task<Result<void>> Administration::drain_drive(uint32_t number) {
  co_await turn_.acquire();
  Turn turn{turn_};
  co_return co_await start_drain(number, "", DriveCause::none);
}

Task<Result<void>> Administration::start_drain(uint32_t number, std::string reason, DriveCause cause) {
  CO_TRY(co_await maps_.change([number, reason, cause](ClusterMap& map) -> Result<void> {
    auto drive = map.drives.find(number);
    if (drive == map.drives.end() || drive->second.state == DriveState::removed) return no_drive(number);
    if (drive->second.state == DriveState::draining) return {};
    if (drive->second.state == DriveState::failed)
      return fail(
          Code::precondition_failed,
          "drive {} was given up ({}), and what it held is rebuilt elsewhere: there is nothing to drain; `quarry device remove {}` once "
          "`quarry status` shows that repair is idle, or `quarry device enable {}` if it is back",
          number, drive->second.reason, number, number);
    drive->second.state = DriveState::draining;
    drive->second.reason = reason;
    drive->second.cause = cause;
    for (uint8_t width : map.widths()) {
      if (map.active_domains() < width) {
        return fail(
            Code::precondition_failed,
            "data is stored over {} drives that fail independently, and without drive {} there are {}: add a drive first, or `quarry "
            "device replace {} NEW`",
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
  // From here on nothing new comes to it. What it held is rebuilt as if it had died, if it is forced out.
  CO_TRY(co_await maps_.change([this, number, force](ClusterMap& map) -> Result<void> {
    auto known = map.drives.find(number);
    if (known == map.drives.end() || known->second.state == DriveState::removed) return no_drive(number);
    MapDrive& drive = known->second;
    if (!force && holds_data(map, number)) {
      std::string next = "it is being rebuilt from the others: wait until `quarry status` shows that repair is idle";
      if (drive.state == DriveState::draining) next = "it is being drained: wait until `quarry status` shows that repair is idle";
      if (drive.state == DriveState::active) next = fmt::format("move its data away first (`quarry device drain {}`)", number);
      return fail(
          Code::precondition_failed,
          "drive {} still holds data that is not elsewhere yet: {}; --force takes it out now, and what it held has to be rebuilt from "
          "the others",
          number, next);
    }
    if (force) {
      drive.state = DriveState::failed;
      drive.reason = "removed by force";
      drive.cause = DriveCause::forced;
      map.replan();
    } else if (drive.state == DriveState::active) {
      drive.state = DriveState::draining;
      map.replan();
    }
    return {};
  }));
  CO_TRY(co_await retire(number));
  repairer_.alarm.ring();
  co_return Result<void>();
}

Task<Result<void>> Administration::retire(uint32_t number) {
  CO_TRY(co_await part(number));
  CO_TRY(co_await maps_.change([this, number](ClusterMap& map) -> Result<void> {
    const bool given_up = map.drives.at(number).state == DriveState::failed;
    if (!given_up && holds_data(map, number)) return fail(Code::busy, "drive {} was given data meanwhile", number);
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
  // One change of the map: a new drive without the old one's places would be half of what was asked for.
  const AlsoChange hand_over = [this, number](ClusterMap& map, uint32_t successor) {
    const Drive* drive = drives_.find(number);
    MapDrive& old = map.drives.at(number);
    const bool readable = drive != nullptr && drive->readable();
    if (old.state != DriveState::failed) old.state = readable ? DriveState::draining : DriveState::failed;
    old.reason = fmt::format("replaced by drive {}", successor);
    old.cause = DriveCause::replaced;
  };
  CO_TRY_ASSIGN(const uint32_t successor, co_await join(std::move(path), force, hand_over));
  LOG_INFO("drive is replaced", {"drive", number}, {"by", successor});
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
  Result<void> drained = co_await start_drain(number, fmt::format("it refuses writes: {}", drive.reason()), DriveCause::read_only);
  if (!drained && drained.error().code() != Code::precondition_failed) co_return drained;
  if (!drained) {
    read_only_since_[number] = now;  // asked again after another grace
    LOG_WARNING("a drive that refuses writes cannot be drained", {"drive", number}, {"error", drained.error().to_string()});
  }
  co_return Result<void>();
}

Task<Result<void>> Administration::lose(uint32_t number, std::string reason, DriveCause cause) {
  LOG_ERROR("drive is given up", {"drive", number}, {"reason", reason});
  CO_TRY(co_await maps_.change([this, number, reason, cause](ClusterMap& map) -> Result<void> {
    auto drive = map.drives.find(number);
    if (drive == map.drives.end() || drive->second.state == DriveState::failed || drive->second.state == DriveState::removed) return {};
    // The map may have waited for this very drive.
    if (const Drive* back = drives_.find(number); back != nullptr && back->readable() && !drive->second.disabled) return {};
    drive->second.state = DriveState::failed;
    if (!drive->second.is_past()) {  // one that was replaced does not come back
      drive->second.reason = reason;
      drive->second.cause = cause;
    }
    drive->second.audit = true;  // what is removed from now on stays on it
    map.replan();
    return {};
  }));
  repairer_.alarm.ring();
  co_return Result<void>();
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
  const std::string what =
      away.empty()
          ? fmt::format("move its data away first (`quarry device drain {0}`, or `quarry device replace {0} NEW`)", number)
          : fmt::format("bring back what is away (`quarry device enable {}`), or wait until it is rebuilt elsewhere (`quarry status`)",
                        away.front());
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
  // First in the map, so that it is durable: if that cannot be, an operator's wish is not fulfilled.
  Result<void> marked = co_await maps_.change([number, text](ClusterMap& map) -> Result<void> {
    MapDrive& drive = map.drives.at(number);
    drive.disabled = true;
    drive.reason = drive.cause == DriveCause::replaced ? fmt::format("{}; {}", drive.reason, text) : text;
    return {};
  });
  Drive* drive = drives_.find(number);
  if (marked) {
    if (drive != nullptr) drive->disable(text);
    disabled.add();
    LOG_WARNING("drive is disabled", {"drive", number}, {"path", drive != nullptr ? drive->path() : std::string()}, {"reason", text});
  }
  update_read_only();
  co_return marked;
}

// false: it hangs.
Task<bool> Administration::let_close(Drive* old) {
  Result<void> closed = co_await old->close();
  std::move(closed).ignore("it is out of use");
  const TimePoint patience = Executor::here().now() + kClosingPatience;
  while (!old->closed() && !old->hangs() && Executor::here().now() < patience) co_await sleep_for(std::chrono::milliseconds(20));
  co_return old->closed();
}

// The store of a drive that vanished is of no use any more, also when the device is back: it is opened again, beside the old one.
Task<Result<Drive*>> Administration::reopen(uint32_t number, std::string at, bool force) {
  if (!open_known_) co_return fail(Code::unsupported, "this node cannot open drives while it runs: restart it");
  auto topology = drives_.topology();
  const MapDrive known = topology->map.drives.at(number);
  Drive* old = drives_.find(number);
  std::string path = !at.empty() ? std::move(at) : old != nullptr ? old->path() : known.path;
  if (old != nullptr) {
    const bool closed = co_await let_close(old);
    if (!closed)
      co_return fail(Code::busy, "drive {} ({}) still hangs: what was asked of it has not come back; try again later", number, path);
  }
  Result<OpenedDrive> opened = co_await open_known_(path, topology->map.cluster, force);
  if (!opened && opened.error().code() == Code::wrong_owner) {
    co_return std::move(opened).error().with(
        fmt::format("drive {} stays out of use; to use it here all the same: `quarry device enable --force {}`", number, number));
  }
  if (!opened) {
    co_return std::move(opened).error().with(fmt::format(
        "drive {} cannot be opened; it comes back by itself once {} has it again, and if it is lost: `quarry device replace {} NEW`",
        number, path, number));
  }
  std::optional<Error> wrong;
  if (opened->store->drive_id() != known.id) {
    wrong.emplace(Code::wrong_owner,
                  fmt::format("{} is another drive ({}), not drive {}", path, opened->store->drive_id().to_string(), number));
  }
  if (wrong) {
    Result<void> closed = co_await on(*opened->owner, opened->store->close());
    std::move(closed).ignore("it is not ours");
    co_return std::move(*wrong);
  }
  drives_.note_file_system(number, opened->file_system);
  auto owned = std::make_unique<Drive>(Drive::Identity{number, path, known.domain}, std::move(opened->store), *opened->owner);
  owned->set_look_below(std::move(opened->look_below));
  Drive& drive = drives_.add(std::move(owned));
  drive.set_listener([this](Drive&) { alarm.ring(); });
  co_await drive.refresh();
  LOG_INFO("drive opened again", {"drive", number}, {"path", path});
  co_return &drive;
}

namespace {

// It was disabled, or was being emptied because it refused writes.
MapKeeper::Edit use_again(uint32_t number, std::string path) {
  return [number, path = std::move(path)](ClusterMap& map) -> Result<void> {
    MapDrive& drive = map.drives.at(number);
    drive.path = path;
    if (drive.disabled) drive.reason = drive.cause == DriveCause::replaced ? drive.reason.substr(0, drive.reason.find("; ")) : "";
    drive.disabled = false;
    if (drive.state == DriveState::draining && drive.cause == DriveCause::read_only) {
      drive.state = DriveState::active;
      drive.reason.clear();
      drive.cause = DriveCause::none;
      map.replan();
    }
    return {};
  };
}

}  // namespace

Task<Result<void>> Administration::enable_drive(uint32_t number, bool force) {
  co_await turn_.acquire();
  Turn turn{turn_};
  co_return co_await enable(number, "", force);
}

// Whoever found the drive looked for it for a while. What became of it meanwhile may say otherwise.
Task<Result<void>> Administration::take_back_drive(uint32_t number, std::string path) {
  co_await turn_.acquire();
  Turn turn{turn_};
  const auto topology = drives_.topology();
  const auto found = topology->map.drives.find(number);
  if (found == topology->map.drives.end() || found->second.state == DriveState::removed) co_return no_drive(number);
  const MapDrive& known = found->second;
  const Drive* drive = drives_.find(number);
  const std::string why = known.reason.empty() && drive != nullptr ? drive->reason() : known.reason;
  const bool given_up = known.state == DriveState::failed && !known.is_away();
  const bool taken = known.cause == DriveCause::taken || (drive != nullptr && drive->taken());
  if (known.disabled || given_up || taken)
    co_return fail(Code::precondition_failed, "drive {} is out of use ({}): `quarry device enable {}`", number, why, number);
  co_return co_await enable(number, std::move(path));
}

// at: where the drive is now, if not where it was.
Task<Result<void>> Administration::enable(uint32_t number, std::string at, bool force) {
  auto topology = drives_.topology();
  auto found = topology->map.drives.find(number);
  if (found == topology->map.drives.end() || found->second.state == DriveState::removed) co_return no_drive(number);
  const MapDrive known = found->second;
  // While it is drained, what it holds is not old yet.
  if (known.is_past())
    co_return fail(Code::precondition_failed,
                   "drive {} was {}: to use {} again as a new drive, and DESTROY what is on it: `quarry device add --force {}`", number,
                   known.reason, known.path, known.path);
  Drive* drive = drives_.find(number);
  if (drive != nullptr && drive->suspended() && drive->hangs())
    co_return fail(Code::busy,
                   "drive {} ({}) still hangs: what was asked of it has not come back. It is used again by itself as soon as it answers",
                   number, drive->path());
  // Should it not come to that, it is as it was.
  const bool was_disabled = known.disabled || (drive != nullptr && drive->disabled());
  const bool was_suspended = drive != nullptr && drive->suspended();
  const std::string was = known.disabled || drive == nullptr ? known.reason : drive->reason();
  Drive* opened = nullptr;
  const bool of_use = drive != nullptr && !drive->broken() && !drive->closing() && !drive->hangs() && (drive->sound() || !open_known_);
  if (!of_use) {
    CO_TRY_ASSIGN(drive, co_await reopen(number, std::move(at), force));
    opened = drive;
  } else if (drive->readable() && !known.disabled && known.state != DriveState::failed && known.cause != DriveCause::read_only) {
    CO_TRY(co_await drive->check_health());
    co_return Result<void>();  // it is in use
  }
  drive->resume();
  drive->enable();
  Result<void> enabled = co_await drive->check_health();
  if (enabled) enabled = co_await admit(known, drive);
  if (enabled && known.state == DriveState::failed) {
    enabled = co_await readmit(number);
  } else if (enabled && !was_disabled && known.path == drive->path() && known.cause != DriveCause::read_only) {
    drives_.publish(drives_.topology()->map);  // it says all this already; writing may have to wait for this very drive
  } else if (enabled) {
    enabled = co_await maps_.change(use_again(number, drive->path()));
  }
  if (!enabled) {
    if (was_disabled) drive->disable(was);
    if (was_suspended && opened == nullptr) drive->suspend(was);
    if (opened != nullptr) {
      opened->take_down(fmt::format("it could not be enabled: {}", enabled.error().to_string()));
      co_await close_disabled(opened);
    }
    update_read_only();
    co_return std::move(enabled).error().with(fmt::format("drive {} stays out of use", number));
  }
  guard_.forget(number);
  away_since_.erase(number);
  update_read_only();
  LOG_INFO("drive enabled", {"drive", number}, {"path", drive->path()});
  repairer_.alarm.ring();
  plane_.wake_sweeper();
  co_return Result<void>();
}

Task<void> Administration::close_disabled(Drive* drive) {
  Result<void> closed = co_await drive->close();
  if (!closed)
    LOG_WARNING("a disabled drive could not be closed", {"drive", drive->number()}, {"path", drive->path()},
                {"error", closed.error().to_string()});
}

// An addition that was cut short while the labels were written leaves some that name a drive which never had one. As long as they do it
// counts as a drive that is away. But where the metadata went back to an earlier state it may be a drive in use, with data that is nowhere
// else: the map is to know it when it comes back, and its number is not to be given again.
Task<Result<void>> Administration::part_from_strangers() {
  const auto topology = drives_.topology();
  std::vector<uint32_t> strangers;
  for (const LabelDrive& named : labels_.label().drives) {
    if (!topology->map.drives.contains(named.number) && drives_.find(named.number) == nullptr) strangers.push_back(named.number);
  }
  if (strangers.empty()) co_return Result<void>();
  CO_TRY_ASSIGN(const bool gone_back, co_await plane_.ids.may_have_gone_back());
  if (log_.loss_accepted() || gone_back) {
    co_return co_await maps_.change([this, strangers](ClusterMap& map) -> Result<void> {
      uint64_t weight = UINT64_MAX;  // not known; not the largest
      for (const auto& [number, known] : map.drives) weight = std::min(weight, known.weight);
      for (const LabelDrive& named : labels_.label().drives) {
        if (std::ranges::find(strangers, named.number) == strangers.end() || map.drives.contains(named.number)) continue;
        map.drives[named.number] = {.number = named.number,
                                    .id = named.id,
                                    .path = named.path,
                                    .domain = named.domain,
                                    .weight = weight,
                                    .state = DriveState::failed,
                                    .reason = "missing: it was away when the loss of metadata was accepted that knew it",
                                    .cause = DriveCause::away,
                                    .audit = true};
        map.next_drive = std::max(map.next_drive, named.number + 1);
      }
      return {};
    });
  }
  for (const uint32_t number : strangers) {
    Result<void> parted = co_await part(number);
    if (!parted && parted.error().code() != Code::unavailable) co_return parted;  // unavailable: no drive for the metadata copies yet
  }
  co_return Result<void>();
}

// Where the answer of the change that says so was lost.
void Administration::disable_as_written() {
  for (const auto& [number, known] : drives_.topology()->map.drives) {
    Drive* drive = drives_.find(number);
    if (known.disabled && drive != nullptr && !drive->disabled()) drive->disable(known.reason);
  }
}

// What the guard took out of use, and directories whose store gave up: that is a failing path too, which may come and go with its mount. An
// operator decides when it is back; but not of what all would need: that is used again by the next start that finds it well.
Task<Result<void>> Administration::write_down_disabled() {
  const auto topology = drives_.topology();
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = drives_.find(number);  // one that was opened again and found wanting is in no topology
    const bool expected = known.state == DriveState::active || known.state == DriveState::draining;
    if (!expected || known.disabled || drive == nullptr || needed_for_reading(*topology, number)) continue;
    const bool failing = drive->disabled() || (drive->broken() && parse_drive_path(drive->path()).kind != "raw");
    if (failing) CO_TRY(co_await mark_disabled(number, drive->reason()));
  }
  co_return Result<void>();
}

// It may hold metadata from now on. Labels that do not name it any more (it was empty, or given up) have to, before anything relies on
// that.
Task<Result<void>> Administration::admit(MapDrive known, Drive* drive) {
  if (labels_.names(known.number) && labels_.certain()) co_return co_await log_.add_drive(*drive);
  CO_TRY(co_await log_.add_drive(*drive, MetadataLog::Named::no));
  CO_TRY(co_await log_.restore_copies());
  std::vector<LabelDrive> one{{known.number, known.id, known.domain, drive->path()}};
  co_return co_await name(std::move(one));
}

Task<Result<void>> Administration::readmit(uint32_t number) {
  Drive* drive = drives_.find(number);
  auto topology = drives_.topology();
  const MapDrive known = topology->map.drives.at(number);
  CO_TRY(co_await admit(known, drive));
  CO_TRY(co_await log_.restore_copies());
  CO_TRY(co_await maps_.change([number, path = drive->path()](ClusterMap& map) -> Result<void> {
    map.drives.at(number).path = path;
    map.drives.at(number).state = DriveState::active;
    map.drives.at(number).disabled = false;
    map.drives.at(number).reason.clear();
    map.drives.at(number).cause = DriveCause::none;
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
  const uint64_t epoch = drives_.topology()->map.epoch;
  CO_TRY_ASSIGN(Auditor::Leftovers leftovers, co_await auditor_.remove_leftovers(*drives_.find(number)));
  LOG_INFO("drive cleaned of what became obsolete while it was away", {"drive", number}, {"chunks", leftovers.removed},
           {"undecided", leftovers.in_motion});
  // Looked at again later: what could not be decided, and what a change of the map left behind where the walk had been.
  if (leftovers.in_motion > 0 || drives_.topology()->map.epoch != epoch) co_return Result<void>();
  cleaned_at_.erase(number);
  co_return co_await maps_.change([number, epoch](ClusterMap& map) -> Result<void> {
    if (map.epoch == epoch) map.drives.at(number).audit = false;
    return {};
  });
}

Task<Result<void>> Administration::look() { return look(Scope::all); }

Task<Result<void>> Administration::look(Scope scope) {
  co_await turn_.acquire();
  Turn turn{turn_};
  look_below(Executor::here().now());
  for (Drive* drive : drives_.all()) co_await drive->refresh();
  co_await guard_.check();
  judge_speed();
  update_read_only();
  // With its files open the file system of a disabled drive could not be unmounted.
  for (Drive* drive : drives_.all()) {
    const bool close = drive->disabled() && !drive->closing() && !drive->hangs() && drives_.find(drive->number()) == drive;
    if (close && open_known_) plane_.background.spawn_here(close_disabled(drive));
  }
  if (scope == Scope::drives_alone || !log_.writable()) co_return Result<void>();
  co_return co_await tend(guard_.lived());
}

// What the map has to say of the drives, as they were found. now: in lived time.
Task<Result<void>> Administration::tend(TimePoint now) {
  CO_TRY(co_await maps_.settle());
  const std::vector<Drive*> half_joined = half_joined_;
  for (Drive* drive : half_joined) co_await finish_half_join(drive);
  if (!waiting_.empty()) co_await add_waiting();
  disable_as_written();
  // What goes wrong with one drive must not keep the others from being looked after: another one may have to be declared lost.
  std::optional<Error> error;
  if (!labels_.certain()) {
    Result<void> written = co_await labels_.write(log_.writable_copies_min());
    if (!written) error = std::move(written).error();
  }
  Result<void> parted = co_await part_from_strangers();
  if (!parted && !error) error = std::move(parted).error().with("a drive that only labels name");
  CO_TRY(co_await write_down_disabled());
  const auto topology = drives_.topology();
  for (const auto& [number, at_first] : topology->map.drives) {
    Result<void> done = co_await look_after(number, now);
    if (done) continue;
    if (error)
      LOG_WARNING("looking after a drive failed; it will be tried again", {"drive", number}, {"error", done.error().to_string()});
    else
      error = std::move(done).error().with(fmt::format("drive {}", number));
  }
  if (error) co_return std::move(*error);
  co_return Result<void>();
}

Task<Result<void>> Administration::look_after(uint32_t number, TimePoint now) {
  const auto topology = drives_.topology();
  const MapDrive known = topology->map.drives.at(number);
  Drive* drive = topology->drive(number);
  const bool here = drive != nullptr && drive->readable();
  if (known.state == DriveState::removed) co_return Result<void>();
  if (known.cause == DriveCause::replaced && known.state != DriveState::active && !holds_data(topology->map, number)) {
    Result<void> gone = co_await retire(number);
    if (gone) LOG_INFO("a replaced drive holds nothing any more and is removed", {"drive", number});
    if (gone || gone.error().code() != Code::unavailable) co_return gone;  // unavailable: no drive for the metadata copies yet
  }
  if (here) {
    away_since_.erase(number);
    if (known.state == DriveState::failed && known.is_away()) CO_TRY(co_await readmit(number));
    if (known.audit && known.state != DriveState::failed && may_clean(number, now)) CO_TRY(co_await clean(number));
    if (known.state == DriveState::active) CO_TRY(co_await leave_read_only(number, *drive, now));
    if (known.state == DriveState::draining && !holds_data(drives_.topology()->map, number)) CO_TRY(co_await part(number));
    co_return Result<void>();
  }
  if (known.state == DriveState::failed) {
    // Its copies of the metadata are made again elsewhere; then it is not waited for at the next start.
    Result<void> parted = co_await part(number);
    if (!parted && parted.error().code() != Code::unavailable) co_return parted;
    co_return Result<void>();
  }
  const TimePoint since = away_since_.try_emplace(number, now).first->second;
  if (now - since < plane_.tuning.missing_grace) co_return Result<void>();
  std::string why = drive != nullptr ? drive->reason() : drives_.absence(known.path);
  if (why.empty()) why = "it was not there";
  const bool taken = drive != nullptr && drive->taken();
  const bool away = drive == nullptr || drive->suspended() || drive->gone() || needed_for_reading(*drives_.topology(), number);
  if (known.disabled || !away) co_return co_await lose(number, why, DriveCause::none);
  co_return co_await lose(number, fmt::format("missing: {}", why), taken ? DriveCause::taken : DriveCause::away);
}

Task<void> Administration::run() {
  Duration pause{0};
  TimePoint map_from{};  // before, the map is not to be changed
  while (!plane_.background.stopping()) {
    const bool all = Executor::here().now() >= map_from;
    Result<void> done = co_await look(all ? Scope::all : Scope::drives_alone);
    if (done && all) pause = Duration(0);
    if (!done) {
      pause = std::clamp(2 * pause, kLook, kMapPauseMax);
      map_from = Executor::here().now() + pause;
      if (!plane_.background.stopping())
        LOG_WARNING("what was seen of the drives cannot be written down; it will be tried again", {"in", format_duration(pause)},
                    {"error", done.error().to_string()});
    }
    co_await sleep_for(kLookSoonest);
    co_await alarm.wait(kLook);
  }
}

}  // namespace quarry::cluster
