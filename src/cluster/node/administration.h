// Administration: drives come, go, fail and return. Changes the map and the labels in an order that a crash may cut anywhere.
//
//   add      metadata log may use it -> copies restored -> labels name it -> map places data on it
//            While there are too few drives for the metadata to be written with it, it waits for the next one.
//   leave    map places nothing on it -> data moves (repair) -> metadata copies elsewhere -> labels name it no more -> log forgets it
//
// watch() looks at the drives once a second: one that is away for longer than the grace is lost (failed in the map, rebuilt elsewhere); one
// that comes back later is cleaned of what is obsolete and serves again; a drained one that is empty leaves the metadata log.
// A drive whose health check fails is disabled: used for nothing until an operator enables it; for repair it is a missing one. Its store is
// closed, so that its file system can be unmounted and mended, and opened again when it is enabled. A drive that hangs would hang
// everything that holds the turn, this look included: the guard (drive_guard.h) looks for such drives, without a turn; for a look they are
// away. While the map cannot be changed looks go on, and what they would change waits, longer each time. Confined to the home executor.
#pragma once
#include "cluster/drives/drive_guard.h"
#include "cluster/drives/label_keeper.h"
#include "cluster/drives/map_keeper.h"
#include "cluster/log/metadata_log.h"
#include "cluster/repair/audit.h"
#include "cluster/repair/repair.h"
#include "io/alarm.h"
#include "io/sync.h"

namespace quarry::cluster {

class Administration {
 public:
  Administration(Plane& plane, DriveSet& drives, MapKeeper& maps, LabelKeeper& labels, MetadataLog& log, Repairer& repairer,
                 Auditor& auditor, OpenNewDrive open_drive, OpenKnownDrive open_known);

  Task<Result<void>> add_drive(std::string path, bool force);
  Task<Result<void>> drain_drive(uint32_t number);
  Task<Result<void>> remove_drive(uint32_t number, bool force);
  Task<Result<void>> replace_drive(uint32_t number, std::string path, bool force);
  Task<Result<void>> disable_drive(uint32_t number, std::string reason, bool force);
  Task<Result<void>> enable_drive(uint32_t number, bool force);
  Task<Result<void>> take_back_drive(uint32_t number, std::string path);
  Task<Result<void>> register_width(uint8_t width);

  Task<void> run();
  DriveGuard& guard() { return guard_; }
  // One look at all drives, and what follows from it.
  Task<Result<void>> look();
  // Empty while writes are possible.
  std::string read_only_reason() const;  // thread-safe
  // Drives that are to be added, and wait for others: why, by path. Thread-safe.
  std::map<std::string, std::string> waiting() const;

 private:
  // Given back at its end.
  struct Turn {
    Semaphore& semaphore;
    ~Turn() { semaphore.release(); }
  };
  Task<Result<void>> look_after(uint32_t number, TimePoint now);
  Task<Result<void>> mark_disabled(uint32_t number, std::string reason);
  Task<bool> let_close(Drive* old);
  Task<Result<Drive*>> reopen(uint32_t number, std::string at, bool force);
  Task<Result<void>> enable(uint32_t number, std::string at, bool force = false);
  Task<Result<bool>> take_back(std::string path);
  Task<Result<void>> write_down_disabled();
  void disable_as_written();
  Task<Result<void>> part_from_strangers();
  Task<void> close_disabled(Drive* drive);
  Error needed(const Topology& topology, uint32_t number) const;
  static Error already_known(const MapDrive& known, const std::string& path);
  // also: what else changes in the map with it, given the new drive's number.
  using AlsoChange = std::function<void(ClusterMap&, uint32_t)>;
  Task<Result<uint32_t>> join(std::string path, bool force, AlsoChange also = nullptr);
  // A drive that was opened to be added, and what the map says of it then.
  struct Joining {
    Drive* drive = nullptr;
    LabelDrive label;
    MapKeeper::Edit edit;
  };
  Task<Result<void>> join_all(std::vector<Joining> joining);
  // The labels name them, and the metadata log knows.
  Task<Result<void>> name(std::vector<LabelDrive> drives);
  Task<Result<void>> undo_join(Drive* drive);
  Task<void> finish_half_join(Drive* drive);
  Task<void> add_waiting();
  Task<Result<void>> part(uint32_t number);  // metadata copies, labels, log
  Task<Result<void>> lose(uint32_t number, std::string reason, DriveCause cause);
  Task<Result<void>> admit(MapDrive known, Drive* drive);
  Task<Result<void>> readmit(uint32_t number);
  enum class Scope : uint8_t { all, drives_alone };
  Task<Result<void>> look(Scope scope);
  Task<Result<void>> tend(TimePoint now);
  Task<Result<void>> start_drain(uint32_t number, std::string reason, DriveCause cause);
  Task<Result<void>> leave_read_only(uint32_t number, Drive& drive, TimePoint now);
  bool may_clean(uint32_t number, TimePoint now);
  Task<Result<void>> clean(uint32_t number);
  // Forgets a drive that holds nothing that is needed: its metadata copies, its label, its place in the map.
  Task<Result<void>> retire(uint32_t number);
  bool holds_data(const ClusterMap& map, uint32_t number) const;
  void judge_speed();
  struct Speed {
    LatencyStatistics Drive::* latency;
    std::atomic<bool> Drive::* slow;
    bool is_gone_around;                    // a drive that is slow is not asked any more
    std::map<uint32_t, TimePoint> since{};  // it was found slow, or its past was forgotten
  };
  std::vector<Drive*> judge_speed(Speed& speed);  // those that are slow from now on
  void look_below(TimePoint now);
  void update_read_only();

  Plane& plane_;
  DriveSet& drives_;
  MapKeeper& maps_;
  LabelKeeper& labels_;
  MetadataLog& log_;
  Repairer& repairer_;
  Auditor& auditor_;
  OpenNewDrive open_drive_;
  OpenKnownDrive open_known_;
  Semaphore turn_{1};
  DriveGuard guard_;
  TimePoint looked_below_at_{};
  std::vector<Joining> waiting_;                                             // for further drives; nothing knows of them yet
  std::vector<Drive*> half_joined_;                                          // joining failed in the middle, and was not undone yet
  std::map<uint32_t, TimePoint> away_since_, read_only_since_, cleaned_at_;  // in lived time
  Speed reads_{&Drive::read_latency, &Drive::slow, true};
  Speed writes_{&Drive::write_latency, &Drive::slow_writes, false};
  mutable std::mutex mutex_;
  std::string read_only_reason_;                   // guarded, as what follows
  std::map<std::string, std::string> waits_told_;  // waiting_, for people

 public:
  Alarm alarm;
};

}  // namespace quarry::cluster
