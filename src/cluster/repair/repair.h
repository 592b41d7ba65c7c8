// Repairer: brings data back to full redundancy, and to where the map wants it.
//
//   groups   positions that are pending (their drive died, is drained, or another drive won them): every write of the group gets its
//            shard at the new place, copied from where it was or rebuilt from k others; then the map says so. A group is complete only
//            after a scan that began when no writer of an older topology was left.
//   queue    single writes: put with fewer shards (durable rows "cq"), or found damaged by a reader (in memory)
//
// Most endangered first. It can stop and start anywhere: a chunk that is there already is skipped. Confined to the home executor.
#pragma once
#include <set>

#include "cluster/drives/map_keeper.h"
#include "cluster/repair/background_budget.h"
#include "cluster/stripes/plane.h"
#include "io/alarm.h"

namespace quarry::cluster {

class Repairer {
 public:
  Repairer(Plane& plane, MapKeeper& maps);

  Task<void> run();
  // One round over everything that is pending. true: nothing is left that could be repaired now.
  Task<Result<bool>> round();
  // Checks one write and repairs it. `verify`: reads every shard instead of looking whether it is there.
  enum class Depth : uint8_t { presence, verify };
  struct Outcome {
    uint64_t repaired_shards = 0, repaired_bytes = 0;
    unsigned lacking = 0;  // shards still missing (no drive to put them on), of the worst stripe
    bool lost = false;     // fewer than k shards of some stripe can be read
    bool changed = false;  // with lost: because somebody changed or removed the only copy, a file
    bool gone = false;     // the write is not referenced any more
    bool again = false;    // the map, or the write's layout, changed meanwhile: what was found need not be so any more
    std::string why_lost;
    std::set<uint32_t> left_on = {};  // drives that were away when what moved was to be removed from them
  };
  Task<Result<Outcome>> repair_write(DataLayout layout, Depth depth);
  // One shard on its own drive was found damaged: rewrites it from the others.
  Task<Result<void>> repair_shard(DataLayout layout, uint32_t stripe, unsigned shard);
  // See DataPlane::widen. On the home executor; widen.cc.
  Task<Result<DataLayout>> widen(DataLayout layout, Redundancy wanted, DataPlane::CommitLayout commit);

  // Thread-safe.
  RepairStatus status() const;

 private:
  struct GroupWork {
    GroupKey key;
    unsigned endangered = 0;  // pending positions whose shard can only be rebuilt
  };
  Task<Result<bool>> repair_groups();
  // What is left of a round, most endangered first; several tasks take from it.
  struct GroupQueue {
    std::vector<GroupWork> work;
    TimePoint began{};
    size_t next = 0, done = 0;
    uint64_t rows = 0;
    bool all = true;
  };
  Task<void> repair_some(GroupQueue* queue);
  Task<Result<bool>> repair_group(GroupWork work, uint64_t* rows_seen);
  // All shards if none is named; settle.cc.
  Task<Result<Outcome>> settle_shards(DataLayout layout, std::vector<unsigned> shards, Depth depth);
  Task<Result<std::vector<unsigned>>> settle_files(std::shared_ptr<const Topology> topology, DataLayout layout,
                                                   std::vector<unsigned> shards, Depth depth, Outcome* outcome,
                                                   std::optional<Error>* error);
  Task<Result<void>> remove_everywhere(std::shared_ptr<const Topology> topology, DataLayout layout);
  Task<Result<void>> remove_former(std::shared_ptr<const Topology> topology, DataLayout layout, std::vector<unsigned> shards,
                                   Outcome* outcome);
  Task<Result<bool>> repair_queue();
  // One repair, or widening, of a write at a time: two that make the same file again would hide and remove each other's, and what a
  // widening builds on must not move meanwhile.
  class OneAtATime {
   public:
    OneAtATime(Repairer& repairer, WriteId id) : repairer_(repairer), id_(id) {}
    ~OneAtATime() {
      if (mine_ && repairer_.settling_.erase(id_) > 0) repairer_.settled_.pulse();
    }
    Task<void> enter() {
      while (!repairer_.settling_.insert(id_).second) co_await repairer_.settled_.wait();
      mine_ = true;
    }

   private:
    Repairer& repairer_;
    const WriteId id_;
    bool mine_ = false;
  };
  Task<Result<bool>> plan_the_rest();
  Task<Result<bool>> lead(uint8_t width, GroupId group, Place first);
  void end_widening();
  Task<void> end_when_certain(std::unique_ptr<OneAtATime> alone);
  Task<Result<bool>> has_retired(GroupKey key);
  // As its data row says now; none: it is referenced no more.
  Task<Result<std::optional<DataLayout>>> present_layout(DataLayout layout);
  void note(const Outcome& outcome);
  void note_lost(const DataLayout& layout, const Outcome& outcome);
  void count_lost();  // mutex_ is held
  // What was lost may be readable again (a file was put back, a drive recovered), or nobody's any more.
  Task<Result<void>> look_at_lost();
  void set_activity(std::string activity);

  Plane& plane_;
  MapKeeper& maps_;
  BackgroundBudget budget_;
  Semaphore turn_{1};
  std::set<WriteId> settling_;
  Event settled_;
  bool planned_ = false;  // nothing that is at rest should be elsewhere
  bool moving_ = false;   // groups are being moved, or are about to be: no write is widened
  size_t widening_ = 0;   // writes being widened: moves wait for them
  bool leading_ = false;  // a group is being rearranged for one of them: no other is widened
  Event widened_;         // pulsed when widening_ falls to 0
  struct Lost {
    DataLayout layout;
    bool changed = false;
  };
  std::map<WriteId, Lost> lost_;  // as last seen; at most tuning.lost_writes_max
  bool more_lost_ = false;        // than are remembered
  WriteId lost_asked_for_ = 0;    // how far the present pass over lost_ has come that looks for their rows
  WriteId lost_looked_at_ = 0;    // and the one that reads them again
  TimePoint next_look_at_lost_{};
  TimePoint began_{};
  uint64_t bytes_at_begin_ = 0;
  mutable std::mutex mutex_;  // guards status_
  RepairStatus status_;

 public:
  Alarm alarm;
};

}  // namespace quarry::cluster
