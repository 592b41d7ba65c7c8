// Hostile rows: whatever the bytes, decoding ends, with a record or with `corrupt`; what decodes encodes again to something that decodes.
#include "base/check.h"
#include "object/engine/records.h"

namespace quarry::object {
namespace {

template <class Decode>
void round(Decode decode, std::string_view bytes) {
  const auto record = decode(bytes);
  if (!record) {
    CHECK(record.error().code() == Code::corrupt || record.error().code() == Code::incompatible);
    return;
  }
  const auto again = decode(encode(*record));
  CHECK(again.has_value());
  CHECK(encode(*again) == encode(*record));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  round(decode_version, bytes);
  round(decode_bucket, bytes);
  round(decode_part, bytes);
  round(decode_upload, bytes);
  if (const auto page = decode_part_page(bytes)) CHECK(!encode_part_pages(page->unique, page->parts).empty());
  if (const auto payload = decode_inline_payload(bytes)) CHECK(encode_inline_payload(payload->unique, bytes_of(payload->bytes)) == bytes);
  if (const auto key = parse_row_key(bytes)) CHECK(key->key.size() <= size);
  static_cast<void>(decode_version_head(bytes).has_value());
  static_cast<void>(parse_part_key(bytes).has_value());
  static_cast<void>(parse_bucket_name_key(bytes).has_value());
  static_cast<void>(parse_version_id(bytes).has_value());
  return 0;
}

}  // namespace quarry::object
