#include <charconv>

#include "base/coding.h"
#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

struct Wanted {
  bool etag = false, checksum = false, parts = false, storage_class = false, size = false;
  uint32_t after = 0;
  size_t limit = 1000;
};

S3Result<Wanted> parse_wanted(const Request& request) {
  Wanted wanted;
  size_t count = 0;
  std::string names;
  request.for_each_header([&](const HttpField& field) {
    if (equal_ignoring_case(field.name, "x-amz-object-attributes")) names.append(field.value).append(",");
  });
  for (size_t at = 0; at < names.size();) {
    const size_t end = std::min(names.find(',', at), names.size());
    std::string_view name = std::string_view(names).substr(at, end - at);
    at = end + 1;
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (name.empty()) continue;
    ++count;
    if (name == "ETag") {
      wanted.etag = true;
    } else if (name == "Checksum") {
      wanted.checksum = true;
    } else if (name == "ObjectParts") {
      wanted.parts = true;
    } else if (name == "StorageClass") {
      wanted.storage_class = true;
    } else if (name == "ObjectSize") {
      wanted.size = true;
    } else {
      return invalid_argument("Invalid attribute name specified.", "x-amz-object-attributes", name);
    }
  }
  if (count == 0) {
    return S3Error(E::invalid_request,
                   "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty");
  }
  const auto number = [](std::string_view text, auto otherwise) {
    auto value = otherwise;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    return fault == std::errc() && end == text.data() + text.size() ? value : otherwise;
  };
  wanted.after = number(request.header_or("x-amz-part-number-marker"), uint32_t{0});
  wanted.limit = std::min<size_t>(number(request.header_or("x-amz-max-parts"), size_t{1000}), 1000);
  return wanted;
}

// Without the "-N" that a composite one has elsewhere: S3 leaves it out here.
void append_checksum(XmlWriter& xml, const object::Checksum& checksum) {
  if (checksum.algorithm == ChecksumAlgorithm::none) return;
  xml.element(checksum_element_name(checksum.algorithm), to_base64(bytes_of(checksum.value)));
}

void append_parts(XmlWriter& xml, const object::ObjectInfo& info, const Wanted& wanted) {
  xml.open("ObjectParts");
  xml.element("PartsCount", uint64_t{info.parts.size()});
  // AWS lists single parts only of objects with a checksum of each.
  const bool listed = info.checksum.algorithm != ChecksumAlgorithm::none;
  // Parts are numbered by their place in the object, as GET and HEAD number them, whatever the numbers were under which they came.
  const size_t first = std::min<size_t>(wanted.after, info.parts.size());
  const size_t shown = std::min(wanted.limit, info.parts.size() - first);
  xml.element("PartNumberMarker", uint64_t{wanted.after});
  xml.element("NextPartNumberMarker", uint64_t{shown == 0 ? wanted.after : first + shown});
  xml.element("MaxParts", uint64_t{wanted.limit});
  xml.flag("IsTruncated", first + shown < info.parts.size());
  for (size_t i = first; listed && i < first + shown; ++i) {
    xml.open("Part").element("PartNumber", uint64_t{i + 1}).element("Size", info.parts[i].size);
    if (info.checksum.type == object::ChecksumType::composite) append_checksum(xml, info.parts[i].checksum);
    xml.close();
  }
  xml.close();
}

}  // namespace

Task<S3Result<void>> get_object_attributes(Request& request) {
  CO_TRY_ASSIGN(const Wanted wanted, parse_wanted(request));
  auto info = co_await request.services.objects.head(request.ctx, request.bucket, request.key, request.version_id());
  if (!info) {
    S3Error error = request.error(info.error());
    if (info.error().context().find("delete marker") != std::string::npos) error.headers.emplace_back("x-amz-delete-marker", "true");
    co_return error;
  }
  if (info->delete_marker) {
    S3Error error(E::method_not_allowed);
    error.headers.emplace_back("x-amz-delete-marker", "true");
    error.headers.emplace_back("Last-Modified", http_time(info->modified));
    co_return error;
  }
  XmlWriter xml;
  xml.open_with_namespace("GetObjectAttributesResponse", kNamespace);
  if (wanted.etag) xml.element("ETag", info->etag);
  if (wanted.checksum && info->checksum.algorithm != ChecksumAlgorithm::none) {
    xml.open("Checksum");
    append_checksum(xml, info->checksum);
    xml.element("ChecksumType", checksum_type_name(info->checksum.type)).close();
  }
  if (wanted.parts && !info->parts.empty()) append_parts(xml, *info, wanted);
  if (wanted.storage_class) {
    xml.element("StorageClass",
                info->metadata.storage_class.empty() ? std::string_view("STANDARD") : std::string_view(info->metadata.storage_class));
  }
  if (wanted.size) xml.element("ObjectSize", info->size);
  xml.close();
  ResponseHead response = request.answer();
  response.headers.add("Content-Type", "application/xml");
  response.headers.add("Last-Modified", http_time(info->modified));
  add_version_header(response, request, info->version_id);
  co_return co_await request.respond(std::move(response), xml.take());
}

}  // namespace quarry::frontends::s3
