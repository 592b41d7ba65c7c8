#include "cluster/node/health.h"

#include "base/units.h"

namespace quarry::cluster {
namespace {

constexpr uint64_t kNearlyFullShare = 20;  // a drive is nearly full when less than a twentieth of it is left

std::string_view plural(uint64_t count) { return count == 1 ? "" : "s"; }

class Verdict {
 public:
  void add(HealthLevel level, std::string_view cause, std::string sentence) {  // the worst first
    const auto at = std::ranges::find_if(status_.problems, [level](const HealthProblem& other) { return other.level < level; });
    status_.problems.insert(at, {level, cause, std::move(sentence)});
  }
  void degraded(std::string_view cause, std::string sentence) { add(HealthLevel::degraded, cause, std::move(sentence)); }
  HealthStatus take() { return std::move(status_); }

 private:
  HealthStatus status_;
};

void judge_away(Verdict& verdict, const DriveStatus& drive) {
  const std::string why = drive.reason.empty() ? std::string("the reason is not known") : drive.reason;
  if (drive.holds_data) {
    verdict.degraded("drive_away", fmt::format("drive {} ({}) is {}: {}", drive.number, drive.path, drive.state, why));
  } else {
    verdict.add(HealthLevel::healthy, "drive_away",
                fmt::format("drive {} ({}) is {}: {}; no data depends on it", drive.number, drive.path, drive.state, why));
  }
}

void judge_drive(Verdict& verdict, const DriveStatus& drive) {
  const std::string name = fmt::format("drive {} ({})", drive.number, drive.path);
  if (drive.state == "removed") return;
  if (drive.state == "failed" || drive.state == "missing" || drive.state == "disabled") return judge_away(verdict, drive);
  if (drive.state == "read-only")
    verdict.degraded("drive_read_only", fmt::format("{} takes no writes any more: {}; new data has fewer copies or shards without it", name,
                                                    drive.reason.empty() ? "the reason is not known" : drive.reason));
  if (!drive.unwell.empty()) verdict.degraded("drive_failing", fmt::format("{} is in use, but {}", name, drive.unwell));
  if (drive.failed_calls > 0)
    verdict.degraded("drive_errors", fmt::format("{}: {} call{} failed lately, the last: {}", name, drive.failed_calls,
                                                 plural(drive.failed_calls), drive.last_error));
  if (drive.slow) verdict.degraded("drive_slow", fmt::format("{} is by far slower than the others: reads go around it", name));
  if (drive.slow_writes)
    verdict.degraded("drive_slow",
                     fmt::format("{} is by far slower than the others at writes, which wait for it; if that stays so, put another "
                                 "in its place: `quarry device replace {} NEW`",
                                 name, drive.number));
  if (drive.shrunk_from_bytes > 0)
    verdict.degraded("drive_shrunk",
                     fmt::format("{} has shrunk from {} to {}", name, format_size(drive.shrunk_from_bytes), format_size(drive.size_bytes)));
  if (drive.state == "active" && drive.size_bytes > 0 && drive.room_bytes < drive.size_bytes / kNearlyFullShare)
    verdict.degraded("drive_full", fmt::format("{} is nearly full: of {} there is room for {} of data", name, format_size(drive.size_bytes),
                                               format_size(drive.room_bytes)));
}

void judge_data(Verdict& verdict, const HealthFacts& facts) {
  const Exposure& exposure = facts.exposure;
  if (exposure.unreadable > 0)
    verdict.add(
        HealthLevel::unreadable, "unreadable",
        fmt::format("data in {} of {} placement groups cannot be read: too many drives are away", exposure.unreadable, exposure.groups));
  if (const uint64_t lost = facts.repair.lost_writes; lost > 0)
    verdict.add(HealthLevel::unreadable, "unreadable",
                fmt::format("{} write{} cannot be read: too few of their copies or shards are left", lost, plural(lost)));
  if (exposure.short_of > 0 && exposure.unreadable == 0)
    verdict.degraded("redundancy", fmt::format("data in {} of {} placement groups lacks copies or shards: the most endangered survives the "
                                               "loss of {} more drive{} instead of {}",
                                               exposure.short_of, exposure.groups, exposure.spare, plural(exposure.spare), facts.losses));
  if (const uint64_t pending = facts.repair.pending_writes; pending > 0)
    verdict.degraded("redundancy",
                     fmt::format("{} write{} wait for copies or shards to be made ({})", pending, plural(pending), facts.repair.activity));
  if (const uint64_t changed = facts.repair.changed_writes; changed > 0)
    verdict.degraded("file_changed", fmt::format("{} file{} without another copy changed behind Quarry's back: put them back, or adopt "
                                                 "them again",
                                                 changed, plural(changed)));
  if (const uint64_t damaged = facts.scrub.damaged - std::min(facts.scrub.damaged, facts.scrub.repaired); damaged > 0)
    verdict.degraded("damage", fmt::format("scrub found {} damaged piece{} that could not be repaired yet", damaged, plural(damaged)));
  if (!facts.read_only_reason.empty())
    verdict.degraded("writes_refused", fmt::format("the store is read-only: {}", facts.read_only_reason));
}

}  // namespace

std::string_view health_level_name(HealthLevel level) {
  switch (level) {
    case HealthLevel::healthy: return "healthy";
    case HealthLevel::degraded: return "degraded";
    case HealthLevel::unreadable: return "unreadable";
  }
  return "?";
}

HealthLevel HealthStatus::level() const {
  HealthLevel worst = HealthLevel::healthy;
  for (const HealthProblem& problem : problems) worst = std::max(worst, problem.level);
  return worst;
}

HealthStatus judge_health(const HealthFacts& facts) {
  Verdict verdict;
  judge_data(verdict, facts);
  for (const DriveStatus& drive : facts.drives) judge_drive(verdict, drive);
  for (const auto& [path, why] : facts.waiting) {
    const bool told = std::ranges::any_of(facts.drives, [&](const auto& drive) { return drive.path == path && drive.state != "removed"; });
    if (!told) verdict.add(HealthLevel::healthy, "drive_waiting", fmt::format("{} is not used: {}", path, why));
  }
  return verdict.take();
}

}  // namespace quarry::cluster
