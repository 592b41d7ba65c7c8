#include "cluster/stripes/plane.h"

#include "base/coding.h"
#include "io/pace.h"

namespace quarry::cluster {

std::string encode_file_name(const FileName& file) {
  std::string row;
  Encoder(row).u8(1).text(file.directory).text(file.name);
  return row;
}

Result<FileName> decode_file_name(std::string_view row) {
  Decoder in(row);
  if (const uint8_t version = in.u8(); in.ok() && version != 1) return fail(Code::incompatible, "file name of version {}", version);
  FileName file;
  file.directory = in.text();
  file.name = in.text();
  TRY(in.finish("file name"));
  return file;
}

void FileNames::set(WriteId id, FileName name) {
  const std::lock_guard lock(mutex_);
  names_[id] = std::move(name);
}
void FileNames::forget(WriteId id) {
  const std::lock_guard lock(mutex_);
  names_.erase(id);
}
std::optional<FileName> FileNames::find(WriteId id) const {
  const std::lock_guard lock(mutex_);
  const auto named = names_.find(id);
  return named == names_.end() ? std::nullopt : std::optional(named->second);
}

void RepairRequests::add(const DataLayout& layout) {
  std::lock_guard lock(mutex_);
  if (wanted_.size() < kMax) wanted_.emplace(layout.write_id, layout);
}

std::vector<DataLayout> RepairRequests::take(size_t limit) {
  std::lock_guard lock(mutex_);
  std::vector<DataLayout> taken;
  while (!wanted_.empty() && taken.size() < limit) {
    taken.push_back(wanted_.begin()->second);
    wanted_.erase(wanted_.begin());
  }
  return taken;
}

size_t RepairRequests::size() const {
  std::lock_guard lock(mutex_);
  return wanted_.size();
}

Task<Result<void>> until_commits_are_certain(Plane& plane, std::optional<TimePoint> deadline) {
  constexpr Duration kAgain = std::chrono::milliseconds(250);
  const auto body = [](meta::Transaction& transaction) -> Task<Result<void>> {
    transaction.put("cx", "");
    co_return Result<void>();
  };
  for (;;) {
    Result<meta::Version> later = co_await meta::transact(plane.meta, body);
    if (later) co_return Result<void>();
    if (deadline && Executor::here().now() >= *deadline) co_return std::move(later).error();
    if (plane.background.stopping()) co_return fail(Code::cancelled, "the store is closing");
    co_await sleep_for(kAgain);
  }
}

Task<void> forget_cached(Plane& plane, DataLayout layout) {
  ReadCache& cache = plane.cache;
  if (!cache.enabled()) co_return;
  Pace pace;
  const unsigned data_shards = layout.redundancy.kind == RedundancyKind::erasure ? layout.redundancy.k : 1;
  for (uint32_t stripe = 0; stripe < layout.stripe_count(); ++stripe) {
    co_await pace;
    for (unsigned shard = 0; shard < data_shards; ++shard) cache.erase(cache_key(layout, stripe, shard, kWholeShard));
  }
}

bool lies_in_files(const Topology& topology, const DataLayout& layout) {
  if (!topology.any_files || !layout.redundancy.has_copies()) return false;
  const Members* members = topology.map.find_members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  if (members == nullptr) return false;
  for (unsigned shard = 0; shard < members->size(); ++shard) {
    const Drive* drive = topology.drive((*members)[shard].at.drive);
    if (drive != nullptr && drive->keeps_files() && layout.redundancy.is_copy(shard)) return true;
  }
  return false;
}

void Strays::add(WriteId id, unsigned shard, Place place) {
  std::lock_guard lock(mutex_);
  if (known_.size() < kMax) known_.emplace(id, shard, place.drive, place.term);
  count_.store(known_.size(), std::memory_order_release);
}

bool Strays::has(WriteId id) const {
  if (count_.load(std::memory_order_acquire) == 0) return false;
  std::lock_guard lock(mutex_);
  const auto first = known_.lower_bound(Key{id, 0, 0, 0});
  return first != known_.end() && std::get<0>(*first) == id;
}

void Strays::append(WriteId id, unsigned shard, std::vector<Place>& places) const {
  if (count_.load(std::memory_order_acquire) == 0) return;
  std::lock_guard lock(mutex_);
  for (auto at = known_.lower_bound(Key{id, shard, 0, 0}); at != known_.end(); ++at) {
    const auto& [write, which, drive, term] = *at;
    if (write != id || which != shard) return;
    places.push_back({drive, term});
  }
}

void Strays::forget(WriteId id) {
  if (count_.load(std::memory_order_acquire) == 0) return;
  std::lock_guard lock(mutex_);
  known_.erase(known_.lower_bound(Key{id, 0, 0, 0}), known_.lower_bound(Key{id + 1, 0, 0, 0}));
  count_.store(known_.size(), std::memory_order_release);
}

bool Removal::add(const Topology& topology, const DataLayout& layout) {
  const Members members = topology.map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group);
  const uint32_t stripes = chunk_stripes(layout);
  bool reachable = true;
  for (unsigned shard = 0; shard < members.size(); ++shard) {
    for (const Place& place : places_of(members[shard])) {
      Drive* drive = topology.drive(place.drive);
      if (drive == nullptr || !drive->readable()) {
        auto known = topology.map.drives.find(place.drive);
        const bool lost =
            known == topology.map.drives.end() || known->second.state == DriveState::failed || known->second.state == DriveState::removed;
        reachable = reachable && lost;
        continue;
      }
      for (uint32_t stripe = 0; stripe < stripes; ++stripe) {
        if (!has_chunk(layout, stripe, shard)) continue;
        by_drive[drive].push_back(shard_name(layout, stripe, shard, place.term));
        ++chunks;
      }
    }
  }
  return reachable;
}

Task<Result<void>> Removal::run(bool disown) {
  std::vector<Drive*> drives;
  std::vector<Task<Result<void>>> removals;
  for (auto& [drive, names] : by_drive) {
    drives.push_back(drive);
    removals.push_back(disown ? drive->disown_shards(std::move(names)) : drive->remove_shards(std::move(names)));
  }
  by_drive.clear();
  chunks = 0;
  failed.clear();
  std::vector<Result<void>> results = co_await when_all(std::move(removals));
  std::optional<Error> first;
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i]) continue;
    failed.push_back(drives[i]);
    if (!first) first = std::move(results[i]).error();
  }
  if (first) co_return std::move(*first);
  co_return Result<void>();
}

bool Removal::touches(const Topology& topology, const DataLayout& layout, const std::vector<Drive*>& drives) {
  for (const Member& member : topology.map.members(static_cast<uint8_t>(layout.redundancy.width()), layout.group)) {
    for (const Place& place : places_of(member)) {
      if (std::ranges::find(drives, topology.drive(place.drive)) != drives.end()) return true;
    }
  }
  return false;
}

}  // namespace quarry::cluster
