// LabelKeeper: writes the drives' labels. Confined to the home executor.
#pragma once
#include <map>

#include "cluster/drives/drive_label.h"
#include "cluster/drives/drive_set.h"

namespace quarry::cluster {

class LabelKeeper {
 public:
  // newest: the label that counted when the cluster was opened (number is ignored).
  LabelKeeper(DriveSet& drives, DriveLabel newest) : drives_(drives), label_(std::move(newest)) {}
  const DriveLabel& label() const { return label_; }
  bool names(uint32_t number) const;
  // false: the last attempt to write them failed, and some may say something newer than label().
  bool certain() const { return certain_; }
  // Drives that were given up may come back with labels that nobody here has seen: the next ones outrank them.
  void skip_lost() { label_.epoch += kEpochsSkippedAfterLoss; }
  // The list of drives that may hold needed metadata, from now on. Durable on every listed drive that is there, at least `needed` of them;
  // counted by domain where the metadata log does so. Errors: unavailable.
  Task<Result<void>> add(std::vector<LabelDrive> drives, unsigned needed);
  Task<Result<void>> drop(uint32_t number, unsigned needed);
  Task<Result<void>> write(unsigned needed);

 private:
  static constexpr uint64_t kEpochsSkippedAfterLoss = 1'000'000;  // more than were written behind any state that may come back
  DriveSet& drives_;
  DriveLabel label_;
  bool certain_ = true;
};

}  // namespace quarry::cluster
