// What happens when an instance is opened: creation, recovery, counting, repair.
#include <leveldb/cache.h>
#include <leveldb/filter_policy.h>

#include "chunk/kfs/instance.h"

namespace quarry::chunk::kfs {
namespace {

constexpr int kOpenTables = 1000;  // per instance; Files bounds the handles of all
constexpr size_t kDeletesPerBatch = 4096;

}  // namespace

Result<std::shared_ptr<Instance>> BucketSet::open_database(uint8_t bucket, bool create, bool writable) {
  leveldb::Options options;
  options.create_if_missing = create;
  options.info_log = null_logger();
  options.write_buffer_size = tuning_.write_buffer_bytes;
  options.max_file_size = tuning_.table_bytes;
  options.max_open_files = kOpenTables;
  options.block_cache = cache_.get();
  options.filter_policy = filter_.get();
  options.compression = leveldb::kNoCompression;  // payload is mostly compressed or encrypted already: docs/decisions/0006-kfs.md
  const std::string path = bucket_path(directory_, bucket);
  // The careful way (LevelDB's paranoid checks) fails on any damage that it meets. A torn end of a log is none: a batch that was being
  // written when the power went. Opened once without care it is gone, and the careful way succeeds. A bucket with a damaged table is used
  // without: else nothing could be compacted or written in it any more.
  leveldb::Status status, first;
  bool opened_carelessly = false;
  for (const bool careful : {true, false, true, false}) {
    if (careful && careless_[bucket]) continue;
    auto instance = std::make_shared<Instance>(files_, *background_);
    if (!writable) instance->env.use_overlay();
    instance->writable = writable;
    instance->careful = careful;
    options.env = &instance->env;
    options.paranoid_checks = careful;
    leveldb::DB* db = nullptr;
    status = leveldb::DB::Open(options, path, &db);
    if (first.ok()) first = status;
    if (status.ok()) {
      instance->db.reset(db);
      if (!careful && !opened_carelessly) {
        opened_carelessly = true;
        if (orderly_[bucket] && !first.ok()) {
          event(fmt::format("{}: part of its log cannot be read ({}); files written last may be lost: verify the store",
                            bucket_title(bucket), first.ToString()));
        } else if (!first.ok()) {
          LOG_INFO("kfs: the end of a log was torn", {"bucket", static_cast<unsigned>(bucket)}, {"directory", directory_});
        }
        if (writable && !careless_[bucket]) continue;
      }
      if (!writable) instance->env.freeze();
      return instance;
    }
    if (!status.IsCorruption()) break;
  }
  return from_status(status, bucket_title(bucket));
}

Result<std::shared_ptr<Instance>> BucketSet::open_instance(uint8_t bucket, For purpose) {
  const std::string path = bucket_path(directory_, bucket);
  const bool create = !created_[bucket];
  if (create) {
    TRY(writable());
    TRY(room_for(purpose == For::writing ? tuning_.write_buffer_bytes : 0, kept_for(purpose)));
    TRY(files_.make_directory(directory_ + "/buckets"));
    TRY(files_.sync_directory(directory_));
    TRY(files_.make_directory(path));
    TRY(files_.sync_directory(directory_ + "/buckets"));
  } else if (!files_.exists(path) && !lock_.directory_is_gone()) {
    if (auto names = files_.children(directory_ + "/buckets"); !names && names.error().code() != Code::not_found)
      return std::move(names).error();
    return fail(Code::corrupt, "{} is lost: its directory {} is not there; verify with repair makes it anew, empty", bucket_title(bucket),
                path);
  }
  auto instance = open_database(bucket, create, true);
  bool writable = true;
  if (!instance && !create && purpose == For::reading) {
    const Code code = instance.error().code();
    if (code == Code::read_only || code == Code::permission_denied || code == Code::no_space) {
      writable = false;
      instance = open_database(bucket, false, false);
    }
  }
  if (!instance) {
    if (instance.error().code() == Code::not_found || instance.error().code() == Code::io_error) {
      return fail(instance.error().code() == Code::not_found ? Code::corrupt : Code::io_error, "{}", instance.error().context());
    }
    if (instance.error().code() == Code::corrupt)
      return fail(Code::corrupt, "{}; verify with repair saves what can be read", instance.error().context());
    return std::move(instance).error();
  }
  if (create) {
    leveldb::DB& db = *(*instance)->db;
    const auto put = db.Put(synced(), identity_key(), encode_identity(descriptor().drive, bucket));
    if (!put.ok()) return from_status(put, bucket_title(bucket));
    TRY(update_descriptor([bucket](Descriptor& d) { d.set_bucket(bucket); }));
    created_[bucket] = true;
    const std::lock_guard lock(mutex_);
    slots_[bucket].use.known = true;  // empty
  }
  TRY(recover(bucket, **instance, writable));
  return instance;
}

// Checks that this is the bucket it should be; removes what failed and interrupted writes and removals left; counts.
Result<void> BucketSet::recover(uint8_t bucket, Instance& instance, bool writable) {
  leveldb::DB& db = *instance.db;
  TRY(check_identity_of(bucket, db, writable));
  std::set<std::string, std::less<>> doubtful;
  bool known, look;
  {
    const std::lock_guard lock(mutex_);
    doubtful = slots_[bucket].doubtful;
    known = slots_[bucket].use.known;
    look = !known || slots_[bucket].look_again;
  }
  if (writable) {
    for (const auto& name : doubtful) {
      leveldb::WriteBatch batch;
      batch.Delete(header_key(kind_, name));
      const auto hidden = db.Write(synced(), &batch);
      if (!hidden.ok()) return from_status(hidden, bucket_title(bucket));
      TRY(remove_run(instance, name));
    }
  }
  BucketCount count;
  bool left = false;
  if (!known) {
    // What was deleted in an earlier life and not compacted: whatever the files hold beyond what is alive, known below.
    if (const auto on_disk = disk_bytes(bucket)) count.garbage_bytes = *on_disk;
  }
  if (look) {
    if (kind_ == StoreKind::files) TRY(move_headers(bucket, db, writable));
    TRY_ASSIGN(const auto strays, look_through(bucket, instance, count));
    // Where damage is about, what looks like a run without a header may be a file: verify with repair decides.
    left = !strays.empty() && !(writable && instance.careful);
    for (size_t i = 0; i < strays.size() && !left; ++i) {
      TRY(remove_run(instance, strays[i]));
      leftovers_removed_.fetch_add(1);
    }
  }
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[bucket];
  if (writable) {
    for (const auto& name : doubtful) slot.doubtful.erase(name);
  }
  if (look) slot.look_again = left;
  if (!known) {
    count.garbage_bytes -= std::min(count.garbage_bytes, count.stored_bytes);
    static_cast<BucketCount&>(slot.use) = count;
    slot.use.known = true;
  }
  return {};
}

Result<void> BucketSet::check_identity_of(uint8_t bucket, leveldb::DB& db, bool writable) {
  std::string identity;
  const auto found = db.Get(reading_records(), identity_key(), &identity);
  if (found.IsNotFound())
    return fail(Code::corrupt, "{}: its records are lost, the one that names the store among them; verify with repair",
                bucket_title(bucket));
  if (!found.ok()) return from_status(found, bucket_title(bucket));
  if (identity_is_sound(identity)) return check_identity(identity, descriptor().drive, bucket);
  event(fmt::format("{}: the record of its identity is damaged; it is written anew", bucket_title(bucket)));
  if (writable && !db.Put(synced(), identity_key(), encode_identity(descriptor().drive, bucket)).ok())
    return fail(Code::corrupt, "{}: cannot be written", bucket_title(bucket));
  return {};
}

// Version 1 had the headers of files at /NAME, and +NAME for runs that are none, which need no mark any more.
Result<void> BucketSet::move_headers(uint8_t bucket, leveldb::DB& db, bool writable) {
  const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_records()));
  leveldb::WriteBatch batch;
  const auto is_old = [&it] { return it->Valid() && (it->key().starts_with("/") || it->key().starts_with("+")); };
  for (it->Seek("+"); is_old();) {
    if (!writable)
      return fail(Code::read_only, "{} is of format version 1, and is converted when it is opened; {} takes no writes now",
                  bucket_title(bucket), directory_);
    if (it->key().starts_with("/")) batch.Put(header_key(kind_, text_of(it->key()).substr(1)), it->value());
    batch.Delete(it->key());
    it->Next();
    if (batch.ApproximateSize() < kMiB && is_old()) continue;
    const auto written = db.Write(synced(), &batch);
    if (!written.ok()) return from_status(written, bucket_title(bucket));
    batch.Clear();
  }
  if (!it->status().ok()) return from_status(it->status(), bucket_title(bucket));
  return {};
}

