#include "cluster/drive_set.h"

#include "cluster/drive_path.h"

namespace quarry::cluster {

Drive& DriveSet::add(std::unique_ptr<Drive> drive) {
  std::lock_guard lock(mutex_);
  drives_.push_back(std::move(drive));
  return *drives_.back();
}

Drive* DriveSet::find(uint32_t number) const {
  std::lock_guard lock(mutex_);
  for (auto it = drives_.rbegin(); it != drives_.rend(); ++it) {  // a drive that came back is the newer entry of its number
    if ((*it)->number() == number) return it->get();
  }
  return nullptr;
}

std::vector<Drive*> DriveSet::all() const {
  std::lock_guard lock(mutex_);
  std::vector<Drive*> list;
  for (const auto& drive : drives_) list.push_back(drive.get());
  return list;
}

void DriveSet::publish(ClusterMap map) {
  auto topology = std::make_shared<Topology>();
  topology->map = std::move(map);
  topology->map.prepare();
  std::lock_guard lock(mutex_);
  for (const auto& drive : drives_) {
    if (topology->by_number.size() <= drive->number()) topology->by_number.resize(drive->number() + 1);
    topology->by_number[drive->number()] = drive.get();
  }
  size_t files = 0, in_use = 0;
  for (const auto& [number, known] : topology->map.drives) {
    if (known.state != DriveState::active && known.state != DriveState::draining) continue;
    const Drive* drive = topology->drive(number);
    ++in_use;
    files += drive != nullptr ? drive->keeps_files() : parse_drive_path(known.path).kind == "dir";
  }
  topology->any_files = files > 0;
  topology->all_files = files > 0 && files == in_use;
  any_files_.store(topology->any_files, std::memory_order_relaxed);
  all_files_.store(topology->all_files, std::memory_order_relaxed);
  topology_ = std::move(topology);
}

std::shared_ptr<const Topology> DriveSet::topology() const {
  std::lock_guard lock(mutex_);
  return topology_;
}

}  // namespace quarry::cluster
