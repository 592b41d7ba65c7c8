#include "cluster/repair.h"

#include <set>

#include "base/log.h"
#include "cluster/files.h"
#include "cluster/keys.h"
#include "cluster/stripe_reader.h"
#include "observe/metrics.h"

namespace quarry::cluster {
namespace {

constexpr size_t kRowBatch = 128;
constexpr size_t kGroupsParallel = 4;   // so that all drives take part
constexpr size_t kWritesParallel = 4;   // of a group
constexpr size_t kStripesParallel = 4;  // of a write
constexpr Duration kIdle = std::chrono::seconds(5);
constexpr Duration kLookAtLost = std::chrono::seconds(30);  // how often what is lost is read again
constexpr size_t kLookAtLostMax = 64;                       // of them at a time

const Counter& repaired_bytes() {
  static const Counter counter = metrics::counter("cluster_repaired_bytes_total", "Bytes of shards rebuilt, moved or rewritten by repair");
  return counter;
}

std::string after(std::string key) {
  key.push_back('\0');
  return key;
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
  const bool read_again = Executor::here().now() >= next_look_at_lost_;
  std::vector<DataLayout> look;
  std::vector<DataLayout> known;
  for (const auto& [id, lost] : lost_) known.push_back(lost.layout);
  for (const DataLayout& layout : known) {
    CO_TRY_ASSIGN(const bool referenced, co_await still_referenced(layout));
    if (!referenced) {
      note_lost(layout, {.gone = true});
    } else if (read_again && layout.write_id > lost_looked_at_ && look.size() < kLookAtLostMax) {
      look.push_back(layout);
    }
  }
  if (!read_again) co_return Result<void>();
  next_look_at_lost_ = Executor::here().now() + kLookAtLost;
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
    Result<bool> done = co_await round();
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
  co_await settle_unsettled_files(plane_);
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
  if (work.empty()) co_return true;
  std::sort(work.begin(), work.end(),
            [](const GroupWork& a, const GroupWork& b) { return std::pair(b.endangered, a.key) < std::pair(a.endangered, b.key); });
  GroupQueue queue{.work = std::move(work), .began = Executor::here().now()};
  TaskGroup workers;
  for (size_t i = 0; i < std::min(kGroupsParallel, queue.work.size()); ++i) workers.spawn(repair_some(&queue));
  co_await workers.join();
  std::lock_guard lock(mutex_);
  status_.pending_writes = 0;
  co_return queue.all;
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
  meta::ScanOptions options;
  options.range = keys::data_of_group(work.key.group);
  options.limit = kRowBatch;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty() || plane_.background.stopping()) break;
    options.range.begin = after(rows.back().key);
    *rows_seen += rows.size();
    std::vector<DataLayout> layouts;
    for (const meta::KeyValue& row : rows) {
      Decoder in(row.value);
      CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
      if (layout.redundancy.width() == work.key.width) layouts.push_back(layout);
    }
    for (size_t begin = 0; begin < layouts.size() && !plane_.background.stopping(); begin += kWritesParallel) {
      std::vector<Task<Result<Outcome>>> tasks;
      for (size_t i = begin; i < std::min(begin + kWritesParallel, layouts.size()); ++i)
        tasks.push_back(settle_shards(layouts[i], shards, Depth::presence));
      std::vector<Result<Outcome>> outcomes = co_await when_all(std::move(tasks));
      for (const auto& outcome : outcomes) {
        // The map keeps the places where a file may be put back.
        if (!outcome || outcome->lacking > 0 || outcome->changed) complete = false;
        if (outcome) note(*outcome);
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
  std::set<uint32_t> away;  // these keep chunks that belong elsewhere from now on
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
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("cr");
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty()) co_return false;
    options.range.begin = after(rows.back().key);
    for (const meta::KeyValue& row : rows) {
      Decoder in(row.value);
      CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
      if (layout.group == key.group && layout.redundancy.width() == key.width) co_return true;
    }
  }
}

Task<Result<bool>> Repairer::still_referenced(DataLayout layout) {
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await plane_.meta.get(keys::data(layout)));
  co_return row.has_value();
}

