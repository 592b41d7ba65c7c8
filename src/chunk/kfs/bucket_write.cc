// Writing and removing runs, and the compaction that follows removals.
#include "chunk/kfs/instance.h"

namespace quarry::chunk::kfs {
namespace {

constexpr uint64_t kTightBytes = 256 * kMiB;
constexpr uint64_t kWorthCompacting = kKfsBlock;  // of a bucket, when space is short
constexpr size_t kCompactionSteps = 17;  // of a whole bucket: records, then blocks by the first hex digit; closing waits for one step

// The keys of a run whose header cannot be read; one more than are removed at once is enough to know.
std::vector<std::string> some_blocks(leveldb::DB& db, const std::string& name) {
  std::vector<std::string> keys;
  const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_blocks()));
  const std::string end = run_end(name);
  for (it->Seek(run_begin(name)); it->Valid() && text_of(it->key()) < end && keys.size() <= kRemoveAtOnceBlocks; it->Next())
    keys.emplace_back(text_of(it->key()));
  return keys;
}

}  // namespace

struct BucketSet::Writer::State {
  State(BucketSet& owner, uint8_t number, std::string file, For use)
      : set(owner), bucket(number), name(file), purpose(use), hold(owner, number, std::move(file)), batch(owner.take_batch()) {}
  ~State() { set.give_batch(std::move(batch)); }
  BucketSet& set;
  const uint8_t bucket;
  const std::string name;
  const For purpose;
  NameHold hold;
  std::unique_ptr<leveldb::WriteBatch> batch;
  size_t batch_bytes = 0;
  Header header;
  uint64_t charged = 0;   // of the bucket's limit
  bool begun = false;     // blocks may be in the bucket
  uint64_t failures = 0;  // of writes to the bucket, when this one began
  bool finished = false;
  bool at_once = false;  // one batch, however large
};

// Memory of batches is used again: it is touched for the first time only once.
std::unique_ptr<leveldb::WriteBatch> BucketSet::take_batch() {
  const std::lock_guard lock(mutex_);
  last_write_ = clock_;
  if (batches_.empty()) return std::make_unique<leveldb::WriteBatch>();
  auto batch = std::move(batches_.back());
  batches_.pop_back();
  return batch;
}
void BucketSet::give_batch(std::unique_ptr<leveldb::WriteBatch> batch) {
  batch->Clear();
  const std::lock_guard lock(mutex_);
  if (batches_.size() < kSpareBatchesMax) batches_.push_back(std::move(batch));
}

BucketSet::Writer::Writer(BucketSet& set, uint8_t bucket, std::string name, For purpose)
    : state_(std::make_unique<State>(set, bucket, std::move(name), purpose)) {}

BucketSet::Writer::~Writer() {
  State& s = *state_;
  if (s.finished) return;
  bool removed = true;
  if (s.begun) {
    auto lease = s.set.acquire(s.bucket, For::upkeep);
    removed = lease && s.set.remove_run(lease->instance(), s.name);
  }
  const std::lock_guard lock(s.set.mutex_);
  Slot& slot = s.set.slots_[s.bucket];
  slot.use.stored_bytes -= s.charged;
  if (removed) return;
  // Where it cannot be removed now, that is done when the bucket is opened next, which is before anybody can write the name again.
  slot.doubtful.insert(s.name);
  if (slot.instance) slot.poisoned = true;
}

Result<void> BucketSet::Writer::add(ByteView block) {
  State& s = *state_;
  const uint64_t index = s.header.checksums.size();
  if (index >= kKfsBlocksMax)
    return fail(Code::too_large, "a file has at most {} blocks of 64 KiB ({})", kKfsBlocksMax, format_size(kKfsBlocksMax * kKfsBlock));
  CHECK(!block.empty() && block.size() <= kKfsBlock && s.header.size % kKfsBlock == 0);
  if (s.batch_bytes >= (s.begun ? kBatchBytes : kOneBatchBytes) && !s.at_once) TRY(flush(false));
  s.batch->Put(block_key(s.name, index), slice_of(block));
  s.batch_bytes += block.size();
  s.header.checksums.push_back(block_checksum(s.name, index, block));
  s.header.size += block.size();
  return {};
}

