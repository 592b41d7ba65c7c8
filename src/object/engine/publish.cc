#include "object/engine/publish.h"

namespace quarry::object {

std::string layout_owner(BucketId bucket, std::string_view key, uint64_t unique) {
  constexpr size_t kKeyShown = 128;  // the row is for people; the whole key would double its size
  return fmt::format("{}/{:016x}/{}", bucket, unique, key.substr(0, kKeyShown));
}

Task<Result<bool>> PublishVersion::find_own(KeyRows& rows) {
  if (rows.current() && rows.current()->unique == record_.unique) {
    record_ = *rows.current();
    co_return true;
  }
  for (const Sequence sequence : tried_) {
    CO_TRY_ASSIGN(auto found, co_await rows.noncurrent(sequence));
    if (found && found->unique == record_.unique) {
      record_ = std::move(*found);
      co_return true;
    }
  }
  co_return false;
}

Task<Result<Applied>> PublishVersion::apply(ChangeContext& context) {
  KeyRows rows(context.transaction, context.data, context.bucket.id, key_, context.usage);
  CO_TRY(co_await rows.load());
  if (is_unknown()) {
    tried_.push_back(record_.sequence);
    CO_TRY_ASSIGN(const bool happened, co_await find_own(rows));
    if (happened) co_return Applied::nothing_to_write;
    // Done, and undone since? Then the key may look as it did, and the data is on its way out.
    if (record_.layout) {
      CO_TRY_ASSIGN(const bool undone, co_await context.data.was_retired(context.transaction, *record_.layout));
      if (undone) co_return fail(Code::unknown_outcome, "key '{}': it was written, and overwritten or deleted at once", key_);
    }
  }
  const Versioning versioning = context.bucket.versioning;
  CO_TRY_ASSIGN(const Sequence sequence, co_await rows.next_sequence(context.now, versioning != Versioning::off));
  remember(rows.seen());
  CO_TRY(still_as_seen(key_));
  CO_TRY(check_write_conditions(conditions_, rows.current() ? &*rows.current() : nullptr, key_));
  CO_TRY(co_await prepare(context));

  former_ = {.layout = rows.current() ? rows.current()->layout : std::nullopt, .row = {}};
  record_.sequence = sequence;
  record_.null_version = versioning != Versioning::enabled;
  if (record_.null_version) {
    CO_TRY(co_await rows.discard_null());
  }
  // What is discarded is retired, and goes with its file. What stays is known to no other row as perhaps still shown.
  if (rows.current()) ask_to_hide(context.transaction, context.data, context.bucket.id, key_, context.now, former_);
  rows.demote_current();
  CO_TRY(co_await write_payload(context, rows));
  rows.count(record_);
  rows.set_current(record_);
  co_return Applied::commit;
}

}  // namespace quarry::object
