#include "daemon/node.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>

#include "base/buffer_arena.h"
#include "base/machine.h"
#include "daemon/drives.h"
#include "daemon/listeners.h"
#include "daemon/returning_drives.h"
#include "daemon/sizes.h"
#include "io/clock.h"
#include "io/memory_probe.h"
#include "io/ring_executor.h"
#include "io/thread_pool.h"
#include "meta/rocksdb/rocksdb_meta_store.h"
#include "node/node.h"
#include "observe/metrics.h"

namespace quarry::daemon {
namespace {

constexpr const char* kVersion = "0.1.0";

// Each connection and drive takes a descriptor; the default soft limit of 1,024 is for programs that use select().
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) LOG_WARNING("cannot raise the limit of open files", {"limit", limit.rlim_cur});
}

class RootLock {
 public:
  static Result<RootLock> take(const std::string& root) {
    const std::string path = root + "/lock";
    RootLock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (lock.fd_ < 0) return errno_error(errno, path);
    if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
      return fail(Code::busy, "a node is already running in {}; stop it first, or name another --root", root);
    }
    return lock;
  }
  RootLock() = default;
  RootLock(RootLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  RootLock& operator=(RootLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~RootLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit RootLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

class RunningNode : public Node {
 public:
  explicit RunningNode(NodeConfig config) : config_(std::move(config)) {}

  ~RunningNode() override {
    if (!stopped_) stop().ignore("the start failed, or nobody stopped it: its error was told already");
  }

  Result<void> begin();
  // offline: nothing is made, neither a store nor a list of drives.
  Result<void> open_store(bool offline);
  Result<std::string> fsck(bool repair);
  const client::Endpoints& endpoints() const override { return endpoints_; }
  std::string summary() const override;
  Result<void> reload_certificate() override { return listeners_->reload_certificate(); }
  Result<void> stop() override;
  bool hangs() const override { return hangs_; }

 private:
  Executor& home() { return loops_->executor(0); }
  Executor& next_owner() { return loops_->executor(next_owner_.fetch_add(1) % loops_->size()); }
  // Where it is has to be known at the next start, whatever becomes of this one.
  static Task<Result<cluster::OpenedDrive>> remembered(RunningNode* self, Task<Result<cluster::OpenedDrive>> opening) {
    auto opened = co_await std::move(opening);
    if (!opened) co_return opened;
    const Result<void> kept = co_await blocking_apart([self, path = opened->path] { return self->remember(path); });
    if (!kept) LOG_WARNING("the list of drives cannot be kept; name them at the next start", {"error", kept.error().to_string()});
    co_return opened;
  }
  Task<Result<void>> open_cluster(std::vector<DriveToOpen> drives, StartRules rules);
  Task<Result<void>> try_to_open(std::vector<DriveToOpen> drives, StartRules rules, Uuid* store);
  Result<StartRules> rules_of_start();
  Result<void> remember(std::string added);
  cluster::Cluster& cluster() const { return node_->cluster(); }

  NodeConfig config_;
  OwnedDrives owned_;
  RootLock lock_;
  client::Endpoints endpoints_;
  std::unique_ptr<ExecutorPool> loops_;
  std::unique_ptr<BlockingPool> blocking_, compute_;
  std::unique_ptr<node::Node> node_;
  std::unique_ptr<Listeners> listeners_;
  std::vector<Gauge> gauges_;
  std::unique_ptr<ReturningDrives> returning_;
  std::atomic<size_t> next_owner_{0};
  std::mutex remember_mutex_;
  bool stopped_ = false, hangs_ = false;
  bool cache_fixed_ = false;  // its size was configured
  bool fresh_ = false;        // this start made the store
  bool key_made_ = false;     // this start made the administrator's key
  bool offline_ = false;
};

// The drives in use, for the next start. `added`: one that is about to be.
Result<void> RunningNode::remember(std::string added) {
  const std::lock_guard lock(remember_mutex_);
  CHECK(node_ != nullptr);
  RootMemory memory{.stage = RootMemory::Stage::made, .store = cluster().id(), .drives = {}};
  for (const auto& drive : cluster().data().drives()) {
    if (drive.state != "removed") memory.drives.push_back(drive.path);
  }
  if (!added.empty() && std::ranges::find(memory.drives, added) == memory.drives.end()) memory.drives.push_back(std::move(added));
  return write_root_memory(config_.root, memory);
}

// What is known of the store before any drive is looked at. A root without one says first that one is being made: a start that is cut short
// from here on is begun anew by the next.
Result<StartRules> RunningNode::rules_of_start() {
  StartRules rules;
  rules.may_create = !offline_;
  rules.force = config_.force_format;
  rules.has_index = has_index(config_.root);
  TRY_ASSIGN(rules.memory, read_root_memory(config_.root));
  rules.begin_creation = [root = config_.root](const Uuid& store) -> Result<void> {
    return write_root_memory(root, {.stage = RootMemory::Stage::creating, .store = store, .drives = {}});
  };
  std::error_code error;
  const std::filesystem::directory_iterator files(config_.root + "/drives", error);
  const bool none = error || files == std::filesystem::directory_iterator();
  const bool may = rules.may_create && (rules.force || (rules.memory.stage == RootMemory::Stage::nothing && !rules.has_index));
  if (config_.devices.empty() && none && may) {  // before its files are made
    rules.memory = {.stage = RootMemory::Stage::creating, .store = system_random().uuid(), .drives = {}};
    TRY(write_root_memory(config_.root, rules.memory));
  }
  return rules;
}

Task<Result<void>> RunningNode::open_cluster(std::vector<DriveToOpen> to_open, StartRules rules) {
  for (size_t i = 0; i < to_open.size(); ++i) to_open[i].owner = &loops_->executor(i % loops_->size());
  next_owner_ = to_open.size();
  Uuid store;
  Result<void> done = co_await try_to_open(to_open, rules, &store);
  if (done || done.error().code() != Code::not_found || !rules.force || offline_ || store.is_nil()) co_return done;
  // Formatted, and not a store yet: a creation that this root does not remember was cut short. Told so, it is begun anew.
  LOG_WARNING("no store was made of these drives", {"error", done.error().to_string()});
  rules.memory = {.stage = RootMemory::Stage::creating, .store = store, .drives = {}};
  co_return co_await try_to_open(std::move(to_open), std::move(rules), &store);
}

Task<Result<void>> RunningNode::try_to_open(std::vector<DriveToOpen> to_open, StartRules rules, Uuid* store) {
  CO_TRY_ASSIGN(OpenedDrives opened, co_await open_drives(std::move(to_open), std::move(rules)));
  *store = opened.fresh ? Uuid{} : opened.cluster;
  for (const auto& drive : opened.unusable) LOG_ERROR("drive cannot be used", {"drive", drive.path}, {"error", drive.why});
  const Sizes sizes = sizes_for(config_.memory_bytes);

  cluster::ClusterOptions options;
  options.drives = std::move(opened.drives);
  options.unopened = std::move(opened.unusable);
  options.metadata_directory = config_.root + "/metadata";
  options.tuning.cache_bytes = config_.cache_bytes;
  options.tuning.cache_pin_bytes = config_.cache_bytes / 4;
  options.tuning.write_memory_bytes = sizes.write_memory;
  options.tuning.read_ahead_bytes = sizes.read_ahead;
  options.accept_loss = config_.accept_loss;
  if (!cache_fixed_) {
    options.tuning.memory_probe = &system_memory_probe();
    options.tuning.cache_bytes_max = config_.memory_bytes / 4 * 3;
  }
  options.tuning.files_have_judge = true;  // the object engine
  BlockingPool* pool = blocking_.get();
  options.open_meta = [pool, sizes](meta::CommitLog& log, std::string directory) -> Task<Result<std::unique_ptr<meta::MetaStore>>> {
    meta::RocksdbMetaOptions meta_options;
    meta_options.directory = std::move(directory);
    meta_options.pool = pool;
    meta_options.block_cache_bytes = sizes.index_cache;
    meta_options.memtable_bytes = sizes.index_memtable;
    meta_options.spare_directories = {"/var/tmp", "/tmp", "/dev/shm"};
    meta_options.reserve_bytes = 8 * kMiB;
    auto store = co_await meta::open_rocksdb_store(std::move(meta_options), log);
    if (!store) co_return std::move(store).error();
    std::unique_ptr<meta::MetaStore> base = std::move(*store);
    co_return base;
  };
  options.open_drive = [this](std::string path, Uuid cluster, bool force) {
    Executor& owner = next_owner();
    return remembered(this, on(owner, open_new_drive(owner, owned_, std::move(path), cluster, force)));
  };
  options.open_known = [this](std::string path, Uuid cluster, bool force) {
    Executor& owner = next_owner();
    return remembered(this, on(owner, open_known_drive(owner, owned_, std::move(path), cluster, force)));
  };
  for (const cluster::OpenedDrive& drive : options.drives) owned_.note(drive);
  fresh_ = opened.fresh;
  std::optional<cluster::CreateOptions> create;
  if (opened.fresh) {
    create.emplace();
    create->cluster = opened.cluster;
    create->redundancy = config_.profile;
    // Of an earlier attempt: it would be taken for this store's.
    std::error_code error;
    std::filesystem::remove_all(options.metadata_directory, error);
    if (error) co_return fail(Code::io_error, "{}: {}", options.metadata_directory, error.message());
  }
  frontends::s3::S3Options s3;
  s3.region = config_.region;
  s3.virtual_hosts = config_.virtual_hosts;
  const node::Services services{.clock = system_clock(), .random = system_random(), .blocking = *blocking_, .compute = compute_.get()};
  node::NodeOptions node_options{.cluster = std::move(options), .create = std::move(create), .s3 = std::move(s3), .version = kVersion};
  CO_TRY_ASSIGN(node_, co_await node::Node::open(services, std::move(node_options)));
  if (offline_) co_return Result<void>();
  // From here on the store is made: before anybody hears of it, this root must never make another one in its place.
  Result<void> kept = remember("");
  if (kept) co_return kept;
  if (fresh_) co_return kept;
  LOG_WARNING("the list of drives cannot be kept; name them at the next start", {"error", kept.error().to_string()});
  co_return Result<void>();
}

Result<void> RunningNode::open_store(bool offline) {
  offline_ = offline;
  TRY(config_.validate());
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(config_.root, error);
  if (error) return fail(Code::io_error, "{}: {}", config_.root, error.message());
  config_.root = fs::canonical(config_.root, error).string();
  fs::permissions(config_.root, fs::perms::owner_all, error);
  TRY_ASSIGN(lock_, RootLock::take(config_.root));
  raise_descriptor_limit();
  const MachineLimits machine = machine_limits();
  config_.memory_bytes = machine.memory_bytes;
  const Sizes sizes = sizes_for(machine.memory_bytes);
  if (config_.cores == 0) config_.cores = machine.processors;
  cache_fixed_ = config_.cache_bytes != 0;
  if (config_.cache_bytes == 0) config_.cache_bytes = sizes.read_cache;
  // Before the first Buffer: what the cache keeps must not crowd out the rest.
  set_buffer_arena_limit(config_.cache_bytes + sizes.buffers_in_motion);
  const bool beyond_loopback = !config_.s3.is_loopback() || !config_.admin.is_loopback();
  if (beyond_loopback && !config_.tls) {
    config_.tls = true;
    LOG_INFO("TLS is on: a listener is reachable from beyond this machine");
  }

  TRY_ASSIGN(StartRules rules, rules_of_start());
  TRY_ASSIGN(auto drives, drives_of(config_, rules.memory));
  TRY_ASSIGN(loops_, ExecutorPool::start({.name = "quarry", .threads = config_.cores}));
  blocking_ = std::make_unique<ThreadPool>("blocking", 4);
  compute_ = std::make_unique<ThreadPool>("compute", config_.cores);
  TRY(wait_on(home(), open_cluster(std::move(drives), std::move(rules))));
  return wait_on(home(), node_->settle_names());
}

Result<std::string> RunningNode::fsck(bool repair) {
  const RequestContext ctx = RequestContext::system("fsck");
  TRY_ASSIGN(const auto objects, wait_on(home(), node_->objects().fsck(ctx, repair)));
  TRY_ASSIGN(const auto data, wait_on(home(), cluster().data().fsck(repair)));
  return frontends::admin::fsck_json(objects, data);
}

Result<void> RunningNode::begin() {
  TRY(open_store(false));
  TRY_ASSIGN(const node::AdministratorKey key, wait_on(home(), node_->begin()));
  endpoints_.access_key = key.access_key;
  endpoints_.secret_key = key.secret_key;
  key_made_ = key.is_new;
  TRY_ASSIGN(listeners_, Listeners::open(*loops_, config_, node_->s3(), node_->admin()));
  gauges_.push_back(
      metrics::gauge("base_buffer_bytes", "Memory held by I/O buffers", {}, [] { return static_cast<double>(buffer_bytes_in_use()); }));
  gauges_.push_back(metrics::gauge("io_loop_step_seconds_max", "The longest step of an event loop, in CPU time", {},
                                   [] { return std::chrono::duration<double>(loop_steps().longest).count(); }));
  gauges_.push_back(metrics::gauge("io_loop_long_steps", "Steps of event loops that took 10 ms of CPU time or more", {},
                                   [] { return static_cast<double>(loop_steps().too_long); }));

  for (const char* state : {"active", "read-only", "draining", "disabled", "missing", "failed"}) {
    gauges_.push_back(metrics::gauge("cluster_drives", "Drives by state", {{"state", state}}, [this, state] {
      double count = 0;
      for (const auto& drive : cluster().data().drives()) count += drive.state == state;
      return count;
    }));
  }

  gauges_.push_back(
      metrics::gauge("cluster_health", "What could be lost now: 0 healthy, 1 degraded, 2 some data cannot be read", {},
                     [this] { return static_cast<double>(frontends::admin::health_of(cluster().data(), cluster().meta()).level()); }));
  for (const std::string_view cause : cluster::kHealthCauses) {
    gauges_.push_back(metrics::gauge("cluster_problems", "What status tells of, by cause", {{"cause", std::string(cause)}}, [this, cause] {
      const auto health = frontends::admin::health_of(cluster().data(), cluster().meta());
      return static_cast<double>(std::ranges::count(health.problems, cause, &cluster::HealthProblem::cause));
    }));
  }

  const std::string scheme = config_.tls ? "https://" : "http://";
  endpoints_.s3 = scheme + listeners_->s3_address().to_string();
  endpoints_.admin = scheme + listeners_->admin_address().to_string();
  endpoints_.region = config_.region;
  TRY(client::write_endpoints(config_.root, endpoints_));
  node_->admin().set_ready(true);
  returning_ = std::make_unique<ReturningDrives>(home(), cluster().data());
  const std::string reason = cluster().read_only_reason();
  if (!reason.empty()) LOG_WARNING("the store is read-only", {"reason", reason});
  LOG_INFO("ready", {"s3", endpoints_.s3}, {"admin", endpoints_.admin}, {"cluster", cluster().id().to_string()},
           {"redundancy", cluster().default_redundancy()});
  return {};
}

std::string RunningNode::summary() const {
  const auto drives = cluster().data().drives();
  const auto space = cluster().data().space_status();
  // Said once; `quarry device list` says it again.
  std::string notes;
  for (const auto& note : fresh_ ? cluster::shared_file_systems(drives) : std::vector<std::string>())
    notes += fmt::format("  note        {}\n", note);
  // Standard output ends in journals: the secret is shown by the start that makes it, and by the command.
  const std::string secret = key_made_ ? endpoints_.secret_key : fmt::format("`quarry key show --root {}`", config_.root);
  return fmt::format(
      "Quarry {} is ready.\n"
      "  S3          {}\n  admin       {}\n  access key  {}\n  secret key  {}\n"
      "  store       {} drives, {}, {} can be stored\n{}"
      "  keys and addresses are in {}/endpoints.json; Ctrl-C ends the node\n",
      kVersion, endpoints_.s3, endpoints_.admin, endpoints_.access_key, secret, drives.size(), cluster().default_redundancy(),
      format_size(space.usable_free_bytes), notes, config_.root);
}

Result<void> RunningNode::stop() {
  if (std::exchange(stopped_, true)) return {};
  Result<void> outcome;
  if (node_) node_->begin_close();  // requests may be waiting for a drive that hangs
  if (returning_) returning_->stop();
  returning_.reset();
  if (listeners_) listeners_->stop(config_.drain_timeout);
  listeners_.reset();
  gauges_.clear();
  if (node_) {
    outcome = wait_on(home(), node_->close());
    hangs_ = node_->hangs();
    if (hangs_) static_cast<void>(node_.release());
    node_.reset();
  }
  hangs_ = hangs_ || WorkApart::under_way() > 0;  // also of an opening that was given up
  if (hangs_) {
    LOG_ERROR("a drive hangs: the node ends without it", {"root", config_.root});
    // What the kernel still works on stays where it is.
    static_cast<void>(loops_.release());
    static_cast<void>(blocking_.release());
    static_cast<void>(compute_.release());
    lock_ = RootLock();
    return outcome;
  }
  if (loops_) loops_->stop();
  compute_.reset();
  blocking_.reset();
  loops_.reset();
  return outcome;
}

}  // namespace

bool node_is_running(const std::string& root) {
  const int fd = ::open((root + "/lock").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = ::flock(fd, LOCK_EX | LOCK_NB) != 0;
  ::close(fd);
  return held;
}

Result<std::string> Node::check(NodeConfig config, bool repair) {
  config.cores = 1;
  RunningNode node(std::move(config));
  TRY(node.open_store(true));
  Result<std::string> report = node.fsck(repair);
  Result<void> stopped = node.stop();
  if (report)
    TRY(std::move(stopped));
  else
    std::move(stopped).ignore("the check failed before, which is told");
  return report;
}

Result<std::unique_ptr<Node>> Node::start(NodeConfig config) {
  auto node = std::make_unique<RunningNode>(std::move(config));
  TRY(node->begin());
  std::unique_ptr<Node> started = std::move(node);
  return started;
}

}  // namespace quarry::daemon
