// Views and cursors: who reads where. A read is tried on the caller's thread first, in memory alone; what memory does not hold, and
// every long scan, goes to the blocking pool.
#include <rocksdb/iterator.h>
#include <rocksdb/slice.h>
#include <rocksdb/status.h>

#include "meta/rocksdb/database.h"

namespace quarry::meta {
namespace {
// Scans up to so many rows are tried on the caller's thread: a row costs about a microsecond, a hop to the pool twenty.
constexpr size_t kRowsInPlaceMax = 32;
}  // namespace

DatabaseView::DatabaseView(std::shared_ptr<Database> database, Version version, BlockingPool& pool, std::atomic<uint64_t>& pool_reads)
    : database_(std::move(database)), snapshot_(database_->take_snapshot()), version_(version), pool_(pool), pool_reads_(pool_reads) {}

DatabaseView::~DatabaseView() { database_->release_snapshot(snapshot_); }

Task<Result<std::optional<std::string>>> DatabaseView::get_row(std::string row) {
  CO_TRY_ASSIGN(auto found, get_in_memory(row));
  if (found) co_return std::move(*found);
  pool_reads_.fetch_add(1, std::memory_order_relaxed);
  const auto read = [this, &row] { return database_->get(snapshot_, row, ReadTier::any); };
  auto work = blocking(pool_, read);
  CO_TRY_ASSIGN(auto value, co_await std::move(work));
  CHECK(value.has_value(), "a read of all tiers knows");
  co_return std::move(*value);
}

Task<Result<std::vector<KeyValue>>> DatabaseView::scan_rows(ScanOptions options) {
  if (options.limit <= kRowsInPlaceMax) {
    CO_TRY_ASSIGN(auto rows, database_->scan(snapshot_, options, ReadTier::memory));
    if (rows) co_return std::move(*rows);
  }
  pool_reads_.fetch_add(1, std::memory_order_relaxed);
  const auto read = [this, &options] { return database_->scan(snapshot_, options, ReadTier::any); };
  auto work = blocking(pool_, read);
  CO_TRY_ASSIGN(auto rows, co_await std::move(work));
  CHECK(rows.has_value(), "a scan of all tiers knows");
  co_return std::move(*rows);
}

namespace {

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
    auto work = blocking(view_->pool(), collect);
    CO_TRY(co_await std::move(work));
    co_return rows;
  }

  void seek(std::string key) override { seek_row(row_key(space::kUser, key)); }

  Task<Result<void>> walk(Visit visit) override {
    const auto all = [this, &visit] { return run(visit); };
    auto work = blocking(view_->pool(), all);
    Result<void> result = co_await std::move(work);
    co_return result;
  }

 private:
  void seek_row(std::string row) {
    if (forward_) {
      seek_to_ = std::max(std::move(row), range_.begin);
    } else {
      seek_to_ = row < range_.end ? row + '\0' : range_.end;
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

}  // namespace

std::unique_ptr<Cursor> make_database_cursor(std::shared_ptr<DatabaseView> view, KeyRange range, Direction direction) {
  return std::make_unique<DatabaseCursor>(std::move(view), std::move(range), direction);
}

}  // namespace quarry::meta
