// complete_upload: one transaction turns the parts of an upload into a version. No byte moves: the version's part list takes over
// the layouts, whose data rows stay as they are; parts left out are retired.
#include "object/engine/publish.h"
#include "object/engine/uploads.h"

namespace quarry::object {
namespace {

std::string parts_md5(const std::vector<PartRecord>& parts) {
  std::string all;
  for (const auto& part : parts) all += part.md5;
  const auto digest = md5(bytes_of(all));
  return std::string(text_of(digest));
}

Result<Checksum> parts_checksum(const UploadRecord& upload, const std::vector<PartRecord>& parts) {
  Checksum result{.algorithm = upload.algorithm, .type = upload.checksum_type};
  if (upload.algorithm == ChecksumAlgorithm::none) {
    // An upload that names no algorithm has the object's default, where all its parts have been kept with it.
    const auto has_default = [](const PartRecord& part) { return part.checksum.algorithm == ChecksumAlgorithm::crc64nvme; };
    if (!std::all_of(parts.begin(), parts.end(), has_default)) return result;
    result.algorithm = ChecksumAlgorithm::crc64nvme;
    result.type = ChecksumType::full_object;
  }
  const auto kind = static_cast<ChecksumKind>(result.algorithm);
  if (result.type == ChecksumType::composite) {
    S3Checksum composite(kind);
    for (const auto& part : parts) composite.update(bytes_of(part.checksum.value));
    result.value = text_of(composite.finish().view());
    return result;
  }
  result.value = parts.front().checksum.value;
  for (size_t i = 1; i < parts.size(); ++i) {
    TRY_ASSIGN(const auto combined, combine_checksums(kind, bytes_of(result.value), bytes_of(parts[i].checksum.value), parts[i].size));
    result.value = text_of(combined.view());
  }
  return result;
}

class CompleteUpload : public PublishVersion {
 public:
  CompleteUpload(std::string key, UploadId upload_id, VersionRecord record, CompleteOptions options, uint64_t part_size_min)
      : PublishVersion(std::move(key), std::move(record), options.conditions),
        upload_id_(std::move(upload_id)),
        options_(std::move(options)),
        part_size_min_(part_size_min) {}

  // The parts are in one write already: they become ranges of it.
  void set_whole(cluster::DataLayout layout, std::vector<uint64_t> uniques) {
    whole_ = layout;
    merged_ = std::move(uniques);
  }

 protected:
  Task<Result<void>> prepare(ChangeContext& context) override {
    CO_TRY_ASSIGN(auto row, co_await context.transaction.get(upload_key(context.bucket.id, key_, upload_id_)));
    if (!row) co_return fail(Code::not_found, "upload '{}'", upload_id_text(upload_id_));
    CO_TRY_ASSIGN(auto upload, decode_upload(*row));
    CO_TRY_ASSIGN(auto present, co_await scan_parts(context.transaction, upload_id_));
    chosen_.clear();
    left_out_.clear();
    present_bytes_ = 0;
    for (const auto& part : present) present_bytes_ += part.size;
    CO_TRY(choose(std::move(present)));

    if (whole_) {
      std::vector<uint64_t> uniques;
      for (const auto& part : chosen_) uniques.push_back(part.unique);
      if (uniques != merged_)
        co_return fail(Code::busy, "upload '{}': its parts changed while it was completed; try again", upload_id_text(upload_id_));
    }
    uint64_t size = 0;
    for (const auto& part : chosen_) size += part.size;
    if (size > kObjectSizeMax) co_return fail(Code::too_large, "object of {} bytes, at most {} are possible", size, kObjectSizeMax);
    if (options_.expected_size && *options_.expected_size != size) {
      co_return fail(Code::invalid_argument, "size: the parts have {} bytes, {} were expected", size, *options_.expected_size);
    }
    CO_TRY_ASSIGN(auto checksum, parts_checksum(upload, chosen_));
    if (!options_.expected_checksum.empty() && options_.expected_checksum != checksum.value) {
      co_return fail(Code::checksum_mismatch, "checksum of the whole object: {} was sent, the parts give {}",
                     to_base64(bytes_of(options_.expected_checksum)), to_base64(bytes_of(checksum.value)));
    }
    // A default that nobody asked for is the whole object's only: its parts keep none.
    if (upload.algorithm == ChecksumAlgorithm::none) {
      for (auto& part : chosen_) part.checksum = {};
    }
    record_.payload = PayloadKind::parts;
    record_.size = size;
    record_.md5 = parts_md5(chosen_);
    record_.part_count = static_cast<uint32_t>(chosen_.size());
    record_.checksum = std::move(checksum);
    record_.owner = std::move(upload.owner);
    record_.storage_class = std::move(upload.storage_class);
    record_.metadata = std::move(upload.metadata);
    record_.tags = std::move(upload.tags);
    record_.upload_id = upload_id_;
    co_return Result<void>();
  }

