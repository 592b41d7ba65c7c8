// head and get.
#include "object/engine/lookup.h"
#include "object/engine/reader.h"

namespace quarry::object {
namespace {

// Rows as they are now, or in one snapshot.
class Rows {
 public:
  explicit Rows(meta::MetaStore& store) : store_(store) {}
  Task<Result<void>> freeze() {
    CO_TRY_ASSIGN(snapshot_, co_await store_.snapshot());
    co_return Result<void>();
  }
  bool frozen() const { return snapshot_ != nullptr; }
  Task<Result<std::optional<std::string>>> get(std::string key) {
    if (snapshot_) return snapshot_->get(std::move(key));
    return store_.get(std::move(key));
  }
  Task<Result<std::vector<std::optional<std::string>>>> get_many(std::vector<std::string> keys) {
    if (!snapshot_) {
      auto rows = co_await store_.get_many(std::move(keys));
      co_return rows;
    }
    std::vector<std::optional<std::string>> rows;
    for (auto& key : keys) {
      CO_TRY_ASSIGN(auto row, co_await snapshot_->get(std::move(key)));
      rows.push_back(std::move(row));
    }
    co_return rows;
  }
  Task<Result<std::vector<meta::KeyValue>>> scan(meta::ScanOptions options) {
    if (snapshot_) return snapshot_->scan(std::move(options));
    return store_.scan(std::move(options));
  }

