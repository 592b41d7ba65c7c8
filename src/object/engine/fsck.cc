// fsck: reads every row of the engine in one snapshot and checks what docs/formats/object-records.md, section 4, promises; then
// compares the layouts that records name with the data plane's rows. Runs beside traffic: a difference counts only if a second
// pass still shows it.
//
// Memory: 8 bytes a data layout, and the versions of one key at a time.
#include "io/blocking_pool.h"
#include "object/engine/engine.h"
#include "object/engine/row_stream.h"

namespace quarry::object {
namespace {

constexpr size_t kViolationsMax = 1000;  // further ones are counted, not described

struct Totals {
  int64_t objects = 0, bytes = 0;
};

// Orphan rows that a repair may remove.
struct Repairs {
  std::vector<std::pair<std::string, std::string>> rows;              // payload rows without a version: key and value
  std::vector<std::pair<std::string, std::string>> parts;             // rows of parts without an upload: key and value
  std::vector<std::tuple<BucketId, UsageCounter, int64_t>> counters;  // what is missing
};

using WriteIds = std::vector<cluster::WriteId>;

class Pass {
 public:
  // compute: for what would hold a loop long; null: it does.
  Pass(meta::Snapshot& snapshot, BlockingPool* compute) : snapshot_(snapshot), compute_(compute) {}
  Task<Result<void>> run();

  ObjectEngine::FsckReport report;
  uint64_t undescribed = 0;
  std::vector<cluster::WriteId> referenced;  // sorted
  Repairs repairs;

 private:
  template <class... Args>
  void violation(fmt::format_string<Args...> format, Args&&... args) {
    if (report.violations.size() >= kViolationsMax) {
      ++undescribed;
      return;
    }
    report.violations.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  Task<Result<void>> check_buckets();
  Task<Result<void>> check_versions();
  Task<Result<void>> check_uploads();
  Task<Result<void>> check_counters();
  void check_payload(const VersionRecord& record, std::string_view key, std::map<std::pair<PayloadSlot, uint32_t>, std::string>& pages);
  void refer(const std::optional<cluster::DataLayout>& layout) {
    if (layout) referenced.push_back(layout->write_id);
  }

  meta::Snapshot& snapshot_;
  BlockingPool* const compute_;
  std::map<BucketId, std::string> buckets_;
  std::map<BucketId, Versioning> versioning_;
  std::map<BucketId, Totals> totals_;
};

// Millions of ids are not sorted on a loop.
template <class F, class T = std::invoke_result_t<F&>>
Task<T> apart(BlockingPool* compute, F work) {
  if (compute == nullptr) co_return work();
  auto working = blocking(*compute, std::move(work));
  T value = co_await std::move(working);
  co_return value;
}

WriteIds sort_and_find_twice(WriteIds& ids) {
  WriteIds twice;
  std::sort(ids.begin(), ids.end());
  for (size_t i = 1; i < ids.size(); ++i) {
    if (ids[i] == ids[i - 1]) twice.push_back(ids[i]);
  }
  return twice;
}

meta::KeyRange kind_range(char kind) { return {std::string(1, kind), std::string(1, static_cast<char>(kind + 1))}; }

Task<Result<void>> Pass::run() {
  CO_TRY(co_await check_buckets());
  CO_TRY(co_await check_versions());
  CO_TRY(co_await check_uploads());
  CO_TRY(co_await check_counters());
  WriteIds* ids = &referenced;
  auto sorting = apart(compute_, [ids] { return sort_and_find_twice(*ids); });
  const WriteIds twice = co_await std::move(sorting);
  for (const auto id : twice) violation("write {} is named by two records", id);
  co_return Result<void>();
}

Task<Result<void>> Pass::check_buckets() {
  RowStream names(snapshot_, bucket_names_range());
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* row, co_await names.peek());
    if (row == nullptr) break;
    auto name = parse_bucket_name_key(row->key);
    auto record = decode_bucket(row->value);
    const bool named = name.has_value(), sound = record.has_value();
    if (!named || !sound) {
      violation("bucket row {}: {}", to_hex(bytes_of(row->key)), (name ? record.error() : name.error()).to_string());
    } else if (record->info.name != *name) {
      violation("bucket '{}': its row holds '{}'", *name, record->info.name);
    } else if (!buckets_.emplace(record->info.id, *name).second) {
      violation("bucket '{}': id {} is also that of '{}'", *name, record->info.id, buckets_[record->info.id]);
    } else {
      versioning_[record->info.id] = record->info.versioning;
      ++report.buckets;
    }
    names.pop();
  }
  RowStream ids(snapshot_, {"bi", prefix_end("bi")});
  std::set<BucketId> named;
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* row, co_await ids.peek());
    if (row == nullptr) break;
    Decoder in{std::string_view(row->key).substr(2)};
    const BucketId id = in.key_u64();
    const auto bucket = buckets_.find(id);
    if (!in.done() || bucket == buckets_.end() || bucket->second != row->value)
      violation("bucket id {} names '{}', which has no such row", id, row->value);
    named.insert(id);
    ids.pop();
  }
  for (const auto& [id, name] : buckets_) {
    if (!named.contains(id)) violation("bucket '{}': id {} has no row", name, id);
  }
  CO_TRY_ASSIGN(auto last_row, co_await snapshot_.get(last_bucket_id_key()));
  CO_TRY_ASSIGN(const uint64_t last, last_row ? decode_counter(*last_row) : Result<uint64_t>(0));
  if (!buckets_.empty() && buckets_.rbegin()->first > last)
    violation("bucket id {} is above the last one given out, {}", buckets_.rbegin()->first, last);
  co_return Result<void>();
}

