// remove, remove_many, set_tags.
#include "object/engine/publish.h"

namespace quarry::object {
namespace {

constexpr size_t kBatchMax = 100;  // deletes in one transaction

class RemoveObject : public KeyChange {
 public:
  RemoveObject(DeleteTarget target, std::optional<VersionId> version, uint64_t unique, WallTime now)
      : target_(std::move(target)), version_(version), unique_(unique), now_(now) {}

  Task<Result<Applied>> apply(ChangeContext& context) override {
    KeyRows rows(context.transaction, context.data, context.bucket.id, target_.key, context.usage);
    CO_TRY(co_await rows.load());
    FormerFile former{.layout = rows.current() ? rows.current()->layout : std::nullopt, .row = {}};
    bucket_ = context.bucket.id;
    Result<Applied> applied = Applied::nothing_to_write;
    if (version_) {
      applied = co_await remove_version(rows, context.bucket.versioning);
    } else if (context.bucket.versioning == Versioning::off) {
      applied = co_await remove_plain(rows);
    } else {
      applied = co_await add_marker(context, rows);
    }
    if (applied && *applied == Applied::commit) {
      ask_to_hide(context.transaction, context.data, bucket_, target_.key, context.now, former);
      former_ = std::move(former);
    }
    co_return applied;
  }
  const DeleteOutcome& outcome() const { return outcome_; }
  const std::string& key() const { return target_.key; }
  BucketId bucket() const { return bucket_; }
  const FormerFile& former() const { return former_; }  // of the latest try that had something to write

 private:
  Task<Result<Applied>> remove_plain(KeyRows& rows) {
    remember(rows.seen());
    if (!rows.current()) {
      // After an unknown outcome: gone, by this delete or by another.
      if (!is_unknown()) {
        CO_TRY(check_delete_conditions(target_.conditions, nullptr, target_.key));
      }
      co_return Applied::nothing_to_write;
    }
    CO_TRY(still_as_seen(target_.key));
    CO_TRY(check_delete_conditions(target_.conditions, &*rows.current(), target_.key));
    CO_TRY(co_await rows.discard_current());
    co_return Applied::commit;
  }

  // The key gets a delete marker; where versioning is suspended it takes the place of the null version.
  Task<Result<Applied>> add_marker(ChangeContext& context, KeyRows& rows) {
    if (is_unknown()) {
      CO_TRY_ASSIGN(auto own, co_await rows.noncurrent(marker_.sequence));
      if (own && own->unique == unique_) co_return Applied::nothing_to_write;
    }
    CO_TRY_ASSIGN(const Sequence sequence, co_await rows.next_sequence(context.now, true));
    remember(rows.seen());
    CO_TRY(still_as_seen(target_.key));
    CO_TRY(check_delete_conditions(target_.conditions, rows.current() ? &*rows.current() : nullptr, target_.key));
    marker_ = {};
    marker_.sequence = sequence;
    marker_.unique = unique_;
    marker_.delete_marker = true;
    marker_.null_version = context.bucket.versioning == Versioning::suspended;
    marker_.modified = now_;
    if (marker_.null_version) {
      CO_TRY(co_await rows.discard_null());
    }
    rows.demote_current();
    rows.add_marker(marker_);
    outcome_ = {.version_id = to_text(marker_.version_id()), .delete_marker = true};
    co_return Applied::commit;
  }

  Task<Result<Applied>> remove_version(KeyRows& rows, Versioning versioning) {
    CO_TRY_ASSIGN(auto found, co_await rows.find(*version_));
    if (!is_unknown()) {
      const bool live = found && !found->delete_marker;
      CO_TRY(check_delete_conditions(target_.conditions, live ? &*found : nullptr, target_.key));
      outcome_ = {.version_id = target_.version_id, .delete_marker = found && found->delete_marker};
      unique_ = found ? found->unique : 0;
    }
    // A null version found after an unknown outcome may be a new one: ours is gone then.
    if (!found || (is_unknown() && found->unique != unique_)) co_return Applied::nothing_to_write;
    if (rows.current() && rows.current()->unique == found->unique) {
      CO_TRY(co_await rows.discard_current());
    } else {
      CO_TRY(co_await rows.discard_noncurrent(std::move(*found)));
    }
    // A bucket that never had versions has none to take its place; looking for one costs more than the rest.
    if (versioning != Versioning::off) {
      CO_TRY(co_await rows.promote());
    }
    co_return Applied::commit;
  }

  const DeleteTarget target_;
  const std::optional<VersionId> version_;
  uint64_t unique_;
  const WallTime now_;
  VersionRecord marker_;
  DeleteOutcome outcome_;
  BucketId bucket_ = 0;
  FormerFile former_;
};

Result<std::unique_ptr<RemoveObject>> prepare(Engine& engine, DeleteTarget target) {
  TRY(check_object_key(target.key));
  std::optional<VersionId> version;
  if (!target.version_id.empty()) {
    TRY_ASSIGN(version, parse_version_id(target.version_id));
  }
  return std::make_unique<RemoveObject>(std::move(target), version, engine.random(), engine.wall_now());
}

class ChangeTags : public KeyChange {
 public:
  ChangeTags(std::string key, std::optional<VersionId> version, Tags tags)
      : key_(std::move(key)), version_(version), tags_(std::move(tags)) {}

