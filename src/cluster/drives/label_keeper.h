// LabelKeeper: writes the drives' labels. Confined to the home executor.
#pragma once
#include <map>

#include "cluster/drives/drive_label.h"
#include "cluster/drives/drive_set.h"

namespace quarry::cluster {

class LabelKeeper {
 public:
  // newest: the label that counted when the cluster was opened (number is ignored). certain: every drive that it names has it.
  LabelKeeper(DriveSet& drives, DriveLabel newest, bool certain) : drives_(drives), label_(std::move(newest)), certain_(certain) {}
  const DriveLabel& label() const { return label_; }
  bool names(uint32_t number) const;
  // false: some drives may say something newer than label(), and the next start would go by that if they are there: the last attempt to
  // write labels failed, or an earlier start died in the middle of one. Nothing can be relied on before they are written.
  bool certain() const { return certain_; }
  // What is written from now on outranks all that an earlier start wrote, also where it died in the middle or was given up, and the drive
  // that has it is away. log_epoch: of the metadata log, which no earlier start had.
  void outrank_earlier_starts(uint64_t log_epoch) { label_.epoch = std::max(label_.epoch, log_epoch * kLabelsOfAStart); }
  // The list of drives that may hold needed metadata, from now on. Durable on every listed drive that is there, at least `needed` of them;
  // counted by domain where the metadata log does so. Errors: unavailable.
  Task<Result<void>> add(std::vector<LabelDrive> drives, unsigned needed);
  Task<Result<void>> drop(uint32_t number, unsigned needed);
  Task<Result<void>> write(unsigned needed);

 private:
  static constexpr uint64_t kLabelsOfAStart = 1 << 20;  // it writes fewer
  DriveSet& drives_;
  DriveLabel label_;
  bool certain_;
};

}  // namespace quarry::cluster