void Pass::check_payload(const VersionRecord& record, std::string_view key,
                         std::map<std::pair<PayloadSlot, uint32_t>, std::string>& pages) {
  const auto take = [&](uint32_t page) -> std::optional<std::string> {
    const auto found = pages.find({record.slot(), page});
    if (found == pages.end()) return std::nullopt;
    std::string value = std::move(found->second);
    pages.erase(found);
    return value;
  };
  if (record.payload == PayloadKind::inlined) {
    const auto row = take(0);
    if (!row) return violation("key '{}': its payload row is missing", key);
    const auto payload = decode_inline_payload(*row);
    if (!payload) return violation("key '{}': {}", key, payload.error().to_string());
    if (payload->unique != record.unique || payload->bytes.size() != record.size)
      violation("key '{}': its payload row is that of another version", key);
  }
  refer(record.layout);
  if (record.payload == PayloadKind::parts) {
    uint64_t size = 0, count = 0;
    uint32_t previous = 0;
    for (uint32_t page = 0; page < record.page_count; ++page) {
      const auto row = take(page);
      if (!row) return violation("key '{}': page {} of its part list is missing", key, page);
      const auto decoded = decode_part_page(*row);
      if (!decoded) return violation("key '{}': page {}: {}", key, page, decoded.error().to_string());
      if (decoded->unique != record.unique) return violation("key '{}': page {} belongs to another version", key, page);
      for (const auto& part : decoded->parts) {
        if (part.number <= previous) violation("key '{}': part {} after part {}", key, part.number, previous);
        previous = part.number;
        size += part.size;
        ++count;
        refer(part.layout);
      }
    }
    if (size != record.size || count != record.part_count) {
      violation("key '{}': its part list has {} parts of {} bytes, not {} of {}", key, count, size, record.part_count, record.size);
    }
  }
}

