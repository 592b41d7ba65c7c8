// WriteIds: gives out the ids of writes, never twice, in any life of the cluster. Ids are leased in blocks by a durable transaction that
// also writes a session row: the row is the intent that covers every write with an id of the block. After an unclean end the next start
// looks at every data chunk in the blocks that have a row, and removes those that no data row names.
//
// Every id that was taken is told of once more when its write is decided: it is referenced by a committed data row, or nothing of it is
// left on any drive. A block whose ids are all given out and decided needs no row any more; so what a start has to look through does not
// grow with the time since the last clean end. A clean close removes the rest, but for blocks with a write of which nobody knows.
//
// The metadata may go back: a loss was accepted, and ids that it does not know of were given out; what was put and removed under them must
// not be put again. A start that accepts a loss is durable in one thing before all others, the epoch of the log, which it sets forward by
// kEpochsSkippedAfterLoss. So each lease writes the epoch it was made in, and the next one skips ids for each such distance between them,
// whichever start makes it. take(), decided(), leave_open() are thread-safe.
#pragma once
#include <map>
#include <mutex>

#include "cluster/map/chunk_ids.h"
#include "io/background.h"
#include "io/sync.h"
#include "meta/meta_store.h"

namespace quarry::cluster {

class WriteIds {
 public:
  // session: epoch of the log. block: ids leased at a time.
  WriteIds(meta::MetaStore& meta, uint64_t session, Background& background, uint32_t block)
      : meta_(meta), session_(session), background_(background), block_(block) {}
  uint64_t session() const { return session_; }
  // No id was leased since a loss was accepted, if one was: the start that did it may have come to nothing, but for the epoch of the log.
  Task<Result<bool>> may_have_gone_back();
  // Errors: those of the transaction (unavailable, ...).
  Task<Result<WriteId>> take();
  // The write of an id that was taken is committed, and so that a start finds nothing to do for it; or nothing of it is on a drive that no
  // row explains.
  void decided(WriteId id);
  // It may have left something that only a start finds: the row of its block stays. Of ids of older sessions, or that were decided: nothing
  // to do.
  void leave_open(WriteId id);
  // The session's rows go, but for those of blocks with undecided writes. No take() afterwards.
  Task<Result<void>> end_session();

 private:
  struct Block {
    uint32_t taken = 0, undecided = 0;  // ids
    bool open = false;                  // for the next start
  };
  // Of an id that is in a block without a row: end().
  std::map<WriteId, Block>::iterator block_of(WriteId id);
  bool add_block(WriteId first);
  // Removes the row of a block that needs none any more.
  Task<void> retire(WriteId first);
  Task<Result<void>> refill();
  // One at a time, on home: writers that all find no id must not race for one counter until some of them give up.
  Task<Result<void>> refill_in_turn();
  Task<void> refill_early();
  bool has_ids();
  bool try_take(WriteId& id);

  meta::MetaStore& meta_;
  const uint64_t session_;
  Background& background_;
  const uint32_t block_;
  Semaphore turn_{1};  // confined to home
  std::mutex mutex_;
  WriteId next_ = 0, end_ = 0;         // current block
  WriteId later_ = 0, later_end_ = 0;  // the one after it, leased early
  bool refilling_ = false;
  std::map<WriteId, Block> blocks_;  // with a row, by first id
};

// An id that was taken: left open unless somebody says that its write is decided.
class TakenId {
 public:
  TakenId(WriteIds& ids, WriteId id) : ids_(ids), id_(id) {}
  ~TakenId() {
    if (decided_)
      ids_.decided(id_);
    else
      ids_.leave_open(id_);
  }
  TakenId(const TakenId&) = delete;
  void set_decided(bool decided = true) { decided_ = decided; }

 private:
  WriteIds& ids_;
  const WriteId id_;
  bool decided_ = false;
};

}  // namespace quarry::cluster
