// The half of a backend that is the same everywhere: transactions that read a fixed view, remember what they read and buffer
// what they write. A backend supplies RowView (a consistent view of its rows) and CommitSink (validate, make durable, apply).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "meta/meta_store.h"
#include "meta/write_set.h"

namespace quarry::meta {

// Reads of one transaction, in row keys. Bounded: see kReadsMax.
struct ReadSet {
  static constexpr size_t kReadsMax = 100'000;  // keys and ranges together; more: too_large at commit
  std::vector<std::string> keys;
  std::vector<KeyRange> ranges;
  bool sorted = false;  // by sort()
  bool empty() const { return keys.empty() && ranges.empty(); }
  // In order, without duplicates; ranges that overlap or touch are one.
  void sort();
  // Of sorted reads only: O(log).
  bool touches(std::string_view key) const;
  bool touches(const KeyRange& range) const;
};

// A consistent view of the rows at one version. Thread-safe (it is shared by the transactions that began at that version).
class RowView {
 public:
  virtual ~RowView() = default;
  virtual Version version() const = 0;
  virtual Task<Result<std::optional<std::string>>> get_row(std::string row) = 0;
  // Range and results in row keys. The range's end is never empty.
  virtual Task<Result<std::vector<KeyValue>>> scan_rows(ScanOptions options) = 0;
};

class CommitSink {
 public:
  virtual ~CommitSink() = default;
  // Everything MetaStore's commit promises. `writes` passed check() and is not empty.
  virtual Task<Result<Version>> commit_rows(Version read_version, ReadSet reads, WriteSet writes) = 0;
};

// sink must outlive the transaction.
std::unique_ptr<Transaction> make_transaction(std::shared_ptr<RowView> view, CommitSink& sink, char space);
std::unique_ptr<Snapshot> make_snapshot(std::shared_ptr<RowView> view, char space);
// Over users' keys, by scans of the view: for backends where a scan costs little to begin.
std::unique_ptr<Cursor> make_cursor(std::shared_ptr<RowView> view, KeyRange range, Direction direction);

// Turns results of scan_rows into users' rows (drops the space byte).
void strip_space(std::vector<KeyValue>& rows);

// The shape of every scan, so that all backends stop at the same row: rows come until `limit` rows or `bytes_max` bytes of keys
// (without the space byte) and values are there, or the range ends.
class ScanBudget {
 public:
  explicit ScanBudget(const ScanOptions& options) : limit_(options.limit), bytes_max_(options.bytes_max) {}
  bool spent() const { return rows_ >= limit_ || (rows_ > 0 && bytes_ >= bytes_max_); }
  void take(size_t key_size, size_t value_size) {
    ++rows_;
    bytes_ += key_size + value_size;
  }
  size_t rows_left() const { return limit_ - rows_; }

 private:
  size_t limit_, bytes_max_;
  size_t rows_ = 0, bytes_ = 0;
};

}  // namespace quarry::meta
