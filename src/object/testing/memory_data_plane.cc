#include "object/testing/memory_data_plane.h"
#include "meta/row_batches.h"

#include <unordered_set>

namespace quarry::object {
namespace {

// The rows of this fake: 'D', write id (big-endian) -> layout, owner. No row kind of the engine begins so.
std::string row_key(cluster::WriteId id) {
  std::string key = "D";
  Encoder(key).key_u64(id);
  return key;
}
std::string retired_key(cluster::WriteId id) {  // 'R', write id
  std::string key = "R";
  Encoder(key).key_u64(id);
  return key;
}

Task<Result<void>> remove_row(meta::Transaction* transaction, std::string key) {
  transaction->remove(std::move(key));
  co_return Result<void>();
}

}  // namespace

struct MemoryDataPlane::State {
  struct Write {
    std::string bytes;
    bool open = true;  // its writer lives
  };
  mutable std::mutex mutex;
  MemoryDataFaults faults;
  SeededRandom random{1};
  std::map<cluster::WriteId, std::shared_ptr<Write>> writes;
  std::set<cluster::WriteId> pins;
  cluster::WriteId last = 0;
  size_t guards = 0;
  std::multiset<cluster::WriteId> kept;  // by guards that were narrowed

  bool happens(double MemoryDataFaults::* probability) {
    const std::lock_guard lock(mutex);
    const double p = faults.*probability;
    return p > 0 && static_cast<double>(random.below(1u << 30)) < p * (1u << 30);
  }
  Duration delay() {
    const std::lock_guard lock(mutex);
    if (faults.delay_max.count() <= 0) return Duration(0);
    return Duration(static_cast<int64_t>(random.below(static_cast<uint64_t>(faults.delay_max.count()) + 1)));
  }
  static Task<void> pause(std::shared_ptr<State> state) {
    const Duration delay = state->delay();
    if (delay.count() > 0) co_await sleep_for(delay);
  }
};

class MemoryDataPlane::Writer final : public cluster::DataWriter {
 public:
  Writer(std::shared_ptr<State> state, cluster::WriteOptions options, cluster::WriteId id, std::shared_ptr<State::Write> write)
      : state_(std::move(state)), options_(options), id_(id), write_(std::move(write)) {}
  ~Writer() override {
    const std::lock_guard lock(state_->mutex);
    write_->open = false;
    if (!kept_ && !settled_) state_->writes.erase(id_);
  }
  Task<Result<void>> append(Buffer data) override {
    CHECK(!data.empty() && !finished_);
    co_await State::pause(state_);
    if (state_->happens(&MemoryDataFaults::append_error)) co_return fail(Code::unavailable, "planned: append");
    write_->bytes.append(text_of(data));
    co_return Result<void>();
  }
  Task<Result<cluster::DataLayout>> finish() override {
    co_await State::pause(state_);
    if (state_->happens(&MemoryDataFaults::finish_error)) co_return fail(Code::unavailable, "planned: finish");
    finished_ = true;
    cluster::DataLayout layout{
        .write_id = id_, .group = 1, .redundancy = options_.redundancy, .size = write_->bytes.size(), .shard_size = 1 << 20};
    if (layout.redundancy.kind == cluster::RedundancyKind::erasure && layout.size <= options_.pack_limit) {
      layout.redundancy = {cluster::RedundancyKind::mirror, 1, options_.redundancy.m};
    }
    co_return layout;
  }
  void keep() override { kept_ = true; }
  void settle() override { settled_ = true; }

 private:
  std::shared_ptr<State> state_;
  const cluster::WriteOptions options_;
  const cluster::WriteId id_;
  std::shared_ptr<State::Write> write_;
  bool finished_ = false, kept_ = false, settled_ = false;
};

class MemoryDataPlane::Reader final : public cluster::DataReader {
 public:
  Reader(std::shared_ptr<State> state, std::shared_ptr<State::Write> write, cluster::WriteId id, uint64_t offset, uint64_t length)
      : state_(std::move(state)), write_(std::move(write)), id_(id), offset_(offset), left_(length) {}
  Task<Result<SharedBytes>> next(size_t max_bytes) override {
    co_await State::pause(state_);
    if (!write_) co_return fail(Code::data_lost, "write {} is gone: its reader came too late", id_);
    if (state_->happens(&MemoryDataFaults::read_error)) co_return fail(Code::data_lost, "planned: read");
    const size_t size = std::min<uint64_t>(left_, max_bytes);
    auto bytes = SharedBytes::copy_of(bytes_of(std::string_view(write_->bytes).substr(offset_, size)));
    offset_ += size;
    left_ -= size;
    co_return bytes;
  }

