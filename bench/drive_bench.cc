// drive_bench: what the guard against drives that hang costs (cluster::Drive over a chunk store): small chunks through a Drive, and the
// same through the bare store, alternating in short rounds of one run.
//   drive_bench DIRECTORY [ROUNDS] [OPS]   ROUNDS (default 60) of OPS (default 256) puts and gets of 4 KiB each way, 1 and 16 at a time
// Callers run on one loop, stores on another, as in a node. The figure is the median over rounds of the time of a round.
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "chunk/dir/dir_store.h"
#include "chunk/kfs/kfs_chunk_store.h"
#include "chunk/raw/raw_store.h"
#include "cluster/drives/drive.h"
#include "io/ring_executor.h"
#include "io/sync.h"
#include "io/uring_block_device.h"
#include "loop_steps.h"

namespace quarry::cluster {
namespace {

template <class T>
T must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "drive_bench: {}\n", result.error().to_string());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

constexpr uint32_t kSize = 4096;
constexpr uint64_t kFirst = 1'000'000;

Task<Result<std::unique_ptr<chunk::ChunkStore>>> open_store(std::string kind, std::string path) {
  if (kind == "raw") {
    must(create_file_device(path, 4 * kGiB));
    auto fresh = must(co_await UringBlockDevice::open(path));
    must(co_await chunk::RawStore::format(*fresh, {}));
    co_return must(co_await chunk::RawStore::open(std::move(fresh), {}));
  }
  if (kind == "dir") {
    must(co_await chunk::DirStore::format(path, {}));
    co_return must(co_await chunk::DirStore::open(path, {}));
  }
  must(co_await chunk::KfsChunkStore::format(path, {}));
  co_return must(co_await chunk::KfsChunkStore::open(path, {}));
}

struct Bench {
  Drive& drive;
  chunk::ChunkStore& store;
  Executor& owner;
  std::string payload = std::string(kSize, 'x');
  uint64_t next_put = kFirst, next_get = 0, end = 0;
  bool guarded = false, puts = false;

  static ChunkId id_of(uint64_t number) { return {number, number * 0x9e3779b97f4a7c15}; }

  // What a Drive does without a guard.
  Task<Result<void>> bare_put(ChunkId id) {
    auto copy = std::make_shared<Buffer>(Buffer::copy_of(bytes_of(payload)));
    Result<void> done = co_await on(owner, store.put(id, {copy->view()}, {.stream = chunk::Stream::data}));
    co_return done;
  }
  Task<void> worker() {
    while ((puts ? next_put : next_get) < end) {
      if (puts) {
        const ChunkId id = id_of(next_put++);
        if (guarded) {
          must(co_await drive.put(id, {bytes_of(payload)}, chunk::Stream::data));
        } else {
          must(co_await bare_put(id));
        }
      } else {
        const ChunkId id = id_of(kFirst + next_get++ * 7 % (next_put - kFirst));
        if (guarded) {
          must(co_await drive.get(id, 0, kSize));
        } else {
          must(co_await on(owner, store.get(id, 0, kSize)));
        }
      }
    }
  }

  Task<double> round(uint64_t ops, size_t at_a_time) {
    next_get = puts ? next_get : 0;
    end = (puts ? next_put : next_get) + ops;
    const TimePoint begin = Executor::here().now();
    TaskGroup group;
    for (size_t i = 0; i < at_a_time; ++i) group.spawn(worker());
    co_await group.join();
    co_return std::chrono::duration<double, std::micro>(Executor::here().now() - begin).count() / static_cast<double>(ops);
  }
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

Task<void> measure(std::string kind, std::string path, Executor* owner, int rounds, uint64_t ops) {
  auto opened = must(co_await on(*owner, open_store(kind, path)));
  chunk::ChunkStore& store = *opened;
  Drive drive({1, path, "a"}, std::move(opened), *owner);
  Bench bench{.drive = drive, .store = store, .owner = *owner};
  for (const bool puts : {true, false}) {
    for (const size_t at_a_time : {size_t{1}, size_t{16}}) {
      std::vector<double> with, without;
      bench.puts = puts;
      for (int i = -4; i < rounds; ++i) {
        for (const bool guarded : {i % 2 == 0, i % 2 != 0}) {
          bench.guarded = guarded;
          const double each = co_await bench.round(puts ? ops : ops * 8, at_a_time);
          if (i >= 0) (guarded ? with : without).push_back(each);  // the first are a warm-up
        }
      }
      const double a = median(with), b = median(without);
      fmt::print("{:<4} {} {:>2} at a time   {:>8.2f} us with the guard   {:>8.2f} us without   {:>+6.2f} %\n", kind, puts ? "put" : "get",
                 at_a_time, a, b, (a / b - 1) * 100);
      std::fflush(stdout);
    }
  }
  must(co_await drive.close());
}

int run(const std::string& directory, int rounds, uint64_t ops) {
  auto pool = must(ExecutorPool::start({.name = "bench", .threads = 2}));
  for (const std::string kind : {"raw", "dir", "kfs"}) {
    const std::string path = directory + "/" + kind;
    std::filesystem::remove_all(path);
    wait_on(pool->executor(0), measure(kind, path, &pool->executor(1), rounds, ops));
    std::filesystem::remove_all(path);
  }
  pool->stop();
  return 0;
}

}  // namespace
}  // namespace quarry::cluster

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "drive_bench DIRECTORY [ROUNDS] [OPS]\n");
    return 2;
  }
  return quarry::status_with_loop_steps(
      quarry::cluster::run(argv[1], argc > 2 ? std::atoi(argv[2]) : 60, argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 256));
}
