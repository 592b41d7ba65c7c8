// object_bench: what the object engine costs by itself, over the RocksDB store with an in-memory commit log and a data plane in memory.
//   object_bench [KEYS] [DIRECTORY] [put]   4 KiB puts, heads, gets, pages of 1,000, bodies of 32 MiB; KEYS (default 200,000) objects;
//                                           put: end after the puts
// CPU is that of the whole process (engine, metadata store, log) and of the calling loop alone.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "io/sim/sim_executor.h"
#include "meta/memory_commit_log.h"
#include "meta/rocksdb/rocksdb_meta_store.h"
#include "object/make_object_engine.h"
#include "object/testing/memory_data_plane.h"

namespace quarry::object {
namespace {

double clock_seconds(clockid_t id) {
  timespec t{};
  clock_gettime(id, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
struct Meter {
  double wall = clock_seconds(CLOCK_MONOTONIC), process = clock_seconds(CLOCK_PROCESS_CPUTIME_ID),
         thread = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
  void print(const char* what, double count, const char* unit) const {
    const double w = clock_seconds(CLOCK_MONOTONIC) - wall, p = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - process,
                 t = clock_seconds(CLOCK_THREAD_CPUTIME_ID) - thread;
    fmt::print("{:<34} {:>10.0f} {}/s   {:>8.2f} us CPU each (process)   {:>8.2f} us (calling loop)\n", what, count / w, unit,
               p / count * 1e6, t / count * 1e6);
  }
};

template <class T>
T must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "object_bench: {}\n", result.error().to_string());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

constexpr int kConcurrency = 32;

struct Bench {
  ObjectEngine& engine;
  RequestContext ctx = RequestContext::system("bench");
  size_t keys;
  std::string small = std::string(4096, 's'), large = std::string(1 << 20, 'l');
  size_t next = 0;

  static std::string key_of(size_t i) { return fmt::format("dir{:04}/object-{:08}", i / 1000, i); }

  Task<void> put_worker() {
    while (next < keys) {
      const std::string key = key_of(next++);
      auto writer = must(co_await engine.put(ctx, "bench", key, {.size = small.size()}));
      must(co_await writer->write(Buffer::copy_of(bytes_of(small))));
      must(co_await writer->finish({}));
    }
  }
  Task<void> get_worker(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const std::string key = key_of(next++ * 7919 % keys);
      auto reader = must(co_await engine.get(ctx, "bench", key, ""));
      auto bytes = must(co_await reader->next(1 << 20));
      if (bytes.size() != small.size()) std::exit(1);
    }
  }
  Task<void> head_worker(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const std::string key = key_of(next++ * 7919 % keys);
      must(co_await engine.head(ctx, "bench", key, ""));
    }
  }
  Task<void> body_worker(int number, int pieces) {
    auto writer = must(co_await engine.put(ctx, "bench", fmt::format("body{}", number), {}));
    for (int i = 0; i < pieces; ++i) must(co_await writer->write(Buffer::copy_of(bytes_of(large))));
    must(co_await writer->finish({}));
  }
};

Task<void> many(std::vector<Task<void>> tasks) {
  TaskGroup group;
  for (auto& task : tasks) group.spawn(std::move(task));
  co_await group.join();
}

int run(size_t keys, std::string directory, bool only_puts) {
  SimExecutor executor;
  ThreadPool compute("compute", 2);
  meta::MemoryCommitLog log(std::make_shared<meta::MemoryLogMedia>());
  meta::RocksdbMetaOptions meta_options;
  meta_options.directory = directory;
  auto store = must(executor.run(meta::open_rocksdb_store(std::move(meta_options), log)));
  MemoryDataPlane data(*store);
  auto engine = make_object_engine({.meta = *store, .data = data, .clock = system_clock(), .random = system_random(), .compute = &compute});
  Bench bench{.engine = *engine, .keys = keys};
  BucketInfo bucket;
  bucket.name = "bench";
  must(executor.run(engine->create_bucket(bench.ctx, bucket)));
  const auto concurrently = [&](auto make) {
    std::vector<Task<void>> tasks;
    for (int i = 0; i < kConcurrency; ++i) tasks.push_back(make(i));
    executor.run(many(std::move(tasks)));
  };
  {
    const Meter meter;
    concurrently([&](int) { return bench.put_worker(); });
    meter.print("put 4 KiB, inline, new keys", static_cast<double>(keys), "op");
  }
  if (only_puts) {
    must(executor.run(store->close()));
    return 0;
  }
  const size_t reads = 50'000 / kConcurrency;
  {
    const Meter meter;
    concurrently([&](int) { return bench.head_worker(reads); });
    meter.print("head", static_cast<double>(reads * kConcurrency), "op");
  }
  {
    const Meter meter;
    concurrently([&](int) { return bench.get_worker(reads); });
    meter.print("get 4 KiB, inline", static_cast<double>(reads * kConcurrency), "op");
  }
  for (const bool last : {false, true}) {
    ListOptions options;
    if (last) options.after = Bench::key_of(keys - 1001);
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
      const double begin = clock_seconds(CLOCK_MONOTONIC);
      const auto page = must(executor.run(engine->list(bench.ctx, "bench", options)));
      best = std::min(best, clock_seconds(CLOCK_MONOTONIC) - begin);
      if (page.objects.size() != std::min<size_t>(1000, keys)) return 1;
    }
    fmt::print("{:<34} {:>10.3f} ms\n", last ? "list: last page of 1,000" : "list: first page of 1,000", best * 1e3);
  }
  {
    const double begin = clock_seconds(CLOCK_MONOTONIC);
    const auto page = must(executor.run(engine->list(bench.ctx, "bench", {.delimiter = "/"})));
    fmt::print("{:<34} {:>10.3f} ms for {} prefixes\n", "list: delimiter", (clock_seconds(CLOCK_MONOTONIC) - begin) * 1e3,
               page.common_prefixes.size());
  }
  for (const int streams : {1, 8, 16}) {
    const Meter meter;
    std::vector<Task<void>> tasks;
    for (int i = 0; i < streams; ++i) tasks.push_back(bench.body_worker(i, 32));
    executor.run(many(std::move(tasks)));
    meter.print(fmt::format("bodies of 32 MiB, {} at once", streams).c_str(), streams * 32.0, "MiB");
  }
  must(executor.run(store->close()));
  return 0;
}

}  // namespace
}  // namespace quarry::object

int main(int argc, char** argv) {
  const size_t keys = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200'000;
  const std::string directory = argc > 2 ? argv[2] : "object_bench.meta";
  std::filesystem::remove_all(directory);
  const int status = quarry::object::run(keys, directory, argc > 3);
  std::filesystem::remove_all(directory);
  return status;
}
