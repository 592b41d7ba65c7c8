#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/upload_body.h"

namespace quarry::frontends::s3 {

Task<S3Result<void>> put_object(Request& request) {
  object::PutOptions options;
  CO_TRY_ASSIGN(UploadPlan plan, plan_upload(request));
  CO_TRY_ASSIGN(options.metadata, parse_object_metadata(request));
  CO_TRY_ASSIGN(options.tags, parse_tagging_header(request.header_or("x-amz-tagging")));
  CO_TRY_ASSIGN(options.conditions, parse_write_conditions(request));
  options.size = plan.size;
  options.checksum = plan.checksum.algorithm;
  if (options.checksum == ChecksumAlgorithm::none) {
    // Nothing was sent to check; kept is what the client names, or S3's default.
    options.checksum = algorithm_of(request.header_or("x-amz-checksum-algorithm")).value_or(ChecksumAlgorithm::crc64nvme);
  }
  options.compute_sha256 = plan.compute_sha256;
  options.owner = request.user_id();

  auto writer = co_await request.services.objects.put(request.ctx, request.bucket, request.key, std::move(options));
  if (!writer) co_return request.error(writer.error());
  auto received = co_await receive_upload(request, plan, **writer);
  if (!received) co_return received;
  auto info = co_await (*writer)->finish(std::move(plan.expected));
  if (!info) co_return write_error(request, info.error(), plan.checksum.algorithm);

  ResponseHead response = request.answer();
  response.headers.add("ETag", quoted_etag(info->etag));
  add_checksum_headers(response, info->checksum, info->parts.size());
  response.headers.add("x-amz-object-size", info->size);
  add_version_header(response, request, info->version_id);
  co_return co_await request.respond(std::move(response));
}

}  // namespace quarry::frontends::s3
