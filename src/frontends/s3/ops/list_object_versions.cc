#include "frontends/s3/listing.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"

namespace quarry::frontends::s3 {

Task<S3Result<void>> list_object_versions(Request& request) {
  if (request.query_or("max-keys").starts_with('-'))
    co_return invalid_argument("max-keys cannot be negative", "maxKeys", request.query_or("max-keys"));
  CO_TRY_ASSIGN(const size_t limit, parse_limit(request, "max-keys"));
  CO_TRY_ASSIGN(const KeyEncoding encode, parse_encoding(request));
  object::VersionListOptions options;
  options.prefix = request.query_or("prefix");
  options.delimiter = request.query_or("delimiter");
  options.key_marker = request.query_or("key-marker");
  options.version_marker = request.query_or("version-id-marker");
  options.limit = limit;
  if (options.key_marker.empty() && !options.version_marker.empty()) {
    co_return invalid_argument("A version-id marker cannot be specified without a key marker.", "version-id-marker",
                               options.version_marker);
  }
  object::VersionListPage page;
  if (limit == 0) {
    auto bucket = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
    if (!bucket) co_return request.error(bucket.error());
  } else {
    auto listed = co_await request.services.objects.list_versions(request.ctx, request.bucket, options);
    if (!listed) co_return request.error(listed.error());
    page = std::move(*listed);
  }

  OwnerNames names(request);
  for (const auto& info : page.versions) {
    if (!names.knows(info.owner)) co_await names.learn(info.owner);
  }
  XmlWriter xml;
  xml.open_with_namespace("ListVersionsResult", kNamespace);
  xml.element("Name", request.bucket).element("Prefix", encode(options.prefix));
  xml.element("KeyMarker", encode(options.key_marker)).element("VersionIdMarker", options.version_marker);
  if (page.truncated) {
    xml.element("NextKeyMarker", encode(page.next_key_marker));
    if (!page.next_version_marker.empty()) xml.element("NextVersionIdMarker", page.next_version_marker);
  }
  xml.element("MaxKeys", uint64_t{limit});
  if (!options.delimiter.empty()) xml.element("Delimiter", encode(options.delimiter));
  if (encode.url) xml.element("EncodingType", "url");
  xml.flag("IsTruncated", page.truncated);
  for (const auto& info : page.versions) {
    xml.open(info.delete_marker ? "DeleteMarker" : "Version");
    if (info.delete_marker) {
      xml.element("Key", encode(info.key)).element("LastModified", iso_time(info.modified));
    } else {
      append_object(xml, info, encode);
    }
    xml.element("VersionId", info.version_id).flag("IsLatest", info.is_latest);
    append_owner(xml, "Owner", info.owner, names);
    xml.close();
  }
  append_prefixes(xml, page.common_prefixes, encode);
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

}  // namespace quarry::frontends::s3