Result<void> BucketSet::Writer::flush(bool last) {
  State& s = *state_;
  TRY(s.set.room_for(s.batch_bytes, s.set.kept_for(s.purpose)));
  {
    const uint64_t needed = stored_size(s.header.size) - s.charged;
    const uint64_t limit = s.set.descriptor_limit_;
    const std::lock_guard lock(s.set.mutex_);
    BucketUse& use = s.set.slots_[s.bucket].use;
    if (use.stored_bytes + needed > limit) return full(s.bucket, use, limit);
    use.stored_bytes += needed;
    s.charged += needed;
  }
  const auto write_batch = [&s](Sync sync) -> Result<void> {
    s.begun = true;
    auto written = s.set.commit(s.bucket, *s.batch, sync);
    s.batch->Clear();
    s.batch_bytes = 0;
    if (written) return written;
    const std::lock_guard lock(s.set.mutex_);
    s.set.slots_[s.bucket].doubtful.insert(s.name);
    return written;
  };
  if (!last) return write_batch(Sync::no);
  if (s.begun) {
    TRY(write_batch(Sync::yes));
    TRY(s.set.sync_ended_logs(s.bucket));
    const std::lock_guard lock(s.set.mutex_);
    if (s.set.slots_[s.bucket].write_failures != s.failures)
      return fail(Code::io_error, "another write to {} failed while {} was written, and may have taken part of it along: write it again",
                  bucket_title(s.bucket), s.name);
  }
  s.batch->Put(header_key(s.set.kind_, s.name), encode_header(s.name, s.header));
  return write_batch(Sync::yes);
}

Result<void> BucketSet::commit(uint8_t bucket, leveldb::WriteBatch& batch, Sync sync) {
  if (!marked_open_) {
    if (auto marked = mark_open(); !marked) return note_write_error(std::nullopt, std::move(marked).error());
  }
  leveldb::WriteOptions options;
  options.sync = sync == Sync::yes;
  for (int attempt = 0;; ++attempt) {
    TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
    auto& announced = lease.instance().env.syncs_announced;
    if (options.sync) ++announced;
    const auto written = lease.db().Write(options, &batch);
    if (options.sync) --announced;
    if (written.ok()) return {};
    Error error = note_write_error(bucket, from_status(written, bucket_title(bucket)));
    if (!written.IsCorruption() || attempt > 0) return error;
  }
}

Result<void> BucketSet::sync_ended_logs(uint8_t bucket) {
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
  auto synced = lease.instance().env.sync_ended_logs();
  if (!synced) return note_write_error(bucket, std::move(synced).error());
  return {};
}

Error BucketSet::full(uint8_t bucket, const BucketUse& use, uint64_t limit) {
  return fail(Code::no_space, "{} is full: {} of {} ({:.1f} %) are used; unlink files in it, or make a store with a larger bucket size",
              bucket_title(bucket), format_size(use.stored_bytes), format_size(limit),
              100.0 * static_cast<double>(use.stored_bytes) / static_cast<double>(limit));
}

Result<Header> BucketSet::Writer::finish() {
  State& s = *state_;
  TRY(flush(true));
  s.finished = true;
  const std::lock_guard lock(s.set.mutex_);
  BucketUse& use = s.set.slots_[s.bucket].use;
  ++use.files;
  use.payload_bytes += s.header.size;
  if (s.header.size >= s.set.tuning_.write_buffer_bytes && !s.set.closing_) s.set.write_out_behind(s.bucket);
  return std::move(s.header);
}

Result<std::unique_ptr<BucketSet::Writer>> BucketSet::write(uint8_t bucket, std::string name, uint64_t size, For purpose) {
  if (size > kKfsBlocksMax * kKfsBlock)
    return fail(Code::too_large, "a file has at most {} blocks of 64 KiB ({})", kKfsBlocksMax, format_size(kKfsBlocksMax * kKfsBlock));
  std::unique_ptr<Writer> writer(new Writer(*this, bucket, name, purpose));
  TRY(room_for(size, kept_for(purpose)));
  TRY_ASSIGN(const Lease lease, acquire(bucket, purpose));
  std::string value;
  const auto found = lease.db().Get(reading_records(), header_key(kind_, name), &value);
  if (found.ok()) return fail(Code::already_exists, "{}", name);
  if (!found.IsNotFound()) return note_read_error(from_status(found, name));
  const std::lock_guard lock(mutex_);
  writer->state_->failures = slots_[bucket].write_failures;
  const BucketUse& use = slots_[bucket].use;
  if (use.stored_bytes + stored_size(size) > descriptor_limit_) return full(bucket, use, descriptor_limit_);
  return writer;
}

Result<std::unique_ptr<BucketSet::Writer>> BucketSet::write_at_once(uint8_t bucket, std::string name, uint64_t size, For purpose) {
  TRY_ASSIGN(auto writer, write(bucket, std::move(name), size, purpose));
  writer->state_->at_once = true;
  return writer;
}