Result<std::vector<std::string>> BucketSet::look_through(uint8_t bucket, Instance& instance, BucketCount& count) {
  leveldb::DB& db = *instance.db;
  std::vector<std::string> strays;
  HeaderCursor at(db, kind_, kind_ == StoreKind::files ? reading_blocks() : reading_records());
  for (at.seek(""); at.valid(); at.next()) {
    if (at.has_header()) {
      ++count.files;
      const auto header = decode_header(at.name(), at.header());
      if (!header) continue;  // whoever reads the file is told
      count.payload_bytes += header->size;
      count.stored_bytes += stored_size(header->size);
      continue;
    }
    std::string value;
    bool busy;
    {
      // A writer is registered before it writes and until its header is there.
      const std::lock_guard lock(mutex_);
      busy = slots_[bucket].writing.contains(at.name());
    }
    if (!busy && db.Get(reading_surely(), header_key(kind_, at.name()), &value).IsNotFound()) strays.push_back(at.name());
  }
  if (!at.status().ok() && !at.status().IsCorruption()) return from_status(at.status(), bucket_title(bucket));
  return strays;
}

// Deletes every block of the name.
Result<void> BucketSet::remove_run(Instance& instance, std::string_view name) {
  leveldb::DB& db = *instance.db;
  const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_blocks()));
  const std::string end = run_end(name);
  leveldb::WriteBatch batch;
  size_t deletes = 0;
  const auto write_batch = [&]() -> Result<void> {
    const auto written = db.Write(synced(), &batch);
    if (!written.ok()) return from_status(written, name);
    batch.Clear();
    return {};
  };
  for (it->Seek(run_begin(name)); it->Valid() && text_of(it->key()) < end; it->Next()) {
    batch.Delete(it->key());
    if (++deletes % kDeletesPerBatch == 0) TRY(write_batch());
  }
  if (!it->status().ok() && !it->status().IsCorruption()) return from_status(it->status(), name);
  if (deletes % kDeletesPerBatch != 0) TRY(write_batch());
  return {};
}

