#include "meta/memory/memory_meta_store.h"

#include <deque>

#include "meta/leases.h"
#include "meta/optimistic.h"
#include "meta/watch_hub.h"

namespace quarry::meta {

// Multi-version rows. Under its own lock; a version's rows change only in apply().
class MemoryMetaMedia {
 public:
  struct Cell {
    Version version;
    std::optional<std::string> value;  // none: removed
  };
  using Rows = std::map<std::string, std::vector<Cell>, std::less<>>;

  Version version() const {
    const std::lock_guard lock(mutex_);
    return version_;
  }
  Version acquire_view() {
    const std::lock_guard lock(mutex_);
    views_.insert(version_);
    return version_;
  }
  void release_view(Version version) {
    const std::lock_guard lock(mutex_);
    views_.erase(views_.find(version));
  }

  std::optional<std::string> get(std::string_view row, Version at) const {
    const std::lock_guard lock(mutex_);
    const auto found = rows_.find(row);
    if (found == rows_.end()) return std::nullopt;
    return visible(found->second, at);
  }

  std::vector<KeyValue> scan(const ScanOptions& options, Version at) const {
    const std::lock_guard lock(mutex_);
    std::vector<KeyValue> out;
    ScanBudget budget(options);
    if (options.range.begin >= options.range.end) return out;
    auto low = rows_.lower_bound(options.range.begin), high = rows_.lower_bound(options.range.end);
    const auto visit = [&](const Rows::value_type& row) {
      if (auto value = visible(row.second, at)) {
        budget.take(row.first.size() - 1, value->size());
        out.push_back({row.first, std::move(*value)});
      }
    };
    if (options.direction == Direction::forward) {
      for (; low != high && !budget.spent(); ++low) visit(*low);
    } else {
      while (high != low && !budget.spent()) visit(*--high);
    }
    return out;
  }

  // Validates and applies at one instant. conflict, or the version; `applied` runs before anybody else can commit.
  template <class F>
  Result<Version> commit(Version read_version, const ReadSet& reads, const WriteSet& writes, F applied) {
    const std::lock_guard lock(mutex_);
    for (const auto& key : reads.keys) {
      const auto found = rows_.find(key);
      if (found != rows_.end() && found->second.back().version > read_version)
        return fail(Code::conflict, "a key that was read has changed");
    }
    for (const auto& range : reads.ranges) {
      for (auto at = rows_.lower_bound(range.begin); at != rows_.end() && at->first < range.end; ++at) {
        if (at->second.back().version > read_version) return fail(Code::conflict, "a range that was read has changed");
      }
    }
    const Version version = ++version_;
    const std::string ops = writes.has_stamps() ? writes.stamped_ops(version) : std::string(writes.ops());
    OpReader reader(ops);
    Op op;
    while (reader.next(op)) apply(op, version);
    collect_garbage();
    applied(version, std::string_view(ops));
    return version;
  }

  size_t row_versions() const {
    const std::lock_guard lock(mutex_);
    size_t count = 0;
    for (const auto& [key, cells] : rows_) count += cells.size();
    return count;
  }
  std::pair<uint64_t, uint64_t> rows_and_bytes() const {
    const std::lock_guard lock(mutex_);
    uint64_t bytes = 0;
    for (const auto& [key, cells] : rows_) {
      for (const auto& cell : cells) bytes += key.size() + (cell.value ? cell.value->size() : 0);
    }
    return {rows_.size(), bytes};
  }

 private:
  static std::optional<std::string> visible(const std::vector<Cell>& cells, Version at) {
    for (auto cell = cells.rbegin(); cell != cells.rend(); ++cell) {
      if (cell->version <= at) return cell->value;
    }
    return std::nullopt;
  }

  void set(std::string_view key, std::optional<std::string> value, Version version) {
    auto at = rows_.find(key);
    if (at == rows_.end()) {
      if (!value) return;
      at = rows_.emplace(std::string(key), std::vector<Cell>()).first;
    }
    auto& cells = at->second;
    if (!cells.empty() && cells.back().version == version) {
      cells.back().value = std::move(value);
    } else {
      cells.push_back({version, std::move(value)});
    }
    garbage_.emplace_back(version, std::string(key));
  }

