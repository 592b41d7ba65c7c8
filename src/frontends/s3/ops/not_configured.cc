#include "frontends/s3/ops/not_configured.h"

#include "frontends/s3/routes.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

std::string empty_document(std::string_view root) {
  XmlWriter xml;
  xml.open_with_namespace(root, kNamespace).close();
  return xml.take();
}

}  // namespace

Task<S3Result<void>> answer_not_configured(Request& request, E error) {
  auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!info) co_return request.error(info.error());
  co_return S3Error(error).detail("BucketName", request.bucket);
}

Task<S3Result<void>> answer_fixed(Request& request, std::string document) {
  auto info = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
  if (!info) co_return request.error(info.error());
  co_return co_await request.respond_xml(std::move(document));
}

Task<S3Result<void>> answer_not_implemented(Request& request) {
  const Operation& operation = *request.operation;
  co_return S3Error(E::not_implemented, fmt::format("{} of ?{} is not implemented.", operation.method, operation.query))
      .detail("SubResource", std::string(operation.query));
}

Task<S3Result<void>> get_bucket_logging(Request& request) { return answer_fixed(request, empty_document("BucketLoggingStatus")); }
Task<S3Result<void>> get_bucket_notification(Request& request) {
  return answer_fixed(request, empty_document("NotificationConfiguration"));
}
Task<S3Result<void>> get_bucket_accelerate(Request& request) { return answer_fixed(request, empty_document("AccelerateConfiguration")); }

Task<S3Result<void>> get_bucket_request_payment(Request& request) {
  XmlWriter xml;
  xml.open_with_namespace("RequestPaymentConfiguration", kNamespace).element("Payer", "BucketOwner").close();
  return answer_fixed(request, xml.take());
}

Task<S3Result<void>> get_bucket_policy_status(Request& request) { return answer_not_configured(request, E::no_such_bucket_policy); }

Task<S3Result<void>> get_object_lock_state(Request& request) {
  auto info = co_await request.services.objects.head(request.ctx, request.bucket, request.key, request.version_id());
  if (!info) co_return request.error(info.error());
  co_return S3Error(E::invalid_request, "Bucket is missing Object Lock Configuration");
}

}  // namespace quarry::frontends::s3
