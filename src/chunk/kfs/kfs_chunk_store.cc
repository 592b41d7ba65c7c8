#include "chunk/kfs/kfs_chunk_store.h"

#include <algorithm>
#include <set>

#include "base/coding.h"
#include "chunk/fencing.h"
#include "chunk/kfs/bucket_set.h"
#include "chunk/kfs/chunk_table.h"
#include "chunk/kfs/directory.h"
#include "codec/digest.h"
#include "io/clock.h"
#include "io/pace.h"
#include "io/sync.h"
#include "io/thread_pool.h"

namespace quarry::chunk {
namespace {

using kfs::BucketSet;
using kfs::Condition;
using kfs::Descriptor;
using kfs::TableEntry;

// Records are at most 16 MiB of payload: one batch, so whole or not at all.
Result<void> write_chunk(BucketSet& set, uint8_t bucket, const std::string& name, const std::vector<ByteView>& parts, uint64_t size,
                         Stream stream) {
  TRY_ASSIGN(auto writer, set.write_at_once(bucket, name, size, stream == Stream::data ? BucketSet::For::writing : BucketSet::For::upkeep));
  Buffer assembled;
  size_t filled = 0;
  for (ByteView part : parts) {
    while (!part.empty()) {
      if (filled == 0 && part.size() >= kKfsBlock) {
        TRY(writer->add(part.first(kKfsBlock)));
        part = part.subspan(kKfsBlock);
        continue;
      }
      if (assembled.empty()) assembled = Buffer(kKfsBlock);
      const size_t take = std::min<size_t>(part.size(), kKfsBlock - filled);
      std::memcpy(assembled.data() + filled, part.data(), take);
      filled += take;
      part = part.subspan(take);
      if (filled < kKfsBlock) continue;
      TRY(writer->add(assembled.view()));
      filled = 0;
    }
  }
  if (filled > 0) TRY(writer->add(assembled.view().first(filled)));
  TRY(writer->finish());
  return {};
}

// A bucket that is lost or cannot be opened is rebuilt from what can be read, and the call made once more: new chunks need a place,
// and the layers above know which old ones are gone.
template <class Call>
auto with_repair(BucketSet& set, uint8_t bucket, Call call) -> decltype(call()) {
  auto result = call();
  if (result || result.error().code() != Code::corrupt) return result;
  const uint64_t repairs = set.repairs(bucket);  // others may see the same damage, and repair it first
  auto opened = set.prepare(bucket);
  if (!opened && opened.error().code() == Code::corrupt) {
    auto repaired = set.repair(bucket, repairs);
    if (!repaired) return std::move(repaired).error();
  }
  return call();
}

struct Found {
  std::vector<TableEntry> entries;
  std::vector<std::string> damage;
};

Result<Found> load_bucket(BucketSet& set, uint8_t bucket) {
  Found found;
  const uint64_t repairs = set.repairs(bucket);
  auto opened = set.prepare(bucket);
  if (!opened && opened.error().code() == Code::corrupt) {
    found.damage.push_back(opened.error().context());
    auto repaired = set.repair(bucket, repairs);
    if (!repaired) {
      found.damage.push_back(repaired.error().context());
      return found;
    }
    found.damage.insert(found.damage.end(), repaired->begin(), repaired->end());
  } else if (!opened && opened.error().code() == Code::device_gone) {
    return std::move(opened).error();
  } else if (!opened) {
    found.damage.push_back(opened.error().to_string());
    return found;
  }
  auto visited = set.visit(bucket, "", [&](std::string_view name, const Result<kfs::Header>& header) {
    const auto id = ChunkId::parse(name);
    if (!id) {
      found.damage.push_back(fmt::format("S-bucket {} holds '{}', which is no chunk id", bucket, name));
      return true;
    }
    if (!header) found.damage.push_back(header.error().context());
    found.entries.push_back({*id, header ? static_cast<uint32_t>(header->size) : 0, !header});
    return true;
  });
  if (!visited) found.damage.push_back(visited.error().to_string());
  return found;
}

class Store : public KfsChunkStore {
 public:
  Store(std::string directory, KfsChunkStoreOptions options, std::unique_ptr<BucketSet> set, Descriptor descriptor)
      : directory_(std::move(directory)),
        files_(options.tuning.files != nullptr ? *options.tuning.files : kfs::posix_files()),
        descriptor_(std::move(descriptor)),
        set_(std::move(set)),
        pool_("kfs", std::max<size_t>(1, options.threads)) {}

