#include "object/engine/key_rows.h"

namespace quarry::object {

Task<Result<std::vector<PartRecord>>> read_part_list(RowReader get, BucketId bucket, std::string key, VersionRecord version) {
  std::vector<PartRecord> parts;
  for (uint32_t page = 0; page < version.page_count; ++page) {
    CO_TRY_ASSIGN(auto row, co_await get(payload_key(bucket, key, version.slot(), page)));
    if (!row) co_return fail(Code::corrupt, "key '{}': page {} of its part list is missing", key, page);
    CO_TRY_ASSIGN(auto decoded, decode_part_page(*row));
    if (decoded.unique != version.unique) co_return fail(Code::corrupt, "key '{}': page {} belongs to another version", key, page);
    for (auto& part : decoded.parts) parts.push_back(std::move(part));
  }
  uint64_t total = 0;
  for (const auto& part : parts) {
    total += part.size;
    if (part.layout.has_value() != (!version.layout && part.size > 0))
      co_return fail(Code::corrupt, "key '{}': part {} and the whole disagree about their place", key, part.number);
  }
  if (parts.size() != version.part_count || total != version.size) {
    co_return fail(Code::corrupt, "key '{}': its part list has {} parts of {} bytes, not {} of {}", key, parts.size(), total,
                   version.part_count, version.size);
  }
  co_return parts;
}

Task<Result<void>> KeyRows::load() {
  CO_TRY_ASSIGN(auto row, co_await transaction_.get(current_key(bucket_, key_)));
  current_.reset();
  seen_.clear();
  if (!row) co_return Result<void>();
  auto record = decode_version(*row);
  if (!record) co_return std::move(record).error().with(key_);
  if (record->delete_marker) co_return fail(Code::corrupt, "key '{}': a delete marker is its current row", key_);
  seen_ = std::move(*row);
  current_ = std::move(*record);
  co_return Result<void>();
}

Task<Result<std::optional<VersionRecord>>> KeyRows::newest_noncurrent() {
  meta::ScanOptions scan{.range = key_rows(RowKind::version, bucket_, key_), .limit = 1};
  CO_TRY_ASSIGN(auto rows, co_await transaction_.scan(std::move(scan)));
  if (rows.empty()) co_return std::optional<VersionRecord>();
  auto record = decode_version(rows.front().value);
  if (!record) co_return std::move(record).error().with(key_);
  if (!current_) seen_ = std::move(rows.front().value);
  co_return std::optional<VersionRecord>(std::move(*record));
}

Task<Result<std::optional<VersionRecord>>> KeyRows::noncurrent(Sequence sequence) {
  CO_TRY_ASSIGN(auto row, co_await transaction_.get(version_key(bucket_, key_, sequence)));
  if (!row) co_return std::optional<VersionRecord>();
  auto record = decode_version(*row);
  if (!record) co_return std::move(record).error().with(key_);
  co_return std::optional<VersionRecord>(std::move(*record));
}

Task<Result<std::optional<VersionRecord>>> KeyRows::find(VersionId id) {
  if (current_ && (id.null ? current_->null_version : current_->version_id() == id)) co_return std::optional<VersionRecord>(current_);
  Sequence sequence = id.sequence;
  if (id.null) {
    CO_TRY_ASSIGN(auto pointer, co_await transaction_.get(null_pointer_key(bucket_, key_)));
    if (!pointer) co_return std::optional<VersionRecord>();
    CO_TRY_ASSIGN(sequence, decode_counter(*pointer));
  }
  CO_TRY_ASSIGN(auto record, co_await noncurrent(sequence));
  if (id.null && (!record || !record->null_version))
    co_return fail(Code::corrupt, "key '{}': its null pointer names no null version", key_);
  if (record && !id.null && record->version_id() != id) co_return std::optional<VersionRecord>();
  co_return record;
}

Task<Result<Sequence>> KeyRows::next_sequence(Sequence now, bool versioned) {
  if (current_) co_return std::max(now, current_->sequence + 1);
  if (!versioned) co_return now;
  CO_TRY_ASSIGN(auto newest, co_await newest_noncurrent());
  co_return newest ? std::max(now, newest->sequence + 1) : now;
}

void KeyRows::set_current(VersionRecord record) {
  transaction_.put(current_key(bucket_, key_), encode(record));
  current_ = std::move(record);
}

void KeyRows::put_inline_payload(const VersionRecord& record, ByteView bytes) {
  transaction_.put(payload_key(bucket_, key_, record.slot(), 0), encode_inline_payload(record.unique, bytes));
}

void KeyRows::put_part_list(VersionRecord& record, const std::vector<PartRecord>& parts) {
  auto pages = encode_part_pages(record.unique, parts);
  record.page_count = static_cast<uint32_t>(pages.size());
  for (uint32_t page = 0; page < pages.size(); ++page) {
    transaction_.put(payload_key(bucket_, key_, record.slot(), page), std::move(pages[page]));
  }
}

void KeyRows::count(const VersionRecord& record) {
  if (record.delete_marker) return;
  usage_.objects += 1;
  usage_.bytes += static_cast<int64_t>(record.size);
}

void KeyRows::demote_current() {
  if (!current_) return;
  transaction_.remove(current_key(bucket_, key_));
  transaction_.put(version_key(bucket_, key_, current_->sequence), encode(*current_));
  if (current_->null_version) transaction_.put(null_pointer_key(bucket_, key_), encode_counter(current_->sequence));
  current_.reset();
}

Task<Result<void>> KeyRows::discard_payload(VersionRecord record) {
  if (record.delete_marker) co_return Result<void>();
  switch (record.payload) {
    case PayloadKind::none: break;
    case PayloadKind::inlined: transaction_.remove(payload_key(bucket_, key_, record.slot(), 0)); break;
    case PayloadKind::data:
      data_.retire(transaction_, *record.layout);
      usage_.retired = true;
      break;
    case PayloadKind::parts: {
      // The pages change only together with the version's row, which is a conflict already.
      meta::Transaction* transaction = &transaction_;
      RowReader get = [transaction](std::string row) { return transaction->get_unchecked(std::move(row)); };
      CO_TRY_ASSIGN(auto parts, co_await read_part_list(std::move(get), bucket_, key_, record));
      for (const auto& part : parts) {
        if (part.layout) data_.retire(transaction_, *part.layout);
      }
      if (record.layout) data_.retire(transaction_, *record.layout);
      usage_.retired = true;
      for (uint32_t page = 0; page < record.page_count; ++page) transaction_.remove(payload_key(bucket_, key_, record.slot(), page));
      break;
    }
  }
  usage_.objects -= 1;
  usage_.bytes -= static_cast<int64_t>(record.size);
  co_return Result<void>();
}

Task<Result<void>> KeyRows::discard_current() {
  if (!current_) co_return Result<void>();
  CO_TRY(co_await discard_payload(*current_));
  transaction_.remove(current_key(bucket_, key_));
  current_.reset();
  co_return Result<void>();
}

void KeyRows::add_marker(const VersionRecord& marker) {
  CHECK(!current_ && marker.delete_marker);
  transaction_.put(version_key(bucket_, key_, marker.sequence), encode(marker));
  if (marker.null_version) transaction_.put(null_pointer_key(bucket_, key_), encode_counter(marker.sequence));
}

Task<Result<void>> KeyRows::discard_noncurrent(VersionRecord record) {
  CO_TRY(co_await discard_payload(record));
  transaction_.remove(version_key(bucket_, key_, record.sequence));
  if (record.null_version) transaction_.remove(null_pointer_key(bucket_, key_));
  co_return Result<void>();
}

Task<Result<void>> KeyRows::discard_null() {
  CO_TRY_ASSIGN(auto record, co_await find(VersionId{.null = true}));
  if (!record) co_return Result<void>();
  Result<void> done;
  if (current_ && current_->null_version) {
    done = co_await discard_current();
  } else {
    done = co_await discard_noncurrent(std::move(*record));
  }
  co_return done;
}

void KeyRows::rewrite_noncurrent(const VersionRecord& record) {
  transaction_.put(version_key(bucket_, key_, record.sequence), encode(record));
}

Task<Result<void>> KeyRows::promote() {
  if (current_) co_return Result<void>();
  CO_TRY_ASSIGN(auto newest, co_await newest_noncurrent());
  if (!newest || newest->delete_marker) co_return Result<void>();
  transaction_.remove(version_key(bucket_, key_, newest->sequence));
  if (newest->null_version) transaction_.remove(null_pointer_key(bucket_, key_));
  set_current(std::move(*newest));
  co_return Result<void>();
}

}  // namespace quarry::object
