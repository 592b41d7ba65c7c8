// The directory store against cp and sync on the same file system, side by side in one run: objects of one size written durably, read back
// cold and warm; then the time to open a mountpath of many small files.
//   dir_store_bench DIRECTORY [object MiB = 64] [objects = 6] [rounds = 3] [small files = 20000]
// cp's source lies in memory (page cache), as the store's does. Both rotate within each round.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "chunk/dir/dir_store.h"
#include "chunk/test_payload.h"
#include "io/ring_executor.h"
#include "loop_steps.h"

namespace quarry {
namespace {

using chunk::DirStore;

constexpr uint32_t kChunk = 1 * kMiB;  // as the data plane writes them
constexpr uint64_t kStride = 1 << 24;
constexpr size_t kWindow = 8;         // chunks in flight
constexpr size_t kAdoptWindow = 256;  // files being adopted

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Task<void> put_chunks(DirStore& store, ChunkId first, ByteView content, std::string key, uint64_t* next, bool* failed) {
  while (*next * kChunk < content.size() && !*failed) {
    const uint64_t index = (*next)++;
    chunk::PutOptions options;
    options.file = chunk::FilePlace{first, static_cast<uint32_t>(index), kChunk, kStride, "bench", key};
    std::vector<ByteView> parts = {content.subspan(index * kChunk, std::min<size_t>(kChunk, content.size() - index * kChunk))};
    auto put = co_await store.put({first.high, first.low + index * kStride}, std::move(parts), options);
    if (!put) *failed = true;
  }
}

Task<bool> write_object(DirStore& store, ChunkId first, ByteView content, std::string key) {
  uint64_t next = 0;
  bool failed = false;
  TaskGroup group;
  for (size_t i = 0; i < kWindow; ++i) group.spawn(put_chunks(store, first, content, key, &next, &failed));
  co_await group.join();
  if (failed) co_return false;
  auto finished = co_await store.finish_file(first, content.size());
  if (!finished) co_return false;
  auto shown = co_await store.show_file(first, {});
  co_return shown.has_value();
}

Task<void> get_chunks(DirStore& store, ChunkId first, uint64_t size, uint64_t* next, uint64_t* bytes) {
  while (*next * kChunk < size) {
    const uint64_t index = (*next)++;
    auto got = co_await store.get({first.high, first.low + index * kStride}, 0, kChunk);
    if (got) *bytes += got->size();
  }
}

Task<uint64_t> read_object(DirStore& store, ChunkId first, uint64_t size) {
  uint64_t next = 0;
  uint64_t bytes = 0;
  TaskGroup group;
  for (size_t i = 0; i < kWindow; ++i) group.spawn(get_chunks(store, first, size, &next, &bytes));
  co_await group.join();
  co_return bytes;
}

Task<void> adopt_some(DirStore& store, uint64_t small, uint64_t* next, uint64_t* adopted) {
  while (*next < small) {
    const uint64_t i = (*next)++;
    auto done = co_await store.adopt(
        {fmt::format("small/{}/{}", i / 1000, i), {1ull << 40, i}, kChunk, kStride, "small", fmt::format("{}/{}", i / 1000, i), {}, false});
    if (done) ++*adopted;
  }
}
Task<uint64_t> adopt_all(DirStore& store, uint64_t small) {
  uint64_t next = 0, adopted = 0;
  TaskGroup group;
  for (size_t i = 0; i < kAdoptWindow; ++i) group.spawn(adopt_some(store, small, &next, &adopted));
  co_await group.join();
  co_return adopted;
}

void drop_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

int run(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: dir_store_bench DIRECTORY [object MiB] [objects] [rounds] [small files]\n");
    return 2;
  }
  const std::string root = argv[1];
  const auto number = [&](int index, uint64_t otherwise) { return argc > index ? std::stoull(argv[index]) : otherwise; };
  const uint64_t size = number(2, 64) * kMiB, objects = number(3, 6), rounds = number(4, 3), small = number(5, 20'000);
  const std::string mountpath = root + "/store", plain = root + "/cp", source = root + "/source";
  namespace fs = std::filesystem;
  fs::create_directories(plain);
  const std::string content = chunk::test_payload(1, size);
  {
    std::ofstream out(source, std::ios::binary);
    out << content;
  }
  auto executor = RingExecutor::create();
  if (!executor) {
    fmt::print(stderr, "{}\n", executor.error().to_string());
    return 1;
  }
  RingExecutor& loop = **executor;
  auto formatted = loop.run(DirStore::format(mountpath, {}));
  auto opened = loop.run(DirStore::open(mountpath, {}));
  if (!formatted || !opened) {
    fmt::print(stderr, "{}\n", opened ? formatted.error().to_string() : opened.error().to_string());
    return 1;
  }
  DirStore& store = **opened;
  const double mib = static_cast<double>(size * objects) / kMiB;
  const auto shell = [](const std::string& command) { return std::system(command.c_str()) == 0; };
  shell("cat " + source + " > /dev/null; sync");
  std::vector<double> ratios_write, ratios_warm;
  std::vector<double> first_reads[2];  // MiB/s where it was the first to read: cp, store
  uint64_t serial = 0;
  fmt::print("{} objects of {} MiB, MiB/s         cp    store   ratio\n", objects, size / kMiB);
  for (uint64_t round = 0; round < rounds; ++round) {
    auto begin = std::chrono::steady_clock::now();
    for (uint64_t i = 0; i < objects; ++i) {
      if (!shell(fmt::format("cp {} {}/{}.{} && sync {}/{}.{} {}", source, plain, round, i, plain, round, i, plain))) return 1;
    }
    const double cp_write = mib / seconds_since(begin);
    begin = std::chrono::steady_clock::now();
    const uint64_t first = serial + 1;
    for (uint64_t i = 0; i < objects; ++i) {
      if (!loop.run(write_object(store, {++serial, 0}, bytes_of(content), fmt::format("dir/{}", i)))) return 1;
    }
    const double store_write = mib / seconds_since(begin);
    double reads[2][2] = {};  // cold, warm: cp, store
    // Of the same files, so that neither has the luckier place on the disk.
    const auto shown_at = [&](uint64_t i) { return fmt::format("{}/bench/dir/{}", mountpath, i); };
    for (int warm = 0; warm < 2; ++warm) {
      for (int turn = 0; turn < 2; ++turn) {
        for (uint64_t i = 0; i < objects && warm == 0; ++i) drop_cache(shown_at(i));
        const bool cat = (turn + static_cast<int>(round)) % 2 == 0;
        begin = std::chrono::steady_clock::now();
        for (uint64_t i = 0; i < objects; ++i) {
          if (cat && !shell(fmt::format("cat {} > /dev/null", shown_at(i)))) return 1;
          if (!cat && loop.run(read_object(store, {first + i, 0}, size)) != size) return 1;
        }
        reads[warm][cat ? 0 : 1] = mib / seconds_since(begin);
      }
    }
    fmt::print("round {} durable write {:13.0f} {:8.0f} {:7.2f}\n", round, cp_write, store_write, store_write / cp_write);
    fmt::print("round {} cold read     {:13.0f} {:8.0f} {:7.2f}, first {}\n", round, reads[0][0], reads[0][1], reads[0][1] / reads[0][0],
               round % 2 == 0 ? "cat" : "store");
    fmt::print("round {} warm read     {:13.0f} {:8.0f} {:7.2f}\n", round, reads[1][0], reads[1][1], reads[1][1] / reads[1][0]);
    ratios_write.push_back(store_write / cp_write);
    // Who reads second may find the files in a cache of the machine below, which nobody here can drop.
    const size_t first_reader = round % 2;
    first_reads[first_reader].push_back(reads[0][first_reader]);
    ratios_warm.push_back(reads[1][1] / reads[1][0]);
    for (uint64_t i = 0; i < objects && round > 0; ++i) {
      std::vector<ChunkId> ids;
      for (uint64_t index = 0; index * kChunk < size; ++index) ids.push_back({first - objects + i, index * kStride});
      loop.run(store.remove(std::move(ids))).ignore("space for the next round");
      fs::remove(fmt::format("{}/{}.{}", plain, round - 1, i));
    }
  }
  const auto median = [](std::vector<double> of) {
    std::sort(of.begin(), of.end());
    return of[of.size() / 2];
  };
  fmt::print("median ratio: durable write {:.2f}, warm read {:.2f}\n", median(ratios_write), median(ratios_warm));
  if (!first_reads[1].empty()) {
    const double cat = median(first_reads[0]), ours = median(first_reads[1]);
    fmt::print("cold reads where nobody had read before: cat {:.0f}, store {:.0f} MiB/s (medians of {} rounds each), ratio {:.2f}\n", cat,
               ours, first_reads[1].size(), ours / cat);
  }
  if (small > 0) {
    // Adopted, so that making them costs little; what open reads is the same.
    for (uint64_t i = 0; i < small; ++i) {
      const std::string directory = fmt::format("{}/small/{}", mountpath, i / 1000);
      if (i % 1000 == 0) fs::create_directories(directory);
      std::ofstream(fmt::format("{}/{}", directory, i)) << i;
    }
    shell("sync");
    const auto begin = std::chrono::steady_clock::now();
    const uint64_t adopted = loop.run(adopt_all(store, small));
    fmt::print("adopted {} of {} small files: {:.0f}/s\n", adopted, small, static_cast<double>(small) / seconds_since(begin));
    if (!loop.run(store.close())) return 1;
    auto again = loop.run(DirStore::open(mountpath, {}));
    if (!again) return 1;
    const auto& report = (*again)->open_report();
    const double walk = std::chrono::duration<double>(report.walk).count();
    fmt::print("open: {} files in {:.3f} s, {:.0f}/s\n", report.files, walk, static_cast<double>(report.files) / walk);
    loop.run((*again)->close()).ignore("");
  } else {
    loop.run(store.close()).ignore("");
  }
  return 0;
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) { return quarry::status_with_loop_steps(quarry::run(argc, argv)); }
