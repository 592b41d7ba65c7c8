#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

ResponseHead Request::answer(int status) const {
  ResponseHead response;
  response.status = status;
  response.headers.add("x-amz-request-id", request_id);
  response.headers.add("x-amz-id-2", host_id);
  return response;
}

Task<S3Result<void>> Request::respond(ResponseHead response, std::string body) {
  if (head.method != "HEAD") bytes_sent += body.size();
  auto sent = co_await exchange.response.respond(std::move(response), std::move(body));
  std::move(sent).ignore("the client is gone: the server sees to the connection");
  co_return S3Result<void>();
}

Task<S3Result<void>> Request::respond_xml(std::string document, int status) {
  ResponseHead response = answer(status);
  response.headers.add("Content-Type", "application/xml");
  co_return co_await respond(std::move(response), std::move(document));
}

Task<S3Result<void>> Request::respond_empty(int status) { co_return co_await respond(answer(status)); }

Task<S3Result<void>> check_access(Request& request, std::string bucket_name) {
  if (request.credential == nullptr) co_return S3Error(E::access_denied);
  const std::string_view expected_owner =
      request.header_or(bucket_name == request.bucket ? "x-amz-expected-bucket-owner" : "x-amz-source-expected-bucket-owner");
  if (request.is_administrator() && expected_owner.empty()) co_return S3Result<void>();
  auto bucket = co_await request.services.objects.get_bucket(request.ctx, bucket_name);
  if (!bucket) co_return to_s3_error(bucket.error(), {.bucket = bucket_name});
  const bool owns = bucket->owner == request.user_id();
  if (!expected_owner.empty() && expected_owner != bucket->owner) {
    // An owner may also be named by what he signs with, or by his name.
    const bool named = owns && (expected_owner == request.credential->key.access_key || expected_owner == request.credential->user.name);
    if (!named) co_return S3Error(E::access_denied);
  }
  if (!owns && !request.is_administrator()) co_return S3Error(E::access_denied);
  if (bucket_name == request.bucket) request.bucket_info = std::move(*bucket);
  co_return S3Result<void>();
}

}  // namespace quarry::frontends::s3
