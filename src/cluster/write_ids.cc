#include "cluster/write_ids.h"

#include "base/log.h"
#include "cluster/keys.h"

namespace quarry::cluster {
namespace {

Task<Result<void>> lease(meta::Transaction& transaction, uint64_t session, WriteId* first) {
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await transaction.get(keys::next_write_id()));
  WriteId next = 1;
  if (row) {
    if (row->size() != 8) co_return fail(Code::corrupt, "row of the next write id has {} bytes", row->size());
    next = load_le<uint64_t>(bytes_of(*row).data());
  }
  if ((next + WriteIds::kBlock) >> 56 != 0) co_return fail(Code::no_space, "all 2^56 write ids are used up");
  *first = next;
  std::string value;
  Encoder(value).u64(next + WriteIds::kBlock);
  transaction.put(keys::next_write_id(), std::move(value));
  std::string end;
  Encoder(end).u64(next + WriteIds::kBlock);
  transaction.put(keys::session(session, next), std::move(end));
  co_return Result<void>();
}

}  // namespace

bool WriteIds::try_take(WriteId& id) {
  std::lock_guard lock(mutex_);
  if (next_ == end_) {
    next_ = std::exchange(later_, 0);
    end_ = std::exchange(later_end_, 0);
  }
  if (next_ < end_) {
    id = next_++;
    if (end_ - next_ > kBlock / 4 || later_ != 0 || refilling_) return true;
    refilling_ = true;
    background_.spawn(refill_early());
    return true;
  }
  return false;
}

Task<void> WriteIds::refill_early() {
  Result<void> done = co_await refill();
  if (!done) LOG_WARNING("write ids could not be leased early", {"error", done.error().to_string()});
  std::lock_guard lock(mutex_);
  refilling_ = false;
}

Task<Result<void>> WriteIds::refill() {
  WriteId first = 0;
  const uint64_t session = session_;
  auto body = [session, &first](meta::Transaction& transaction) { return lease(transaction, session, &first); };
  Result<meta::Version> version = co_await meta::transact(meta_, body);
  if (!version && version.error().code() == Code::unknown_outcome) {  // the ids may be leased: skip them
    version = co_await meta::transact(meta_, body);
  }
  if (!version) co_return std::move(version).error();
  std::lock_guard lock(mutex_);
  first_leased_ = std::min(first_leased_, first);
  if (later_ == later_end_) {
    later_ = first;
    later_end_ = first + kBlock;
  }
  co_return Result<void>();
}

Task<Result<WriteId>> WriteIds::take() {
  WriteId id = 0;
  while (!try_take(id)) CO_TRY(co_await on(background_.home(), refill_in_turn()));
  co_return id;
}

Task<Result<void>> WriteIds::refill_in_turn() {
  co_await turn_.acquire();
  Result<void> done;
  if (!has_ids()) done = co_await refill();
  turn_.release();
  co_return done;
}

bool WriteIds::has_ids() {
  std::lock_guard lock(mutex_);
  return next_ < end_ || later_ != 0;
}

Task<Result<void>> WriteIds::end_session() {
  const uint64_t session = session_;
  auto body = [session](meta::Transaction& transaction) -> Task<Result<void>> {
    return [](meta::Transaction* t, uint64_t s) -> Task<Result<void>> {
      t->remove_range({keys::session(s, 0), keys::session(s + 1, 0)});
      co_return Result<void>();
    }(&transaction, session);
  };
  Result<meta::Version> version = co_await meta::transact(meta_, body);
  if (!version) co_return std::move(version).error();
  co_return Result<void>();
}

}  // namespace quarry::cluster
