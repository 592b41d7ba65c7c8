// SimNode: a node in a simulator: raw stores on simulated drives, the metadata's commit log on them and its index in memory, S3 over a
// simulated network. One thread, virtual time, one seed: one history.
//
//   SimNode node(executor, fabric, {.host = "node-1"});
//   co_await node.start();                    // the first time it makes a store
//   co_await node.kill(SimNode::End::power);  // at any moment, also while requests are under way
//   co_await node.start();
//
// A kill takes the drives as they are at this moment, with what was under way, and gives them to the next start. What is left of the
// process works on drives that are gone and a network that delivers nothing, and is cleared away: nothing of it can be seen.
#pragma once
#include "chunk/raw/raw_store.h"
#include "client/s3_client.h"
#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"
#include "io/sim/sim_network.h"
#include "meta/log_store/log_meta_store.h"
#include "meta/memory/memory_index.h"
#include "node/node.h"
#include "wire/http_server.h"

namespace quarry::node {

class SimNode {
 public:
  struct Options {
    std::string host = "node-1";
    size_t drives = 4;
    uint64_t drive_bytes = 64 * kMiB;
    std::string redundancy = "ec:2+1";
    uint64_t checkpoint_log_bytes = 64 << 10;
    uint64_t seed = 1;
  };
  static constexpr uint16_t kPort = 9000;

  SimNode(SimExecutor& executor, SimFabric& fabric, Options options)
      : executor_(executor), fabric_(fabric), options_(std::move(options)), random_(options_.seed), network_(fabric.host(options_.host)) {
    for (size_t i = 0; i < options_.drives; ++i) {
      disks_.push_back(SimDisk::create({.path = fmt::format("{}/sim{}", options_.host, i),
                                        .size = options_.drive_bytes,
                                        .latency_min = std::chrono::microseconds(20),
                                        .latency_max = std::chrono::microseconds(400),
                                        .seed = random_.u64()}));
    }
  }
  SimNode(const SimNode&) = delete;
  ~SimNode() { CHECK(process_ == nullptr, "a simulated node dies while it runs: stop or kill it first"); }

  // As `quarry up` does: makes the store at first, opens it later. Errors: those of Node::open.
  Task<Result<void>> start() {
    CHECK(process_ == nullptr);
    auto process = std::make_unique<Process>();
    process->pool = executor_.make_pool(options_.host, 2);
    Result<void> done = co_await start(process.get());
    if (!done) {
      if (process->node != nullptr) (co_await process->node->close()).ignore("the start failed already");
      co_return done;
    }
    process_ = std::move(process);
    ++starts_;
    co_return done;
  }

  enum class End : uint8_t {
    process,  // the drives keep what they were given
    power,    // of what was not stable the seed says what is left, and the index is lost
  };
  // Completes when nothing is left of the process; the drives are as they were when it was called.
  Task<void> kill(End how) {
    CHECK(process_ != nullptr);
    for (auto& disk : disks_) {
      auto left = how == End::power ? disk->crash_image(random_.u64()) : disk->copy();
      disk->set_gone(true);
      corpses_.push_back(std::exchange(disk, std::move(left)));
    }
    if (how == End::power)
      index_ = std::make_shared<meta::MemoryIndexMedia>();
    else
      index_ = std::make_shared<meta::MemoryIndexMedia>(meta::MemoryIndexMedia{.rows = index_->rows});
    fabric_.kill(options_.host);
    const std::unique_ptr<Process> dead = std::move(process_);
    dead->node->begin_close();
    co_await dead->server->stop(executor_.now());
    (co_await dead->node->close()).ignore("its drives are gone");
    corpses_.clear();
  }

  Task<Result<void>> stop() {
    CHECK(process_ != nullptr);
    const std::unique_ptr<Process> process = std::move(process_);
    process->node->begin_close();
    co_await process->server->stop(executor_.now() + std::chrono::seconds(5));
    co_return co_await process->node->close();
  }

  bool runs() const { return process_ != nullptr; }
  size_t starts() const { return starts_; }
  Node& node() { return *process_->node; }
  Clock& clock() { return clock_; }
  // For clients; the key stays the same from the first start on.
  client::S3Endpoint endpoint() const {
    return {.url = fmt::format("http://{}:{}", options_.host, kPort), .credentials = {key_.access_key, key_.secret_key}};
  }

 private:
  struct Process {
    std::unique_ptr<BlockingPool> pool;
    std::unique_ptr<Node> node;
    std::unique_ptr<HttpServer> server;
  };

  Task<Result<void>> start(Process* process) {
    NodeOptions options;
    for (const auto& disk : disks_) {
      auto device = disk->open();
      if (starts_ == 0) {
        chunk::FormatOptions format;
        format.drive = random_.uuid();
        CO_TRY(co_await chunk::RawStore::format(*device, std::move(format)));
      }
      CO_TRY_ASSIGN(auto store, co_await chunk::RawStore::open(std::move(device), {}));
      cluster::OpenedDrive drive;
      drive.store = std::move(store);
      drive.owner = &executor_;
      drive.path = disk->options().path;
      options.cluster.drives.push_back(std::move(drive));
    }
    options.cluster.metadata_directory = "index";
    options.cluster.open_meta = [this](meta::CommitLog& log, std::string) { return open_meta(&log); };
    options.cluster.tuning.shard_bytes = 64 * 1024;
    options.cluster.tuning.cache_bytes = 4 * kMiB;
    options.cluster.tuning.cache_pin_bytes = 0;
    options.cluster.tuning.write_memory_bytes = 64 * kMiB;
    options.cluster.tuning.scrub_interval = Duration(0);
    options.cluster.tuning.write_id_block = 256;
    if (starts_ == 0)
      options.create = cluster::CreateOptions{.cluster = {}, .redundancy = options_.redundancy, .group_count = 16, .master_key = {}};
    const Services services{.clock = clock_, .random = random_, .blocking = *process->pool, .compute = nullptr};
    CO_TRY_ASSIGN(process->node, co_await Node::open(services, std::move(options)));
    CO_TRY(co_await process->node->settle_names());
    CO_TRY_ASSIGN(key_, co_await process->node->begin());
    process->server = std::make_unique<HttpServer>(process->node->s3(), HttpServerOptions{});
    CO_TRY_ASSIGN(auto listener, network_->listen({options_.host, kPort}, false));
    process->server->start(std::move(listener));
    process->node->admin().set_ready(true);
    co_return Result<void>();
  }
  Task<Result<std::unique_ptr<meta::MetaStore>>> open_meta(meta::CommitLog* log) {
    meta::LogMetaOptions options;
    options.clock = &clock_;
    options.random = &random_;
    options.checkpoint_log_bytes = options_.checkpoint_log_bytes;
    options.checkpoint_ratio = 0;
    CO_TRY_ASSIGN(auto store, co_await meta::LogMetaStore::open(std::move(options), meta::make_memory_place(index_), *log));
    co_return std::unique_ptr<meta::MetaStore>(std::move(store));
  }

  SimExecutor& executor_;
  SimFabric& fabric_;
  const Options options_;
  SeededRandom random_;
  ManualClock clock_;
  std::unique_ptr<Network> network_;
  std::vector<std::shared_ptr<SimDisk>> disks_, corpses_;
  std::shared_ptr<meta::MemoryIndexMedia> index_ = std::make_shared<meta::MemoryIndexMedia>();
  AdministratorKey key_;
  size_t starts_ = 0;
  std::unique_ptr<Process> process_;
};

}  // namespace quarry::node