  Task<Result<void>> write_payload(ChangeContext& context, KeyRows& rows) override {
    if (whole_) {
      record_.layout = whole_;
      context.data.record(context.transaction, *whole_, layout_owner(context.bucket.id, key_, record_.unique));
      for (auto& part : chosen_) {
        if (part.layout) context.data.retire(context.transaction, *part.layout);
        part.layout.reset();
      }
      context.usage.retired = true;
    }
    rows.put_part_list(record_, chosen_);
    for (const auto& part : left_out_) {
      if (part.layout) context.data.retire(context.transaction, *part.layout);
    }
    context.transaction.remove_range(part_rows(upload_id_));
    context.transaction.remove(upload_key(context.bucket.id, key_, upload_id_));
    context.usage.bytes -= static_cast<int64_t>(present_bytes_);
    if (!left_out_.empty()) context.usage.retired = true;
    co_return Result<void>();
  }

 private:
  // Matches what the client lists with what is there.
  Result<void> choose(std::vector<PartRecord> present) {
    if (options_.parts.empty()) return fail(Code::invalid_argument, "parts: none is listed");
    size_t next = 0;
    uint32_t previous = 0;
    for (const CompletedPart& wanted : options_.parts) {
      if (wanted.number <= previous) return fail(Code::invalid_argument, "order: part {} after part {}", wanted.number, previous);
      previous = wanted.number;
      for (; next < present.size() && present[next].number < wanted.number; ++next) left_out_.push_back(std::move(present[next]));
      if (next == present.size() || present[next].number != wanted.number)
        return fail(Code::invalid_argument, "part {}: missing", wanted.number);
      PartRecord& part = present[next++];
      if (to_hex(bytes_of(part.md5)) != wanted.etag) return fail(Code::invalid_argument, "part {}: etag", wanted.number);
      if (!wanted.checksum.empty() && wanted.checksum != part.checksum.value)
        return fail(Code::invalid_argument, "part {}: checksum", wanted.number);
      if (!chosen_.empty() && chosen_.back().size < part_size_min_) {
        return fail(Code::invalid_argument, "too small: part {} has {} bytes", chosen_.back().number, chosen_.back().size);
      }
      chosen_.push_back(std::move(part));
    }
    for (; next < present.size(); ++next) left_out_.push_back(std::move(present[next]));
    return {};
  }

