#include "daemon/drives.h"

#include <filesystem>

#include "chunk/raw/device_probe.h"
#include "chunk/raw/raw_store.h"
#include "io/clock.h"
#include "io/uring_block_device.h"

namespace quarry::daemon {

Result<std::vector<std::string>> drive_paths(const NodeConfig& config) {
  if (!config.devices.empty()) return config.devices;
  namespace fs = std::filesystem;
  const fs::path directory = fs::path(config.root) / "drives";
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(directory, error)) paths.push_back(entry.path().string());
  if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
  std::sort(paths.begin(), paths.end());
  if (!paths.empty()) return paths;
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

namespace {

constexpr Duration kBusyPatience = std::chrono::seconds(5);  // for a drive that another process still holds
constexpr Duration kBusyRetry = std::chrono::milliseconds(20);

std::string foreign_message(const std::string& path, const chunk::ForeignContent& content) {
  return fmt::format("{} is not empty: {}. It was left alone; to DESTROY what is on it: quarry device format --force {}", path, content.description, path);
}

// Devices and stores are closed and destroyed on the executor that owns them.
Task<void> close_device(std::unique_ptr<BlockDevice> device) { co_await device->close(); }
Task<void> close_store(std::unique_ptr<chunk::ChunkStore> store) {
  Result<void> closed = co_await store->close();
  std::move(closed).ignore("the start fails for another reason, which is told");
}

struct Identified {
  std::string path;
  Executor* owner = nullptr;
  std::unique_ptr<BlockDevice> device;
  std::optional<chunk::RawStore::Identity> identity;  // none: fresh
};

Task<Result<Identified>> identify(DriveToOpen drive, bool force) {
  Identified found{drive.path, drive.owner, nullptr, std::nullopt};
  // The kernel lets go of a killed process's rings, and of the drives registered with them, some time after the process is gone.
  const TimePoint patience = Executor::here().now() + kBusyPatience;
  auto device = co_await UringBlockDevice::open(drive.path);
  while (!device && device.error().code() == Code::busy && Executor::here().now() < patience) {
    co_await sleep_for(kBusyRetry);
    device = co_await UringBlockDevice::open(drive.path);
  }
  if (!device) co_return std::move(device).error().with(drive.path);
  found.device = std::move(*device);
  auto identity = co_await chunk::RawStore::identify(*found.device);
  if (identity) {
    found.identity = std::move(*identity);
    co_return found;
  }
  if (identity.error().code() != Code::not_found) {
    co_await found.device->close();
    co_return std::move(identity).error().with(drive.path);
  }
  auto foreign = chunk::probe_device(drive.path);
  std::optional<Error> refused;
  if (!foreign) {
    refused.emplace(std::move(foreign).error().with(drive.path));
  } else if (foreign->has_value() && !force) {
    refused.emplace(Code::already_exists, foreign_message(drive.path, **foreign));
  }
  if (refused) {
    co_await found.device->close();
    co_return std::move(*refused);
  }
  co_return found;
}

Task<Result<std::unique_ptr<chunk::RawStore>>> format_and_open(std::unique_ptr<BlockDevice> device, std::string path, Uuid cluster, bool fresh, bool force) {
  if (fresh) {
    auto formatted = co_await chunk::RawStore::format(*device, {.cluster = cluster, .force = force});
    if (!formatted) co_return std::move(formatted).error().with(path);
  }
  chunk::RawStoreOptions options;
  if (!cluster.is_nil()) options.cluster = cluster;
  auto store = co_await chunk::RawStore::open(std::move(device), options);
  if (!store) co_return std::move(store).error().with(path);
  for (const auto& line : (*store)->open_report().damage) LOG_ERROR("drive is damaged", {"path", path}, {"damage", line});
  co_return std::move(*store);
}

}  // namespace

Task<Result<OpenedDrives>> open_drives(std::vector<DriveToOpen> drives, bool force) {
  std::vector<Task<Result<Identified>>> identifying;
  for (const auto& drive : drives) identifying.push_back(on(*drive.owner, identify(drive, force)));
  auto identified = co_await when_all(std::move(identifying));

  OpenedDrives opened;
  std::vector<Identified> usable;
  std::optional<Error> refusal;
  unsigned with_identity = 0;
  for (auto& result : identified) {
    if (!result) {
      if (result.error().code() == Code::already_exists || result.error().code() == Code::busy) refusal.emplace(result.error());
      opened.unusable.push_back(result.error().to_string());
      continue;
    }
    with_identity += result->identity.has_value();
    usable.push_back(std::move(*result));
  }
  // What carries something else is a mistake of the person who named it, never a failed drive.
  if (!refusal && usable.empty()) refusal.emplace(Code::unavailable, opened.unusable.empty() ? "no drive is named" : opened.unusable.front());
  if (!refusal && with_identity == 0 && !opened.unusable.empty()) refusal.emplace(Code::unavailable, opened.unusable.front());
  if (!refusal && with_identity > 0 && with_identity < usable.size()) {
    std::string fresh;
    for (const auto& one : usable) {
      if (!one.identity) fresh = one.path;
    }
    refusal.emplace(Code::misconfigured, fmt::format("{} is empty but other drives carry a store; start without it, then: quarry device add {}", fresh, fresh));
  }
  if (!refusal) {
    for (const auto& one : usable) {
      if (!one.identity) continue;
      if (opened.cluster.is_nil()) opened.cluster = one.identity->cluster;
      if (one.identity->cluster != opened.cluster) {
        refusal.emplace(Code::wrong_owner, fmt::format("{} belongs to store {}, another drive to {}", one.path, one.identity->cluster.to_string(), opened.cluster.to_string()));
      }
    }
  }
  if (refusal) {
    for (auto& one : usable) co_await on(*one.owner, close_device(std::move(one.device)));
    co_return std::move(*refusal);
  }

  // Formatted by `quarry device format` for no cluster yet, or not at all: a new store.
  opened.fresh = with_identity == 0 || opened.cluster.is_nil();
  if (opened.fresh) opened.cluster = system_random().uuid();
  std::vector<Task<Result<std::unique_ptr<chunk::RawStore>>>> opening;
  for (auto& one : usable) {
    const bool join = opened.fresh && one.identity.has_value();
    opening.push_back(on(*one.owner, format_and_open(std::move(one.device), one.path, join ? Uuid{} : opened.cluster, !one.identity.has_value(), force)));
  }
  auto stores = co_await when_all(std::move(opening));
  std::optional<Error> failed;
  for (size_t i = 0; i < stores.size(); ++i) {
    if (!stores[i]) {
      opened.unusable.push_back(stores[i].error().to_string());
      failed.emplace(stores[i].error());
      continue;
    }
    if (opened.fresh && usable[i].identity.has_value()) {
      Result<void> joined = co_await on(*usable[i].owner, (*stores[i])->set_cluster_id(opened.cluster));
      if (!joined) failed.emplace(std::move(joined).error());
    }
    opened.drives.push_back({.store = std::move(*stores[i]), .owner = usable[i].owner, .path = usable[i].path, .domain = {}, .weight = 0});
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
  CO_TRY_ASSIGN(Identified found, co_await identify({path, &owner}, force));
  const bool fresh = !found.identity.has_value() || force;
  if (!fresh && !found.identity->cluster.is_nil() && found.identity->cluster != cluster) {
    co_await found.device->close();
    co_return fail(Code::wrong_owner, "{} belongs to another store ({}); to DESTROY what is on it, use --force", path, found.identity->cluster.to_string());
  }
  const bool join = !fresh && found.identity->cluster.is_nil();
  CO_TRY_ASSIGN(auto store, co_await format_and_open(std::move(found.device), path, join ? Uuid{} : cluster, fresh, force));
  if (join) {
    CO_TRY(co_await store->set_cluster_id(cluster));
  }
  co_return cluster::OpenedDrive{.store = std::move(store), .owner = &owner, .path = path, .domain = {}, .weight = 0};
}

}  // namespace quarry::daemon