  void apply(const Op& op, Version version) {
    switch (op.kind) {
      case OpKind::put: set(op.key, std::string(op.value), version); return;
      case OpKind::remove: set(op.key, std::nullopt, version); return;
      case OpKind::add: {
        const auto at = rows_.find(op.key);
        const int64_t base = at != rows_.end() && at->second.back().value ? counter_of(*at->second.back().value) : 0;
        set(op.key, counter_bytes(counter_sum(base, op.delta)), version);
        return;
      }
      case OpKind::remove_range:
        for (auto at = rows_.lower_bound(op.key); at != rows_.end() && at->first < op.value; ++at) {
          if (at->second.back().value) set(at->first, std::nullopt, version);
        }
        return;
      default: CHECK(false, "stamps are in place before operations are applied");
    }
  }

  // Drops the cells that no view can see. The newest cell of a key stays as long as a view is older than it, so that conflicts
  // with removals are found exactly.
  void collect_garbage() {
    const Version oldest = views_.empty() ? version_ : *views_.begin();
    while (!garbage_.empty() && garbage_.front().first <= oldest) {
      const auto at = rows_.find(garbage_.front().second);
      if (at != rows_.end()) {
        auto& cells = at->second;
        auto keep = cells.end();
        while (keep != cells.begin() && std::prev(keep)->version > oldest) --keep;
        if (keep != cells.begin()) --keep;
        cells.erase(cells.begin(), keep);
        if (cells.size() == 1 && !cells.front().value && cells.front().version <= oldest) rows_.erase(at);
      }
      garbage_.pop_front();
    }
  }

  mutable std::mutex mutex_;
  Rows rows_;
  Version version_ = 0;
  std::multiset<Version> views_;
  std::deque<std::pair<Version, std::string>> garbage_;
};

namespace {

Error crashed() { return fail(Code::unavailable, "the metadata store has crashed"); }
Error closed() { return fail(Code::cancelled, "the metadata store is closed"); }

// What a store shares with its views: faults and whether it still lives.
struct Instance {
  std::shared_ptr<MemoryMetaMedia> media;
  std::mutex mutex;
  MemoryMetaFaults faults;
  SeededRandom random;
  std::deque<std::pair<uint64_t, CommitFault>> planned;
  uint64_t commit_calls = 0;
  bool dead = false;
  bool closed = false;

  Instance(std::shared_ptr<MemoryMetaMedia> m, MemoryMetaFaults f) : media(std::move(m)), faults(f), random(f.seed) {}

  Result<void> alive() {
    const std::lock_guard lock(mutex);
    if (dead) return crashed();
    if (closed) return fail(Code::cancelled, "the metadata store is closed");
    return {};
  }
  Duration draw(Duration max) {
    if (max <= Duration::zero()) return Duration::zero();
    return Duration(static_cast<Duration::rep>(random.below(static_cast<uint64_t>(max.count()) + 1)));
  }
  bool chance(double probability) { return probability > 0 && static_cast<double>(random.u64() >> 11) * 0x1p-53 < probability; }
  Duration read_delay() {
    const std::lock_guard lock(mutex);
    return draw(faults.read_delay_max);
  }
};

Task<Result<void>> enter(Instance& instance) {
  CO_TRY(instance.alive());
  const Duration delay = instance.read_delay();
  if (delay > Duration::zero()) {
    co_await sleep_for(delay);
    CO_TRY(instance.alive());
  }
  co_return Result<void>();
}

class MemoryView final : public RowView {
 public:
  explicit MemoryView(std::shared_ptr<Instance> instance) : instance_(std::move(instance)), version_(instance_->media->acquire_view()) {}
  MemoryView(const MemoryView&) = delete;
  ~MemoryView() override { instance_->media->release_view(version_); }
  Version version() const override { return version_; }
  Task<Result<std::optional<std::string>>> get_row(std::string row) override {
    CO_TRY(co_await enter(*instance_));
    co_return instance_->media->get(row, version_);
  }
  Task<Result<std::vector<KeyValue>>> scan_rows(ScanOptions options) override {
    CO_TRY(co_await enter(*instance_));
    co_return instance_->media->scan(options, version_);
  }

