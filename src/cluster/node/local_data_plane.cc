#include "cluster/node/local_data_plane.h"

#include "cluster/drives/drive_path.h"
#include "cluster/map/keys.h"
#include "cluster/node/capacity.h"
#include "cluster/node/health.h"
#include "cluster/stripes/stripe_reader.h"
#include "cluster/stripes/stripe_writer.h"
#include "io/pace.h"
#include "meta/row_batches.h"

namespace quarry::cluster {

LocalDataPlane::LocalDataPlane(Executor& home, DriveSet& drives, meta::MetaStore& meta, MetadataLog& log, MapKeeper& maps,
                               LabelKeeper& labels, const ClusterTuning& tuning, OpenNewDrive open_drive, OpenKnownDrive open_known,
                               Clock& clock, BlockingPool& pool)
    : plane_(home, drives, meta, tuning, log.epoch()),
      files_(plane_),
      sweeper_(plane_),
      cache_keeper_(plane_, pool),
      repairer_(plane_, maps),
      auditor_(plane_, log),
      scrubber_(plane_, repairer_, auditor_, log, clock),
      administration_(plane_, drives, maps, labels, log, repairer_, auditor_, std::move(open_drive), std::move(open_known)) {
  plane_.files = &files_;
  plane_.register_width = [this](uint8_t width) { return administration_.register_width(width); };
  plane_.wake_sweeper = [this] { sweeper_.alarm.ring(); };
  plane_.wake_repair = [this] { repairer_.alarm.ring(); };
  plane_.read_only_reason = [this] { return administration_.read_only_reason(); };
  for (Drive* drive : drives.all()) drive->set_listener([this](Drive&) { administration_.alarm.ring(); });
}

void LocalDataPlane::start() {
  administration_.guard().start();
  plane_.background.spawn_here(administration_.run());
  plane_.background.spawn_here(cache_keeper_.run());
  plane_.background.spawn_here(sweeper_.run());
  plane_.background.spawn_here(sweeper_.run_recovery());
  plane_.background.spawn_here(repairer_.run());
  plane_.background.spawn_here(scrubber_.run());
}

Task<Result<void>> LocalDataPlane::settle() {
  CO_TRY(co_await administration_.look());
  if (!read_only_reason().empty()) co_return Result<void>();
  Result<size_t> recovered = co_await sweeper_.recover_sessions();
  if (!recovered) co_return std::move(recovered).error();
  Result<size_t> swept = co_await sweeper_.sweep();
  if (!swept) co_return std::move(swept).error();
  constexpr int kRounds = 20;
  for (int i = 0; i < kRounds; ++i) {
    CO_TRY_ASSIGN(bool done, co_await repairer_.round());
    if (done) break;
    CO_TRY_ASSIGN(size_t left, co_await sweeper_.sweep());  // a move may wait for it
    static_cast<void>(left);
  }
  co_return co_await administration_.look();  // a drained drive may be empty now
}

Task<Result<void>> LocalDataPlane::stop() {
  plane_.background.request_stop();
  administration_.alarm.ring();
  sweeper_.alarm.ring();
  repairer_.alarm.ring();
  scrubber_.alarm.ring();
  cache_keeper_.alarm.ring();
  co_await plane_.background.join();
  if (!read_only_reason().empty()) co_return Result<void>();
  co_return co_await plane_.ids.end_session();
}

Result<std::unique_ptr<DataWriter>> LocalDataPlane::begin_write(const WriteOptions& options) {
  if (plane_.background.stopping()) return fail(Code::cancelled, "the store is closing");
  if (std::string reason = read_only_reason(); !reason.empty()) return fail(Code::unavailable, "the store is read-only: {}", reason);
  const Redundancy& r = options.redundancy;
  if (r.k < 1 || r.width() > 32 || (r.kind == RedundancyKind::mirror && r.k != 1))
    return fail(Code::invalid_argument, "redundancy {}", r.to_string());
  return make_stripe_writer(plane_, options);
}

std::unique_ptr<DataReader> LocalDataPlane::read(const DataLayout& layout, uint64_t offset, uint64_t length, CachePolicy policy) {
  return make_stripe_reader(plane_, layout, offset, length, policy);
}

Task<Result<void>> LocalDataPlane::set_pinned(DataLayout layout, bool pinned) {
  if (!plane_.cache.enabled()) co_return fail(Code::unsupported, "there is no read cache to pin in: set a cache size");
  if (pinned) {
    const CacheStatus status = plane_.cache.status();
    if (status.pinned_bytes + layout.size > plane_.tuning.cache_pin_bytes) {
      co_return fail(Code::no_space, "pinning {} bytes would exceed the pin limit of {}: {} are pinned", layout.size,
                     plane_.tuning.cache_pin_bytes, status.pinned_bytes);
    }
    auto reader = read(layout, 0, layout.size, CachePolicy::pin);
    for (;;) {
      CO_TRY_ASSIGN(SharedBytes piece, co_await reader->next(kMiB));
      if (piece.empty()) co_return Result<void>();
    }
  }
  Pace pace;
  for (uint32_t stripe = 0; stripe < layout.stripe_count(); ++stripe) {
    co_await pace;
    for (unsigned shard = 0; shard < layout.redundancy.k; ++shard) plane_.cache.unpin(cache_key(layout, stripe, shard, kWholeShard));
  }
  co_return Result<void>();
}

void LocalDataPlane::record(meta::Transaction& transaction, const DataLayout& layout, std::string owner) {
  std::string row;
  layout.encode(row);
  row += owner;
  transaction.put(keys::data(layout), std::move(row));
  files_.record(transaction, layout);
  if (plane_.degraded_count.load() == 0) return;
  std::lock_guard lock(plane_.degraded_mutex);
  auto found = plane_.degraded.find(layout.write_id);
  if (found == plane_.degraded.end()) return;
  std::string wanted;
  layout.encode(wanted);
  transaction.put(keys::repair(found->second, layout.write_id), std::move(wanted));
}

void LocalDataPlane::retire(meta::Transaction& transaction, const DataLayout& layout) {
  std::string row;
  layout.encode(row);
  transaction.remove(keys::data(layout));
  if (chunk_stripes(layout) > 0) transaction.put(keys::retired(layout.write_id), std::move(row));
  files_.retire(transaction, layout);
}

Task<Result<DataLayout>> LocalDataPlane::widen(DataLayout layout, Redundancy redundancy, CommitLayout commit) {
  return on(plane_.background.home(), repairer_.widen(layout, redundancy, std::move(commit)));
}

void LocalDataPlane::record_widened(meta::Transaction& transaction, const DataLayout& before, const DataLayout& layout, std::string owner) {
  std::string row;
  layout.encode(row);
  // A row that the old layout may have had says fewer losses, and is not this one: done with it, repair removes it and not this.
  transaction.put(keys::repair(static_cast<uint8_t>(before.redundancy.losses()), layout.write_id), row);
  row += owner;
  transaction.put(keys::data(layout), std::move(row));
}

Task<Result<bool>> LocalDataPlane::awaits_repair(DataLayout layout) {
  for (unsigned spare = 0; spare < std::max(layout.redundancy.losses(), 1u); ++spare) {
    CO_TRY_ASSIGN(const auto row, co_await plane_.meta.get(keys::repair(static_cast<uint8_t>(spare), layout.write_id)));
    if (row) co_return true;
  }
  co_return false;
}

Task<Result<bool>> LocalDataPlane::was_retired(meta::Transaction& transaction, DataLayout layout) {
  CO_TRY_ASSIGN(const auto row, co_await transaction.get(keys::retired(layout.write_id)));
  co_return row.has_value();
}

std::vector<DriveStatus> LocalDataPlane::drives() const {
  auto topology = plane_.drives.topology();
  const std::vector<bool> holding = holders(topology->map);
  const TimePoint now = plane_.background.home().now();
  std::vector<DriveStatus> list;
  for (const auto& [number, known] : topology->map.drives) {
    DriveStatus status{.number = number,
                       .id = known.id,
                       .path = known.path,
                       .domain = known.domain,
                       .state = std::string(drive_state_name(known.state)),
                       .reason = known.reason,
                       .cause = drive_cause_name(known.cause)};
    Drive* drive = topology->drive(number);
    status.kind = parse_drive_path(known.path).kind;
    status.holds_data = number < holding.size() && holding[number];
    if (known.state != DriveState::removed) status.file_system = plane_.drives.file_system(number);
    if (drive != nullptr && known.state != DriveState::removed) {
      const chunk::SpaceReport space = drive->space();
      const chunk::StoreHealth health = drive->health();
      status.path = drive->path();
      status.size_bytes = space.device_bytes;
      status.used_bytes = space.used_bytes;
      status.free_bytes = std::min(space.free_bytes, drive->room_below());
      status.read_errors = health.read_errors;
      status.write_errors = health.write_errors;
      status.checksum_errors = health.checksum_errors;
      if (status.reason.empty()) status.reason = drive->reason();
      Drive::Trouble trouble = drive->trouble(now);
      status.room_bytes = drive->room();
      status.slow = drive->slow.load();
      status.slow_writes = drive->slow_writes.load();
      status.unwell = std::move(trouble.unwell);
      status.failed_calls = trouble.failed;
      status.last_error = std::move(trouble.last_error);
      if (status.kind != "kfs") status.shrunk_from_bytes = trouble.shrunk_from;  // whose size is what others leave
    }
    const bool expected = known.state == DriveState::active || known.state == DriveState::draining;
    if (known.state == DriveState::active && drive != nullptr && drive->condition() == DriveCondition::read_only)
      status.state = "read-only";
    if (expected && (drive == nullptr || !drive->readable())) {
      status.state = "missing";
      // Why it is away now, not why it was drained before.
      const bool taken = drive != nullptr && drive->taken();
      status.cause = drive_cause_name(taken ? DriveCause::taken : DriveCause::away);
      if (const std::string away = drive != nullptr ? drive->reason() : std::string(); !away.empty() && !known.disabled)
        status.reason = away;
    }
    if (expected && drive == nullptr && status.reason.empty()) status.reason = plane_.drives.absence(known.path);
    if (known.disabled && (expected || known.state == DriveState::failed)) status.state = "disabled";
    list.push_back(std::move(status));
  }
  return list;
}

HealthStatus LocalDataPlane::health() const {
  const auto topology = plane_.drives.topology();
  std::map<std::string, std::string> waiting = plane_.drives.asides();
  waiting.merge(administration_.waiting());
  return judge_health({.drives = drives(),
                       .exposure = exposure_of(*topology),
                       .losses = topology->map.redundancy.losses(),
                       .repair = repair_status(),
                       .scrub = scrub_status(),
                       .read_only_reason = read_only_reason(),
                       .waiting = std::move(waiting)});
}

SpaceStatus LocalDataPlane::space_status() const {
  auto topology = plane_.drives.topology();
  SpaceStatus status;
  std::set<std::string_view> counted;  // file systems
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = topology->drive(number);
    if (known.state == DriveState::removed || known.state == DriveState::failed || drive == nullptr || !drive->readable()) continue;
    const chunk::SpaceReport space = drive->space();
    const std::string_view shared =
        number < topology->file_system.size() ? std::string_view(topology->file_system[number]) : std::string_view();
    if (shared.empty() || counted.insert(shared).second) {
      status.raw_bytes += space.device_bytes;
      status.free_bytes += std::min(space.free_bytes, drive->room_below());
    }
    status.used_bytes += space.used_bytes;
    status.payload_bytes += space.payload_bytes;
  }
  status.usable_free_bytes = storable_bytes(*topology);
  return status;
}

