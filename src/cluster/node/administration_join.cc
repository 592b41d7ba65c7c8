// The part of the administration that adds drives, new ones and those that come back under their identity. The rest is in
// administration.cc.
#include "base/log.h"
#include "cluster/node/administration.h"

namespace quarry::cluster {
namespace {

constexpr Duration kCommitsPatience = std::chrono::seconds(5);  // for commits that stood still

Task<std::string> label_of(chunk::ChunkStore* store) { co_return store->label(); }

}  // namespace

Error Administration::already_known(const MapDrive& known, const std::string& path) {
  if (known.is_past()) {
    return fail(
        Code::already_exists,
        "{} is drive {}, which was {}, and what it holds is old: to use it again as a new drive, and DESTROY what is on it: `quarry "
        "device add --force {}`",
        path, known.number, known.state == DriveState::removed ? std::string("removed") : known.reason, path);
  }
  if (known.state == DriveState::failed || known.disabled) {
    return fail(Code::already_exists, "{} is drive {} of this store, out of use now ({}): `quarry device enable {}`", path, known.number,
                known.reason, known.number);
  }
  return fail(Code::already_exists, "{} is in use already: it is drive {}", path, known.number);
}

// Either the map names the drive when it returns, or nothing does.
Task<Result<uint32_t>> Administration::join(std::string path, bool force, AlsoChange also) {
  if (!open_drive_) co_return fail(Code::unsupported, "this node cannot open further drives");
  auto topology = drives_.topology();
  CO_TRY_ASSIGN(OpenedDrive opened, co_await open_drive_(path, topology->map.cluster, force));
  if (const MapDrive* row = topology->map.find(opened.store->drive_id())) {
    const MapDrive known = *row;
    CO_TRY(co_await on(*opened.owner, opened.store->close()));
    co_return already_known(known, path);
  }
  const std::string label = co_await on(*opened.owner, label_of(opened.store.get()));
  if (!label.empty()) {
    CO_TRY(co_await on(*opened.owner, opened.store->close()));
    co_return fail(
        Code::already_exists,
        "{} was a drive of this store, which knows it no more: to use it as a new drive, and DESTROY what is on it: `quarry device "
        "add --force {}`",
        path, path);
  }
  uint32_t number = topology->map.next_drive;
  for (const LabelDrive& drive : labels_.label().drives) number = std::max(number, drive.number + 1);
  for (const Drive* drive : drives_.all()) number = std::max(number, drive->number() + 1);  // also of those that did not join in the end
  const std::string domain = opened.domain.empty() ? fmt::format("drive-{}", number) : opened.domain;
  MapDrive row{.number = number, .id = opened.store->drive_id(), .path = path, .domain = domain, .weight = opened.weight};
  const std::string file_system = opened.file_system;
  drives_.note_file_system(number, file_system);
  auto owned = std::make_unique<Drive>(Drive::Identity{number, path, domain}, std::move(opened.store), *opened.owner);
  owned->set_look_below(std::move(opened.look_below));
  Drive& drive = drives_.add(std::move(owned));
  drive.set_listener([this](Drive&) { alarm.ring(); });
  co_await drive.refresh();
  // A file system gets its share of the data once: the drives that are on it already give up a part.
  std::vector<uint32_t> sharers;
  for (const auto& [other, known] : topology->map.drives) {
    const bool in_use = known.state == DriveState::active || known.state == DriveState::draining;
    if (in_use && !file_system.empty() && drives_.file_system(other) == file_system) sharers.push_back(other);
  }
  const uint64_t share = std::max<uint64_t>(drive.space().device_bytes / (sharers.size() + 1), 1);
  if (row.weight == 0) row.weight = share;
  if (!sharers.empty())
    LOG_WARNING("the new drive is on the file system of others: they share its space, and die together", {"path", path},
                {"drives", fmt::format("{}", fmt::join(sharers, ", "))});
  const MapKeeper::Edit edit = [row, sharers, share, also](ClusterMap& map) -> Result<void> {
    for (const uint32_t other : sharers) map.drives.at(other).weight = std::min(map.drives.at(other).weight, share);
    map.drives.insert_or_assign(row.number, row);
    map.next_drive = std::max(map.next_drive, row.number + 1);
    if (also) also(map, row.number);
    return {};
  };
  std::erase_if(waiting_, [](const Joining& one) { return !one.drive->readable(); });
  std::vector<Joining> joining = std::exchange(waiting_, {});
  joining.push_back({&drive, {number, row.id, domain, path}, edit});
  CO_TRY(co_await join_all(std::move(joining)));
  co_return number;
}

// All of them or none.
Task<Result<void>> Administration::join_all(std::vector<Joining> joining) {
  const std::string path = joining.back().label.path;
  Result<void> joined;
  std::vector<LabelDrive> labels;
  for (const Joining& one : joining) {
    labels.push_back(one.label);
    if (joined) joined = co_await log_.add_drive(*one.drive, MetadataLog::Named::no);
  }
  // A start that goes by labels which name them asks for more copies than there can be. No label names them, so nothing relies on them.
  if (joined && !log_.enough_drives()) {
    const unsigned needed = log_.writable_copies_min();
    for (const Joining& one : joining) log_.forget_drive(one.drive->number());
    waiting_ = std::move(joining);
    update_read_only();
    co_return fail(Code::unavailable,
                   "{} is ready and waits for another drive: the metadata needs {} to be written, and fewer are there; `quarry device add` "
                   "the next one, or bring one back",
                   path, needed);
  }
  if (joined) joined = co_await log_.restore_copies();
  if (joined) joined = co_await name(labels);
  // Commits may have waited for this very drive, and are taken again a moment after it can hold metadata.
  if (joined) joined = co_await until_commits_are_certain(plane_, Executor::here().now() + kCommitsPatience);
  if (joined) {
    joined = co_await maps_.change([&joining](ClusterMap& map) -> Result<void> {
      for (const Joining& one : joining) TRY(one.edit(map));
      map.replan();
      return {};
    });
  }
  if (joined) {
    update_read_only();
    for (const Joining& one : joining) LOG_INFO("drive added", {"drive", one.label.number}, {"path", one.label.path});
    co_return Result<void>();
  }
  const Error error = std::move(joined).error();
  if (error.code() == Code::unknown_outcome) {
    for (const Joining& one : joining) half_joined_.push_back(one.drive);
    update_read_only();
    co_return Error(error).with(fmt::format(
        "whether {} was added is known as soon as the metadata can be written; if it was not, what was begun is undone then", path));
  }
  std::string in_the_way;
  for (const Joining& one : joining) {
    const Result<void> undone = co_await undo_join(one.drive);
    if (undone) continue;
    half_joined_.push_back(one.drive);
    in_the_way = undone.error().to_string();
  }
  update_read_only();
  if (in_the_way.empty()) co_return Error(error).with(fmt::format("{} was not added", path));
  co_return Error(error).with(
      fmt::format("{} was not added; what was begun is undone as soon as the metadata can be written ({})", path, in_the_way));
}

Task<Result<void>> Administration::name(std::vector<LabelDrive> drives) {
  std::vector<uint32_t> numbers;
  for (const LabelDrive& drive : drives) numbers.push_back(drive.number);
  CO_TRY(log_.check_copies());
  CO_TRY(co_await labels_.add(std::move(drives), log_.writable_copies_min()));
  co_return co_await log_.note_named(std::move(numbers));
}

// The metadata's copies that went to it lie elsewhere, and no label names it: then it can be closed, and asked for again.
Task<Result<void>> Administration::undo_join(Drive* drive) {
  const uint32_t number = drive->number();
  if (labels_.names(number)) {
    CO_TRY(co_await log_.leave_drive(number));
    CO_TRY(co_await labels_.drop(number, log_.writable_copies_min()));
  } else if (!labels_.certain()) {  // one that names it may have reached some drives
    if (log_.knows_drive(number)) CO_TRY(co_await log_.leave_drive(number));
    CO_TRY(co_await labels_.write(log_.writable_copies_min()));
  }
  log_.forget_drive(number);
  Result<void> cleared = co_await drive->set_label("");
  std::move(cleared).ignore("no newer label names it: at the next start it is not of this cluster");
  drive->take_down("it was not added");
  Result<void> closed = co_await drive->close();
  std::move(closed).ignore("it is not used");
  co_return Result<void>();
}

// After what the map says is certain.
Task<void> Administration::finish_half_join(Drive* drive) {
  if (drives_.topology()->map.drives.contains(drive->number())) {
    LOG_INFO("drive added", {"drive", drive->number()}, {"path", drive->path()});
    std::erase(half_joined_, drive);
    repairer_.alarm.ring();
    co_return;
  }
  Result<void> undone = co_await undo_join(drive);
  if (undone) std::erase(half_joined_, drive);
  if (!undone) std::move(undone).ignore("the metadata's copies on it are needed for now: tried again with the next look");
}

// A drive came back, so that there are enough.
Task<void> Administration::add_waiting() {
  std::erase_if(waiting_, [](const Joining& one) { return !one.drive->readable(); });
  if (waiting_.empty()) co_return;
  std::vector<Joining> joining = std::exchange(waiting_, {});
  Result<void> joined = co_await join_all(std::move(joining));
  if (joined) {
    repairer_.alarm.ring();
  } else if (waiting_.empty()) {
    LOG_WARNING("drives that waited for others could not be added", {"error", joined.error().to_string()});
  }
}

// A drive of this store, at whatever path it is now: by its identity.
Task<Result<bool>> Administration::take_back(std::string path) {
  if (!open_known_) co_return false;
  const auto topology = drives_.topology();
  // One that was disabled a moment ago may still have it open, also where the directory was moved since.
  for (const auto& [number, known] : topology->map.drives) {
    Drive* drive = drives_.find(number);
    if (!known.disabled || drive == nullptr || drive->closed() || (drive->hangs() && drive->path() != path)) continue;
    const bool closed = co_await let_close(drive);
    if (!closed && drive->path() == path) co_return fail(Code::busy, "{} is drive {}, which still hangs; try again later", path, number);
  }
  Result<OpenedDrive> opened = co_await open_known_(path, topology->map.cluster, false);
  if (!opened) co_return false;  // to be added as a new one, or refused as that
  const MapDrive* known = topology->map.find(opened->store->drive_id());
  CO_TRY(co_await on(*opened->owner, opened->store->close()));
  if (known == nullptr || known->is_past()) co_return false;
  const Drive* drive = drives_.find(known->number);
  const bool expected = known->state == DriveState::active || known->state == DriveState::draining;
  if (expected && !known->disabled && drive != nullptr && drive->readable()) co_return false;
  CO_TRY(co_await enable(known->number, path));
  co_return true;
}

Task<Result<void>> Administration::add_drive(std::string path, bool force) {
  co_await turn_.acquire();
  Turn turn{turn_};
  for (const auto& [number, known] : drives_.topology()->map.drives) {
    const Drive* drive = drives_.find(number);
    const bool expected = known.state == DriveState::active || known.state == DriveState::draining;
    if (expected && !known.disabled && drive != nullptr && drive->readable() && drive->path() == path) co_return already_known(known, path);
  }
  for (const Joining& one : waiting_) {
    if (one.label.path == path) co_return fail(Code::already_exists, "{} waits for another drive already: add that", path);
  }
  if (!force) {
    CO_TRY_ASSIGN(const bool back, co_await take_back(path));
    if (back) co_return Result<void>();
  }
  CO_TRY_ASSIGN(uint32_t number, co_await join(std::move(path), force));
  static_cast<void>(number);
  repairer_.alarm.ring();
  co_return Result<void>();
}

}  // namespace quarry::cluster
