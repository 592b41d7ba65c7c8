#include "cluster/drives/drive_set.h"

#include "cluster/drives/drive_path.h"

namespace quarry::cluster {

Drive& DriveSet::add(std::unique_ptr<Drive> drive) {
  std::lock_guard lock(mutex_);
  drives_.push_back(std::move(drive));
  return *drives_.back();
}

void DriveSet::drop(Drive& drive) {
  std::unique_ptr<Drive> dropped;
  {
    std::lock_guard lock(mutex_);
    const auto at = std::ranges::find_if(drives_, [&drive](const auto& each) { return each.get() == &drive; });
    CHECK(at != drives_.end());
    dropped = std::move(*at);
    drives_.erase(at);
  }
  publish(topology()->map);
}

void DriveSet::note_file_system(uint32_t number, std::string file_system) {
  std::lock_guard lock(mutex_);
  if (file_systems_.size() <= number) file_systems_.resize(number + 1);
  file_systems_[number] = std::move(file_system);
}

std::string DriveSet::file_system(uint32_t number) const {
  std::lock_guard lock(mutex_);
  return number < file_systems_.size() ? file_systems_[number] : std::string();
}

void DriveSet::note_absence(std::string path, std::string why) {
  std::lock_guard lock(mutex_);
  absences_[std::move(path)] = std::move(why);
}

std::string DriveSet::absence(const std::string& path) const {
  std::lock_guard lock(mutex_);
  const auto at = absences_.find(path);
  return at == absences_.end() ? std::string() : at->second;
}

void DriveSet::note_aside(std::string path, std::string why) {
  std::lock_guard lock(mutex_);
  asides_[std::move(path)] = std::move(why);
}

std::map<std::string, std::string> DriveSet::asides() const {
  std::lock_guard lock(mutex_);
  return asides_;
}

unsigned Topology::sharers(uint32_t number) const {
  if (number >= file_system.size() || file_system[number].empty()) return 1;
  unsigned count = 0;
  for (uint32_t other = 0; other < file_system.size(); ++other) count += other == number || file_system[other] == file_system[number];
  return count;
}

std::vector<std::string> shared_file_systems(const std::vector<DriveStatus>& drives) {
  std::map<std::string, std::vector<uint32_t>> by_file_system;
  for (const auto& drive : drives) {
    const bool in_use = drive.state != "removed" && drive.state != "failed";
    if (in_use && !drive.file_system.empty()) by_file_system[drive.file_system].push_back(drive.number);
  }
  std::vector<std::string> notes;
  for (const auto& [file_system, numbers] : by_file_system) {
    if (numbers.size() < 2) continue;
    notes.push_back(fmt::format(
        "drives {} are on one file system: they share its space and fail together, so copies on them do not protect from its loss",
        fmt::join(numbers, ", ")));
  }
  return notes;
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
  topology->file_system.resize(topology->by_number.size());
  for (const auto& [number, known] : topology->map.drives) {
    const bool in_use_now = known.state == DriveState::active || known.state == DriveState::draining;
    if (in_use_now && number < file_systems_.size() && number < topology->by_number.size())
      topology->file_system[number] = file_systems_[number];
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
