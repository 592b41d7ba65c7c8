#include "cluster/cluster.h"

#include <mutex>
#include <set>

#include "base/log.h"
#include "cluster/drives/label_keeper.h"
#include "cluster/drives/lived_time.h"
#include "cluster/drives/map_keeper.h"
#include "cluster/log/metadata_log.h"
#include "cluster/node/local_data_plane.h"
#include "io/thread_pool.h"

namespace quarry::cluster {
namespace {

Task<Result<std::string>> read_label(chunk::ChunkStore* store) { co_return store->label(); }
Task<Result<chunk::SpaceReport>> read_space(chunk::ChunkStore* store) { co_return store->space(); }

constexpr Duration kHangPatience = std::chrono::seconds(30);        // for a drive that hangs while the store opens, or its own closes
constexpr Duration kLookAtDrives = std::chrono::milliseconds(250);  // meanwhile

std::string as_a_new_one(const std::string& path) {
  return fmt::format("what it holds is old: to use it again as a new drive, and DESTROY what is on it: `quarry device add --force {}`",
                     path);
}

std::string given_up(uint32_t number, const std::string& path) {
  return fmt::format("it was drive {} of this store and was given up, another drive has that number since; {}", number, as_a_new_one(path));
}

Result<void> check_options(const ClusterOptions& options) {
  const uint32_t shard = options.tuning.shard_bytes;
  if (options.blocking_pool == nullptr || !options.open_meta)
    return fail(Code::invalid_argument, "a blocking pool and open_meta are required");
  if (!std::has_single_bit(shard) || shard < 64 * kKiB || shard > chunk::kChunkSizeMax) {
    return fail(Code::misconfigured, "shard_bytes {} is not a power of two from 64 KiB to {}", shard, chunk::kChunkSizeMax);
  }
  for (const OpenedDrive& drive : options.drives) {
    if (drive.store == nullptr || drive.owner == nullptr) return fail(Code::invalid_argument, "drive {} is not open", drive.path);
  }
  return {};
}

// Makes its drives those of a new cluster. Returns its map.
Task<Result<ClusterMap>> label_drives(const ClusterOptions& options, CreateOptions what) {
  if (options.drives.empty()) co_return fail(Code::misconfigured, "a cluster needs at least one drive");
  if (what.group_count < 1 || what.group_count > kGroupCountMax)
    co_return fail(Code::misconfigured, "{} placement groups: 1 to {} are possible", what.group_count, kGroupCountMax);
  if (!what.master_key.empty() && what.master_key.size() != kMasterKeySize) {
    co_return fail(Code::misconfigured, "the master key has {} bytes, {} are needed", what.master_key.size(), kMasterKeySize);
  }
  Random& random = options.random != nullptr ? *options.random : Executor::here().random();
  ClusterMap map;
  map.cluster = what.cluster.is_nil() ? random.uuid() : what.cluster;
  map.group_count = what.group_count;
  DriveLabel label;
  label.cluster = map.cluster;
  label.epoch = 1;
  label.master_key = what.master_key;
  if (label.master_key.empty()) {
    label.master_key.resize(kMasterKeySize);
    random.fill({reinterpret_cast<uint8_t*>(label.master_key.data()), kMasterKeySize});
  }
  std::set<std::string> domains;
  for (const OpenedDrive& opened : options.drives) {
    CO_TRY_ASSIGN(std::string old, co_await on(*opened.owner, read_label(opened.store.get())));
    if (!old.empty())
      co_return fail(Code::wrong_owner, "{} carries the label of a cluster already: format it again to use it for a new one", opened.path);
    CO_TRY_ASSIGN(chunk::SpaceReport space, co_await on(*opened.owner, read_space(opened.store.get())));
    const uint32_t number = map.next_drive++;
    MapDrive drive{.number = number, .id = opened.store->drive_id(), .path = opened.path, .domain = opened.domain, .weight = opened.weight};
    if (drive.domain.empty()) drive.domain = fmt::format("drive-{}", number);
    if (drive.weight == 0) {
      // A file system gets its share of the data once, however many drives are on it.
      const auto sharers = std::ranges::count_if(options.drives, [&](const OpenedDrive& other) {
        return &other == &opened || (!other.file_system.empty() && other.file_system == opened.file_system);
      });
      drive.weight = std::max<uint64_t>(space.device_bytes / static_cast<uint64_t>(sharers), 1);
    }
    domains.insert(drive.domain);
    label.drives.push_back({number, drive.id, drive.domain, drive.path});
    map.drives.emplace(number, std::move(drive));
  }
  const auto count = static_cast<unsigned>(domains.size());
  // Where every drive keeps files, objects are whole files, each twice.
  const bool all_files = std::ranges::all_of(options.drives, [](const OpenedDrive& drive) { return drive.store->keeps_files(); });
  const std::string usual = all_files ? (count >= 2 ? "mirror:2" : "mirror:1") : std::string(default_profile(count));
  const std::string wanted = what.redundancy.empty() ? usual : what.redundancy;
  CO_TRY_ASSIGN(map.redundancy, parse_redundancy(wanted, count));
  label.metadata_copies = static_cast<uint8_t>(map.redundancy.losses() + 1);
  // The widths of the default redundancy, so that it stays usable while drives are down.
  CHECK(map.register_width(static_cast<uint8_t>(map.redundancy.width())) &&
        map.register_width(static_cast<uint8_t>(map.redundancy.losses() + 1)));
  for (size_t i = 0; i < options.drives.size(); ++i) {
    DriveLabel own = label;
    own.number = label.drives[i].number;
    const std::string bytes = own.encode();
    CO_TRY(co_await on(*options.drives[i].owner, options.drives[i].store->set_label(bytes)));
  }
  co_return map;
}

class ClusterNode final : public Cluster {
 public:
  explicit ClusterNode(ClusterOptions options) : options_(std::move(options)) {
    clock_ = options_.clock != nullptr ? options_.clock : &system_clock();
  }
  ~ClusterNode() override { CHECK(closed_, "close the cluster before it is destroyed"); }

