#include "object/engine/files.h"

#include "base/log.h"
#include "codec/digest.h"
#include "object/engine/engine.h"

namespace quarry::object {
namespace {

Task<Result<std::optional<VersionRecord>>> current_version(meta::MetaStore* meta, BucketId bucket, std::string key) {
  CO_TRY_ASSIGN(auto row, co_await meta->get(current_key(bucket, key)));
  std::optional<VersionRecord> record;
  if (row) {
    CO_TRY_ASSIGN(record, decode_version(*row));
  }
  co_return record;
}

Task<Result<std::optional<cluster::FileAttributes>>> judge(meta::MetaStore* meta, cluster::DataLayout layout, cluster::FileName file) {
  std::optional<cluster::FileAttributes> attributes;
  CO_TRY_ASSIGN(auto row, co_await meta->get(bucket_name_key(file.directory)));
  if (!row) co_return attributes;
  CO_TRY_ASSIGN(const BucketRecord bucket, decode_bucket(*row));
  CO_TRY_ASSIGN(const auto record, co_await current_version(meta, bucket.info.id, file.name));
  if (record && record->layout && record->layout->write_id == layout.write_id) attributes = file_attributes(*record);
  co_return attributes;
}

bool may_be_file(const std::optional<cluster::DataLayout>& layout) {
  return layout && layout->redundancy.kind == cluster::RedundancyKind::mirror;
}

}  // namespace

cluster::FileAttributes file_attributes(const VersionRecord& record) {
  cluster::FileAttributes attributes;
  if (!record.metadata.content_type.empty()) attributes.emplace_back("content-type", record.metadata.content_type);
  if (!record.metadata.content_encoding.empty()) attributes.emplace_back("content-encoding", record.metadata.content_encoding);
  for (const auto& [name, value] : record.metadata.user) attributes.emplace_back("meta-" + name, value);
  return attributes;
}

cluster::DataPlane::FileJudge make_file_judge(meta::MetaStore& meta) {
  return [store = &meta](cluster::DataLayout layout, cluster::FileName file) { return judge(store, layout, std::move(file)); };
}

Task<void> Engine::settle_name(BucketId bucket, std::string key, std::optional<cluster::DataLayout> previous) {
  if (!data().has_file_drives()) co_return;
  // Shown and hidden by one at a time: the last to look sees what the last commit left.
  Gate::Pass pass = co_await name_gates_.at(hash64(bytes_of(key), bucket)).enter();
  Result<std::optional<VersionRecord>> current = co_await current_version(&meta(), bucket, key);
  Result<void> settled;
  if (!current) {
    settled = std::move(current).error();
  } else if (*current && may_be_file((*current)->layout)) {
    settled = co_await data().show_file(*(*current)->layout, file_attributes(**current));
  } else if (may_be_file(previous)) {
    settled = co_await data().hide_file(*previous);
  }
  // The object itself is committed; the tree is looked at again when the drive is back, or at the next start.
  if (!settled)
    LOG_WARNING("the file of an object could not be shown or hidden", {"key", key.substr(0, 100)}, {"error", settled.error().to_string()});
}

}  // namespace quarry::object
