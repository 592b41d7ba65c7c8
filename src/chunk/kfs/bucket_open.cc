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
  // written when the power went. A bucket with a damaged table is used without: else nothing could be compacted or written in it any more.
  leveldb::Status status;
  for (const bool careful : {true, false}) {
    if (careful && careless_[bucket]) continue;
    auto instance = std::make_shared<Instance>(files_, *background_);
    if (!writable) instance->env.use_overlay();
    instance->writable = writable;
    options.env = &instance->env;
    options.paranoid_checks = careful;
    leveldb::DB* db = nullptr;
    const leveldb::Status first = status;
    status = leveldb::DB::Open(options, path, &db);
    if (status.ok()) {
      instance->db.reset(db);
      if (!writable) instance->env.freeze();
      if (!careful && !first.ok()) {
        if (was_clean_) {
          damaged_log_[bucket] = true;
          event(fmt::format("{}: part of its log cannot be read ({}); files written last may be lost: verify the store",
                            bucket_title(bucket), first.ToString()));
        } else {
          LOG_INFO("kfs: the end of a log was torn", {"bucket", static_cast<unsigned>(bucket)}, {"directory", directory_});
        }
      }
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
    TRY(room_for(tuning_.write_buffer_bytes));
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
  }
  TRY(recover(bucket, **instance, writable));
  return instance;
}

// Checks that this is the bucket it should be, removes what interrupted writes and removals left, and counts.
Result<void> BucketSet::recover(uint8_t bucket, Instance& instance, bool writable) {
  leveldb::DB& db = *instance.db;
  std::string identity;
  const auto found = db.Get(reading_records(), identity_key(), &identity);
  if (found.IsNotFound())
    return fail(Code::corrupt, "{}: its records are lost, the one that names the store among them; verify with repair",
                bucket_title(bucket));
  if (!found.ok()) return from_status(found, bucket_title(bucket));
  if (identity_is_sound(identity)) {
    TRY(check_identity(identity, descriptor().drive, bucket));
  } else {
    event(fmt::format("{}: the record of its identity is damaged; it is written anew", bucket_title(bucket)));
    if (writable && !db.Put(synced(), identity_key(), encode_identity(descriptor().drive, bucket)).ok())
      return fail(Code::corrupt, "{}: cannot be written", bucket_title(bucket));
  }

  std::set<std::string, std::less<>> writing, doubtful;
  bool known;
  {
    const std::lock_guard lock(mutex_);
    writing = slots_[bucket].writing;
    doubtful = slots_[bucket].doubtful;
    known = slots_[bucket].use.known;
  }
  std::vector<std::string> leftovers;
  if (writable) {
    for (const auto& name : doubtful) {
      std::string value;
      const auto status = db.Get(reading_records(), header_key(name), &value);
      if (status.IsNotFound()) continue;
      if (!status.ok()) return from_status(status, bucket_title(bucket));
      leveldb::WriteBatch batch;
      batch.Delete(header_key(name));
      batch.Put(leftover_key(name), leveldb::Slice());
      const auto hidden = db.Write(synced(), &batch);
      if (!hidden.ok()) return from_status(hidden, bucket_title(bucket));
    }
    const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_leftovers()));
    for (it->Seek("+"); it->Valid() && text_of(it->key()).starts_with('+'); it->Next()) {
      std::string name(text_of(it->key()).substr(1)), value;
      // A file with a header is never a leftover.
      if (writing.contains(name) || !db.Get(reading_records(), header_key(name), &value).IsNotFound()) continue;
      leftovers.push_back(std::move(name));
    }
    if (it->status().IsCorruption()) {
      event(fmt::format("{}: not all leftovers of interrupted writes can be read ({})", bucket_title(bucket), it->status().ToString()));
    } else if (!it->status().ok()) {
      return from_status(it->status(), bucket_title(bucket));
    }
  }
  for (const auto& name : leftovers) {
    TRY(remove_run(instance, name));
    leftovers_removed_.fetch_add(1);
  }

  BucketUse use;
  use.known = true;
  if (!known) {
    const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_records()));
    for (it->Seek("/"); it->Valid() && text_of(it->key()).starts_with('/'); it->Next()) {
      const auto header = decode_header(text_of(it->key()).substr(1), text_of(it->value()));
      ++use.files;
      if (!header) continue;  // whoever reads the file is told
      use.payload_bytes += header->size;
      use.stored_bytes += stored_size(header->size);
    }
    if (!it->status().ok() && !it->status().IsCorruption()) return from_status(it->status(), bucket_title(bucket));
  }
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[bucket];
  for (const auto& name : doubtful) slot.doubtful.erase(name);
  if (!known) slot.use = use;
  return {};
}