  // From open drives to a running data plane. create: a new cluster.
  Task<Result<void>> start(std::optional<CreateOptions> create) {
    Result<void> done = co_await assemble(std::move(create));
    if (!done) {
      for (OpenedDrive& drive : options_.drives) adopt_to_close(drive);
      Result<void> closed = co_await watched(take_down());
      std::move(closed).ignore("the start failed already");
    }
    co_return done;
  }

  DataPlane& data() override { return *plane_; }
  meta::MetaStore& meta() override { return *meta_; }
  Uuid id() const override { return labels_->label().cluster; }
  const std::string& master_key() const override { return master_key_; }
  std::string default_redundancy() const override { return drives_.topology()->map.redundancy.to_string(); }
  uint64_t log_epoch() const override { return log_->epoch(); }
  std::string read_only_reason() const override { return plane_->read_only_reason(); }
  Task<Result<void>> settle() override { return plane_->settle(); }
  bool hangs() const override {
    return std::ranges::any_of(drives_.all(), [](const Drive* drive) { return drive->hangs(); });
  }

  void begin_close() override { plane_->administration().guard().release_all(); }

  Task<Result<void>> close() override {
    if (closed_) co_return Result<void>();
    begin_close();
    std::optional<Error> error;
    auto note = [&error](Result<void> result) {
      if (!result && !error) error = std::move(result).error();
    };
    note(co_await plane_->stop());
    note(co_await meta_->close());
    co_await log_->close();
    co_await plane_->administration().guard().stop();
    std::vector<Drive*> open;
    for (Drive* drive : drives_.all()) {
      if (drive->readable() || drive->disabled() || drive->suspended()) open.push_back(drive);
    }
    note(co_await watched(close_drives(std::move(open))));
    closed_ = true;
    if (error) co_return std::move(*error);
    co_return Result<void>();
  }

 private:
  // Those that hang are left as they are: the next start replays what they lack. Returns the first error.
  Task<Result<void>> close_drives(std::vector<Drive*> drives) {
    std::vector<Task<Result<void>>> closing;  // side by side
    for (Drive* drive : drives) closing.push_back(drive->close(Duration(0)));
    std::vector<Result<void>> all = co_await when_all(std::move(closing));
    Result<void> first;
    for (auto& closed : all) {
      if (first) {
        first = std::move(closed);
      } else {
        std::move(closed).ignore("the first one is told");
      }
    }
    co_return first;
  }