Task<Result<void>> Pass::check_versions() {
  RowStream streams[4] = {
      {snapshot_, kind_range('o')}, {snapshot_, kind_range('v')}, {snapshot_, kind_range('n')}, {snapshot_, kind_range('i')}};
  for (;;) {
    // The next key, over all four kinds of rows.
    std::optional<std::pair<BucketId, std::string>> key;
    for (auto& stream : streams) {
      for (;;) {
        CO_TRY_ASSIGN(const meta::KeyValue* row, co_await stream.peek());
        if (row == nullptr) break;
        auto parsed = parse_row_key(row->key);
        if (!parsed) {
          violation("row {}: {}", to_hex(bytes_of(row->key)), parsed.error().to_string());
          stream.pop();
          continue;
        }
        std::pair<BucketId, std::string> here{parsed->bucket, std::move(parsed->key)};
        if (!key || here < *key) key = std::move(here);
        break;
      }
    }
    if (!key) break;
    const BucketId bucket = key->first;
    const std::string shown = fmt::format("{}/{}", buckets_.contains(bucket) ? buckets_[bucket] : std::to_string(bucket), key->second);
    if (!buckets_.contains(bucket)) violation("key '{}': bucket {} does not exist", shown, bucket);

    std::optional<VersionRecord> current;
    std::vector<VersionRecord> noncurrent;
    std::optional<Sequence> null_pointer;
    std::map<std::pair<PayloadSlot, uint32_t>, std::string> pages;
    bool unreadable = false;
    for (size_t kind = 0; kind < 4; ++kind) {
      for (;;) {
        CO_TRY_ASSIGN(const meta::KeyValue* row, co_await streams[kind].peek());
        if (row == nullptr) break;
        auto parsed = parse_row_key(row->key);
        if (!parsed || parsed->bucket != bucket || parsed->key != key->second) break;
        if (kind < 2) {
          auto record = decode_version(row->value);
          if (!record) {
            violation("key '{}': {}", shown, record.error().to_string());
            unreadable = true;
          } else if (kind == 0) {
            current = std::move(*record);
          } else {
            if (record->sequence != parsed->sequence)
              violation("key '{}': row of version {} holds version {}", shown, parsed->sequence, record->sequence);
            noncurrent.push_back(std::move(*record));
          }
        } else if (kind == 2) {
          const auto pointer = decode_counter(row->value);
          if (pointer) {
            null_pointer = *pointer;
          } else {
            violation("key '{}': null pointer: {}", shown, pointer.error().to_string());
          }
        } else {
          pages[{parsed->slot, parsed->page}] = row->value;
        }
        streams[kind].pop();
      }
    }

    if (current) {
      ++report.objects;
      if (current->delete_marker) violation("key '{}': a delete marker is its current row", shown);
      if (!noncurrent.empty() && noncurrent.front().sequence >= current->sequence)
        violation("key '{}': a noncurrent version is newer than the current one", shown);
    } else if (!noncurrent.empty() && !noncurrent.front().delete_marker && !unreadable) {
      violation("key '{}': its newest version is live, but there is no current row", shown);
    }
    if (!noncurrent.empty() && versioning_.contains(bucket) && versioning_[bucket] == Versioning::off) {
      violation("key '{}': noncurrent versions in a bucket that never kept any", shown);
    }
    size_t nulls = current && current->null_version ? 1 : 0;
    for (const auto& version : noncurrent) {
      if (!version.null_version) continue;
      ++nulls;
      if (null_pointer != version.sequence) violation("key '{}': the null pointer does not name the null version", shown);
    }
    if (nulls > 1) violation("key '{}': {} null versions", shown, nulls);
    if (null_pointer && (nulls == 0 || (current && current->null_version)) && !unreadable)
      violation("key '{}': the null pointer names nothing", shown);

    if (current) noncurrent.push_back(std::move(*current));
    for (const auto& version : noncurrent) {
      if (!version.delete_marker) ++report.versions;
      if (!version.delete_marker) {
        totals_[bucket].objects += 1;
        totals_[bucket].bytes += static_cast<int64_t>(version.size);
        report.bytes += version.size;
      }
      check_payload(version, shown, pages);
    }
    if (!pages.empty() && !unreadable) {
      violation("key '{}': {} payload rows belong to no version", shown, pages.size());
      for (const auto& [place, value] : pages)
        repairs.rows.emplace_back(payload_key(bucket, key->second, place.first, place.second), value);
    }
  }
  co_return Result<void>();
}

