// Opening, closing and lending of instances; conditions of the whole set.
#include "chunk/kfs/bucket_set.h"

#include <leveldb/cache.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/machine.h"
#include "chunk/kfs/instance.h"

namespace quarry::chunk::kfs {
namespace {

constexpr uint64_t kHandlesPerInstance = 24;
constexpr auto kTick = std::chrono::seconds(1);
constexpr int kFilterBitsPerKey = 10;
constexpr uint64_t kShortageTicks = 5;
constexpr size_t kCompactionsMax = 2, kHousekeepingMax = 4;

// A sixteenth of the memory for write buffers, two an instance, and 24 files each.
size_t default_instances(size_t write_buffer) {
  size_t most = kKfsBuckets;
  struct rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    most = std::min<size_t>(most, limit.rlim_cur / kHandlesPerInstance);
  most = std::min(most, static_cast<size_t>(machine_limits().memory_bytes) / 16 / (2 * write_buffer));
  return std::max<size_t>(most, 4);
}

// Under a limit of memory (below 4 GiB) buffers and cache are smaller: a node may have many such drives.
KfsTuning inside_memory(KfsTuning tuning) {
  const uint64_t memory = machine_limits().memory_bytes;
  tuning.write_buffer_bytes = std::min<size_t>(tuning.write_buffer_bytes, std::max<uint64_t>(memory / 1024, 512 * kKiB));
  tuning.cache_bytes = std::min<size_t>(tuning.cache_bytes, std::max<uint64_t>(memory / 128, 2 * kMiB));
  return tuning;
}

}  // namespace

BucketSet::BucketSet(std::string directory, Descriptor descriptor, DirectoryLock lock, KfsTuning tuning)
    : directory_(std::move(directory)),
      tuning_(inside_memory(tuning)),
      files_(tuning.files != nullptr ? *tuning.files : posix_files()),
      lock_(std::move(lock)),
      descriptor_(std::move(descriptor)) {
  instances_max_ = tuning_.instances_max != 0 ? std::min(tuning_.instances_max, kKfsBuckets)
                                              : default_instances(std::max<size_t>(tuning_.write_buffer_bytes, 64 * kKiB));
  cache_.reset(leveldb::NewLRUCache(tuning_.cache_bytes));
  filter_.reset(leveldb::NewBloomFilterPolicy(kFilterBitsPerKey));
  background_ = std::make_unique<ElasticThreads>(instances_max_);
  compactions_ = std::make_unique<ElasticThreads>(kCompactionsMax);
  housekeeping_ = std::make_unique<ElasticThreads>(kHousekeepingMax);
  descriptor_limit_ = descriptor_.bucket_bytes;
  key_byte_ = static_cast<uint8_t>(descriptor_.key[0]);
  kind_ = descriptor_.kind;
  for (size_t i = 0; i < kKfsBuckets; ++i) {
    created_[i] = descriptor_.has_bucket(i);
    orderly_[i] = descriptor_.clean;
    const auto count = descriptor_.counts.find(static_cast<uint8_t>(i));
    if (kind_ == StoreKind::chunks || descriptor_.version < format_version(kind_)) continue;
    orderly_[i] = descriptor_.clean && count != descriptor_.counts.end();
    if (!orderly_[i]) continue;
    static_cast<BucketCount&>(slots_[i].use) = count->second;
    slots_[i].use.known = true;
  }
}

Result<std::unique_ptr<BucketSet>> BucketSet::open(std::string directory, Descriptor descriptor, DirectoryLock lock, KfsTuning tuning) {
  std::unique_ptr<BucketSet> set(new BucketSet(std::move(directory), std::move(descriptor), std::move(lock), tuning));
  TRY_ASSIGN(const Files::Space space, set->file_system());
  set->reserve_ = std::min<uint64_t>(tuning.reserve_bytes, space.total / 20);
  const auto marked = set->mark_open();
  if (!marked) {
    const Code code = marked.error().code();
    if (code != Code::read_only && code != Code::permission_denied && code != Code::no_space) return marked.error();
    if (code != Code::no_space) {
      set->condition_ = Condition::read_only;
      set->reason_ = marked.error().context();
    }
  }
  set->keeper_ = std::thread([raw = set.get()] { raw->keep(); });
  return set;
}

BucketSet::~BucketSet() { close().ignore("a directory that is not marked as closed properly is only opened more carefully"); }

Result<void> BucketSet::close() {
  {
    std::unique_lock lock(mutex_);
    if (closed_) return {};
    for (auto& slot : slots_) changed_.wait(lock, [&slot] { return slot.removing == 0; });
    closing_ = true;
    changed_.notify_all();
    keeper_wake_.notify_all();
    for (auto& slot : slots_) {
      changed_.wait(lock, [&slot] { return slot.users == 0 && !slot.changing; });
      slot.changing = true;
      auto instance = std::move(slot.instance);
      lock.unlock();
      instance.reset();
      lock.lock();
      slot.changing = false;
    }
    closed_ = true;
  }
  if (keeper_.joinable()) keeper_.join();
  housekeeping_.reset();
  compactions_.reset();
  background_.reset();
  Result<void> marked;
  if (condition_ == Condition::online) {
    marked = update_descriptor([this](Descriptor& d) {
      d.clean = true;
      if (kind_ == StoreKind::chunks) return;
      for (size_t i = 0; i < kKfsBuckets; ++i) {
        const Slot& slot = slots_[i];
        if (!d.has_bucket(i) || !slot.use.known || slot.look_again || !slot.writing.empty() || !slot.doubtful.empty()) continue;
        d.counts[static_cast<uint8_t>(i)] = slot.use;
      }
    });
  }
  lock_ = DirectoryLock::none();
  return marked;
}

Result<void> BucketSet::mark_open() {
  TRY(update_descriptor([](Descriptor& d) {
    d.version = format_version(d.kind);
    d.clean = false;
    d.counts.clear();
    ++d.mounts;
  }));
  marked_open_ = true;
  return {};
}

uint8_t BucketSet::bucket_of(uint8_t first_byte) const { return first_byte ^ key_byte_; }

Descriptor BucketSet::descriptor() const {
  const std::lock_guard lock(descriptor_mutex_);
  return descriptor_;
}

Result<void> BucketSet::update_descriptor(const std::function<void(Descriptor&)>& change) {
  const std::lock_guard lock(descriptor_mutex_);
  Descriptor next = descriptor_;
  change(next);
  TRY(replace_file(files_, directory_ + "/" + std::string(kDescriptorName), quarry::bytes_of(encode_descriptor(next))));
  descriptor_ = std::move(next);
  return {};
}

Result<void> BucketSet::change_descriptor(const std::function<void(Descriptor&)>& change) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return fail(Code::device_gone, "{} is closed", directory_);
  }
  TRY(writable());
  auto changed = update_descriptor(change);
  if (!changed) return note_write_error(std::nullopt, std::move(changed).error());
  return changed;
}

