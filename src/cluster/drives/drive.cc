#include "cluster/drives/drive.h"

#include <bit>

#include "base/log.h"
#include "io/pace.h"
#include "io/thread_pool.h"

namespace quarry::cluster {
namespace {

// Kept free of object data, so that metadata and removals go on when users have filled the drive: 1/32 of it, at least 192 MiB (the
// metadata's log and two checkpoints; a quarter of a tiny drive), at most 2 GiB.
uint64_t kept_free(uint64_t device_bytes) {
  return std::clamp<uint64_t>(device_bytes / 32, std::min<uint64_t>(device_bytes / 4, 192 * kMiB), 2 * kGiB);
}

// An error that is about the request or the one chunk, not about the drive.
bool harmless(Code code) {
  switch (code) {
    case Code::not_found:
    case Code::already_exists:
    case Code::out_of_range:
    case Code::too_large:
    case Code::invalid_argument:
    case Code::corrupt:
    case Code::no_space:
    case Code::overloaded: return true;  // of this process: its descriptors, its queues
    default: return false;
  }
}

}  // namespace

void LatencyStatistics::observe(Duration duration) {
  const uint64_t quarter_us = std::max<int64_t>(duration.count(), 0) / 250;  // bucket 0: below 4 us
  size_t bucket = 0;
  if (quarter_us >= 16) {
    const unsigned log = std::bit_width(quarter_us) - 1;
    bucket = 2 * (log - 4) + 1 + (quarter_us >> (log - 1) & 1);
  }
  counts_[std::min(bucket, kBuckets - 1)].fetch_add(1, std::memory_order_relaxed);
  if (total_.fetch_add(1, std::memory_order_relaxed) + 1 < kSamplesMax) return;
  total_.store(kSamplesMax / 2, std::memory_order_relaxed);  // old samples fade; a race only makes them fade twice
  for (auto& count : counts_) count.store(count.load(std::memory_order_relaxed) / 2, std::memory_order_relaxed);
}

void LatencyStatistics::reset() {
  for (auto& count : counts_) count.store(0, std::memory_order_relaxed);
  total_.store(0, std::memory_order_relaxed);
}

Duration LatencyStatistics::quantile(double q, Duration fallback) const {
  std::array<uint32_t, kBuckets> counts;
  uint64_t total = 0;
  for (size_t i = 0; i < kBuckets; ++i) total += counts[i] = counts_[i].load(std::memory_order_relaxed);
  if (total < kSamplesMin) return fallback;
  uint64_t need = static_cast<uint64_t>(q * static_cast<double>(total));
  for (size_t i = 0; i < kBuckets; ++i) {
    if (counts[i] > need) {
      const size_t step = i + 1;  // upper bound of bucket i: 4 us * 2^(i / 2), with 3/2 between
      const uint64_t base = uint64_t{4000} << (step - 1) / 2;
      return Duration(i == 0 ? 4000 : (step - 1) % 2 == 0 ? base : base + base / 2);
    }
    need -= counts[i];
  }
  return fallback;
}

void CallList::add(Call& call) {
  std::lock_guard lock(mutex_);
  call.after = first_;
  if (first_ != nullptr) first_->before = &call;
  first_ = &call;
}

void CallList::remove(Call& call) {
  std::lock_guard lock(mutex_);
  (call.before != nullptr ? call.before->after : first_) = call.after;
  if (call.after != nullptr) call.after->before = call.before;
}

std::optional<TimePoint> CallList::oldest(bool puts_only) const {
  std::optional<TimePoint> oldest;
  std::lock_guard lock(mutex_);
  for (const Call* call = first_; call != nullptr; call = call->after) {
    if (call->is_put || !puts_only) oldest = std::min(oldest.value_or(call->began), call->began);
  }
  return oldest;
}

void CallList::give_up(const Error& error, std::atomic<size_t>& left_behind) {
  std::vector<std::shared_ptr<Call>> waiting;
  {
    std::lock_guard lock(mutex_);
    for (Call* call = first_; call != nullptr; call = call->after) waiting.push_back(call->shared_from_this());
  }
  for (auto& call : waiting) tell(std::move(call), error, left_behind);
}

detail::Root CallList::tell(std::shared_ptr<Call> call, Error error, std::atomic<size_t>& left_behind) {
  const std::shared_ptr<Call> own = std::move(call);
  const Error reason = std::move(error);
  co_await own->home.enter();
  if (own->is_answered()) co_return;
  left_behind.fetch_add(1);
  own->answer_with(reason);
  own->wake();
}

Drive::Drive(Identity identity, std::unique_ptr<chunk::ChunkStore> store, Executor& owner)
    : identity_(std::move(identity)), id_(store->drive_id()), keeps_files_(store->keeps_files()), store_(std::move(store)), owner_(owner) {}
Drive::~Drive() { CHECK(!hangs(), "a Drive dies while its store is still at work"); }

Result<void> Drive::usable(Ask ask) const {
  const bool asked_whether_it_is_back = ask == Ask::health && suspended() && !disabled() && !broken();
  if (condition() == DriveCondition::down && !asked_whether_it_is_back)
    return fail(Code::device_gone, "drive {} ({}) is down: {}", number(), path(), reason());
  return {};
}

std::string Drive::reason() const {
  std::lock_guard lock(mutex_);
  return disabled_.load() ? disabled_reason_ : suspended_.load() ? suspended_reason_ : reason_;
}

void Drive::worsen(DriveCondition to, std::string reason) {
  {
    std::lock_guard lock(mutex_);
    if (condition_.load() >= to) return;
    condition_.store(to, std::memory_order_release);
    reason_ = std::move(reason);
  }
  LOG_WARNING("drive condition worsened", {"drive", number()}, {"path", path()},
              {"condition", to == DriveCondition::down ? "down" : "read_only"}, {"reason", this->reason()});
  if (listener_) listener_(*this);
}

void Drive::fail_with(std::string reason, Reason because) {
  if (because == Reason::taken) taken_.store(true, std::memory_order_release);
  gone_.store(true, std::memory_order_release);
  worsen(DriveCondition::down, std::move(reason));
}

void Drive::take_down(std::string reason) { worsen(DriveCondition::down, std::move(reason)); }

void Drive::disable(std::string reason) {
  bool was = false;
  {
    std::lock_guard lock(mutex_);
    disabled_reason_ = std::move(reason);
    was = disabled_.exchange(true, std::memory_order_acq_rel);
  }
  if (listener_ && !was) listener_(*this);
}

void Drive::suspend(std::string reason) {
  {
    std::lock_guard lock(mutex_);
    suspended_reason_ = std::move(reason);
    suspended_.store(true, std::memory_order_release);
  }
  if (listener_) listener_(*this);
}

void Drive::resume() {
  {
    std::lock_guard lock(mutex_);
    suspended_.store(false, std::memory_order_release);
    suspended_reason_.clear();
  }
  if (listener_) listener_(*this);
}

Drive::Trouble Drive::trouble(TimePoint now) const {
  std::lock_guard lock(mutex_);
  Trouble trouble{.unwell = unwell_};
  if (failed_ > 0 && now - failed_at_ < kTroubleLasts) {
    trouble.failed = failed_;
    trouble.last_error = last_error_;
  }
  // Metadata of a file system comes and goes; what is worth a word is a part of the device.
  if (size_bytes() < size_max_ - size_max_ / 64) trouble.shrunk_from = size_max_;
  return trouble;
}

void Drive::note_unwell(std::string why) {
  std::lock_guard lock(mutex_);
  unwell_ = std::move(why);
}

void Drive::give_up() {
  if (condition() != DriveCondition::down) return;  // its callers are told that it is down, so it has to be
  calls_.give_up(fail(Code::device_gone, "drive {} ({}) is given up: {}", number(), path(), reason()), left_behind_);
}

void Drive::enable() {
  std::lock_guard lock(mutex_);
  disabled_.store(false, std::memory_order_release);
  disabled_reason_.clear();
}

void Drive::judge(const Error& error) {  // on the owner's thread
  if (harmless(error.code())) return;
  {
    const TimePoint now = owner_.now();
    std::lock_guard lock(mutex_);
    if (now - failed_at_ >= kTroubleLasts) failed_ = 0;
    failed_at_ = now;
    ++failed_;
    last_error_ = error.to_string();
  }
  if (!suspicious_.exchange(true) && listener_) listener_(*this);
  if (error.code() == Code::device_gone) return fail_with(error.to_string(), error.reason());
  const chunk::StoreHealth health = store_->health();
  if (health.state == chunk::StoreState::failed) fail_with(health.reason.empty() ? error.to_string() : health.reason, health.because);
  if (health.state == chunk::StoreState::read_only)
    worsen(DriveCondition::read_only, health.reason.empty() ? error.to_string() : health.reason);
}

namespace {

// What a put borrows, copied: for callers that may be sent on while the store still reads it.
struct PutCopy {
  Buffer bytes;
  std::string directory, name;
};

}  // namespace

Task<Result<void>> Drive::put(ChunkId id, std::vector<ByteView> parts, chunk::Stream stream) {
  return put(id, std::move(parts), chunk::PutOptions{.stream = stream});
}

Task<Result<void>> Drive::put(ChunkId id, std::vector<ByteView> parts, chunk::PutOptions options, std::shared_ptr<const void> hold) {
  if (hold == nullptr) {
    auto copy = std::make_shared<PutCopy>();
    size_t size = 0;
    for (ByteView part : parts) size += part.size();
    if (size > 0) {
      copy->bytes = Buffer(size);
      size_t at = 0;
      for (ByteView part : parts) {
        if (!part.empty()) std::memcpy(copy->bytes.data() + at, part.data(), part.size());
        at += part.size();
      }
      parts = {copy->bytes.view()};
    }
    if (options.file) {
      copy->directory = options.file->directory;
      copy->name = options.file->name;
      options.file->directory = copy->directory;
      options.file->name = copy->name;
    }
    hold = std::move(copy);
  }
  return call(
      [id, parts = std::move(parts), options, hold = std::move(hold)](chunk::ChunkStore& store) { return store.put(id, parts, options); },
      Ask::put);
}

Task<Result<void>> Drive::finish_file(ChunkId first, uint64_t size) {
  return call([=](chunk::ChunkStore& store) { return store.finish_file(first, size); });
}

Task<Result<void>> Drive::timed(Task<Result<void>> write) {
  const TimePoint begin = Executor::here().now();
  Result<void> done = co_await std::move(write);
  if (done) write_latency.observe(Executor::here().now() - begin);
  co_return done;
}

Task<Result<void>> Drive::show_file(ChunkId first, std::vector<std::pair<std::string, std::string>> attributes) {
  return call([first, attributes = std::move(attributes)](chunk::ChunkStore& store) { return store.show_file(first, attributes); });
}

Task<Result<void>> Drive::hide_file(ChunkId first) {
  return call([=](chunk::ChunkStore& store) { return store.hide_file(first); });
}

Task<Result<void>> Drive::check_health() {
  return call([](chunk::ChunkStore& store) { return store.check_health(); }, Ask::health);
}

Task<Result<SharedBytes>> Drive::get(ChunkId id, uint32_t offset, uint32_t length) {
  return call([=](chunk::ChunkStore& store) { return store.get(id, offset, length); });
}

Task<Result<void>> Drive::remove(std::vector<ChunkId> ids) {
  return call([ids = std::move(ids)](chunk::ChunkStore& store) { return store.remove(ids); });
}

Task<Result<chunk::ChunkStat>> Drive::stat(ChunkId id) {
  return call([=](chunk::ChunkStore& store) { return store.stat(id); });
}

Task<Result<std::vector<chunk::ChunkStat>>> Drive::list(ChunkId from, ChunkId to, size_t limit) {
  return call([=](chunk::ChunkStore& store) { return store.list(from, to, limit); });
}

Task<Result<chunk::ScrubProgress>> Drive::scrub(ChunkId from, uint64_t budget_bytes) {
  return call([=](chunk::ChunkStore& store) { return store.scrub(from, budget_bytes); });
}

Task<Result<chunk::FsckReport>> Drive::fsck() {
  return call([](chunk::ChunkStore& store) { return store.fsck(); });
}

Task<Result<void>> Drive::set_label(std::string label) {
  return call([label = std::move(label)](chunk::ChunkStore& store) { return store.set_label(label); });
}

namespace {

Task<Result<std::string>> label_of(chunk::ChunkStore& store) { co_return store.label(); }

ChunkId with_rewrite(ChunkName name, uint16_t rewrite) {
  name.generation = generation_of(term_of(name.generation), rewrite);
  return chunk_id(name);
}

Task<Result<SharedBytes>> find_shard(chunk::ChunkStore& store, ChunkName name, uint32_t offset, uint32_t length) {
  Result<SharedBytes> first = co_await store.get(with_rewrite(name, 0), offset, length);
  if (first) co_return first;
  std::optional<Error> worst = std::move(first).error();
  for (uint16_t rewrite = 1; rewrite <= kRewritesMax; ++rewrite) {
    if (worst->code() == Code::device_gone) break;
    Result<SharedBytes> next = co_await store.get(with_rewrite(name, rewrite), offset, length);
    if (next) co_return next;
    if (next.error().code() != Code::not_found) worst = std::move(next).error();
  }
  co_return std::move(*worst);
}

Task<Result<std::vector<ChunkId>>> existing_rewrites(chunk::ChunkStore& store, ChunkName name) {
  std::vector<ChunkId> ids;
  for (uint16_t rewrite = 0; rewrite <= kRewritesMax; ++rewrite) {
    const ChunkId id = with_rewrite(name, rewrite);
    Result<chunk::ChunkStat> found = co_await store.stat(id);
    if (found) {
      ids.push_back(id);
    } else if (found.error().code() != Code::not_found) {
      co_return std::move(found).error();
    }
    // The common case: rewrite 0 is there, and 1 is not. Where it was rewritten before, any may be there.
    if (rewrite == 1 && !found && !ids.empty()) break;
  }
  co_return ids;
}

Task<Result<uint32_t>> size_of_shard(chunk::ChunkStore& store, ChunkName name) {
  for (uint16_t rewrite = 0; rewrite <= kRewritesMax; ++rewrite) {
    Result<chunk::ChunkStat> found = co_await store.stat(with_rewrite(name, rewrite));
    if (found) co_return found->size;
    if (found.error().code() != Code::not_found) co_return std::move(found).error();
  }
  co_return fail(Code::not_found, "shard {}", chunk_id(name).to_string());
}

Task<Result<void>> replace_shard(chunk::ChunkStore& store, ChunkName name, std::vector<ByteView> parts) {
  CO_TRY_ASSIGN(std::vector<ChunkId> old, co_await existing_rewrites(store, name));
  // A chunk that the store lost altogether has left no trace; its first id was used all the same.
  uint16_t rewrite = old.empty() ? 1 : rewrite_of(chunk_name(old.back()).generation) + 1;
  for (;; ++rewrite) {
    if (rewrite > kRewritesMax) {
      co_return fail(Code::io_error, "shard {} was damaged {} times on this drive: replace the drive", chunk_id(name).to_string(),
                     kRewritesMax);
    }
    Result<void> put = co_await store.put(with_rewrite(name, rewrite), parts, {.stream = chunk::Stream::data});
    if (put) break;
    if (put.error().code() != Code::already_exists) co_return put;
  }
  if (old.empty()) co_return Result<void>();
  co_return co_await store.disown(old);  // a file that somebody changed is theirs
}

Task<Result<void>> drop_shards(chunk::ChunkStore& store, std::vector<ChunkName> names) {
  std::vector<ChunkId> ids;
  Pace pace;
  for (const ChunkName& name : names) {
    co_await pace;
    CO_TRY_ASSIGN(std::vector<ChunkId> found, co_await existing_rewrites(store, name));
    ids.insert(ids.end(), found.begin(), found.end());
  }
  if (ids.empty()) co_return Result<void>();
  co_return co_await store.remove(std::move(ids));
}

Task<Result<void>> abandon_shards(chunk::ChunkStore& store, std::vector<ChunkName> names) {
  std::vector<ChunkId> ids;
  Pace pace;
  for (const ChunkName& name : names) {
    co_await pace;
    CO_TRY_ASSIGN(std::vector<ChunkId> found, co_await existing_rewrites(store, name));
    ids.insert(ids.end(), found.begin(), found.end());
  }
  if (ids.empty()) co_return Result<void>();
  co_return co_await store.disown(std::move(ids));
}

// The newest rewrite that is a file; others are single chunks that were repaired beside it. One that was never finished, since a put of it
// failed, is none: repair makes it anew, and shows it.
Task<Result<void>> show_newest(chunk::ChunkStore& store, ChunkName name, FileAttributes attributes) {
  CO_TRY_ASSIGN(std::vector<ChunkId> ids, co_await existing_rewrites(store, name));
  for (size_t i = ids.size(); i-- > 0;) {
    Result<void> shown = co_await store.show_file(ids[i], attributes);
    const bool no_file = !shown && (shown.error().code() == Code::not_found || shown.error().code() == Code::precondition_failed);
    if (!no_file) co_return shown;
  }
  co_return Result<void>();
}

Task<Result<void>> hide_all(chunk::ChunkStore& store, ChunkName name) {
  CO_TRY_ASSIGN(std::vector<ChunkId> ids, co_await existing_rewrites(store, name));
  for (const ChunkId id : ids) {
    Result<void> hidden = co_await store.hide_file(id);
    if (!hidden && hidden.error().code() != Code::not_found) co_return hidden;
  }
  co_return Result<void>();
}

}  // namespace

Task<Result<void>> Drive::disown(std::vector<ChunkId> ids) {
  return call([ids = std::move(ids)](chunk::ChunkStore& store) { return store.disown(ids); });
}

Task<Result<void>> Drive::disown_shards(std::vector<ChunkName> names) {
  return call([names = std::move(names)](chunk::ChunkStore& store) { return abandon_shards(store, names); });
}

Task<Result<std::vector<ChunkId>>> Drive::rewrites(ChunkName name) {
  return call([=](chunk::ChunkStore& store) { return existing_rewrites(store, name); });
}

Task<Result<void>> Drive::show_shard_file(ChunkName name, FileAttributes attributes) {
  return call([name, attributes = std::move(attributes)](chunk::ChunkStore& store) { return show_newest(store, name, attributes); });
}

Task<Result<void>> Drive::hide_shard_file(ChunkName name) {
  return call([=](chunk::ChunkStore& store) { return hide_all(store, name); });
}

Task<Result<std::string>> Drive::label() {
  return call([](chunk::ChunkStore& store) { return label_of(store); });
}

Task<Result<SharedBytes>> Drive::get_shard(ChunkName name, uint32_t offset, uint32_t length) {
  const TimePoint begin = Executor::here().now();
  reads_in_flight.fetch_add(1, std::memory_order_relaxed);
  auto result = co_await call([=](chunk::ChunkStore& store) { return find_shard(store, name, offset, length); });
  reads_in_flight.fetch_sub(1, std::memory_order_relaxed);
  if (result) read_latency.observe(Executor::here().now() - begin);
  co_return result;
}

Task<Result<uint32_t>> Drive::stat_shard(ChunkName name) {
  return call([=](chunk::ChunkStore& store) { return size_of_shard(store, name); });
}

Task<Result<void>> Drive::rewrite_shard(ChunkName name, std::vector<ByteView> parts) {
  size_t size = 0;
  for (ByteView part : parts) size += part.size();
  auto copy = std::make_shared<Buffer>(size);  // as for put
  size_t at = 0;
  for (ByteView part : parts) {
    std::memcpy(copy->data() + at, part.data(), part.size());
    at += part.size();
  }
  return call([name, copy](chunk::ChunkStore& store) { return replace_shard(store, name, {copy->view()}); }, Ask::put);
}

Task<Result<void>> Drive::remove_shards(std::vector<ChunkName> names) {
  return call([names = std::move(names)](chunk::ChunkStore& store) { return drop_shards(store, names); });
}

detail::Root Drive::close_store(std::shared_ptr<CallOf<Result<void>>> call) {
  co_await owner_.enter();
  Result<void> closed = co_await store_->close();
  co_await owner_.yield();            // let what woke us come to its end
  if (at_work_ == 0) store_.reset();  // with it the last handles: a file system can be unmounted
  store_closed_.store(true, std::memory_order_release);
  co_await call->home.enter();
  conclude(*call, std::move(closed));
}

Task<Result<void>> Drive::close(Duration patience) {
  if (closed_.exchange(true)) co_return Result<void>();
  const auto mine = std::make_shared<CallOf<Result<void>>>(Executor::here());
  Result<void> closed;
  if (hangs()) {
    const TimePoint until = mine->home.now() + patience;
    while (hangs() && mine->home.now() < until) co_await sleep_for(std::chrono::milliseconds(20));
  }
  if (hangs()) {
    closed_.store(false);  // to be tried again
    closed = fail(Code::timed_out, "drive {} ({}) hangs: it cannot be closed", number(), path());
  } else {
    mine->began = mine->home.now();
    mine->is_put = true;  // given up like one
    calls_.add(*mine);
    close_store(mine);
    co_await *mine;
    calls_.remove(*mine);
    closed = std::move(*mine->answer);
  }
  {
    std::lock_guard lock(mutex_);
    condition_.store(DriveCondition::down, std::memory_order_release);
    if (reason_.empty()) reason_ = "closed";
  }
  co_return closed;
}

chunk::SpaceReport Drive::space() const {
  std::lock_guard lock(mutex_);
  return space_;
}

chunk::StoreHealth Drive::health() const {
  std::lock_guard lock(mutex_);
  return health_;
}

bool Drive::reserve(uint64_t bytes) {
  if (room_.load(std::memory_order_relaxed) < static_cast<int64_t>(bytes)) return false;
  room_.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  return true;
}

void Drive::set_look_below(std::function<Result<SpaceBelow>()> look) {
  if (!look) return;
  below_ = std::make_shared<Below>();
  below_->look = std::move(look);
  look_below();
}

void Drive::look_below() {
  if (below_ == nullptr || below_->looking.exchange(true)) return;
  detail::run_apart([below = below_] {
    Result<SpaceBelow> found = below->look();
    {
      std::lock_guard lock(below->mutex);
      if (found) below->seen = std::move(*found);
      if (!found) std::move(found).ignore("what was seen last counts; that the drive fails is found elsewhere");
    }
    below->looking.store(false);
  });
}

std::string Drive::file_system_below() const {
  if (below_ == nullptr) return {};
  std::lock_guard lock(below_->mutex);
  return below_->seen ? below_->seen->file_system : std::string();
}

uint64_t Drive::room_below() const {
  if (below_ == nullptr) return UINT64_MAX;
  const uint64_t used = space().used_bytes;
  std::lock_guard lock(below_->mutex);
  if (!below_->seen) return UINT64_MAX;
  const uint64_t allocated = below_->seen->allocated_bytes;
  return below_->seen->free_bytes / sharers_below_.load(std::memory_order_relaxed) + (allocated - std::min(allocated, used));
}

uint64_t Drive::room() const { return static_cast<uint64_t>(std::max<int64_t>(room_.load(std::memory_order_relaxed), 0)); }

Task<void> Drive::refresh() {
  if (condition() == DriveCondition::down) co_return;
  Executor& home = Executor::here();
  co_await owner_.enter();
  if (store_ == nullptr) {
    co_await home.enter();
    co_return;
  }
  const chunk::SpaceReport space = store_->space();
  const chunk::StoreHealth health = store_->health();
  co_await home.enter();
  {
    std::lock_guard lock(mutex_);
    space_ = space;
  }
  const uint64_t free = std::min(space.free_bytes, room_below());
  {
    std::lock_guard lock(mutex_);
    health_ = health;
    size_.store(space.device_bytes, std::memory_order_relaxed);
    size_max_ = std::max(size_max_, space.device_bytes);
    room_.store(static_cast<int64_t>(free) - static_cast<int64_t>(kept_free(space.device_bytes)), std::memory_order_relaxed);
    if (health.state == chunk::StoreState::online && condition_.load() == DriveCondition::read_only) {
      condition_.store(DriveCondition::up, std::memory_order_release);
      reason_.clear();
    }
  }
  if (health.state == chunk::StoreState::failed) fail_with(health.reason, health.because);
  if (health.state == chunk::StoreState::read_only) worsen(DriveCondition::read_only, health.reason);
}

}  // namespace quarry::cluster
