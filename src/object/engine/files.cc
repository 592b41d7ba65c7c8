#include "object/engine/files.h"

#include "base/log.h"
#include "codec/digest.h"
#include "io/sync.h"
#include "meta/row_batches.h"
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

constexpr size_t kSettleBatch = 1000;  // rows read at a time
constexpr size_t kSettleAtOnce = 32;   // of those, settled side by side

// A later commit may have put its own row there.
Task<Result<void>> forget_row(meta::Transaction* transaction, std::string key, std::string value) {
  CO_TRY_ASSIGN(const auto row, co_await transaction->get(key));
  if (row && *row == value) transaction->remove(std::move(key));
  co_return Result<void>();
}

Task<void> forget(meta::MetaStore* meta, std::string key, std::string value) {
  auto body = [&](meta::Transaction& transaction) { return forget_row(&transaction, key, value); };
  Result<meta::Version> forgotten = co_await meta::transact(*meta, body);
  if (!forgotten) LOG_DEBUG("a row that asks for a file to be hidden stays", {"error", forgotten.error().to_string()});
}

bool may_be_file(const std::optional<cluster::DataLayout>& layout) { return layout && layout->redundancy.has_copies(); }

// previous: was current before, or may be seen for another reason. Versions of a key lie on different drives, so what is shown on one does
// not take the place of what is still to be seen on another. false: not yet where a drive is away.
Task<Result<bool>> settle(meta::MetaStore* meta, cluster::DataPlane* data, NameGates* gates, BucketId bucket, std::string key,
                          std::optional<cluster::DataLayout> previous) {
  // Shown and hidden by one at a time: the last to look sees what the last commit left.
  Gate::Pass pass = co_await gates->at(hash64(bytes_of(key), bucket)).enter();
  CO_TRY_ASSIGN(const std::optional<VersionRecord> current, co_await current_version(meta, bucket, std::move(key)));
  const bool is_file = current && may_be_file(current->layout);
  Result<bool> settled = true;
  if (is_file) settled = co_await data->files().show(*current->layout, file_attributes(*current));
  if (may_be_file(previous) && !(is_file && current->layout->write_id == previous->write_id)) {
    Result<bool> hidden = co_await data->files().hide(*previous);
    if (!hidden || (settled && !*hidden)) settled = std::move(hidden);
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
  const std::string asks = shown_file_key(id, file.name, layout.write_id);
  Result<std::optional<std::string>> asked = co_await meta->get(asks);
  Result<bool> settled = co_await settle(meta, data, gates.get(), id, std::move(file.name), layout);
  if (!settled) LOG_WARNING("the file of an object could not be shown or hidden", {"error", settled.error().to_string()});
  if (settled && *settled && asked && *asked) co_await forget(meta, asks, std::move(**asked));
}

}  // namespace

cluster::FileAttributes file_attributes(const VersionRecord& record) {
  cluster::FileAttributes attributes;
  if (!record.metadata.content_type.empty()) attributes.emplace_back("content-type", record.metadata.content_type);
  if (!record.metadata.content_encoding.empty()) attributes.emplace_back("content-encoding", record.metadata.content_encoding);
  for (const auto& [name, value] : record.metadata.user) attributes.emplace_back("meta-" + name, value);
  return attributes;
}

cluster::FileService::Judge make_file_judge(meta::MetaStore& meta) {
  return [store = &meta](cluster::DataLayout layout, cluster::FileName file) { return judge(store, layout, std::move(file)); };
}

cluster::FileService::NameSettler make_name_settler(meta::MetaStore& meta, cluster::DataPlane& data, std::shared_ptr<NameGates> gates) {
  return [store = &meta, plane = &data, gates = std::move(gates)](cluster::FileName file, cluster::DataLayout layout) {
    return settle_from_below(store, plane, gates, std::move(file), std::move(layout));
  };
}

void ask_to_hide(meta::Transaction& transaction, cluster::DataPlane& data, BucketId bucket, std::string_view key, Sequence time,
                 FormerFile& former) {
  former.row.clear();
  if (!may_be_file(former.layout) || !data.files().on_some_drives()) return;
  former.layout->encode(former.row);
  Encoder(former.row).u64(time);  // should the same version be current once more: the row of that time is another one
  transaction.put(shown_file_key(bucket, key, former.layout->write_id), former.row);
}

Task<void> Engine::settle_name(BucketId bucket, std::string key, FormerFile former) {
  if (!data().files().on_some_drives()) co_return;
  Result<bool> settled = co_await settle(&meta(), &data(), name_gates_.get(), bucket, key, former.layout);
  // The object itself is committed; the tree is looked at again when the drive is back, or at the next start.
  if (!settled)
    LOG_WARNING("the file of an object could not be shown or hidden", {"key", key.substr(0, 100)}, {"error", settled.error().to_string()});
  if (settled && *settled && !former.row.empty())
    co_await forget(&meta(), shown_file_key(bucket, key, former.layout->write_id), std::move(former.row));
}

Task<bool> Engine::settle_row(meta::KeyValue row, BucketId bucket, std::string key, cluster::DataLayout former) {
  Result<bool> settled = co_await settle(&meta(), &data(), name_gates_.get(), bucket, key, former);
  if (!settled)
    LOG_WARNING("the file of an object could not be hidden", {"key", key.substr(0, 100)}, {"error", settled.error().to_string()});
  const bool done = settled && *settled;
  if (done) co_await forget(&meta(), std::move(row.key), std::move(row.value));
  co_return done;
}

Task<Result<size_t>> Engine::settle_names() {
  size_t settled = 0;
  if (!data().files().on_some_drives()) co_return settled;
  meta::RowBatches batches(meta(), shown_files_range(), kSettleBatch);
  for (;;) {
    CO_TRY_ASSIGN(const auto rows, co_await batches.next());
    if (rows.empty()) co_return settled;
    for (size_t begin = 0; begin < rows.size(); begin += kSettleAtOnce) {
      std::vector<Task<bool>> tasks;
      for (size_t i = begin; i < std::min(begin + kSettleAtOnce, rows.size()); ++i) {
        CO_TRY_ASSIGN(ParsedKey key, parse_row_key(rows[i].key));
        Decoder in(rows[i].value);
        CO_TRY_ASSIGN(const cluster::DataLayout former, cluster::DataLayout::decode(in));
        tasks.push_back(settle_row(rows[i], key.bucket, std::move(key.key), former));
      }
      settled += tasks.size();
      co_await when_all(std::move(tasks));
    }
  }
}

}  // namespace quarry::object