 private:
  std::shared_ptr<State> state_;
  std::shared_ptr<State::Write> write_;
  const cluster::WriteId id_;
  uint64_t offset_, left_;
};

class MemoryDataPlane::Guard final : public cluster::ReadGuard {
 public:
  explicit Guard(std::shared_ptr<State> state) : state_(std::move(state)) {
    const std::lock_guard lock(state_->mutex);
    ++state_->guards;
  }
  ~Guard() override {
    const std::lock_guard lock(state_->mutex);
    if (!narrowed_) --state_->guards;
    for (const auto id : writes_) state_->kept.erase(state_->kept.find(id));
  }
  void narrow(std::vector<cluster::WriteId> writes) override {
    const std::lock_guard lock(state_->mutex);
    CHECK(!std::exchange(narrowed_, true), "a guard is narrowed once");
    --state_->guards;
    writes_ = std::move(writes);
    state_->kept.insert(writes_.begin(), writes_.end());
  }

 private:
  std::shared_ptr<State> state_;
  bool narrowed_ = false;
  std::vector<cluster::WriteId> writes_;
};

MemoryDataPlane::MemoryDataPlane(meta::MetaStore& meta, MemoryDataFaults faults) : meta_(meta), state_(std::make_shared<State>()) {
  set_faults(faults);
}
MemoryDataPlane::~MemoryDataPlane() = default;

void MemoryDataPlane::set_faults(MemoryDataFaults faults) {
  const std::lock_guard lock(state_->mutex);
  state_->faults = faults;
  state_->random = SeededRandom(faults.seed);
}

size_t MemoryDataPlane::writes_held() const {
  const std::lock_guard lock(state_->mutex);
  return state_->writes.size();
}
uint64_t MemoryDataPlane::bytes_held() const {
  const std::lock_guard lock(state_->mutex);
  uint64_t total = 0;
  for (const auto& [id, write] : state_->writes) total += write->bytes.size();
  return total;
}
size_t MemoryDataPlane::writers_open() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<size_t>(
      std::count_if(state_->writes.begin(), state_->writes.end(), [](const auto& entry) { return entry.second->open; }));
}
size_t MemoryDataPlane::pinned() const {
  const std::lock_guard lock(state_->mutex);
  return state_->pins.size();
}

Task<Result<std::vector<cluster::DataPlane::Reference>>> MemoryDataPlane::references(cluster::WriteId after, size_t limit) {
  std::vector<Reference> found;
  std::string begin = meta::key_after(row_key(after));
  meta::ScanOptions scan{.range = {begin, prefix_end("D")}, .limit = limit};
  CO_TRY_ASSIGN(auto rows, co_await meta_.scan(std::move(scan)));
  for (const auto& row : rows) {
    Decoder in{std::string_view(row.value)};
    CO_TRY_ASSIGN(auto layout, cluster::DataLayout::decode(in));
    std::string owner(in.text());
    CO_TRY(in.finish("data row"));
    found.push_back({std::move(layout), std::move(owner)});
  }
  co_return found;
}

Task<Result<size_t>> MemoryDataPlane::sweep() {
  size_t removed = 0;
  meta::ScanOptions scan{.range = meta::KeyRange::prefix("R"), .limit = 1000};
  CO_TRY_ASSIGN(const auto rows, co_await meta_.scan(std::move(scan)));
  for (const auto& row : rows) {
    Decoder key(std::string_view(row.key).substr(1));
    const cluster::WriteId id = key.key_u64();
    {
      const std::lock_guard lock(state_->mutex);
      if (state_->guards > 0 || state_->kept.contains(id)) continue;
      removed += state_->writes.erase(id);
    }
    const auto gone = co_await meta::transact(meta_, [&row](meta::Transaction& transaction) { return remove_row(&transaction, row.key); });
    if (!gone) co_return gone.error();
  }
  co_return removed;
}

Task<Result<size_t>> MemoryDataPlane::collect() {
  if (notes_retired) CO_TRY(co_await sweep());
  std::vector<cluster::WriteId> candidates;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [id, write] : state_->writes) {
      if (!write->open) candidates.push_back(id);
    }
  }
  std::unordered_set<cluster::WriteId> referenced;
  for (cluster::WriteId after = 0;;) {
    CO_TRY_ASSIGN(auto page, co_await references(after, 1000));
    if (page.empty()) break;
    for (const auto& reference : page) referenced.insert(reference.layout.write_id);
    after = page.back().layout.write_id;
  }
  const std::lock_guard lock(state_->mutex);
  if (state_->guards > 0) co_return size_t{0};
  size_t removed = 0;
  for (const auto id : candidates) {
    if (!referenced.contains(id) && !state_->kept.contains(id)) removed += state_->writes.erase(id);
  }
  co_return removed;
}

