#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {

Task<S3Result<void>> create_multipart_upload(Request& request) {
  object::PutOptions options;
  CO_TRY_ASSIGN(const UploadChecksum checksum, parse_upload_checksum(request));
  CO_TRY_ASSIGN(options.metadata, parse_object_metadata(request));
  CO_TRY_ASSIGN(options.tags, parse_tagging_header(request.header_or("x-amz-tagging")));
  options.checksum = checksum.algorithm;
  options.owner = request.user_id();
  auto upload =
      co_await request.services.objects.create_upload(request.ctx, request.bucket, request.key, std::move(options), checksum.type);
  if (!upload) co_return request.error(upload.error());

  XmlWriter xml;
  xml.open_with_namespace("InitiateMultipartUploadResult", kNamespace);
  xml.element("Bucket", request.bucket).element("Key", request.key).element("UploadId", upload->upload_id).close();
  ResponseHead response = request.answer();
  response.headers.add("Content-Type", "application/xml");
  if (checksum.algorithm != ChecksumAlgorithm::none) {
    response.headers.add("x-amz-checksum-algorithm", algorithm_name(checksum.algorithm));
    response.headers.add("x-amz-checksum-type", checksum_type_name(checksum.type));
  }
  co_return co_await request.respond(std::move(response), xml.take());
}

}  // namespace quarry::frontends::s3