 private:
  std::shared_ptr<Instance> instance_;
  Version version_;
};

class MemoryMetaStoreImpl final : public MemoryMetaStore, CommitSink {
 public:
  MemoryMetaStoreImpl(std::shared_ptr<MemoryMetaMedia> media, MemoryMetaFaults faults, Clock* clock)
      : instance_(std::make_shared<Instance>(std::move(media), faults)),
        hub_(std::make_shared<WatchHub>(instance_->media->version())),
        clock_(clock != nullptr ? *clock : system_clock()) {}

  Task<Result<std::optional<std::string>>> get(std::string key) override {
    CO_TRY(check_key(key));
    CO_TRY(co_await enter(*instance_));
    co_return instance_->media->get(row_key(space::kUser, key), kNewest);
  }
  Task<Result<std::vector<std::optional<std::string>>>> get_many(std::vector<std::string> keys) override {
    for (const auto& key : keys) CO_TRY(check_key(key));
    CO_TRY(co_await enter(*instance_));
    const MemoryView view(instance_);
    std::vector<std::optional<std::string>> values;
    values.reserve(keys.size());
    for (const auto& key : keys) values.push_back(instance_->media->get(row_key(space::kUser, key), view.version()));
    co_return values;
  }
  Task<Result<std::vector<KeyValue>>> scan(ScanOptions options) override {
    CO_TRY(co_await enter(*instance_));
    options.range = row_range(space::kUser, options.range);
    auto rows = instance_->media->scan(options, kNewest);
    strip_space(rows);
    co_return rows;
  }

  Task<Result<std::unique_ptr<Snapshot>>> snapshot() override {
    CO_TRY(co_await enter(*instance_));
    co_return make_snapshot(std::make_shared<MemoryView>(instance_), space::kUser);
  }
  Task<Result<std::unique_ptr<Cursor>>> cursor(KeyRange range, Direction direction) override {
    CO_TRY(co_await enter(*instance_));
    co_return make_cursor(std::make_shared<MemoryView>(instance_), std::move(range), direction);
  }
  Task<Result<std::unique_ptr<Transaction>>> begin() override {
    CO_TRY(co_await enter(*instance_));
    co_return make_transaction(std::make_shared<MemoryView>(instance_), *this, space::kUser);
  }
  Version version() const override { return instance_->media->version(); }

  Task<Result<Version>> watch(std::string prefix, Version after, TimePoint deadline) override {
    CO_TRY(instance_->alive());
    std::string row = row_key(space::kUser, prefix);
    Task<Result<Version>> wait = WatchHub::watch(hub_, std::move(row), after, deadline);
    Result<Version> result = co_await std::move(wait);
    co_return result;
  }

  Task<Result<LeaseGrant>> lease(std::string name, std::string holder, Duration duration) override {
    for (;;) {
      CO_TRY(co_await enter(*instance_));
      auto transaction = make_transaction(std::make_shared<MemoryView>(instance_), *this, space::kLease);
      auto result = co_await take_lease(std::move(transaction), name, holder, clock_.wall_now(), duration);
      if (result || result.error().code() != Code::conflict) co_return result;
      co_await sleep_for(std::chrono::microseconds(50));
    }
  }
  Task<Result<void>> release_lease(std::string name, std::string holder) override {
    for (;;) {
      CO_TRY(co_await enter(*instance_));
      auto transaction = make_transaction(std::make_shared<MemoryView>(instance_), *this, space::kLease);
      auto result = co_await drop_lease(std::move(transaction), name, holder);
      if (result || result.error().code() != Code::conflict) co_return result;
      co_await sleep_for(std::chrono::microseconds(50));
    }
  }

  Task<Result<Version>> commit_rows(Version read_version, ReadSet reads, WriteSet writes) override;

  Stats stats() const override {
    Stats stats;
    const auto [rows, bytes] = instance_->media->rows_and_bytes();
    stats.version = instance_->media->version();
    stats.keys_estimate = rows;
    stats.bytes_on_disk = bytes;
    stats.commits = stats.commit_groups = commits_;
    stats.conflicts = conflicts_;
    return stats;
  }

  Task<Result<void>> close() override {
    {
      const std::lock_guard lock(instance_->mutex);
      instance_->closed = true;
    }
    hub_->close(closed());
    co_return Result<void>();
  }