Task<Result<void>> LocalDataPlane::add_drive(std::string path, bool force) {
  return on(plane_.background.home(), administration_.add_drive(std::move(path), force));
}
Task<Result<void>> LocalDataPlane::drain_drive(uint32_t number) {
  return on(plane_.background.home(), administration_.drain_drive(number));
}
Task<Result<void>> LocalDataPlane::remove_drive(uint32_t number, bool force) {
  return on(plane_.background.home(), administration_.remove_drive(number, force));
}
Task<Result<void>> LocalDataPlane::replace_drive(uint32_t number, std::string path, bool force) {
  return on(plane_.background.home(), administration_.replace_drive(number, std::move(path), force));
}
Task<Result<void>> LocalDataPlane::disable_drive(uint32_t number, std::string reason, bool force) {
  return on(plane_.background.home(), administration_.disable_drive(number, std::move(reason), force));
}
Task<Result<void>> LocalDataPlane::enable_drive(uint32_t number, bool force) {
  return on(plane_.background.home(), administration_.enable_drive(number, force));
}
Task<Result<void>> LocalDataPlane::take_back_drive(uint32_t number, std::string path) {
  return on(plane_.background.home(), administration_.take_back_drive(number, std::move(path)));
}

Task<Result<void>> LocalDataPlane::start_scrub() {
  if (const std::string reason = read_only_reason(); !reason.empty())
    co_return fail(Code::unavailable, "nothing is scrubbed while the store is read-only: {}", reason);
  scrubber_.start();
  co_return Result<void>();
}
Task<Result<DataPlane::FsckReport>> LocalDataPlane::fsck(bool repair) {
  if (std::string reason = read_only_reason(); repair && !reason.empty())
    co_return fail(Code::unavailable, "nothing can be repaired while the store is read-only: {}", reason);
  co_return co_await on(plane_.background.home(), auditor_.fsck(repair));
}