  Task<Result<void>> load() {
    report_.clean = descriptor_.clean;
    const std::vector<uint8_t> buckets = set_->existing();
    report_.buckets = buckets.size();
    std::vector<Task<Result<Found>>> loading;
    for (const uint8_t bucket : buckets)
      loading.push_back(blocking(pool_, [set = set_.get(), bucket] { return load_bucket(*set, bucket); }));
    auto loaded = co_await when_all(std::move(loading));
    CO_TRY(first_error(loaded));
    Pace pace;
    for (auto& found : loaded) {
      for (const auto& entry : found->entries) {
        co_await pace;
        add(entry);
      }
      report_.damage.insert(report_.damage.end(), found->damage.begin(), found->damage.end());
    }
    for (const auto& sentence : set_->events()) {
      if (std::find(report_.damage.begin(), report_.damage.end(), sentence) == report_.damage.end()) report_.damage.push_back(sentence);
    }
    report_.chunks = table_.size();
    report_.leftovers_removed = set_->leftovers_removed();
    co_return Result<void>();
  }

  Uuid drive_id() const override { return descriptor_.drive; }
  Uuid cluster_id() const override { return descriptor_.cluster; }
  std::string description() const override { return fmt::format("kfs:{}", directory_); }
  const KfsOpenReport& open_report() const override { return report_; }
  std::string label() const override { return descriptor_.label; }

  Task<Result<void>> put(ChunkId id, std::vector<ByteView> parts, PutOptions options) override {
    uint64_t size = 0;
    for (const auto& part : parts) size += part.size();
    if (size > kChunkSizeMax) co_return fail(Code::too_large, "a chunk of {} bytes; the limit is {}", size, kChunkSizeMax);
    Call call(*this);
    CO_TRY(call.permitted());
    if (table_.find(id) != nullptr || !being_put_.insert(id).second) co_return fail(Code::already_exists, "chunk {}", id.to_string());
    auto written = co_await blocking(pool_, [set = set_.get(), bucket = bucket_of(id), id, &parts, size, stream = options.stream] {
      return with_repair(*set, bucket, [&] { return write_chunk(*set, bucket, id.to_string(), parts, size, stream); });
    });
    being_put_.erase(id);
    if (!written) co_return written;
    add({id, static_cast<uint32_t>(size)});
    co_return Result<void>();
  }

  Task<Result<SharedBytes>> get(ChunkId id, uint32_t offset, uint32_t length) override {
    Call call(*this);
    CO_TRY(call.permitted());
    const TableEntry* found = table_.find(id);
    if (found == nullptr) co_return fail(Code::not_found, "chunk {}", id.to_string());
    if (found->damaged) co_return fail(Code::corrupt, "chunk {}: its record cannot be read", id.to_string());
    const uint32_t size = found->size;
    if (offset > size) co_return fail(Code::out_of_range, "chunk {} has {} bytes, asked for offset {}", id.to_string(), size, offset);
    length = std::min(length, size - offset);
    Buffer into(length);
    auto read =
        co_await blocking(pool_, [set = set_.get(), bucket = bucket_of(id), id, offset, length, to = into.data()]() -> Result<void> {
          uint32_t done = 0;
          TRY(set->read(bucket, id.to_string(), offset, length, [&](ByteView piece) -> Result<void> {
            if (piece.size() > length - done) return fail(Code::corrupt, "chunk {}: longer than it was", id.to_string());
            std::memcpy(to + done, piece.data(), piece.size());
            done += static_cast<uint32_t>(piece.size());
            return {};
          }));
          if (done != length) return fail(Code::corrupt, "chunk {}: shorter than it was", id.to_string());
          return {};
        });
    if (!read) {
      if (read.error().code() != Code::not_found) co_return std::move(read).error();
      if (is_going(id)) co_return std::move(read).error();
      set_->note_checksum_error();
      co_return fail(Code::corrupt, "chunk {} is lost: S-bucket {} no longer holds it", id.to_string(), bucket_of(id));
    }
    co_return SharedBytes(std::move(into));
  }

