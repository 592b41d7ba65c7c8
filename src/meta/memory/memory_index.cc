#include "meta/memory/memory_index.h"

#include "codec/crc32c.h"

namespace quarry::meta {
namespace {

// A checkpoint is the rows in order, cut into files of about this size: text key, text value, and so on. They live as long as their log,
// which is in memory too: no format to keep.
constexpr size_t kPieceBytes = 64u << 10;

Result<std::optional<Applied>> applied_of(const RowTree& rows) {
  const std::string* value = rows.find(kAppliedRow);
  if (value == nullptr) return std::optional<Applied>();
  TRY_ASSIGN(const Applied applied, Applied::decode(*value));
  return std::optional<Applied>(applied);
}

class MemoryView final : public IndexView {
 public:
  MemoryView(std::shared_ptr<Index> index, RowTree rows, Version version)
      : index_(std::move(index)), rows_(std::move(rows)), version_(version) {}
  Version version() const override { return version_; }
  Task<Result<std::optional<std::string>>> get_row(std::string row) override { co_return find(row); }
  Task<Result<std::vector<std::optional<std::string>>>> get_rows(std::vector<std::string> rows) override {
    std::vector<std::optional<std::string>> values;
    values.reserve(rows.size());
    for (const auto& row : rows) values.push_back(find(row));
    co_return values;
  }
  Task<Result<std::vector<KeyValue>>> scan_rows(ScanOptions options) override {
    std::vector<KeyValue> out;
    ScanBudget budget(options);
    if (budget.spent()) co_return out;
    rows_.visit(options.range.begin, options.range.end, options.direction, [&out, &budget](const KeyValue& row) {
      budget.take(row.key.size() - 1, row.value.size());
      out.push_back(row);
      return !budget.spent();
    });
    co_return out;
  }
  Result<std::optional<std::optional<std::string>>> get_in_memory(std::string_view row) override { return std::optional(find(row)); }
  std::unique_ptr<Cursor> cursor(KeyRange range, Direction direction) override {
    return make_cursor(shared_from_this(), std::move(range), direction);
  }
  Index& index() const override { return *index_; }

 private:
  std::optional<std::string> find(std::string_view row) const {
    const std::string* value = rows_.find(row);
    return value != nullptr ? std::optional(*value) : std::nullopt;
  }
  const std::shared_ptr<Index> index_;
  const RowTree rows_;
  const Version version_;
};

class MemoryCheckpoint final : public IndexCheckpoint {
 public:
  explicit MemoryCheckpoint(RowTree rows) : rows_(std::move(rows)) {}
  Result<Applied> examine() override {
    TRY_ASSIGN(const std::optional<Applied> applied, applied_of(rows_));
    CHECK(applied.has_value(), "an index is made with an applied row");
    return *applied;
  }
  Result<std::vector<File>> files() override {
    rows_.visit_all([this](const KeyValue& row) {
      if (files_.empty() || files_.rbegin()->second->size() >= kPieceBytes)
        files_.emplace(fmt::format("{:06}.rows", files_.size() + 1), std::make_shared<std::string>());
      Encoder(*files_.rbegin()->second).text(row.key).text(row.value);
      return true;
    });
    std::vector<File> files;
    for (const auto& [name, bytes] : files_) files.push_back({name, bytes->size(), false});
    return files;
  }
  Result<uint32_t> check(const File& file) override { return crc32c(0, bytes_of(*files_.at(file.name))); }
  Result<void> prove() override { return {}; }
  CommitLog::ReadPiece reader(const CheckpointEntry& entry) override {
    return [bytes = files_.at(entry.name)](uint64_t offset, size_t length) -> Result<Buffer> {
      if (offset > bytes->size() || length > bytes->size() - offset) return fail(Code::out_of_range, "it has {} bytes", bytes->size());
      return Buffer::copy_of(bytes_of(std::string_view(*bytes).substr(offset, length)));
    };
  }
  void remove() override { files_.clear(); }

 private:
  const RowTree rows_;
  std::map<std::string, std::shared_ptr<std::string>> files_;
};

}  // namespace

class MemoryIndex final : public Index, public std::enable_shared_from_this<MemoryIndex> {
 public:
  MemoryIndex(std::shared_ptr<MemoryIndexMedia> media, OnIndexDamage on_damage)
      : on_damage_(std::move(on_damage)), media_(std::move(media)), rows_(*media_->rows) {}

  Result<std::optional<Applied>> applied() override { return applied_of(rows()); }

