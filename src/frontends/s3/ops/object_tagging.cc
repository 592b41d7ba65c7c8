#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/upload_body.h"

namespace quarry::frontends::s3 {
namespace {

Task<S3Result<void>> set_tags(Request& request, object::Tags tags, int status) {
  auto info = co_await request.services.objects.set_tags(request.ctx, request.bucket, request.key, request.version_id(), std::move(tags));
  if (!info && info.error().code() == Code::unsupported) co_return S3Error(E::method_not_allowed);  // a delete marker
  if (!info) co_return request.error(info.error());
  ResponseHead response = request.answer(status);
  add_version_header(response, request, info->version_id);
  co_return co_await request.respond(std::move(response));
}

}  // namespace

Task<S3Result<void>> get_object_tagging(Request& request) {
  auto info = co_await request.services.objects.head(request.ctx, request.bucket, request.key, request.version_id());
  if (!info) co_return request.error(info.error());
  if (info->delete_marker) co_return S3Error(E::method_not_allowed);
  ResponseHead response = request.answer();
  response.headers.add("Content-Type", "application/xml");
  add_version_header(response, request, info->version_id);
  co_return co_await request.respond(std::move(response), tagging_document(info->tags));
}

Task<S3Result<void>> put_object_tagging(Request& request) {
  auto document = co_await read_document(request, Digests::optional, EmptyBody::refused);
  if (!document) co_return std::move(document).error();
  CO_TRY_ASSIGN(auto tags, parse_tagging_document(*document, kObjectTagsMax));
  co_return co_await set_tags(request, std::move(tags), 200);
}

Task<S3Result<void>> delete_object_tagging(Request& request) { co_return co_await set_tags(request, {}, 204); }

}  // namespace quarry::frontends::s3
