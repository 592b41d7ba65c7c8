#include "meta/optimistic.h"
#include "meta/row_batches.h"

#include <algorithm>

namespace quarry::meta {

void ReadSet::sort() {
  std::ranges::sort(keys);
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  std::ranges::sort(ranges, {}, &KeyRange::begin);
  size_t last = 0;
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin <= ranges[last].end) {
      if (ranges[last].end < ranges[i].end) ranges[last].end = std::move(ranges[i].end);
    } else if (++last != i) {
      ranges[last] = std::move(ranges[i]);
    }
  }
  if (!ranges.empty()) ranges.resize(last + 1);
  sorted = true;
}

bool ReadSet::touches(std::string_view key) const {
  if (std::ranges::binary_search(keys, key)) return true;
  auto after = std::ranges::upper_bound(ranges, key, {}, [](const KeyRange& range) -> std::string_view { return range.begin; });
  return after != ranges.begin() && key < std::prev(after)->end;
}

bool ReadSet::touches(const KeyRange& range) const {
  auto key = std::ranges::lower_bound(keys, range.begin);
  if (key != keys.end() && *key < range.end) return true;
  // The last that begins before the end.
  auto after = std::ranges::lower_bound(ranges, range.end, {}, &KeyRange::begin);
  return after != ranges.begin() && range.begin < std::prev(after)->end;
}

namespace {

// Merges a page of the view with the transaction's own writes.
class OptimisticTransaction final : public Transaction {
 public:
  OptimisticTransaction(std::shared_ptr<RowView> view, CommitSink& sink, char space)
      : view_(std::move(view)), sink_(sink), space_(space), writes_(space) {}

  Task<Result<std::optional<std::string>>> get(std::string key) override { return read(std::move(key), true); }
  Task<Result<std::optional<std::string>>> get_unchecked(std::string key) override { return read(std::move(key), false); }
  Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) override;

  void put(std::string key, std::string value) override { writes_.put(key, value); }
  void remove(std::string key) override { writes_.remove(key); }
  void remove_range(KeyRange range) override { writes_.remove_range(range); }
  void add(std::string key, int64_t delta) override { writes_.add(key, delta); }
  void put_versionstamped(std::string key, std::string value, uint32_t offset) override { writes_.put_versionstamped(key, value, offset); }
  void put_at_versionstamped_key(std::string key, uint32_t offset, std::string value) override {
    writes_.put_at_versionstamped_key(key, offset, value);
  }

  Task<Result<Version>> commit() override;

 private:
  Task<Result<std::optional<std::string>>> read(std::string key, bool checked);
  Task<Result<std::vector<KeyValue>>> scan_merged(ScanOptions rows);

  std::shared_ptr<RowView> view_;
  CommitSink& sink_;
  char space_;
  bool spent_ = false;
  ReadSet reads_;
  WriteSet writes_;
};

Error spent_error() { return fail(Code::invalid_argument, "the transaction was committed already: begin another"); }
Error unreadable_error() { return fail(Code::invalid_argument, "a version-stamped value has no bytes before its transaction commits"); }

Task<Result<std::optional<std::string>>> OptimisticTransaction::read(std::string key, bool checked) {
  if (spent_) co_return spent_error();
  CO_TRY(check_key(key));
  std::string row = row_key(space_, key);
  int64_t delta = 0;
  bool add = false;
  if (!writes_.empty()) {
    const Overlay& overlay = writes_.overlay();
    const auto own = overlay.entries.find(row);
    if (own != overlay.entries.end()) {
      switch (own->second.kind) {
        case Overlay::Entry::Kind::value: co_return std::optional<std::string>(own->second.value);
        case Overlay::Entry::Kind::absent: co_return std::optional<std::string>();
        case Overlay::Entry::Kind::unreadable: co_return unreadable_error();
        case Overlay::Entry::Kind::add: add = true; delta = own->second.delta;
      }
    } else if (overlay.removed(row)) {
      co_return std::optional<std::string>();
    }
  }
  if (checked && reads_.keys.size() <= ReadSet::kReadsMax) reads_.keys.push_back(row);
  auto value = co_await view_->get_row(std::move(row));
  if (value && add) co_return std::optional<std::string>(counter_bytes(counter_sum(*value ? counter_of(**value) : 0, delta)));
  co_return value;
}