namespace {

struct ShardJob {
  uint32_t stripe = 0;
  unsigned shard = 0;
};

struct ShardResult {
  uint64_t bytes = 0;    // written
  bool lacking = false;  // could not be put where it belongs
  bool lost = false;
  bool changed = false;  // the only copy, by somebody
  std::string why_lost;
  bool as_chunks = false;  // not to be written as a file: the copy's data lies beside the one that somebody changed
};

// What lies there now is theirs. A checksum that fails while size and time are right may as well be the drive's fault, and where a file was
// removed there is nothing to spare.
bool changed_by_others(const Error& error) { return error.reason() == Reason::changed || error.reason() == Reason::replaced; }

// fresh: nothing of this name was ever put on the drive (it is the shard's new place); else its id may have been used.
Task<Result<void>> put_again(Drive* drive, ChunkName name, ByteView bytes, bool fresh) {
  std::vector<ByteView> parts{bytes};
  if (!fresh) co_return co_await drive->rewrite_shard(name, std::move(parts));
  Result<void> put = co_await drive->put(chunk_id(name), parts, chunk::Stream::data);
  // It was there once, as this or a later rewrite, and cannot be read now.
  if (!put && put.error().code() == Code::already_exists) put = co_await drive->rewrite_shard(name, std::move(parts));
  co_return put;
}

// Makes sure that the shard is at its present place.
Task<Result<ShardResult>> settle_shard(Plane* plane, BackgroundBudget* budget, DataLayout layout, ShardJob job, Repairer::Depth depth) {
  ShardResult result;
  const uint32_t size = layout.stored_size(job.stripe, job.shard);
  if (size == 0) co_return result;
  auto topology = plane->drives.topology();
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  if (job.shard >= members.size())
    co_return fail(Code::unavailable, "group {} has no members of width {}", layout.group, layout.redundancy.width());
  const Member& member = members[job.shard];
  const ChunkName name = shard_name(layout, job.stripe, job.shard, member.at.term);
  Drive* drive = topology->drive(member.at.drive);
  if (drive == nullptr || !drive->readable()) {
    result.lacking = true;
    co_return result;
  }
  bool exists = false;
  if (depth == Repairer::Depth::presence) {
    Result<uint32_t> there = co_await drive->stat_shard(name);
    if (there && *there == size) co_return result;
    if (!there && there.error().code() != Code::not_found) co_return std::move(there).error();
    exists = there.has_value();
  } else {
    co_await budget->take(size);
    Result<SharedBytes> there = co_await drive->get_shard(name, 0, size);
    if (there && there->size() == size) co_return result;
    if (!there && !drive->readable()) {
      result.lacking = true;
      co_return result;
    }
    exists = there || there.error().code() != Code::not_found;
  }
  if (!drive->writable()) {
    result.lacking = true;
    co_return result;
  }
  co_await budget->take(uint64_t{size} * (member.before.empty() ? layout.redundancy.k + 1u : 2u));
  // A pending shard is read where it was; one that should be here and is not, or is damaged, is rebuilt.
  Result<SharedBytes> bytes = co_await rebuild_shard(*plane, layout, job.stripe, job.shard, member.before.empty());
  if (!bytes) {
    if (bytes.error().code() != Code::data_lost && bytes.error().code() != Code::not_found && bytes.error().code() != Code::corrupt)
      co_return std::move(bytes).error();
    result.lost = true;
    result.changed = changed_by_others(bytes.error());
    result.why_lost = bytes.error().to_string();
    co_return result;
  }
  Result<void> put = co_await put_again(drive, name, bytes->view(), member.pending && !exists);
  if (!put) co_return std::move(put).error();
  result.bytes = size;
  repaired_bytes().add(size);
  co_return result;
}

// Whether a copy's file is whole: size and presence, or every byte.
struct FileLook {
  bool whole = true;
  bool present = false;  // some of it is there
  bool changed = false;  // somebody changed the file: what is in it now is theirs
  bool unreachable = false;
};

Task<Result<FileLook>> look_at_file(Plane* plane, BackgroundBudget* budget, DataLayout layout, unsigned shard, Drive* drive, uint16_t term,
                                    Repairer::Depth depth) {
  FileLook look;
  for (uint32_t stripe = 0; stripe < chunk_stripes(layout); ++stripe) {
    const ChunkName name = shard_name(layout, stripe, shard, term);
    const uint32_t size = layout.size == 0 ? 0 : layout.stored_size(stripe, shard);
    if (depth == Repairer::Depth::presence || size == 0) {
      Result<uint32_t> there = co_await drive->stat_shard(name);
      if (!there && there.error().code() != Code::not_found) co_return std::move(there).error();
      look.present = look.present || there.has_value();
      look.whole = look.whole && there && *there == size;
      continue;
    }
    co_await budget->take(size);
    Result<SharedBytes> there = co_await drive->get_shard(name, 0, size);
    if (!there && !drive->readable()) {
      look.unreachable = true;
      co_return look;
    }
    const bool gone = !there && there.error().code() == Code::not_found;
    look.present = look.present || !gone;
    look.changed = look.changed || (!there && changed_by_others(there.error()));
    look.whole = look.whole && there && there->size() == size;
  }
  co_return look;
}

// Writes the whole file again under a rewrite number that was not used, from wherever its bytes can be read; then it takes the place of the
// older one. Interrupted, it leaves an unfinished file, which the store forgets, and the older one as it was.
Task<Result<ShardResult>> rewrite_file(Plane* plane, BackgroundBudget* budget, DataLayout layout, unsigned shard, Drive* drive,
                                       Member member, FileName file, bool fresh) {
  ShardResult result;
  const ChunkName first = shard_name(layout, 0, shard, member.at.term);
  CO_TRY_ASSIGN(std::vector<ChunkId> older, co_await drive->rewrites(first));
  uint16_t rewrite = older.empty() ? (fresh ? 0 : 1) : rewrite_of(chunk_name(older.back()).generation) + 1;
  std::vector<ChunkId> written;
  for (uint32_t stripe = 0; stripe < chunk_stripes(layout); ++stripe) {
    const uint32_t size = layout.size == 0 ? 0 : layout.stored_size(stripe, shard);
    SharedBytes bytes;
    if (size > 0) {
      co_await budget->take(uint64_t{size} * 2);
      Result<SharedBytes> got = co_await rebuild_shard(*plane, layout, stripe, shard, false);
      if (!got) {
        if (got.error().code() != Code::data_lost && got.error().code() != Code::not_found && got.error().code() != Code::corrupt)
          co_return std::move(got).error();
        result.lost = true;
        result.changed = changed_by_others(got.error()) || got.error().reason() == Reason::vanished;
        result.why_lost = got.error().to_string();
        break;
      }
      bytes = std::move(*got);
    }
    ChunkName name = shard_name(layout, stripe, shard, member.at.term);
    name.generation = generation_of(member.at.term, rewrite);
    std::vector<ByteView> parts{bytes.view()};
    chunk::PutOptions options;
    options.file = file_place(layout, stripe, shard, member.at.term, rewrite, file);
    Result<void> put = co_await drive->put(chunk_id(name), parts, options);
    if (!put && put.error().code() == Code::already_exists && stripe == 0 && rewrite < kRewritesMax) {
      ++rewrite;
      stripe = UINT32_MAX;  // from the start, under the next number
      continue;
    }
    if (!put) {
      if (!written.empty())
        (co_await drive->remove(std::move(written))).ignore("an unfinished file goes with the next start at the latest");
      co_return std::move(put).error();
    }
    written.push_back(chunk_id(name));
    result.bytes += size;
  }
  if (result.lost) {
    result.bytes = 0;
    if (!written.empty()) (co_await drive->remove(std::move(written))).ignore("an unfinished file goes with the next start at the latest");
    co_return result;
  }
  CO_TRY(co_await drive->finish_file(written.front(), layout.size));
  CO_TRY(co_await show_if_current(*plane, *drive, layout, shard, member.at.term));
  std::vector<ChunkId> obsolete;
  for (uint32_t stripe = 0; stripe < chunk_stripes(layout) && !older.empty(); ++stripe) {
    CO_TRY_ASSIGN(std::vector<ChunkId> ids, co_await drive->rewrites(shard_name(layout, stripe, shard, member.at.term)));
    for (const ChunkId id : ids) {
      if (rewrite_of(chunk_name(id).generation) < rewrite) obsolete.push_back(id);
    }
  }
  if (!obsolete.empty()) CO_TRY(co_await drive->remove(std::move(obsolete)));
  repaired_bytes().add(result.bytes);
  co_return result;
}

// Makes sure that a copy which is kept as a file is at its present place, whole and under its name.
Task<Result<ShardResult>> settle_file(Plane* plane, BackgroundBudget* budget, DataLayout layout, unsigned shard, FileName file,
                                      Repairer::Depth depth) {
  ShardResult result;
  const auto topology = plane->drives.topology();
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  if (shard >= members.size())
    co_return fail(Code::unavailable, "group {} has no members of width {}", layout.group, layout.redundancy.width());
  const Member member = members[shard];
  Drive* drive = topology->drive(member.at.drive);
  if (drive == nullptr || !drive->readable()) {
    result.lacking = true;
    co_return result;
  }
  CO_TRY_ASSIGN(FileLook look, co_await look_at_file(plane, budget, layout, shard, drive, member.at.term, depth));
  if (look.whole && !look.unreachable) {
    // Whoever made it whole may have come to an end before it was shown.
    CO_TRY(co_await show_if_current(*plane, *drive, layout, shard, member.at.term));
    co_return result;
  }
  if (look.unreachable || !drive->writable()) {
    result.lacking = true;
    co_return result;
  }
  if (look.changed) {
    result.as_chunks = true;
    co_return result;
  }
  co_return co_await rewrite_file(plane, budget, layout, shard, drive, member, std::move(file), member.pending && !look.present);
}

}  // namespace

