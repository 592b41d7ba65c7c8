#include "cluster/repair/repair.h"

#include <set>

#include "base/log.h"
#include "cluster/files/files.h"
#include "cluster/map/keys.h"
#include "meta/row_batches.h"

namespace quarry::cluster {
namespace {

constexpr size_t kRowBatch = 128;
constexpr size_t kGroupsParallel = 4;  // so that all drives take part
constexpr size_t kWritesParallel = 4;  // of a group
constexpr Duration kIdle = std::chrono::seconds(5);
constexpr Duration kLookAtLost = std::chrono::seconds(30);  // how often what is lost is read again
constexpr size_t kLookAtLostMax = 64;                       // of them at a time
constexpr size_t kAskForLostMax = 1024;                     // of them a round: is it still referenced?

// A row that says something else by now asks for something else.
Task<Result<void>> remove_unchanged(meta::Transaction& transaction, const std::vector<meta::KeyValue>& rows) {
  for (const meta::KeyValue& row : rows) {
    CO_TRY_ASSIGN(const std::optional<std::string> present, co_await transaction.get(row.key));
    if (present && *present == row.value) transaction.remove(row.key);
  }
  co_return Result<void>();
}

std::string describe_group(const ClusterMap& map, const GroupKey& key) {
  const Members members = map.members(key.width, key.group);
  for (const Member& member : members) {
    if (!member.pending) continue;
    for (const auto& [number, drive] : map.drives) {
      if (drive.state == DriveState::failed) return fmt::format("rebuilding what drive {} held", number);
      if (drive.state == DriveState::draining) return fmt::format("draining drive {}", number);
    }
    return "rebalancing";
  }
  return "checking";
}

}  // namespace

Repairer::Repairer(Plane& plane, MapKeeper& maps)
    : plane_(plane), maps_(maps), budget_(plane, plane.tuning.repair_bytes_per_second), alarm(plane.background) {
  status_.activity = "idle";
}

RepairStatus Repairer::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void Repairer::set_activity(std::string activity) {
  std::lock_guard lock(mutex_);
  status_.activity = std::move(activity);
}

void Repairer::note(const Outcome& outcome) {
  std::lock_guard lock(mutex_);
  if (outcome.repaired_shards > 0) ++status_.repaired_writes;
  status_.repaired_bytes += outcome.repaired_bytes;
  count_lost();
  const double seconds = static_cast<double>((Executor::here().now() - began_).count()) / 1e9;
  if (seconds > 0) status_.bytes_per_second = static_cast<double>(status_.repaired_bytes - bytes_at_begin_) / seconds;
}

void Repairer::count_lost() {
  status_.changed_writes = static_cast<uint64_t>(std::ranges::count_if(lost_, [](const auto& one) { return one.second.changed; }));
  status_.lost_writes = lost_.size() - status_.changed_writes;
}

void Repairer::note_lost(const DataLayout& layout, const Outcome& outcome) {
  const auto known = lost_.find(layout.write_id);
  if (!outcome.lost) {
    if (known == lost_.end()) return;
    if (!outcome.gone) LOG_INFO("data that was lost can be read again", {"write", layout.write_id});
    lost_.erase(known);
    more_lost_ = false;
  } else if (known == lost_.end() && lost_.size() >= plane_.tuning.lost_writes_max) {
    if (!std::exchange(more_lost_, true))
      LOG_ERROR("more data cannot be repaired than is remembered: only so many writes are counted", {"writes", lost_.size()});
  } else if (known == lost_.end() || known->second.changed != outcome.changed) {
    lost_[layout.write_id] = {layout, outcome.changed};
    if (outcome.changed) {
      LOG_WARNING("a file of which there is no other copy was changed or removed behind our back", {"write", layout.write_id},
                  {"error", outcome.why_lost});
    } else {
      LOG_ERROR("data cannot be repaired", {"write", layout.write_id}, {"error", outcome.why_lost});
    }
  }
  std::lock_guard lock(mutex_);
  count_lost();
}

Task<Result<void>> Repairer::look_at_lost() {
  if (lost_.empty()) co_return Result<void>();
  // Some at a time: a round stays short, however much is lost.
  std::vector<DataLayout> known;
  std::vector<std::string> wanted;
  for (auto at = lost_.upper_bound(lost_asked_for_); at != lost_.end() && known.size() < kAskForLostMax; ++at) {
    known.push_back(at->second.layout);
    wanted.push_back(keys::data(at->second.layout));
  }
  lost_asked_for_ = known.size() < kAskForLostMax ? 0 : known.back().write_id;
  CO_TRY_ASSIGN(const auto rows, co_await plane_.meta.get_many(std::move(wanted)));
  for (size_t i = 0; i < known.size(); ++i) {
    if (!rows[i]) note_lost(known[i], {.gone = true});
  }
  if (Executor::here().now() < next_look_at_lost_) co_return Result<void>();
  next_look_at_lost_ = Executor::here().now() + kLookAtLost;
  std::vector<DataLayout> look;
  for (auto at = lost_.upper_bound(lost_looked_at_); at != lost_.end() && look.size() < kLookAtLostMax; ++at)
    look.push_back(at->second.layout);
  lost_looked_at_ = look.size() < kLookAtLostMax ? 0 : look.back().write_id;
  for (const DataLayout& layout : look) {
    if (plane_.background.stopping()) break;
    Result<Outcome> outcome = co_await repair_write(layout, Depth::verify);
    if (outcome) note(*outcome);
  }
  co_return Result<void>();
}

Task<void> Repairer::run() {
  while (!plane_.background.stopping()) {
    Result<bool> done = true;
    if (plane_.may_remove()) done = co_await round();
    if (!done && !plane_.background.stopping())
      LOG_WARNING("repair round failed; it will be tried again", {"error", done.error().to_string()});
    co_await alarm.wait(done && !*done ? Duration(std::chrono::milliseconds(200)) : kIdle);
  }
}

Task<Result<bool>> Repairer::round() {
  co_await turn_.acquire();
  {
    std::lock_guard lock(mutex_);
    began_ = Executor::here().now();
    bytes_at_begin_ = status_.repaired_bytes;
  }
  moving_ = true;
  while (widening_ > 0) co_await widened_.wait();
  Result<bool> groups = co_await repair_groups();
  moving_ = false;
  Result<bool> queue = true;
  if (groups) queue = co_await repair_queue();
  co_await plane_.files->settle_unsettled();
  Result<void> looked = co_await look_at_lost();
  std::move(looked).ignore("the next round looks again");
  const auto topology = plane_.drives.topology();
  const ClusterMap::Health health = topology->map.health();
  std::string activity = "idle";
  if (health.without > 0)
    activity = fmt::format("{} shard positions are on failed drives and no drive is free to take them: add a drive", health.without);
  {
    std::lock_guard lock(mutex_);
    status_.activity = std::move(activity);
    status_.eta_seconds = -1;
    count_lost();
    status_.bytes_per_second = 0;
    // Losses that data at the default redundancy survives now.
    const unsigned losses = topology->map.redundancy.losses();
    unsigned least = losses;
    for (uint8_t width : topology->map.widths()) {
      if (width != topology->map.redundancy.width()) continue;
      for (uint32_t group = 0; group < topology->map.group_count; ++group) {
        unsigned away = 0;
        for (const Member& member : *topology->map.find_members(width, static_cast<GroupId>(group))) {
          Drive* drive = topology->drive(member.at.drive);
          away += drive == nullptr || !drive->readable() || (member.pending && member.before.empty());
        }
        least = std::min(least, losses - std::min(away, losses));
      }
    }
    status_.lowest_redundancy = least;
  }
  turn_.release();
  if (!groups) co_return groups;
  if (!queue) co_return queue;
  co_return *groups && *queue;
}

Task<Result<bool>> Repairer::repair_groups() {
  auto topology = plane_.drives.topology();
  std::vector<GroupWork> work;
  for (uint8_t width : topology->map.widths()) {
    for (uint32_t group = 0; group < topology->map.group_count; ++group) {
      const Members& members = *topology->map.find_members(width, static_cast<GroupId>(group));
      GroupWork item{{width, static_cast<GroupId>(group)}};
      bool pending = false;
      for (const Member& member : members) {
        if (!member.pending) continue;
        pending = true;
        bool source = false;
        for (const Place& place : member.before) {
          Drive* drive = topology->drive(place.drive);
          source = source || (drive != nullptr && drive->readable());
        }
        item.endangered += !source;
      }
      if (pending) work.push_back(item);
    }
  }
  if (work.empty()) co_return co_await plan_the_rest();
  planned_ = false;
  std::sort(work.begin(), work.end(),
            [](const GroupWork& a, const GroupWork& b) { return std::pair(b.endangered, a.key) < std::pair(a.endangered, b.key); });
  GroupQueue queue{.work = std::move(work), .began = Executor::here().now()};
  TaskGroup workers;
  for (size_t i = 0; i < std::min(kGroupsParallel, queue.work.size()); ++i) workers.spawn(repair_some(&queue));
  co_await workers.join();
  {
    std::lock_guard lock(mutex_);
    status_.pending_writes = 0;
  }
  if (!queue.all) co_return false;
  co_return co_await plan_the_rest();
}

// Positions that have been in too many places keep the one they have until their chunks have come to rest (ClusterMap::replan). True: no
// position is to move any more.
Task<Result<bool>> Repairer::plan_the_rest() {
  if (planned_) co_return true;
  ClusterMap map = plane_.drives.topology()->map;
  planned_ = map.replan() == 0;
  if (planned_) co_return true;
  CO_TRY(co_await maps_.change([](ClusterMap& present) -> Result<void> {
    present.replan();
    return {};
  }));
  co_return false;
}

Task<void> Repairer::repair_some(GroupQueue* queue) {
  while (queue->next < queue->work.size() && !plane_.background.stopping()) {
    const GroupWork work = queue->work[queue->next++];
    set_activity(describe_group(plane_.drives.topology()->map, work.key));
    Result<bool> complete = co_await repair_group(work, &queue->rows);
    if (!complete) LOG_WARNING("a group could not be repaired", {"group", work.key.group}, {"error", complete.error().to_string()});
    queue->all = queue->all && complete && *complete;
    ++queue->done;
    // Groups hold about as many writes as each other: what was seen tells how many are left.
    const double share = static_cast<double>(queue->work.size() - queue->done) / static_cast<double>(queue->done);
    const double seconds = static_cast<double>((Executor::here().now() - queue->began).count()) / 1e9;
    std::lock_guard lock(mutex_);
    status_.pending_writes = static_cast<uint64_t>(static_cast<double>(queue->rows) * share);
    status_.eta_seconds = static_cast<int64_t>(seconds * share);
  }
}

Task<Result<bool>> Repairer::repair_group(GroupWork work, uint64_t* rows_seen) {
  auto topology = plane_.drives.topology();
  const Members* found = topology->map.find_members(work.key.width, work.key.group);
  if (found == nullptr) co_return true;
  const Members members = *found;
  std::vector<unsigned> shards;
  for (unsigned i = 0; i < members.size(); ++i) {
    if (!members[i].pending) continue;
    Drive* drive = topology->drive(members[i].at.drive);
    if (drive == nullptr || !drive->writable()) continue;
    shards.push_back(i);
  }
  if (shards.empty()) co_return false;
  // Writers that place by an older topology may still commit rows behind this scan: then the group stays pending for another.
  const bool final_scan = !plane_.writes.any_before(topology->map.epoch);
  bool complete = true;
  std::set<uint32_t> away;  // these keep chunks that belong elsewhere from now on
  // What is lost now may be readable when they are back.
  const auto any_away = [&] {
    return std::ranges::any_of(members, [&](const Member& member) {
      return std::ranges::any_of(places_of(member), [&](const Place& place) {
        const auto known = topology->map.drives.find(place.drive);
        if (known == topology->map.drives.end()) return false;
        const bool expected = known->second.state == DriveState::active || known->second.state == DriveState::draining;
        const Drive* drive = topology->drive(place.drive);
        return expected && (drive == nullptr || !drive->readable());
      });
    });
  };
  meta::RowBatches batches(plane_.meta, keys::data_of_group(work.key.group), kRowBatch);
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty() || plane_.background.stopping()) break;
    *rows_seen += rows.size();
    std::vector<DataLayout> layouts;
    for (const meta::KeyValue& row : rows) {
      Decoder in(row.value);
      Result<DataLayout> layout = DataLayout::decode(in);
      if (layout && layout->redundancy.width() == work.key.width) layouts.push_back(*layout);
      complete = complete && layout;  // what cannot be read may be of this group: fsck names it, and nothing is forgotten
    }
    for (size_t begin = 0; begin < layouts.size() && !plane_.background.stopping(); begin += kWritesParallel) {
      std::vector<Task<Result<Outcome>>> tasks;
      for (size_t i = begin; i < std::min(begin + kWritesParallel, layouts.size()); ++i)
        tasks.push_back(settle_shards(layouts[i], shards, Depth::presence));
      std::vector<Result<Outcome>> outcomes = co_await when_all(std::move(tasks));
      for (const auto& outcome : outcomes) {
        if (!outcome) {
          complete = false;
          continue;
        }
        // The map keeps the places where a file may be put back, and those on drives that may come back.
        if (outcome->lacking > 0 || outcome->changed || outcome->again || (outcome->lost && any_away())) complete = false;
        away.insert(outcome->left_on.begin(), outcome->left_on.end());
        note(*outcome);
      }
    }
  }
  if (!complete || !final_scan || plane_.background.stopping()) co_return false;
  // Writes that were retired before the scan came to them still have chunks in the old places; the sweeper finds them there only while the
  // map names these places.
  CO_TRY_ASSIGN(bool retired, co_await has_retired(work.key));
  if (retired) {
    plane_.wake_sweeper();
    co_return false;
  }
  const GroupKey key = work.key;
  for (unsigned shard : shards) {
    for (const Place& place : members[shard].before) {
      Drive* drive = topology->drive(place.drive);
      if (drive == nullptr || !drive->readable()) away.insert(place.drive);
    }
  }
  CO_TRY(co_await maps_.change([key, shards, members, away](ClusterMap& map) -> Result<void> {
    for (uint32_t number : away) {
      if (auto drive = map.drives.find(number); drive != map.drives.end()) drive->second.audit = true;
    }
    const Members* now = map.find_members(key.width, key.group);
    if (now == nullptr) return fail(Code::not_found, "group {} of width {}", key.group, key.width);
    Members settled = *now;
    for (unsigned shard : shards) {
      if (settled[shard].at != members[shard].at) continue;  // planned anew meanwhile
      settled[shard].pending = false;
      settled[shard].before.clear();
    }
    map.set_members(key, std::move(settled));
    return {};
  }));
  co_return true;
}

