// Multipart uploads and their parts, up to completion (complete.cc).
#include "object/engine/uploads.h"
#include "meta/row_batches.h"
#include "object/engine/body.h"
#include "object/engine/names.h"
#include "object/engine/publish.h"

namespace quarry::object {
namespace {

UploadInfo to_info(const UploadRecord& record, std::string key, std::string_view upload_id) {
  UploadInfo info;
  info.key = std::move(key);
  info.upload_id = upload_id_text(upload_id);
  info.owner = record.owner;
  info.initiated = record.initiated;
  info.metadata = record.metadata;
  info.checksum = {.algorithm = record.algorithm, .type = record.checksum_type};
  return info;
}

Error no_upload(std::string_view upload_id) { return fail(Code::not_found, "upload '{}'", upload_id_text(upload_id)); }

class CreateUpload : public KeyChange {
 public:
  CreateUpload(std::string key, UploadId upload_id, const UploadRecord& record)
      : key_(std::move(key)), upload_id_(std::move(upload_id)), value_(encode(record)) {}
  Task<Result<Applied>> apply(ChangeContext& context) override {
    const std::string row = upload_key(context.bucket.id, key_, upload_id_);
    CO_TRY_ASSIGN(auto present, co_await context.transaction.get(row));
    if (present) co_return Applied::nothing_to_write;  // an earlier try of unknown outcome did happen
    context.transaction.put(row, value_);
    co_return Applied::commit;
  }

 private:
  const std::string key_;
  const UploadId upload_id_;
  const std::string value_;
};

class PutPart : public KeyChange {
 public:
  PutPart(std::string key, UploadId upload_id, PartRecord part)
      : key_(std::move(key)), upload_id_(std::move(upload_id)), part_(std::move(part)) {}
  Task<Result<Applied>> apply(ChangeContext& context) override {
    const std::string row = part_key(upload_id_, part_.number);
    CO_TRY_ASSIGN(auto upload, co_await context.transaction.get(upload_key(context.bucket.id, key_, upload_id_)));
    CO_TRY_ASSIGN(auto present, co_await context.transaction.get(row));
    std::optional<PartRecord> before;
    if (present) {
      CO_TRY_ASSIGN(before, decode_part(*present));
      if (before->unique == part_.unique) co_return Applied::nothing_to_write;
    }
    remember(present.value_or(std::string()) + (upload ? "+" : "-"));
    CO_TRY(still_as_seen(key_));
    if (!upload) co_return no_upload(upload_id_);
    if (before) {
      if (before->layout) context.data.retire(context.transaction, *before->layout);
      context.usage.bytes -= static_cast<int64_t>(before->size);
      context.usage.retired = true;
    }
    if (part_.layout) context.data.record(context.transaction, *part_.layout, layout_owner(context.bucket.id, key_, part_.unique));
    context.transaction.put(row, encode(part_));
    context.usage.bytes += static_cast<int64_t>(part_.size);
    co_return Applied::commit;
  }
  const PartRecord& part() const { return part_; }

 private:
  const std::string key_;
  const UploadId upload_id_;
  const PartRecord part_;
};

class AbortUpload : public KeyChange {
 public:
  AbortUpload(std::string key, UploadId upload_id) : key_(std::move(key)), upload_id_(std::move(upload_id)) {}
  Task<Result<Applied>> apply(ChangeContext& context) override {
    const std::string row = upload_key(context.bucket.id, key_, upload_id_);
    CO_TRY_ASSIGN(auto upload, co_await context.transaction.get(row));
    if (!upload && is_unknown()) co_return Applied::nothing_to_write;  // gone, by this try or another
    if (!upload) co_return no_upload(upload_id_);
    CO_TRY_ASSIGN(auto parts, co_await scan_parts(context.transaction, upload_id_));
    for (const auto& part : parts) {
      if (part.layout) context.data.retire(context.transaction, *part.layout);
      context.usage.bytes -= static_cast<int64_t>(part.size);
    }
    context.usage.retired = !parts.empty();
    context.transaction.remove_range(part_rows(upload_id_));
    context.transaction.remove(row);
    co_return Applied::commit;
  }

 private:
  const std::string key_;
  const UploadId upload_id_;
};

class PartWriter final : public ObjectWriter {
 public:
  PartWriter(Engine& engine, const RequestContext& ctx, BucketRef bucket, std::string key, UploadId upload_id, uint32_t number,
             ChecksumAlgorithm checksum, const PutOptions& options, BodyLimits limits)
      : engine_(engine),
        ctx_(ctx),
        bucket_(std::move(bucket)),
        key_(std::move(key)),
        upload_id_(std::move(upload_id)),
        number_(number),
        checksum_(checksum),
        body_(engine, std::move(limits), checksum, options.compute_sha256) {}