Result<BucketSet::Lease> BucketSet::acquire(uint8_t bucket, For purpose) {
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[bucket];
  for (;;) {
    if (closing_) return fail(Code::device_gone, "{} is closed", directory_);
    if (condition_ == Condition::failed) return fail(Code::device_gone, "{}", reason_);
    if (slot.changing) {
      changed_.wait(lock);
      continue;
    }
    if (!slot.instance) break;
    if (purpose == For::reading || (slot.instance->writable && !slot.poisoned)) {
      ++slot.users;
      slot.last_used = clock_;
      return Lease(*this, bucket, slot.instance);
    }
    // To be opened anew for writing. While that cannot succeed, readers keep what they have.
    lock.unlock();
    TRY(room_for(0, reserve_ / 4));
    TRY(writable());
    lock.lock();
    if (slot.changing || !slot.instance || (slot.instance->writable && !slot.poisoned)) continue;
    slot.changing = true;
    changed_.wait(lock, [&slot] { return slot.users == 0; });
    auto old = std::move(slot.instance);
    lock.unlock();
    old.reset();
    lock.lock();
    --open_;
    slot.changing = false;
    changed_.notify_all();
    break;
  }
  if (purpose == For::reading && !created_[bucket]) return fail(Code::not_found, "{} does not exist", bucket_title(bucket));
  slot.changing = true;
  const auto done = [&] {
    slot.changing = false;
    changed_.notify_all();
  };
  if (auto room = make_room(lock); !room) {
    done();
    return std::move(room).error();
  }
  lock.unlock();
  auto opened = open_instance(bucket, purpose);
  lock.lock();
  done();
  if (!opened) {
    --open_;
    lock.unlock();
    if (purpose != For::reading) return note_write_error(bucket, std::move(opened).error());
    return note_read_error(std::move(opened).error());
  }
  slot.instance = *opened;
  slot.poisoned = false;
  slot.users = 1;
  slot.last_used = clock_;
  return Lease(*this, bucket, std::move(*opened));
}