Task<Result<std::vector<KeyValue>>> OptimisticTransaction::scan_merged(ScanOptions rows) {
  const bool forward = rows.direction == Direction::forward;
  const Overlay& overlay = writes_.overlay();
  std::vector<KeyValue> out;
  ScanBudget budget(rows);
  ScanOptions page = rows;
  bool unreadable = false;
  const auto emit = [&](std::string key, std::string value) {
    budget.take(key.size() - 1, value.size());
    out.push_back({std::move(key), std::move(value)});
  };
  while (!budget.spent() && page.range.begin < page.range.end) {
    page.limit = std::min<size_t>(rows.limit, 1000);
    CO_TRY_ASSIGN(std::vector<KeyValue> below, co_await view_->scan_rows(page));
    size_t bytes = 0;
    for (const auto& row : below) bytes += row.key.size() - 1 + row.value.size();
    const bool last_page = below.size() < page.limit && (below.empty() || bytes < page.bytes_max);
    // The stretch of keys that this page speaks for.
    KeyRange covered = page.range;
    if (!last_page) {
      if (forward) {
        covered.end = key_after(below.back().key);
      } else {
        covered.begin = below.back().key;
      }
    }
    auto own = forward ? overlay.entries.lower_bound(covered.begin) : overlay.entries.lower_bound(covered.end);
    size_t next = 0;
    while (!budget.spent()) {
      // The next own entry inside the stretch, if any; in descending order `own` stands one past it.
      const std::pair<const std::string, Overlay::Entry>* mine = nullptr;
      if (forward) {
        if (own != overlay.entries.end() && own->first < covered.end) mine = &*own;
      } else if (own != overlay.entries.begin() && std::prev(own)->first >= covered.begin) {
        mine = &*std::prev(own);
      }
      const bool have_below = next < below.size();
      if (mine == nullptr && !have_below) break;
      const int order = mine == nullptr ? 1 : !have_below ? -1 : mine->first.compare(below[next].key) * (forward ? 1 : -1);
      if (order > 0) {
        KeyValue& row = below[next++];
        if (!overlay.removed(row.key)) emit(std::move(row.key), std::move(row.value));
        continue;
      }
      std::string_view base;
      if (order == 0) base = below[next++].value;
      const Overlay::Entry& entry = mine->second;
      if (entry.kind == Overlay::Entry::Kind::value) emit(mine->first, entry.value);
      if (entry.kind == Overlay::Entry::Kind::add) emit(mine->first, counter_bytes(counter_sum(counter_of(base), entry.delta)));
      if (entry.kind == Overlay::Entry::Kind::unreadable) {
        unreadable = true;
        break;
      }
      if (forward) {
        ++own;
      } else {
        --own;
      }
    }
    if (unreadable) co_return unreadable_error();
    if (last_page) break;
    if (forward) {
      page.range.begin = covered.end;
    } else {
      page.range.end = covered.begin;
    }
  }
  co_return out;
}

Task<Result<std::vector<KeyValue>>> OptimisticTransaction::scan(ScanOptions options) {
  if (spent_) co_return spent_error();
  options.range = row_range(space_, options.range);
  if (options.limit == 0 || options.range.begin >= options.range.end) co_return std::vector<KeyValue>();
  std::vector<KeyValue> rows;
  const size_t limit = options.limit, bytes_max = options.bytes_max;
  const Direction direction = options.direction;
  KeyRange read = options.range;
  if (writes_.empty()) {
    CO_TRY_ASSIGN(rows, co_await view_->scan_rows(std::move(options)));
  } else {
    CO_TRY_ASSIGN(rows, co_await scan_merged(std::move(options)));
  }
  // What was read is the range up to the last row, if the scan stopped there; what lies beyond may change.
  size_t bytes = 0;
  for (const auto& row : rows) bytes += row.key.size() - 1 + row.value.size();
  if (!rows.empty() && (rows.size() >= limit || bytes >= bytes_max)) {
    if (direction == Direction::forward) {
      read.end = key_after(rows.back().key);
    } else {
      read.begin = rows.back().key;
    }
  }
  if (reads_.ranges.size() <= ReadSet::kReadsMax) reads_.ranges.push_back(std::move(read));
  strip_space(rows);
  co_return rows;
}

