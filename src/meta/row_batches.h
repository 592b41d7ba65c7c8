// The rows of a range, a batch at a time.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "io/task.h"
#include "meta/meta_store.h"

namespace quarry::meta {

// The first key behind this one.
inline std::string key_after(std::string key) {
  key.push_back('\0');
  return key;
}

// From: a MetaStore (each batch is what was committed when it was read), a Snapshot or a Transaction (all are of one moment); outlives
// this. One task at a time.
template <class From>
class RowBatches {
 public:
  RowBatches(From& from, KeyRange range, size_t rows = ScanOptions().limit) : from_(from), range_(std::move(range)), rows_(rows) {}

  // The next rows in order of keys; empty at the end.
  Task<Result<std::vector<KeyValue>>> next() {
    ScanOptions options;
    options.range = range_;
    options.limit = rows_;
    Result<std::vector<KeyValue>> rows = co_await from_.scan(std::move(options));
    if (rows && !rows->empty()) range_.begin = key_after(rows->back().key);
    co_return rows;
  }
  // At most so many from now on.
  void set_batch(size_t rows) { rows_ = rows; }

 private:
  From& from_;
  KeyRange range_;
  size_t rows_;
};

}  // namespace quarry::meta
