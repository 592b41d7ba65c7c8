// Views and cursors: who reads where. A read is tried on the caller's thread first, in memory alone; what memory does not hold, and
// every long scan, goes to the blocking pool.
#include <rocksdb/iterator.h>
#include <rocksdb/slice.h>
#include <rocksdb/status.h>

#include "meta/rocksdb/database.h"
#include "meta/row_batches.h"

namespace quarry::meta {
namespace {
// Scans up to so many rows are tried on the caller's thread: a row costs about a microsecond, a hop to the pool twenty.
constexpr size_t kRowsInPlaceMax = 32;

// A view of the database at one version. Thread-safe.
class DatabaseView final : public IndexView {
 public:
  DatabaseView(std::shared_ptr<Database> database, Version version)
      : database_(std::move(database)), snapshot_(database_->take_snapshot()), version_(version) {}
  DatabaseView(const DatabaseView&) = delete;
  ~DatabaseView() override { database_->release_snapshot(snapshot_); }
  Version version() const override { return version_; }
  Task<Result<std::optional<std::string>>> get_row(std::string row) override;
  Task<Result<std::vector<std::optional<std::string>>>> get_rows(std::vector<std::string> rows) override;
  Task<Result<std::vector<KeyValue>>> scan_rows(ScanOptions options) override;
  Result<std::optional<std::optional<std::string>>> get_in_memory(std::string_view row) override {
    return database_->get(snapshot_, row, ReadTier::memory);
  }
  std::unique_ptr<Cursor> cursor(KeyRange range, Direction direction) override;
  Index& index() const override { return *database_; }

  Database& database() { return *database_; }
  const ::rocksdb::Snapshot* snapshot() const { return snapshot_; }

 private:
  std::shared_ptr<Database> database_;
  const ::rocksdb::Snapshot* snapshot_;
  Version version_;
};

Task<Result<std::optional<std::string>>> DatabaseView::get_row(std::string row) {
  CO_TRY_ASSIGN(auto found, get_in_memory(row));
  if (found) co_return std::move(*found);
  const auto read = [this, &row] { return database_->get(snapshot_, row, ReadTier::any); };
  database_->count_pool_reads(1);
  auto work = blocking(database_->pool(), read);
  CO_TRY_ASSIGN(auto value, co_await std::move(work));
  CHECK(value.has_value(), "a read of all tiers knows");
  co_return std::move(*value);
}

Task<Result<std::vector<std::optional<std::string>>>> DatabaseView::get_rows(std::vector<std::string> rows) {
  std::vector<std::optional<std::string>> values(rows.size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < rows.size(); ++i) {
    CO_TRY_ASSIGN(auto found, get_in_memory(rows[i]));
    if (found) {
      values[i] = std::move(*found);
    } else {
      missing.push_back(i);
    }
  }
  if (missing.empty()) co_return values;
  const auto read = [this, &rows, &missing, &values]() -> Result<void> {
    for (const size_t i : missing) {
      TRY_ASSIGN(auto found, database_->get(snapshot_, rows[i], ReadTier::any));
      values[i] = std::move(*found);
    }
    return {};
  };
  database_->count_pool_reads(missing.size());
  auto work = blocking(database_->pool(), read);
  CO_TRY(co_await std::move(work));
  co_return values;
}

Task<Result<std::vector<KeyValue>>> DatabaseView::scan_rows(ScanOptions options) {
  if (options.limit <= kRowsInPlaceMax) {
    CO_TRY_ASSIGN(auto rows, database_->scan(snapshot_, options, ReadTier::memory));
    if (rows) co_return std::move(*rows);
  }
  const auto read = [this, &options] { return database_->scan(snapshot_, options, ReadTier::any); };
  database_->count_pool_reads(1);
  auto work = blocking(database_->pool(), read);
  CO_TRY_ASSIGN(auto rows, co_await std::move(work));
  CHECK(rows.has_value(), "a scan of all tiers knows");
  co_return std::move(*rows);
}

// walk() and next() run on the pool, over one iterator.
class DatabaseCursor final : public Cursor {
 public:
  DatabaseCursor(std::shared_ptr<DatabaseView> view, KeyRange range, Direction direction)
      : view_(std::move(view)),
        range_(row_range(space::kUser, range)),
        forward_(direction == Direction::forward),
        seek_to_(forward_ ? range_.begin : range_.end) {}

  Task<Result<std::vector<KeyValue>>> next(size_t limit) override {
    std::vector<KeyValue> rows;
    if (limit == 0) co_return rows;
    const auto collect = [this, limit, &rows] {
      return run([&rows, limit](std::string_view key, std::string_view value) {
        rows.push_back({std::string(key), std::string(value)});
        return Step{rows.size() < limit ? Step::Kind::next : Step::Kind::stop, {}};
      });
    };
    auto work = blocking(view_->database().pool(), collect);
    CO_TRY(co_await std::move(work));
    co_return rows;
  }

  void seek(std::string key) override { seek_row(row_key(space::kUser, key)); }

  Task<Result<void>> walk(Visit visit) override {
    const auto all = [this, &visit] { return run(visit); };
    auto work = blocking(view_->database().pool(), all);
    Result<void> result = co_await std::move(work);
    co_return result;
  }

 private:
  void seek_row(std::string row) {
    if (forward_) {
      seek_to_ = std::max(std::move(row), range_.begin);
    } else {
      seek_to_ = row < range_.end ? key_after(row) : range_.end;
    }
  }

  // On the pool. The iterator stands on the next row to give, unless seek_to_ says where to go first.
  template <class V>
  Result<void> run(const V& visit) {
    if (range_.begin >= range_.end) return {};
    if (at_ == nullptr) at_ = view_->database().iterator(view_->snapshot());
    for (;;) {
      if (seek_to_) {
        if (forward_) {
          at_->Seek(*seek_to_);
        } else {
          at_->SeekForPrev(*seek_to_);
          if (at_->Valid() && at_->key() == ::rocksdb::Slice(*seek_to_)) at_->Prev();  // the bound is exclusive
        }
        seek_to_.reset();
      }
      if (!at_->Valid()) {
        if (!at_->status().ok()) return view_->database().error_of(at_->status(), "walking metadata rows");
        return {};
      }
      const std::string_view key(at_->key().data(), at_->key().size());
      if (key < range_.begin || key >= range_.end) return {};
      Step step = visit(key.substr(1), std::string_view(at_->value().data(), at_->value().size()));
      if (step.kind == Step::Kind::seek) {
        seek(std::move(step.seek_to));
        continue;
      }
      if (forward_) {
        at_->Next();
      } else {
        at_->Prev();
      }
      if (step.kind == Step::Kind::stop) return {};
    }
  }

  std::shared_ptr<DatabaseView> view_;
  std::unique_ptr<::rocksdb::Iterator> at_;  // dies before the view
  KeyRange range_;
  bool forward_;
  std::optional<std::string> seek_to_;
};

std::unique_ptr<Cursor> DatabaseView::cursor(KeyRange range, Direction direction) {
  return std::make_unique<DatabaseCursor>(std::static_pointer_cast<DatabaseView>(shared_from_this()), std::move(range), direction);
}

}  // namespace

std::shared_ptr<IndexView> Database::view(Version version) { return std::make_shared<DatabaseView>(shared_from_this(), version); }

}  // namespace quarry::meta
