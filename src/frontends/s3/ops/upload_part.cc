#include "base/coding.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/part_number.h"
#include "frontends/s3/upload_body.h"

namespace quarry::frontends::s3 {

Task<S3Result<void>> upload_part(Request& request) {
  CO_TRY_ASSIGN(const uint32_t number, parse_part_number(request));
  CO_TRY_ASSIGN(UploadPlan plan, plan_upload(request));
  auto upload = co_await request.services.objects.get_upload(request.ctx, request.bucket, request.key, request.upload_id());
  if (!upload) co_return request.error(upload.error());
  object::PutOptions options;
  CO_TRY_ASSIGN(options.checksum, part_algorithm(*upload, plan.checksum.algorithm, false));
  plan.verify_here = plan.checksum.algorithm != ChecksumAlgorithm::none && plan.checksum.algorithm != options.checksum;
  options.size = plan.size;
  options.compute_sha256 = plan.compute_sha256;
  options.owner = request.user_id();

  auto writer =
      co_await request.services.objects.put_part(request.ctx, request.bucket, request.key, request.upload_id(), number, std::move(options));
  if (!writer) co_return request.error(writer.error());
  auto received = co_await receive_upload(request, plan, **writer);
  if (!received) co_return received;
  auto part = co_await (*writer)->finish_part(std::move(plan.expected));
  if (!part) co_return write_error(request, part.error(), plan.checksum.algorithm);

  ResponseHead response = request.answer();
  response.headers.add("ETag", quoted_etag(part->etag));
  if (plan.verify_here) {
    response.headers.add(checksum_header_name(plan.checksum.algorithm), to_base64(bytes_of(plan.verified)));
  } else if (part->checksum.algorithm != ChecksumAlgorithm::none) {
    response.headers.add(checksum_header_name(part->checksum.algorithm), encode_checksum(part->checksum, 1));
  }
  co_return co_await request.respond(std::move(response));
}

}  // namespace quarry::frontends::s3