Task<Result<Version>> OptimisticTransaction::commit() {
  if (spent_) co_return spent_error();
  spent_ = true;
  CO_TRY(writes_.check());
  // A transaction that only read is serialised where its view stands.
  if (writes_.empty()) co_return view_->version();
  if (reads_.keys.size() + reads_.ranges.size() > ReadSet::kReadsMax) {
    co_return fail(Code::too_large, "a transaction reads more than {} keys and ranges", ReadSet::kReadsMax);
  }
  const Version read_version = view_->version();
  // The view stays until the answer: a backend that keeps old versions for its views must not forget, meanwhile, a removal that
  // this commit has to be checked against.
  Task<Result<Version>> work = sink_.commit_rows(read_version, std::move(reads_), std::move(writes_));
  Result<Version> version = co_await std::move(work);
  view_.reset();
  co_return version;
}

class SpaceSnapshot final : public Snapshot {
 public:
  SpaceSnapshot(std::shared_ptr<RowView> view, char space) : view_(std::move(view)), space_(space) {}
  Version version() const override { return view_->version(); }
  Task<Result<std::optional<std::string>>> get(std::string key) override {
    if (auto valid = check_key(key); !valid) co_return std::move(valid).error();
    auto value = co_await view_->get_row(row_key(space_, key));
    co_return value;
  }
  Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) override {
    options.range = row_range(space_, options.range);
    if (options.limit == 0 || options.range.begin >= options.range.end) co_return std::vector<KeyValue>();
    CO_TRY_ASSIGN(std::vector<KeyValue> rows, co_await view_->scan_rows(std::move(options)));
    strip_space(rows);
    co_return rows;
  }

 private:
  std::shared_ptr<RowView> view_;
  char space_;
};

class ViewCursor final : public Cursor {
 public:
  ViewCursor(std::shared_ptr<RowView> view, KeyRange range, Direction direction)
      : view_(std::move(view)), range_(row_range(space::kUser, range)), left_(range_), direction_(direction) {}

  Task<Result<std::vector<KeyValue>>> next(size_t limit) override {
    if (limit == 0 || left_.begin >= left_.end) co_return std::vector<KeyValue>();
    ScanOptions options{left_, limit, SIZE_MAX, direction_};
    CO_TRY_ASSIGN(std::vector<KeyValue> rows, co_await view_->scan_rows(std::move(options)));
    if (rows.empty()) {
      left_.begin = left_.end;
    } else {
      pass(rows.back().key);
    }
    strip_space(rows);
    co_return rows;
  }

  void seek(std::string key) override {
    left_ = range_;
    const std::string row = row_key(space::kUser, key);
    if (direction_ == Direction::forward) {
      left_.begin = std::max(left_.begin, row);
    } else {
      left_.end = std::min(left_.end, key_after(row));
    }
  }

  Task<Result<void>> walk(Visit visit) override {
    for (;;) {
      if (left_.begin >= left_.end) co_return Result<void>();
      ScanOptions options{left_, 64, SIZE_MAX, direction_};
      CO_TRY_ASSIGN(std::vector<KeyValue> rows, co_await view_->scan_rows(std::move(options)));
      if (rows.empty()) {
        left_.begin = left_.end;
        co_return Result<void>();
      }
      for (const KeyValue& row : rows) {
        pass(row.key);
        Step step = visit(std::string_view(row.key).substr(1), row.value);
        if (step.kind == Step::Kind::stop) co_return Result<void>();
        if (step.kind == Step::Kind::seek) {
          seek(std::move(step.seek_to));
          break;
        }
      }
    }
  }

 private:
  void pass(const std::string& row) {
    if (direction_ == Direction::forward) {
      left_.begin = key_after(row);
    } else {
      left_.end = row;
    }
  }
  std::shared_ptr<RowView> view_;
  KeyRange range_, left_;
  Direction direction_;
};

}  // namespace

std::unique_ptr<Transaction> make_transaction(std::shared_ptr<RowView> view, CommitSink& sink, char space) {
  return std::make_unique<OptimisticTransaction>(std::move(view), sink, space);
}

std::unique_ptr<Snapshot> make_snapshot(std::shared_ptr<RowView> view, char space) {
  return std::make_unique<SpaceSnapshot>(std::move(view), space);
}

std::unique_ptr<Cursor> make_cursor(std::shared_ptr<RowView> view, KeyRange range, Direction direction) {
  return std::make_unique<ViewCursor>(std::move(view), std::move(range), direction);
}

void strip_space(std::vector<KeyValue>& rows) {
  for (auto& row : rows) row.key.erase(0, 1);
}

}  // namespace quarry::meta
