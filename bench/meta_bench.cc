// Measures the embedded metadata store over the in-memory commit log: commits, gets, listing pages, replay, rebuild.
//   meta_bench [--seconds 2] [--rows 1000000] [--dir DIR] [all|commit|read]
// Prints wall clock and CPU of the whole process (all threads: committer, RocksDB's flushes and compactions, the bench itself).
#include <sys/resource.h>

#include <cstdio>
#include <filesystem>

#include "base/log.h"
#include "io/ring_executor.h"
#include "loop_steps.h"
#include "meta/memory_commit_log.h"
#include "meta/rocksdb/rocksdb_meta_store.h"

namespace quarry::meta {
namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}
double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Settings {
  double seconds = 2;
  uint64_t rows = 1'000'000;
  std::string directory;
  std::string what = "all";
};

struct Store {
  std::shared_ptr<MemoryLogMedia> media = std::make_shared<MemoryLogMedia>();
  std::unique_ptr<MemoryCommitLog> log;
  std::unique_ptr<LogMetaStore> store;
  std::string directory;
};

Task<void> open(Store& to, MemoryLogFaults faults, bool checkpoints) {
  to.log = std::make_unique<MemoryCommitLog>(to.media, faults);
  RocksdbMetaOptions options;
  options.directory = to.directory;
  options.checkpoint_bytes_per_second = 0;
  if (!checkpoints) options.checkpoint_log_bytes = UINT64_MAX / 4;
  if (!checkpoints) options.checkpoint_at_close_bytes = 0;
  auto opened = co_await open_rocksdb_store(std::move(options), *to.log);
  CHECK(opened.has_value(), opened ? "" : opened.error().to_string().c_str());
  to.store = std::move(*opened);
}

std::string object_key(uint64_t number) {
  // Scattered, as object names are; 40 bytes.
  return fmt::format("o/bucket-0001/{:016x}/{:08}", number * 0x9e3779b97f4a7c15ull, number);
}
// 200 bytes, half of them random: about as compressible as a manifest with its chunk ids and checksums.
std::string object_value(uint64_t number) {
  SeededRandom random(number);
  std::string value(100, 'm');
  while (value.size() < 200) value += fmt::format("{:020}", random.u64());
  return value;
}

struct Load {
  MetaStore& store;
  double until;
  uint64_t done = 0, failed = 0, next = 0;
  std::vector<float> latencies{};
};

// What publishing a small object costs: one key read, two rows put, one counter.
Task<void> publisher(Load& load) {
  while (now_seconds() < load.until) {
    const uint64_t number = load.next++;
    const double begin = now_seconds();
    auto transaction = co_await load.store.begin();
    const auto old = co_await (*transaction)->get(object_key(number));
    CHECK(old.has_value());
    (*transaction)->put(object_key(number), object_value(number));
    (*transaction)->put(fmt::format("i/{:016x}", number), "intent");
    (*transaction)->add("u/bucket-0001", 4096);
    const auto version = co_await (*transaction)->commit();
    ++(version ? load.done : load.failed);
    load.latencies.push_back(static_cast<float>(now_seconds() - begin));
  }
}

Task<void> reader(Load& load, uint64_t rows, uint64_t seed) {
  SeededRandom random(seed);
  while (now_seconds() < load.until) {
    for (int i = 0; i < 16; ++i) {
      const auto value = co_await load.store.get(object_key(random.below(rows)));
      CHECK(value && *value, "a row is missing");
      ++load.done;
    }
    co_await Executor::here().yield();
  }
}

Task<void> commits(const Settings& settings) {
  for (const int64_t delay : {0, 200}) {
    for (const int clients : {1, 16, 64}) {
      Store store;
      store.directory = settings.directory + "/commit";
      std::filesystem::remove_all(store.directory);
      co_await open(store, {.append_delay = std::chrono::microseconds(delay)}, false);
      Load load{*store.store, now_seconds() + settings.seconds};
      const double cpu = cpu_seconds(), begin = now_seconds();
      TaskGroup group;
      for (int i = 0; i < clients; ++i) group.spawn(publisher(load));
      co_await group.join();
      const double wall = now_seconds() - begin, used = cpu_seconds() - cpu;
      std::sort(load.latencies.begin(), load.latencies.end());
      const auto stats = store.store->stats();
      std::printf(
          "commit  log %3ld us  %2d clients  %7.0f /s  %5.1f us CPU each  p50 %4.0f us  p99 %5.0f us  %4.1f per frame  failed %lu\n",
          static_cast<long>(delay), clients, static_cast<double>(load.done) / wall, used / static_cast<double>(load.done) * 1e6,
          static_cast<double>(load.latencies[load.latencies.size() / 2]) * 1e6,
          static_cast<double>(load.latencies[load.latencies.size() * 99 / 100]) * 1e6,
          static_cast<double>(stats.commits) / static_cast<double>(stats.commit_groups), load.failed);
      co_await store.store->kill();
    }
  }
}

Task<void> fill(Store& store, uint64_t rows) {
  uint64_t next = 0;
  struct Writer {
    static Task<void> run(MetaStore& to, uint64_t& from, uint64_t end) {
      while (from < end) {
        auto transaction = co_await to.begin();
        for (int i = 0; i < 200 && from < end; ++i, ++from) (*transaction)->put(object_key(from), object_value(from));
        CHECK((co_await (*transaction)->commit()).has_value());
      }
    }
  };
  TaskGroup group;
  for (int i = 0; i < 8; ++i) group.spawn(Writer::run(*store.store, next, rows));
  co_await group.join();
}