  Task<Result<void>> write(Buffer data) override { return body_.write(std::move(data)); }
  Task<Result<ObjectInfo>> finish(Expected) override { co_return fail(Code::internal, "finish on the writer of a part"); }
  Task<Result<PartInfo>> finish_part(Expected expected) override {
    CO_TRY_ASSIGN(auto body, co_await body_.finish(std::move(expected)));
    PartRecord part{.number = number_,
                    .unique = engine_.random(),
                    .size = body.size,
                    .modified = engine_.wall_now(),
                    .md5 = std::move(body.digests.md5),
                    .checksum = {},
                    .layout = std::move(body.layout)};
    if (checksum_ != ChecksumAlgorithm::none) {
      part.checksum = {.algorithm = checksum_, .type = ChecksumType::full_object, .value = std::move(body.digests.checksum)};
    }
    PutPart change(key_, upload_id_, std::move(part));
    auto done = co_await engine_.run_change(ctx_, bucket_->info.name, bucket_->info.id, key_, change);
    if (!done) {
      if (done.error().code() == Code::unknown_outcome) body_.settle();
      co_return std::move(done).error();
    }
    body_.keep();
    co_return quarry::object::to_info(change.part());
  }

 private:
  Engine& engine_;
  const RequestContext ctx_;
  const BucketRef bucket_;
  const std::string key_;
  const UploadId upload_id_;
  const uint32_t number_;
  const ChecksumAlgorithm checksum_;
  BodyReceiver body_;
};

}  // namespace

Task<Result<std::vector<PartRecord>>> scan_parts(meta::Transaction& transaction, UploadId upload_id) {
  std::vector<PartRecord> parts;
  meta::RowBatches batches(transaction, part_rows(upload_id), kPartNumberMax);
  for (;;) {
    CO_TRY_ASSIGN(auto rows, co_await batches.next());
    if (rows.empty()) co_return parts;
    for (const auto& row : rows) {
      CO_TRY_ASSIGN(auto parsed, parse_part_key(row.key));
      CO_TRY_ASSIGN(auto part, decode_part(row.value));
      if (part.number != parsed.number)
        co_return fail(Code::corrupt, "upload '{}': row of part {} holds part {}", upload_id_text(upload_id), parsed.number, part.number);
      parts.push_back(std::move(part));
    }
  }
}

Task<Result<UploadRecord>> Engine::read_upload(BucketId bucket, std::string key, UploadId upload_id) {
  CO_TRY_ASSIGN(auto row, co_await meta().get(upload_key(bucket, key, upload_id)));
  if (!row) co_return no_upload(upload_id);
  auto record = decode_upload(*row);
  if (!record) co_return std::move(record).error().with(key);
  co_return std::move(*record);
}

Task<Result<UploadInfo>> Engine::create_upload(const RequestContext& ctx, std::string bucket, std::string key, PutOptions options,
                                               ChecksumType type) {
  CO_TRY(check_object_key(key));
  CO_TRY(check_put_options(options));
  if (options.checksum != ChecksumAlgorithm::none) {
    const auto kind = static_cast<ChecksumKind>(options.checksum);
    if (type == ChecksumType::full_object && !checksum_is_crc(kind)) {
      co_return fail(Code::invalid_argument, "checksum type FULL_OBJECT: not possible with {}, which cannot be combined from parts",
                     checksum_name(kind));
    }
    if (type == ChecksumType::composite && kind == ChecksumKind::crc64nvme) {
      co_return fail(Code::invalid_argument, "checksum type COMPOSITE: not possible with {}", checksum_name(kind));
    }
  }
  const RequestContext context = ctx;
  UploadRecord record{.initiated = wall_now(),
                      .owner = std::move(options.owner),
                      .algorithm = options.checksum,
                      .checksum_type = type,
                      .storage_class = options.metadata.storage_class,
                      .metadata = std::move(options.metadata),
                      .tags = std::move(options.tags)};
  const UploadId upload_id = make_upload_id(next_time(), random());
  CreateUpload change(key, upload_id, record);
  CO_TRY(co_await run_change(context, std::move(bucket), 0, key, change));
  co_return to_info(record, std::move(key), upload_id);
}

Task<Result<UploadInfo>> Engine::get_upload(const RequestContext& ctx, std::string bucket_name, std::string key, std::string upload_id) {
  CO_TRY_ASSIGN(auto id, parse_upload_id(upload_id));
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  CO_TRY_ASSIGN(auto record, co_await read_upload(bucket->info.id, key, id));
  co_return to_info(record, std::move(key), id);
}

Task<Result<std::unique_ptr<ObjectWriter>>> Engine::put_part(const RequestContext& ctx, std::string bucket_name, std::string key,
                                                             std::string upload_id, uint32_t number, PutOptions options) {
  const RequestContext context = ctx;
  if (number == 0 || number > kPartNumberMax)
    co_return fail(Code::invalid_argument, "part number {}: from 1 to {}", number, kPartNumberMax);
  if (options.size && *options.size > kPartSizeMax)
    co_return fail(Code::too_large, "part of {} bytes, at most {} are possible", *options.size, kPartSizeMax);
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  CO_TRY_ASSIGN(auto id, parse_upload_id(upload_id));
  CO_TRY_ASSIGN(auto upload, co_await read_upload(bucket->info.id, key, id));
  ChecksumAlgorithm checksum = upload.algorithm;
  if (checksum == ChecksumAlgorithm::none) checksum = options.checksum;
  if (options.checksum != ChecksumAlgorithm::none && options.checksum != checksum) {
    co_return fail(Code::invalid_argument, "checksum: the upload uses {}", checksum_name(static_cast<ChecksumKind>(checksum)));
  }
  BodyLimits limits{
      .inline_limit = 0, .size_max = kPartSizeMax, .size = options.size, .redundancy = {}, .pack_limit = bucket->info.policy.pack_limit};
  CO_TRY_ASSIGN(limits.redundancy, redundancy_of(bucket->info.policy));
  co_return std::unique_ptr<ObjectWriter>(std::make_unique<PartWriter>(*this, context, std::move(bucket), std::move(key), std::move(id),
                                                                       number, checksum, options, std::move(limits)));
}

Task<Result<PartListPage>> Engine::list_parts(const RequestContext& ctx, std::string bucket_name, std::string key, std::string upload_id,
                                              uint32_t after, size_t limit) {
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  CO_TRY_ASSIGN(auto id, parse_upload_id(upload_id));
  CO_TRY_ASSIGN(auto upload, co_await read_upload(bucket->info.id, key, id));
  limit = std::min(limit, kListLimitMax);
  PartListPage page;
  page.upload = to_info(upload, std::move(key), id);
  if (limit == 0 || after >= kPartNumberMax) co_return page;
  meta::KeyRange range = part_rows(id);
  range.begin = part_key(id, after + 1);
  meta::RowBatches batches(meta(), std::move(range));
  while (!page.truncated) {
    batches.set_batch(limit + 1 - page.parts.size());
    CO_TRY_ASSIGN(auto rows, co_await batches.next());
    if (rows.empty()) break;
    for (const auto& row : rows) {
      if (page.parts.size() == limit) {
        page.truncated = true;
        break;
      }
      CO_TRY_ASSIGN(auto part, decode_part(row.value));
      page.parts.push_back(quarry::object::to_info(part));
    }
  }
  if (page.truncated) page.next_marker = page.parts.back().number;
  co_return page;
}

Task<Result<UploadListPage>> Engine::list_uploads(const RequestContext& ctx, std::string bucket_name, UploadListOptions options) {
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  const BucketId id = bucket->info.id;
  const size_t limit = std::min(options.limit, kListLimitMax);
  UploadListPage page;
  if (limit == 0) co_return page;
  meta::KeyRange range = prefix_rows(RowKind::upload, id, options.prefix);
  const bool in_group =
      options.key_marker.starts_with(options.prefix) && !common_prefix(options.key_marker, options.prefix, options.delimiter).empty();
  if (!options.key_marker.empty() && !options.upload_marker.empty() && !in_group) {
    auto marker = parse_upload_id(options.upload_marker);
    if (!marker) co_return fail(Code::invalid_argument, "upload id marker '{}' is not one of ours", options.upload_marker.substr(0, 64));
    range.begin = std::max(range.begin, meta::key_after(upload_key(id, options.key_marker, *marker)));
  } else {
    range.begin = first_row_after(RowKind::upload, id, options.key_marker, options.prefix, options.delimiter);
  }
  if (range.begin >= range.end) co_return page;
  CO_TRY_ASSIGN(auto snapshot, co_await meta().snapshot());
  RowStream rows(*snapshot, std::move(range));
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* row, co_await rows.peek());
    if (row == nullptr) break;
    if (page.uploads.size() + page.common_prefixes.size() >= limit) {
      page.truncated = true;
      break;
    }
    CO_TRY_ASSIGN(auto parsed, parse_row_key(row->key));
    const std::string group(common_prefix(parsed.key, options.prefix, options.delimiter));
    if (!group.empty()) {
      page.common_prefixes.push_back(group);
      page.next_key_marker = group;
      page.next_upload_marker.clear();
      rows.seek(after_prefix(RowKind::upload, id, group));
      continue;
    }
    CO_TRY_ASSIGN(auto record, decode_upload(row->value));
    page.next_key_marker = parsed.key;
    page.next_upload_marker = upload_id_text(parsed.upload_id);
    page.uploads.push_back(to_info(record, std::move(parsed.key), parsed.upload_id));
    rows.pop();
  }
  if (!page.truncated) {
    page.next_key_marker.clear();
    page.next_upload_marker.clear();
  }
  co_return page;
}

Task<Result<void>> Engine::abort_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id) {
  const RequestContext context = ctx;
  CO_TRY(co_await fresh_bucket(bucket));
  CO_TRY_ASSIGN(auto id, parse_upload_id(upload_id));
  AbortUpload change(key, id);
  auto done = co_await run_change(context, std::move(bucket), 0, key, change);
  co_return done;
}

}  // namespace quarry::object
