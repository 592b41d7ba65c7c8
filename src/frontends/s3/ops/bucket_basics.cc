// HEAD, DELETE and location of a bucket.
#include "frontends/s3/ops/operations.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {

Task<S3Result<void>> head_bucket(Request& request) {
  if (!request.bucket_info) {
    auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
    if (!info) co_return request.error(info.error());
  }
  ResponseHead response = request.answer();
  response.headers.add("x-amz-bucket-region", request.services.options.region);
  response.headers.add("x-amz-access-point-alias", "false");
  response.headers.add("Content-Type", "application/xml");
  co_return co_await request.respond(std::move(response));
}

Task<S3Result<void>> delete_bucket(Request& request) {
  auto done = co_await request.services.objects.delete_bucket(request.ctx, request.bucket);
  if (!done) {
    if (done.error().code() == Code::not_empty) {
      auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
      if (info && info->versioning == object::Versioning::off) co_return request.error(done.error());
      co_return S3Error(E::bucket_not_empty, "The bucket you tried to delete is not empty. You must delete all versions in the bucket.")
          .detail("BucketName", request.bucket);
    }
    co_return request.error(done.error());
  }
  co_return co_await request.respond_empty(204);
}

Task<S3Result<void>> get_bucket_location(Request& request) {
  auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!info) co_return request.error(info.error());
  const std::string& region = request.services.options.region;
  XmlWriter xml;
  xml.open_with_namespace("LocationConstraint", kNamespace)
      .text(region == "us-east-1" ? std::string_view() : std::string_view(region))
      .close();
  co_return co_await request.respond_xml(xml.take());
}

}  // namespace quarry::frontends::s3
