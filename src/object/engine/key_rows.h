// KeyRows: the versions of one key inside one transaction, and the edits that keep their invariants:
//   - a current row (o) is live, and newer than every other version of its key;
//   - without a current row, the newest noncurrent row (v), if there is one, is a delete marker;
//   - at most one version is the null version; while it is a v row, the null pointer (n) says which;
//   - a version's payload rows and layouts live exactly as long as its row.
// Every row read here is a conflict of the transaction, so what an edit decides still holds when it commits.
#pragma once
#include "cluster/data_plane.h"
#include "meta/meta_store.h"
#include "object/engine/records.h"

namespace quarry::object {

// What a transaction changes in its bucket's counters, and whether it leaves data to be removed.
struct UsageDelta {
  int64_t objects = 0;
  int64_t bytes = 0;
  bool retired = false;
};

// The part list of a multipart version. `get` reads a row: outside a transaction, or inside one.
using RowReader = std::function<Task<Result<std::optional<std::string>>>(std::string)>;
Task<Result<std::vector<PartRecord>>> read_part_list(RowReader get, BucketId bucket, std::string key, VersionRecord version);

// Used by one task, inside the life of its transaction.
class KeyRows {
 public:
  KeyRows(meta::Transaction& transaction, cluster::DataPlane& data, BucketId bucket, std::string key, UsageDelta& usage)
      : transaction_(transaction), data_(data), bucket_(bucket), key_(std::move(key)), usage_(usage) {}

  // Reads the current row; before anything else.
  Task<Result<void>> load();
  const std::optional<VersionRecord>& current() const { return current_; }

  Task<Result<std::optional<VersionRecord>>> newest_noncurrent();
  Task<Result<std::optional<VersionRecord>>> noncurrent(Sequence sequence);
  Task<Result<std::optional<VersionRecord>>> find(VersionId id);  // wherever it is

  // A sequence newer than every version of the key, at least `now`. `versioned`: the bucket keeps or kept versions.
  Task<Result<Sequence>> next_sequence(Sequence now, bool versioned);

  // The key's state as this transaction saw it: equal bytes, equal state.
  const std::string& seen() const { return seen_; }

  // Edits.
  void set_current(VersionRecord record);  // a new version, or the same with other attributes
  void put_inline_payload(const VersionRecord& record, ByteView bytes);
  void put_part_list(VersionRecord& record, const std::vector<PartRecord>& parts);  // fills page_count
  void count(const VersionRecord& record);                                          // a version was added: usage
  void demote_current();                                                            // current -> noncurrent
  Task<Result<void>> discard_current();                                             // the version, its payload and data
  void add_marker(const VersionRecord& marker);  // a delete marker, newest; no current row is left by then
  Task<Result<void>> discard_noncurrent(VersionRecord record);
  Task<Result<void>> discard_null();                     // the null version, wherever it is; none: nothing
  void rewrite_noncurrent(const VersionRecord& record);  // the same version with other attributes
  // After the latest version was discarded: the newest noncurrent one takes its place if it is live.
  Task<Result<void>> promote();

 private:
  Task<Result<void>> discard_payload(VersionRecord record);

  meta::Transaction& transaction_;
  cluster::DataPlane& data_;
  const BucketId bucket_;
  const std::string key_;
  UsageDelta& usage_;
  std::optional<VersionRecord> current_;
  std::string seen_;
};

}  // namespace quarry::object