  // For what is done while the plane's guard does not run: nothing else gives up a drive that hangs.
  Task<Result<void>> watched(Task<Result<void>> work) {
    Event done;
    TaskGroup watch;
    watch.spawn(watch_drives(&done));
    Result<void> result = co_await std::move(work);
    done.set();
    co_await watch.join();
    co_return result;
  }
  Task<void> watch_drives(Event* until) {
    LivedTime lived;
    std::map<Drive*, Silence> silences;
    while (!until->is_set()) {
      const TimePoint now = Executor::here().now();
      lived.tick(now);
      for (Drive* drive : drives_.all()) {
        const Duration silent = silences[drive].look(drive->oldest_call(), lived.total());
        if (silent < kHangPatience) continue;
        if (drive->readable()) drive->take_down(fmt::format("it has not answered for {}: it hangs", format_duration(silent)));
        drive->give_up();
      }
      co_await until->wait_until(now + kLookAtDrives);
    }
  }

  Task<Result<void>> assemble(std::optional<CreateOptions> create) {
    CO_TRY(check_options(options_));
    std::optional<ClusterMap> first;
    if (create) {
      CO_TRY_ASSIGN(first, co_await label_drives(options_, std::move(*create)));
    }
    for (const UnopenedDrive& drive : options_.unopened) {
      drives_.note_absence(drive.path, drive.why);
      drives_.note_aside(drive.path, drive.then.empty() ? drive.why : fmt::format("{}; {}", drive.why, drive.then));
    }
    std::vector<Found> found;
    Result<void> adopted = co_await adopt_drives(&found);
    for (Found& each : found) adopt_to_close(each.drive);
    CO_TRY(std::move(adopted));
    Result<void> done = co_await watched(recover(std::move(first)));
    if (done) plane_->start();
    co_return done;
  }

  // From open drives to a data plane that has not started.
  Task<Result<void>> recover(std::optional<ClusterMap> first) {
    const DriveLabel& label = labels_->label();
    MetadataLogOptions log_options;
    for (const LabelDrive& expected : label.drives) {
      Drive* drive = drives_.find(expected.number);
      if (drive != nullptr) {
        log_options.drives.push_back(drive);
      } else {
        log_options.absent.push_back({expected.number, expected.domain});
        LOG_WARNING("drive is missing", {"drive", expected.number}, {"path", expected.path}, {"id", expected.id.to_string()},
                    {"why", drives_.absence(expected.path)});
      }
    }
    log_options.copies = label.metadata_copies;
    log_options.blocking_pool = options_.blocking_pool;
    log_options.accept_loss = options_.accept_loss;
    CO_TRY_ASSIGN(log_, co_await MetadataLog::open(std::move(log_options)));
    labels_->outrank_earlier_starts(log_->epoch());
    CO_TRY_ASSIGN(meta_, co_await options_.open_meta(*log_, options_.metadata_directory));
    maps_ = std::make_unique<MapKeeper>(*meta_, drives_);
    if (first) {
      CO_TRY(co_await maps_->create(std::move(*first)));
    } else {
      CO_TRY(co_await maps_->load());
    }
    CO_TRY(co_await complete_interrupted_adds());
    for (Drive* drive : drives_.all()) co_await drive->refresh();
    co_await part_from_past();
    for (const auto& [number, known] : drives_.topology()->map.drives) {
      Drive* drive = drives_.find(number);
      if (known.disabled && drive != nullptr) drive->disable(known.reason);
    }
    plane_ = std::make_unique<LocalDataPlane>(Executor::here(), drives_, *meta_, *log_, *maps_, *labels_, options_.tuning,
                                              options_.open_drive, options_.open_known, *clock_, *options_.blocking_pool);
    CO_TRY(co_await plane_->prepare());
    Result<void> looked = co_await plane_->administration().look();
    if (!looked) LOG_WARNING("looking after the drives failed; it will be tried again", {"error", looked.error().to_string()});
    co_return Result<void>();
  }

