// The directory store's one object: what its parts share. The parts are files: open.cc (format, recovery), tree_walk.h (reading the
// tree), put.cc, get.cc, show.cc (names), remove.cc, adopt.cc, check.cc (scrub, fsck, health), store.cc (the rest).
//
// Invariants, on its loop, between any two suspensions:
//   - the index holds what was put and not removed; a file is `shown` exactly while it lies at `path` in the readable tree;
//   - names in the readable tree change only under naming_, and the index changes before it is released;
//   - a name in the readable tree always leads to a whole file: only files that are synced, record and all, are renamed there.
#pragma once
#include <list>
#include <unordered_map>
#include <unordered_set>

#include "chunk/dir/dir_store.h"
#include "chunk/dir/directory_sync.h"
#include "chunk/dir/file_index.h"
#include "chunk/dir/records.h"
#include "io/clock.h"
#include "io/thread_pool.h"

namespace quarry::chunk::dir {

inline constexpr uint64_t kWriteErrorsMax = 64;  // then the store only reads
inline constexpr uint32_t kChunksPerFileMax = 1u << 24;
inline constexpr size_t kAdoptedDirectoriesMax = 64 * 1024;  // remembered as durable; beyond, they are synced again
inline constexpr int kMakeWayMax = 8;                        // files that may have to yield for one name, one after the other

struct TreeWalkResult;

// Blocks. Contract: DirStore::format.
Result<Uuid> format_mountpath(FileSystem& files, DirFormatOptions options);

class DirStoreImpl : public DirStore {
 public:
  DirStoreImpl(std::shared_ptr<FileSystem> files, DirStoreOptions options);
  ~DirStoreImpl() override;

  // Open: everything but the construction.
  Task<Result<void>> mount();

  Uuid drive_id() const override { return descriptor_.drive; }
  std::string description() const override;
  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, PutOptions options) override;
  Task<Result<SharedBytes>> get(ChunkId id, uint32_t offset, uint32_t length) override;
  bool keeps_files() const override { return true; }
  Task<Result<void>> finish_file(ChunkId first, uint64_t size) override;
  Task<Result<void>> show_file(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes) override;
  Task<Result<void>> hide_file(ChunkId first) override;
  Task<Result<std::vector<StoredFile>>> files(ChunkId from, size_t limit) override;
  Task<Result<void>> check_health() override;
  Task<Result<void>> remove(std::vector<ChunkId> ids) override;
  Task<Result<void>> disown(std::vector<ChunkId> ids) override;
  Task<Result<ChunkStat>> stat(ChunkId id) override;
  Task<Result<std::vector<ChunkStat>>> list(ChunkId from, ChunkId to, size_t limit) override;
  Task<Result<ScrubProgress>> scrub(ChunkId from, uint64_t budget_bytes) override;
  Task<Result<FsckReport>> fsck() override;
  SpaceReport space() const override;
  StoreHealth health() const override { return health_; }
  Task<Result<void>> set_label(std::string label) override;
  std::string label() const override { return label_; }
  Task<Result<void>> close() override;

  Uuid cluster_id() const override { return descriptor_.cluster; }
  Task<Result<void>> set_cluster_id(Uuid cluster) override;
  uint64_t fencing_epoch() const override { return descriptor_.fencing_epoch; }
  Task<Result<Adopted>> adopt(Adoption adoption) override;
  Task<Result<std::optional<std::string>>> adopted_path(ChunkId first) override;
  Task<Result<std::vector<Unrecorded>>> unrecorded(std::string under, std::string after, size_t limit) override;
  const DirOpenReport& open_report() const override { return report_; }

 private:
  // Counts a request as running.
  struct Use {
    explicit Use(DirStoreImpl& owner) : store(owner) { ++store.active_; }
    ~Use() {
      if (--store.active_ == 0) store.idle_.pulse();
    }
    DirStoreImpl& store;
  };

  Result<void> readable() const;
  Result<void> writable() const;
  void become(StoreState state, std::string reason);
  // Draws the consequences of a failed system call; returns the error to tell.
  Task<Error> noted(Error error, bool write);
  void refresh_space();  // any thread
  std::string full(const std::string& path) const { return files_->root() + "/" + path; }

  // put.cc
  Task<Result<void>> put_chunk(ChunkId id, std::vector<ByteView> parts, uint32_t size, uint8_t stream);
  Task<Result<void>> put_in_file(ChunkId id, std::vector<ByteView> parts, uint32_t size, FilePlace place);
  Task<Result<void>> ensure_shelf(const char* directory, ChunkId id);
  Task<Result<void>> abandon(ChunkId first);  // forgets an unfinished file

