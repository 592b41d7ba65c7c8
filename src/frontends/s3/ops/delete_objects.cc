// Many deletions in one request, each with a result of its own.
#include "frontends/s3/documents.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/upload_body.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

void append_result(XmlWriter& xml, const object::DeleteTarget& target, const Result<object::DeleteOutcome>& result, bool quiet,
                   std::string_view bucket) {
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
  CO_TRY_ASSIGN(DeleteList list, parse_delete_list(*document));
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
