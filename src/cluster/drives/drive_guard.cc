#include "cluster/drives/drive_guard.h"

#include "base/log.h"
#include "base/units.h"
#include "cluster/drives/drive_path.h"
#include "cluster/drives/exposure.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(250);
constexpr Duration kTickAtTheEnd = std::chrono::milliseconds(5);
constexpr Duration kCheckHealth = std::chrono::seconds(5);    // of every drive; at once after errors
constexpr Duration kHangPatience = std::chrono::seconds(30);  // for a check, or for a put to a raw drive
constexpr Duration kCheckHealthAtTheEnd = std::chrono::seconds(1);
constexpr Duration kHangPatienceAtTheEnd = std::chrono::seconds(5);  // at least: a machine that is slow is slow at its end, too
constexpr unsigned kChecksAtTheEnd = 8;                              // and that many times what checks took before
constexpr Duration kCheckTime = std::chrono::seconds(2);             // so long check() waits for the checks that it began
constexpr Duration kStoreClock = std::chrono::seconds(2);            // a store's own patience may end so much earlier
constexpr unsigned kUnwellMax = 2;                                   // failed checks in a row until the drive is disabled

}  // namespace

DriveGuard::DriveGuard(DriveSet& drives, Executor& home, std::function<void()> changed)
    : drives_(drives), changed_(std::move(changed)), tasks_(home) {}

void DriveGuard::forget(uint32_t number) {
  unwell_.erase(number);
  if (Drive* drive = drives_.find(number); drive != nullptr) drive->note_unwell("");
}

bool DriveGuard::is_spare(const Drive& drive) const {
  const auto topology = drives_.topology();
  const bool in_use = topology->drive(drive.number()) == &drive;  // else it was opened just now, or again
  return !in_use || !needed_for_reading(*topology, drive.number());
}

// From now on it is used for nothing, and nobody waits for it any more.
void DriveGuard::hangs(Drive& drive, std::string why) {
  static const Counter suspended = metrics::counter("cluster_drives_suspended_total", "Drives that were taken out of use while they hung");
  if (drive.condition() == DriveCondition::down) {  // out of use already; what still waits for it is told
    drive.give_up();
    return;
  }
  if (!ending_.load(std::memory_order_acquire) && !is_spare(drive)) {
    drive.note_unwell(why);
    if (kept_.insert(&drive).second)
      LOG_ERROR("drive hangs and stays in use all the same: without it some data could not be read", {"drive", drive.number()},
                {"path", drive.path()}, {"why", why});
    return;
  }
  LOG_ERROR("drive hangs: it is not used until it answers", {"drive", drive.number()}, {"path", drive.path()}, {"why", why});
  suspended.add();
  drive.suspend(std::move(why));
  drive.give_up();
  changed_();
}

void DriveGuard::failed_check(Drive& drive, const Error& error) {
  const uint32_t number = drive.number();
  if (drive.disabled() || drives_.find(number) != &drive) return;
  const unsigned count = ++unwell_[number];
  if (count <= kUnwellMax)
    LOG_WARNING("drive fails its health check", {"drive", number}, {"path", drive.path()}, {"error", error.to_string()});
  const std::string why = fmt::format("its health check failed: {}", error.to_string());
  drive.note_unwell(why);
  if (count < kUnwellMax) return;
  if (!is_spare(drive)) {
    if (count == kUnwellMax)
      LOG_ERROR("drive stays in use although it fails its health checks: without it some data could not be read", {"drive", number},
                {"path", drive.path()});
    return;
  }
  drive.disable(why);
  drive.give_up();
  changed_();
}

// Those that could not be spared, and answer again.
void DriveGuard::end_of_silence(const std::vector<std::pair<Drive*, std::string>>& hanging) {
  std::erase_if(kept_, [&](Drive* drive) {
    if (std::ranges::any_of(hanging, [drive](const auto& one) { return one.first == drive; })) return false;
    if (drive->condition() == DriveCondition::down) return true;
    LOG_INFO("drive answers again", {"drive", drive->number()}, {"path", drive->path()});
    drive->note_unwell("");
    return true;
  });
}