  Task<Result<void>> remove(std::vector<ChunkId> ids) override {
    Call call(*this);
    CO_TRY(call.permitted());
    // Not twice at once: what is put again after the first removal is not the second one's.
    while (std::ranges::any_of(ids, [this](const ChunkId& id) { return being_removed_.contains(id); })) co_await removed_.wait();
    std::erase_if(ids, [this](const ChunkId& id) { return table_.find(id) == nullptr; });
    being_removed_.insert(ids.begin(), ids.end());
    std::map<uint8_t, std::vector<ChunkId>> by_bucket;
    for (const auto& id : ids) by_bucket[bucket_of(id)].push_back(id);
    std::vector<Task<Result<void>>> removing;
    for (const auto& [bucket, some] : by_bucket) removing.push_back(remove_in(bucket, some));
    auto removed = co_await when_all(std::move(removing));
    for (const auto& id : ids) being_removed_.erase(id);
    removed_.pulse();
    co_return first_error(removed);
  }

  Task<Result<ChunkStat>> stat(ChunkId id) override {
    if (auto open = usable(); !open) co_return std::move(open).error();
    const TableEntry* found = table_.find(id);
    if (found == nullptr) co_return fail(Code::not_found, "chunk {}", id.to_string());
    co_return stat_of(*found);
  }

  Task<Result<std::vector<ChunkStat>>> list(ChunkId from, ChunkId to, size_t limit) override {
    if (auto open = usable(); !open) co_return std::move(open).error();
    std::vector<ChunkStat> stats;
    table_.visit(from, [&](const TableEntry& entry) {
      if (entry.id >= to || stats.size() >= limit) return false;
      stats.push_back(stat_of(entry));
      return true;
    });
    co_return stats;
  }

  Task<Result<ScrubProgress>> scrub(ChunkId from, uint64_t budget_bytes) override {
    Call call(*this);
    CO_TRY(call.permitted());
    ScrubProgress progress;
    std::vector<TableEntry> some;
    progress.complete = true;
    uint64_t bytes = 0;
    table_.visit(from, [&](const TableEntry& entry) {
      if (!some.empty() && bytes >= budget_bytes) {
        progress.complete = false;
        progress.next = entry.id;
        return false;
      }
      some.push_back(entry);
      bytes += entry.size;
      return true;
    });
    for (const TableEntry& entry : some) {
      if (table_.find(entry.id) == nullptr) continue;  // removed since
      auto read = co_await blocking(pool_, [set = set_.get(), bucket = bucket_of(entry.id), id = entry.id] {
        return set->read(bucket, id.to_string(), 0, UINT64_MAX, [](ByteView) { return Result<void>(); });
      });
      if (!read && is_going(entry.id)) continue;
      if (!read && read.error().code() == Code::device_gone) co_return std::move(read).error();
      ++progress.chunks_checked;
      progress.bytes_checked += entry.size;
      if (!read) progress.damaged.push_back({entry.id, read.error().to_string()});
    }
    co_return progress;
  }