void BucketSet::release(uint8_t bucket) {
  const std::lock_guard lock(mutex_);
  --slots_[bucket].users;
  slots_[bucket].last_used = clock_;
  if (slots_[bucket].users == 0) changed_.notify_all();
}

// Closes the instance that was not used for the longest time. Called and returns with the lock held; counts the new one.
Result<void> BucketSet::make_room(std::unique_lock<std::mutex>& lock) {
  while (open_ >= instances_max_) {
    if (closing_) return fail(Code::device_gone, "{} is closed", directory_);
    Slot* oldest = nullptr;
    for (auto& slot : slots_) {
      if (slot.instance && slot.users == 0 && !slot.changing && (oldest == nullptr || slot.last_used < oldest->last_used)) oldest = &slot;
    }
    if (oldest == nullptr) {
      changed_.wait(lock);
      continue;
    }
    oldest->changing = true;
    auto instance = std::move(oldest->instance);
    lock.unlock();
    instance.reset();
    lock.lock();
    oldest->changing = false;
    --open_;
    changed_.notify_all();
  }
  ++open_;
  return {};
}

// Once a second: closes what is idle, and looks whether a file system that took no writes takes them again.
void BucketSet::keep() {
  const uint64_t idle_ticks = std::max<int64_t>(1, tuning_.idle_close / std::chrono::seconds(1));
  std::unique_lock lock(mutex_);
  while (!closing_) {
    keeper_wake_.wait_for(lock, kTick);
    ++clock_;
    if (clock_ - last_write_ >= idle_ticks) batches_.clear();
    for (auto& slot : slots_) {
      if (closing_) return;
      if (!slot.instance || slot.users != 0 || slot.changing || clock_ - slot.last_used < idle_ticks) continue;
      slot.changing = true;
      auto instance = std::move(slot.instance);
      lock.unlock();
      instance.reset();
      lock.lock();
      slot.changing = false;
      --open_;
      changed_.notify_all();
    }
    const bool broken = condition_ == Condition::read_only;
    const bool look = clock_ % kShortageTicks == 0;
    if (!broken && !look) continue;
    lock.unlock();
    if (broken) probe();
    if (look) compact_where_space_is_short();
    lock.lock();
  }
}

void BucketSet::probe() {
  const std::string path = directory_ + "/kfs.probe";
  if (lock_.directory_is_gone() || !replace_file(files_, path, quarry::bytes_of("probe"))) return;
  if (!marked_open_ && !mark_open()) return;
  files_.remove(path).ignore("an empty file is left behind");
  const std::lock_guard lock(mutex_);
  if (condition_ == Condition::read_only) {
    condition_ = Condition::online;
    reason_.clear();
  }
}