 private:
  meta::MetaStore& store_;
  std::unique_ptr<meta::Snapshot> snapshot_;
};

// The newest version of a key that has no current row.
Task<Result<std::optional<VersionRecord>>> newest_noncurrent(Rows& rows, BucketId bucket, std::string key) {
  meta::ScanOptions scan{.range = key_rows(RowKind::version, bucket, key), .limit = 1};
  CO_TRY_ASSIGN(auto found, co_await rows.scan(std::move(scan)));
  if (found.empty()) co_return std::optional<VersionRecord>();
  CO_TRY_ASSIGN(auto newest, decode_version_head(found.front().value));
  co_return std::optional<VersionRecord>(std::move(newest));
}

// One look. Without an error and without a value: rows of different moments met; look again, in a snapshot.
Task<Result<std::optional<Found>>> look(Engine& engine, Rows& rows, BucketRef bucket, std::string key, std::optional<VersionId> wanted,
                                        bool with_payload) {
  const std::optional<Found> again;
  const BucketId id = bucket->info.id;
  const std::string& bucket_name = bucket->info.name;
  // The bucket's row is read with the object's: what was remembered of it is thereby checked, at no further trip.
  std::vector<std::string> keys{bucket_name_key(bucket_name), current_key(id, key)};
  size_t version_at = 0, payload_at = 0;
  if (wanted) {
    version_at = keys.size();
    keys.push_back(wanted->null ? null_pointer_key(id, key) : version_key(id, key, wanted->sequence));
  }
  const bool maybe_null = wanted ? wanted->null : bucket->info.versioning != Versioning::enabled;
  const PayloadSlot guess = maybe_null ? kNullSlot : wanted ? ~wanted->sequence : 0;
  if (with_payload && guess != 0) {
    payload_at = keys.size();
    keys.push_back(payload_key(id, key, guess, 0));
  }
  CO_TRY_ASSIGN(auto values, co_await rows.get_many(std::move(keys)));
  CO_TRY_ASSIGN(auto present, engine.learn_bucket(bucket_name, std::move(values[0])));
  if (present->info.id != id) co_return again;

  Found found{.bucket = std::move(present)};
  std::optional<std::string> row = std::move(values[1]);
  if (wanted) {
    if (row) {
      CO_TRY_ASSIGN(auto head, decode_version_head(*row));
      if (wanted->null ? !head.null_version : head.version_id() != *wanted) row.reset();
    }
    if (!row) {
      found.is_latest = false;
      if (wanted->null && values[version_at]) {
        CO_TRY_ASSIGN(const Sequence sequence, decode_counter(*values[version_at]));
        CO_TRY_ASSIGN(row, co_await rows.get(version_key(id, key, sequence)));
      } else if (!wanted->null && values[version_at]) {
        CO_TRY_ASSIGN(auto head, decode_version_head(*values[version_at]));
        if (head.version_id() == *wanted) row = std::move(values[version_at]);
      }
    }
    if (!row && !rows.frozen()) co_return again;  // it may just be moving between its two places
    if (!row) co_return fail(Code::not_found, "version '{}' of key '{}'", to_text(*wanted), key);
  }
  if (!row) {
    if (bucket->info.versioning != Versioning::off) {
      CO_TRY_ASSIGN(auto newest, co_await newest_noncurrent(rows, id, key));
      if (newest && newest->delete_marker) co_return fail(Code::not_found, "delete marker {}", to_text(newest->version_id()));
    }
    co_return fail(Code::not_found, "key '{}'", key);
  }
  auto record = decode_version(*row);
  if (!record) co_return std::move(record).error().with(key);
  found.record = std::move(*record);
  if (found.record.delete_marker) {
    CO_TRY_ASSIGN(auto current, co_await rows.get(current_key(id, key)));
    CO_TRY_ASSIGN(auto newest, co_await newest_noncurrent(rows, id, key));
    found.is_latest = !current && newest && newest->unique == found.record.unique;
  }

  if (with_payload && found.record.payload == PayloadKind::inlined) {
    std::optional<std::string> payload;
    if (payload_at != 0 && guess == found.record.slot()) {
      payload = std::move(values[payload_at]);
    } else {
      CO_TRY_ASSIGN(payload, co_await rows.get(payload_key(id, key, found.record.slot(), 0)));
    }
    if (!payload && !rows.frozen()) co_return again;
    if (!payload) co_return fail(Code::corrupt, "key '{}': its payload row is missing", key);
    auto decoded = decode_inline_payload(*payload);
    if (!decoded) co_return std::move(decoded).error().with(key);
    if (decoded->unique != found.record.unique && !rows.frozen()) co_return again;
    if (decoded->unique != found.record.unique || decoded->bytes.size() != found.record.size) {
      co_return fail(Code::corrupt, "key '{}': its payload row is that of another version", key);
    }
    found.payload = SharedBytes::copy_of(bytes_of(decoded->bytes));
  }
  if (found.record.payload == PayloadKind::parts) {
    Rows* source = &rows;
    RowReader get = [source](std::string page) { return source->get(std::move(page)); };
    auto parts = co_await read_part_list(std::move(get), id, key, found.record);
    if (!parts && parts.error().code() == Code::corrupt && !rows.frozen()) co_return again;
    if (!parts) co_return std::move(parts).error();
    found.parts = std::move(*parts);
  }
  co_return std::optional<Found>(std::move(found));
}

}  // namespace

Task<Result<Found>> look_up(Engine& engine, std::string bucket_name, std::string key, std::string version_id, bool with_payload) {
  std::optional<VersionId> wanted;
  if (!version_id.empty()) {
    CO_TRY_ASSIGN(wanted, parse_version_id(version_id));
  }
  for (int tries = 0; tries < kReadRetriesMax; ++tries) {
    Rows rows(engine.meta());
    if (tries > 0) {
      CO_TRY(co_await rows.freeze());
    }
    CO_TRY_ASSIGN(auto bucket, co_await engine.open_bucket(bucket_name));
    CO_TRY_ASSIGN(auto found, co_await look(engine, rows, std::move(bucket), key, wanted, with_payload));
    if (found) co_return std::move(*found);
  }
  co_return fail(Code::busy, "bucket '{}' was made anew at every look; try again", bucket_name);
}

namespace {

ObjectInfo info_of(const Found& found, std::string key) {
  ObjectInfo info = to_info(found.record, std::move(key), found.is_latest);
  info.parts.reserve(found.parts.size());
  for (const auto& part : found.parts) info.parts.push_back(to_info(part));
  return info;
}

}  // namespace

Task<Result<ObjectInfo>> Engine::head(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id) {
  CO_TRY_ASSIGN(auto found, co_await look_up(*this, std::move(bucket), key, std::move(version_id), false));
  co_return info_of(found, std::move(key));
}

Task<Result<std::unique_ptr<ObjectReader>>> Engine::get(const RequestContext& ctx, std::string bucket, std::string key,
                                                        std::string version_id) {
  auto guard = data().guard_reads();
  CO_TRY_ASSIGN(auto found, co_await look_up(*this, std::move(bucket), key, std::move(version_id), true));
  if (guard != nullptr) guard->narrow(found.writes());
  ObjectInfo info = info_of(found, std::move(key));
  co_return std::unique_ptr<ObjectReader>(std::make_unique<Reader>(data(), std::move(guard), std::move(found), std::move(info)));
}

Task<Result<void>> Engine::pin(const RequestContext& ctx, std::string bucket, std::string key, bool pinned) {
  auto guard = data().guard_reads();
  CO_TRY_ASSIGN(auto found, co_await look_up(*this, std::move(bucket), std::move(key), {}, true));
  if (guard != nullptr) guard->narrow(found.writes());
  if (found.record.layout) {
    CO_TRY(co_await data().set_pinned(*found.record.layout, pinned));
  }
  for (const auto& part : found.parts) {
    if (!part.layout) continue;
    CO_TRY(co_await data().set_pinned(*part.layout, pinned));
  }
  co_return Result<void>();
}

}  // namespace quarry::object