  // Every record has its entry in memory and every entry its record.
  Task<Result<FsckReport>> fsck() override {
    Call call(*this);
    CO_TRY(call.permitted());
    FsckReport report;
    std::map<uint8_t, std::vector<TableEntry>> expected;
    Pace pace;
    for (std::optional<ChunkId> from = ChunkId{}; from;) {
      co_await pace;
      size_t left = 64;
      const ChunkId begin = *std::exchange(from, std::nullopt);
      table_.visit(begin, [&](const TableEntry& entry) {
        if (left-- == 0) {
          from = entry.id;
          return false;
        }
        expected[bucket_of(entry.id)].push_back(entry);
        return true;
      });
    }
    const std::vector<uint8_t> buckets = set_->existing();
    for (const uint8_t bucket : buckets) {
      auto violations = co_await blocking(
          pool_, [set = set_.get(), bucket, entries = std::move(expected[bucket])] { return compare(*set, bucket, entries); });
      if (!violations) co_return std::move(violations).error();
      for (auto& [id, sentence] : *violations) {
        // Put or removed while we looked, or just now: then the bucket may say so before the table does.
        if (!sentence.always && (being_put_.contains(id) || being_removed_.contains(id))) continue;
        const bool listed = table_.find(id) != nullptr;
        if (sentence.record_found != listed || sentence.always) report.violations.push_back(std::move(sentence.text));
      }
      expected.erase(bucket);
    }
    for (const auto& [bucket, entries] : expected) {
      const auto listed = std::ranges::count_if(entries, [this](const TableEntry& entry) { return table_.find(entry.id) != nullptr; });
      if (listed > 0) report.violations.push_back(fmt::format("S-bucket {} does not exist but {} chunks belong to it", bucket, listed));
    }
    report.chunks = table_.size();
    report.segments = buckets.size();
    report.space = space();
    co_return report;
  }

  SpaceReport space() const override {
    SpaceReport report;
    uint64_t room = 0, stored = 0;
    for (size_t i = 0; i < kKfsBuckets; ++i) {
      const kfs::BucketUse use = closed_ ? kfs::BucketUse() : set_->use(static_cast<uint8_t>(i));
      stored += use.stored_bytes;
      report.garbage_bytes += use.garbage_bytes;
      room += descriptor_.bucket_bytes - std::min(descriptor_.bucket_bytes, use.stored_bytes);
    }
    report.used_bytes = stored;
    report.payload_bytes = payload_;
    report.chunk_count = table_.size();
    const auto file_system = set_->file_system();
    const uint64_t free = file_system ? file_system->free - std::min(file_system->free, set_->reserve_bytes()) : 0;
    report.free_bytes = std::min(free, room);
    report.device_bytes = report.used_bytes + report.garbage_bytes + report.free_bytes;
    return report;
  }

  uint64_t owner_epoch() const override { return set_->descriptor().mounts; }

  StoreHealth health() const override {
    const kfs::SetHealth inner = set_->health();
    StoreHealth health;
    health.state = inner.condition == Condition::online      ? StoreState::online
                   : inner.condition == Condition::read_only ? StoreState::read_only
                                                             : StoreState::failed;
    health.reason = inner.reason;
    health.read_errors = inner.read_errors;
    health.write_errors = inner.write_errors;
    health.checksum_errors = inner.checksum_errors;
    return health;
  }

  // The directory may be gone while LevelDB's open files work on; a disk may take no writes that nobody makes.
  Task<Result<void>> check_health() override {
    Call call(*this);
    CO_TRY(call.permitted());
    co_await probe_turn_.acquire();  // one at a time: they write the same file, and each removes it
    auto healthy =
        co_await blocking(pool_, [files = &files_, directory = directory_, drive = descriptor_.drive, set = set_.get()]() -> Result<void> {
          auto found = kfs::read_descriptor(*files, directory);
          if (!found && found.error().code() == Code::not_found) return fail(Code::device_gone, "{} is gone", directory);
          if (!found) return std::move(found).error();
          if (found->drive != drive) return fail(Code::device_gone, "{} is another store by now", directory);
          if (found->mounts > set->descriptor().mounts)  // of its descriptor only the owner's opens count
            return fail(Code::device_gone, "{}: {} since; it is that one's now", directory, kTakenByAnother).because(Reason::taken);
          const std::string probe = directory + "/kfs.probe-health";  // kfs.probe is the set's own
          const auto written = kfs::replace_file(*files, probe, bytes_of("probe"));
          if (!written && written.error().code() != Code::no_space) return written;  // full is not broken
          files->remove(probe).ignore("the next look removes it");
          return {};
        });
    probe_turn_.release();
    co_return healthy;
  }