Task<Result<void>> Pass::check_uploads() {
  std::map<std::string, BucketId> uploads;
  RowStream rows(snapshot_, kind_range('u'));
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* row, co_await rows.peek());
    if (row == nullptr) break;
    const auto parsed = parse_row_key(row->key);
    const auto record = decode_upload(row->value);
    if (!parsed) {
      violation("upload row {}: {}", to_hex(bytes_of(row->key)), parsed.error().to_string());
    } else {
      if (!record) violation("upload of key '{}': {}", parsed->key, record.error().to_string());
      if (!buckets_.contains(parsed->bucket)) violation("upload of key '{}': bucket {} does not exist", parsed->key, parsed->bucket);
      if (!uploads.emplace(parsed->upload_id, parsed->bucket).second)
        violation("upload id {} occurs twice", upload_id_text(parsed->upload_id));
      ++report.uploads;
    }
    rows.pop();
  }
  RowStream parts(snapshot_, kind_range('p'));
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* row, co_await parts.peek());
    if (row == nullptr) break;
    const auto parsed = parse_part_key(row->key);
    const auto record = decode_part(row->value);
    const bool named = parsed.has_value(), sound = record.has_value();
    if (!named || !sound) {
      violation("part row {}: {}", to_hex(bytes_of(row->key)), (parsed ? record.error() : parsed.error()).to_string());
    } else {
      if (record->number != parsed->number) violation("row of part {} holds part {}", parsed->number, record->number);
      refer(record->layout);
      const auto upload = uploads.find(parsed->upload_id);
      if (upload == uploads.end()) {
        violation("part {} belongs to upload {}, which does not exist", parsed->number, upload_id_text(parsed->upload_id));
        repairs.parts.emplace_back(row->key, row->value);
      } else {
        totals_[upload->second].bytes += static_cast<int64_t>(record->size);
        report.bytes += record->size;
      }
    }
    parts.pop();
  }
  co_return Result<void>();
}

Task<Result<void>> Pass::check_counters() {
  std::map<std::pair<BucketId, UsageCounter>, int64_t> found;
  RowStream rows(snapshot_, kind_range('k'));
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* row, co_await rows.peek());
    if (row == nullptr) break;
    Decoder in{std::string_view(row->key).substr(1)};
    const BucketId id = in.key_u64();
    const uint8_t counter = in.u8();
    const auto value = decode_counter(row->value);
    if (!in.done() || counter > 1 || !value) {
      violation("counter row {} is malformed", to_hex(bytes_of(row->key)));
    } else if (!buckets_.contains(id)) {
      violation("counter {} of bucket {}, which does not exist", counter, id);
    } else {
      found[{id, static_cast<UsageCounter>(counter)}] = static_cast<int64_t>(*value);
    }
    rows.pop();
  }
  for (const auto& [id, name] : buckets_) {
    const Totals totals = totals_[id];
    for (const auto& [counter, sum] : {std::pair{UsageCounter::objects, totals.objects}, std::pair{UsageCounter::bytes, totals.bytes}}) {
      const int64_t kept = found[{id, counter}];
      if (kept == sum) continue;
      violation("bucket '{}': its counter of {} says {}, its rows {}", name, counter == UsageCounter::objects ? "objects" : "bytes", kept,
                sum);
      repairs.counters.emplace_back(id, counter, sum - kept);
    }
  }
  co_return Result<void>();
}

Task<Result<std::vector<cluster::WriteId>>> data_rows(cluster::DataPlane& data) {
  std::vector<cluster::WriteId> ids;
  for (cluster::WriteId after = 0;;) {
    CO_TRY_ASSIGN(auto page, co_await data.references(after, 1000));
    if (page.empty()) co_return ids;
    for (const auto& reference : page) ids.push_back(reference.layout.write_id);
    after = ids.back();
  }
}

std::vector<cluster::WriteId> difference(const std::vector<cluster::WriteId>& a, const std::vector<cluster::WriteId>& b) {
  std::vector<cluster::WriteId> out;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}