  Result<void> apply(const std::vector<std::string_view>& transactions, const Applied& applied, bool) override {
    if (media_->full) return fail(Code::no_space, "no room for frame {} in the index in memory", applied.frame);
    RowTree next = rows();
    uint64_t bytes = 0;
    for (const auto ops : transactions) {
      OpReader reader(ops);
      Op op;
      while (reader.next(op)) {
        switch (op.kind) {
          case OpKind::put: next.put(op.key, op.value); break;
          case OpKind::remove: next.remove(op.key); break;
          case OpKind::remove_range: next.remove_range(op.key, op.value); break;
          case OpKind::add: {
            const std::string* value = next.find(op.key);
            next.put(op.key, counter_bytes(counter_sum(value != nullptr ? counter_of(*value) : 0, op.delta)));
            break;
          }
          default: CHECK(false, "stamps are in place before operations are applied");
        }
      }
      CHECK(reader.ok(), "operations were checked before they are applied");
      bytes += ops.size();
    }
    next.put(kAppliedRow, applied.encode());
    const std::lock_guard lock(mutex_);
    rows_ = std::move(next);
    unflushed_ += bytes;
    if (unflushed_ >= media_->flush_bytes) flush_locked();
    return {};
  }
  Result<void> resume() override { return {}; }
  Result<void> flush() override {
    const std::lock_guard lock(mutex_);
    flush_locked();
    return {};
  }
  std::shared_ptr<IndexView> view(Version version) override { return std::make_shared<MemoryView>(shared_from_this(), rows(), version); }
  Result<std::shared_ptr<IndexCheckpoint>> checkpoint() override {
    TRY(flush());
    return std::make_shared<MemoryCheckpoint>(rows());
  }
  // No file is the same in two checkpoints.
  std::map<std::string, CheckpointEntry> stored_files() override { return {}; }
  Result<void> note_stored_files(const std::map<std::string, CheckpointEntry>&) override { return {}; }
  Error damaged(std::string what) override {
    Error error(Code::corrupt, std::move(what));
    {
      const std::lock_guard lock(mutex_);
      if (!media_->damaged.empty()) return error;
      media_->damaged = error.to_string();
    }
    on_damage_(error.to_string());
    return error;
  }
  uint64_t keys_estimate() override { return rows().size(); }
  uint64_t bytes_on_disk() override { return rows().bytes(); }
  uint64_t reads_on_pool() override { return 0; }

 private:
  RowTree rows() const {
    const std::lock_guard lock(mutex_);
    return rows_;
  }
  void flush_locked() {
    media_->rows = rows_;
    unflushed_ = 0;
  }
  const OnIndexDamage on_damage_;
  mutable std::mutex mutex_;  // the rest
  const std::shared_ptr<MemoryIndexMedia> media_;
  RowTree rows_;
  uint64_t unflushed_ = 0;
};

namespace {

class RestoredPiece final : public RestoredFile {
 public:
  explicit RestoredPiece(std::string& bytes) : bytes_(bytes) {}
  Result<void> write(uint64_t offset, ByteView piece) override {
    CHECK(offset == bytes_.size(), "a file is restored front to back");
    bytes_.append(text_of(piece));
    return {};
  }
  Result<void> sync() override { return {}; }

 private:
  std::string& bytes_;
};

class MemoryPlace final : public IndexPlace {
 public:
  explicit MemoryPlace(std::shared_ptr<MemoryIndexMedia> media) : media_(std::move(media)) {}

  std::string name() const override { return "memory"; }
  Result<Found> look(OnIndexDamage on_damage) override {
    if (!media_->open.expired()) return fail(Code::busy, "the index in memory is open already");
    media_->restoring.clear();
    Found found;
    if (!media_->damaged.empty()) {
      found.reason = "it was found damaged: " + media_->damaged;
      return found;
    }
    if (!media_->rows) {
      found.reason = "there is none";
      return found;
    }
    const auto applied = applied_of(*media_->rows);
    if (!applied || !*applied) {
      found.reason = !applied ? "it cannot be read: " + applied.error().to_string() : "it is empty";
      return found;
    }
    found.applied = **applied;
    found.index = opened(std::move(on_damage));
    return found;
  }
  Result<void> discard(bool keep_aside) override {
    if (keep_aside) media_->set_aside = media_->rows;
    media_->rows.reset();
    media_->damaged.clear();
    return {};
  }
  Result<void> begin_restore() override { return {}; }
  Result<std::shared_ptr<RestoredFile>> restore_file(const std::string& name) override {
    const std::lock_guard lock(restoring_mutex_);
    return std::make_shared<RestoredPiece>(media_->restoring[name]);
  }
  Result<void> end_restore() override {
    RowTree rows;
    for (const auto& [name, bytes] : media_->restoring) {
      Decoder in(bytes);
      while (in.remaining() > 0) {
        const std::string_view key = in.text(), value = in.text();
        TRY(in.check(fmt::format("the checkpoint file '{}' of an index in memory", name)));
        rows.put(key, value);
      }
    }
    media_->restoring.clear();
    media_->rows = std::move(rows);
    return {};
  }
  Result<std::shared_ptr<Index>> open(bool fresh, OnIndexDamage on_damage) override {
    CHECK(media_->rows.has_value() != fresh, "an index is made where there is none, or opened where there is one");
    if (fresh) media_->rows.emplace();
    return opened(std::move(on_damage));
  }

 private:
  std::shared_ptr<Index> opened(OnIndexDamage on_damage) {
    auto index = std::make_shared<MemoryIndex>(media_, std::move(on_damage));
    media_->open = index;
    return index;
  }
  const std::shared_ptr<MemoryIndexMedia> media_;
  std::mutex restoring_mutex_;
};

}  // namespace

std::unique_ptr<IndexPlace> make_memory_place(std::shared_ptr<MemoryIndexMedia> media) {
  return std::make_unique<MemoryPlace>(std::move(media));
}

}  // namespace quarry::meta