  Task<Result<void>> set_label(std::string label) override {
    if (label.size() > kfs::kLabelBytesMax)
      co_return fail(Code::too_large, "a label of {} bytes; the limit is {}", label.size(), kfs::kLabelBytesMax);
    co_return co_await change([label = std::move(label)](Descriptor& descriptor) { descriptor.label = label; });
  }

  Task<Result<void>> set_cluster_id(Uuid cluster) override {
    if (descriptor_.cluster == cluster) co_return Result<void>();
    if (!descriptor_.cluster.is_nil())
      co_return fail(Code::wrong_owner, "{} belongs to cluster {}", directory_, descriptor_.cluster.to_string());
    co_return co_await change([cluster](Descriptor& descriptor) { descriptor.cluster = cluster; });
  }

  Task<Result<void>> compact() override {
    Call call(*this);
    CO_TRY(call.permitted());
    std::vector<Task<Result<void>>> compacting;
    for (const uint8_t bucket : set_->existing())
      compacting.push_back(blocking(pool_, [set = set_.get(), bucket] { return set->compact(bucket); }));
    auto compacted = co_await when_all(std::move(compacting));
    co_return first_error(compacted);
  }

  Task<Result<void>> close() override {
    if (closed_) {
      co_await idle_.wait();
      co_return Result<void>();
    }
    closed_ = true;
    if (calls_ == 0) idle_.set();
    co_await idle_.wait();
    co_return co_await blocking(pool_, [set = set_.get()] { return set->close(); });
  }

 private:
  // Counts a call in progress, so that close waits for it.
  class Call {
   public:
    explicit Call(Store& store) : store_(store), usable_(store.usable()) {
      if (usable_) ++store_.calls_;
    }
    Call(const Call&) = delete;
    ~Call() {
      if (usable_ && --store_.calls_ == 0 && store_.closed_) store_.idle_.set();
    }
    Result<void> permitted() const { return usable_; }

   private:
    Store& store_;
    const Result<void> usable_;
  };

  struct Sentence {
    std::string text;
    bool record_found = false;
    bool always = false;  // whatever the table says now
  };
  static Result<std::vector<std::pair<ChunkId, Sentence>>> compare(BucketSet& set, uint8_t bucket, const std::vector<TableEntry>& entries) {
    std::vector<std::pair<ChunkId, Sentence>> sentences;
    std::map<ChunkId, uint32_t> left;
    for (const auto& entry : entries) left.emplace(entry.id, entry.size);
    auto visited = set.visit(bucket, "", [&](std::string_view name, const Result<kfs::Header>& header) {
      const auto id = ChunkId::parse(name);
      if (!id || !header) {
        sentences.emplace_back(
            id ? *id : ChunkId(),
            Sentence{fmt::format("S-bucket {}: {}", bucket, id ? header.error().context() : std::string(name) + " is no chunk id"), true,
                     true});
        if (id) left.erase(*id);
        return true;
      }
      const auto at = left.find(*id);
      if (at == left.end()) {
        sentences.emplace_back(*id,
                               Sentence{fmt::format("S-bucket {} holds chunk {}, which is not in the table", bucket, name), true, false});
        return true;
      }
      if (at->second != header->size) {
        sentences.emplace_back(
            *id, Sentence{fmt::format("chunk {} has {} bytes in the table and {} in S-bucket {}", name, at->second, header->size, bucket),
                          true, true});
      }
      left.erase(at);
      return true;
    });
    if (!visited && visited.error().code() == Code::device_gone) return std::move(visited).error();
    if (!visited) sentences.emplace_back(ChunkId(), Sentence{visited.error().to_string(), true, true});
    for (const auto& [id, size] : left)
      sentences.emplace_back(
          id, Sentence{fmt::format("chunk {} is in the table but not in S-bucket {}", id.to_string(), bucket), false, false});
    return sentences;
  }