// Deletes every block of the name and its leftover record. The record goes with the last batch.
Result<void> BucketSet::remove_run(Instance& instance, std::string_view name) {
  leveldb::DB& db = *instance.db;
  const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_blocks()));
  const std::string end = run_end(name);
  leveldb::WriteBatch batch;
  size_t deletes = 0;
  for (it->Seek(std::string(name) + " "); it->Valid() && text_of(it->key()) < end; it->Next()) {
    batch.Delete(it->key());
    if (++deletes % kDeletesPerBatch != 0) continue;
    const auto written = db.Write(synced(), &batch);
    if (!written.ok()) return from_status(written, name);
    batch.Clear();
  }
  if (!it->status().ok() && !it->status().IsCorruption()) return from_status(it->status(), name);
  batch.Delete(leftover_key(name));
  const auto written = db.Write(synced(), &batch);
  if (!written.ok()) return from_status(written, name);
  return {};
}

Result<void> BucketSet::prepare(uint8_t bucket) {
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::reading));
  return {};
}

Result<std::vector<std::string>> BucketSet::repair(uint8_t bucket) {
  std::vector<std::string> findings;
  const std::string path = bucket_path(directory_, bucket);
  TRY(writable());
  {
    std::unique_lock lock(mutex_);
    Slot& slot = slots_[bucket];
    changed_.wait(lock, [&] { return closing_ || (!slot.changing && slot.users == 0); });
    if (closing_) return fail(Code::device_gone, "{} is closed", directory_);
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
    changed_.notify_all();
    if (!rebuilt) return rebuilt.error();
  }
  TRY(prepare(bucket));
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
  TRY_ASSIGN(const Lease lease, acquire(bucket, For::writing));
  leveldb::DB& db = lease.db();
  std::vector<std::string> strays;
  {
    const std::unique_ptr<leveldb::Iterator> it(db.NewIterator(reading_blocks()));
    it->Seek("0");
    while (it->Valid()) {
      const std::string name(name_of_block_key(text_of(it->key())));
      if (name.empty()) {
        it->Next();
        continue;
      }
      std::string value;
      bool busy;
      {
        const std::lock_guard lock(mutex_);
        busy = slots_[bucket].writing.contains(name);
      }
      // A writer registers before it writes and is registered until its header is there.
      if (!busy && db.Get(reading_records(), header_key(name), &value).IsNotFound()) {
        strays.push_back(name);
      }
      it->Seek(run_end(name));
    }
    if (!it->status().ok() && !it->status().IsCorruption()) return note_read_error(from_status(it->status(), bucket_title(bucket)));
  }
  for (const auto& name : strays) {
    const NameHold hold(*this, bucket, name);
    std::string value;
    if (!lease.db().Get(reading_records(), header_key(name), &value).IsNotFound()) continue;  // written meanwhile
    if (auto removed = remove_run(lease.instance(), name); !removed) return note_write_error(bucket, std::move(removed).error());
    leftovers_removed_.fetch_add(1);
  }
  return strays.size();
}

}  // namespace quarry::chunk::kfs