Task<Result<bool>> Repairer::has_retired(GroupKey key) {
  meta::RowBatches batches(plane_.meta, meta::KeyRange::prefix("cr"));
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty()) co_return false;
    for (const meta::KeyValue& row : rows) {
      Decoder in(row.value);
      CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
      if (layout.group == key.group && layout.redundancy.width() == key.width) co_return true;
    }
  }
}

Task<Result<std::optional<DataLayout>>> Repairer::present_layout(DataLayout layout) {
  std::optional<DataLayout> present;
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await plane_.meta.get(keys::data(layout)));
  if (!row) co_return present;
  Decoder in(*row);
  CO_TRY_ASSIGN(present, DataLayout::decode(in));
  co_return present;
}

Task<Result<bool>> Repairer::repair_queue() {
  // What readers met.
  for (;;) {
    std::vector<DataLayout> asked = plane_.repairs.take(kWritesParallel);
    if (asked.empty() || plane_.background.stopping()) break;
    // What is lost is looked at at its own pace, unless some of it was found.
    std::erase_if(asked, [&](const DataLayout& layout) { return lost_.contains(layout.write_id) && !plane_.strays.has(layout.write_id); });
    set_activity("repairing damaged data");
    std::vector<Task<Result<Outcome>>> tasks;
    for (const DataLayout& layout : asked) tasks.push_back(repair_write(layout, Depth::verify));
    std::vector<Result<Outcome>> outcomes = co_await when_all(std::move(tasks));
    for (size_t i = 0; i < outcomes.size(); ++i) {
      if (outcomes[i]) {
        note(*outcomes[i]);
      } else {
        LOG_WARNING("repair of a write failed", {"write", asked[i].write_id}, {"error", outcomes[i].error().to_string()});
      }
    }
  }
  // What was written with fewer shards; key order is most endangered first.
  meta::RowBatches batches(plane_.meta, meta::KeyRange::prefix("cq"), kRowBatch);
  bool all = true;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
    if (rows.empty() || plane_.background.stopping()) break;
    {
      std::lock_guard lock(mutex_);
      status_.activity = "repairing writes that were made while drives were away";
      status_.pending_writes = rows.size();
    }
    std::vector<meta::KeyValue> done;
    size_t unreadable = 0;
    for (size_t begin = 0; begin < rows.size() && !plane_.background.stopping(); begin += kWritesParallel) {
      std::vector<Task<Result<Outcome>>> tasks;
      std::vector<size_t> row_of;
      for (size_t i = begin; i < std::min(begin + kWritesParallel, rows.size()); ++i) {
        Decoder in(rows[i].value);
        Result<DataLayout> layout = DataLayout::decode(in);
        if (!layout) {
          LOG_WARNING("a row of the repair queue cannot be read", {"error", layout.error().to_string()});
          ++unreadable;
          continue;
        }
        tasks.push_back(repair_write(*layout, Depth::presence));
        row_of.push_back(i);
      }
      std::vector<Result<Outcome>> outcomes = co_await when_all(std::move(tasks));
      for (size_t i = 0; i < outcomes.size(); ++i) {
        if (!outcomes[i]) continue;
        note(*outcomes[i]);
        if (outcomes[i]->gone || (outcomes[i]->lacking == 0 && !outcomes[i]->again)) done.push_back(rows[row_of[i]]);
      }
    }
    all = all && done.size() + unreadable == rows.size();
    {
      std::lock_guard lock(mutex_);
      status_.pending_writes = 0;
    }
    if (done.empty()) continue;
    auto body = [&done](meta::Transaction& transaction) { return remove_unchanged(transaction, done); };
    Result<meta::Version> version = co_await meta::transact(plane_.meta, body);
    if (!version) co_return std::move(version).error();
  }
  co_return all;
}

}  // namespace quarry::cluster
