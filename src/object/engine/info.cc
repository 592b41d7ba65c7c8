// From records to what callers see, and checks of what they send.
#include "object/engine/engine.h"

namespace quarry::object {

ObjectInfo to_info(VersionRecord&& record, std::string key, bool is_latest) {
  ObjectInfo info;
  info.key = std::move(key);
  info.version_id = to_text(record.version_id());
  info.is_latest = is_latest;
  info.delete_marker = record.delete_marker;
  info.size = record.size;
  if (!record.delete_marker) info.etag = record.etag();
  info.modified = record.modified;
  info.metadata = std::move(record.metadata);
  info.metadata.storage_class = std::move(record.storage_class);
  info.checksum = std::move(record.checksum);
  info.tags = std::move(record.tags);
  info.owner = std::move(record.owner);
  return info;
}

ObjectInfo to_info(const VersionRecord& record, std::string key, bool is_latest) {
  return to_info(VersionRecord(record), std::move(key), is_latest);
}

PartInfo to_info(const PartRecord& record) {
  return {.number = record.number,
          .size = record.size,
          .etag = to_hex(bytes_of(record.md5)),
          .checksum = record.checksum,
          .modified = record.modified};
}

Result<void> check_object_key(std::string_view key) {
  if (key.empty()) return fail(Code::invalid_argument, "key: is empty");
  if (key.size() > kObjectKeyMax) return fail(Code::too_large, "key: {} bytes, at most {} are possible", key.size(), kObjectKeyMax);
  if (!row_keys_fit(key)) return fail(Code::too_large, "key: holds too many NUL bytes (each takes two)");
  return {};
}

Result<void> check_put_options(const PutOptions& options) {
  size_t user = 0;
  for (const auto& [name, value] : options.metadata.user) user += name.size() + value.size();
  if (user > kUserMetadataMax) return fail(Code::too_large, "user metadata: {} bytes, at most {} are possible", user, kUserMetadataMax);
  const ObjectMetadata& m = options.metadata;
  size_t headers = options.owner.size();
  for (const auto* field : {&m.content_type, &m.content_encoding, &m.content_disposition, &m.content_language, &m.cache_control, &m.expires,
                            &m.website_redirect, &m.storage_class}) {
    headers += field->size();
  }
  for (const auto& [name, value] : options.tags) headers += name.size() + value.size();
  if (headers > kHeadersMax) return fail(Code::too_large, "headers and tags: {} bytes, at most {} are possible", headers, kHeadersMax);
  if (options.size && *options.size > kObjectSizeMax)
    return fail(Code::too_large, "object of {} bytes, at most {} are possible", *options.size, kObjectSizeMax);
  return {};
}

}  // namespace quarry::object
