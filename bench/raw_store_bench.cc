// raw_store_bench: the raw store against fio on the same file system, in turns, in one run.
//   raw_store_bench [DIR [SECONDS [GIB]]]    default /var/tmp, 3 seconds a row, files of 4 GiB; what it makes is removed again
//   raw_store_bench restart [DIR]            only restart, rebuild, memory and space
// Rows: 1 MiB durable writes and reads (payload bytes per second), 4 KiB durable puts, then a million chunks: restart, rebuild after the
// loss of log and of inventories, memory per chunk, payload over raw space. Both sides run on sparse files, first-touch and overwriting
// apart.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/units.h"
#include "chunk/raw/raw_store.h"
#include "io/ring_executor.h"
#include "io/uring_block_device.h"
#include "loop_steps.h"

namespace quarry {
namespace {

using chunk::RawStore;
using chunk::RawStoreOptions;

double now_seconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
template <class T>
T must(Result<T> result, const char* what = "") {
  if (!result) {
    fmt::print(stderr, "raw_store_bench: {} {}\n", what, result.error().to_string());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
ChunkId id_of(uint64_t n) { return {n * 0x9e3779b97f4a7c15ull, n}; }

struct FioResult {
  double bytes_per_second = 0, operations_per_second = 0;
};
FioResult fio(const std::string& file, const std::string& rw, const std::string& block, int depth, bool durable, double seconds,
              uint64_t size, bool timed = true) {
  const std::string command = fmt::format(
      "fio --name=b --filename={} --rw={} --bs={} --ioengine=io_uring --direct=1 --thread=1 --fixedbufs=1 --registerfiles=1 "
      "--iomem_align=2m --iodepth={} {} --size={} {} --runtime={} "
      "--randrepeat=0 --fallocate=none --output-format=json 2>/dev/null",
      file, rw, block, depth, durable ? "--sync=dsync" : "", size, timed ? "--time_based" : "", seconds);
  std::string text;
  if (FILE* pipe = ::popen(command.c_str(), "r")) {
    char buffer[65536];
    size_t got = 0;
    while ((got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0) text.append(buffer, got);
    ::pclose(pipe);
  }
  const std::string side = rw.find("write") != std::string::npos ? "\"write\" : {" : "\"read\" : {";
  const auto number = [&](std::string_view key) {
    const size_t at = text.find(key, text.find(side));
    return at == std::string::npos ? 0.0 : std::strtod(text.c_str() + at + key.size(), nullptr);
  };
  return {number("\"bw_bytes\" : "), number("\"iops\" : ")};
}

struct Load {
  RawStore& store;
  std::vector<ByteView> payload;
  uint64_t first = 0, next = 0, last = 0;  // chunk numbers
  double until = 0;
  uint64_t done = 0;
  bool read = false;
  uint64_t random = 88172645463325252ull;
};
Task<void> load_worker(Load& load) {
  while (load.next < load.last && now_seconds() < load.until) {
    if (load.read) {
      load.random ^= load.random << 13;
      load.random ^= load.random >> 7;
      load.random ^= load.random << 17;
      ++load.next;
      auto got = co_await load.store.get(id_of(load.first + load.random % (load.last - load.first)), 0, chunk::kChunkSizeMax);
      must(std::move(got), "get");
    } else {
      const uint64_t n = load.next++;
      auto put = co_await load.store.put(id_of(n), load.payload, {});
      must(std::move(put), "put");
    }
    ++load.done;
  }
}
Task<void> load_run(Load& load, int depth) {
  TaskGroup group;
  for (int i = 0; i < depth; ++i) group.spawn(load_worker(load));
  co_await group.join();
}

// Drops the large chunks' own writes: a million of them without payload, for what restart and memory cost. Log, slots and frames are real.
class HollowDevice : public BlockDevice {
 public:
  explicit HollowDevice(std::unique_ptr<BlockDevice> inner) : inner_(std::move(inner)) {}
  const DeviceInfo& info() const override { return inner_->info(); }
  Task<Result<void>> read(uint64_t offset, MutableByteView into) override { return inner_->read(offset, into); }
  Task<Result<void>> write(uint64_t offset, ByteView from, Durability d) override { return inner_->write(offset, from, d); }
  Task<Result<void>> write_gather(uint64_t offset, std::vector<ByteView> parts, Durability d) override { return nothing(); }
  Task<Result<void>> flush() override { return inner_->flush(); }
  Task<Result<void>> discard(uint64_t offset, uint64_t length) override { return inner_->discard(offset, length); }
  Task<Result<uint64_t>> refresh_size() override { return inner_->refresh_size(); }
  Task<void> close() override { return inner_->close(); }

 private:
  static Task<Result<void>> nothing() { co_return Result<void>{}; }
  std::unique_ptr<BlockDevice> inner_;
};

struct Bench {
  RingExecutor& executor;
  std::string directory;

  std::unique_ptr<BlockDevice> device(const std::string& name) {
    return must(executor.run(UringBlockDevice::open(directory + "/" + name)));
  }
  void format(const std::string& name, uint64_t size) {
    must(create_file_device(directory + "/" + name, size), "create");
    auto d = device(name);
    must(executor.run(RawStore::format(*d, {})), "format");
    executor.run(d->close());
  }
  std::unique_ptr<RawStore> open(std::unique_ptr<BlockDevice> d, bool background = false) {
    RawStoreOptions options;
    options.background = background;  // without it no discards: the second round overwrites allocated blocks, as on a device
    return must(executor.run(RawStore::open(std::move(d), options)), "open");
  }
};

void print_ratio(const char* what, std::vector<double> ours, std::vector<double> theirs, double bar, std::string_view unit, double scale) {
  const double a = median(ours) / scale, b = median(theirs) / scale;
  fmt::print("{:<44} store {:>9.1f}  fio {:>9.1f} {:<6} ratio {:.3f}{}\n", what, a, b, unit, a / b,
             bar > 0 ? fmt::format("  (bar {:.2f}: {})", bar, a / b >= bar ? "reached" : "MISSED") : "");
  std::fflush(stdout);
}

void against_fio(Bench& bench, double seconds, uint64_t size) {
  constexpr int kDepth = 8, kRounds = 3;
  const uint64_t span = size / 4 * 3 / kMiB;  // chunks of 1 MiB
  bench.format("store", size);
  Buffer megabyte(kMiB);
  for (size_t i = 0; i < megabyte.size(); ++i) megabyte.data()[i] = static_cast<uint8_t>(i * 31 >> 3);
  auto store = bench.open(bench.device("store"));
  uint64_t number = 1;
  // Writes: round 0 touches each block for the first time, the next ones overwrite.
  std::vector<double> first_ours, first_fio, ours, theirs, one_ours, one_fio;
  for (int round = 0; round <= kRounds; ++round) {
    Load load{*store, {megabyte.view()}, number, number, number + span, now_seconds() + 60};
    const double start = now_seconds();
    bench.executor.run(load_run(load, kDepth));
    const double rate = static_cast<double>(load.done * kMiB) / (now_seconds() - start);
    const double other = fio(bench.directory + "/fio", "write", "1M", kDepth, true, 60, span * kMiB, false).bytes_per_second;
    (round == 0 ? first_ours : ours).push_back(rate);
    (round == 0 ? first_fio : theirs).push_back(other);
    number += span;
    if (round == kRounds) break;
    std::vector<ChunkId> ids;
    for (uint64_t n = number - span; n < number; ++n) ids.push_back(id_of(n));
    must(bench.executor.run(store->remove(std::move(ids))), "remove");
  }
  print_ratio("write 1 MiB durable, depth 8, first touch", first_ours, first_fio, 0, "MiB/s", kMiB);
  print_ratio("write 1 MiB durable, depth 8, overwrite", ours, theirs, 0.90, "MiB/s", kMiB);
  std::vector<double> cpu;
  ours.clear();
  theirs.clear();
  for (int round = 0; round < kRounds; ++round) {
    Load load{*store, {}, number - span, number - span, number, now_seconds() + seconds};
    load.read = true;
    load.random = static_cast<uint64_t>(now_seconds() * 1e9) | 1;  // other places in each round, as fio
    const double start = now_seconds(), used = cpu_seconds();
    bench.executor.run(load_run(load, kDepth));
    ours.push_back(static_cast<double>(load.done * kMiB) / (now_seconds() - start));
    cpu.push_back((cpu_seconds() - used) / (static_cast<double>(load.done) / 1024));
    // The very file the store reads.
    theirs.push_back(fio(bench.directory + "/store", "randread", "1M", kDepth, false, seconds, span * kMiB).bytes_per_second);
  }
  print_ratio("read 1 MiB, depth 8", ours, theirs, 0.97, "MiB/s", kMiB);
  fmt::print("{:<44} store {:>9.3f} CPU-s per GiB read (checksums verified)\n", "", median(cpu));
  const auto space = store->space();
  fmt::print("{:<44} {:.4f} of the blocks in use are payload (bar 0.97)\n", "space, 1 MiB chunks",
             static_cast<double>(space.payload_bytes) / static_cast<double>(space.used_bytes));
  must(bench.executor.run(store->close()), "close");
  store.reset();

  bench.format("small", size);
  store = bench.open(bench.device("small"), true);
  number = 1;
  for (const int depth : {1, 16, 64}) {
    ours.clear();
    theirs.clear();
    uint64_t frames = 0, puts = 0;
    for (int round = 0; round < 2; ++round) {
      const auto before = store->stats();
      Load load{*store, {megabyte.view().first(4096)}, number, number, number + 10'000'000, now_seconds() + seconds / 2};
      const double start = now_seconds();
      bench.executor.run(load_run(load, depth));
      ours.push_back(static_cast<double>(load.done) / (now_seconds() - start));
      number = load.next;
      frames += store->stats().packed_frames - before.packed_frames;
      puts += load.done;
      theirs.push_back(fio(bench.directory + "/fio", "randwrite", "4k", depth, true, seconds / 2, span * kMiB).operations_per_second);
    }
    print_ratio(fmt::format("put 4 KiB durable, {} at a time", depth).c_str(), ours, theirs, 0, "/s", 1);
    fmt::print("{:<44} {:.1f} puts per device write\n", "", static_cast<double>(puts) / static_cast<double>(frames));
  }
  must(bench.executor.run(store->close()), "close");
  store.reset();
  std::filesystem::remove(bench.directory + "/small");
  std::filesystem::remove(bench.directory + "/store");
  std::filesystem::remove(bench.directory + "/fio");
}

void overwrite_zero(const std::string& path, uint64_t offset, uint64_t length) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  std::vector<char> zero(1 << 20);
  for (uint64_t at = 0; at < length; at += zero.size()) {
    const auto bytes = std::min<uint64_t>(zero.size(), length - at);
    if (::pwrite(fd, zero.data(), bytes, static_cast<off_t>(offset + at)) != static_cast<ssize_t>(bytes)) std::abort();
  }
  ::fsync(fd);
  ::close(fd);
}

void reopen_and_print(Bench& bench, const std::string& name, const char* what, uint64_t chunks, double bar_seconds, double bar_rate) {
  auto d = bench.device(name);
  const double start = now_seconds(), used = cpu_seconds();
  auto store = bench.open(std::move(d));
  const double took = now_seconds() - start, cpu = cpu_seconds() - used;
  const auto& report = store->open_report();
  if (report.chunks != chunks) fmt::print("!! {} chunks of {} are there\n", report.chunks, chunks);
  fmt::print("{:<44} {:.3f} s ({:.3f} CPU-s), {:.0f} records/s, {} inventories, {} frames scanned", what, took, cpu,
             static_cast<double>(report.chunks) / took, report.inventories_read, report.frames_scanned);
  if (bar_seconds > 0) fmt::print("  (bar {:.1f} s: {})", bar_seconds, took < bar_seconds ? "reached" : "MISSED");
  if (bar_rate > 0)
    fmt::print("  (bar {:.0f}/s: {})", bar_rate, static_cast<double>(report.chunks) / took >= bar_rate ? "reached" : "MISSED");
  fmt::print("\n");
  std::fflush(stdout);
  must(bench.executor.run(store->close()), "close");
}

void million(Bench& bench) {
  constexpr uint64_t kChunks = 1'000'000;
  Buffer data(kMiB);
  std::memset(data.data(), 7, data.size());
  {  // large chunks, hollow: 1 MiB each on a device of 1.1 TiB that is a sparse file
    const uint64_t size = 1100 * kGiB;
    bench.format("large", size);
    auto store = bench.open(std::make_unique<HollowDevice>(bench.device("large")));
    Load load{*store, {data.view()}, 1, 1, kChunks + 1, now_seconds() + 600};
    const double start = now_seconds();
    bench.executor.run(load_run(load, 64));
    fmt::print("{:<44} {:.0f} puts/s (payload dropped)\n", "1 M large chunks", static_cast<double>(load.done) / (now_seconds() - start));
    const auto stats = store->stats();
    const auto space = store->space();
    fmt::print("{:<44} {:.1f} bytes (bar 64: {})\n", "memory per large chunk", static_cast<double>(stats.index_bytes) / kChunks,
               stats.index_bytes <= 64 * kChunks ? "reached" : "MISSED");
    const double taken = static_cast<double>(space.device_bytes - space.free_bytes);
    fmt::print("{:<44} {:.4f} (bar 0.97: {})\n", "payload over raw space taken, overhead included",
               static_cast<double>(space.payload_bytes) / taken,
               static_cast<double>(space.payload_bytes) / taken >= 0.97 ? "reached" : "MISSED");
    must(bench.executor.run(store->close()), "close");
    store.reset();
    reopen_and_print(bench, "large", "restart, 1 M large chunks, clean", kChunks, 1.0, 0);
    // The log is the index that a restart leans on; it lies in segment 0, behind the first zone.
    overwrite_zero(bench.directory + "/large", 256 * kKiB, 32 * kMiB);
    reopen_and_print(bench, "large", "rebuild after the loss of the log", kChunks, 0, 200'000);
    std::filesystem::remove(bench.directory + "/large");
  }
  {
    const uint64_t size = 8 * kGiB;
    bench.format("packed", size);
    auto store = bench.open(bench.device("packed"), true);
    Load load{*store, {data.view().first(4096)}, 1, 1, kChunks + 1, now_seconds() + 600};
    const double start = now_seconds();
    bench.executor.run(load_run(load, 256));
    fmt::print("{:<44} {:.0f} puts/s\n", "1 M small chunks", static_cast<double>(load.done) / (now_seconds() - start));
    fmt::print("{:<44} {:.1f} bytes\n", "memory per small chunk", static_cast<double>(store->stats().index_bytes) / kChunks);
    must(bench.executor.run(store->close()), "close");
    store.reset();
    reopen_and_print(bench, "packed", "restart, 1 M small chunks, clean", kChunks, 1.0, 0);
    overwrite_zero(bench.directory + "/packed", 256 * kKiB, 32 * kMiB);
    reopen_and_print(bench, "packed", "rebuild after the loss of the log", kChunks, 0, 200'000);
    std::filesystem::remove(bench.directory + "/packed");
  }
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) {
  using namespace quarry;
  int at = 1;
  const bool only_restart = argc > at && std::string_view(argv[at]) == "restart";
  if (only_restart) ++at;
  const std::string parent = argc > at ? argv[at] : "/var/tmp";
  const double seconds = argc > at + 1 ? std::atof(argv[at + 1]) : 3;
  const uint64_t gib = argc > at + 2 ? std::strtoull(argv[at + 2], nullptr, 10) : 4;
  std::string directory = parent + "/quarry-raw-bench-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    fmt::print(stderr, "raw_store_bench: cannot make a directory in {}\n", parent);
    return 1;
  }
  {
    auto executor = must(RingExecutor::create());
    Bench bench{*executor, directory};
    if (!only_restart) against_fio(bench, seconds, gib * kGiB);
    million(bench);
  }
  std::filesystem::remove_all(directory);
  return status_with_loop_steps(0);
}