  Result<void> usable() const {
    if (closed_) return fail(Code::device_gone, "{} is closed", directory_);
    return {};
  }

  // By a hash of the id, since ids are counters: the high byte of XXH3-64 over its 16 bytes in order of text.
  uint8_t bucket_of(const ChunkId& id) const {
    std::string bytes;
    Encoder(bytes).key_u64(id.high).key_u64(id.low);
    return set_->bucket_of(static_cast<uint8_t>(hash64(bytes_of(bytes)) >> 56));
  }

  // Removed, or just being removed: then it may be gone from its bucket and be in the table still.
  bool is_going(const ChunkId& id) const { return table_.find(id) == nullptr || being_removed_.contains(id); }
  void add(const TableEntry& entry) {
    table_.insert(entry);
    payload_ += entry.size;
  }
  static ChunkStat stat_of(const TableEntry& entry) { return {entry.id, entry.size, static_cast<uint32_t>(kfs::stored_size(entry.size))}; }

  Task<Result<void>> remove_in(uint8_t bucket, std::vector<ChunkId> ids) {
    auto removed = co_await blocking(pool_, [set = set_.get(), bucket, &ids] {
      std::vector<std::string> names;
      for (const auto& id : ids) names.push_back(id.to_string());
      return with_repair(*set, bucket, [&] { return set->remove(bucket, names); });
    });
    if (!removed) co_return std::move(removed).error();
    for (const auto& id : ids) {
      const TableEntry* entry = table_.find(id);
      if (entry == nullptr) continue;
      payload_ -= entry->size;
      table_.erase(id);
    }
    co_return Result<void>();
  }

  Task<Result<void>> change(std::function<void(Descriptor&)> edit) {
    Call call(*this);
    CO_TRY(call.permitted());
    auto changed = co_await blocking(pool_, [set = set_.get(), edit] { return set->change_descriptor(edit); });
    if (changed) edit(descriptor_);
    co_return changed;
  }

