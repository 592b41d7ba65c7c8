// Buckets: made, changed and deleted in one transaction each.
#include "meta/row_batches.h"
#include "object/engine/engine.h"

namespace quarry::object {
namespace {

constexpr size_t kBucketNameMax = 255;
constexpr size_t kBucketListMax = 10000;  // a page; `after` continues
constexpr int kCreateAttempts = 1000;     // bucket ids come from one row: many who create at once take turns; on slow drives for up to 20 s
constexpr size_t kUploadsPerSweep = 100;  // uploads aborted between two looks while a bucket is deleted

Result<void> check_bucket(const BucketInfo& info) {
  if (info.name.empty() || info.name.size() > kBucketNameMax)
    return fail(Code::invalid_argument, "bucket name of {} bytes", info.name.size());
  if (info.policy.inline_limit > kInlineLimitMax) {
    return fail(Code::invalid_argument, "inline limit {} is above {}", info.policy.inline_limit, kInlineLimitMax);
  }
  size_t attributes = 0;
  for (const auto& [name, value] : info.attributes) attributes += name.size() + value.size();
  if (attributes > kAttributesMax)
    return fail(Code::too_large, "bucket attributes: {} bytes, at most {} are possible", attributes, kAttributesMax);
  size_t tags = 0;
  for (const auto& [name, value] : info.tags) tags += name.size() + value.size();
  if (tags > kHeadersMax) return fail(Code::too_large, "bucket tags: {} bytes, at most {} are possible", tags, kHeadersMax);
  return {};
}

// One try of making a bucket; true: it stands. Repeatable.
Task<Result<void>> create_in(meta::Transaction& transaction, BucketRecord& record) {
  CO_TRY_ASSIGN(auto present, co_await transaction.get(bucket_name_key(record.info.name)));
  if (present) {
    CO_TRY_ASSIGN(auto other, decode_bucket(*present));
    if (other.unique == record.unique) {  // an earlier try of unknown outcome did happen
      record = std::move(other);
      co_return Result<void>();
    }
    co_return fail(Code::already_exists, "bucket '{}'{}", record.info.name,
                   other.info.owner == record.info.owner ? " is owned by you" : "");
  }
  CO_TRY_ASSIGN(auto last_row, co_await transaction.get(last_bucket_id_key()));
  CO_TRY_ASSIGN(const uint64_t last, last_row ? decode_counter(*last_row) : Result<uint64_t>(0));
  record.info.id = last + 1;
  transaction.put(last_bucket_id_key(), encode_counter(record.info.id));
  transaction.put(bucket_name_key(record.info.name), encode(record));
  transaction.put(bucket_id_key(record.info.id), record.info.name);
  co_return Result<void>();
}

Task<Result<bool>> any_row(meta::Transaction& transaction, RowKind kind, BucketId bucket) {
  meta::ScanOptions scan{.range = bucket_rows(kind, bucket), .limit = 1};
  CO_TRY_ASSIGN(auto rows, co_await transaction.scan(std::move(scan)));
  co_return !rows.empty();
}

}  // namespace

Task<Result<BucketInfo>> Engine::create_bucket(const RequestContext& ctx, BucketInfo wanted) {
  CO_TRY(check_bucket(wanted));
  CO_TRY(redundancy_of(wanted.policy));
  BucketRecord record{.info = std::move(wanted), .unique = random()};
  record.info.created = wall_now();
  for (int unknowns = 0;;) {
    BucketRecord* slot = &record;
    auto made =
        co_await meta::transact(meta(), [slot](meta::Transaction& transaction) { return create_in(transaction, *slot); }, kCreateAttempts);
    if (made) break;
    if (made.error().code() != Code::unknown_outcome) {
      if (unknowns > 0 && made.error().code() != Code::already_exists) {
        co_return fail(Code::unknown_outcome, "bucket '{}' may have been made: {}", record.info.name, made.error().to_string());
      }
      co_return std::move(made).error();
    }
    if (++unknowns > kUnknownRetriesMax) co_return std::move(made).error();
  }
  auto learned = learn_bucket(record.info.name, encode(record));
  if (!learned) co_return std::move(learned).error();
  co_return std::move(record.info);
}

Task<Result<BucketInfo>> Engine::get_bucket(const RequestContext& ctx, std::string name) {
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(name)));
  co_return bucket->info;
}

