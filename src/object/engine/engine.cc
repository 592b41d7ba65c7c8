#include "object/engine/engine.h"

#include "codec/digest.h"
#include "io/pace.h"
#include "object/engine/files.h"

namespace quarry::object {
namespace {

constexpr Duration kFirstPause = std::chrono::microseconds(50), kLongestPause = std::chrono::milliseconds(20);
constexpr int kConflictsBeforeGate = 1;

uint64_t gate_hash(BucketId bucket, std::string_view key) { return hash64(bytes_of(key), bucket); }

// After a commit of unknown outcome no later failure to ask may read as "nothing happened".
Error after_unknown(Error error, bool unknown) {
  if (!unknown || error.code() == Code::unknown_outcome) return error;
  return fail(Code::unknown_outcome, "a commit may have happened, and asking failed: {}", error.to_string());
}

}  // namespace

std::unique_ptr<ObjectEngine> make_object_engine(EngineOptions options) { return std::make_unique<Engine>(std::move(options)); }

Engine::Engine(EngineOptions options) : options_(std::move(options)), hashes_(options_.compute) {
  data().files().set_judge(make_file_judge(meta()));
  data().files().set_name_settler(make_name_settler(meta(), data(), name_gates_));
}

Sequence Engine::next_time() {
  const auto wall = static_cast<Sequence>(std::max<WallTime>(options_.clock.wall_now(), 1));
  Sequence last = last_time_.load(std::memory_order_relaxed);
  Sequence mine;
  do {
    mine = std::max(wall, last + 1);
  } while (!last_time_.compare_exchange_weak(last, mine, std::memory_order_relaxed));
  return mine;
}

unsigned Engine::failure_domains() {
  if (options_.failure_domains != 0) return options_.failure_domains;
  const int64_t now = Executor::here().now().time_since_epoch().count();
  const int64_t looked = domains_looked_at_.load(std::memory_order_relaxed);
  const unsigned known = domains_.load(std::memory_order_relaxed);
  if (known != 0 && looked != INT64_MIN && now - looked < 1'000'000'000) return known;
  std::set<std::string> domains;
  for (const auto& drive : options_.data.drives()) {
    // A failed or missing drive still counts: its store is degraded, not smaller. Writes go on with a shard fewer.
    if (drive.state != "removed") domains.insert(drive.domain);
  }
  const auto count = static_cast<unsigned>(std::max<size_t>(domains.size(), 1));
  domains_.store(count, std::memory_order_relaxed);
  domains_looked_at_.store(now, std::memory_order_relaxed);
  return count;
}

Result<cluster::Redundancy> Engine::redundancy_of(const BucketPolicy& policy) {
  const unsigned domains = failure_domains();
  if (!policy.redundancy.empty()) return cluster::parse_redundancy(policy.redundancy, domains);
  if (!options_.default_redundancy.empty()) return cluster::parse_redundancy(options_.default_redundancy, domains);
  return cluster::parse_redundancy(cluster::default_profile(domains), domains);
}

// ---- the bucket cache -------------------------------------------------------------------------------------------------------

Result<BucketRef> Engine::learn_bucket(const std::string& name, std::optional<std::string> row) {
  if (!row) {
    forget_bucket(name);
    return fail(Code::not_found, "bucket '{}'", name);
  }
  const std::lock_guard lock(cache_mutex_);
  const auto known = cache_.find(name);
  if (known != cache_.end() && known->second->raw == *row) return known->second;
  auto record = decode_bucket(*row);
  if (!record) return std::move(record).error().with(name);
  if (record->info.name != name) return fail(Code::corrupt, "bucket '{}': its row is that of '{}'", name, record->info.name);
  auto bucket = std::make_shared<const Bucket>(Bucket{std::move(*row), std::move(record->info), record->unique});
  if (cache_.size() >= kBucketCacheMax && known == cache_.end()) cache_.erase(cache_.begin());
  cache_[name] = bucket;
  return bucket;
}

void Engine::forget_bucket(const std::string& name) {
  const std::lock_guard lock(cache_mutex_);
  cache_.erase(name);
}

Task<Result<BucketRef>> Engine::fresh_bucket(std::string name) {
  CO_TRY_ASSIGN(auto row, co_await meta().get(bucket_name_key(name)));
  co_return learn_bucket(name, std::move(row));
}

Task<Result<BucketRef>> Engine::open_bucket(std::string name) {
  {
    const std::lock_guard lock(cache_mutex_);
    const auto known = cache_.find(name);
    if (known != cache_.end()) co_return known->second;
  }
  auto bucket = co_await fresh_bucket(std::move(name));
  co_return bucket;
}

Task<Result<BucketRef>> Engine::bucket_in(meta::Transaction& transaction, std::string name) {
  CO_TRY_ASSIGN(auto row, co_await transaction.get(bucket_name_key(name)));
  co_return learn_bucket(name, std::move(row));
}

// ---- applying changes -------------------------------------------------------------------------------------------------------

Task<Result<void>> Engine::charge(meta::Transaction& transaction, const BucketInfo& bucket, UsageDelta usage) {
  const std::string objects_row = counter_key(bucket.id, UsageCounter::objects), bytes_row = counter_key(bucket.id, UsageCounter::bytes);
  // Only growth is held against a quota: deleting from a bucket that is over a lowered quota must work. The counter read is a
  // conflict with every other growth, so concurrent puts cannot exceed the quota together.
  if (bucket.quota.bytes != 0 && usage.bytes > 0) {
    CO_TRY_ASSIGN(auto row, co_await transaction.get(bytes_row));
    CO_TRY_ASSIGN(const uint64_t used, row ? decode_counter(*row) : Result<uint64_t>(0));
    if (used + static_cast<uint64_t>(usage.bytes) > bucket.quota.bytes) {
      co_return fail(Code::quota_exceeded, "bucket '{}': {} of {} bytes used, {} more wanted", bucket.name, used, bucket.quota.bytes,
                     usage.bytes);
    }
  }
  if (bucket.quota.objects != 0 && usage.objects > 0) {
    CO_TRY_ASSIGN(auto row, co_await transaction.get(objects_row));
    CO_TRY_ASSIGN(const uint64_t used, row ? decode_counter(*row) : Result<uint64_t>(0));
    if (used + static_cast<uint64_t>(usage.objects) > bucket.quota.objects) {
      co_return fail(Code::quota_exceeded, "bucket '{}': {} of {} objects used", bucket.name, used, bucket.quota.objects);
    }
  }
  if (usage.objects != 0) transaction.add(objects_row, usage.objects);
  if (usage.bytes != 0) transaction.add(bytes_row, usage.bytes);
  co_return Result<void>();
}

Task<Result<void>> Engine::run_change(const RequestContext& ctx, std::string bucket_name, BucketId expected, std::string key,
                                      KeyChange& change) {
  Gate::Pass quota_pass, key_pass;  // taken in this order, always
  Duration pause = kFirstPause;
  int conflicts = 0, unknowns = 0;
  const RequestContext::TimePoint deadline = ctx.deadline;
  for (;;) {
    if (Executor::here().now() >= deadline) {
      co_return after_unknown(fail(Code::timed_out, "key '{}': the deadline passed before its change was committed", key),
                              change.is_unknown());
    }
    auto begun = co_await meta().begin();
    if (!begun) co_return after_unknown(std::move(begun).error(), change.is_unknown());
    meta::Transaction& transaction = **begun;
    auto bucket = co_await bucket_in(transaction, bucket_name);
    if (!bucket) co_return after_unknown(std::move(bucket).error(), change.is_unknown());
    const BucketInfo& info = (*bucket)->info;
    if (expected != 0 && info.id != expected) {
      co_return after_unknown(fail(Code::not_found, "bucket '{}' was deleted and made anew meanwhile", bucket_name), change.is_unknown());
    }
    if ((info.quota.bytes != 0 || info.quota.objects != 0) && !quota_pass.held()) {
      key_pass.release();
      quota_pass = co_await quota_gates_.at(info.id).enter();
      continue;  // with a fresh snapshot
    }

    ChangeContext context{.transaction = transaction, .data = data(), .bucket = info, .now = next_time(), .usage = {}};
    auto applied = co_await change.apply(context);
    bool conflict = !applied && applied.error().code() == Code::conflict;
    if (!applied && !conflict) co_return after_unknown(std::move(applied).error(), change.is_unknown());
    if (applied && *applied == Applied::nothing_to_write) co_return Result<void>();
    if (applied) {
      auto charged = co_await charge(transaction, info, context.usage);
      if (!charged) co_return after_unknown(std::move(charged).error(), change.is_unknown());
      auto committed = co_await transaction.commit();
      if (committed) {
        if (context.usage.retired) data().retired();
        co_return Result<void>();
      }
      conflict = committed.error().code() == Code::conflict;
      if (committed.error().code() == Code::unknown_outcome) {
        change.outcome_unknown();
        if (++unknowns > kUnknownRetriesMax) co_return std::move(committed).error();
      } else if (!conflict) {
        co_return after_unknown(std::move(committed).error(), change.is_unknown());
      }
    }
    if (conflict && ++conflicts > options_.conflict_retries_max) {
      co_return after_unknown(fail(Code::conflict, "key '{}': {} tries met concurrent changes; try again later", key, conflicts),
                              change.is_unknown());
    }
    begun->reset();  // its snapshot is of no more use, and the waits below may be long
    if (conflict && conflicts >= kConflictsBeforeGate && !key_pass.held()) {
      key_pass = co_await key_gates_.at(gate_hash(info.id, key)).enter();
    } else {
      co_await sleep_for(pause);
      pause = std::min(pause * 2, kLongestPause);
    }
  }
}

Task<Result<void>> Engine::run_batch(const RequestContext& ctx, std::string bucket_name, std::vector<KeyChange*> changes) {
  Gate::Pass quota_pass;
  int unknowns = 0;
  bool unknown = false;
  for (int tries = 0;; ++tries) {
    auto begun = co_await meta().begin();
    if (!begun) co_return after_unknown(std::move(begun).error(), unknown);
    meta::Transaction& transaction = **begun;
    auto bucket = co_await bucket_in(transaction, bucket_name);
    if (!bucket) co_return after_unknown(std::move(bucket).error(), unknown);
    const BucketInfo& info = (*bucket)->info;
    UsageDelta usage;
    bool to_commit = false;
    Result<void> state;
    Pace pace;
    for (KeyChange* change : changes) {
      co_await pace;
      ChangeContext context{.transaction = transaction, .data = data(), .bucket = info, .now = next_time(), .usage = {}};
      auto applied = co_await change->apply(context);
      change->failure.reset();
      if (!applied) {
        const bool own = applied.error().error_class() == ErrorClass::caller || applied.error().code() == Code::unknown_outcome;
        if (!own) {
          state = std::move(applied).error();
          break;
        }
        change->failure = std::move(applied).error();
        continue;
      }
      if (*applied == Applied::commit) to_commit = true;
      usage.objects += context.usage.objects;
      usage.bytes += context.usage.bytes;
      usage.retired |= context.usage.retired;
    }
    if (state && !to_commit) co_return Result<void>();
    if (state) state = co_await charge(transaction, info, usage);
    if (state) {
      auto committed = co_await transaction.commit();
      if (committed) {
        if (usage.retired) data().retired();
        co_return Result<void>();
      }
      state = std::move(committed).error();
    }
    if (state.error().code() == Code::unknown_outcome) {
      unknown = true;
      for (KeyChange* change : changes) {
        if (!change->failure) change->outcome_unknown();
      }
      if (++unknowns > kUnknownRetriesMax) co_return std::move(state).error();
      continue;
    }
    // A second conflict: the caller's changes meet others; one by one they wait for them at the gates.
    if (state.error().code() != Code::conflict || tries > 0) {
      if (state.error().code() == Code::conflict || state.error().code() == Code::too_large) co_return std::move(state).error();
      co_return after_unknown(std::move(state).error(), unknown);
    }
  }
}

}  // namespace quarry::object
