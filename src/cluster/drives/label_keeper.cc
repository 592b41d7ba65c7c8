#include "cluster/drives/label_keeper.h"

#include <set>

#include "base/log.h"

namespace quarry::cluster {

bool LabelKeeper::names(uint32_t number) const {
  return std::ranges::any_of(label_.drives, [number](const LabelDrive& drive) { return drive.number == number; });
}

Task<Result<void>> LabelKeeper::write(unsigned needed) {
  ++label_.epoch;
  certain_ = false;
  size_t written = 0;
  std::set<std::string_view> domains, reached;
  std::string problems;
  for (const LabelDrive& each : label_.drives) domains.insert(each.domain);
  for (const LabelDrive& each : label_.drives) {
    Drive* drive = drives_.find(each.number);
    if (drive == nullptr || !drive->readable()) continue;
    DriveLabel own = label_;
    own.number = each.number;
    Result<void> set = co_await drive->set_label(own.encode());
    if (set) {
      ++written;
      reached.insert(each.domain);
    } else {
      problems += fmt::format("; drive {}: {}", each.number, set.error().to_string());
    }
  }
  if (domains.size() >= label_.metadata_copies) written = reached.size();
  certain_ = written >= needed;
  if (certain_) co_return Result<void>();
  co_return fail(Code::unavailable, "labels could be written to {} drives, {} are needed{}", written, needed, problems);
}

Task<Result<void>> LabelKeeper::add(std::vector<LabelDrive> drives, unsigned needed) {
  const std::vector<LabelDrive> before = label_.drives;
  for (LabelDrive& drive : drives) {
    if (!names(drive.number)) label_.drives.push_back(std::move(drive));
  }
  Result<void> written = co_await write(needed);
  if (!written) label_.drives = before;
  co_return written;
}

Task<Result<void>> LabelKeeper::drop(uint32_t number, unsigned needed) {
  if (!names(number)) co_return Result<void>();
  const std::vector<LabelDrive> before = label_.drives;
  std::erase_if(label_.drives, [number](const LabelDrive& drive) { return drive.number == number; });
  Result<void> written = co_await write(needed);
  if (!written) label_.drives = before;
  co_return written;
}

}  // namespace quarry::cluster
