// Drives that are directories of an ordinary file system: kfs (chunk/kfs) and dir (chunk/dir).
#include "base/log.h"
#include "chunk/dir/dir_store.h"
#include "chunk/kfs/kfs_chunk_store.h"
#include "cluster/cluster.h"
#include "daemon/drive_kind.h"
#include "io/blocking_pool.h"
#include "io/executor.h"

namespace quarry::daemon {
namespace {

constexpr Duration kBusyPatience = std::chrono::seconds(5);  // for a directory that a killed process still holds
constexpr Duration kBusyRetry = std::chrono::milliseconds(20);

template <class Store, class Options>
Task<Result<std::unique_ptr<Store>>> open_patiently(std::string path, Options options) {
  const TimePoint patience = Executor::here().now() + kBusyPatience;
  auto store = co_await Store::open(path, options);
  while (!store && store.error().code() == Code::busy && Executor::here().now() < patience) {
    co_await sleep_for(kBusyRetry);
    store = co_await Store::open(path, options);
  }
  if (!store) co_return std::move(store).error().with(path);
  for (const auto& line : (*store)->open_report().damage) LOG_ERROR("drive is damaged", {"path", path}, {"damage", line});
  co_return std::move(*store);
}

template <class Store, class FormatOptions, class Options>
class FoundDirectory final : public FoundDrive {
 public:
  explicit FoundDirectory(std::string path) : path_(std::move(path)) {}
  Task<Result<Uuid>> format(Uuid cluster, bool force) override {
    FormatOptions options;
    options.cluster = cluster;
    if constexpr (requires { options.force; }) options.force = force;
    auto formatted = co_await Store::format(path_, std::move(options));
    if (!formatted) co_return std::move(formatted).error().with(path_);
    co_return *formatted;
  }
  Task<Result<std::unique_ptr<chunk::ChunkStore>>> open(std::optional<Uuid> cluster) override {
    Options options;
    options.cluster = cluster;
    CO_TRY_ASSIGN(auto store, co_await open_patiently<Store>(path_, std::move(options)));
    co_return std::unique_ptr<chunk::ChunkStore>(std::move(store));
  }
  Task<Result<void>> join(chunk::ChunkStore& store, Uuid cluster) override { return static_cast<Store&>(store).set_cluster_id(cluster); }
  Task<void> close() override { co_return; }

 private:
  const std::string path_;
};

// There is a store, or was one, and it cannot be used.
bool is_ruined(Code code) { return code == Code::corrupt || code == Code::incompatible; }

Error not_empty(Code code, std::string_view kind, const std::string& path, const std::string& carries) {
  return fail(is_ruined(code) ? code : Code::already_exists,
              "{} is not empty: {}. It was left alone; choose another directory, or, to DESTROY what is left of a store there: "
              "`quarry device format --force {}:{}`",
              path, carries, kind, path);
}

std::string describe(std::string_view kind, const std::string& path, const Uuid& drive, const Uuid& cluster, uint32_t version, bool clean,
                     const std::string& label) {
  std::string text = fmt::format("{} drive {}\n  directory       {}\n  format version  {}\n  cluster         {}\n  closed          {}\n",
                                 kind, drive.to_string(), path, version, cluster.is_nil() ? std::string("none yet") : cluster.to_string(),
                                 clean ? "properly" : "not: it is open, or was interrupted");
  if (label.empty()) return text + "  label           none";
  auto summary = cluster::describe_label(label);
  if (!summary) return text + "  label           " + summary.error().to_string();
  text += fmt::format("  label           drive {} of cluster {}, epoch {}", summary->drive_number, summary->cluster.to_string(),
                      summary->map_epoch);
  for (const auto& line : summary->drives) text += "\n    " + line;
  return text;
}

template <class Store, class Options>
Task<Result<chunk::FsckReport>> check_store(std::string path) {
  auto store = co_await Store::open(path, Options());
  if (!store) co_return std::move(store).error().with(path);
  auto report = co_await (*store)->fsck();
  if (report) {  // payloads too
    chunk::ScrubProgress progress;
    while (!progress.complete) {
      auto next = co_await (*store)->scrub(progress.next, 256 * kMiB);
      if (!next) {
        report->violations.push_back(fmt::format("payloads cannot be read: {}", next.error().to_string()));
        break;
      }
      progress = std::move(*next);
      for (const auto& damage : progress.damaged)
        report->violations.push_back(fmt::format("chunk {}: {}", damage.id.to_string(), damage.what));
    }
    for (const auto& line : (*store)->open_report().damage) report->violations.push_back(line);
  }
  auto closed = co_await (*store)->close();
  std::move(closed).ignore("it was only read");
  co_return report;
}

class KfsDriveKind final : public DriveKind {
 public:
  std::string_view name() const override { return "kfs"; }
  std::string_view help() const override { return "kfs:DIRECTORY: 256 bounded LevelDB instances on any file system"; }