Task<Result<Repairer::Outcome>> Repairer::settle_shards(DataLayout layout, std::vector<unsigned> shards, Depth depth) {
  OneAtATime alone(*this, layout.write_id);
  co_await alone.enter();
  Outcome outcome;
  std::map<uint32_t, unsigned> lacking;
  std::optional<Error> error;
  // Copies that are files are made as a whole; the others stripe by stripe.
  CO_TRY_ASSIGN(const std::vector<unsigned> chunked, co_await settle_files(layout, shards, depth, &outcome, &error));
  std::vector<ShardJob> jobs;
  for (uint32_t stripe = 0; stripe < layout.stripe_count(); ++stripe) {
    for (unsigned shard : chunked) jobs.push_back({stripe, shard});
  }
  const size_t parallel = kStripesParallel * std::max<size_t>(chunked.size(), 1);
  for (size_t begin = 0; begin < jobs.size() && !error; begin += parallel) {
    std::vector<Task<Result<ShardResult>>> tasks;
    for (size_t i = begin; i < std::min(begin + parallel, jobs.size()); ++i)
      tasks.push_back(settle_shard(&plane_, &budget_, layout, jobs[i], depth));
    std::vector<Result<ShardResult>> results = co_await when_all(std::move(tasks));
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i]) {
        if (!error) error = std::move(results[i]).error();
        continue;
      }
      outcome.repaired_shards += results[i]->bytes > 0;
      outcome.repaired_bytes += results[i]->bytes;
      outcome.lost = outcome.lost || results[i]->lost;
      outcome.changed = outcome.changed || results[i]->changed;
      if (outcome.why_lost.empty()) outcome.why_lost = std::move(results[i]->why_lost);
      if (results[i]->lacking) outcome.lacking = std::max(outcome.lacking, ++lacking[jobs[begin + i].stripe]);
    }
  }
  // If the write was retired while shards were put, the sweeper may have been there before them: they would be nobody's.
  CO_TRY_ASSIGN(bool referenced, co_await still_referenced(layout));
  auto topology = plane_.drives.topology();
  Removal removal;
  if (!referenced) {
    outcome.gone = true;
    outcome.lost = outcome.changed = false;
    outcome.lacking = 0;
    note_lost(layout, outcome);
    if (outcome.repaired_shards > 0) removal.add(*topology, layout);
    CO_TRY(co_await removal.run());
    co_return outcome;
  }
  outcome.changed = outcome.changed && outcome.lost;
  if (outcome.lost || !error) note_lost(layout, outcome);
  if (error) co_return std::move(*error);
  // What moved is removed from where it was: readers look at the new place first.
  if (outcome.lacking == 0 && !outcome.lost) {
    const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
    for (unsigned shard : shards) {
      for (const Place& place : members[shard].before) {
        Drive* drive = topology->drive(place.drive);
        if (drive == nullptr || !drive->readable()) continue;
        for (uint32_t stripe = 0; stripe < chunk_stripes(layout); ++stripe) {
          if (has_chunk(layout, stripe, shard)) removal.by_drive[drive].push_back(shard_name(layout, stripe, shard, place.term));
        }
      }
    }
    CO_TRY(co_await removal.run());
  }
  co_return outcome;
}

