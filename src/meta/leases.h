// Leases as rows of their own space (space::kLease), for backends without leases of their own.
//
// Row: key = the lease's name; value = epoch u64 big-endian (a version stamp), expires_at i64 little-endian ns, holder to the end.
// The epoch is the version of the commit that made this holder the holder; a renewal keeps it. Since versions only grow, so do
// epochs, also over releases.
#pragma once
#include "io/clock.h"
#include "meta/optimistic.h"

namespace quarry::meta {

inline constexpr size_t kLeaseNameMax = 512;
inline constexpr size_t kLeaseHolderMax = 512;

struct LeaseRow {
  LeaseGrant grant;
  static Result<LeaseRow> decode(std::string_view value);
};

// One attempt inside a transaction over space::kLease: commits it. conflict: somebody else moved; begin again.
Task<Result<LeaseGrant>> take_lease(std::unique_ptr<Transaction> transaction, std::string name, std::string holder, WallTime now,
                                    Duration duration);
Task<Result<void>> drop_lease(std::unique_ptr<Transaction> transaction, std::string name, std::string holder);

}  // namespace quarry::meta