Task<Result<BucketUsage>> Engine::bucket_usage(const RequestContext& ctx, std::string name) {
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(name)));
  std::vector<std::string> keys{counter_key(bucket->info.id, UsageCounter::objects), counter_key(bucket->info.id, UsageCounter::bytes)};
  CO_TRY_ASSIGN(auto rows, co_await meta().get_many(std::move(keys)));
  BucketUsage usage;
  CO_TRY_ASSIGN(usage.objects, rows[0] ? decode_counter(*rows[0]) : Result<uint64_t>(0));
  CO_TRY_ASSIGN(usage.bytes, rows[1] ? decode_counter(*rows[1]) : Result<uint64_t>(0));
  co_return usage;
}

Task<Result<std::vector<BucketInfo>>> Engine::list_buckets(const RequestContext& ctx, std::string prefix, std::string after, size_t limit) {
  std::vector<BucketInfo> buckets;
  limit = std::min(limit, kBucketListMax);
  if (limit == 0) co_return buckets;
  std::string begin = bucket_name_prefix(prefix);
  std::string end = prefix_end(begin);
  if (!after.empty()) begin = std::max(begin, prefix_end(bucket_name_key(after)));
  if (begin >= end) co_return buckets;
  meta::RowBatches batches(meta(), {std::move(begin), std::move(end)});
  while (buckets.size() < limit) {
    batches.set_batch(limit - buckets.size());
    CO_TRY_ASSIGN(auto rows, co_await batches.next());
    if (rows.empty()) break;
    for (auto& row : rows) {
      auto record = decode_bucket(row.value);
      if (!record) co_return std::move(record).error().with(to_hex(bytes_of(row.key)));
      buckets.push_back(std::move(record->info));
    }
  }
  co_return buckets;
}

namespace {

struct BucketEdit {
  std::string name;
  ObjectEngine::BucketChange change;
  BucketRecord result;
  std::string seen, seen_then, written;
  bool unknown = false;
};

Task<Result<void>> update_in(meta::Transaction& transaction, BucketEdit& edit) {
  CO_TRY_ASSIGN(auto row, co_await transaction.get(bucket_name_key(edit.name)));
  if (!row) co_return fail(Code::not_found, "bucket '{}'", edit.name);
  CO_TRY_ASSIGN(auto record, decode_bucket(*row));
  edit.seen = *row;
  if (edit.unknown && *row == edit.written) {
    edit.result = std::move(record);
    co_return Result<void>();
  }
  if (edit.unknown && *row != edit.seen_then)
    co_return fail(Code::unknown_outcome, "bucket '{}': read it, then repeat if needed", edit.name);
  const BucketInfo before = record.info;
  CO_TRY(edit.change(record.info));
  BucketInfo& info = record.info;
  info.id = before.id;
  info.name = before.name;
  info.created = before.created;
  if (info.versioning == Versioning::off && before.versioning != Versioning::off) {
    co_return fail(Code::invalid_argument, "bucket '{}': versioning can be suspended, not switched off", info.name);
  }
  CO_TRY(check_bucket(info));
  edit.written = encode(record);
  transaction.put(bucket_name_key(edit.name), edit.written);
  edit.result = std::move(record);
  co_return Result<void>();
}

}  // namespace

