// put: one body, one version.
#include "object/engine/body.h"
#include "object/engine/publish.h"

namespace quarry::object {
namespace {

class PublishBody : public PublishVersion {
 public:
  PublishBody(std::string key, VersionRecord record, Conditions conditions, ByteView inline_bytes)
      : PublishVersion(std::move(key), std::move(record), std::move(conditions)), inline_bytes_(inline_bytes) {}

 protected:
  Task<Result<void>> prepare(ChangeContext&) override { co_return Result<void>(); }
  Task<Result<void>> write_payload(ChangeContext& context, KeyRows& rows) override {
    if (record_.payload == PayloadKind::inlined) rows.put_inline_payload(record_, inline_bytes_);
    if (record_.layout) context.data.record(context.transaction, *record_.layout, layout_owner(context.bucket.id, key_, record_.unique));
    co_return Result<void>();
  }

 private:
  ByteView inline_bytes_;
};

// While it lives, nothing of the record's data is removed: should the outcome of its commit be unknown, and the version be gone when it is
// looked for, what retired it is found.
std::unique_ptr<cluster::ReadGuard> keep_in_doubt(Engine& engine, const VersionRecord& record) {
  if (!record.layout) return nullptr;
  auto guard = engine.data().guard_reads();
  if (guard != nullptr) guard->narrow({record.layout->write_id});
  return guard;
}

class PutWriter final : public ObjectWriter {
 public:
  PutWriter(Engine& engine, const RequestContext& ctx, BucketRef bucket, std::string key, PutOptions options, BodyLimits limits)
      : engine_(engine),
        ctx_(ctx),
        bucket_(std::move(bucket)),
        key_(std::move(key)),
        options_(std::move(options)),
        body_(engine, std::move(limits), options_.checksum, options_.compute_sha256) {}

  Task<Result<void>> write(Buffer data) override { return body_.write(std::move(data)); }

  Task<Result<ObjectInfo>> finish(Expected expected) override {
    CO_TRY_ASSIGN(auto body, co_await body_.finish(std::move(expected)));
    VersionRecord record;
    record.unique = engine_.random();
    record.size = body.size;
    record.modified = engine_.wall_now();
    record.md5 = std::move(body.digests.md5);
    record.payload = body.kind;
    record.layout = std::move(body.layout);
    if (options_.checksum != ChecksumAlgorithm::none) {
      record.checksum = {.algorithm = options_.checksum, .type = ChecksumType::full_object, .value = std::move(body.digests.checksum)};
    }
    record.owner = std::move(options_.owner);
    record.storage_class = options_.metadata.storage_class;
    record.metadata = std::move(options_.metadata);
    record.tags = std::move(options_.tags);

    const auto kept = keep_in_doubt(engine_, record);
    PublishBody change(key_, std::move(record), std::move(options_.conditions), body_.inline_bytes());
    auto done = co_await engine_.run_change(ctx_, bucket_->info.name, bucket_->info.id, key_, change);
    if (!done) {
      if (done.error().code() == Code::unknown_outcome) body_.settle();
      co_return std::move(done).error();
    }
    body_.keep();
    co_await engine_.settle_name(bucket_->info.id, key_, change.former());
    co_return to_info(change.record(), key_, true);
  }

  Task<Result<PartInfo>> finish_part(Expected) override { co_return fail(Code::internal, "finish_part on the writer of a whole object"); }