Task<void> reads_and_recovery(const Settings& settings) {
  Store store;
  store.directory = settings.directory + "/rows";
  std::filesystem::remove_all(store.directory);
  co_await open(store, {}, false);
  double begin = now_seconds(), cpu = cpu_seconds();
  co_await fill(store, settings.rows);
  std::printf("fill    %lu rows of 240 bytes: %.0f rows/s, %.2f us CPU each\n", settings.rows,
              static_cast<double>(settings.rows) / (now_seconds() - begin),
              (cpu_seconds() - cpu) / static_cast<double>(settings.rows) * 1e6);

  // Replay: nothing but the log.
  co_await store.store->kill();
  std::filesystem::remove_all(store.directory);
  begin = now_seconds();
  co_await open(store, {}, false);
  double wall = now_seconds() - begin;
  std::printf("replay  %lu rows, %lu frames: %.2f s, %.0f rows/s\n", settings.rows, store.store->status().frames_replayed, wall,
              static_cast<double>(settings.rows) / wall);

  begin = now_seconds();
  CHECK((co_await store.store->checkpoint()).has_value());
  wall = now_seconds() - begin;
  std::printf("checkpoint, first: %.1f MB in %.2f s\n", static_cast<double>(store.log->bytes_stored()) * 1e-6, wall);
  const uint64_t first = store.log->bytes_stored();
  {
    Load load{*store.store, now_seconds() + 0.2, 0, 0, settings.rows};
    co_await publisher(load);
  }
  begin = now_seconds();
  CHECK((co_await store.store->checkpoint()).has_value());
  std::printf("checkpoint, second: %.1f MB in %.2f s\n", static_cast<double>(store.log->bytes_stored() - first) * 1e-6,
              now_seconds() - begin);
  CHECK((co_await store.store->close()).has_value());

  begin = now_seconds();
  co_await open(store, {}, false);
  std::printf("restart after a clean close: %.3f s (by %s)\n", now_seconds() - begin, store.store->status().opened_by.c_str());
  co_await store.store->kill();
  std::filesystem::remove_all(store.directory);
  begin = now_seconds();
  co_await open(store, {}, false);
  std::printf("rebuild from the checkpoint: %.2f s (by %s, %lu frames replayed)\n", now_seconds() - begin,
              store.store->status().opened_by.c_str(), store.store->status().frames_replayed);

  // Pages of 1,000 rows: first and last, cold (just opened) and warm.
  const auto page = [](MetaStore& from, std::string begin_key) -> Task<double> {
    const double start = now_seconds();
    const auto rows = co_await from.scan({{std::move(begin_key), "o0"}, 1000});
    CHECK(rows && rows->size() == 1000);
    co_return (now_seconds() - start) * 1e3;
  };
  const auto tail = co_await store.store->scan({{"o/", "o0"}, 1000, SIZE_MAX, Direction::backward});
  const std::string last = tail->back().key;
  for (const char* state : {"cold", "warm"}) {
    const double head = co_await page(*store.store, "o/");
    const double end = co_await page(*store.store, last);
    std::printf("page of 1,000 of %lu rows, %s: first %.2f ms, last %.2f ms\n", settings.rows, state, head, end);
  }
  for (const int clients : {1, 16}) {
    for (const char* state : {"cold", "warm"}) {
      Load load{*store.store, now_seconds() + settings.seconds};
      cpu = cpu_seconds();
      begin = now_seconds();
      const uint64_t hops = store.store->status().reads_on_pool;
      TaskGroup group;
      for (int i = 0; i < clients; ++i) group.spawn(reader(load, settings.rows, static_cast<uint64_t>(i)));
      co_await group.join();
      std::printf("get     %2d clients, %s: %7.0f /s  %5.2f us CPU each  %.1f %% went to the pool\n", clients, state,
                  static_cast<double>(load.done) / (now_seconds() - begin), (cpu_seconds() - cpu) / static_cast<double>(load.done) * 1e6,
                  100.0 * static_cast<double>(store.store->status().reads_on_pool - hops) / static_cast<double>(load.done));
    }
  }
  co_await store.store->kill();
}

Task<void> run(const Settings& settings) {
  if (settings.what == "all" || settings.what == "commit") co_await commits(settings);
  if (settings.what != "commit") co_await reads_and_recovery(settings);
}

}  // namespace
}  // namespace quarry::meta

int main(int argc, char** argv) {
  using namespace quarry;  // NOLINT: a program
  meta::Settings settings;
  std::string made;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--seconds" && i + 1 < argc) {
      settings.seconds = std::atof(argv[++i]);
    } else if (argument == "--rows" && i + 1 < argc) {
      settings.rows = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--dir" && i + 1 < argc) {
      settings.directory = argv[++i];
    } else if (!argument.starts_with("-")) {
      settings.what = argument;
    } else {
      std::fprintf(stderr, "usage: meta_bench [--seconds S] [--rows N] [--dir DIR] [all|commit|read]\n");
      return 2;
    }
  }
  if (settings.directory.empty()) {
    made = "/var/tmp/quarry-meta-bench-XXXXXX";
    if (::mkdtemp(made.data()) == nullptr) {
      std::perror("mkdtemp");
      return 1;
    }
    settings.directory = made;
  }
  set_log_level(LogLevel::warning);
  auto executor = RingExecutor::create();
  if (!executor) {
    std::fprintf(stderr, "%s\n", executor.error().to_string().c_str());
    return 1;
  }
  (*executor)->run(meta::run(settings));
  if (!made.empty()) std::filesystem::remove_all(made);
  return status_with_loop_steps(0);
}
