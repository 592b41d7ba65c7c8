#include "meta/leases.h"

#include "base/coding.h"

namespace quarry::meta {
namespace {

Result<void> check_names(const std::string& name, const std::string& holder) {
  if (name.empty() || holder.empty()) return fail(Code::invalid_argument, "a lease needs a name and a holder");
  if (name.size() > kLeaseNameMax || holder.size() > kLeaseHolderMax) return fail(Code::too_large, "a lease's name or holder is too long");
  return {};
}

std::string encode(Version epoch, int64_t expires_at, std::string_view holder) {
  std::string out;
  Encoder(out).key_u64(epoch).u64(static_cast<uint64_t>(expires_at)).bytes(bytes_of(holder));
  return out;
}

}  // namespace

Result<LeaseRow> LeaseRow::decode(std::string_view value) {
  Decoder in(value);
  LeaseRow row;
  row.grant.epoch = in.key_u64();
  row.grant.expires_at = static_cast<int64_t>(in.u64());
  TRY(in.check("a lease row"));
  row.grant.holder = std::string(text_of(in.rest()));
  return row;
}

Task<Result<LeaseGrant>> take_lease(std::unique_ptr<Transaction> transaction, std::string name, std::string holder, WallTime now,
                                    Duration duration) {
  CO_TRY(check_names(name, holder));
  if (duration <= Duration::zero()) co_return fail(Code::invalid_argument, "a lease lasts longer than nothing");
  CO_TRY_ASSIGN(const std::optional<std::string> old, co_await transaction->get(name));
  LeaseGrant grant{holder, 0, now + std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count()};
  if (old) {
    CO_TRY_ASSIGN(const LeaseRow row, LeaseRow::decode(*old));
    const bool live = row.grant.expires_at > now;
    if (live && row.grant.holder != holder) {
      co_return fail(Code::busy, "lease '{}' is held by '{}' with epoch {} until {} ns", name, row.grant.holder, row.grant.epoch,
                     row.grant.expires_at);
    }
    if (live) grant.epoch = row.grant.epoch;
  }
  std::string value = encode(grant.epoch, grant.expires_at, holder);
  if (grant.epoch != 0) {
    transaction->put(std::move(name), std::move(value));
  } else {
    transaction->put_versionstamped(std::move(name), std::move(value), 0);
  }
  CO_TRY_ASSIGN(const Version version, co_await transaction->commit());
  if (grant.epoch == 0) grant.epoch = version;
  co_return grant;
}

Task<Result<void>> drop_lease(std::unique_ptr<Transaction> transaction, std::string name, std::string holder) {
  CO_TRY(check_names(name, holder));
  CO_TRY_ASSIGN(const std::optional<std::string> old, co_await transaction->get(name));
  if (!old) co_return fail(Code::not_found, "lease '{}' is not held", name);
  CO_TRY_ASSIGN(const LeaseRow row, LeaseRow::decode(*old));
  if (row.grant.holder != holder)
    co_return fail(Code::not_found, "lease '{}' is held by '{}', not by '{}'", name, row.grant.holder, holder);
  transaction->remove(std::move(name));
  CO_TRY(co_await transaction->commit());
  co_return Result<void>();
}

}  // namespace quarry::meta
