// ClusterMap: the drives of the cluster and, for every placement group, which drives hold which shard. Rows in the metadata under "c"
// (docs/formats/cluster-keys.md); groups that lie where placement computes them have no row.
//
// A value: built, then read by many (immutable once shared). A change is made on a copy, its rows are committed, then it is published.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "cluster/map/chunk_ids.h"
#include "cluster/map/placement.h"
#include "cluster/map/redundancy.h"
#include "meta/meta_store.h"

namespace quarry::cluster {

inline constexpr uint32_t kGroupCountMax = 4096;  // a change of all groups fits into one transaction

enum class DriveState : uint8_t {  // frozen numbers
  active = 1,
  draining = 2,  // readable; gets no new data, its data moves away
  failed = 3,    // lost: its data is rebuilt elsewhere
  removed = 4,   // holds nothing, never comes back under this number
};
std::string_view drive_state_name(DriveState state);

// Why it is draining or failed, where that decides what may become of it: by this, never by the words of `reason`.
enum class DriveCause : uint8_t {  // frozen numbers
  none = 0,                        // an operator wants it, or the drive failed
  away = 1,                        // given up because it was not there: it serves again when it is back
  taken = 2,                       // as away, and another node has opened it: only an operator takes it back
  replaced = 3,                    // a successor takes its places: what it holds is old
  read_only = 4,                   // its data moves away because it refuses writes
  forced = 5,                      // taken out by force: it is about to be removed
};
std::string_view drive_cause_name(DriveCause cause);  // "" for none

struct MapDrive {
  uint32_t number = 0;
  Uuid id;
  std::string path;
  std::string domain;
  uint64_t weight = 0;
  DriveState state = DriveState::active;
  std::string reason;  // why it is not active, for people
  DriveCause cause = DriveCause::none;
  bool disabled = false;  // by an operator or the health check: used for nothing until it is enabled
  bool audit = false;     // it was away when chunks of it became obsolete: they are looked for when it is back
  // It was given up while it was not there.
  bool is_away() const { return cause == DriveCause::away || cause == DriveCause::taken; }
  // What it holds is old: its places are another's, or nobody's. While it is drained that is not so yet.
  bool is_past() const { return state == DriveState::removed || (state == DriveState::failed && cause == DriveCause::replaced); }
  bool operator==(const MapDrive&) const = default;
};

// Where a shard position of a group lives.
struct Place {
  uint32_t drive = 0;
  uint16_t term = 0;
  bool operator==(const Place&) const = default;
};
struct Member {
  Place at;
  bool pending = false;       // not everything is there yet: it is being moved or rebuilt
  std::vector<Place> before;  // while pending: where chunks may still be, newest first; at most kBeforeMax
  bool operator==(const Member&) const = default;
};
inline constexpr size_t kBeforeMax = 4;
// Everything the member's shards have, or may have, on drives. Current place first.
std::vector<Place> places_of(const Member& member);
using Members = std::vector<Member>;  // by shard

struct GroupKey {
  uint8_t width = 0;
  GroupId group = 0;
  auto operator<=>(const GroupKey&) const = default;
};

class ClusterMap {
 public:
  uint64_t epoch = 0;
  Uuid cluster;
  uint32_t group_count = 256;
  Redundancy redundancy;    // default of the cluster
  uint32_t next_drive = 1;  // next number to give
  std::map<uint32_t, MapDrive> drives;

  // Members of a group for layouts of this width. Empty if there are too few drives for it.
  // The width must have been registered, or the answer is computed on the spot.
  Members members(uint8_t width, GroupId group) const;
  const Members* find_members(uint8_t width, GroupId group) const;  // registered widths only, no copy; null otherwise
  bool knows_width(uint8_t width) const { return tables_.contains(width); }
  std::vector<uint8_t> widths() const;
  // Layouts of this width are in use from now on. false: too few active drives.
  bool register_width(uint8_t width);
  void set_members(GroupKey key, Members members);

  // Computes again who should be member of every group, after drives were added or changed state, and puts the difference to what is
  // into the groups as pending moves. Positions on failed drives are replaced if a drive is to be had, else stay (degraded). Positions that
  // are pending from kBeforeMax places already stay until they have come to rest: then it is to be called again.
  // Returns the number of positions that changed.
  size_t replan();

  // Computes what const calls would compute on demand; before the map is shared between threads.
  void prepare() { static_cast<void>(ranking()); }

  struct Health {
    size_t pending = 0;  // positions being moved or rebuilt
    size_t without = 0;  // positions on failed drives with no drive to replace them
  };
  Health health() const;

  unsigned active_domains() const;
  const MapDrive* find(const Uuid& id) const;

  // All rows, key -> value.
  std::map<std::string, std::string> rows() const;
  // From a scan of map_range(). nullopt: there is no map (nothing was created).
  static Result<std::optional<ClusterMap>> decode(const std::vector<meta::KeyValue>& rows);

 private:
  // The order of preference of every group over the active drives; computed once for a set of drives and shared by copies of the map.
  struct Ranking {
    std::vector<PlacementDrive> drives;
    std::vector<std::vector<uint32_t>> groups;
  };
  const Ranking& ranking() const;
  static Members computed(uint8_t width, GroupId group, const Ranking& ranking);
  std::map<uint8_t, std::vector<Members>> tables_;  // by width, then group
  mutable std::shared_ptr<const Ranking> ranking_;  // refreshed by changes, before the map is shared
};

}  // namespace quarry::cluster