  const std::string directory_;
  kfs::Files& files_;
  Descriptor descriptor_;  // the parts that only we change
  KfsOpenReport report_;
  std::unique_ptr<BucketSet> set_;
  ThreadPool pool_;  // ends before the set does
  kfs::ChunkTable table_;
  std::set<ChunkId> being_put_, being_removed_;
  Event removed_;
  uint64_t payload_ = 0;
  size_t calls_ = 0;
  bool closed_ = false;
  Event idle_;
  Semaphore probe_turn_{1};
};

kfs::Files& files_of(const KfsTuning& tuning) { return tuning.files != nullptr ? *tuning.files : kfs::posix_files(); }

Result<Descriptor> read_chunk_descriptor(kfs::Files& files, const std::string& directory) {
  TRY_ASSIGN(auto descriptor, kfs::read_descriptor(files, directory));
  if (descriptor.kind != kfs::StoreKind::chunks)
    return fail(Code::not_found, "{} is a kfs store of files by hash, not a drive of a node", directory);
  return descriptor;
}

Result<Descriptor> read_locked(const std::string& directory) {
  TRY(read_chunk_descriptor(kfs::posix_files(), directory));
  TRY_ASSIGN(const auto lock, kfs::DirectoryLock::take(directory));
  return read_chunk_descriptor(kfs::posix_files(), directory);
}

struct OpenSet {
  std::unique_ptr<BucketSet> set;
  Descriptor descriptor;
};

Result<OpenSet> open_set(const std::string& directory, const KfsChunkStoreOptions& options) {
  kfs::Files& files = files_of(options.tuning);
  TRY(read_chunk_descriptor(files, directory));
  TRY_ASSIGN(auto lock, kfs::DirectoryLock::take(directory));
  TRY_ASSIGN(auto descriptor, read_chunk_descriptor(files, directory));  // again, now that nobody changes it
  if (options.cluster && !descriptor.cluster.is_nil() && descriptor.cluster != *options.cluster) {
    return fail(Code::wrong_owner, "{} belongs to cluster {}, not {}", directory, descriptor.cluster.to_string(),
                options.cluster->to_string());
  }
  TRY_ASSIGN(auto set, BucketSet::open(directory, descriptor, std::move(lock), options.tuning));
  return OpenSet{std::move(set), std::move(descriptor)};
}

}  // namespace

Task<Result<Uuid>> KfsChunkStore::format(std::string directory, KfsFormatOptions options) {
  if (options.label.size() > kfs::kLabelBytesMax)
    co_return fail(Code::too_large, "a label of {} bytes; the limit is {}", options.label.size(), kfs::kLabelBytesMax);
  if (options.bucket_bytes < 2 * kChunkSizeMax)
    co_return fail(Code::invalid_argument, "a bucket size of {} is too small; {} is the least", format_size(options.bucket_bytes),
                   format_size(2 * kChunkSizeMax));
  CO_TRY_ASSIGN(const auto content, foreign_content(directory));
  if (content && !options.force) co_return fail(Code::already_exists, "{} is not empty: {}", directory, *content);
  Descriptor descriptor;
  descriptor.kind = kfs::StoreKind::chunks;
  descriptor.version = kfs::format_version(descriptor.kind);
  descriptor.drive = options.drive.is_nil() ? system_random().uuid() : options.drive;
  descriptor.cluster = options.cluster;
  descriptor.bucket_bytes = options.bucket_bytes;
  descriptor.key = text_of(descriptor.drive.bytes);
  descriptor.label = std::move(options.label);
  Result<void> created =
      co_await blocking_apart([directory, descriptor] { return kfs::create_store(kfs::posix_files(), directory, descriptor); });
  if (!created) co_return std::move(created).error();
  co_return descriptor.drive;
}

Task<Result<std::unique_ptr<KfsChunkStore>>> KfsChunkStore::open(std::string directory, KfsChunkStoreOptions options) {
  auto files = co_await blocking_apart([directory, options] { return open_set(directory, options); });  // the file system may hang
  if (!files) co_return std::move(files).error();
  auto store = std::make_unique<Store>(directory, options, std::move(files->set), std::move(files->descriptor));
  Result<void> loaded = co_await store->load();
  if (!loaded) {
    Result<void> closed = co_await store->close();
    std::move(closed).ignore("the open failed for a reason that is told");
    co_return std::move(loaded).error();
  }
  std::unique_ptr<KfsChunkStore> opened = std::move(store);
  co_return opened;
}

Task<Result<KfsChunkStore::Identity>> KfsChunkStore::identify(std::string directory) {
  auto read = co_await blocking_apart([directory] { return read_locked(directory); });  // the file system may hang
  if (!read) co_return std::move(read).error();
  const Descriptor descriptor = std::move(*read);
  Identity identity;
  identity.drive = descriptor.drive;
  identity.cluster = descriptor.cluster;
  identity.bucket_bytes = descriptor.bucket_bytes;
  identity.mounts = descriptor.mounts;
  identity.format_version = descriptor.version;
  identity.clean = descriptor.clean;
  identity.label = descriptor.label;
  co_return identity;
}

Result<std::optional<std::string>> KfsChunkStore::foreign_content(const std::string& directory) {
  return kfs::content_of(kfs::posix_files(), directory);
}

}  // namespace quarry::chunk
