// Many deletions in one request, each with a result of its own.
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/upload_body.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

constexpr size_t kTargetsMax = 1000;

struct DeleteList {
  std::vector<object::DeleteTarget> targets;
  bool quiet = false;
};

S3Result<DeleteList> parse_list(std::string_view document) {
  const auto root = parse_xml(document);
  if (!root || root->name != "Delete") return S3Error(E::malformed_xml);
  DeleteList list;
  list.quiet = root->child_text("Quiet") == "true";
  for (const auto& node : root->children) {
    if (node.name == "Quiet") continue;
    if (node.name != "Object") return S3Error(E::malformed_xml);
    if (node.count("Key") != 1 || list.targets.size() == kTargetsMax) return S3Error(E::malformed_xml);
    object::DeleteTarget target;
    target.key = node.child_text("Key");
    if (target.key.empty()) return S3Error(E::malformed_xml);
    target.version_id = node.child_text("VersionId");
    const std::string_view etag = node.child_text("ETag");
    if (!etag.empty()) target.conditions.if_match = {std::string(unquoted(etag))};
    const std::string_view time = node.child_text("LastModifiedTime");
    if (!time.empty()) {
      target.conditions.if_match_last_modified = parse_iso_time(time);
      if (const auto seconds = parse_http_date(time)) target.conditions.if_match_last_modified = *seconds * 1'000'000'000;
      if (!target.conditions.if_match_last_modified) return S3Error(E::malformed_xml);
    }
    const std::string_view size = node.child_text("Size");
    if (!size.empty()) {
      uint64_t value = 0;
      for (const char c : size) {
        if (c < '0' || c > '9' || value > UINT64_MAX / 16) return S3Error(E::malformed_xml);
        value = value * 10 + static_cast<uint64_t>(c - '0');
      }
      target.conditions.if_match_size = value;
    }
    list.targets.push_back(std::move(target));
  }
  if (list.targets.empty()) return S3Error(E::malformed_xml);
  return list;
}

void append_result(XmlWriter& xml, const object::DeleteTarget& target, const Result<object::DeleteOutcome>& result, bool quiet, std::string_view bucket) {
  const bool no_key = !result && result.error().code() == Code::not_found && target.conditions.empty();
  if (result || no_key) {
    if (quiet) return;
    xml.open("Deleted").element("Key", target.key);
    if (!target.version_id.empty()) xml.element("VersionId", target.version_id);
    if (result && result->delete_marker) {
      xml.element("DeleteMarker", "true");
      xml.element("DeleteMarkerVersionId", result->version_id);
    } else if (result && !target.version_id.empty()) {
      xml.element("DeleteMarker", "false");
    }
    xml.close();
    return;
  }
  const S3Error error = to_s3_error(result.error(), {.bucket = bucket, .key = target.key, .version_id = target.version_id});
  xml.open("Error").element("Key", target.key);
  if (!target.version_id.empty()) xml.element("VersionId", target.version_id);
  xml.element("Code", error.code()).element("Message", error.message()).close();
}

}  // namespace

Task<S3Result<void>> delete_objects(Request& request) {
  auto document = co_await read_document(request, Digests::required, EmptyBody::refused);
  if (!document) co_return std::move(document).error();
  CO_TRY_ASSIGN(DeleteList list, parse_list(*document));
  auto bucket = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!bucket) co_return request.error(bucket.error());
  const auto results = co_await request.services.objects.remove_many(request.ctx, request.bucket, list.targets);

  XmlWriter xml;
  xml.open_with_namespace("DeleteResult", kNamespace);
  for (size_t i = 0; i < list.targets.size(); ++i) append_result(xml, list.targets[i], results[i], list.quiet, request.bucket);
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

}  // namespace quarry::frontends::s3
