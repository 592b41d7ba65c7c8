// ClusterHarness: a whole cluster in one thread for tests: drives in memory, the metadata store's twin, virtual time. Drives and metadata
// survive close and crash; a crash is the end of the process at any moment: nothing later reaches drives or metadata.
#pragma once
#include <gtest/gtest.h>

#include "cluster/cluster.h"
#include "cluster/map/keys.h"
#include "cluster/node/local_data_plane.h"
#include "cluster/testing/memory_chunk_store.h"
#include "io/sim/sim_executor.h"
#include "meta/memory/memory_meta_store.h"

namespace quarry::cluster {

// A handle that dies with its process.
class MortalChunkStore : public MemoryChunkStore {
 public:
  MortalChunkStore(std::shared_ptr<MemoryMedium> medium, std::shared_ptr<bool> dead)
      : MemoryChunkStore(std::move(medium)), dead_(std::move(dead)) {}
  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, chunk::PutOptions options) override {
    if (*dead_) co_return fail(Code::device_gone, "the process is dead");
    co_return co_await MemoryChunkStore::put(id, std::move(parts), options);
  }
  Task<Result<void>> remove(std::vector<ChunkId> ids) override {
    if (*dead_) co_return fail(Code::device_gone, "the process is dead");
    co_return co_await MemoryChunkStore::remove(std::move(ids));
  }
  Task<Result<void>> set_label(std::string label) override {
    if (*dead_) co_return fail(Code::device_gone, "the process is dead");
    co_return co_await MemoryChunkStore::set_label(std::move(label));
  }
  Task<Result<void>> finish_file(ChunkId first, uint64_t size) override {
    if (*dead_) co_return fail(Code::device_gone, "the process is dead");
    co_return co_await MemoryChunkStore::finish_file(first, size);
  }
  Task<Result<void>> show_file(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes) override {
    if (*dead_) co_return fail(Code::device_gone, "the process is dead");
    co_return co_await MemoryChunkStore::show_file(first, std::move(attributes));
  }

 private:
  std::shared_ptr<bool> dead_;
};

class ClusterHarness {
 public:
  virtual ~ClusterHarness() { close(); }

  void add_media(size_t count, uint64_t bytes = 256 * kMiB) {
    for (size_t i = 0; i < count; ++i) media.push_back(std::make_shared<MemoryMedium>(media.size() + 1, bytes));
  }
  virtual ClusterOptions options() {
    ClusterOptions o;
    dead = std::make_shared<bool>(false);
    for (size_t i = 0; i < media.size(); ++i) {
      if (media[i]->gone) continue;
      OpenedDrive drive;
      drive.store = std::make_unique<MortalChunkStore>(media[i], dead);
      drive.owner = &executor;
      drive.path = fmt::format("mem{}", i);
      drive.file_system = media[i]->file_system;
      if (below) drive.look_below = [seen = *below]() -> Result<SpaceBelow> { return seen; };
      o.drives.push_back(std::move(drive));
    }
    o.blocking_pool = pool.get();
    o.open_meta = [this](meta::CommitLog&, std::string) { return open_meta(); };
    o.open_drive = [this](std::string path, Uuid, bool) { return open_new(path); };
    o.open_known = [this](std::string path, Uuid, bool) { return open_known(path); };
    o.random = &random;
    o.tuning = tuning;
    return o;
  }
  Result<void> create(std::string redundancy) {
    CreateOptions what;
    what.redundancy = std::move(redundancy);
    what.group_count = 16;
    auto made = executor.run(Cluster::create(options(), what));
    if (!made) return std::move(made).error();
    cluster = std::move(*made);
    return {};
  }
  Result<void> open() {
    close();
    auto made = executor.run(Cluster::open(options()));
    if (!made) return std::move(made).error();
    cluster = std::move(*made);
    return {};
  }
  void close() {
    if (cluster == nullptr) return;
    executor.run(cluster->close()).ignore("tests may close a broken cluster");
    cluster.reset();
  }
  void crash() {
    *dead = true;
    if (meta_store != nullptr) meta_store->crash();
    close();
  }
  LocalDataPlane& plane() { return static_cast<LocalDataPlane&>(cluster->data()); }
  void settle() {
    auto done = executor.run(cluster->settle());
    ASSERT_TRUE(done) << done.error().to_string();
  }

  Result<DataLayout> write(const std::string& bytes, Redundancy redundancy, bool known_size = true, size_t piece = 300'000) {
    return executor.run(write_task(this, bytes, redundancy, known_size, piece));
  }
  Redundancy default_redundancy() { return *parse_redundancy(cluster->default_redundancy(), 32); }
  Result<DataLayout> write(const std::string& bytes) { return write(bytes, default_redundancy()); }
  Result<std::string> read(const DataLayout& layout, uint64_t offset, uint64_t length, CachePolicy policy = CachePolicy::normal) {
    return executor.run(read_task(&cluster->data(), layout, offset, length, policy));
  }
  Result<std::string> read(const DataLayout& layout) { return read(layout, 0, layout.size); }
  Result<void> retire(const DataLayout& layout) { return executor.run(retire_task(this, layout)); }

  size_t data_chunks() {
    size_t count = 0;
    for (auto& medium : media) count += medium->of_kind(ChunkKind::data).size();
    return count;
  }
  // fsck must find nothing. Returns the violations as one text.
  std::string fsck() {
    auto report = executor.run(cluster->data().fsck(false));
    if (!report) return report.error().to_string();
    std::string text;
    for (const std::string& violation : report->violations) text += violation + "\n";
    return text;
  }