Result<size_t> BucketSet::remove(uint8_t bucket, const std::vector<std::string>& names) {
  if (!created_[bucket]) return size_t{0};
  size_t removed = 0;
  leveldb::WriteBatch batch;
  uint64_t deletes = 0;
  struct Gone {
    std::shared_ptr<NameHold> hold;
    std::string name;
    Header header;
    bool blocks_too;
  };
  std::vector<Gone> gone;  // with the batch
  const auto write_batch = [&]() -> Result<void> {
    if (gone.empty()) return {};
    auto written = commit(bucket, batch, Sync::yes);
    batch.Clear();
    deletes = 0;
    if (!written) {
      gone.clear();  // lets go of the names, which takes the lock
      // The headers may be gone from the disk after all.
      const std::lock_guard lock(mutex_);
      slots_[bucket].look_again = true;
      return written;
    }
    for (auto& one : gone) {
      deleted(bucket, one.header);
      if (one.blocks_too) {
        schedule_compaction(bucket, one.name);
      } else {
        remove_behind(bucket, one.name, std::move(one.hold));
      }
    }
    gone.clear();
    return {};
  };
  // In order, so that two calls do not wait for each other's names.
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const auto& name : sorted) {
    auto hold = std::make_shared<NameHold>(*this, bucket, name);
    std::string value;
    leveldb::Status found;
    std::vector<std::string> blocks;
    Result<Header> header = Header();
    {
      TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
      found = lease.db().Get(reading_records(), header_key(kind_, name), &value);
      if (found.IsNotFound()) continue;
      header = found.ok() ? decode_header(name, value) : Result<Header>(from_status(found, name));
      if (!header) blocks = some_blocks(lease.db(), name);
    }
    ++removed;
    const uint64_t count = header ? header->blocks() : blocks.size();
    if (deletes > 0 && deletes + count > kRemoveAtOnceBlocks) TRY(write_batch());
    batch.Delete(header_key(kind_, name));
    const bool at_once = count <= kRemoveAtOnceBlocks;
    for (uint64_t i = 0; at_once && i < count; ++i) batch.Delete(header ? block_key(name, i) : blocks[i]);
    deletes += at_once ? count + 1 : 1;
    gone.push_back({std::move(hold), name, header ? std::move(*header) : Header{}, at_once});
  }
  TRY(write_batch());
  return removed;
}

// The file is gone already. Whoever wants its name waits until its blocks are, too.
void BucketSet::remove_behind(uint8_t bucket, const std::string& name, std::shared_ptr<NameHold> hold) {
  // The hold is the caller's parameter: it outlives the lock, which letting go of the name takes.
  const std::lock_guard begin(mutex_);
  if (closing_) {
    slots_[bucket].look_again = true;
    return;
  }
  ++slots_[bucket].removing;
  housekeeping_->submit([this, bucket, name, hold = std::move(hold)]() mutable {
    bool removed = false;
    if (auto lease = acquire(bucket, For::upkeep)) {
      auto run = remove_run(lease->instance(), name);
      removed = run.has_value();
      if (!run) (void)note_write_error(bucket, std::move(run).error());  // the bucket is looked through when it is opened next
    }
    hold.reset();
    if (removed) schedule_compaction(bucket, name);
    const std::lock_guard lock(mutex_);
    if (!removed) slots_[bucket].look_again = true;
    --slots_[bucket].removing;
    changed_.notify_all();
  });
}

// The next write to the bucket would have to wait until the memtable is a table, and another log is kept so long.
void BucketSet::write_out_behind(uint8_t bucket) {
  housekeeping_->submit([this, bucket] {
    if (auto lease = acquire(bucket, For::upkeep)) lease->db().Write({}, nullptr);  // a null batch ends the log and the memtable
  });
}

void BucketSet::deleted(uint8_t bucket, const Header& header) {
  const std::lock_guard lock(mutex_);
  BucketUse& use = slots_[bucket].use;
  const uint64_t stored = stored_size(header.size);
  use.files -= std::min<uint64_t>(use.files, 1);
  use.payload_bytes -= std::min(use.payload_bytes, header.size);
  use.stored_bytes -= std::min(use.stored_bytes, stored);
  use.garbage_bytes += stored;
}