 private:
  Engine& engine_;
  const RequestContext ctx_;
  const BucketRef bucket_;
  const std::string key_;
  PutOptions options_;
  BodyReceiver body_;
};

}  // namespace

Task<Result<std::unique_ptr<ObjectWriter>>> Engine::put(const RequestContext& ctx, std::string bucket_name, std::string key,
                                                        PutOptions options) {
  CO_TRY(check_object_key(key));
  CO_TRY(check_put_options(options));
  const RequestContext context = ctx;
  CO_TRY_ASSIGN(auto bucket, co_await open_bucket(std::move(bucket_name)));
  const BucketPolicy& policy = bucket->info.policy;
  BodyLimits limits{.inline_limit = policy.inline_limit, .size = options.size, .pack_limit = policy.pack_limit};
  if (options.size && *options.size > policy.inline_limit) limits.inline_limit = 0;
  if (data().files().on_some_drives()) {
    limits.file = {.directory = bucket->info.name, .name = key};
    limits.whole_file = data().files().on_all_drives();
    if (limits.whole_file) limits.inline_limit = 0;
  }
  CO_TRY_ASSIGN(limits.redundancy, redundancy_of(policy));
  // A quota that this body alone exceeds is told before its bytes come.
  if (options.size && bucket->info.quota.bytes != 0 && *options.size > bucket->info.quota.bytes) {
    co_return fail(Code::quota_exceeded, "bucket '{}': {} bytes wanted, the quota is {}", bucket->info.name, *options.size,
                   bucket->info.quota.bytes);
  }
  // So is a condition that does not hold now, before a large body is taken; the transaction checks it again.
  if (!options.conditions.empty() && (!options.size || *options.size > policy.pack_limit)) {
    CO_TRY_ASSIGN(auto row, co_await meta().get(current_key(bucket->info.id, key)));
    std::optional<VersionRecord> current;
    if (row) {
      CO_TRY_ASSIGN(current, decode_version_head(*row));
    }
    CO_TRY(check_write_conditions(options.conditions, current ? &*current : nullptr, key));
  }
  co_return std::unique_ptr<ObjectWriter>(
      std::make_unique<PutWriter>(*this, context, std::move(bucket), std::move(key), std::move(options), std::move(limits)));
}

Task<Result<ObjectInfo>> Engine::adopt(const RequestContext& ctx, std::string bucket_name, std::string key, AdoptSource source) {
  CO_TRY(check_object_key(key));
  const RequestContext context = ctx;
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  // What is there is not replaced by the way, unless it is what this file was before it changed.
  Conditions conditions;
  CO_TRY_ASSIGN(auto present, co_await meta().get(current_key(bucket->info.id, key)));
  if (!present) {
    conditions.if_none_match.push_back("*");
  } else {
    CO_TRY_ASSIGN(const VersionRecord current, decode_version(*present));
    // Adopted already, by a run that was interrupted: done.
    bool same = false;
    if (current.layout) {
      CO_TRY_ASSIGN(same, co_await data().files().is_adopted(*current.layout, cluster::FileService::At{source.drive, source.path}));
    }
    if (same) co_return to_info(current, std::move(key), true);
    cluster::FileState state = cluster::FileState::elsewhere;
    if (current.layout) {
      CO_TRY_ASSIGN(state, co_await data().files().state(*current.layout));
    }
    if (!source.replace && state != cluster::FileState::changed && state != cluster::FileState::vanished) {
      co_return fail(
          Code::already_exists,
          "bucket '{}' has an object '{}' already: both were left as they are; adopt into another bucket, or again with --replace",
          bucket->info.name, key);
    }
    conditions.if_match.push_back(current.etag());
  }
  cluster::AdoptOptions options{
      .drive = source.drive, .path = std::move(source.path), .file = {.directory = bucket->info.name, .name = key}};
  CO_TRY_ASSIGN(auto adoption, co_await data().files().adopt(std::move(options)));
  VersionRecord record;
  record.unique = random();
  record.size = adoption.layout.size;
  record.modified = adoption.modified_ns;
  record.md5 = std::move(adoption.md5);
  record.payload = PayloadKind::data;
  record.layout = adoption.layout;
  record.owner = std::move(source.owner);
  const auto kept = keep_in_doubt(*this, record);
  PublishBody change(key, std::move(record), std::move(conditions), {});
  auto done = co_await run_change(context, bucket->info.name, bucket->info.id, key, change);
  if (!done) {
    if (done.error().code() == Code::unknown_outcome) adoption.writer->settle();
    co_return std::move(done).error();
  }
  adoption.writer->keep();
  co_await settle_name(bucket->info.id, key, change.former());
  co_return to_info(change.record(), std::move(key), true);
}

Task<Result<AdoptedState>> Engine::adopted_state(const RequestContext& ctx, std::string bucket_name, std::string key) {
  AdoptedState state;
  CO_TRY_ASSIGN(auto bucket, co_await open_bucket(std::move(bucket_name)));
  CO_TRY_ASSIGN(auto row, co_await meta().get(current_key(bucket->info.id, key)));
  if (!row) co_return state;
  CO_TRY_ASSIGN(const VersionRecord record, decode_version(*row));
  if (!record.layout) co_return state;
  CO_TRY_ASSIGN(state.state, co_await data().files().state(*record.layout));
  if (state.state != cluster::FileState::changed && state.state != cluster::FileState::vanished) co_return state;
  CO_TRY(co_await data().files().let_go(*record.layout));
  state.let_go = true;
  co_return state;
}

}  // namespace quarry::object
