// Raw drives: whole block devices, or files that stand for them (chunk/raw).
#include "base/log.h"
#include "chunk/raw/device_probe.h"
#include "chunk/raw/raw_store.h"
#include "cluster/drives/lived_time.h"
#include "cluster/node/inspect.h"
#include "daemon/drive_kind.h"
#include "io/blocking_pool.h"
#include "io/executor.h"
#include "io/uring_block_device.h"

namespace quarry::daemon {
namespace {

constexpr Duration kBusyPatience = std::chrono::seconds(5);  // for a drive that another process still holds
constexpr Duration kBusyRetry = std::chrono::milliseconds(20);

class FoundRaw final : public FoundDrive {
 public:
  FoundRaw(std::string path, std::unique_ptr<BlockDevice> device) : path_(std::move(path)), device_(std::move(device)) {}

  Task<Result<Uuid>> format(Uuid cluster, bool force) override {
    auto formatted = co_await chunk::RawStore::format(*device_, {.cluster = cluster, .force = force});
    if (!formatted) co_return std::move(formatted).error().with(path_);
    co_return *formatted;
  }
  Task<Result<std::unique_ptr<chunk::ChunkStore>>> open(std::optional<Uuid> cluster) override {
    chunk::RawStoreOptions options;
    options.cluster = cluster;
    opening_ = device_.get();
    auto store = co_await chunk::RawStore::open(std::move(device_), options);
    opening_ = nullptr;  // a device that could not be opened died just now, in this turn of the loop
    if (!store) co_return std::move(store).error().with(path_);
    for (const auto& line : (*store)->open_report().damage) LOG_ERROR("drive is damaged", {"path", path_}, {"damage", line});
    co_return std::unique_ptr<chunk::ChunkStore>(std::move(*store));
  }
  Task<Result<void>> join(chunk::ChunkStore& store, Uuid cluster) override {
    return static_cast<chunk::RawStore&>(store).set_cluster_id(cluster);
  }
  Task<void> close() override {
    if (device_ != nullptr) co_await device_->close();
  }
  Duration stuck_for() override {
    if (opening_ == nullptr) return Duration(0);
    const DeviceStats stats = opening_->stats();
    const uint64_t returned = stats.reads + stats.writes + stats.flushes + stats.discards + stats.errors;
    lived_.tick(Executor::here().now());
    if (stats.in_flight == 0 || returned != returned_) waiting_since_ = lived_.total();
    returned_ = returned;
    return lived_.total() - waiting_since_;
  }
  uint64_t size_bytes() const override { return device_ != nullptr ? device_->info().size : 0; }
  BlockDevice& device() { return *device_; }

 private:
  const std::string path_;
  std::unique_ptr<BlockDevice> device_;
  const BlockDevice* opening_ = nullptr;  // while a store is opened on it
  uint64_t returned_ = 0;                 // requests that had come back when it was asked last,
  cluster::LivedTime lived_;
  Duration waiting_since_{0};  // and since when it is as many
};

// The kernel lets go of the rings of a process that has ended, and of the drives registered with them, some time after it is gone.
Task<Result<std::unique_ptr<BlockDevice>>> open_patiently(std::string path, UringBlockDevice::Options options) {
  const TimePoint patience = Executor::here().now() + kBusyPatience;
  auto device = co_await UringBlockDevice::open(path, options);
  while (!device && device.error().code() == Code::busy && Executor::here().now() < patience) {
    co_await sleep_for(kBusyRetry);
    device = co_await UringBlockDevice::open(path, options);
  }
  co_return device;
}

class RawDriveKind final : public DriveKind {
 public:
  std::string_view name() const override { return "raw"; }
  std::string_view help() const override { return "PATH: a whole block device, or a file that stands for one"; }

  Task<Result<std::unique_ptr<FoundDrive>>> find(std::string path, bool force) const override {
    auto device = co_await open_patiently(path, {});
    if (!device) co_return std::move(device).error().with(path);
    auto found = std::make_unique<FoundRaw>(path, std::move(*device));
    auto identity = co_await chunk::RawStore::identify(found->device());
    if (identity) {
      found->identity = DriveIdentity{identity->drive, identity->cluster, identity->fencing_epoch};
      co_return std::unique_ptr<FoundDrive>(std::move(found));
    }
    std::optional<Error> refused;
    const Code code = identity.error().code();
    const bool ruined = code == Code::corrupt || code == Code::incompatible;
    if (code != Code::not_found && !(ruined && force)) {
      refused.emplace(std::move(identity).error().with(path));
      if (ruined)
        refused.emplace(std::move(*refused).with(fmt::format("to DESTROY what is on it: `quarry device format --force {}`", path)));
    } else if (ruined) {
      found->carries = identity.error().context();
    } else {
      auto foreign = co_await blocking_apart([path] { return chunk::probe_device(path); });
      if (!foreign) {
        refused.emplace(std::move(foreign).error().with(path));
      } else if (foreign->has_value()) {
        found->carries = (*foreign)->description;
        if (!force) {
          refused.emplace(Code::already_exists,
                          fmt::format("{} is not empty: {}. It was left alone; to DESTROY what is on it: `quarry device format --force {}`",
                                      path, (*foreign)->description, path));
        }
      }
    }
    if (refused) {
      co_await found->close();
      co_return std::move(*refused);
    }
    co_return std::unique_ptr<FoundDrive>(std::move(found));
  }

  Task<Result<DriveIdentity>> identify(std::string path) const override {
    UringBlockDevice::Options options;
    options.read_only = true;
    options.exclusive = false;
    CO_TRY_ASSIGN(auto device, co_await UringBlockDevice::open(path, options));
    auto identity = co_await chunk::RawStore::identify(*device);
    co_await device->close();
    if (!identity) co_return std::move(identity).error().with(path);
    co_return DriveIdentity{identity->drive, identity->cluster, identity->fencing_epoch};
  }

  Task<Result<std::string>> inspect(std::string path, std::string what) const override {
    UringBlockDevice::Options options;
    options.read_only = true;
    options.exclusive = false;
    CO_TRY_ASSIGN(auto device, co_await UringBlockDevice::open(path, options));
    auto text = co_await chunk::inspect_raw_device(*device, what.empty() ? std::string("all") : what);
    co_await device->close();
    if (!text) co_return std::move(text).error().with(path);
    if (!what.empty() && what != "all") co_return std::move(*text);
    // What the cluster keeps there besides object data.
    CO_TRY_ASSIGN(auto again, co_await UringBlockDevice::open(path, options));
    auto store = co_await chunk::RawStore::open(std::move(again), {.read_only = true, .background = false});
    if (!store) co_return std::move(*text);  // the structures above say why
    auto metadata = co_await cluster::inspect_metadata(**store);
    (co_await (*store)->close()).ignore("it only read");
    if (!metadata) co_return std::move(metadata).error().with(path);
    co_return text->substr(0, text->rfind('\n')) + ",\n  \"metadata\": " + *metadata + "\n}";
  }

  Task<Result<chunk::FsckReport>> fsck(std::string path) const override {
    UringBlockDevice::Options options;
    options.read_only = true;
    CO_TRY_ASSIGN(auto device, co_await open_patiently(path, options));
    co_return co_await chunk::fsck_raw_device(std::move(device), true);
  }
};

}  // namespace

const DriveKind& raw_drive_kind() {
  static const RawDriveKind kind;
  return kind;
}

}  // namespace quarry::daemon
