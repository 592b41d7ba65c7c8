// Changes: one edit of one key, applied in a transaction that may have to be begun again.
//
// Unknown outcomes. When a commit may or may not have happened, the change is applied again in a new transaction. Because each try
// reads the key's rows as conflicts, the new try settles the matter: if it finds its own trace (the unique number of its version),
// the change is done; if the key is as the earlier try saw it, the earlier commit has not happened, and cannot happen any more
// once the new one commits; only if the key looks otherwise can nobody tell, and the caller hears unknown_outcome.
#pragma once
#include "object/engine/key_rows.h"

namespace quarry::object {

struct ChangeContext {
  meta::Transaction& transaction;
  cluster::DataPlane& data;
  const BucketInfo& bucket;  // as this transaction sees it
  Sequence now = 0;          // unique in this engine, about the wall time in ns
  UsageDelta usage;          // filled by apply
};

enum class Applied : uint8_t { commit, nothing_to_write };

class KeyChange {
 public:
  virtual ~KeyChange() = default;
  // Decides and edits. Errors of class caller come before the first edit (in a batch only this change fails then).
  virtual Task<Result<Applied>> apply(ChangeContext& context) = 0;

  // The commit of the latest apply has an unknown outcome.
  void outcome_unknown() {
    unknown_ = true;
    seen_then_ = seen_;
  }
  bool is_unknown() const { return unknown_; }
  // The outcome in a batch.
  std::optional<Error> failure;

 protected:
  // What the rows that decide about the change look like in this try; see the head of this file.
  void remember(std::string seen) { seen_ = std::move(seen); }
  // After an unknown outcome, when no own trace was found: may the change be tried again?
  Result<void> still_as_seen(std::string_view key) const {
    if (!unknown_ || seen_ == seen_then_) return {};
    return fail(Code::unknown_outcome, "key '{}': its change may have happened before another one; read it, then repeat if needed", key);
  }

 private:
  bool unknown_ = false;
  std::string seen_, seen_then_;
};

}  // namespace quarry::object
