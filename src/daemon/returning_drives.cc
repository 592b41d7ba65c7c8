#include "daemon/returning_drives.h"

#include <filesystem>

#include "base/log.h"
#include "daemon/drive_kind.h"
#include "daemon/patience.h"
#include "io/ring_executor.h"

namespace quarry::daemon {
namespace {

constexpr Duration kLook = std::chrono::seconds(5);
constexpr Duration kSearch = std::chrono::seconds(60);  // all devices of the machine
constexpr Duration kAgain = std::chrono::seconds(20);   // after a drive was found, doubled each time: it may come and go
constexpr Duration kAgainMax = std::chrono::minutes(10);

Task<void> forget(DriveIdentity) { co_return; }

Task<bool> is_at(Executor* home, DriveSpec spec, Uuid id, const Event* stopping) {
  const auto found =
      co_await while_it_answers<DriveIdentity>(spec, *home, kAskedPatience, spec.kind->identify(spec.path), forget, nullptr, stopping);
  co_return found && found->drive == id;
}

std::vector<std::string> block_devices() {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/block", error)) {
    const std::string path = "/dev/" + entry.path().filename().string();
    if (std::filesystem::exists(path, error)) paths.push_back(path);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Where the drive is now; empty: nowhere.
Task<std::string> find_drive(Executor* home, cluster::DriveStatus drive, bool everywhere, const Event* stopping) {
  auto spec = parse_drive_spec(drive.path);
  if (!spec) co_return std::string();
  const bool in_place = co_await is_at(home, *spec, drive.id, stopping);
  if (in_place) co_return drive.path;
  if (!everywhere || spec->kind != &raw_drive_kind()) co_return std::string();
  for (const std::string& path : block_devices()) {
    if (stopping->is_set()) break;
    const bool here = co_await is_at(home, DriveSpec{spec->kind, path}, drive.id, stopping);
    if (here) co_return path;
  }
  co_return std::string();
}

}  // namespace

ReturningDrives::ReturningDrives(Executor& home, cluster::DataPlane& data) : home_(home), data_(data) {
  wait_on(home_, [](ReturningDrives* self) -> Task<void> {
    self->group_.spawn(self->run());
    co_return;
  }(this));
}

void ReturningDrives::stop() { wait_on(home_, end()); }

Task<void> ReturningDrives::end() {
  stopping_.set();
  co_await group_.join();
}

Task<void> ReturningDrives::run() {
  while (!stopping_.is_set()) {
    co_await look();
    co_await stopping_.wait_until(Executor::here().now() + kLook);
  }
}

Task<void> ReturningDrives::look() {
  for (const cluster::DriveStatus& drive : data_.drives()) {
    const bool away = (drive.state == "missing" || drive.state == "failed") && drive.cause == "away";
    if (!away || stopping_.is_set()) {
      waits_.erase(drive.number);
      continue;
    }
    Wait& wait = waits_[drive.number];
    const TimePoint now = Executor::here().now();
    if (now < wait.next) continue;
    const bool everywhere = now >= wait.search;
    if (everywhere) wait.search = now + kSearch;
    const std::string path = co_await find_drive(&home_, drive, everywhere, &stopping_);
    if (path.empty() || stopping_.is_set()) continue;
    wait.pause = std::min(wait.pause.count() == 0 ? kAgain : 2 * wait.pause, kAgainMax);
    wait.next = now + wait.pause;
    LOG_INFO("a drive that was away is there again", {"drive", drive.number}, {"path", path});
    const Result<void> back = co_await data_.take_back_drive(drive.number, path);
    if (!back) LOG_WARNING("it cannot be taken back yet", {"drive", drive.number}, {"path", path}, {"error", back.error().to_string()});
  }
}

}  // namespace quarry::daemon
