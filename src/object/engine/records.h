// Values of the object engine's rows. Page: docs/formats/object-records.md, section 2. Each begins with a format byte; decoding
// takes any bytes and answers `corrupt` for those that are no record, `incompatible` for those of a newer version.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cluster/map/data_layout.h"
#include "object/engine/keys.h"
#include "object/engine/version_id.h"
#include "object/object_engine.h"

namespace quarry::object {

struct BucketRecord {
  BucketInfo info;
  uint64_t unique = 0;  // random, chosen by the creator: tells its own row from another's of the same name
};

// Where the bytes of a version are. Frozen numbers.
enum class PayloadKind : uint8_t {
  none = 0,     // no bytes: size 0, or a delete marker
  inlined = 1,  // in the payload row, page 0
  data = 2,     // in the data plane, one layout
  parts = 3,    // in the data plane, a layout a part, or one for all (the parts are ranges of it); the list is in the payload rows
};

struct VersionRecord {
  // What listings show.
  Sequence sequence = 0;
  uint64_t unique = 0;  // random, chosen by the writer before the first try: who finds it knows that the write happened
  bool delete_marker = false;
  bool null_version = false;
  PayloadKind payload = PayloadKind::none;
  uint64_t size = 0;
  WallTime modified = 0;
  std::string md5;          // 16 raw bytes, or none; multipart: of the parts' digests
  uint32_t part_count = 0;  // 0: not multipart
  Checksum checksum;
  std::string owner;
  std::string storage_class;
  // The rest.
  ObjectMetadata metadata;  // but storage_class
  Tags tags;
  std::optional<cluster::DataLayout>
      layout;               // PayloadKind::data; PayloadKind::parts: of all of them together, where objects are whole files
  uint32_t page_count = 0;  // PayloadKind::parts
  UploadId upload_id;       // of multipart objects: completing again finds its work done

  PayloadSlot slot() const { return payload_slot(null_version, sequence); }
  VersionId version_id() const { return {.null = null_version, .sequence = sequence, .unique = unique}; }
  std::string etag() const;  // hex MD5, or hex-N
};

struct PartRecord {
  uint32_t number = 0;
  uint64_t unique = 0;
  uint64_t size = 0;
  WallTime modified = 0;
  std::string md5;  // 16 raw bytes
  Checksum checksum;
  std::optional<cluster::DataLayout> layout;  // none: an empty part
};

struct UploadRecord {
  WallTime initiated = 0;
  std::string owner;
  ChecksumAlgorithm algorithm = ChecksumAlgorithm::none;
  ChecksumType checksum_type = ChecksumType::full_object;
  std::string storage_class;
  ObjectMetadata metadata;
  Tags tags;
};

// One page of a multipart object's part list.
struct PartPage {
  uint64_t unique = 0;  // of the version it belongs to
  std::vector<PartRecord> parts;
};
// Parts of a page are taken until it holds about so many bytes; below the store's limit for values with room to spare.
inline constexpr size_t kPartPageBytes = 48 * 1024;

struct InlinePayload {
  uint64_t unique = 0;     // of the version it belongs to
  std::string_view bytes;  // inside the decoded row
};

std::string encode(const BucketRecord& record);
std::string encode(const VersionRecord& record);
std::string encode(const PartRecord& record);
std::string encode(const UploadRecord& record);
std::string encode_inline_payload(uint64_t unique, ByteView bytes);
// Cuts a part list into pages.
std::vector<std::string> encode_part_pages(uint64_t unique, const std::vector<PartRecord>& parts);
std::string encode_counter(uint64_t value);  // 8 bytes, little-endian: also last bucket id and null pointer

Result<BucketRecord> decode_bucket(std::string_view value);
Result<VersionRecord> decode_version(std::string_view value);
// Only what listings show: cheaper by half.
Result<VersionRecord> decode_version_head(std::string_view value);
Result<PartRecord> decode_part(std::string_view value);
Result<UploadRecord> decode_upload(std::string_view value);
Result<InlinePayload> decode_inline_payload(std::string_view value);  // checks its CRC
Result<PartPage> decode_part_page(std::string_view value);
Result<uint64_t> decode_counter(std::string_view value);

}  // namespace quarry::object
