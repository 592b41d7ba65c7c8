// LocalDataPlane: the DataPlane of one node: puts the parts together behind the interface. Made and closed by the cluster.
#pragma once
#include "cluster/files/files.h"
#include "cluster/node/administration.h"
#include "cluster/repair/audit.h"
#include "cluster/repair/repair.h"
#include "cluster/repair/scrub.h"
#include "cluster/repair/sweeper.h"
#include "cluster/stripes/cache_keeper.h"
#include "cluster/stripes/plane.h"

namespace quarry::cluster {

class LocalDataPlane final : public DataPlane {
 public:
  LocalDataPlane(Executor& home, DriveSet& drives, meta::MetaStore& meta, MetadataLog& log, MapKeeper& maps, LabelKeeper& labels,
                 const ClusterTuning& tuning, OpenNewDrive open_drive, OpenKnownDrive open_known, Clock& clock, BlockingPool& pool);

  // Before start.
  Task<Result<void>> prepare() { return files_.prepare(); }
  // Background work begins; on the home executor.
  void start();
  // Everything that is due now: orphans, retired writes, repair. On the home executor.
  Task<Result<void>> settle();
  // Waits for writers and readers in flight and all background work, then ends the session.
  Task<Result<void>> stop();
  std::string read_only_reason() const { return administration_.read_only_reason(); }
  Administration& administration() { return administration_; }

  Result<std::unique_ptr<DataWriter>> begin_write(const WriteOptions& options) override;
  std::unique_ptr<DataReader> read(const DataLayout& layout, uint64_t offset, uint64_t length, CachePolicy policy) override;
  std::unique_ptr<ReadGuard> guard_reads() override { return plane_.reads.guard(); }
  Task<Result<void>> set_pinned(DataLayout layout, bool pinned) override;
  void record(meta::Transaction& transaction, const DataLayout& layout, std::string owner) override;
  void retire(meta::Transaction& transaction, const DataLayout& layout) override;
  void retired() override { sweeper_.alarm.ring(); }
  std::vector<DriveStatus> drives() const override;
  RepairStatus repair_status() const override { return repairer_.status(); }
  ScrubStatus scrub_status() const override { return scrubber_.status(); }
  SpaceStatus space_status() const override;
  CacheStatus cache_status() const override { return plane_.cache.status(); }
  HealthStatus health() const override;
  Task<Result<void>> add_drive(std::string path, bool force) override;
  Task<Result<void>> drain_drive(uint32_t number) override;
  Task<Result<void>> remove_drive(uint32_t number, bool force) override;
  Task<Result<void>> replace_drive(uint32_t number, std::string path, bool force) override;
  Task<Result<void>> disable_drive(uint32_t number, std::string reason, bool force) override;
  Task<Result<void>> enable_drive(uint32_t number, bool force) override;
  Task<Result<void>> take_back_drive(uint32_t number, std::string path) override;
  FileService& files() override { return files_; }
  Task<Result<DataLayout>> widen(DataLayout layout, Redundancy redundancy, CommitLayout commit) override;
  void record_widened(meta::Transaction& transaction, const DataLayout& before, const DataLayout& layout, std::string owner) override;
  Task<Result<bool>> awaits_repair(DataLayout layout) override;
  Task<Result<bool>> was_retired(meta::Transaction& transaction, DataLayout layout) override;
  Task<Result<void>> start_scrub() override;
  Task<Result<FsckReport>> fsck(bool repair) override;
  Task<Result<std::vector<Reference>>> references(WriteId after, size_t limit) override;

  Scrubber& scrubber() { return scrubber_; }
  Repairer& repairer() { return repairer_; }
  Sweeper& sweeper() { return sweeper_; }
  Plane& plane() { return plane_; }

 private:
  Plane plane_;
  Files files_;
  Sweeper sweeper_;
  CacheKeeper cache_keeper_;
  Repairer repairer_;
  Auditor auditor_;
  Scrubber scrubber_;
  Administration administration_;
};

}  // namespace quarry::cluster
