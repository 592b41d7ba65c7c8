#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/upload_body.h"

namespace quarry::frontends::s3 {
namespace {

Task<S3Result<void>> set_tags(Request& request, object::Tags tags, int status) {
  const auto change = [tags = std::move(tags)](object::BucketInfo& info) -> Result<void> {
    info.tags = tags;
    return {};
  };
  auto changed = co_await request.services.objects.update_bucket(request.ctx, request.bucket, change);
  if (!changed) co_return request.error(changed.error());
  co_return co_await request.respond_empty(status);
}

}  // namespace

Task<S3Result<void>> get_bucket_tagging(Request& request) {
  auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!info) co_return request.error(info.error());
  if (info->tags.empty()) co_return S3Error(E::no_such_tag_set).detail("BucketName", request.bucket);
  co_return co_await request.respond_xml(tagging_document(info->tags));
}

Task<S3Result<void>> put_bucket_tagging(Request& request) {
  auto document = co_await read_document(request, Digests::optional, EmptyBody::refused);
  if (!document) co_return std::move(document).error();
  CO_TRY_ASSIGN(auto tags, parse_tagging_document(*document, kBucketTagsMax));
  co_return co_await set_tags(request, std::move(tags), 204);
}

Task<S3Result<void>> delete_bucket_tagging(Request& request) { co_return co_await set_tags(request, {}, 204); }

}  // namespace quarry::frontends::s3
