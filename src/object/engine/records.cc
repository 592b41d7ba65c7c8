#include "object/engine/records.h"

#include "codec/crc32c.h"
#include "codec/digest.h"

namespace quarry::object {
namespace {

// Format bytes: record kind in the high half, its version in the low one, so that a row read as another kind is refused.
enum Format : uint8_t { kBucketV1 = 0x11, kVersionV1 = 0x21, kPartV1 = 0x31, kUploadV1 = 0x41, kInlineV1 = 0x51, kPageV1 = 0x61 };

constexpr uint8_t kFlagDeleteMarker = 1, kFlagNull = 2, kFlagsKnown = 3;
constexpr size_t kListMax = 10000;  // pairs, tags, attributes in one record: far above what a 64 KiB value holds

Result<void> expect_format(Decoder& in, uint8_t wanted, std::string_view what) {
  const uint8_t found = in.u8();
  TRY(in.check(what));
  if (found != wanted && found >> 4 == wanted >> 4) {
    return fail(Code::incompatible, "{} of version {}; this program reads {}: use a newer one", what, found & 15, wanted & 15);
  }
  if (found != wanted) return fail(Code::corrupt, "{}: format byte 0x{:02x}, not 0x{:02x}", what, found, wanted);
  return {};
}

void put_pairs(Encoder& out, const std::vector<std::pair<std::string, std::string>>& pairs) {
  out.varint(pairs.size());
  for (const auto& [name, value] : pairs) out.text(name).text(value);
}
std::vector<std::pair<std::string, std::string>> take_pairs(Decoder& in) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const uint64_t count = in.varint();
  if (count > kListMax) return in.bytes(SIZE_MAX), pairs;  // marks the input as malformed
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    std::string name(in.text());
    pairs.emplace_back(std::move(name), std::string(in.text()));
  }
  return pairs;
}

void put_checksum(Encoder& out, const Checksum& checksum) {
  out.u8(static_cast<uint8_t>(checksum.algorithm));
  if (checksum.algorithm != ChecksumAlgorithm::none) out.u8(static_cast<uint8_t>(checksum.type)).text(checksum.value);
}
Result<Checksum> take_checksum(Decoder& in) {
  Checksum checksum;
  const uint8_t algorithm = in.u8();
  if (algorithm > 10) return fail(Code::corrupt, "checksum algorithm {}", algorithm);
  checksum.algorithm = static_cast<ChecksumAlgorithm>(algorithm);
  if (checksum.algorithm == ChecksumAlgorithm::none) return checksum;
  const uint8_t type = in.u8();
  if (type > 1) return fail(Code::corrupt, "checksum type {}", type);
  checksum.type = static_cast<ChecksumType>(type);
  checksum.value = in.text(64);
  return checksum;
}

void put_metadata(Encoder& out, const ObjectMetadata& metadata) {
  out.text(metadata.content_type).text(metadata.content_encoding).text(metadata.content_disposition).text(metadata.content_language);
  out.text(metadata.cache_control).text(metadata.expires).text(metadata.website_redirect);
  put_pairs(out, metadata.user);
}
ObjectMetadata take_metadata(Decoder& in) {
  ObjectMetadata metadata;
  for (auto* field : {&metadata.content_type, &metadata.content_encoding, &metadata.content_disposition, &metadata.content_language,
                      &metadata.cache_control, &metadata.expires, &metadata.website_redirect}) {
    *field = in.text();
  }
  metadata.user = take_pairs(in);
  return metadata;
}

void put_layout(Encoder& out, std::string& buffer, const std::optional<cluster::DataLayout>& layout) {
  out.u8(layout ? 1 : 0);
  if (layout) layout->encode(buffer);
}
Result<std::optional<cluster::DataLayout>> take_layout(Decoder& in) {
  const uint8_t present = in.u8();
  if (present == 0) return std::optional<cluster::DataLayout>();
  if (present != 1) return fail(Code::corrupt, "layout flag {}", present);
  TRY_ASSIGN(auto layout, cluster::DataLayout::decode(in));
  return std::optional<cluster::DataLayout>(std::move(layout));
}

void put_part(std::string& buffer, const PartRecord& part) {
  Encoder out(buffer);
  out.varint(part.number).u64(part.unique).varint(part.size).u64(static_cast<uint64_t>(part.modified)).text(part.md5);
  put_checksum(out, part.checksum);
  put_layout(out, buffer, part.layout);
}
Result<PartRecord> take_part(Decoder& in) {
  PartRecord part;
  const uint64_t number = in.varint();
  part.unique = in.u64();
  part.size = in.varint();
  part.modified = static_cast<WallTime>(in.u64());
  part.md5 = in.text(16);
  TRY_ASSIGN(part.checksum, take_checksum(in));
  TRY_ASSIGN(part.layout, take_layout(in));
  TRY(in.check("part"));
  if (number == 0 || number > kPartNumberMax) return fail(Code::corrupt, "part number {}", number);
  part.number = static_cast<uint32_t>(number);
  if (part.md5.size() != 16) return fail(Code::corrupt, "part {}: MD5 of {} bytes", number, part.md5.size());
  if (part.layout && part.layout->size != part.size) return fail(Code::corrupt, "part {}: its layout has another size", number);
  return part;
}

