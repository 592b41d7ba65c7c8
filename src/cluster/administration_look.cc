// The part of the administration that looks at drives which are in use: slow ones, and what is below files that stand for drives. The rest
// is in administration.cc.
#include "base/log.h"
#include "cluster/administration.h"

namespace quarry::cluster {
namespace {

constexpr Duration kLookBelow = std::chrono::seconds(5);

}  // namespace

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