// The shards that are no files.
Task<Result<std::vector<unsigned>>> Repairer::settle_files(DataLayout layout, std::vector<unsigned> shards, Depth depth, Outcome* outcome,
                                                           std::optional<Error>* error) {
  const auto topology = plane_.drives.topology();
  if (!topology->any_files || !layout.redundancy.has_copies()) co_return shards;
  const Members members = topology->map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  std::vector<unsigned> files, chunked;
  for (unsigned shard : shards) {
    Drive* drive = shard < members.size() ? topology->drive(members[shard].at.drive) : nullptr;
    (drive != nullptr && drive->keeps_files() && layout.redundancy.is_copy(shard) ? files : chunked).push_back(shard);
  }
  if (files.empty()) co_return chunked;
  CO_TRY_ASSIGN(std::optional<FileName> name, co_await find_file_name(plane_, layout));
  if (!name) co_return shards;
  for (unsigned shard : files) {
    Result<ShardResult> result = co_await settle_file(&plane_, &budget_, layout, shard, *name, depth);
    if (!result) {
      if (!*error) *error = std::move(result).error();
      continue;
    }
    if (result->as_chunks) chunked.push_back(shard);
    // With another copy it is written beside the file; without one there is nothing to write.
    outcome->changed = outcome->changed || result->changed || result->as_chunks;
    if (outcome->why_lost.empty()) outcome->why_lost = std::move(result->why_lost);
    outcome->repaired_shards += result->bytes > 0;
    outcome->repaired_bytes += result->bytes;
    outcome->lost = outcome->lost || result->lost;
    outcome->lacking += result->lacking;
  }
  co_return chunked;
}

