// DriveSet: the open drives by number, and the current topology: the map together with the drives it names. Thread-safe.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cluster/drives/drive.h"
#include "cluster/map/cluster_map.h"

namespace quarry::cluster {

// Immutable once published. Drives live as long as the set.
struct Topology {
  ClusterMap map;
  std::vector<Drive*> by_number;              // null: not open
  bool any_files = false, all_files = false;  // drives that are in use and keep files: some, all
  std::vector<std::string> file_system;       // by number: OpenedDrive::file_system
  // Drives in use on the file system of this one, itself among them; 1: it has its space for itself.
  unsigned sharers(uint32_t number) const;
  Drive* drive(uint32_t number) const { return number < by_number.size() ? by_number[number] : nullptr; }
};

class DriveSet {
 public:
  Drive& add(std::unique_ptr<Drive> drive);
  // Of a drive that nobody was told of, and that does not hang; also from the topology.
  void drop(Drive& drive);
  // For the topologies that are published from now on.
  void note_file_system(uint32_t number, std::string file_system);
  std::string file_system(uint32_t number) const;
  // Why the drive of this path could not be opened when the node started; empty: it could, or nobody said.
  void note_absence(std::string path, std::string why);
  std::string absence(const std::string& path) const;
  // What was given to this start and is no drive in use: why, and what to do, by path.
  void note_aside(std::string path, std::string why);
  std::map<std::string, std::string> asides() const;
  Drive* find(uint32_t number) const;
  std::vector<Drive*> all() const;
  // Replaces the topology; names the drives that are open now.
  void publish(ClusterMap map);
  std::shared_ptr<const Topology> topology() const;
  bool any_files() const { return any_files_.load(std::memory_order_relaxed); }
  bool all_files() const { return all_files_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> any_files_{false}, all_files_{false};
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Drive>> drives_;
  std::vector<std::string> file_systems_;        // by number
  std::map<std::string, std::string> absences_;  // by path
  std::map<std::string, std::string> asides_;    // by path
  std::shared_ptr<const Topology> topology_ = std::make_shared<Topology>();
};

}  // namespace quarry::cluster
