// Aborting, and listing uploads and their parts.
#include <charconv>

#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/listing.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"

namespace quarry::frontends::s3 {
namespace {

S3Result<uint32_t> parse_part_marker(const Request& request) {
  const auto* parameter = request.head.find_query("part-number-marker");
  if (parameter == nullptr || parameter->value.empty()) return uint32_t{0};
  const std::string& text = parameter->value;
  int64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool number = fault == std::errc() && end == text.data() + text.size();
  if (!number || value > INT32_MAX)
    return invalid_argument(fmt::format("Provided {} not an integer or within integer range", text), "part-number-marker", text);
  if (value < 0)
    return invalid_argument(fmt::format("Argument {} must be an integer between 0 and 2147483647", text), "part-number-marker", text);
  return static_cast<uint32_t>(value);
}

void append_upload_checksum(XmlWriter& xml, const object::Checksum& checksum) {
  if (checksum.algorithm == ChecksumAlgorithm::none) return;
  xml.element("ChecksumAlgorithm", algorithm_name(checksum.algorithm));
  xml.element("ChecksumType", checksum_type_name(checksum.type));
}

std::string_view storage_class_of(const object::ObjectMetadata& metadata) {
  return metadata.storage_class.empty() ? std::string_view("STANDARD") : std::string_view(metadata.storage_class);
}

}  // namespace

Task<S3Result<void>> abort_multipart_upload(Request& request) {
  if (const auto header = request.header("x-amz-if-match-initiated-time")) {
    // Compared by the second; a time that has not come yet is no condition.
    const auto time = parse_time(*header);
    auto upload = co_await request.services.objects.get_upload(request.ctx, request.bucket, request.key, request.upload_id());
    if (!upload) co_return request.error(upload.error());
    const bool counts = time && *time <= request.services.clock.wall_now();
    if (counts && *time / 1'000'000'000 != upload->initiated / 1'000'000'000) co_return S3Error(E::precondition_failed);
  }
  auto done = co_await request.services.objects.abort_upload(request.ctx, request.bucket, request.key, request.upload_id());
  if (!done) co_return request.error(done.error());
  co_return co_await request.respond_empty(204);
}

Task<S3Result<void>> list_parts(Request& request) {
  CO_TRY_ASSIGN(const size_t limit, parse_limit(request, "max-parts"));
  CO_TRY_ASSIGN(const uint32_t after, parse_part_marker(request));
  auto page = co_await request.services.objects.list_parts(request.ctx, request.bucket, request.key, request.upload_id(), after, limit);
  if (!page) co_return request.error(page.error());
  OwnerNames names(request);
  co_await names.learn(page->upload.owner);

  XmlWriter xml;
  xml.open_with_namespace("ListPartsResult", kNamespace);
  xml.element("Bucket", request.bucket).element("Key", request.key).element("UploadId", page->upload.upload_id);
  append_owner(xml, "Initiator", page->upload.owner, names);
  append_owner(xml, "Owner", page->upload.owner, names);
  xml.element("StorageClass", storage_class_of(page->upload.metadata));
  xml.element("PartNumberMarker", uint64_t{after});
  xml.element("NextPartNumberMarker", uint64_t{page->parts.empty() ? 0 : page->parts.back().number});
  xml.element("MaxParts", uint64_t{limit}).flag("IsTruncated", page->truncated);
  if (page->upload.checksum.algorithm == ChecksumAlgorithm::none) {
    xml.element("ChecksumAlgorithm", "null").element("ChecksumType", "null");  // S3's words for an upload that names none
  } else {
    append_upload_checksum(xml, page->upload.checksum);
  }
  for (const auto& part : page->parts) {
    xml.open("Part").element("PartNumber", uint64_t{part.number}).element("LastModified", iso_time(part.modified));
    xml.element("ETag", quoted_etag(part.etag)).element("Size", part.size);
    // Checksums of parts are shown where the upload was created with one.
    if (page->upload.checksum.algorithm != ChecksumAlgorithm::none && part.checksum.algorithm != ChecksumAlgorithm::none) {
      xml.element(checksum_element_name(part.checksum.algorithm), encode_checksum(part.checksum, 1));
    }
    xml.close();
  }
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

Task<S3Result<void>> list_multipart_uploads(Request& request) {
  CO_TRY_ASSIGN(const size_t limit, parse_limit(request, "max-uploads"));
  CO_TRY_ASSIGN(const KeyEncoding encode, parse_encoding(request));
  object::UploadListOptions options;
  options.prefix = request.query_or("prefix");
  options.delimiter = request.query_or("delimiter");
  options.key_marker = request.query_or("key-marker");
  options.upload_marker = request.query_or("upload-id-marker");
  options.limit = limit;
  if (options.key_marker.empty()) options.upload_marker.clear();  // without a key it means nothing
  object::UploadListPage page;
  if (limit == 0) {
    auto bucket = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
    if (!bucket) co_return request.error(bucket.error());
  } else {
    auto listed = co_await request.services.objects.list_uploads(request.ctx, request.bucket, options);
    if (!listed && listed.error().code() == Code::invalid_argument) {
      co_return invalid_argument("Invalid uploadId marker", "upload-id-marker", options.upload_marker);
    }
    if (!listed) co_return request.error(listed.error());
    page = std::move(*listed);
  }

  OwnerNames names(request);
  for (const auto& upload : page.uploads) {
    if (!names.knows(upload.owner)) co_await names.learn(upload.owner);
  }
  XmlWriter xml;
  xml.open_with_namespace("ListMultipartUploadsResult", kNamespace);
  xml.element("Bucket", request.bucket).element("KeyMarker", encode(options.key_marker)).element("UploadIdMarker", options.upload_marker);
  if (page.truncated) {
    xml.element("NextKeyMarker", encode(page.next_key_marker));
    xml.element("NextUploadIdMarker", page.next_upload_marker);
  }
  if (!options.delimiter.empty()) xml.element("Delimiter", encode(options.delimiter));
  xml.element("Prefix", encode(options.prefix));
  if (encode.url) xml.element("EncodingType", "url");
  xml.element("MaxUploads", uint64_t{limit}).flag("IsTruncated", page.truncated);
  for (const auto& upload : page.uploads) {
    xml.open("Upload").element("Key", encode(upload.key)).element("UploadId", upload.upload_id);
    append_owner(xml, "Initiator", upload.owner, names);
    append_owner(xml, "Owner", upload.owner, names);
    xml.element("StorageClass", storage_class_of(upload.metadata)).element("Initiated", iso_time(upload.initiated));
    append_upload_checksum(xml, upload.checksum);
    xml.close();
  }
  append_prefixes(xml, page.common_prefixes, encode);
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

}  // namespace quarry::frontends::s3