Result<void> BucketSet::writable() const {
  const std::lock_guard lock(mutex_);
  if (condition_ == Condition::read_only) return fail(Code::read_only, "{} takes no writes: {}", directory_, reason_);
  return {};
}

Result<Files::Space> BucketSet::file_system() const { return files_.space(directory_); }

Result<void> BucketSet::room_for(uint64_t bytes, uint64_t kept) {
  const auto space = file_system();
  if (!space) return note_write_error(std::nullopt, space.error());
  if (space->free < kept + bytes) {
    short_of_space_ = true;
    return fail(Code::no_space,
                "the file system of {} has {} free, and {} are kept back for removals and compaction: delete something, or make room",
                directory_, format_size(space->free), format_size(kept));
  }
  return {};
}

// Says what a failed write means for the bucket and for the set.
Error BucketSet::note_write_error(std::optional<uint8_t> bucket, Error error) {
  const Code code = error.code();
  const std::lock_guard lock(mutex_);
  if (bucket && slots_[*bucket].instance) slots_[*bucket].poisoned = true;
  if (bucket && code != Code::corrupt) ++slots_[*bucket].write_failures;
  if (bucket) orderly_[*bucket] = false;  // what a failed write tore is no damage
  if (lock_.directory_is_gone()) {
    condition_ = Condition::failed;
    reason_ = fmt::format("the directory {} was deleted", directory_);
    return fail(Code::device_gone, "{}", reason_);
  }
  if (code == Code::device_gone && bucket) return fail(Code::io_error, "{}", error.context());
  if (code == Code::corrupt && bucket && slots_[*bucket].instance) careless_[*bucket] = true;
  if (code == Code::no_space || code == Code::corrupt || code == Code::already_exists) return error;
  if (code == Code::overloaded) return error;  // this process is out of descriptors: the directory is as sound as ever
  write_errors_.fetch_add(1);
  if (condition_ == Condition::online && !closing_) {
    condition_ = Condition::read_only;
    reason_ = error.context();
  }
  return code == Code::permission_denied ? fail(Code::read_only, "{}", error.context()) : error;
}

Error BucketSet::note_read_error(Error error) {
  if (error.code() == Code::corrupt) checksum_errors_.fetch_add(1);
  if (error.code() != Code::io_error && error.code() != Code::permission_denied && error.code() != Code::not_found &&
      error.code() != Code::device_gone)
    return error;
  read_errors_.fetch_add(1);
  const std::lock_guard lock(mutex_);
  if (lock_.directory_is_gone()) {
    condition_ = Condition::failed;
    reason_ = fmt::format("the directory {} was deleted", directory_);
    return fail(Code::device_gone, "{}", reason_);
  }
  return fail(Code::io_error, "{}", error.context());
}

std::vector<uint8_t> BucketSet::existing() const {
  std::vector<uint8_t> numbers;
  for (size_t i = 0; i < kKfsBuckets; ++i) {
    if (created_[i]) numbers.push_back(static_cast<uint8_t>(i));
  }
  return numbers;
}

BucketUse BucketSet::use(uint8_t bucket) const {
  const std::lock_guard lock(mutex_);
  return slots_[bucket].use;
}

uint64_t BucketSet::repairs(uint8_t bucket) const {
  const std::lock_guard lock(mutex_);
  return slots_[bucket].repairs;
}

size_t BucketSet::open_instances() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

SetHealth BucketSet::health() const {
  const std::lock_guard lock(mutex_);
  return {condition_, reason_, read_errors_.load(), write_errors_.load(), checksum_errors_.load()};
}

std::vector<std::string> BucketSet::events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

void BucketSet::event(std::string sentence) {
  LOG_WARNING("kfs", {"directory", directory_}, {"what", sentence});
  const std::lock_guard lock(mutex_);
  if (events_.size() >= kEventsMax) events_.erase(events_.begin());
  events_.push_back(std::move(sentence));
}

}  // namespace quarry::chunk::kfs
