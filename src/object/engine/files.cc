#include "object/engine/files.h"

#include "base/log.h"
#include "codec/digest.h"
#include "meta/transact.h"
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

constexpr size_t kSettleBatch = 1000;

// A later removal may have put its own row there.
Task<Result<void>> forget_row(meta::Transaction* transaction, std::string key, std::string value) {
  CO_TRY_ASSIGN(const auto row, co_await transaction->get(key));
  if (row && *row == value) transaction->remove(std::move(key));
  co_return Result<void>();
}

bool may_be_file(const std::optional<cluster::DataLayout>& layout) { return layout && layout->redundancy.has_copies(); }

// previous: was current before, or may be seen for another reason. Versions of a key lie on different drives, so what is shown on one does
// not take the place of what is still to be seen on another.
Task<Result<void>> settle(meta::MetaStore* meta, cluster::DataPlane* data, NameGates* gates, BucketId bucket, std::string key,
                          std::optional<cluster::DataLayout> previous) {
  // Shown and hidden by one at a time: the last to look sees what the last commit left.
  Gate::Pass pass = co_await gates->at(hash64(bytes_of(key), bucket)).enter();
  CO_TRY_ASSIGN(const std::optional<VersionRecord> current, co_await current_version(meta, bucket, std::move(key)));
  const bool is_file = current && may_be_file(current->layout);
  Result<void> settled;
  if (is_file) settled = co_await data->show_file(*current->layout, file_attributes(*current));
  if (may_be_file(previous) && !(is_file && current->layout->write_id == previous->write_id)) {
    Result<void> hidden = co_await data->hide_file(*previous);
    if (!hidden) settled = std::move(hidden);
  }
  co_return settled;
}

Task<void> settle_from_below(meta::MetaStore* meta, cluster::DataPlane* data, std::shared_ptr<NameGates> gates, cluster::FileName file,
                             cluster::DataLayout layout) {
  Result<std::optional<std::string>> row = co_await meta->get(bucket_name_key(file.directory));
  if (!row || !*row) co_return;
  const Result<BucketRecord> bucket = decode_bucket(**row);
  if (!bucket) co_return;
  const BucketId id = bucket->info.id;
  Result<void> settled = co_await settle(meta, data, gates.get(), id, std::move(file.name), layout);
  if (!settled) LOG_WARNING("the file of an object could not be shown or hidden", {"error", settled.error().to_string()});
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

cluster::DataPlane::NameSettler make_name_settler(meta::MetaStore& meta, cluster::DataPlane& data, std::shared_ptr<NameGates> gates) {
  return [store = &meta, plane = &data, gates = std::move(gates)](cluster::FileName file, cluster::DataLayout layout) {
    return settle_from_below(store, plane, gates, std::move(file), std::move(layout));
  };
}

Task<bool> Engine::settle_name(BucketId bucket, std::string key, std::optional<cluster::DataLayout> previous) {
  if (!data().has_file_drives()) co_return true;
  Result<void> settled = co_await settle(&meta(), &data(), name_gates_.get(), bucket, key, std::move(previous));
  // The object itself is committed; the tree is looked at again when the drive is back, or at the next start.
  if (!settled)
    LOG_WARNING("the file of an object could not be shown or hidden", {"key", key.substr(0, 100)}, {"error", settled.error().to_string()});
  co_return settled.has_value();
}

Task<void> Engine::settle_removal(BucketId bucket, std::string key, std::optional<cluster::DataLayout> gone) {
  if (!data().has_file_drives()) co_return;
  const bool settled = co_await settle_name(bucket, key, gone);
  if (!settled || !may_be_file(gone)) co_return;
  const std::string row = shown_file_key(bucket, key);
  std::string value;
  gone->encode(value);
  auto forget = [&](meta::Transaction& transaction) { return forget_row(&transaction, row, value); };
  Result<meta::Version> forgotten = co_await meta::transact(meta(), forget);
  if (!forgotten) LOG_DEBUG("a row that asks for a file to be hidden stays", {"error", forgotten.error().to_string()});
}

Task<Result<size_t>> Engine::settle_names() {
  size_t settled = 0;
  if (!data().has_file_drives()) co_return settled;
  meta::KeyRange range = shown_files_range();
  for (;;) {
    CO_TRY_ASSIGN(const auto rows, co_await meta().scan({.range = range, .limit = kSettleBatch}));
    if (rows.empty()) co_return settled;
    for (const auto& row : rows) {
      CO_TRY_ASSIGN(const ParsedKey key, parse_row_key(row.key));
      Decoder in(row.value);
      CO_TRY_ASSIGN(const cluster::DataLayout gone, cluster::DataLayout::decode(in));
      co_await settle_removal(key.bucket, key.key, gone);
      ++settled;
    }
    range.begin = rows.back().key + '\0';
  }
}

}  // namespace quarry::object