  // Drives that were away when they were removed, or given up. What they hold is nobody's, and who wants to use one again must be able to
  // open it.
  Task<void> part_from_past() {
    const auto topology = drives_.topology();
    for (Drive* drive : drives_.all()) {
      const uint32_t number = drive->number();
      if (labels_->names(number)) continue;
      const auto known = topology->map.drives.find(number);
      const bool is_known = known != topology->map.drives.end();
      const bool is_another = is_known && known->second.id != drive->id();
      if (is_known && !is_another && known->second.state != DriveState::removed) continue;
      const std::string was = fmt::format("it {} drive {} of this store, which {}; {}", is_known ? "is" : "was", number,
                                          is_known ? "was removed" : "knows it no more", as_a_new_one(drive->path()));
      const std::string why = is_another ? given_up(number, drive->path()) : was;
      tell_aside(drive->path(), why);
      Result<void> closed = co_await drive->close();
      std::move(closed).ignore("it is used for nothing");
      if (is_another && !drive->hangs()) drives_.drop(*drive);  // the number is another's
    }
  }

  void tell_aside(const std::string& path, const std::string& why) {
    LOG_WARNING("a drive is not used", {"path", path}, {"why", why});
    drives_.note_absence(path, why);
    drives_.note_aside(path, why);
  }

  Task<void> set_aside(OpenedDrive drive, std::string why) {
    tell_aside(drive.path, why);
    Result<void> closed = co_await on(*drive.owner, drive.store->close());
    std::move(closed).ignore("nothing was done with it");
  }

  // One of which no use is made: it is closed with the others.
  void adopt_to_close(OpenedDrive& drive) {
    if (drive.store == nullptr || drive.owner == nullptr) return;  // adopted, or set aside
    drives_.add(std::make_unique<Drive>(Drive::Identity{0, drive.path, ""}, std::move(drive.store), *drive.owner));
  }

  struct Found {
    OpenedDrive drive;
    DriveLabel label;
  };
  // Reads all labels; the newest says who belongs. Drives without a label are not of this cluster.
  Task<Result<void>> adopt_drives(std::vector<Found>* labelled) {
    std::vector<Found>& found = *labelled;
    std::string unlabelled;
    const DriveLabel* newest = nullptr;
    for (OpenedDrive& opened : options_.drives) {
      CO_TRY_ASSIGN(std::string bytes, co_await on(*opened.owner, read_label(opened.store.get())));
      if (bytes.empty()) {
        unlabelled += fmt::format("{}{}", unlabelled.empty() ? "" : ", ", opened.path);
        std::string why = fmt::format("it is not part of this store yet: `quarry device add {}`", opened.path);
        co_await set_aside(std::move(opened), std::move(why));
        continue;
      }
      Result<DriveLabel> label = DriveLabel::decode(bytes);
      if (!label) co_return std::move(label).error().with(opened.path);
      found.push_back({std::move(opened), std::move(*label)});
    }
    options_.drives.clear();
    for (const Found& each : found) {
      if (newest == nullptr || each.label.epoch > newest->epoch) newest = &each.label;
    }
    if (newest == nullptr) {
      co_return fail(Code::not_found,
                     "no drive carries the label of a store: its creation was interrupted; to begin anew, start with --force{}{}",
                     unlabelled.empty() ? "" : "; without a label: ", unlabelled);
    }
    for (const Found& each : found) {
      if (each.label.cluster != newest->cluster) {
        co_return fail(Code::wrong_owner, "{} belongs to cluster {}, the others to {}", each.drive.path, each.label.cluster.to_string(),
                       newest->cluster.to_string());
      }
    }
    const DriveLabel label = *newest;
    master_key_ = label.master_key;
    size_t agree = 0;
    // The metadata may go back behind the addition of a drive that is away, and a number is given twice. Who is meant is the one that the
    // labels name; where they name neither, the one with the newer label.
    std::ranges::sort(found, {}, [](const Found& each) { return std::pair(~each.label.epoch, each.label.number); });
    for (Found& each : found) {
      const uint32_t number = each.label.number;
      const Uuid id = each.drive.store->drive_id();
      const auto expected = std::ranges::find(label.drives, number, &LabelDrive::number);
      const bool is_named = expected != label.drives.end();
      const Drive* other = drives_.find(number);
      if ((is_named && expected->id != id) || (other != nullptr && other->id() != id)) {
        std::string why = given_up(number, each.drive.path);
        co_await set_aside(std::move(each.drive), std::move(why));
        continue;
      }
      if (other != nullptr) co_return fail(Code::wrong_owner, "two drives say they are drive {}: {} is a copy", number, each.drive.path);
      std::string domain = is_named ? expected->domain : each.drive.domain;
      if (domain.empty()) domain = fmt::format("drive-{}", number);
      agree += is_named && each.label.epoch == label.epoch;
      drives_.note_file_system(number, each.drive.file_system);
      auto drive =
          std::make_unique<Drive>(Drive::Identity{number, each.drive.path, domain}, std::move(each.drive.store), *each.drive.owner);
      drive->set_look_below(std::move(each.drive.look_below));
      drives_.add(std::move(drive));
    }
    labels_ = std::make_unique<LabelKeeper>(drives_, label, agree == label.drives.size());
    co_return Result<void>();
  }

