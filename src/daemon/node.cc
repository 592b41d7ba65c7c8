#include "daemon/node.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "auth/identity.h"
#include "base/buffer_arena.h"
#include "cluster/cluster.h"
#include "daemon/drives.h"
#include "daemon/listeners.h"
#include "frontends/admin/admin_server.h"
#include "frontends/s3/s3_server.h"
#include "io/clock.h"
#include "io/ring_executor.h"
#include "meta/rocksdb/rocksdb_meta_store.h"
#include "object/make_object_engine.h"
#include "observe/metrics.h"

namespace quarry::daemon {
namespace {

constexpr const char* kVersion = "0.1.0";
constexpr std::string_view kAdministrator = "admin";
constexpr size_t kBuffersInMotion = 256 * kMiB;  // registered memory beside what the read cache holds

uint64_t memory_bytes() { return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

// Processors this process may run on: fewer than the machine has in a container or under taskset, where a loop for each of the
// machine's would only make them wait for one another.
unsigned processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return static_cast<unsigned>(CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

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
  Result<void> open_store();
  Result<std::string> fsck(bool repair);
  const client::Endpoints& endpoints() const override { return endpoints_; }
  std::string summary() const override;
  Result<void> reload_certificate() override { return listeners_->reload_certificate(); }
  Result<void> stop() override;
  bool hangs() const override { return hangs_; }

 private:
  Executor& home() { return loops_->executor(0); }
  Task<Result<void>> open_cluster(std::vector<DriveToOpen> drives);
  void remember(std::string added);
  Task<Result<void>> open_identities();

  NodeConfig config_;
  RootLock lock_;
  client::Endpoints endpoints_;
  std::unique_ptr<ExecutorPool> loops_;
  std::unique_ptr<ThreadPool> blocking_, compute_;
  std::unique_ptr<cluster::Cluster> cluster_;
  std::unique_ptr<object::ObjectEngine> objects_;
  std::unique_ptr<auth::IdentityStore> identities_;
  std::unique_ptr<frontends::s3::S3Server> s3_;
  std::unique_ptr<frontends::admin::AdminServer> admin_;
  std::unique_ptr<Listeners> listeners_;
  std::vector<Gauge> gauges_;
  std::atomic<size_t> next_owner_{0};
  std::mutex remember_mutex_;
  bool stopped_ = false, hangs_ = false;
  bool fresh_ = false;  // this start made the store
};

// The drives in use, for the next start. `added`: one that is about to be.
void RunningNode::remember(std::string added) {
  const std::lock_guard lock(remember_mutex_);
  std::vector<std::string> drives;
  if (cluster_ != nullptr) {
    for (const auto& drive : cluster_->data().drives()) {
      if (drive.state != "removed") drives.push_back(drive.path);
    }
  } else {
    drives = remembered_drives(config_.root);
  }
  if (!added.empty() && std::find(drives.begin(), drives.end(), added) == drives.end()) drives.push_back(std::move(added));
  const Result<void> written = remember_drives(config_.root, drives);
  if (!written) LOG_WARNING("the list of drives cannot be kept; name them at the next start", {"error", written.error().to_string()});
}

Task<Result<void>> RunningNode::open_cluster(std::vector<DriveToOpen> to_open) {
  for (size_t i = 0; i < to_open.size(); ++i) to_open[i].owner = &loops_->executor(i % loops_->size());
  next_owner_ = to_open.size();
  CO_TRY_ASSIGN(OpenedDrives opened, co_await open_drives(std::move(to_open), config_.force_format));
  for (const auto& drive : opened.unusable) LOG_ERROR("drive cannot be used", {"drive", drive.path}, {"error", drive.why});

  cluster::ClusterOptions options;
  options.drives = std::move(opened.drives);
  options.unopened = std::move(opened.unusable);
  options.metadata_directory = config_.root + "/metadata";
  options.blocking_pool = blocking_.get();
  options.tuning.cache_bytes = config_.cache_bytes;
  options.tuning.cache_pin_bytes = config_.cache_bytes / 4;
  options.tuning.files_have_judge = true;  // the object engine
  ThreadPool* pool = blocking_.get();
  const size_t meta_cache = std::clamp<uint64_t>(memory_bytes() / 16, 64 * kMiB, kGiB);
  options.open_meta = [pool, meta_cache](meta::CommitLog& log, std::string directory) -> Task<Result<std::unique_ptr<meta::MetaStore>>> {
    meta::RocksdbMetaOptions meta_options;
    meta_options.directory = std::move(directory);
    meta_options.pool = pool;
    meta_options.block_cache_bytes = meta_cache;
    auto store = co_await meta::RocksdbMetaStore::open(std::move(meta_options), log);
    if (!store) co_return std::move(store).error();
    std::unique_ptr<meta::MetaStore> base = std::move(*store);
    co_return base;
  };
  options.open_drive = [this](std::string path, Uuid cluster, bool force) -> Task<Result<cluster::OpenedDrive>> {
    Executor& owner = loops_->executor(next_owner_.fetch_add(1) % loops_->size());
    return [](RunningNode* self, Executor* at, std::string where, Uuid of, bool forced) -> Task<Result<cluster::OpenedDrive>> {
      auto opened_drive = co_await on(*at, open_new_drive(*at, std::move(where), of, forced));
      if (opened_drive) self->remember(opened_drive->path);
      co_return opened_drive;
    }(this, &owner, std::move(path), cluster, force);
  };
  options.open_known = [this](std::string path, Uuid cluster) -> Task<Result<cluster::OpenedDrive>> {
    Executor& owner = loops_->executor(next_owner_.fetch_add(1) % loops_->size());
    return on(owner, open_known_drive(owner, std::move(path), cluster));
  };
  fresh_ = opened.fresh;
  if (opened.fresh) {
    cluster::CreateOptions create;
    create.cluster = opened.cluster;
    create.redundancy = config_.profile;
    CO_TRY_ASSIGN(cluster_, co_await cluster::Cluster::create(std::move(options), std::move(create)));
  } else {
    CO_TRY_ASSIGN(cluster_, co_await cluster::Cluster::open(std::move(options)));
  }
  remember("");
  co_return Result<void>();
}

Task<Result<void>> RunningNode::open_identities() {
  identities_ = auth::make_identity_store(cluster_->meta(), cluster_->master_key());
  auto administrator = co_await identities_->get_user(std::string(kAdministrator));
  if (!administrator) {
    if (administrator.error().code() != Code::not_found) co_return std::move(administrator).error();
    CO_TRY(co_await identities_->create_user(std::string(kAdministrator), true));
  }
  CO_TRY_ASSIGN(const auto keys, co_await identities_->list_keys(std::string(kAdministrator)));
  // The first key that works is shown; a store whose administrator has none gets a new one.
  for (const auto& key : keys) {
    auto credential = co_await identities_->credential(key.access_key);
    if (!credential) continue;
    endpoints_.access_key = key.access_key;
    endpoints_.secret_key = (*credential)->secret;
    co_return Result<void>();
  }
  CO_TRY_ASSIGN(const auto made, co_await identities_->create_key(std::string(kAdministrator), "", ""));
  endpoints_.access_key = made.access_key;
  endpoints_.secret_key = made.secret_key;
  co_return Result<void>();
}

Result<void> RunningNode::open_store() {
  TRY(config_.validate());
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(config_.root, error);
  if (error) return fail(Code::io_error, "{}: {}", config_.root, error.message());
  config_.root = fs::canonical(config_.root, error).string();
  fs::permissions(config_.root, fs::perms::owner_all, error);
  TRY_ASSIGN(lock_, RootLock::take(config_.root));
  raise_descriptor_limit();
  if (config_.cores == 0) config_.cores = processors();
  if (config_.cache_bytes == 0) config_.cache_bytes = std::min<uint64_t>(memory_bytes() / 4, 4 * kGiB);
  set_buffer_arena_limit(config_.cache_bytes +
                         kBuffersInMotion);  // before the first Buffer: what the cache keeps must not crowd out the rest
  const bool beyond_loopback = !config_.s3.is_loopback() || !config_.admin.is_loopback();
  if (beyond_loopback && !config_.tls) {
    config_.tls = true;
    LOG_INFO("TLS is on: a listener is reachable from beyond this machine");
  }

  TRY_ASSIGN(auto drives, drives_of(config_));
  TRY_ASSIGN(loops_, ExecutorPool::start({.name = "quarry", .threads = config_.cores}));
  blocking_ = std::make_unique<ThreadPool>("blocking", 4);
  compute_ = std::make_unique<ThreadPool>("compute", config_.cores);
  TRY(wait_on(home(), open_cluster(std::move(drives))));
  objects_ = object::make_object_engine({.meta = cluster_->meta(),
                                         .data = cluster_->data(),
                                         .clock = system_clock(),
                                         .random = system_random(),
                                         .compute = compute_.get(),
                                         .default_redundancy = cluster_->default_redundancy()});
  TRY_ASSIGN(const size_t settled, wait_on(home(), objects_->settle_names()));
  if (settled > 0) LOG_INFO("files of removed objects were hidden", {"objects", settled});
  return {};
}

Result<std::string> RunningNode::fsck(bool repair) {
  const RequestContext ctx = RequestContext::system("fsck");
  TRY_ASSIGN(const auto objects, wait_on(home(), objects_->fsck(ctx, repair)));
  TRY_ASSIGN(const auto data, wait_on(home(), cluster_->data().fsck(repair)));
  return frontends::admin::fsck_json(objects, data);
}

Result<void> RunningNode::begin() {
  TRY(open_store());
  TRY(wait_on(home(), open_identities()));

  frontends::s3::S3Options s3_options;
  s3_options.region = config_.region;
  s3_options.virtual_hosts = config_.virtual_hosts;
  s3_ = std::make_unique<frontends::s3::S3Server>(*objects_, *identities_, system_clock(), s3_options);
  admin_ = std::make_unique<frontends::admin::AdminServer>(frontends::admin::AdminServices{.data = cluster_->data(),
                                                                                           .metadata = cluster_->meta(),
                                                                                           .objects = *objects_,
                                                                                           .identities = *identities_,
                                                                                           .clock = system_clock(),
                                                                                           .region = config_.region,
                                                                                           .version = kVersion,
                                                                                           .cluster_id = cluster_->id().to_string(),
                                                                                           .profile = cluster_->default_redundancy(),
                                                                                           .started = system_clock().wall_now()});
  TRY_ASSIGN(listeners_, Listeners::open(*loops_, config_, *s3_, *admin_));
  gauges_.push_back(
      metrics::gauge("base_buffer_bytes", "Memory held by I/O buffers", {}, [] { return static_cast<double>(buffer_bytes_in_use()); }));

  for (const char* state : {"active", "read-only", "draining", "disabled", "missing", "failed"}) {
    gauges_.push_back(metrics::gauge("cluster_drives", "Drives by state", {{"state", state}}, [this, state] {
      double count = 0;
      for (const auto& drive : cluster_->data().drives()) count += drive.state == state;
      return count;
    }));
  }

  gauges_.push_back(
      metrics::gauge("cluster_health", "What could be lost now: 0 healthy, 1 degraded, 2 some data cannot be read", {},
                     [this] { return static_cast<double>(frontends::admin::health_of(cluster_->data(), cluster_->meta()).level()); }));
  for (const std::string_view cause : cluster::kHealthCauses) {
    gauges_.push_back(metrics::gauge("cluster_problems", "What status tells of, by cause", {{"cause", std::string(cause)}}, [this, cause] {
      const auto health = frontends::admin::health_of(cluster_->data(), cluster_->meta());
      return static_cast<double>(std::ranges::count(health.problems, cause, &cluster::HealthProblem::cause));
    }));
  }

  const std::string scheme = config_.tls ? "https://" : "http://";
  endpoints_.s3 = scheme + listeners_->s3_address().to_string();
  endpoints_.admin = scheme + listeners_->admin_address().to_string();
  endpoints_.region = config_.region;
  TRY(client::write_endpoints(config_.root, endpoints_));
  admin_->set_ready(true);
  const std::string reason = cluster_->read_only_reason();
  if (!reason.empty()) LOG_WARNING("the store is read-only", {"reason", reason});
  LOG_INFO("ready", {"s3", endpoints_.s3}, {"admin", endpoints_.admin}, {"cluster", cluster_->id().to_string()},
           {"redundancy", cluster_->default_redundancy()});
  return {};
}

std::string RunningNode::summary() const {
  const auto drives = cluster_->data().drives();
  const auto space = cluster_->data().space_status();
  // Said once; `quarry device list` says it again.
  std::string notes;
  for (const auto& note : fresh_ ? cluster::shared_file_systems(drives) : std::vector<std::string>())
    notes += fmt::format("  note        {}\n", note);
  return fmt::format(
      "Quarry {} is ready.\n"
      "  S3          {}\n  admin       {}\n  access key  {}\n  secret key  {}\n"
      "  store       {} drives, {}, {} can be stored\n{}"
      "  keys and addresses are in {}/endpoints.json; Ctrl-C ends the node\n",
      kVersion, endpoints_.s3, endpoints_.admin, endpoints_.access_key, endpoints_.secret_key, drives.size(),
      cluster_->default_redundancy(), format_size(space.usable_free_bytes), notes, config_.root);
}

Result<void> RunningNode::stop() {
  if (std::exchange(stopped_, true)) return {};
  Result<void> outcome;
  if (admin_) admin_->set_ready(false);
  if (cluster_) cluster_->begin_close();  // requests may be waiting for a drive that hangs
  if (listeners_) listeners_->stop(config_.drain_timeout);
  listeners_.reset();
  gauges_.clear();
  s3_.reset();
  admin_.reset();
  objects_.reset();
  identities_.reset();
  if (cluster_) {
    outcome = wait_on(home(), cluster_->close());
    hangs_ = cluster_->hangs();
    if (hangs_) static_cast<void>(cluster_.release());
    cluster_.reset();
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
  TRY(node.open_store());
  Result<std::string> report = node.fsck(repair);
  TRY(node.stop());
  return report;
}

Result<std::unique_ptr<Node>> Node::start(NodeConfig config) {
  auto node = std::make_unique<RunningNode>(std::move(config));
  TRY(node->begin());
  std::unique_ptr<Node> started = std::move(node);
  return started;
}

}  // namespace quarry::daemon
