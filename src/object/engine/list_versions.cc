// list_versions: the current and the noncurrent rows of a snapshot, merged: by key, then newest first.
#include "meta/row_batches.h"
#include "object/engine/engine.h"
#include "object/engine/names.h"
#include "object/engine/row_stream.h"

namespace quarry::object {
namespace {

// Where a page begins inside a key: after the version of this sequence.
struct Resume {
  std::string key;
  Sequence after = 0;
  bool passes_current = false;  // the current row is the marker itself, or newer than it
  Sequence latest = 0;          // sequence of the key's latest version
};

Task<Result<Resume>> find_resume(meta::Snapshot& snapshot, BucketId bucket, std::string key, std::string marker) {
  CO_TRY_ASSIGN(const VersionId id, parse_version_id(marker));
  Resume resume{.key = key, .after = id.sequence};
  CO_TRY_ASSIGN(auto row, co_await snapshot.get(current_key(bucket, key)));
  std::optional<VersionRecord> current;
  if (row) {
    CO_TRY_ASSIGN(current, decode_version_head(*row));
  }
  if (id.null) {
    CO_TRY_ASSIGN(auto pointer, co_await snapshot.get(null_pointer_key(bucket, key)));
    if (current && current->null_version) {
      resume.after = current->sequence;
    } else if (pointer) {
      CO_TRY_ASSIGN(resume.after, decode_counter(*pointer));
    } else {
      resume.after = ~Sequence{0};  // it is gone: the key is shown from its newest version on; rather twice than not
    }
  }
  if (current) {
    resume.passes_current = current->sequence >= resume.after;
    resume.latest = current->sequence;
  } else {
    meta::ScanOptions scan{.range = key_rows(RowKind::version, bucket, key), .limit = 1};
    CO_TRY_ASSIGN(auto rows, co_await snapshot.scan(std::move(scan)));
    if (!rows.empty()) {
      CO_TRY_ASSIGN(auto newest, decode_version_head(rows.front().value));
      resume.latest = newest.sequence;
    }
  }
  co_return resume;
}

}  // namespace

Task<Result<VersionListPage>> Engine::list_versions(const RequestContext& ctx, std::string bucket_name, VersionListOptions options) {
  CO_TRY_ASSIGN(auto bucket, co_await fresh_bucket(std::move(bucket_name)));
  const BucketId id = bucket->info.id;
  const size_t limit = std::min(options.limit, kListLimitMax);
  VersionListPage page;
  if (limit == 0) co_return page;
  CO_TRY_ASSIGN(auto snapshot, co_await meta().snapshot());
  RowStream current(*snapshot, prefix_rows(RowKind::current, id, options.prefix));
  RowStream noncurrent(*snapshot, prefix_rows(RowKind::version, id, options.prefix));

  // A marker inside a group passes the whole group, whatever its version says.
  const bool in_group =
      options.key_marker.starts_with(options.prefix) && !common_prefix(options.key_marker, options.prefix, options.delimiter).empty();
  std::optional<Resume> resume;
  if (!options.key_marker.empty() && !options.version_marker.empty() && !in_group) {
    CO_TRY_ASSIGN(resume, co_await find_resume(*snapshot, id, options.key_marker, options.version_marker));
    current.seek(resume->passes_current ? after_key(RowKind::current, id, resume->key) : current_key(id, resume->key));
    // Rows of the key older than the marker: the inverted sequence grows.
    noncurrent.seek(resume->after == ~Sequence{0} ? key_rows(RowKind::version, id, resume->key).begin
                                                  : meta::key_after(version_key(id, resume->key, resume->after)));
  } else if (!options.key_marker.empty()) {
    current.seek(first_row_after(RowKind::current, id, options.key_marker, options.prefix, options.delimiter));
    noncurrent.seek(first_row_after(RowKind::version, id, options.key_marker, options.prefix, options.delimiter));
  }

  std::optional<std::string> key_shown;  // the key of the previous item, whose latest version is passed
  if (resume) key_shown = resume->key;
  for (;;) {
    CO_TRY_ASSIGN(const meta::KeyValue* current_row, co_await current.peek());
    CO_TRY_ASSIGN(const meta::KeyValue* noncurrent_row, co_await noncurrent.peek());
    if (current_row == nullptr && noncurrent_row == nullptr) break;
    if (page.versions.size() + page.common_prefixes.size() >= limit) {
      page.truncated = true;
      break;
    }
    // A current row comes before the noncurrent rows of its key. Row keys differ in their first byte only, up to the key's end.
    const bool take_current = current_row != nullptr && (noncurrent_row == nullptr || std::string_view(current_row->key).substr(1) <=
                                                                                          std::string_view(noncurrent_row->key).substr(1));
    const meta::KeyValue& row = take_current ? *current_row : *noncurrent_row;
    CO_TRY_ASSIGN(auto parsed, parse_row_key(row.key));
    const std::string group(common_prefix(parsed.key, options.prefix, options.delimiter));
    if (!group.empty()) {
      page.common_prefixes.push_back(group);
      page.next_key_marker = group;
      page.next_version_marker.clear();
      current.seek(after_prefix(RowKind::current, id, group));
      noncurrent.seek(after_prefix(RowKind::version, id, group));
      continue;
    }
    auto record = decode_version_head(row.value);
    if (!record) co_return std::move(record).error().with(parsed.key);
    bool latest = take_current || key_shown != parsed.key;
    if (resume && parsed.key == resume->key) latest = record->sequence == resume->latest;
    key_shown = parsed.key;
    page.next_key_marker = parsed.key;
    // The position, also of the null version, which may be elsewhere by the time of the next page.
    page.next_version_marker = to_text(VersionId{.sequence = record->sequence, .unique = record->unique});
    page.versions.push_back(to_info(*record, std::move(parsed.key), latest));
    (take_current ? current : noncurrent).pop();
  }
  if (!page.truncated) {
    page.next_key_marker.clear();
    page.next_version_marker.clear();
  }
  co_return page;
}

}  // namespace quarry::object
