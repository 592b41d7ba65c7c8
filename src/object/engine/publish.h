// PublishVersion: the change that makes a new live version of a key, for put and for completed uploads.
#pragma once
#include "object/engine/change.h"
#include "object/engine/engine.h"
#include "object/engine/files.h"

namespace quarry::object {

class PublishVersion : public KeyChange {
 public:
  // record: all but sequence and null_version, which the bucket's versioning decides at commit.
  PublishVersion(std::string key, VersionRecord record, Conditions conditions)
      : record_(std::move(record)), key_(std::move(key)), conditions_(std::move(conditions)) {}

  Task<Result<Applied>> apply(ChangeContext& context) override;
  const VersionRecord& record() const { return record_; }
  const FormerFile& former() const { return former_; }

 protected:
  // Checks before the first edit; in the transaction. May fill the record.
  virtual Task<Result<void>> prepare(ChangeContext& context) = 0;
  // Writes payload rows and references of the record, whose sequence is fixed by now.
  virtual Task<Result<void>> write_payload(ChangeContext& context, KeyRows& rows) = 0;

  VersionRecord record_;
  FormerFile former_;
  const std::string key_;

 private:
  Task<Result<bool>> find_own(KeyRows& rows);
  Conditions conditions_;
  std::vector<Sequence> tried_;  // sequences of tries whose outcome is unknown; at most kUnknownRetriesMax + 1
};

// Who the data rows of a version or part name as owner: for people and fsck.
std::string layout_owner(BucketId bucket, std::string_view key, uint64_t unique);

}  // namespace quarry::object