Task<void> DriveGuard::check_one(Drive* drive) {
  const Result<void> well = co_await drive->check_health();
  const Duration silent = checks_.at(drive).silence.look(checks_.at(drive).began, lived(*drive));
  if (well && silent < kHangPatience) slowest_check_ = std::max(silent, slowest_check_ - slowest_check_ / 32);
  checks_.erase(drive);
  const bool suspended = drive->suspended();
  const bool is_well = well.has_value();
  if (suspended && drive->hangs()) co_return;  // given up
  if (is_well) {
    unwell_.erase(drive->number());
    if (!kept_.contains(drive)) drive->note_unwell("");
    if (!suspended) co_return;
    LOG_INFO("drive answers again", {"drive", drive->number()}, {"path", drive->path()});
    drive->resume();
    changed_();
    co_return;
  }
  const Code code = well.error().code();
  if (code == Code::timed_out) {  // by the store's own clock, which may have counted time in which nobody lived
    if (silent >= kHangPatience - kStoreClock) hangs(*drive, well.error().to_string());
  } else if (code == Code::overloaded) {  // what this process has run out of is no fault of the drive's
    drive->note_unwell(fmt::format("it cannot be checked: {}", well.error().to_string()));
  } else if (suspended || drive->readable()) {
    failed_check(*drive, well.error());
  }
}

// Every few seconds, and at once when a drive answered errors of the kind that may come from a failing path, or is expected back.
void DriveGuard::begin_checks(TimePoint now) {
  const bool all = now - checked_at_ >= (ending_.load(std::memory_order_acquire) ? kCheckHealthAtTheEnd : kCheckHealth);
  if (all) checked_at_ = now;
  for (Drive* drive : drives_.all()) {
    const bool suspicious = drive->suspicious();
    const bool expected_back = drive->suspended() && !drive->disabled() && !drive->broken() && !drive->hangs();
    if (checks_.contains(drive) || !(drive->readable() || expected_back)) continue;
    if (!all && !suspicious && !expected_back && !unwell_.contains(drive->number())) continue;
    checks_.emplace(drive, Check{.began = now, .silence = {}});
    tasks_.spawn_here(check_one(drive));
  }
}

// Whether the loop runs: time that it did not live is held against none of its drives.
Task<void> DriveGuard::listen(Executor* loop) {
  co_await loop->enter();
  co_await tasks_.home().enter();
  loops_[loop].asked = false;
}

Duration DriveGuard::patience() const {
  const bool ending = ending_.load(std::memory_order_acquire) || tasks_.stopping();
  return ending ? std::clamp<Duration>(kChecksAtTheEnd * slowest_check_, kHangPatienceAtTheEnd, kHangPatience) : kHangPatience;
}

void DriveGuard::tick() {
  const Duration passed = time_.tick(Executor::here().now());
  const std::vector<Drive*> all = drives_.all();
  std::set<Executor*> owners;
  for (Drive* drive : all) owners.insert(&drive->owner());
  for (Executor* owner : owners) {
    Loop& loop = loops_[owner];
    if (loop.asked) continue;
    loop.lived += passed;
    loop.asked = true;
    tasks_.spawn_here(listen(owner));
  }
  const Duration patience = this->patience();
  std::vector<std::pair<Drive*, std::string>> hanging;
  for (auto& [drive, check] : checks_) {
    const Duration silent = check.silence.look(check.began, lived(*drive));
    if (silent >= patience) hanging.emplace_back(drive, fmt::format("it has not answered for {}: it hangs", format_duration(silent)));
  }
  for (Drive* drive : all) {
    // A directory has a check of its own, which tells a disk that hangs from one that has much to do.
    const bool judged = drive->condition() == DriveCondition::down || parse_drive_path(drive->path()).kind == "raw";
    const Duration silent = puts_[drive].look(drive->oldest_put(), lived(*drive));
    if (silent >= patience && judged)
      hanging.emplace_back(drive, fmt::format("a write has not come back for {}: it hangs", format_duration(silent)));
  }
  end_of_silence(hanging);
  for (auto& [drive, why] : hanging) hangs(*drive, std::move(why));
}

Task<void> DriveGuard::watch() {
  // Drives are watched while the store closes, too: who waits for one that hangs could not come to an end otherwise.
  while (!tasks_.stopping() || !checks_.empty()) {
    if (!tasks_.stopping()) begin_checks(Executor::here().now());
    tick();
    if (tasks_.stopping()) {
      co_await sleep_for(kTickAtTheEnd);
    } else {
      co_await ends_.wait_until(Executor::here().now() + kTick);
    }
  }
}

Task<void> DriveGuard::stop() {
  release_all();
  tasks_.request_stop();
  ends_.set();
  co_await tasks_.join();
}

Task<void> DriveGuard::check() {
  const TimePoint now = Executor::here().now();
  begin_checks(now);
  const auto begun_now = [&] { return std::ranges::any_of(checks_, [&](const auto& check) { return check.second.began >= now; }); };
  while (begun_now() && Executor::here().now() < now + kCheckTime) co_await sleep_for(std::chrono::milliseconds(5));
}

}  // namespace quarry::cluster
