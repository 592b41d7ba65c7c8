// The part of the administration that looks at drives which are in use: slow ones, and what is below files that stand for drives. The rest
// is in administration.cc.
#include "base/log.h"
#include "cluster/node/administration.h"

namespace quarry::cluster {
namespace {

constexpr Duration kLookBelow = std::chrono::seconds(5);

}  // namespace

// A drive is slow at something when its median takes many times as long as the median of its peers.
void Administration::judge_speed() {
  for (const Drive* drive : judge_speed(reads_)) {
    LOG_WARNING("drive is slow: reads go around it", {"drive", drive->number()}, {"path", drive->path()});
  }
  for (const Drive* drive : judge_speed(writes_)) {
    LOG_WARNING("drive is slow: writes wait for it", {"drive", drive->number()}, {"path", drive->path()});
  }
}

std::vector<Drive*> Administration::judge_speed(Speed& speed) {
  const auto latency = speed.latency;
  const auto slow = speed.slow;
  constexpr int kSlowFactor = 8;
  constexpr Duration kSlowMin = std::chrono::milliseconds(10);
  constexpr Duration kSlowAgain = std::chrono::seconds(30);
  const std::vector<Drive*> all = drives_.all();
  std::vector<Drive*> found;
  std::vector<Duration> medians;
  for (Drive* drive : all) {
    const Duration median = (drive->*latency).quantile(0.5, Duration(0));
    if (drive->readable() && median.count() > 0) medians.push_back(median);
  }
  if (medians.size() < 2) return found;
  std::nth_element(medians.begin(), medians.begin() + (medians.size() - 1) / 2, medians.end());
  const Duration usual = medians[(medians.size() - 1) / 2];
  for (Drive* drive : all) {
    const Duration median = (drive->*latency).quantile(0.5, Duration(0));
    const bool is_slow = median > kSlowMin && median > usual * kSlowFactor;
    if (is_slow && !(drive->*slow).exchange(true)) found.push_back(drive);
    if (!is_slow) {
      if (median.count() > 0) (drive->*slow).store(false);
      speed.since.erase(drive->number());
      continue;
    }
    // What it did long ago would hide that it recovered: now and then its past is forgotten. Where nobody reads from it any more nothing
    // would show it at all.
    const TimePoint now = Executor::here().now();
    if (now - speed.since.try_emplace(drive->number(), now).first->second < kSlowAgain) continue;
    (drive->*latency).reset();
    if (speed.is_gone_around) (drive->*slow).store(false);
    speed.since.erase(drive->number());
  }
  return found;
}

// What lies below files that stand for drives: their holes are filled from one space.
void Administration::look_below(TimePoint now) {
  const std::vector<Drive*> all = drives_.all();
  if (now - looked_below_at_ >= kLookBelow) {
    looked_below_at_ = now;
    for (Drive* drive : all) {
      if (drive->readable()) drive->look_below();
    }
  }
  std::map<std::string, unsigned> sharers;
  for (Drive* drive : all) {
    if (const std::string below = drive->file_system_below(); !below.empty() && !drive->closing()) ++sharers[below];
  }
  for (Drive* drive : all) drive->share_below(sharers[drive->file_system_below()]);
}

}  // namespace quarry::cluster
