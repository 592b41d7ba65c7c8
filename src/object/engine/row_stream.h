// RowStream: the rows of a range of one snapshot, one after the other, read in batches; can jump forward. One task at a time.
#pragma once
#include "io/pace.h"
#include "meta/row_batches.h"

namespace quarry::object {

class RowStream {
 public:
  RowStream(meta::Snapshot& snapshot, meta::KeyRange range) : snapshot_(snapshot), range_(std::move(range)) {}

  // The row at the front, null at the end. Valid until pop or seek.
  Task<Result<const meta::KeyValue*>> peek() {
    co_await pace_;
    while (next_ == rows_.size() && !ended_) {
      meta::ScanOptions scan{.range = range_, .limit = batch_};
      CO_TRY_ASSIGN(rows_, co_await snapshot_.scan(std::move(scan)));
      next_ = 0;
      ended_ = rows_.empty();
      if (!ended_) range_.begin = meta::key_after(rows_.back().key);
      batch_ = std::min(batch_ * 2, kBatchMax);
    }
    const meta::KeyValue* row = next_ < rows_.size() ? &rows_[next_] : nullptr;
    co_return row;
  }
  void pop() { ++next_; }
  // Drops all rows before `row`.
  void seek(std::string row) {
    while (next_ < rows_.size() && rows_[next_].key < row) ++next_;
    if (next_ < rows_.size() || ended_) return;
    if (range_.begin < row) range_.begin = std::move(row);
    if (!range_.end.empty() && range_.begin >= range_.end) ended_ = true;
    batch_ = kBatchMin;
  }

 private:
  static constexpr size_t kBatchMin = 16, kBatchMax = 1000;
  meta::Snapshot& snapshot_;
  meta::KeyRange range_;
  std::vector<meta::KeyValue> rows_;
  size_t next_ = 0;
  size_t batch_ = kBatchMin;
  bool ended_ = false;
  Pace pace_;  // rows in memory come without a wait
};

}  // namespace quarry::object
