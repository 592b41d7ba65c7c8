// One cell of the kfs experiment: writes, reads and unlinks of files in a store of a given size, for one kind of store.
//   kfs_bench STORE DIR --levels 1GiB,2GiB,... --sizes 8MiB,... --budget 512MiB --streams N [--write-buffer B] [--table B] [--batch B]
//   STORE: kfs (256 buckets), one (one LevelDB with the same keys and values), files (a plain file each)
// At each level the store is filled up to it with files of all sizes; then, for each size, files are written, read and unlinked until
// `budget` bytes were written (at least four files). One line of JSON for every operation on standard output: level, size, operation,
// seconds, and the longest step (a step is 1 MiB of a write or read, or the whole unlink).
//
// All three are asked for the same service: the name is the SHA-256 of the content and is computed while writing, a write is durable
// when it ends, and kfs and one verify checksums when they read. `one` writes batches of --batch and syncs each:
// LevelDB may lose an unsynced batch although a later, synced one survives, so a user of it has no other safe way.
// kfs syncs what is left of its logs at the end of a file.
#include <fcntl.h>
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/coding.h"
#include "chunk/kfs/kfs_store.h"
#include "codec/digest.h"
#include "io/clock.h"

namespace quarry {
namespace {

using chunk::KfsStore;
constexpr size_t kBlock = 64 * kKiB, kStep = kMiB;

template <class T>
auto must(Result<T> result, const char* what) {
  if (!result) {
    fmt::print(stderr, "kfs_bench: {}: {}\n", what, result.error().to_string());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}
void must(const leveldb::Status& status, const char* what) {
  if (status.ok()) return;
  fmt::print(stderr, "kfs_bench: {}: {}\n", what, status.ToString());
  std::exit(1);
}
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Content that no two files share: a random page with the file's number and the position in each 4 KiB.
class Content {
 public:
  explicit Content(uint64_t number) : step_(kStep) {
    SeededRandom(number).fill(step_.mutable_view());
    number_ = number;
  }
  ByteView step(uint64_t index) {
    for (size_t at = 0; at < kStep; at += 4096) {
      store_le<uint64_t>(step_.data() + at, number_);
      store_le<uint64_t>(step_.data() + at + 8, index);
    }
    return step_.view();
  }

 private:
  Buffer step_;
  uint64_t number_;
};

struct Timing {
  double seconds = 0, longest_step = 0;
};
class Steps {
 public:
  void done() {
    const double at = now();
    longest_ = std::max(longest_, at - last_);
    last_ = at;
  }
  Timing end() {
    done();
    return {last_ - start_, longest_};
  }

 private:
  double start_ = now(), last_ = start_, longest_ = 0;
};

std::string hash_of(uint64_t number, uint64_t size) {
  Content content(number);
  Digest digest(DigestKind::sha256);
  for (uint64_t i = 0; i < size / kStep; ++i) digest.update(content.step(i));
  return to_hex(digest.finish());
}

class Subject {
 public:
  virtual ~Subject() = default;
  virtual Timing write(const std::string& hash, uint64_t number, uint64_t size) = 0;
  virtual Timing read(const std::string& hash, uint64_t size) = 0;
  virtual Timing unlink(const std::string& hash, uint64_t size) = 0;
};

class Kfs : public Subject {
 public:
  Kfs(const std::string& directory, size_t write_buffer, size_t table) {
    chunk::KfsTuning tuning;
    tuning.write_buffer_bytes = write_buffer;
    tuning.table_bytes = table;
    store_ = must(KfsStore::create(directory, {.key = "bench"}, tuning), "create");
  }
  Timing write(const std::string& hash, uint64_t number, uint64_t size) override {
    Content content(number);
    Steps steps;
    auto writer = must(store_->write(hash), "write");
    for (uint64_t i = 0; i < size / kStep; ++i) {
      must(writer->append(content.step(i)), "append");
      steps.done();
    }
    must(writer->finish(), "finish");
    return steps.end();
  }
  Timing read(const std::string& hash, uint64_t size) override {
    Steps steps;
    uint64_t got = 0;
    must(store_->read(hash, 0, UINT64_MAX,
                      [&](ByteView piece) -> Result<void> {
                        got += piece.size();
                        if (got % kStep == 0) steps.done();
                        return {};
                      }),
         "read");
    if (got != size) std::abort();
    return steps.end();
  }
  Timing unlink(const std::string& hash, uint64_t) override {
    Steps steps;
    must(store_->unlink(hash), "unlink");
    return steps.end();
  }

 private:
  std::unique_ptr<KfsStore> store_;
};

class One : public Subject {
 public:
  One(const std::string& directory, size_t write_buffer, size_t table, size_t batch_bytes)
      : batch_bytes_(batch_bytes), cache_(leveldb::NewLRUCache(32 * kMiB)), filter_(leveldb::NewBloomFilterPolicy(10)) {
    leveldb::Options options;
    options.create_if_missing = true;
    options.compression = leveldb::kNoCompression;
    options.write_buffer_size = write_buffer;
    options.max_file_size = table;
    options.block_cache = cache_.get();
    options.filter_policy = filter_.get();
    leveldb::DB* db = nullptr;
    must(leveldb::DB::Open(options, directory, &db), "open");
    db_.reset(db);
  }
  static std::string key(const std::string& hash, uint64_t index) { return fmt::format("{} {:06}", hash, index); }
  Timing write(const std::string& hash, uint64_t number, uint64_t size) override {
    Content content(number);
    Steps steps;
    Digest digest(DigestKind::sha256);
    leveldb::WriteBatch batch;
    leveldb::WriteOptions synced;
    synced.sync = true;
    uint64_t index = 0;
    for (uint64_t i = 0; i < size / kStep; ++i) {
      const ByteView bytes = content.step(i);
      digest.update(bytes);
      for (size_t at = 0; at < kStep; at += kBlock) {
        batch.Put(key(hash, index++), {reinterpret_cast<const char*>(bytes.data() + at), kBlock});
      }
      if ((i + 1) * kStep % batch_bytes_ == 0 || (i + 1) * kStep == size) {
        must(db_->Write(synced, &batch), "write");
        batch.Clear();
      }
      steps.done();
    }
    if (to_hex(digest.finish()) != hash) std::abort();
    return steps.end();
  }
  Timing read(const std::string& hash, uint64_t size) override {
    Steps steps;
    leveldb::ReadOptions options;
    options.verify_checksums = true;
    options.fill_cache = false;
    const std::unique_ptr<leveldb::Iterator> it(db_->NewIterator(options));
    uint64_t got = 0;
    for (it->Seek(key(hash, 0)); got < size; it->Next()) {
      if (!it->Valid() || it->key() != key(hash, got / kBlock)) std::abort();
      got += it->value().size();
      if (got % kStep == 0) steps.done();
    }
    return steps.end();
  }
  Timing unlink(const std::string& hash, uint64_t size) override {
    Steps steps;
    leveldb::WriteBatch batch;
    for (uint64_t i = 0; i < size / kBlock; ++i) batch.Delete(key(hash, i));
    leveldb::WriteOptions synced;
    synced.sync = true;
    must(db_->Write(synced, &batch), "unlink");
    return steps.end();
  }

 private:
  const size_t batch_bytes_;
  std::unique_ptr<leveldb::Cache> cache_;
  std::unique_ptr<const leveldb::FilterPolicy> filter_;
  std::unique_ptr<leveldb::DB> db_;
};

class PlainFiles : public Subject {
 public:
  explicit PlainFiles(std::string directory) : directory_(std::move(directory)) { std::filesystem::create_directories(directory_); }
  Timing write(const std::string& hash, uint64_t number, uint64_t size) override {
    Content content(number);
    Steps steps;
    Digest digest(DigestKind::sha256);
    const std::string path = directory_ + "/" + hash, fresh = path + ".new";
    const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    for (uint64_t i = 0; i < size / kStep; ++i) {
      const ByteView bytes = content.step(i);
      digest.update(bytes);
      if (::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
      steps.done();
    }
    if (::fdatasync(fd) != 0 || ::close(fd) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0) std::abort();
    sync_directory();
    return steps.end();
  }
  Timing read(const std::string& hash, uint64_t size) override {
    Steps steps;
    Buffer buffer(kStep);
    const int fd = ::open((directory_ + "/" + hash).c_str(), O_RDONLY | O_CLOEXEC);
    for (uint64_t got = 0; got < size; got += kStep) {
      if (::read(fd, buffer.data(), kStep) != static_cast<ssize_t>(kStep)) std::abort();
      steps.done();
    }
    ::close(fd);
    return steps.end();
  }
  Timing unlink(const std::string& hash, uint64_t) override {
    Steps steps;
    if (::unlink((directory_ + "/" + hash).c_str()) != 0) std::abort();
    sync_directory();
    return steps.end();
  }

 private:
  void sync_directory() {
    const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (::fsync(fd) != 0) std::abort();
    ::close(fd);
  }
  std::string directory_;
};

struct File {
  std::string hash;
  uint64_t size;
};

struct Experiment {
  Subject& subject;
  std::string store;
  std::mutex mutex;         // guards what follows
  std::vector<File> files;  // the fill
  uint64_t filled = 0, next = 1;

  void report(uint64_t level, uint64_t size, const char* operation, const Timing& timing) {
    fmt::print("{{\"store\":\"{}\",\"level\":{},\"size\":{},\"operation\":\"{}\",\"seconds\":{:.6f},\"longest_step\":{:.6f}}}\n", store,
               level, size, operation, timing.seconds, timing.longest_step);
    std::fflush(stdout);
  }

  template <class Work>
  void parallel(unsigned streams, Work work) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < streams; ++i) threads.emplace_back(work);
    for (auto& thread : threads) thread.join();
  }

  struct Planned {
    uint64_t number, size;
    std::string hash;
  };
  // Hashes are known before the clock runs: computing them would take the processor from the other streams.
  std::vector<Planned> plan(uint64_t bytes, const std::vector<uint64_t>& sizes) {
    std::vector<Planned> planned;
    for (uint64_t sum = 0; sum < bytes; sum += planned.back().size) {
      const uint64_t number = next++;
      planned.push_back({number, sizes[number % sizes.size()], {}});
    }
    std::atomic<size_t> at = 0;
    parallel(2, [&] {
      for (size_t i; (i = at++) < planned.size();) planned[i].hash = hash_of(planned[i].number, planned[i].size);
    });
    return planned;
  }

  void fill(uint64_t level, const std::vector<uint64_t>& sizes, unsigned streams) {
    if (filled >= level) return;
    const auto planned = plan(level - filled, sizes);
    std::atomic<size_t> at = 0;
    parallel(streams, [&] {
      for (size_t i; (i = at++) < planned.size();) {
        const Planned& file = planned[i];
        const Timing timing = subject.write(file.hash, file.number, file.size);
        const std::lock_guard lock(mutex);
        filled += file.size;
        report(level, file.size, "fill", timing);
        files.push_back({file.hash, file.size});
      }
    });
  }

  // Each stream: write one, read one of those that have been there for long, unlink the oldest of this size, and the written one stays.
  void measure(uint64_t level, uint64_t size, uint64_t budget, unsigned streams) {
    const auto planned = plan(std::max<uint64_t>(budget, 4 * size), {size});
    std::atomic<size_t> at = 0;
    parallel(streams, [&] {
      for (size_t i; (i = at++) < planned.size();) {
        File old;
        {
          const std::lock_guard lock(mutex);
          const auto found = std::find_if(files.begin(), files.end(), [size](const File& file) { return file.size == size; });
          if (found != files.end()) {
            old = *found;
            files.erase(found);
          }
        }
        const std::string& hash = planned[i].hash;
        const Timing written = subject.write(hash, planned[i].number, size);
        std::optional<Timing> read, unlinked;
        if (!old.hash.empty()) {
          read = subject.read(old.hash, size);
          unlinked = subject.unlink(old.hash, size);
        }
        const std::lock_guard lock(mutex);
        report(level, size, "write", written);
        if (read) report(level, size, "read", *read);
        if (unlinked) report(level, size, "unlink", *unlinked);
        files.push_back({hash, size});
      }
    });
  }
};

std::vector<uint64_t> sizes_of(const std::string& text) {
  std::vector<uint64_t> sizes;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    sizes.push_back(must(parse_size(text.substr(at, comma - at)), "size"));
    at = comma + 1;
  }
  return sizes;
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) {
  using namespace quarry;
  if (argc < 3) {
    fmt::print(stderr,
               "kfs_bench kfs|one|files DIR [--levels L,...] [--sizes S,...] [--budget B] [--streams N] [--write-buffer B] [--table B] "
               "[--batch B]\n");
    return 2;
  }
  const std::string kind = argv[1], directory = argv[2];
  std::map<std::string, std::string> options = {{"--levels", "1GiB,2GiB"},  {"--sizes", "8MiB,32MiB,128MiB,512MiB"},
                                                {"--budget", "256MiB"},     {"--streams", "1"},
                                                {"--write-buffer", "1MiB"}, {"--table", "512KiB"},
                                                {"--batch", "4MiB"}};
  for (int i = 3; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  const auto levels = sizes_of(options["--levels"]), sizes = sizes_of(options["--sizes"]);
  const uint64_t budget = must(parse_size(options["--budget"]), "budget");
  const size_t write_buffer = must(parse_size(options["--write-buffer"]), "write buffer"),
               table = must(parse_size(options["--table"]), "table");
  const auto streams = static_cast<unsigned>(std::stoul(options["--streams"]));
  std::unique_ptr<Subject> subject;
  if (kind == "kfs") subject = std::make_unique<Kfs>(directory, write_buffer, table);
  if (kind == "one") subject = std::make_unique<One>(directory, write_buffer, table, must(parse_size(options["--batch"]), "batch"));
  if (kind == "files") subject = std::make_unique<PlainFiles>(directory);
  if (!subject) return 2;
  Experiment experiment{*subject, kind, {}, {}, 0, 1};
  for (const uint64_t level : levels) {
    experiment.fill(level, sizes, streams);
    for (const uint64_t size : sizes) experiment.measure(level, size, budget, streams);
  }
  return 0;
}
