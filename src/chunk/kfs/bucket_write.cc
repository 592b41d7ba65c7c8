// Writing and removing runs, and the compaction that follows removals.
#include "chunk/kfs/instance.h"

namespace quarry::chunk::kfs {
namespace {

constexpr size_t kCompactionSteps = 17;  // of a whole bucket: records, then blocks by the first hex digit; closing waits for one step

}  // namespace

struct BucketSet::Writer::State {
  State(BucketSet& owner, uint8_t number, std::string file)
      : set(owner), bucket(number), name(file), hold(owner, number, std::move(file)) {}
  BucketSet& set;
  const uint8_t bucket;
  const std::string name;
  NameHold hold;
  leveldb::WriteBatch batch;
  size_t batch_bytes = 0;
  Header header;
  uint64_t charged = 0;  // of the bucket's limit
  bool marked = false;   // the leftover record is there
  bool finished = false;
  bool at_once = false;  // one batch, however large
};

BucketSet::Writer::Writer(BucketSet& set, uint8_t bucket, std::string name)
    : state_(std::make_unique<State>(set, bucket, std::move(name))) {}

BucketSet::Writer::~Writer() {
  State& s = *state_;
  if (s.finished) return;
  if (s.marked) {
    auto lease = s.set.acquire(s.bucket, For::writing);
    // Where it cannot be removed now, the leftover record sees to it when the bucket is opened next.
    if (lease) s.set.remove_run(lease->instance(), s.name).ignore("removed at the next opening");
  }
  const std::lock_guard lock(s.set.mutex_);
  s.set.slots_[s.bucket].use.stored_bytes -= s.charged;
}

Result<void> BucketSet::Writer::add(ByteView block) {
  State& s = *state_;
  const uint64_t index = s.header.checksums.size();
  if (index >= kKfsBlocksMax)
    return fail(Code::too_large, "a file has at most {} blocks of 64 KiB ({})", kKfsBlocksMax, format_size(kKfsBlocksMax * kKfsBlock));
  CHECK(!block.empty() && block.size() <= kKfsBlock && s.header.size % kKfsBlock == 0);
  if (s.batch_bytes >= kBatchBytes && !s.at_once) TRY(flush(false));
  s.batch.Put(block_key(s.name, index), slice_of(block));
  s.batch_bytes += block.size();
  s.header.checksums.push_back(block_checksum(s.name, index, block));
  s.header.size += block.size();
  return {};
}

Result<void> BucketSet::Writer::flush(bool last) {
  State& s = *state_;
  TRY(s.set.room_for(s.batch_bytes));
  {
    const uint64_t needed = stored_size(s.header.size) - s.charged;
    const uint64_t limit = s.set.descriptor_limit_;
    const std::lock_guard lock(s.set.mutex_);
    BucketUse& use = s.set.slots_[s.bucket].use;
    if (use.stored_bytes + needed > limit) return full(s.bucket, use, limit);
    use.stored_bytes += needed;
    s.charged += needed;
  }
  if (last) {
    s.batch.Put(header_key(s.name), encode_header(s.name, s.header));
    if (s.marked) s.batch.Delete(leftover_key(s.name));
  } else if (!s.marked) {
    s.batch.Put(leftover_key(s.name), leveldb::Slice());
  }
  auto written = s.set.commit(s.bucket, s.batch);
  s.batch.Clear();
  s.batch_bytes = 0;
  if (!written) {
    const std::lock_guard lock(s.set.mutex_);
    s.set.slots_[s.bucket].doubtful.insert(s.name);
    return written;
  }
  s.marked = true;
  return {};
}

Result<void> BucketSet::commit(uint8_t bucket, leveldb::WriteBatch& batch) {
  for (int attempt = 0;; ++attempt) {
    TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
    const auto written = lease.db().Write(synced(), &batch);
    if (written.ok()) return {};
    Error error = note_write_error(bucket, from_status(written, bucket_title(bucket)));
    if (!written.IsCorruption() || attempt > 0) return error;
  }
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
  return std::move(s.header);
}

Result<std::unique_ptr<BucketSet::Writer>> BucketSet::write(uint8_t bucket, std::string name, uint64_t size) {
  if (size > kKfsBlocksMax * kKfsBlock)
    return fail(Code::too_large, "a file has at most {} blocks of 64 KiB ({})", kKfsBlocksMax, format_size(kKfsBlocksMax * kKfsBlock));
  std::unique_ptr<Writer> writer(new Writer(*this, bucket, name));
  TRY(room_for(size));
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
  std::string value;
  const auto found = lease.db().Get(reading_records(), header_key(name), &value);
  if (found.ok()) return fail(Code::already_exists, "{}", name);
  if (!found.IsNotFound()) return note_read_error(from_status(found, name));
  const std::lock_guard lock(mutex_);
  const BucketUse& use = slots_[bucket].use;
  if (use.stored_bytes + stored_size(size) > descriptor_limit_) return full(bucket, use, descriptor_limit_);
  return writer;
}

Result<std::unique_ptr<BucketSet::Writer>> BucketSet::write_at_once(uint8_t bucket, std::string name, uint64_t size) {
  TRY_ASSIGN(auto writer, write(bucket, std::move(name), size));
  writer->state_->at_once = true;
  return writer;
}

Result<size_t> BucketSet::remove(uint8_t bucket, const std::vector<std::string>& names) {
  if (!created_[bucket]) return size_t{0};
  size_t removed = 0;
  leveldb::WriteBatch batch;
  uint64_t deletes = 0;
  std::vector<std::pair<std::string, Header>> gone;  // with the batch
  const auto write_batch = [&]() -> Result<void> {
    if (deletes == 0) return {};
    TRY(commit(bucket, batch));
    for (const auto& [name, header] : gone) deleted(bucket, name, header);
    batch.Clear();
    deletes = 0;
    gone.clear();
    return {};
  };
  for (const auto& name : names) {
    std::string value;
    leveldb::Status found;
    {
      TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
      found = lease.db().Get(reading_records(), header_key(name), &value);
    }
    if (found.IsNotFound()) continue;
    const bool listed = std::any_of(gone.begin(), gone.end(), [&name](const auto& one) { return one.first == name; });
    if (listed) continue;  // named twice
    ++removed;
    auto header = found.ok() ? decode_header(name, value) : Result<Header>(from_status(found, name));
    if (!header || header->blocks() > kRemoveAtOnceBlocks) {
      TRY(write_batch());
      TRY(remove_in_steps(bucket, name, header ? *header : Header{}));
      continue;
    }
    batch.Delete(header_key(name));
    for (uint64_t i = 0; i < header->blocks(); ++i) batch.Delete(block_key(name, i));
    deletes += header->blocks() + 1;
    gone.emplace_back(name, std::move(*header));
    if (deletes >= kRemoveAtOnceBlocks) TRY(write_batch());
  }
  TRY(write_batch());
  return removed;
}

// First it is no file any more, then its blocks go.
Result<void> BucketSet::remove_in_steps(uint8_t bucket, const std::string& name, const Header& header) {
  const NameHold hold(*this, bucket, name);
  leveldb::WriteBatch hide;
  hide.Delete(header_key(name));
  hide.Put(leftover_key(name), leveldb::Slice());
  TRY(commit(bucket, hide));
  deleted(bucket, name, header);
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
  if (auto run = remove_run(lease.instance(), name); !run) return note_write_error(bucket, std::move(run).error());
  return {};
}

// Keeps the books and schedules the compaction that gives the space back.
void BucketSet::deleted(uint8_t bucket, const std::string& name, const Header& header) {
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[bucket];
  BucketUse& use = slot.use;
  const uint64_t stored = stored_size(header.size);
  use.files -= std::min<uint64_t>(use.files, 1);
  use.payload_bytes -= std::min(use.payload_bytes, header.size);
  use.stored_bytes -= std::min(use.stored_bytes, stored);
  use.garbage_bytes += stored;
  if (slot.deleted.size() < kDeletedMax) {
    slot.deleted.push_back(name);
  } else {
    slot.deleted_all = true;
  }
  const auto share = static_cast<uint64_t>(tuning_.compact_after_share * static_cast<double>(use.stored_bytes));
  if (slot.compaction_queued || closing_ || use.garbage_bytes < std::max(tuning_.compact_after_bytes, share)) return;
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
    auto lease = acquire(bucket, For::writing);
    if (!lease) return;
    for (const auto& name : names) {
      const std::string begin = name + " ", end = run_end(name);
      const leveldb::Slice from(begin), to(end);
      lease->db().CompactRange(&from, &to);
      const std::lock_guard lock(mutex_);
      if (closing_) return;
    }
  }
  const std::lock_guard lock(mutex_);
  slots_[bucket].use.garbage_bytes -= std::min(slots_[bucket].use.garbage_bytes, garbage);
}

Result<void> BucketSet::compact(uint8_t bucket) {
  if (!created_[bucket]) return {};
  uint64_t garbage;
  {
    const std::lock_guard lock(mutex_);
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
      TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
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
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
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
