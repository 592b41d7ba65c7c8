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
#include <fstream>
#include <set>

#include "daemon/drive_kind.h"
#include "daemon/patience.h"
#include "io/clock.h"
#include "io/uring_block_device.h"

namespace quarry::daemon {

namespace {

// root/drives/drive-NN: made as sparse files on the first start, found on later ones.
Result<std::vector<std::string>> file_backed(const NodeConfig& config, bool make) {
  namespace fs = std::filesystem;
  const fs::path directory = fs::path(config.root) / "drives";
  std::error_code error;
  std::vector<std::string> paths;
  if (!make && !fs::exists(directory, error)) return paths;
  fs::create_directories(directory, error);
  if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
  for (const auto& entry : fs::directory_iterator(directory, error)) paths.push_back(entry.path().string());
  if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
  std::sort(paths.begin(), paths.end());
  if (!paths.empty() || !make) return paths;
  const auto space = fs::space(directory, error);
  if (!error && config.drives * config.drive_bytes > space.available) {
    LOG_WARNING("the drives are sparse files of more bytes than the disk has free; they will be full when the disk is",
                {"drives", config.drives * config.drive_bytes}, {"free", space.available});
  }
  for (unsigned i = 0; i < config.drives; ++i) {
    const std::string path = (directory / fmt::format("drive-{:02}", i)).string();
    TRY(create_file_device(path, config.drive_bytes));
    paths.push_back(path);
  }
  return paths;
}

}  // namespace

Result<std::vector<DriveToOpen>> drives_of(const NodeConfig& config) {
  std::vector<DriveToOpen> drives;
  std::set<std::string> seen;
  const std::vector<std::string> remembered = remembered_drives(config.root);
  const std::set<std::string> known(remembered.begin(), remembered.end());
  const auto add = [&](const std::string& path) -> Result<void> {
    TRY_ASSIGN(const DriveSpec spec, parse_drive_spec(path));
    const std::string text = spec.text();
    if (seen.insert(text).second) drives.push_back({text, nullptr, known.contains(text)});
    return {};
  };
  for (const auto& device : config.devices) TRY(add(device));
  if (config.devices.empty()) {
    TRY_ASSIGN(const auto files, file_backed(config, remembered.empty()));
    for (const auto& path : files) TRY(add(path));
  }
  for (const auto& path : remembered) TRY(add(path));
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
  bool fresh() const { return !found->identity.has_value(); }
};
Task<void> close_identified(Identified one) { co_await one.found->close(); }

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
  CO_TRY_ASSIGN(auto found, co_await spec.kind->find(spec.path, force));
  if (drive.known && !found->identity) {
    co_await found->close();
    co_return fail(Code::not_found, "{} carries no drive any more: bring it back, or `quarry device replace`", drive.path);
  }
  co_return Identified{spec.text(), drive.owner, std::move(found)};
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
  std::string file_system = co_await blocking_apart([spec] { return file_system_of(spec); });
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

Task<Result<OpenedDrives>> open_drives(std::vector<DriveToOpen> drives, bool force) {
  std::vector<Task<Result<Identified>>> identifying;
  for (const auto& drive : drives) identifying.push_back(identify(drive, force, kStartPatience));
  auto identified = co_await when_all(std::move(identifying));

  OpenedDrives opened;
  std::vector<Identified> usable;
  std::optional<Error> refusal;
  unsigned with_identity = 0;
  for (size_t at = 0; at < identified.size(); ++at) {
    auto& result = identified[at];
    if (!result) {
      const bool mistake = result.error().code() == Code::already_exists || result.error().code() == Code::busy ||
                           result.error().code() == Code::invalid_argument;
      if (mistake && !drives[at].known) refusal.emplace(result.error());
      opened.unusable.push_back({drives[at].path, result.error().to_string()});
      continue;
    }
    with_identity += !result->fresh();
    usable.push_back(std::move(*result));
  }
  // What carries something else is a mistake of the person who named it, never a failed drive.
  if (!refusal && usable.empty())
    refusal.emplace(Code::unavailable, opened.unusable.empty() ? "no drive is named" : opened.unusable.front().why);
  if (!refusal && with_identity == 0 && !opened.unusable.empty()) refusal.emplace(Code::unavailable, opened.unusable.front().why);
  if (!refusal && with_identity > 0 && with_identity < usable.size()) {
    std::string fresh;
    for (const auto& one : usable) {
      if (one.fresh()) fresh = one.path;
    }
    refusal.emplace(Code::misconfigured,
                    fmt::format("{} is empty but other drives carry a store; start without it, then: quarry device add {}", fresh, fresh));
  }
  if (!refusal) {
    for (const auto& one : usable) {
      if (one.fresh()) continue;
      const Uuid& owner = one.found->identity->cluster;
      if (opened.cluster.is_nil()) opened.cluster = owner;
      if (owner != opened.cluster) {
        refusal.emplace(Code::wrong_owner, fmt::format("{} belongs to store {}, another drive to {}", one.path, owner.to_string(),
                                                       opened.cluster.to_string()));
      }
    }
  }
  if (refusal) {
    for (auto& one : usable) co_await on(*one.owner, close_found(std::move(one.found)));
    co_return std::move(*refusal);
  }

  // Formatted by `quarry device format` for no cluster yet, or not at all: a new store.
  opened.fresh = with_identity == 0 || opened.cluster.is_nil();
  if (opened.fresh) opened.cluster = system_random().uuid();
  std::vector<Task<Result<cluster::OpenedDrive>>> opening;
  for (const auto& one : usable) {
    HowToOpen how{.cluster = opened.cluster, .join = {}, .fresh = one.fresh(), .force = force};
    if (opened.fresh && !one.fresh()) how = {.cluster = {}, .join = opened.cluster};
    opening.push_back(open_one(one, how, kStartPatience));
  }
  auto stores = co_await when_all(std::move(opening));
  std::optional<Error> failed;
  for (size_t i = 0; i < stores.size(); ++i) {
    if (stores[i]) {
      opened.drives.push_back(std::move(*stores[i]));
    } else {
      opened.unusable.push_back({usable[i].path, stores[i].error().to_string()});
      failed.emplace(stores[i].error());
    }
  }
  if (failed && (opened.fresh || opened.drives.empty())) {
    for (auto& drive : opened.drives) {
      co_await on(*drive.owner, close_store(std::move(drive.store)));
    }
    co_return std::move(*failed);
  }
  co_return opened;
}

Task<Result<cluster::OpenedDrive>> open_new_drive(Executor& owner, std::string path, Uuid cluster, bool force) {
  CO_TRY_ASSIGN(Identified found, co_await identify({path, &owner, false}, force, kAskedPatience));
  const bool fresh = found.fresh() || force;
  if (!fresh && !found.found->identity->cluster.is_nil() && found.found->identity->cluster != cluster) {
    const Uuid other = found.found->identity->cluster;
    co_await on(owner, close_found(found.found));
    co_return fail(Code::wrong_owner, "{} belongs to another store ({}); to DESTROY what is on it, use --force", path, other.to_string());
  }
  HowToOpen how{.cluster = cluster, .join = {}, .fresh = fresh, .force = force};
  if (!fresh && found.found->identity->cluster.is_nil()) how = {.cluster = {}, .join = cluster};
  co_return co_await open_one(std::move(found), how, kAskedPatience);
}

Task<Result<cluster::OpenedDrive>> open_known_drive(Executor& owner, std::string path, Uuid cluster) {
  CO_TRY_ASSIGN(Identified found, co_await identify({path, &owner, true}, false, kAskedPatience));
  co_return co_await open_one(std::move(found), {.cluster = cluster, .join = {}}, kAskedPatience);
}

// ---- which drives a root has ---------------------------------------------------------------------------------------------------

namespace {
std::string list_of(const std::string& root) { return root + "/drives.list"; }
}  // namespace

std::vector<std::string> remembered_drives(const std::string& root) {
  std::ifstream in(list_of(root));
  std::vector<std::string> drives;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') drives.push_back(line);
  }
  return drives;
}

Result<void> remember_drives(const std::string& root, const std::vector<std::string>& drives) {
  const std::string path = list_of(root), fresh = path + ".new";
  {
    std::ofstream out(fresh, std::ios::trunc);
    out << "# The drives of the node in this directory, one a line; kept by Quarry: quarry device add, replace, remove.\n";
    for (const auto& drive : drives) out << drive << '\n';
    out.flush();
    if (!out) return fail(Code::io_error, "{} cannot be written", fresh);
  }
  std::error_code error;
  std::filesystem::rename(fresh, path, error);
  if (error) return fail(Code::io_error, "{}: {}", path, error.message());
  return {};
}

}  // namespace quarry::daemon
