#include "daemon/drives.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include "chunk/fencing.h"
#include "cluster/map/chunk_ids.h"
#include "daemon/drive_kind.h"
#include "daemon/mount_notes.h"
#include "daemon/patience.h"
#include "io/clock.h"
#include "io/uring_block_device.h"

namespace quarry::daemon {

namespace {

// root/drives/drive-NN: made as sparse files while the store is made, found later.
Result<std::vector<std::string>> file_backed(const NodeConfig& config, bool make) {
  namespace fs = std::filesystem;
  const fs::path directory = fs::path(config.root) / "drives";
  std::error_code error;
  std::vector<std::string> paths;
  if (make) {
    fs::create_directories(directory, error);
    if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
    const auto space = fs::space(directory, error);
    if (!error && config.drives * config.drive_bytes > space.available) {
      LOG_WARNING("the drives are sparse files of more bytes than the disk has free; they will be full when the disk is",
                  {"drives", config.drives * config.drive_bytes}, {"free", space.available});
    }
    for (unsigned i = 0; i < config.drives; ++i) {
      const fs::path path = directory / fmt::format("drive-{:02}", i);
      // A start that was cut short leaves a file without a size.
      if (fs::exists(path, error) && fs::file_size(path, error) == 0 && !error) fs::remove(path, error);
      if (!fs::exists(path, error)) TRY(create_file_device(path.string(), config.drive_bytes));
    }
  }
  if (!fs::exists(directory, error)) return paths;
  for (const auto& entry : fs::directory_iterator(directory, error)) paths.push_back(entry.path().string());
  if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

Result<std::vector<DriveToOpen>> drives_of(const NodeConfig& config, const RootMemory& memory) {
  std::vector<DriveToOpen> drives;
  std::set<std::string> seen;
  const auto add = [&](const std::string& path) -> Result<void> {
    TRY_ASSIGN(const DriveSpec spec, parse_drive_spec(path));
    const std::string text = spec.text();
    if (seen.insert(text).second) drives.push_back({text, nullptr});
    return {};
  };
  for (const auto& device : config.devices) TRY(add(device));
  if (config.devices.empty()) {
    TRY_ASSIGN(const auto files, file_backed(config, memory.stage == RootMemory::Stage::creating));
    for (const auto& path : files) TRY(add(path));
  }
  for (const auto& path : memory.drives) TRY(add(path));
  return drives;
}

namespace {

// Stores are closed and destroyed on the executor that owns them.
Task<void> close_found(std::shared_ptr<FoundDrive> found) { co_await found->close(); }
Task<void> close_store(std::unique_ptr<chunk::ChunkStore> store) {
  Result<void> closed = co_await store->close();
  std::move(closed).ignore("the start fails for another reason, which is told");
}

struct Identified {
  std::string path;
  Executor* owner = nullptr;
  std::shared_ptr<FoundDrive> found;  // shared with an opening that was given up
  std::string unmounted;              // of one that carries no drive: a file system is missing there (missing_mount)
  bool fresh() const { return !found->identity.has_value(); }
  Uuid cluster() const { return fresh() ? Uuid{} : found->identity->cluster; }
};
Task<void> close_identified(Identified one) { co_await one.found->close(); }
Task<void> forget_place(std::string) { co_return; }

// Which file system a directory is on; empty: not to be told.
std::string file_system_at(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return {};
  struct stat info{};
  struct statfs system{};
  std::string id;
  if (::fstat(fd, &info) == 0) id = fmt::format("{}:{}", major(info.st_dev), minor(info.st_dev));
  // Subvolumes of btrfs have device numbers of their own, and one space.
  if (::fstatfs(fd, &system) == 0 && system.f_type == BTRFS_SUPER_MAGIC) {
    const int readable = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    btrfs_ioctl_fs_info_args args{};
    if (readable >= 0 && ::ioctl(readable, BTRFS_IOC_FS_INFO, &args) == 0) {
      id = "btrfs ";
      for (const uint8_t byte : args.fsid) id += fmt::format("{:02x}", byte);
    }
    if (readable >= 0) ::close(readable);
  }
  ::close(fd);
  return id;
}

// Which thing a path names: two names of one device, or of one directory, are one drive. The path itself where that cannot be told.
std::string place_of(const DriveSpec& spec) {
  struct stat info{};
  if (::stat(spec.path.c_str(), &info) != 0) return spec.text();
  if (S_ISBLK(info.st_mode)) return fmt::format("device {}:{}", major(info.st_rdev), minor(info.st_rdev));
  return fmt::format("{} {}:{} {}", spec.kind->name(), major(info.st_dev), minor(info.st_dev), info.st_ino);
}

Task<Result<std::string>> find_place(DriveSpec spec) {
  std::string place = co_await blocking_apart([spec] { return place_of(spec); });
  co_return place;
}

Task<Result<std::string>> find_place_patiently(DriveToOpen drive) {
  CO_TRY_ASSIGN(const DriveSpec spec, parse_drive_spec(drive.path));
  co_return co_await while_it_answers<std::string>(spec, *drive.owner, kStartPatience, find_place(spec), forget_place);
}

// Which file system a drive takes its space from; empty: none that others may use, or not to be told.
std::string file_system_of(const DriveSpec& spec) { return spec.kind == &raw_drive_kind() ? std::string() : file_system_at(spec.path); }

// For a drive that is a file with holes. Null: it has its space for itself.
std::function<Result<cluster::SpaceBelow>()> look_below(const DriveSpec& spec) {
  struct stat info{};
  if (spec.kind != &raw_drive_kind() || ::stat(spec.path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return nullptr;
  return [path = spec.path]() -> Result<cluster::SpaceBelow> {
    struct stat file{};
    struct statfs system{};
    if (::stat(path.c_str(), &file) != 0 || ::statfs(path.c_str(), &system) != 0) return errno_error(errno, path);
    return cluster::SpaceBelow{.file_system = file_system_at(std::filesystem::path(path).parent_path().string()),
                               .free_bytes = system.f_bavail * static_cast<uint64_t>(system.f_bsize),
                               .allocated_bytes = static_cast<uint64_t>(file.st_blocks) * 512};
  };
}

Task<Result<Identified>> look_at(DriveToOpen drive, DriveSpec spec, bool force) {
  auto found = co_await spec.kind->find(spec.path, force);
  std::string unmounted;
  if ((!found || !(*found)->identity) && spec.kind != &raw_drive_kind())
    unmounted = co_await blocking_apart([spec] { return missing_mount(spec.path); });
  // Before what the bare directory holds: nobody shall be told to destroy that.
  if (!found && !unmounted.empty()) co_return fail(Code::misconfigured, "{}: {}", spec.text(), unmounted);
  if (!found) co_return std::move(found).error();
  co_return Identified{spec.text(), drive.owner, std::move(*found), std::move(unmounted)};
}

Task<Result<Identified>> identify(DriveToOpen drive, bool force, Duration patience) {
  CO_TRY_ASSIGN(const DriveSpec spec, parse_drive_spec(drive.path));
  Executor& owner = *drive.owner;
  co_return co_await while_it_answers<Identified>(spec, owner, patience, look_at(std::move(drive), spec, force), close_identified);
}

// `cluster`: to format for, or to refuse others than; none: a drive formatted for nobody joins `join`.
struct HowToOpen {
  std::optional<Uuid> cluster;
  std::optional<Uuid> join;
  bool fresh = false, force = false;
};

Task<Result<cluster::OpenedDrive>> format_and_open(Identified one, DriveSpec spec, HowToOpen how) {
  if (how.fresh) {
    Result<Uuid> formatted = co_await one.found->format(how.cluster.value_or(Uuid{}), how.force);
    if (!formatted) co_return std::move(formatted).error();
  }
  CO_TRY_ASSIGN(auto store, co_await one.found->open(how.cluster));
  if (how.join) {
    Result<void> joined = co_await one.found->join(*store, *how.join);
    if (!joined) {
      Result<void> closed = co_await store->close();
      std::move(closed).ignore("it could not join, which is told");
      co_return std::move(joined).error();
    }
  }
  std::string file_system = co_await blocking_apart([spec] {
    if (spec.kind != &raw_drive_kind()) note_mount(spec.path);
    return file_system_of(spec);
  });
  auto below = co_await blocking_apart([spec] { return look_below(spec); });
  co_return cluster::OpenedDrive{.store = std::move(store),
                                 .owner = one.owner,
                                 .path = std::move(one.path),
                                 .domain = {},
                                 .weight = 0,
                                 .file_system = std::move(file_system),
                                 .look_below = std::move(below)};
}

Task<void> close_opened(cluster::OpenedDrive drive) { co_await close_store(std::move(drive.store)); }

Task<Result<cluster::OpenedDrive>> open_one(Identified one, HowToOpen how, Duration patience) {
  CO_TRY_ASSIGN(const DriveSpec spec, parse_drive_spec(one.path));
  Executor& owner = *one.owner;
  const auto found = one.found;
  co_return co_await while_it_answers<cluster::OpenedDrive>(spec, owner, patience, format_and_open(std::move(one), spec, how), close_opened,
                                                            [found] { return found->stuck_for(); });
}

}  // namespace

namespace {

// One of each that is named several times; what does not answer goes to `unusable`.
Task<std::vector<DriveToOpen>> without_doubles(std::vector<DriveToOpen> drives, std::vector<cluster::UnopenedDrive>* unusable) {
  std::vector<Task<Result<std::string>>> finding;
  for (const auto& drive : drives) finding.push_back(find_place_patiently(drive));
  const std::vector<Result<std::string>> places = co_await when_all(std::move(finding));
  std::map<std::string, std::string> seen;
  std::vector<DriveToOpen> single;
  for (size_t i = 0; i < drives.size(); ++i) {
    if (!places[i]) {
      unusable->push_back({drives[i].path, places[i].error().to_string()});
      continue;
    }
    const auto [first, is_new] = seen.try_emplace(*places[i], drives[i].path);
    if (!is_new) {
      LOG_INFO("two names of one drive", {"used", first->second}, {"also", drives[i].path});
      continue;
    }
    single.push_back(drives[i]);
  }
  co_return single;
}

struct Looked {
  std::vector<Identified> usable;
  std::vector<cluster::UnopenedDrive> unusable;
  std::optional<Error> error;  // of one that is not usable; a person's mistake first
  std::set<Uuid> stores() const {
    std::set<Uuid> all;
    for (const auto& one : usable) {
      if (!one.cluster().is_nil()) all.insert(one.cluster());
    }
    return all;
  }
};

Task<Looked> look_at_all(std::vector<DriveToOpen> drives, bool force) {
  std::vector<Task<Result<Identified>>> identifying;
  for (const auto& drive : drives) identifying.push_back(identify(drive, force, kStartPatience));
  auto identified = co_await when_all(std::move(identifying));
  Looked looked;
  for (size_t at = 0; at < identified.size(); ++at) {
    auto& result = identified[at];
    if (result) {
      looked.usable.push_back(std::move(*result));
      continue;
    }
    const Code code = result.error().code();
    const bool mistake = code == Code::already_exists || code == Code::busy || code == Code::invalid_argument;
    if (!looked.error || mistake) looked.error.emplace(result.error());
    looked.unusable.push_back({drives[at].path, result.error().to_string()});
  }
  co_return looked;
}

Task<void> close_all(std::vector<Identified> found) {
  for (auto& one : found) co_await on(*one.owner, close_found(std::move(one.found)));
}

// What a creation leaves behind before it is finished: labels, and a little metadata.
Task<Result<bool>> holds_more_than_a_creation(std::unique_ptr<chunk::ChunkStore> store) {
  constexpr size_t kChunksMax = 256;
  const ChunkId last{UINT64_MAX, UINT64_MAX};
  auto listed = co_await store->list(ChunkId{}, last, kChunksMax);
  co_await close_store(std::move(store));
  if (!listed) co_return std::move(listed).error();
  co_return listed->size() == kChunksMax || std::ranges::any_of(*listed, [](const chunk::ChunkStat& chunk) {
    return cluster::chunk_name(chunk.id).kind == cluster::ChunkKind::data;
  });
}

// Of drives that carry the id of a creation that was cut short. Opens and closes them.
Task<Result<bool>> was_used(std::vector<Identified> drives) {
  bool used = false;
  std::optional<Error> error;
  for (auto& one : drives) {
    Executor& owner = *one.owner;
    if (one.fresh() || used || error) {
      co_await on(owner, close_found(std::move(one.found)));
      continue;
    }
    auto opened = co_await open_one(std::move(one), {}, kStartPatience);
    if (!opened) {
      error.emplace(std::move(opened).error());
      continue;
    }
    const auto more = co_await on(owner, holds_more_than_a_creation(std::move(opened->store)));
    if (!more) error.emplace(more.error());
    used = more && *more;
  }
  if (error) co_return std::move(*error);
  co_return used;
}

// Why no store may be made of drives that carry none; nothing: it may.
std::optional<Error> why_not_create(const StartRules& rules, const Looked& looked) {
  if (looked.error) return looked.error;
  if (looked.usable.empty())
    return fail(Code::unavailable, "{}", looked.unusable.empty() ? "no drive is named" : looked.unusable.front().why);
  if (!looked.unusable.empty()) return fail(Code::unavailable, "{}", looked.unusable.front().why);
  if (!rules.may_create) return fail(Code::not_found, "{} carries no store: there is nothing to check", looked.usable.front().path);
  if (rules.force) return std::nullopt;
  for (const auto& one : looked.usable) {
    if (!one.unmounted.empty()) return fail(Code::misconfigured, "{}: {}", one.path, one.unmounted);
  }
  const RootMemory& memory = rules.memory;
  if (memory.stage == RootMemory::Stage::made || (memory.stage == RootMemory::Stage::nothing && rules.has_index)) {
    return fail(Code::misconfigured,
                "this root had a store{}, and none of its drives is here: {} carries none. Mount or connect them, or name them with "
                "--device; to give that store up and make a new one, add --force",
                memory.store.is_nil() ? std::string() : fmt::format(" ({})", memory.store.to_string()), looked.usable.front().path);
  }
  return std::nullopt;
}

// Why a drive is not used: the store knows nothing of it.
std::string why_a_stranger(const Identified& one, const Uuid& store) {
  if (!one.unmounted.empty()) return one.unmounted;
  if (one.fresh()) {
    return fmt::format("it carries no drive of this store{}",
                       one.found->carries.empty() ? std::string(": it is blank") : fmt::format(", but {}", one.found->carries));
  }
  if (one.cluster().is_nil()) return "it is formatted, but part of no store yet";
  return fmt::format("it belongs to another store ({}), not to {}", one.cluster().to_string(), store.to_string());
}

std::string what_to_do_with(const Identified& one) {
  if (!one.unmounted.empty()) return {};
  const bool holds_something = one.fresh() ? !one.found->carries.empty() : !one.cluster().is_nil();
  if (!holds_something) return fmt::format("to use it: `quarry device add {}`", one.path);
  return fmt::format("to use it as a new drive, and DESTROY what is on it: `quarry device add --force {}`", one.path);
}

struct ToOpen {
  Identified drive;
  HowToOpen how;
};

// Errors: with all_or_none the first one; else only if none could be opened.
Task<Result<OpenedDrives>> open_all(std::vector<ToOpen> list, OpenedDrives opened, bool all_or_none) {
  std::vector<std::string> paths;
  std::vector<Task<Result<cluster::OpenedDrive>>> opening;
  for (auto& one : list) {
    paths.push_back(one.drive.path);
    opening.push_back(open_one(std::move(one.drive), one.how, kStartPatience));
  }
  auto stores = co_await when_all(std::move(opening));
  std::optional<Error> failed;
  for (size_t i = 0; i < stores.size(); ++i) {
    if (stores[i]) {
      opened.drives.push_back(std::move(*stores[i]));
    } else {
      opened.unusable.push_back({paths[i], stores[i].error().to_string()});
      failed.emplace(stores[i].error());
    }
  }
  if (failed && (all_or_none || opened.drives.empty())) {
    for (auto& drive : opened.drives) co_await on(*drive.owner, close_store(std::move(drive.store)));
    co_return std::move(*failed);
  }
  co_return opened;
}

Task<Result<OpenedDrives>> make_store(Looked looked, OpenedDrives opened, StartRules rules) {
  if (auto refusal = why_not_create(rules, looked)) {
    co_await close_all(std::move(looked.usable));
    co_return std::move(*refusal);
  }
  const bool again = rules.memory.stage == RootMemory::Stage::creating;
  opened.fresh = true;
  opened.cluster = again ? rules.memory.store : system_random().uuid();
  Result<void> noted = rules.begin_creation(opened.cluster);
  if (!noted) {
    co_await close_all(std::move(looked.usable));
    co_return std::move(noted).error();
  }
  std::vector<ToOpen> list;
  for (auto& one : looked.usable) {
    // Formatted by `quarry device format` for no store yet; or for this one, by a start that was cut short.
    const bool joins = !one.fresh() && one.cluster().is_nil();
    const bool remains = !one.fresh() && !joins;
    HowToOpen how{.cluster = opened.cluster, .join = {}, .fresh = true, .force = rules.force || remains};
    if (joins) how = {.cluster = {}, .join = opened.cluster};
    list.push_back({std::move(one), how});
  }
  co_return co_await open_all(std::move(list), std::move(opened), true);
}

Task<Result<OpenedDrives>> open_store(Looked looked, OpenedDrives opened, StartRules rules) {
  const std::set<Uuid> stores = looked.stores();
  const Uuid& remembered = rules.memory.store;
  const bool made = rules.memory.stage == RootMemory::Stage::made && !remembered.is_nil();
  opened.cluster = stores.contains(remembered) ? remembered : *stores.begin();
  std::optional<Error> refusal;
  if (made && opened.cluster != remembered) {
    refusal.emplace(Code::wrong_owner, fmt::format("this root is of store {}, and the drives are of {}: name another --root for them",
                                                   remembered.to_string(), opened.cluster.to_string()));
  } else if (!made && stores.size() > 1) {
    std::string each;
    for (const auto& one : looked.usable) {
      if (!one.cluster().is_nil())
        each += fmt::format("{}{} belongs to store {}", each.empty() ? "" : ", ", one.path, one.cluster().to_string());
    }
    refusal.emplace(Code::wrong_owner, each + ": name the drives of one");
  }
  if (refusal) {
    co_await close_all(std::move(looked.usable));
    co_return std::move(*refusal);
  }
  opened.unusable.insert(opened.unusable.end(), looked.unusable.begin(), looked.unusable.end());
  std::vector<ToOpen> list;
  std::vector<Identified> strangers;
  for (auto& one : looked.usable) {
    if (one.cluster() == opened.cluster) {
      list.push_back({std::move(one), {.cluster = opened.cluster, .join = {}}});
      continue;
    }
    opened.unusable.push_back({one.path, why_a_stranger(one, opened.cluster), what_to_do_with(one)});
    strangers.push_back(std::move(one));
  }
  co_await close_all(std::move(strangers));
  co_return co_await open_all(std::move(list), std::move(opened), false);
}

}  // namespace

Task<Result<OpenedDrives>> open_drives(std::vector<DriveToOpen> drives, StartRules rules) {
  OpenedDrives opened;
  drives = co_await without_doubles(std::move(drives), &opened.unusable);
  Looked looked = co_await look_at_all(drives, rules.force);
  const std::set<Uuid> stores = looked.stores();
  if (stores.empty()) {
    looked.unusable.insert(looked.unusable.end(), opened.unusable.begin(), opened.unusable.end());
    co_return co_await make_store(std::move(looked), std::move(opened), std::move(rules));
  }
  const bool cut_short = rules.memory.stage == RootMemory::Stage::creating && stores == std::set<Uuid>{rules.memory.store};
  if (!cut_short || !rules.may_create) co_return co_await open_store(std::move(looked), std::move(opened), std::move(rules));
  // Nobody was told of that store. Should it hold data all the same, it is one.
  CO_TRY_ASSIGN(const bool used, co_await was_used(std::move(looked.usable)));
  looked = co_await look_at_all(drives, rules.force);
  if (used) co_return co_await open_store(std::move(looked), std::move(opened), std::move(rules));
  looked.unusable.insert(looked.unusable.end(), opened.unusable.begin(), opened.unusable.end());
  LOG_INFO("the making of the store was interrupted: it is made anew", {"store", rules.memory.store.to_string()});
  co_return co_await make_store(std::move(looked), std::move(opened), std::move(rules));
}

void OwnedDrives::note(const cluster::OpenedDrive& opened) {
  const uint64_t epoch = opened.store->owner_epoch();
  std::lock_guard lock(mutex_);
  if (epoch != 0) epochs_[opened.store->drive_id()] = epoch;
}

void OwnedDrives::forget(const Uuid& drive) {
  std::lock_guard lock(mutex_);
  epochs_.erase(drive);
}

Result<void> OwnedDrives::check(const std::string& path, const DriveIdentity& there) const {
  std::lock_guard lock(mutex_);
  const auto ours = epochs_.find(there.drive);
  if (ours == epochs_.end() || there.owner_epoch == 0 || there.owner_epoch == ours->second) return {};
  return fail(Code::wrong_owner, "{}: {} since; it is that one's now", path, chunk::kTakenByAnother).because(Reason::taken);
}

namespace {

Task<Result<cluster::OpenedDrive>> open_and_note(OwnedDrives* owned, Identified found, HowToOpen how) {
  const std::optional<DriveIdentity> there = found.found->identity;
  Result<cluster::OpenedDrive> opened = co_await open_one(std::move(found), how, kAskedPatience);
  if (opened) owned->note(*opened);
  if (!opened && there) owned->forget(there->drive);
  co_return opened;
}

}  // namespace

Task<Result<cluster::OpenedDrive>> open_new_drive(Executor& owner, OwnedDrives& owned, std::string path, Uuid cluster, bool force) {
  CO_TRY_ASSIGN(Identified found, co_await identify({path, &owner}, force, kAskedPatience));
  const bool fresh = found.fresh() || force;
  std::optional<Error> refusal;
  if (!force && !found.unmounted.empty()) refusal.emplace(Code::misconfigured, fmt::format("{}: {}", path, found.unmounted));
  if (!fresh && !found.cluster().is_nil() && found.cluster() != cluster) {
    refusal.emplace(Code::wrong_owner, fmt::format("{} belongs to another store ({}); to DESTROY what is on it, use --force", path,
                                                   found.cluster().to_string()));
  }
  if (!fresh && !refusal) {
    Result<void> ours = owned.check(path, *found.found->identity);
    if (!ours) refusal.emplace(std::move(ours).error());
  }
  if (refusal) {
    co_await on(owner, close_found(std::move(found.found)));
    co_return std::move(*refusal);
  }
  HowToOpen how{.cluster = cluster, .join = {}, .fresh = fresh, .force = force};
  if (!fresh && found.cluster().is_nil()) how = {.cluster = {}, .join = cluster};
  co_return co_await open_and_note(&owned, std::move(found), how);
}

Task<Result<cluster::OpenedDrive>> open_known_drive(Executor& owner, OwnedDrives& owned, std::string path, Uuid cluster, bool force) {
  CO_TRY_ASSIGN(Identified found, co_await identify({path, &owner}, false, kAskedPatience));
  if (found.fresh()) {
    const std::string why = why_a_stranger(found, cluster);
    co_await on(owner, close_found(std::move(found.found)));
    co_return fail(Code::not_found, "{}: {}", path, why);
  }
  Result<void> ours = owned.check(path, *found.found->identity);
  if (!ours && !force) {
    co_await on(owner, close_found(std::move(found.found)));
    co_return std::move(ours).error();
  }
  std::move(ours).ignore("or it is forced");
  co_return co_await open_and_note(&owned, std::move(found), {.cluster = cluster, .join = {}});
}

}  // namespace quarry::daemon