Task<Result<BucketInfo>> Engine::update_bucket(const RequestContext& ctx, std::string name, BucketChange change) {
  BucketEdit edit{.name = name, .change = std::move(change), .result = {}, .seen = {}, .seen_then = {}, .written = {}};
  for (int unknowns = 0;;) {
    BucketEdit* slot = &edit;
    auto done = co_await meta::transact(meta(), [slot](meta::Transaction& transaction) { return update_in(transaction, *slot); });
    if (done) break;
    const bool unknown = done.error().code() == Code::unknown_outcome;
    if (!unknown && edit.unknown) {
      co_return fail(Code::unknown_outcome, "bucket '{}' may have been changed: {}", name, done.error().to_string());
    }
    if (!unknown || ++unknowns > kUnknownRetriesMax) co_return std::move(done).error();
    edit.unknown = true;
    edit.seen_then = edit.seen;
  }
  CO_TRY(learn_bucket(name, encode(edit.result)));
  co_return std::move(edit.result.info);
}

namespace {

struct BucketRemoval {
  std::string name;
  BucketId id = 0;
  bool unknown = false;
  bool uploads_left = false;
};

Task<Result<void>> delete_in(meta::Transaction& transaction, BucketRemoval& removal) {
  removal.uploads_left = false;
  CO_TRY_ASSIGN(auto row, co_await transaction.get(bucket_name_key(removal.name)));
  if (!row && removal.unknown) co_return Result<void>();  // an earlier try of unknown outcome did happen
  if (!row) co_return fail(Code::not_found, "bucket '{}'", removal.name);
  CO_TRY_ASSIGN(auto record, decode_bucket(*row));
  if (removal.id != 0 && record.info.id != removal.id) co_return Result<void>();  // ours is gone, and a new one has its name
  removal.id = record.info.id;
  // The scans make every row of the bucket a conflict: a put that commits meanwhile fails this transaction, and is found next time.
  CO_TRY_ASSIGN(const bool objects, co_await any_row(transaction, RowKind::current, removal.id));
  if (objects) co_return fail(Code::not_empty, "bucket '{}' holds objects", removal.name);
  CO_TRY_ASSIGN(const bool versions, co_await any_row(transaction, RowKind::version, removal.id));
  if (versions) co_return fail(Code::not_empty, "bucket '{}' holds versions or delete markers", removal.name);
  CO_TRY_ASSIGN(removal.uploads_left, co_await any_row(transaction, RowKind::upload, removal.id));
  if (removal.uploads_left) co_return Result<void>();
  transaction.remove(bucket_name_key(removal.name));
  transaction.remove(bucket_id_key(removal.id));
  transaction.remove(counter_key(removal.id, UsageCounter::objects));
  transaction.remove(counter_key(removal.id, UsageCounter::bytes));
  co_return Result<void>();
}

}  // namespace

// Uploads in progress do not keep a bucket alive: like AWS, deleting it aborts them.
Task<Result<void>> Engine::delete_bucket(const RequestContext& ctx, std::string name) {
  BucketRemoval removal{.name = name};
  for (int unknowns = 0;;) {
    BucketRemoval* slot = &removal;
    auto done = co_await meta::transact(meta(), [slot](meta::Transaction& transaction) { return delete_in(transaction, *slot); });
    forget_bucket(name);
    if (!done) {
      const bool unknown = done.error().code() == Code::unknown_outcome;
      if (!unknown && removal.unknown)
        co_return fail(Code::unknown_outcome, "bucket '{}' may be deleted: {}", name, done.error().to_string());
      if (!unknown || ++unknowns > kUnknownRetriesMax) co_return std::move(done).error();
      removal.unknown = true;
      continue;
    }
    if (!removal.uploads_left) co_return Result<void>();
    meta::ScanOptions scan{.range = bucket_rows(RowKind::upload, removal.id), .limit = kUploadsPerSweep};
    CO_TRY_ASSIGN(auto uploads, co_await meta().scan(std::move(scan)));
    for (const auto& upload : uploads) {
      CO_TRY_ASSIGN(auto parsed, parse_row_key(upload.key));
      auto aborted = co_await abort_upload(ctx, name, parsed.key, upload_id_text(parsed.upload_id));
      if (!aborted && aborted.error().code() != Code::not_found) co_return std::move(aborted).error();
    }
  }
}

}  // namespace quarry::object