Task<Result<Repairer::Outcome>> Repairer::repair_write(DataLayout layout, Depth depth) {
  CO_TRY_ASSIGN(bool referenced, co_await still_referenced(layout));
  if (!referenced) {
    Outcome outcome;
    outcome.gone = true;
    note_lost(layout, outcome);
    co_return outcome;
  }
  std::vector<unsigned> all(layout.redundancy.width());
  for (unsigned i = 0; i < all.size(); ++i) all[i] = i;
  co_return co_await settle_shards(layout, std::move(all), depth);
}

Task<Result<void>> Repairer::repair_shard(DataLayout layout, uint32_t stripe, unsigned shard) {
  OneAtATime alone(*this, layout.write_id);
  co_await alone.enter();
  std::optional<Error> file_error;
  Outcome whole;
  std::vector<unsigned> one{shard};
  CO_TRY_ASSIGN(const std::vector<unsigned> chunked, co_await settle_files(layout, std::move(one), Depth::verify, &whole, &file_error));
  if (chunked.empty()) {
    if (file_error) co_return std::move(*file_error);
    whole.changed = whole.changed && whole.lost;
    note_lost(layout, whole);
    if (whole.lost) co_return fail(Code::data_lost, "shard {} of write {} cannot be rebuilt", shard, layout.write_id);
    note(whole);
    co_return Result<void>();
  }
  ShardJob job{stripe, shard};
  CO_TRY_ASSIGN(ShardResult result, co_await settle_shard(&plane_, &budget_, layout, job, Depth::verify));
  if (result.lost) {
    Outcome lost{.lost = true, .changed = whole.changed || result.changed, .why_lost = result.why_lost};
    note_lost(layout, lost);
  }
  if (result.lost) co_return fail(Code::data_lost, "shard {} of stripe {} of write {} cannot be rebuilt", shard, stripe, layout.write_id);
  Outcome outcome;
  outcome.repaired_shards = result.bytes > 0;
  outcome.repaired_bytes = result.bytes;
  note(outcome);
  CO_TRY_ASSIGN(bool referenced, co_await still_referenced(layout));
  if (referenced) co_return Result<void>();
  Removal removal;
  removal.add(*plane_.drives.topology(), layout);
  co_return co_await removal.run();
}