// Remembers what was deleted, and has it compacted when that is worth it.
void BucketSet::schedule_compaction(uint8_t bucket, const std::string& name) {
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[bucket];
  if (slot.deleted.size() < kDeletedMax) {
    slot.deleted.push_back(name);
  } else {
    slot.deleted_all = true;
  }
  const auto share = static_cast<uint64_t>(tuning_.compact_after_share * static_cast<double>(slot.use.stored_bytes));
  if (slot.compaction_queued || closing_ || slot.use.garbage_bytes < std::max(tuning_.compact_after_bytes, share)) return;
  slot.compaction_queued = true;
  compactions_->submit([this, bucket] { compact_deleted(bucket); });
}

// The tables that hold deleted runs are rewritten without them; others stay as they are.
void BucketSet::compact_deleted(uint8_t bucket) {
  std::vector<std::string> names;
  bool all;
  uint64_t garbage;
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[bucket];
    slot.compaction_queued = false;
    if (closing_) return;
    names.swap(slot.deleted);
    all = std::exchange(slot.deleted_all, false);
    garbage = slot.use.garbage_bytes;
  }
  if (all) {
    compact(bucket).ignore("the next removals schedule it again");
    return;
  }
  std::sort(names.begin(), names.end());
  {
    auto lease = acquire(bucket, For::upkeep);
    if (!lease) return;
    for (const auto& name : names) {
      const std::string begin = run_begin(name), end = run_end(name);
      const leveldb::Slice from(begin), to(end);
      lease->db().CompactRange(&from, &to);
      const std::lock_guard lock(mutex_);
      if (closing_) return;
    }
  }
  const std::lock_guard lock(mutex_);
  slots_[bucket].use.garbage_bytes -= std::min(slots_[bucket].use.garbage_bytes, garbage);
}

// Little garbage in each of 256 buckets is much in all, and on a full file system it must not wait for more. Called by the keeper.
void BucketSet::compact_where_space_is_short() {
  if (!marked_open_) return;
  const auto space = file_system();
  if (!space || space->read_only) return;
  // Short: nearly nothing is left. Tight: the layers above may keep a quarter of a drive free, and refuse writes before we do.
  const bool is_short = short_of_space_.exchange(false) || space->free < 2 * reserve_;
  if (!is_short && space->free >= space->total / 4 + kTightBytes) return;
  const std::lock_guard lock(mutex_);
  for (size_t bucket = 0; bucket < kKfsBuckets && !closing_; ++bucket) {
    Slot& slot = slots_[bucket];
    const uint64_t worth = is_short ? kWorthCompacting : std::max(kWorthCompacting, slot.use.stored_bytes / 8);
    if (slot.compaction_queued || slot.use.garbage_bytes < worth) continue;
    slot.compaction_queued = true;
    compactions_->submit([this, number = static_cast<uint8_t>(bucket)] {
      compact(number).ignore("it is tried again while space is short");
      const std::lock_guard done(mutex_);
      slots_[number].compaction_queued = false;
    });
  }
}

Result<void> BucketSet::compact(uint8_t bucket) {
  if (!created_[bucket]) return {};
  uint64_t garbage;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this, bucket] { return closing_ || slots_[bucket].removing == 0; });
    garbage = slots_[bucket].use.garbage_bytes;
    slots_[bucket].deleted.clear();
    slots_[bucket].deleted_all = false;
  }
  for (int attempt = 0;; ++attempt) {
    TRY(compact_ranges(bucket));
    // LevelDB does not say whether it could; what stopped it (damage, no space) stops this write too, and a fresh instance can go on.
    leveldb::WriteBatch nothing;
    nothing.Put(identity_key(), encode_identity(descriptor().drive, bucket));
    leveldb::Status written;
    {
      TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
      written = lease.db().Write(synced(), &nothing);
    }
    if (written.ok()) break;
    Error error = note_write_error(bucket, from_status(written, bucket_title(bucket)));
    if (attempt > 0) return error;
  }
  const std::lock_guard lock(mutex_);
  BucketUse& use = slots_[bucket].use;
  use.garbage_bytes -= std::min(use.garbage_bytes, garbage);
  return {};
}

Result<void> BucketSet::compact_ranges(uint8_t bucket) {
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
  const std::string_view edges = "#0123456789abcdefg";
  static_assert(kCompactionSteps == 17);
  for (size_t step = 0; step < kCompactionSteps; ++step) {
    const leveldb::Slice from(edges.data() + step, 1), to(edges.data() + step + 1, 1);
    lease.db().CompactRange(&from, &to);
    const std::lock_guard lock(mutex_);
    if (closing_) return fail(Code::cancelled, "{} is being closed", directory_);
  }
  return {};
}

}  // namespace quarry::chunk::kfs