  // A write with a name. show: as the object engine does after its commit.
  Result<DataLayout> write_file(const std::string& name, const std::string& bytes, Redundancy redundancy, bool show = true) {
    FileName file{"bucket", name};
    TRY_ASSIGN(DataLayout layout, executor.run(write_task(this, bytes, redundancy, true, 300'000, file)));
    if (show) TRY(executor.run(cluster->data().files().show(layout, {})));
    return layout;
  }
  static Task<Result<DataLayout>> write_task(ClusterHarness* self, std::string bytes, Redundancy redundancy, bool known_size, size_t piece,
                                             FileName file = {}) {
    WriteOptions options;
    options.file = file;
    options.redundancy = redundancy;
    options.size_hint = known_size ? bytes.size() : 0;
    CO_TRY_ASSIGN(auto writer, self->cluster->data().begin_write(options));
    for (size_t at = 0; at < bytes.size(); at += piece) {
      Buffer part = Buffer::copy_of(bytes_of(bytes).subspan(at, std::min(piece, bytes.size() - at)));
      CO_TRY(co_await writer->append(std::move(part)));
    }
    CO_TRY_ASSIGN(DataLayout layout, co_await writer->finish());
    CO_TRY_ASSIGN(auto transaction, co_await self->cluster->meta().begin());
    self->cluster->data().record(*transaction, layout, "test");
    Result<meta::Version> committed = co_await transaction->commit();
    if (!committed) {
      if (committed.error().code() == Code::unknown_outcome) writer->settle();
      co_return std::move(committed).error();
    }
    writer->keep();
    co_return layout;
  }
  static Task<Result<std::string>> read_task(DataPlane* plane, DataLayout layout, uint64_t offset, uint64_t length, CachePolicy policy) {
    auto reader = plane->read(layout, offset, length, policy);
    std::string out;
    for (;;) {
      CO_TRY_ASSIGN(SharedBytes piece, co_await reader->next(1 << 20));
      if (piece.empty()) co_return out;
      out.append(text_of(piece));
    }
  }
  static Task<Result<void>> retire_task(ClusterHarness* self, DataLayout layout) {
    CO_TRY_ASSIGN(auto transaction, co_await self->cluster->meta().begin());
    self->cluster->data().retire(*transaction, layout);
    Result<meta::Version> committed = co_await transaction->commit();
    if (!committed) co_return std::move(committed).error();
    self->cluster->data().retired();
    co_return Result<void>();
  }
  static std::string random_bytes(uint64_t seed, size_t size) {
    SeededRandom random(seed + 1);
    std::string bytes(size, '\0');
    random.fill({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
    return bytes;
  }

  SimExecutor executor;
  const std::unique_ptr<BlockingPool> pool = executor.make_pool("test", 1);
  SeededRandom random{1};
  ClusterTuning tuning = [] {
    ClusterTuning t;
    t.missing_grace = std::chrono::hours(1000);
    t.shard_bytes = 64 * 1024;
    t.cache_bytes = 0;
    t.cache_writes = false;  // reads are to find the drives
    t.scrub_interval = Duration(0);
    t.scrub_bytes_per_second = 0;
    t.write_id_block = 64;
    return t;
  }();
  std::vector<std::shared_ptr<MemoryMedium>> media;
  std::optional<SpaceBelow> below;  // of all media: OpenedDrive::look_below
  std::string new_media_file_system;
  bool new_media_keep_files = false;
  bool media_have_locks = false;  // opening one that is open is refused, as by real ones; but the lock of one that vanished goes with it,
                                  // which this does not know
  std::shared_ptr<meta::MemoryMetaMedia> meta_media = meta::make_memory_meta_media();
  meta::MemoryMetaStore* meta_store = nullptr;
  std::shared_ptr<bool> dead;
  std::unique_ptr<Cluster> cluster;

 private:
  Task<Result<std::unique_ptr<meta::MetaStore>>> open_meta() {
    auto store = meta::MemoryMetaStore::open(meta_media);
    meta_store = store.get();
    co_return std::unique_ptr<meta::MetaStore>(std::move(store));
  }
  // "mem3", also at another place: "elsewhere/mem3".
  Task<Result<OpenedDrive>> open_known(std::string path) {
    for (size_t i = 0; i < media.size(); ++i) {
      if (path != fmt::format("mem{}", i) && !path.ends_with(fmt::format("/mem{}", i))) continue;
      if (media[i]->gone) co_return fail(Code::not_found, "{} is still gone", path);
      if (media_have_locks && media[i]->holders > 0) co_return fail(Code::busy, "{} is in use", path);
      OpenedDrive drive;
      drive.store = std::make_unique<MortalChunkStore>(media[i], dead);
      drive.owner = &executor;
      drive.path = path;
      drive.file_system = media[i]->file_system;
      co_return drive;
    }
    co_return fail(Code::not_found, "{} carries no drive", path);
  }
  Task<Result<OpenedDrive>> open_new(std::string path) {
    Result<OpenedDrive> known = co_await open_known(path);
    const bool next = path == fmt::format("mem{}", media.size());
    if (known || (path.find("mem") != std::string::npos && !next)) co_return known;
    media.push_back(std::make_shared<MemoryMedium>(media.size() + 1));
    media.back()->files = new_media_keep_files;
    OpenedDrive drive;
    drive.store = std::make_unique<MortalChunkStore>(media.back(), dead);
    drive.owner = &executor;
    drive.path = path;
    drive.file_system = media.back()->file_system = new_media_file_system;
    co_return drive;
  }
};

}  // namespace quarry::cluster