  // A drive that the labels name and the map does not: a crash came between the two steps of adding it.
  Task<Result<void>> complete_interrupted_adds() {
    std::vector<MapDrive> lacking;
    auto topology = drives_.topology();
    for (const LabelDrive& named : labels_->label().drives) {
      Drive* drive = drives_.find(named.number);
      if (topology->map.drives.contains(named.number) || drive == nullptr) continue;
      co_await drive->refresh();
      lacking.push_back({.number = named.number,
                         .id = named.id,
                         .path = named.path,
                         .domain = named.domain,
                         .weight = std::max<uint64_t>(drive->space().device_bytes, 1)});
    }
    if (lacking.empty() || !log_->writable()) co_return Result<void>();
    co_return co_await maps_->change([lacking](ClusterMap& map) -> Result<void> {
      for (const MapDrive& drive : lacking) {
        map.drives.insert_or_assign(drive.number, drive);
        map.next_drive = std::max(map.next_drive, drive.number + 1);
      }
      map.replan();
      return {};
    });
  }

  // After a failed start: what is open is closed.
  Task<Result<void>> take_down() {
    if (plane_ != nullptr) {
      Result<void> stopped = co_await plane_->stop();
      std::move(stopped).ignore("the start failed already");
    }
    if (meta_ != nullptr) {
      Result<void> closed = co_await meta_->close();
      std::move(closed).ignore("the start failed already");
    }
    if (log_ != nullptr) co_await log_->close();
    if (plane_ != nullptr) co_await plane_->administration().guard().stop();
    Result<void> closed = co_await close_drives(drives_.all());
    closed_ = true;
    co_return closed;
  }

  ClusterOptions options_;
  Clock* clock_ = nullptr;
  bool closed_ = false;
  std::string master_key_;
  DriveSet drives_;
  std::unique_ptr<LabelKeeper> labels_;
  std::unique_ptr<MetadataLog> log_;
  std::unique_ptr<meta::MetaStore> meta_;
  std::unique_ptr<MapKeeper> maps_;
  std::unique_ptr<LocalDataPlane> plane_;
};

// What a drive that hangs still works on stays where it is, for ever.
void leave_if_it_hangs(std::unique_ptr<ClusterNode> node) {
  if (!node->hangs()) return;
  struct Left {
    std::unique_ptr<ClusterNode> node;
    WorkApart work{};
  };
  static std::mutex mutex;
  static auto& all = *new std::vector<std::unique_ptr<Left>>;  // never destroyed, and to be found by whoever looks for leaks
  const std::lock_guard lock(mutex);
  all.push_back(std::make_unique<Left>(std::move(node)));
}

Task<Result<std::unique_ptr<Cluster>>> launch(ClusterOptions options, std::optional<CreateOptions> create) {
  auto node = std::make_unique<ClusterNode>(std::move(options));
  Result<void> started = co_await node->start(std::move(create));
  if (!started) {
    leave_if_it_hangs(std::move(node));
    co_return std::move(started).error();
  }
  co_return std::unique_ptr<Cluster>(std::move(node));
}

}  // namespace

Task<Result<std::unique_ptr<Cluster>>> Cluster::open(ClusterOptions options) { return launch(std::move(options), std::nullopt); }
Task<Result<std::unique_ptr<Cluster>>> Cluster::create(ClusterOptions options, CreateOptions what) {
  return launch(std::move(options), std::move(what));
}

}  // namespace quarry::cluster