  Task<Result<std::unique_ptr<FoundDrive>>> find(std::string path, bool force) const override {
    auto found = std::make_unique<FoundDirectory<chunk::KfsChunkStore, chunk::KfsFormatOptions, chunk::KfsChunkStoreOptions>>(path);
    const TimePoint patience = Executor::here().now() + kBusyPatience;
    auto identity = co_await chunk::KfsChunkStore::identify(path);
    while (!identity && identity.error().code() == Code::busy && Executor::here().now() < patience) {
      co_await sleep_for(kBusyRetry);
      identity = co_await chunk::KfsChunkStore::identify(path);
    }
    if (identity) {
      found->identity = DriveIdentity{identity->drive, identity->cluster, identity->mounts};
      co_return std::unique_ptr<FoundDrive>(std::move(found));
    }
    const Code code = identity.error().code();
    if (is_ruined(code)) {
      found->carries = identity.error().context();
    } else if (code != Code::not_found) {
      co_return std::move(identity).error().with(path);
    } else {
      const auto content = co_await blocking_apart([path] { return chunk::KfsChunkStore::foreign_content(path); });
      if (!content) co_return content.error();
      found->carries = content->value_or("");
    }
    if (!found->carries.empty() && !force) co_return not_empty(code, "kfs", path, found->carries);
    co_return std::unique_ptr<FoundDrive>(std::move(found));
  }
  Task<Result<DriveIdentity>> identify(std::string path) const override {
    auto identity = co_await chunk::KfsChunkStore::identify(path);
    if (!identity) co_return std::move(identity).error().with(path);
    co_return DriveIdentity{identity->drive, identity->cluster, identity->mounts};
  }
  Task<Result<std::string>> inspect(std::string path, std::string) const override {
    auto identity = co_await chunk::KfsChunkStore::identify(path);
    if (!identity) co_return std::move(identity).error().with(path);
    co_return describe("kfs", path, identity->drive, identity->cluster, identity->format_version, identity->clean, identity->label) +
        fmt::format("\n  bucket limit    {} bytes\n  mounts          {}", identity->bucket_bytes, identity->mounts);
  }
  Task<Result<chunk::FsckReport>> fsck(std::string path) const override {
    return check_store<chunk::KfsChunkStore, chunk::KfsChunkStoreOptions>(std::move(path));
  }
};

class DirDriveKind final : public DriveKind {
 public:
  std::string_view name() const override { return "dir"; }
  std::string_view help() const override { return "dir:DIRECTORY: each object a plain file that can be read without Quarry"; }

  Task<Result<std::unique_ptr<FoundDrive>>> find(std::string path, bool force) const override {
    auto found = std::make_unique<FoundDirectory<chunk::DirStore, chunk::DirFormatOptions, chunk::DirStoreOptions>>(path);
    auto identity = co_await blocking_apart([path] { return chunk::DirStore::identify(path); });
    if (identity) {
      found->identity = DriveIdentity{identity->drive, identity->cluster, identity->fencing_epoch};
      co_return std::unique_ptr<FoundDrive>(std::move(found));
    }
    // Files of others are left alone, and adopt takes them in; but not what is left of a drive.
    const Code code = identity.error().code();
    if (is_ruined(code)) {
      found->carries = identity.error().context();
    } else if (code != Code::not_found) {
      co_return std::move(identity).error().with(path);
    } else {
      CO_TRY_ASSIGN(found->carries, co_await blocking_apart([path] { return chunk::DirStore::remains(path); }));
    }
    if (!found->carries.empty() && !force) co_return not_empty(code, "dir", path, found->carries);
    co_return std::unique_ptr<FoundDrive>(std::move(found));
  }
  Task<Result<DriveIdentity>> identify(std::string path) const override {
    auto identity = co_await blocking_apart([path] { return chunk::DirStore::identify(path); });
    if (!identity) co_return std::move(identity).error().with(path);
    co_return DriveIdentity{identity->drive, identity->cluster, identity->fencing_epoch};
  }
  Task<Result<std::string>> inspect(std::string path, std::string) const override {
    auto identity = co_await blocking_apart([path] { return chunk::DirStore::identify(path); });
    if (!identity) co_return std::move(identity).error();
    co_return describe("dir", path, identity->drive, identity->cluster, identity->format_version, identity->clean, identity->label);
  }
  Task<Result<chunk::FsckReport>> fsck(std::string path) const override {
    return check_store<chunk::DirStore, chunk::DirStoreOptions>(std::move(path));
  }
};

}  // namespace

const DriveKind& kfs_drive_kind() {
  static const KfsDriveKind kind;
  return kind;
}
const DriveKind& dir_drive_kind() {
  static const DirDriveKind kind;
  return kind;
}

}  // namespace quarry::daemon