Result<VersionRecord> take_version_head(Decoder& in) {
  TRY(expect_format(in, kVersionV1, "version record"));
  VersionRecord record;
  const uint8_t flags = in.u8();
  const uint8_t payload = in.u8();
  record.sequence = in.u64();
  record.unique = in.u64();
  record.size = in.varint();
  record.modified = static_cast<WallTime>(in.u64());
  record.md5 = in.text(16);
  const uint64_t part_count = in.varint();
  TRY_ASSIGN(record.checksum, take_checksum(in));
  record.owner = in.text();
  record.storage_class = in.text();
  TRY(in.check("version record"));
  if ((flags & ~kFlagsKnown) != 0) return fail(Code::corrupt, "version record: flags 0x{:02x}", flags);
  if (payload > 3) return fail(Code::corrupt, "version record: payload kind {}", payload);
  if (part_count > kPartNumberMax) return fail(Code::corrupt, "version record: {} parts", part_count);
  if (record.sequence == 0) return fail(Code::corrupt, "version record: sequence 0");
  record.delete_marker = (flags & kFlagDeleteMarker) != 0;
  record.null_version = (flags & kFlagNull) != 0;
  record.payload = static_cast<PayloadKind>(payload);
  record.part_count = static_cast<uint32_t>(part_count);
  if (record.delete_marker && (record.payload != PayloadKind::none || record.size != 0)) {
    return fail(Code::corrupt, "version record: a delete marker with bytes");
  }
  if (!record.delete_marker && record.md5.size() != 16) return fail(Code::corrupt, "version record: MD5 of {} bytes", record.md5.size());
  if (record.payload == PayloadKind::none && record.size != 0) return fail(Code::corrupt, "version record: bytes without a place");
  return record;
}

}  // namespace

std::string VersionRecord::etag() const {
  std::string text = to_hex(bytes_of(md5));
  if (part_count > 0) text += fmt::format("-{}", part_count);
  return text;
}

std::string encode(const BucketRecord& record) {
  std::string buffer;
  Encoder out(buffer);
  const BucketInfo& info = record.info;
  out.u8(kBucketV1).u64(info.id).u64(record.unique).text(info.name).text(info.owner).u64(static_cast<uint64_t>(info.created));
  out.u8(static_cast<uint8_t>(info.versioning));
  out.text(info.policy.redundancy).u32(info.policy.inline_limit).u32(info.policy.pack_limit);
  out.u64(info.quota.bytes).u64(info.quota.objects);
  put_pairs(out, info.tags);
  out.varint(info.attributes.size());
  for (const auto& [name, value] : info.attributes) out.text(name).text(value);
  return buffer;
}

Result<BucketRecord> decode_bucket(std::string_view value) {
  Decoder in(value);
  TRY(expect_format(in, kBucketV1, "bucket record"));
  BucketRecord record;
  BucketInfo& info = record.info;
  info.id = in.u64();
  record.unique = in.u64();
  info.name = in.text();
  info.owner = in.text();
  info.created = static_cast<WallTime>(in.u64());
  const uint8_t versioning = in.u8();
  info.policy.redundancy = in.text();
  info.policy.inline_limit = in.u32();
  info.policy.pack_limit = in.u32();
  info.quota.bytes = in.u64();
  info.quota.objects = in.u64();
  info.tags = take_pairs(in);
  for (auto& [name, text] : take_pairs(in)) info.attributes.emplace(std::move(name), std::move(text));
  TRY(in.finish("bucket record"));
  if (versioning > 2) return fail(Code::corrupt, "bucket record: versioning {}", versioning);
  info.versioning = static_cast<Versioning>(versioning);
  return record;
}

std::string encode(const VersionRecord& record) {
  std::string buffer;
  buffer.reserve(192);
  Encoder out(buffer);
  const uint8_t flags = (record.delete_marker ? kFlagDeleteMarker : 0) | (record.null_version ? kFlagNull : 0);
  out.u8(kVersionV1).u8(flags).u8(static_cast<uint8_t>(record.payload)).u64(record.sequence).u64(record.unique);
  out.varint(record.size).u64(static_cast<uint64_t>(record.modified)).text(record.md5).varint(record.part_count);
  put_checksum(out, record.checksum);
  out.text(record.owner).text(record.storage_class);
  put_metadata(out, record.metadata);
  put_pairs(out, record.tags);
  put_layout(out, buffer, record.layout);
  out.varint(record.page_count).text(record.upload_id);
  return buffer;
}

Result<VersionRecord> decode_version_head(std::string_view value) {
  Decoder in(value);
  TRY_ASSIGN(auto record, take_version_head(in));
  return record;
}

