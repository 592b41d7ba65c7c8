// Files: copies of writes (mirrors, and the full copy beside slices) on drives that keep them as plain files (chunk/dir). A write of
// several stripes is one file there; which file is to be seen under a name is decided by the owner of the writes (the object engine) after
// its transaction committed.
//
//   write    put each stripe with its FilePlace -> finish_file -> commit -> show_file            (stripe_writer.cc, object engine)
//   crash    finished, committed, not shown: the next start asks the judge and shows it           (sweeper.cc)
//   away     a file that could not be shown or hidden because its drive was away is settled when the drive is back (repair.cc)
//   repair   the whole file again, under the next rewrite number -> shown -> the older ids removed (repair.cc)
//   adopt    an existing file gets a record and becomes a mirror:1 write in a group whose only member is its drive
#pragma once
#include "cluster/stripes/plane.h"

namespace quarry::cluster {

class Files final : public FileService {
 public:
  explicit Files(Plane& plane) : plane_(plane) {}
  Task<Result<void>> prepare();  // before anything else: looks whether writes have names

  bool on_some_drives() const override { return plane_.drives.any_files(); }
  bool on_all_drives() const override { return plane_.drives.all_files(); }
  Task<Result<bool>> show(DataLayout layout, FileAttributes attributes) override { return on_all_places(layout, std::move(attributes)); }
  Task<Result<bool>> hide(DataLayout layout) override { return on_all_places(layout, std::nullopt); }
  void set_judge(Judge judge) override;
  void set_name_settler(NameSettler settler) override;
  Task<Result<Adoption>> adopt(AdoptOptions options) override;
  Task<Result<std::vector<UnrecordedFile>>> unrecorded(uint32_t drive, std::string under, std::string after, size_t limit) override;
  Task<Result<FileState>> state(DataLayout layout) override;
  Task<Result<bool>> is_adopted(DataLayout layout, std::optional<At> at) override;
  Task<Result<void>> let_go(DataLayout layout) override;

  // As DataPlane::record and retire, for the row of the name (Plane::file_names).
  void record(meta::Transaction& transaction, const DataLayout& layout);
  void retire(meta::Transaction& transaction, const DataLayout& layout);
  // The name that was recorded with a write; none: no drive keeps it as a file.
  Task<Result<std::optional<FileName>>> find_name(DataLayout layout);

  // What could not be shown or hidden while a drive was away, as far as the drives are back.
  Task<void> settle_unsettled();
  // Shows the file of one shard if the owner says that it is the one to be seen under its name. Errors: cancelled (the store closes before
  // the owner could be asked).
  Task<Result<void>> show_if_current(Drive& drive, DataLayout layout, unsigned shard, uint16_t term);

 private:
  Task<Result<bool>> on_all_places(DataLayout layout, std::optional<FileAttributes> attributes);

  Plane& plane_;
  std::atomic<bool> any_names_{false};               // rows of names exist, or may
  std::mutex mutex_;                                 // guards what follows
  std::shared_ptr<const Judge> judge_;               // null: whatever is recorded is shown
  std::shared_ptr<const NameSettler> name_settler_;  // null: the next start settles names
  // Writes whose files could not be shown or hidden everywhere. Beyond the limit they wait for the next start.
  static constexpr size_t kUnsettledMax = 64 * 1024;
  std::unordered_map<WriteId, DataLayout> unsettled_;
};

}  // namespace quarry::cluster