Result<void> BucketSet::prepare(uint8_t bucket) {
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::reading));
  return {};
}

Result<std::vector<std::string>> BucketSet::repair(uint8_t bucket, uint64_t seen) {
  std::vector<std::string> findings;
  const std::string path = bucket_path(directory_, bucket);
  TRY(writable());
  {
    std::unique_lock lock(mutex_);
    Slot& slot = slots_[bucket];
    changed_.wait(lock, [&] { return closing_ || (!slot.changing && slot.users == 0); });
    if (closing_) return fail(Code::device_gone, "{} is closed", directory_);
    if (slot.repairs != seen) return findings;
    slot.changing = true;
    auto instance = std::move(slot.instance);
    if (instance) --open_;
    slot.poisoned = false;
    slot.use = {};
    careless_[bucket] = false;
    lock.unlock();
    instance.reset();
    const Result<void> rebuilt = rebuild(bucket, path, findings);
    lock.lock();
    slot.changing = false;
    if (rebuilt) ++slot.repairs;
    changed_.notify_all();
    if (!rebuilt) return rebuilt.error();
  }
  const uint64_t before = leftovers_removed_;
  TRY(prepare(bucket));
  if (leftovers_removed_ > before)
    findings.push_back(
        fmt::format("{}: what was left of {} files without their headers was removed", bucket_title(bucket), leftovers_removed_ - before));
  for (const auto& finding : findings) event(finding);
  return findings;
}

Result<void> BucketSet::rebuild(uint8_t bucket, const std::string& path, std::vector<std::string>& findings) {
  auto names = files_.children(path);
  if (!names || names->empty()) {
    findings.push_back(fmt::format("{}: nothing was left of it; it was made anew, empty", bucket_title(bucket)));
    TRY(files_.make_directory(directory_ + "/buckets"));
    TRY(files_.make_directory(path));
    TRY(files_.sync_directory(directory_ + "/buckets"));
  } else {
    leveldb::Options options;
    BucketEnv env(files_, *background_);
    options.env = &env;
    options.info_log = null_logger();
    options.compression = leveldb::kNoCompression;
    options.filter_policy = filter_.get();
    options.block_cache = cache_.get();
    options.max_file_size = tuning_.table_bytes;
    const auto repaired = leveldb::RepairDB(path, options);
    if (!repaired.ok()) return from_status(repaired, bucket_title(bucket));
    findings.push_back(
        fmt::format("{}: LevelDB rebuilt it from what can be read; what cannot lies in {}/lost", bucket_title(bucket), path));
  }
  TRY_ASSIGN(auto instance, open_database(bucket, true, true));
  std::string identity;
  const auto found = instance->db->Get(reading_records(), identity_key(), &identity);
  if (found.ok() && identity_is_sound(identity)) {
    TRY(check_identity(identity, descriptor().drive, bucket));
    return {};
  }
  const auto put = instance->db->Put(synced(), identity_key(), encode_identity(descriptor().drive, bucket));
  if (!put.ok()) return from_status(put, bucket_title(bucket));
  return {};
}

Result<size_t> BucketSet::remove_stray_runs(uint8_t bucket) {
  std::vector<std::string> strays;
  {
    TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
    BucketCount count;
    if (kind_ != StoreKind::files) return size_t{0};
    auto found = look_through(bucket, lease.instance(), count);
    if (!found) return note_read_error(std::move(found).error());
    strays = std::move(*found);
  }
  size_t removed = 0;
  for (const auto& name : strays) {
    // The name first: who has it may be waiting until nobody uses the instance, to open the bucket anew.
    const NameHold hold(*this, bucket, name);
    TRY_ASSIGN(const Lease lease, acquire(bucket, For::upkeep));
    std::string value;
    if (!lease.db().Get(reading_surely(), header_key(kind_, name), &value).IsNotFound()) continue;  // written meanwhile, or damaged
    if (auto run = remove_run(lease.instance(), name); !run) return note_write_error(bucket, std::move(run).error());
    leftovers_removed_.fetch_add(1);
    ++removed;
  }
  return removed;
}

}  // namespace quarry::chunk::kfs