Result<std::unique_ptr<cluster::DataWriter>> MemoryDataPlane::begin_write(const cluster::WriteOptions& options) {
  if (state_->happens(&MemoryDataFaults::begin_error)) return fail(Code::no_space, "planned: begin_write");
  auto write = std::make_shared<State::Write>();
  const std::lock_guard lock(state_->mutex);
  const cluster::WriteId id = ++state_->last;
  state_->writes[id] = write;
  return std::unique_ptr<cluster::DataWriter>(std::make_unique<Writer>(state_, options, id, std::move(write)));
}

std::unique_ptr<cluster::DataReader> MemoryDataPlane::read(const cluster::DataLayout& layout, uint64_t offset, uint64_t length,
                                                           cluster::CachePolicy) {
  CHECK(offset <= layout.size && length <= layout.size - offset);
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->writes.find(layout.write_id);
  return std::make_unique<Reader>(state_, found == state_->writes.end() ? nullptr : found->second, layout.write_id, offset, length);
}

std::unique_ptr<cluster::ReadGuard> MemoryDataPlane::guard_reads() { return std::make_unique<Guard>(state_); }

Task<Result<void>> MemoryDataPlane::set_pinned(cluster::DataLayout layout, bool pinned) {
  const std::lock_guard lock(state_->mutex);
  if (pinned) {
    state_->pins.insert(layout.write_id);
  } else {
    state_->pins.erase(layout.write_id);
  }
  co_return Result<void>();
}

void MemoryDataPlane::record(meta::Transaction& transaction, const cluster::DataLayout& layout, std::string owner) {
  std::string value;
  layout.encode(value);
  Encoder(value).text(owner);
  transaction.put(row_key(layout.write_id), std::move(value));
}
void MemoryDataPlane::retire(meta::Transaction& transaction, const cluster::DataLayout& layout) {
  transaction.remove(row_key(layout.write_id));
  if (notes_retired) transaction.put(retired_key(layout.write_id), "");
}
Task<Result<bool>> MemoryDataPlane::was_retired(meta::Transaction& transaction, cluster::DataLayout layout) {
  CO_TRY_ASSIGN(const auto row, co_await transaction.get(retired_key(layout.write_id)));
  co_return row.has_value();
}

std::vector<cluster::DriveStatus> MemoryDataPlane::drives() const {
  std::vector<cluster::DriveStatus> drives;
  for (uint32_t number = 1; number <= 4; ++number) {
    drives.push_back({.number = number, .path = fmt::format("memory{}", number), .domain = fmt::format("d{}", number), .state = "active"});
  }
  return drives;
}

Task<Result<void>> MemoryDataPlane::add_drive(std::string, bool) { co_return fail(Code::unsupported, "no drives here"); }
Task<Result<void>> MemoryDataPlane::drain_drive(uint32_t) { co_return fail(Code::unsupported, "no drives here"); }
Task<Result<void>> MemoryDataPlane::remove_drive(uint32_t, bool) { co_return fail(Code::unsupported, "no drives here"); }
Task<Result<void>> MemoryDataPlane::replace_drive(uint32_t, std::string, bool) { co_return fail(Code::unsupported, "no drives here"); }
Task<Result<void>> MemoryDataPlane::start_scrub() { co_return fail(Code::unsupported, "no drives here"); }

Task<Result<cluster::DataPlane::FsckReport>> MemoryDataPlane::fsck(bool) {
  FsckReport report;
  std::unordered_set<cluster::WriteId> referenced;
  for (cluster::WriteId after = 0;;) {
    CO_TRY_ASSIGN(auto page, co_await references(after, 1000));
    if (page.empty()) break;
    for (const auto& reference : page) {
      ++report.data_rows;
      referenced.insert(reference.layout.write_id);
      const std::lock_guard lock(state_->mutex);
      const auto write = state_->writes.find(reference.layout.write_id);
      if (write == state_->writes.end()) {
        ++report.missing_chunks;
        report.violations.push_back(fmt::format("write {} of {} is gone", reference.layout.write_id, reference.owner));
      } else if (write->second->bytes.size() != reference.layout.size) {
        report.violations.push_back(fmt::format("write {} of {} has another size", reference.layout.write_id, reference.owner));
      }
    }
    after = page.back().layout.write_id;
  }
  const std::lock_guard lock(state_->mutex);
  report.chunks = state_->writes.size();
  for (const auto& [id, write] : state_->writes) {
    if (!write->open && !referenced.contains(id)) ++report.orphan_chunks;
  }
  co_return report;
}

}  // namespace quarry::object
