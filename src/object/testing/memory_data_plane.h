// A data plane in memory, for tests of what stands on it: the bytes of each write, who references them, and faults on demand.
// It is stricter than it needs to be: bytes of a retired layout go at once unless a reader or a guard from before holds them.
// Thread-safe.
#pragma once
#include <set>

#include <mutex>

#include "cluster/data_plane.h"
#include "io/clock.h"

namespace quarry::object {

struct MemoryDataFaults {
  uint64_t seed = 1;
  double begin_error = 0;   // begin_write answers no_space
  double append_error = 0;  // append answers unavailable
  double finish_error = 0;  // finish answers unavailable
  double read_error = 0;    // next answers data_lost
  Duration delay_max{0};    // each append, finish and next takes up to so long
};

class MemoryDataPlane final : public cluster::DataPlane {
 public:
  explicit MemoryDataPlane(meta::MetaStore& meta, MemoryDataFaults faults = {});
  ~MemoryDataPlane() override;
  void set_faults(MemoryDataFaults faults);

  // Looks at the data rows and forgets the bytes of writes that no row names, as recovery and the sweep do. Returns how many.
  Task<Result<size_t>> collect();
  size_t writes_held() const;  // whose bytes are in memory
  uint64_t bytes_held() const;
  size_t writers_open() const;  // not yet kept, settled or dropped

  Result<std::unique_ptr<cluster::DataWriter>> begin_write(const cluster::WriteOptions& options) override;
  std::unique_ptr<cluster::DataReader> read(const cluster::DataLayout& layout, uint64_t offset, uint64_t length,
                                            cluster::CachePolicy policy) override;
  std::unique_ptr<cluster::ReadGuard> guard_reads() override;
  Task<Result<void>> set_pinned(cluster::DataLayout layout, bool pinned) override;
  size_t pinned() const;
  void record(meta::Transaction& transaction, const cluster::DataLayout& layout, std::string owner) override;
  void retire(meta::Transaction& transaction, const cluster::DataLayout& layout) override;
  Task<Result<bool>> was_retired(meta::Transaction& transaction, cluster::DataLayout layout) override;
  void retired() override {}
  std::vector<cluster::DriveStatus> drives() const override;
  cluster::RepairStatus repair_status() const override { return {}; }
  cluster::ScrubStatus scrub_status() const override { return {}; }
  cluster::SpaceStatus space_status() const override { return {}; }
  cluster::CacheStatus cache_status() const override { return {}; }
  Task<Result<void>> add_drive(std::string path, bool force) override;
  Task<Result<void>> drain_drive(uint32_t number) override;
  Task<Result<void>> remove_drive(uint32_t number, bool force) override;
  Task<Result<void>> replace_drive(uint32_t number, std::string path, bool force) override;
  Task<Result<void>> start_scrub() override;
  Task<Result<FsckReport>> fsck(bool repair) override;
  Task<Result<std::vector<Reference>>> references(cluster::WriteId after, size_t limit) override;

  // What is retired leaves a row, as in the real one, and collect goes by that: also of writes whose writer lives.
  bool notes_retired = false;

  // Plays drives that keep mirrored writes as files: what is shown, by write; a name change that cannot be made.
  bool keeps_files = false;
  bool whole = false;  // all of them do
  bool names_fail = false;
  bool names_away = false;  // as if their drives were away
  std::set<cluster::WriteId> shown;
  cluster::FileService& files() override { return names_; }

 private:
  class Names final : public cluster::FileService {
   public:
    explicit Names(MemoryDataPlane& plane) : plane_(plane) {}
    bool on_some_drives() const override { return plane_.keeps_files; }
    bool on_all_drives() const override { return plane_.whole; }
    Task<Result<bool>> show(cluster::DataLayout layout, cluster::FileAttributes) override { co_return plane_.rename(layout, true); }
    Task<Result<bool>> hide(cluster::DataLayout layout) override { co_return plane_.rename(layout, false); }

   private:
    MemoryDataPlane& plane_;
  };
  Result<bool> rename(const cluster::DataLayout& layout, bool show) {
    if (names_fail) return fail(Code::unavailable, "planned: no name changes");
    if (names_away) return false;
    if (show)
      shown.insert(layout.write_id);
    else
      shown.erase(layout.write_id);
    return true;
  }
  Task<Result<size_t>> sweep();
  struct State;
  class Writer;
  class Reader;
  class Guard;
  meta::MetaStore& meta_;
  std::shared_ptr<State> state_;
  Names names_{*this};
};

}  // namespace quarry::object