  void set_faults(MemoryMetaFaults faults) override {
    const std::lock_guard lock(instance_->mutex);
    instance_->faults = faults;
    instance_->random = SeededRandom(faults.seed);
  }
  void plan(CommitFault fault, uint64_t skip) override {
    const std::lock_guard lock(instance_->mutex);
    instance_->planned.emplace_back(instance_->commit_calls + skip, fault);
  }
  void crash() override {
    {
      const std::lock_guard lock(instance_->mutex);
      instance_->dead = true;
    }
    hub_->close(crashed());
  }
  std::shared_ptr<MemoryMetaMedia> media() const override { return instance_->media; }
  size_t row_versions() const override { return instance_->media->row_versions(); }

 private:
  static constexpr Version kNewest = UINT64_MAX;
  CommitFault draw_fault();

  std::shared_ptr<Instance> instance_;
  std::shared_ptr<WatchHub> hub_;
  Clock& clock_;
  std::atomic<uint64_t> commits_ = 0, conflicts_ = 0;
};

CommitFault MemoryMetaStoreImpl::draw_fault() {
  Instance& instance = *instance_;
  const std::lock_guard lock(instance.mutex);
  const uint64_t call = instance.commit_calls++;
  for (auto at = instance.planned.begin(); at != instance.planned.end(); ++at) {
    if (at->first != call) continue;
    const CommitFault fault = at->second;
    instance.planned.erase(at);
    return fault;
  }
  if (instance.chance(instance.faults.conflict_probability)) return CommitFault::conflict;
  if (instance.chance(instance.faults.unavailable_probability)) return CommitFault::unavailable;
  if (instance.chance(instance.faults.unknown_outcome_probability)) {
    return instance.random.below(2) == 0 ? CommitFault::unknown_applied : CommitFault::unknown_not_applied;
  }
  return CommitFault::none;
}

Task<Result<Version>> MemoryMetaStoreImpl::commit_rows(Version read_version, ReadSet reads, WriteSet writes) {
  CO_TRY(instance_->alive());
  const std::shared_ptr<Instance> instance = instance_;
  const CommitFault fault = draw_fault();
  Duration before, after;
  {
    const std::lock_guard lock(instance->mutex);
    before = instance->draw(instance->faults.commit_delay_max);
    after = instance->draw(instance->faults.commit_delay_max);
  }
  if (before > Duration::zero()) co_await sleep_for(before);
  const auto unknown = [] { return fail(Code::unknown_outcome, "the answer to the commit was lost"); };
  if (!instance->alive()) co_return unknown();
  if (fault == CommitFault::crash_before) {
    crash();
    co_return unknown();
  }
  if (fault == CommitFault::conflict) {
    ++conflicts_;
    co_return fail(Code::conflict, "an injected conflict");
  }
  if (fault == CommitFault::unavailable) co_return fail(Code::unavailable, "an injected outage");
  Result<Version> version = Version{0};
  if (fault != CommitFault::unknown_not_applied) {
    version = instance->media->commit(read_version, reads, writes, [this](Version v, std::string_view ops) { hub_->publish(v, ops); });
    if (!version) {
      ++conflicts_;
      co_return version;
    }
    ++commits_;
  }
  if (fault == CommitFault::crash_after) {
    crash();
    co_return unknown();
  }
  if (after > Duration::zero()) {
    co_await sleep_for(after);
    if (!instance->alive()) co_return unknown();
  }
  if (fault == CommitFault::unknown_applied || fault == CommitFault::unknown_not_applied) co_return unknown();
  co_return version;
}

}  // namespace

std::shared_ptr<MemoryMetaMedia> make_memory_meta_media() { return std::make_shared<MemoryMetaMedia>(); }

std::unique_ptr<MemoryMetaStore> MemoryMetaStore::open(std::shared_ptr<MemoryMetaMedia> media, MemoryMetaFaults faults, Clock* clock) {
  return std::make_unique<MemoryMetaStoreImpl>(std::move(media), faults, clock);
}
std::unique_ptr<MemoryMetaStore> MemoryMetaStore::create(MemoryMetaFaults faults, Clock* clock) {
  return open(make_memory_meta_media(), faults, clock);
}

}  // namespace quarry::meta