Task<Result<bool>> Repairer::repair_queue() {
  // What readers met.
  for (;;) {
    std::vector<DataLayout> asked = plane_.repairs.take(kWritesParallel);
    if (asked.empty() || plane_.background.stopping()) break;
    std::erase_if(asked, [&](const DataLayout& layout) { return lost_.contains(layout.write_id); });  // looked at at their own pace
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
  meta::ScanOptions options;
  options.range = meta::KeyRange::prefix("cq");
  options.limit = kRowBatch;
  bool all = true;
  for (;;) {
    CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await plane_.meta.scan(options));
    if (rows.empty() || plane_.background.stopping()) break;
    options.range.begin = after(rows.back().key);
    {
      std::lock_guard lock(mutex_);
      status_.activity = "repairing writes that were made while drives were away";
      status_.pending_writes = rows.size();
    }
    std::vector<std::string> done;
    for (size_t begin = 0; begin < rows.size() && !plane_.background.stopping(); begin += kWritesParallel) {
      std::vector<Task<Result<Outcome>>> tasks;
      const size_t end = std::min(begin + kWritesParallel, rows.size());
      for (size_t i = begin; i < end; ++i) {
        Decoder in(rows[i].value);
        CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
        tasks.push_back(repair_write(layout, Depth::presence));
      }
      std::vector<Result<Outcome>> outcomes = co_await when_all(std::move(tasks));
      for (size_t i = 0; i < outcomes.size(); ++i) {
        if (!outcomes[i]) continue;
        note(*outcomes[i]);
        if (outcomes[i]->gone || outcomes[i]->lacking == 0) done.push_back(rows[begin + i].key);
      }
    }
    all = all && done.size() == rows.size();
    {
      std::lock_guard lock(mutex_);
      status_.pending_writes = 0;
    }
    if (done.empty()) continue;
    auto remove = [](meta::Transaction& transaction, const std::vector<std::string>& list) -> Task<Result<void>> {
      for (const std::string& key : list) transaction.remove(key);
      co_return Result<void>();
    };
    auto body = [&done, remove](meta::Transaction& transaction) { return remove(transaction, done); };
    Result<meta::Version> version = co_await meta::transact(plane_.meta, body);
    if (!version) co_return std::move(version).error();
  }
  co_return all;
}

}  // namespace quarry::cluster
