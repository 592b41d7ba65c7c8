// WriteIds: gives out the ids of writes, never twice, in any life of the cluster. Ids are leased in blocks by a durable transaction that
// also writes a session row: the row is the intent that covers every write with an id of the block. A clean close removes the session's
// rows; after an unclean end the next start looks at every data chunk in the blocks and removes those that no data row names.
// take() is thread-safe.
#pragma once
#include <mutex>

#include "cluster/background.h"
#include "cluster/chunk_ids.h"
#include "io/sync.h"
#include "meta/meta_store.h"

namespace quarry::cluster {

class WriteIds {
 public:
  static constexpr uint64_t kBlock = 1 << 16;
  WriteIds(meta::MetaStore& meta, uint64_t session, Background& background) : meta_(meta), session_(session), background_(background) {}
  uint64_t session() const { return session_; }
  // Errors: those of the transaction (unavailable, ...).
  Task<Result<WriteId>> take();
  // Smallest id leased by this session: every id from it on is this session's. UINT64_MAX: none was leased.
  WriteId first_leased() {
    std::lock_guard lock(mutex_);
    return first_leased_;
  }
  // The session's rows go: nothing it wrote is unaccounted for. No take() afterwards.
  Task<Result<void>> end_session();

 private:
  Task<Result<void>> refill();
  // One at a time, on home: writers that all find no id must not race for one counter until some of them give up.
  Task<Result<void>> refill_in_turn();
  Task<void> refill_early();
  bool has_ids();
  bool try_take(WriteId& id);

  meta::MetaStore& meta_;
  const uint64_t session_;
  Background& background_;
  Semaphore turn_{1};  // confined to home
  std::mutex mutex_;
  WriteId next_ = 0, end_ = 0;         // current block
  WriteId later_ = 0, later_end_ = 0;  // the one after it, leased early
  bool refilling_ = false;
  WriteId first_leased_ = UINT64_MAX;
};

}  // namespace quarry::cluster