  const UploadId upload_id_;
  const CompleteOptions options_;
  const uint64_t part_size_min_;
  std::vector<PartRecord> chosen_, left_out_;
  uint64_t present_bytes_ = 0;
  std::optional<cluster::DataLayout> whole_;
  std::vector<uint64_t> merged_;
};

// The parts of an upload, written again as one write, so that the object is one file. Not all are there: no writer, and the transaction
// says why.
struct Merged {
  std::unique_ptr<cluster::DataWriter> writer;
  cluster::DataLayout layout;
  std::vector<uint64_t> uniques;
};

Task<Result<Merged>> merge_parts(Engine& engine, BucketRef bucket, std::string key, UploadId upload, std::vector<CompletedPart> wanted) {
  constexpr size_t kPiece = 1 << 20;
  auto guard = engine.data().guard_reads();
  Merged merged;
  std::vector<PartRecord> parts;
  uint64_t size = 0;
  for (const CompletedPart& each : wanted) {
    CO_TRY_ASSIGN(auto row, co_await engine.meta().get(part_key(upload, each.number)));
    if (!row) co_return merged;
    CO_TRY_ASSIGN(auto part, decode_part(*row));
    if (to_hex(bytes_of(part.md5)) != each.etag) co_return merged;
    size += part.size;
    parts.push_back(std::move(part));
  }
  if (parts.empty() || size == 0) co_return merged;
  if (guard != nullptr) {  // copying may take hours
    std::vector<cluster::WriteId> writes;
    for (const PartRecord& part : parts) {
      if (part.layout) writes.push_back(part.layout->write_id);
    }
    guard->narrow(std::move(writes));
  }
  CO_TRY_ASSIGN(auto redundancy, engine.redundancy_of(bucket->info.policy));
  if (!redundancy.has_copies()) co_return merged;
  cluster::WriteOptions options{
      .redundancy = redundancy, .size_hint = size, .file = {.directory = bucket->info.name, .name = std::move(key)}};
  CO_TRY_ASSIGN(merged.writer, engine.data().begin_write(options));
  for (const PartRecord& part : parts) {
    merged.uniques.push_back(part.unique);
    if (!part.layout) continue;
    auto reader = engine.data().read(*part.layout, 0, part.size, cluster::CachePolicy::bypass);
    for (;;) {
      CO_TRY_ASSIGN(auto piece, co_await reader->next(kPiece));
      if (piece.empty()) break;
      CO_TRY(co_await merged.writer->append(Buffer::copy_of(piece.view())));
    }
  }
  CO_TRY_ASSIGN(merged.layout, co_await merged.writer->finish());
  if (merged.layout.size != size)
    co_return fail(Code::internal, "upload of '{}': {} bytes were merged to {}", bucket->info.name, size, merged.layout.size);
  co_return merged;
}

// The ETag that completing with these parts gives; empty if it cannot be told.
std::string etag_of(const std::vector<CompletedPart>& parts) {
  std::string all;
  for (const auto& part : parts) {
    const auto raw = from_hex(part.etag);
    if (!raw || raw->size() != 16) return {};
    all += *raw;
  }
  return fmt::format("{}-{}", to_hex(md5(bytes_of(all))), parts.size());
}

}  // namespace

Task<Result<ObjectInfo>> Engine::complete_upload(const RequestContext& ctx, std::string bucket, std::string key, std::string upload_id,
                                                 CompleteOptions options) {
  const RequestContext context = ctx;
  CO_TRY(co_await fresh_bucket(bucket));
  CO_TRY_ASSIGN(auto id, parse_upload_id(upload_id));
  const std::string expected_etag = etag_of(options.parts);
  Merged merged;
  if (data().files().on_all_drives()) {
    CO_TRY_ASSIGN(auto owner, co_await fresh_bucket(bucket));
    CO_TRY_ASSIGN(merged, co_await merge_parts(*this, std::move(owner), key, id, options.parts));
  }
  VersionRecord record;
  record.unique = random();
  record.modified = wall_now();
  CompleteUpload change(key, id, std::move(record), std::move(options), part_size_min());
  if (merged.writer) change.set_whole(merged.layout, merged.uniques);
  auto done = co_await run_change(context, bucket, 0, key, change);
  if (merged.writer && done) merged.writer->keep();
  if (merged.writer && !done && done.error().code() == Code::unknown_outcome) merged.writer->settle();
  if (done) {
    CO_TRY_ASSIGN(auto owner, co_await open_bucket(bucket));
    co_await settle_name(owner->info.id, key, change.former());
    co_return to_info(change.record(), std::move(key), true);
  }
  // Completing again, as a client does that lost the answer, finds the object made the first time, while it is the current one.
  if (done.error().code() == Code::not_found || done.error().code() == Code::precondition_failed) {
    CO_TRY_ASSIGN(auto found, co_await fresh_bucket(bucket));
    CO_TRY_ASSIGN(auto row, co_await meta().get(current_key(found->info.id, key)));
    if (row) {
      CO_TRY_ASSIGN(auto current, decode_version(*row));
      if (current.upload_id == id && current.etag() == expected_etag) co_return to_info(current, std::move(key), true);
    }
  }
  co_return std::move(done).error();
}

}  // namespace quarry::object