  // get.cc
  Task<Result<std::shared_ptr<ReadableFile>>> open_file(ChunkId first);
  Task<Result<SharedBytes>> read_chunk(ChunkId id, uint32_t size, uint32_t offset, uint32_t length, bool from_device);
  Task<Result<SharedBytes>> read_from_file(FileIndex::Found found, ChunkId id, uint32_t offset, uint32_t length, bool from_device);
  Task<Result<SharedBytes>> read_any(ChunkId id, uint32_t offset, uint32_t length, bool from_device);
  void forget_open(ChunkId first);
  void remember_open(ChunkId first, std::shared_ptr<ReadableFile> file);

  // show.cc; all under naming_
  Task<Result<Lies>> look_at(const FileEntry& entry);
  Task<Result<std::string>> find_place(BucketAndKey key, int depth);
  Task<Result<void>> make_way(std::string path, int depth);
  Task<Result<void>> place_file(ChunkId first, std::optional<ChunkId>* took_from);
  void forget_leaving(ChunkId first, const std::shared_ptr<DirectorySync::Taken>& leaving);  // it has left, durably
  Task<Result<void>> update_attributes(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes);
  void note_removed_directories(const std::vector<std::string>& paths);
  Task<Result<void>> sync_new_directories(std::string path);

  // remove.cc
  Task<Result<void>> remove_those_there(std::vector<ChunkId> ids);
  Task<Result<void>> remove_chunks(std::vector<ChunkId> ids);
  Task<Result<void>> remove_of_file(ChunkId first, std::vector<uint32_t> indexes);
  Task<void> punch_out(ChunkId first, std::vector<uint32_t> indexes);
  Task<Result<void>> remove_file(ChunkId first);
  Result<void> leave_to_others(const std::string& path, ChunkId first, RecordPlace place);
  Task<Result<bool>> let_go(ChunkId first);

  // check.cc
  Task<Result<FsckReport>> fsck_once();
  Task<void> run_probe();
  Task<bool> takes_writes();  // below .quarry

  // open.cc
  std::vector<std::string> take_in(TreeWalkResult walked);
  Task<Result<void>> write_descriptor(Descriptor descriptor);
  void count(int64_t chunks, int64_t payload, int64_t stored);
  void count_file(const FileEntry& entry, int sign);

  const std::shared_ptr<FileSystem> files_;
  const DirStoreOptions options_;
  Records records_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<ThreadPool> health_pool_;  // one thread: says that the others hang
  std::unique_ptr<DirectorySync> directory_sync_;
  std::unique_ptr<File> lock_;
  Descriptor descriptor_;
  std::string label_;
  DirOpenReport report_;
  StoreHealth health_;
  FileIndex index_;
  std::unordered_set<ChunkId, ChunkIdHash> putting_;  // anonymous chunks on their way
  // Ids that are just being removed: they are not put again before that is done, nor removed twice at once.
  std::unordered_set<ChunkId, ChunkIdHash> removing_;
  Event removed_;
  std::unordered_set<std::string> adopting_;  // paths
  std::unordered_set<std::string> shelves_;   // directories under .quarry that are there, durably
  uint64_t unfinished_ = 0;

  std::list<std::pair<ChunkId, std::shared_ptr<ReadableFile>>> open_files_;  // latest use first
  std::unordered_map<ChunkId, std::list<std::pair<ChunkId, std::shared_ptr<ReadableFile>>>::iterator, ChunkIdHash> open_by_id_;

  Semaphore naming_{1};
  Semaphore meta_{1};                          // descriptor and label
  std::set<std::string> new_directories_;      // of the readable tree: made, not yet durable
  std::set<std::string> adopted_directories_;  // made by others, with adopted files below: their names are durable

  uint64_t chunk_count_ = 0, payload_bytes_ = 0, stored_bytes_ = 0;
  std::atomic<uint64_t> device_bytes_{0}, free_bytes_{0};

  uint64_t active_ = 0;
  Event idle_;
  bool closing_ = false, closed_ = false;
  TaskGroup probes_;
  bool probing_ = false;
  Event probed_;
  Result<void> probe_result_;
};

// Bytes of the device that a file of so many bytes takes, about.
constexpr uint64_t stored_bytes(uint64_t size) { return round_up(size, 4096); }

}  // namespace quarry::chunk::dir