  Task<Result<Applied>> apply(ChangeContext& context) override {
    KeyRows rows(context.transaction, context.data, context.bucket.id, key_, context.usage);
    CO_TRY(co_await rows.load());
    std::optional<VersionRecord> record = rows.current();
    if (version_) {
      CO_TRY_ASSIGN(record, co_await rows.find(*version_));
      if (!record) co_return fail(Code::not_found, "version '{}' of key '{}'", to_text(*version_), key_);
      if (record->delete_marker) co_return fail(Code::unsupported, "delete marker {}", to_text(record->version_id()));
    }
    if (!record) {
      CO_TRY_ASSIGN(auto newest, co_await rows.newest_noncurrent());
      if (newest) co_return fail(Code::not_found, "delete marker {}", to_text(newest->version_id()));
      co_return fail(Code::not_found, "key '{}'", key_);
    }
    const bool is_current = rows.current() && rows.current()->unique == record->unique;
    const std::string before = encode(*record);
    record->tags = tags_;
    result = to_info(*record, key_, is_current);
    const std::string after = encode(*record);
    if (is_unknown() && before == after) co_return Applied::nothing_to_write;
    if (is_unknown() && before != before_) {
      co_return fail(Code::unknown_outcome, "key '{}': its tags may have changed before another change; read them, then repeat if needed",
                     key_);
    }
    before_ = before;
    if (is_current) {
      rows.set_current(std::move(*record));
    } else {
      rows.rewrite_noncurrent(*record);
    }
    co_return Applied::commit;
  }

  ObjectInfo result;

 private:
  const std::string key_;
  const std::optional<VersionId> version_;
  const Tags tags_;
  std::string before_;
};

}  // namespace

Task<Result<DeleteOutcome>> Engine::remove(const RequestContext& ctx, std::string bucket, DeleteTarget target) {
  CO_TRY_ASSIGN(auto change, prepare(*this, std::move(target)));
  CO_TRY(co_await run_change(ctx, std::move(bucket), 0, change->key(), *change));
  co_await settle_name(change->bucket(), change->key(), change->former());
  co_return change->outcome();
}

Task<std::vector<Result<DeleteOutcome>>> Engine::remove_many(const RequestContext& ctx, std::string bucket,
                                                             std::vector<DeleteTarget> targets) {
  const RequestContext context = ctx;
  std::vector<Result<DeleteOutcome>> results(targets.size(), Result<DeleteOutcome>(DeleteOutcome()));
  size_t next = 0;
  while (next < targets.size()) {
    // A batch has each key once: two deletes of one key happen one after the other.
    std::vector<std::unique_ptr<RemoveObject>> owned;
    std::vector<KeyChange*> changes;
    std::vector<size_t> places;
    std::set<std::string> keys;
    while (next < targets.size() && changes.size() < kBatchMax && !keys.contains(targets[next].key)) {
      keys.insert(targets[next].key);
      auto change = prepare(*this, std::move(targets[next]));
      if (change) {
        owned.push_back(std::move(*change));
        changes.push_back(owned.back().get());
        places.push_back(next);
      } else {
        results[next] = std::move(change).error();
      }
      ++next;
    }
    if (changes.empty()) continue;
    auto batch = co_await run_batch(context, bucket, changes);
    const bool one_by_one = !batch && (batch.error().code() == Code::conflict || batch.error().code() == Code::too_large);
    for (size_t i = 0; i < owned.size(); ++i) {
      RemoveObject& change = *owned[i];
      Result<void> done;
      if (one_by_one) {
        if (change.failure) {
          done = *std::exchange(change.failure, std::nullopt);
        }
        if (done || done.error().code() != Code::unknown_outcome) done = co_await run_change(context, bucket, 0, change.key(), change);
      } else if (!batch) {
        done = Error(batch.error());
      } else if (change.failure) {
        done = std::move(*change.failure);
      }
      if (done) co_await settle_name(change.bucket(), change.key(), change.former());
      results[places[i]] = done ? Result<DeleteOutcome>(change.outcome()) : Result<DeleteOutcome>(std::move(done).error());
    }
  }
  co_return results;
}

Task<Result<ObjectInfo>> Engine::set_tags(const RequestContext& ctx, std::string bucket, std::string key, std::string version_id,
                                          Tags tags) {
  CO_TRY(check_object_key(key));
  CO_TRY(check_put_options(PutOptions{.tags = tags}));
  std::optional<VersionId> version;
  if (!version_id.empty()) {
    CO_TRY_ASSIGN(version, parse_version_id(version_id));
  }
  ChangeTags change(key, version, std::move(tags));
  CO_TRY(co_await run_change(ctx, std::move(bucket), 0, key, change));
  co_return std::move(change.result);
}

}  // namespace quarry::object