Task<Result<std::vector<DataPlane::Reference>>> LocalDataPlane::references(WriteId after, size_t limit) {
  // Rows lie by group: a window of ids is gathered from all groups, and widened until it holds enough.
  CO_TRY_ASSIGN(std::optional<std::string> next_row, co_await plane_.meta.get(keys::next_write_id()));
  const WriteId end = next_row && next_row->size() == 8 ? load_le<uint64_t>(bytes_of(*next_row).data()) : 0;
  const uint32_t groups = plane_.drives.topology()->map.group_count;
  std::vector<Reference> found;
  uint64_t window = std::max<uint64_t>(limit * 2, 4096);
  Pace pace;
  WriteId from = after + 1;
  while (from < end && found.size() < limit) {
    const WriteId to = std::min<WriteId>(end, from + window);
    std::vector<Reference> batch;
    for (uint32_t group = 0; group < groups; ++group) {
      meta::RowBatches batches(plane_.meta, {keys::data(static_cast<GroupId>(group), from), keys::data(static_cast<GroupId>(group), to)});
      for (;;) {
        co_await pace;
        CO_TRY_ASSIGN(std::vector<meta::KeyValue> rows, co_await batches.next());
        if (rows.empty()) break;
        for (const meta::KeyValue& row : rows) {
          Decoder in(row.value);
          CO_TRY_ASSIGN(DataLayout layout, DataLayout::decode(in));
          batch.push_back({layout, std::string(text_of(in.rest()))});
        }
      }
    }
    std::sort(batch.begin(), batch.end(), [](const Reference& a, const Reference& b) { return a.layout.write_id < b.layout.write_id; });
    if (batch.empty()) window *= 4;
    std::move(batch.begin(), batch.end(), std::back_inserter(found));
    from = to;
  }
  if (found.size() > limit) found.resize(limit);
  co_return found;
}

}  // namespace quarry::cluster