std::vector<cluster::WriteId> common(const std::vector<cluster::WriteId>& a, const std::vector<cluster::WriteId>& b) {
  std::vector<cluster::WriteId> out;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

using OrphanRows = std::span<const std::pair<std::string, std::string>>;
constexpr size_t kOrphansAtOnce = 500;  // rows removed in one transaction, well inside its limit

// An orphan goes only if it is still what the snapshot held: the null slot of a key is used again by the next put of that key, and its
// row is then a live payload with another `unique`. The read is a conflict, so a put that comes between fails this transaction.
Task<Result<void>> remove_orphans(meta::Transaction& transaction, cluster::DataPlane& data, OrphanRows rows) {
  for (const auto& [key, value] : rows) {
    CO_TRY_ASSIGN(auto present, co_await transaction.get(key));
    if (present != value) continue;
    if (key.front() == 'p') {
      CO_TRY_ASSIGN(auto part, decode_part(value));
      if (part.layout) data.retire(transaction, *part.layout);
    }
    transaction.remove(key);
  }
  co_return Result<void>();
}

// Deltas, so that what changed since the snapshot stays counted.
Task<Result<void>> mend_counters(meta::Transaction& transaction, const Repairs& repairs) {
  for (const auto& [id, counter, missing] : repairs.counters) transaction.add(counter_key(id, counter), missing);
  co_return Result<void>();
}

}  // namespace

Task<Result<ObjectEngine::FsckReport>> Engine::fsck(const RequestContext& ctx, bool repair) {
  // A counter is mended by what one snapshot says is missing: of two repairs at once each would add it.
  Gate::Pass alone;
  if (repair) alone = co_await repair_gate_.enter();
  CO_TRY_ASSIGN(auto before, co_await data_rows(data()));
  CO_TRY_ASSIGN(auto snapshot, co_await meta().snapshot());
  BlockingPool* compute = options_.compute;
  Pass pass(*snapshot, compute);
  CO_TRY(co_await pass.run());
  snapshot.reset();
  CO_TRY_ASSIGN(auto after, co_await data_rows(data()));
  const auto describe = [&pass](std::string text) {
    if (pass.report.violations.size() < kViolationsMax) {
      pass.report.violations.push_back(std::move(text));
    } else {
      ++pass.undescribed;
    }
  };
  // Write ids are never reused: a row that was there before and after the snapshot was there at its moment too.
  auto comparing = apart(compute, [&] { return difference(common(before, after), pass.referenced); });
  const WriteIds unnamed = co_await std::move(comparing);
  for (const auto id : unnamed) describe(fmt::format("write {} has a data row, but no record names it", id));
  // A layout without a row may have been replaced since the snapshot, unless a second look finds it named still.
  auto looking = apart(compute, [&] { return difference(pass.referenced, after); });
  const WriteIds missing = co_await std::move(looking);
  if (!missing.empty()) {
    CO_TRY_ASSIGN(auto again, co_await meta().snapshot());
    Pass second(*again, compute);
    CO_TRY(co_await second.run());
    for (const auto id : common(missing, second.referenced))
      describe(fmt::format("write {} is named by a record, but has no data row", id));
  }
  if (pass.undescribed > 0) pass.report.violations.push_back(fmt::format("and {} more violations", pass.undescribed));
  if (repair) {
    cluster::DataPlane* plane = &data();
    for (const auto* orphans : {&pass.repairs.rows, &pass.repairs.parts}) {
      for (size_t at = 0; at < orphans->size(); at += kOrphansAtOnce) {
        const OrphanRows rows = OrphanRows(*orphans).subspan(at, std::min(kOrphansAtOnce, orphans->size() - at));
        CO_TRY(co_await meta::transact(
            meta(), [plane, rows](meta::Transaction& transaction) { return remove_orphans(transaction, *plane, rows); }));
      }
    }
    if (!pass.repairs.parts.empty()) data().retired();
    if (!pass.repairs.counters.empty()) {
      const Repairs* work = &pass.repairs;
      CO_TRY(co_await meta::transact(meta(), [work](meta::Transaction& transaction) { return mend_counters(transaction, *work); }));
    }
  }
  co_return std::move(pass.report);
}

}  // namespace quarry::object
