#include "frontends/s3/documents.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/session.h"
#include "frontends/s3/upload_body.h"

namespace quarry::frontends::s3 {
Task<S3Result<void>> create_bucket(Request& request) {
  if (request.credential == nullptr) co_return S3Error(E::access_denied);
  if (!is_valid_bucket_name(request.bucket)) co_return S3Error(E::invalid_bucket_name).detail("BucketName", request.bucket);
  if (equal_ignoring_case(request.header_or("x-amz-bucket-object-lock-enabled"), "true")) {
    co_return header_not_implemented("x-amz-bucket-object-lock-enabled", "object lock");
  }
  const std::string_view space = request.header_or("x-amz-bucket-namespace", "global");
  if (space != "global") co_return header_not_implemented("x-amz-bucket-namespace", "a namespace of one's own");
  auto document = co_await read_document(request, Digests::optional, EmptyBody::allowed);
  if (!document) co_return std::move(document).error();
  CO_TRY_ASSIGN(BucketWish wish, parse_bucket_configuration(*document, request.services.options.region));

  object::BucketInfo wanted;
  wanted.name = request.bucket;
  wanted.owner = request.user_id();
  wanted.tags = std::move(wish.tags);
  const bool plain = wanted.tags.empty();
  auto made = co_await request.services.objects.create_bucket(request.ctx, std::move(wanted));
  if (!made) {
    S3Error error = request.error(made.error());
    // AWS's oldest region: making one's own bucket again changes nothing and succeeds. With tags it would have to change something.
    const bool again = error.id() == E::bucket_already_owned_by_you && request.services.options.region == "us-east-1" && plain;
    if (!again) co_return error;
  }
  ResponseHead response = request.answer();
  response.headers.add("Location", "/" + request.bucket);
  response.headers.add("x-amz-bucket-arn", "arn:aws:s3:::" + request.bucket);
  co_return co_await request.respond(std::move(response));
}

}  // namespace quarry::frontends::s3