Result<VersionRecord> decode_version(std::string_view value) {
  Decoder in(value);
  TRY_ASSIGN(auto record, take_version_head(in));
  record.metadata = take_metadata(in);
  record.metadata.storage_class = record.storage_class;
  record.tags = take_pairs(in);
  TRY_ASSIGN(record.layout, take_layout(in));
  const uint64_t pages = in.varint();
  record.upload_id = in.text(kUploadIdBytes);
  TRY(in.finish("version record"));
  if (pages > kPartNumberMax) return fail(Code::corrupt, "version record: {} pages", pages);
  record.page_count = static_cast<uint32_t>(pages);
  if (record.payload == PayloadKind::data ? !record.layout : record.payload != PayloadKind::parts && record.layout)
    return fail(Code::corrupt, "version record: payload and layout disagree");
  if (record.layout && record.layout->size != record.size) return fail(Code::corrupt, "version record: its layout has another size");
  if ((record.payload == PayloadKind::parts) != (pages > 0)) return fail(Code::corrupt, "version record: payload and pages disagree");
  return record;
}

std::string encode(const PartRecord& record) {
  std::string buffer;
  Encoder(buffer).u8(kPartV1);
  put_part(buffer, record);
  return buffer;
}

Result<PartRecord> decode_part(std::string_view value) {
  Decoder in(value);
  TRY(expect_format(in, kPartV1, "part record"));
  TRY_ASSIGN(auto part, take_part(in));
  TRY(in.finish("part record"));
  if (part.size > 0 && !part.layout) return fail(Code::corrupt, "part {}: bytes without a place", part.number);
  return part;
}

std::string encode(const UploadRecord& record) {
  std::string buffer;
  Encoder out(buffer);
  out.u8(kUploadV1).u64(static_cast<uint64_t>(record.initiated)).text(record.owner).u8(static_cast<uint8_t>(record.algorithm));
  out.u8(static_cast<uint8_t>(record.checksum_type)).text(record.storage_class);
  put_metadata(out, record.metadata);
  put_pairs(out, record.tags);
  return buffer;
}

Result<UploadRecord> decode_upload(std::string_view value) {
  Decoder in(value);
  TRY(expect_format(in, kUploadV1, "upload record"));
  UploadRecord record;
  record.initiated = static_cast<WallTime>(in.u64());
  record.owner = in.text();
  const uint8_t algorithm = in.u8();
  const uint8_t type = in.u8();
  record.storage_class = in.text();
  record.metadata = take_metadata(in);
  record.metadata.storage_class = record.storage_class;
  record.tags = take_pairs(in);
  TRY(in.finish("upload record"));
  if (algorithm > kChecksumKindLast || type > 1) return fail(Code::corrupt, "upload record: checksum {} of type {}", algorithm, type);
  record.algorithm = static_cast<ChecksumAlgorithm>(algorithm);
  record.checksum_type = static_cast<ChecksumType>(type);
  return record;
}

std::string encode_inline_payload(uint64_t unique, ByteView bytes) {
  std::string buffer;
  buffer.reserve(bytes.size() + 13);
  Encoder(buffer).u8(kInlineV1).u64(unique).u32(crc32c(0, bytes)).bytes(bytes);
  return buffer;
}

Result<InlinePayload> decode_inline_payload(std::string_view value) {
  Decoder in(value);
  TRY(expect_format(in, kInlineV1, "payload row"));
  InlinePayload payload;
  payload.unique = in.u64();
  const uint32_t crc = in.u32();
  TRY(in.check("payload row"));
  if (crc32c(0, in.rest()) != crc) return fail(Code::corrupt, "payload row fails its checksum");
  payload.bytes = text_of(in.rest());
  return payload;
}

std::vector<std::string> encode_part_pages(uint64_t unique, const std::vector<PartRecord>& parts) {
  std::vector<std::string> pages;
  size_t next = 0;
  while (next < parts.size()) {
    std::string body;
    size_t count = 0;
    for (; next < parts.size() && body.size() < kPartPageBytes; ++next, ++count) put_part(body, parts[next]);
    std::string page;
    page.reserve(body.size() + 16);
    Encoder(page).u8(kPageV1).u64(unique).varint(count).bytes(bytes_of(body));
    pages.push_back(std::move(page));
  }
  return pages;
}

Result<PartPage> decode_part_page(std::string_view value) {
  Decoder in(value);
  TRY(expect_format(in, kPageV1, "part page"));
  PartPage page;
  page.unique = in.u64();
  const uint64_t count = in.varint();
  TRY(in.check("part page"));
  if (count == 0 || count > kPartNumberMax) return fail(Code::corrupt, "part page of {} parts", count);
  for (uint64_t i = 0; i < count; ++i) {
    TRY_ASSIGN(auto part, take_part(in));
    page.parts.push_back(std::move(part));
  }
  TRY(in.finish("part page"));
  return page;
}

std::string encode_counter(uint64_t value) {
  std::string buffer;
  Encoder(buffer).u64(value);
  return buffer;
}

Result<uint64_t> decode_counter(std::string_view value) {
  Decoder in(value);
  const uint64_t number = in.u64();
  TRY(in.finish("counter"));
  return number;
}

}  // namespace quarry::object
