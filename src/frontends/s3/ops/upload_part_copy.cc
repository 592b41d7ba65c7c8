#include "frontends/s3/copy_source.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/part_number.h"
#include "frontends/s3/slow_answer.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

struct CopiedPart {
  Result<object::PartInfo> info;
};

Task<CopiedPart> run_copy(Request& request, object::ObjectReader& reader, uint32_t number, object::PutOptions options) {
  auto writer =
      co_await request.services.objects.put_part(request.ctx, request.bucket, request.key, request.upload_id(), number, std::move(options));
  if (!writer) co_return CopiedPart{std::move(writer).error()};
  auto moved = co_await copy_bytes(reader, **writer, request.services.options.transfer_buffer_bytes);
  if (!moved) co_return CopiedPart{std::move(moved).error()};
  auto info = co_await (*writer)->finish_part({});
  co_return CopiedPart{std::move(info)};
}

std::string copy_document(const object::PartInfo& part, bool show_checksum) {
  XmlWriter xml;
  xml.open_with_namespace("CopyPartResult", kNamespace);
  xml.element("LastModified", iso_time(part.modified)).element("ETag", quoted_etag(part.etag));
  if (show_checksum) xml.element(checksum_element_name(part.checksum.algorithm), encode_checksum(part.checksum, 1));
  xml.close();
  return xml.take();
}

}  // namespace

Task<S3Result<void>> upload_part_copy(Request& request) {
  CO_TRY_ASSIGN(const uint32_t number, parse_part_number(request));
  CO_TRY_ASSIGN(const CopySource source, parse_copy_source(request.header_or("x-amz-copy-source")));
  auto upload = co_await request.services.objects.get_upload(request.ctx, request.bucket, request.key, request.upload_id());
  if (!upload) co_return request.error(upload.error());
  auto reader = co_await open_copy_source(request, source);
  if (!reader) co_return std::move(reader).error();
  const object::ObjectInfo& info = (*reader)->info();
  ByteRange range{0, info.size};
  if (const auto header = request.header("x-amz-copy-source-range"); header && !header->empty()) {
    CO_TRY_ASSIGN(range, parse_copy_range(*header, info.size));
    (*reader)->set_range(range.offset, range.length);
  }
  if (range.length > object::kPartSizeMax) {
    co_return S3Error(
        E::invalid_request,
        fmt::format("The specified copy source is larger than the maximum allowable size for a copy source: {}", object::kPartSizeMax));
  }
  object::PutOptions options;
  options.size = range.length;
  options.owner = request.user_id();
  CO_TRY_ASSIGN(options.checksum, part_algorithm(*upload, ChecksumAlgorithm::none, true));
  const bool show_checksum = upload->checksum.algorithm != ChecksumAlgorithm::none;

  const std::string source_version = info.version_id;
  SlowAnswer answer(request);
  CopiedPart copied = co_await answer.wait(run_copy(request, **reader, number, std::move(options)));
  if (!copied.info) co_return co_await answer.fail(request.error(copied.info.error()));
  ResponseHead response = request.answer();
  if (source_version != "null") response.headers.add("x-amz-copy-source-version-id", source_version);
  co_return co_await answer.succeed(std::move(response), copy_document(*copied.info, show_checksum));
}

}  // namespace quarry::frontends::s3
