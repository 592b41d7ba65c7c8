#include "cluster/stripes/write_ids.h"

#include "base/log.h"
#include "cluster/log/metadata_log_roots.h"
#include "cluster/map/keys.h"

namespace quarry::cluster {
namespace {

// More than were given out behind any state that may come back; there are 2^24 times as many.
constexpr uint64_t kSkippedAfterLoss = uint64_t{1} << 32;

// To be skipped by the first lease after one that was made in the epoch `last`. Once for a loss, or more: each of several losses may take
// back the lease that skipped for the one before. A thousand starts without a lease count as one, too, which does no harm.
uint64_t ids_to_skip(uint64_t last, uint64_t now) { return now < last ? 0 : (now - last) / kEpochsSkippedAfterLoss * kSkippedAfterLoss; }

Result<uint64_t> epoch_of(const std::optional<std::string>& row) {
  if (!row) return 1;  // none yet, or by an earlier program: the first of any store
  if (row->size() != 8) return fail(Code::corrupt, "row of the newest lease has {} bytes", row->size());
  return load_le<uint64_t>(bytes_of(*row).data());
}

Task<Result<void>> lease(meta::Transaction& transaction, uint64_t session, uint32_t block, WriteId* first) {
  CO_TRY_ASSIGN(std::optional<std::string> row, co_await transaction.get(keys::next_write_id()));
  WriteId next = 1;
  if (row) {
    if (row->size() != 8) co_return fail(Code::corrupt, "row of the next write id has {} bytes", row->size());
    next = load_le<uint64_t>(bytes_of(*row).data());
  }
  CO_TRY_ASSIGN(std::optional<std::string> leased, co_await transaction.get(keys::leased()));
  CO_TRY_ASSIGN(const uint64_t epoch, epoch_of(leased));
  next += ids_to_skip(epoch, session);
  if ((next + block) >> 56 != 0) co_return fail(Code::no_space, "all 2^56 write ids are used up");
  *first = next;
  std::string value;
  Encoder(value).u64(next + block);
  transaction.put(keys::next_write_id(), std::move(value));
  std::string end;
  Encoder(end).u64(next + block);
  transaction.put(keys::session(session, next), std::move(end));
  std::string now;
  Encoder(now).u64(session);
  transaction.put(keys::leased(), std::move(now));
  co_return Result<void>();
}

}  // namespace

Task<Result<bool>> WriteIds::may_have_gone_back() {
  CO_TRY_ASSIGN(const std::optional<std::string> leased, co_await meta_.get(keys::leased()));
  CO_TRY_ASSIGN(const uint64_t epoch, epoch_of(leased));
  co_return ids_to_skip(epoch, session_) > 0;
}

bool WriteIds::try_take(WriteId& id) {
  {
    std::lock_guard lock(mutex_);
    if (next_ == end_) {
      next_ = std::exchange(later_, 0);
      end_ = std::exchange(later_end_, 0);
    }
    if (next_ >= end_) return false;
    id = next_++;
    Block& block = block_of(id)->second;
    ++block.taken;
    ++block.undecided;
    if (end_ - next_ > block_ / 4 || later_ != 0 || refilling_) return true;
    refilling_ = true;
  }
  background_.spawn(refill_early());  // without the lock: on the home executor it may run to its end at once
  return true;
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
  const uint32_t block = block_;
  auto body = [=, &first](meta::Transaction& transaction) { return lease(transaction, session, block, &first); };
  Result<meta::Version> version = co_await meta::transact(meta_, body);
  if (!version && version.error().code() == Code::unknown_outcome) {  // the ids may be leased: skip them
    const WriteId skipped = first;
    version = co_await meta::transact(meta_, body);
    if (version && skipped != first) background_.spawn(retire(skipped));
  }
  if (!version) co_return std::move(version).error();
  if (!add_block(first)) background_.spawn(retire(first));
  co_return Result<void>();
}

bool WriteIds::add_block(WriteId first) {
  std::lock_guard lock(mutex_);
  if (later_ != later_end_) return false;  // another was faster
  later_ = first;
  later_end_ = first + block_;
  blocks_.emplace(first, Block());
  return true;
}

std::map<WriteId, WriteIds::Block>::iterator WriteIds::block_of(WriteId id) {
  auto block = blocks_.upper_bound(id);
  if (block == blocks_.begin()) return blocks_.end();
  --block;
  return id - block->first < block_ ? block : blocks_.end();
}

void WriteIds::decided(WriteId id) {
  WriteId first = 0;
  {
    std::lock_guard lock(mutex_);
    const auto found = block_of(id);
    CHECK(found != blocks_.end() && found->second.undecided > 0, "a write is decided once");
    Block& block = found->second;
    --block.undecided;
    if (block.taken < block_ || block.undecided > 0 || block.open || background_.stopping()) return;
    first = found->first;
    blocks_.erase(found);
  }
  background_.spawn(retire(first));
}

void WriteIds::leave_open(WriteId id) {
  std::lock_guard lock(mutex_);
  if (const auto block = block_of(id); block != blocks_.end()) block->second.open = true;
}

Task<void> WriteIds::retire(WriteId first) {
  std::string row = keys::session(session_, first);
  auto body = [&row](meta::Transaction& transaction) -> Task<Result<void>> {
    return [](meta::Transaction* t, std::string key) -> Task<Result<void>> {
      t->remove(key);
      co_return Result<void>();
    }(&transaction, row);
  };
  Result<meta::Version> version = co_await meta::transact(meta_, body);
  if (!version) LOG_DEBUG("the row of a block of write ids stays until the session ends", {"error", version.error().to_string()});
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
  std::vector<meta::KeyRange> ended;
  {
    std::lock_guard lock(mutex_);
    WriteId from = 0;
    for (const auto& [first, block] : blocks_) {
      if (block.undecided == 0 && !block.open) continue;
      ended.push_back({keys::session(session_, from), keys::session(session_, first)});
      from = first + 1;
    }
    ended.push_back({keys::session(session_, from), keys::session(session_ + 1, 0)});
  }
  auto body = [&ended](meta::Transaction& transaction) -> Task<Result<void>> {
    return [](meta::Transaction* t, std::vector<meta::KeyRange> ranges) -> Task<Result<void>> {
      for (meta::KeyRange& range : ranges) t->remove_range(std::move(range));
      co_return Result<void>();
    }(&transaction, ended);
  };
  Result<meta::Version> version = co_await meta::transact(meta_, body);
  if (!version) co_return std::move(version).error();
  co_return Result<void>();
}

}  // namespace quarry::cluster
