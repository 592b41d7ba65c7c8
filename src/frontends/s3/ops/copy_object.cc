#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/copy_source.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/slow_answer.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

enum class Directive : uint8_t { copy, replace };

S3Result<Directive> parse_directive(const Request& request, std::string_view header, std::string_view message) {
  const std::string_view text = request.header_or(header, "COPY");
  if (text == "COPY") return Directive::copy;
  if (text == "REPLACE") return Directive::replace;
  return invalid_argument(std::string(message), header, text);
}

struct CopyPlan {
  CopySource source;
  Directive metadata = Directive::copy, tagging = Directive::copy;
  object::PutOptions options;  // metadata and tags as the headers have them
  bool names_algorithm = false;
};

S3Result<CopyPlan> plan_copy(const Request& request) {
  CopyPlan plan;
  TRY_ASSIGN(plan.source, parse_copy_source(request.header_or("x-amz-copy-source")));
  TRY_ASSIGN(plan.metadata, parse_directive(request, "x-amz-metadata-directive", "Unknown metadata directive."));
  TRY_ASSIGN(plan.tagging, parse_directive(request, "x-amz-tagging-directive", "Unknown tagging directive."));
  TRY_ASSIGN(plan.options.metadata, parse_object_metadata(request));
  TRY_ASSIGN(plan.options.tags, parse_tagging_header(request.header_or("x-amz-tagging")));
  TRY_ASSIGN(plan.options.conditions, parse_write_conditions(request));
  const std::string_view algorithm = request.header_or("x-amz-checksum-algorithm");
  if (!algorithm.empty()) {
    const auto known = algorithm_of(algorithm);
    if (!known) {
      return S3Error(E::invalid_request,
                     "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
                     "[CRC32, CRC32C, CRC64NVME, MD5, SHA1, SHA256, SHA512, XXHASH128, XXHASH3, XXHASH64]");
    }
    plan.options.checksum = *known;
    plan.names_algorithm = true;
  }
  return plan;
}

// Copying an object onto itself must change something.
bool changes_something(const Request& request, const CopyPlan& plan) {
  return plan.metadata == Directive::replace || plan.names_algorithm || !plan.source.version_id.empty() ||
         request.header("x-amz-storage-class").has_value() || request.header("x-amz-website-redirect-location").has_value();
}

struct Copied {
  Result<object::ObjectInfo> info;
};

Task<Copied> run_copy(Request& request, object::ObjectReader& reader, object::PutOptions options) {
  auto writer = co_await request.services.objects.put(request.ctx, request.bucket, request.key, std::move(options));
  if (!writer) co_return Copied{std::move(writer).error()};
  auto moved = co_await copy_bytes(reader, **writer, request.services.options.transfer_buffer_bytes);
  if (!moved) co_return Copied{std::move(moved).error()};
  auto info = co_await (*writer)->finish({});
  co_return Copied{std::move(info)};
}

std::string copy_document(const object::ObjectInfo& info) {
  XmlWriter xml;
  xml.open_with_namespace("CopyObjectResult", kNamespace);
  xml.element("LastModified", iso_time(info.modified)).element("ETag", quoted_etag(info.etag));
  if (info.checksum.algorithm != ChecksumAlgorithm::none) {
    xml.element(checksum_element_name(info.checksum.algorithm), encode_checksum(info.checksum, info.parts.size()));
    xml.element("ChecksumType", checksum_type_name(info.checksum.type));
  }
  xml.close();
  return xml.take();
}

}  // namespace

Task<S3Result<void>> copy_object(Request& request) {
  CO_TRY_ASSIGN(CopyPlan plan, plan_copy(request));
  if (plan.source.bucket == request.bucket && plan.source.key == request.key && !changes_something(request, plan)) {
    co_return S3Error(E::invalid_request,
                      "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
                      "metadata, storage class, "
                      "website redirect location or encryption attributes.");
  }
  auto reader = co_await open_copy_source(request, plan.source);
  if (!reader) co_return std::move(reader).error();
  const object::ObjectInfo& source = (*reader)->info();
  if (source.size > object::kPartSizeMax) {
    co_return S3Error(
        E::invalid_request,
        fmt::format("The specified copy source is larger than the maximum allowable size for a copy source: {}", object::kPartSizeMax));
  }

  object::PutOptions options = std::move(plan.options);
  if (plan.metadata == Directive::copy) {
    // The storage class and the redirect are never copied.
    options.metadata.content_type = source.metadata.content_type;
    options.metadata.content_encoding = source.metadata.content_encoding;
    options.metadata.content_disposition = source.metadata.content_disposition;
    options.metadata.content_language = source.metadata.content_language;
    options.metadata.cache_control = source.metadata.cache_control;
    options.metadata.expires = source.metadata.expires;
    options.metadata.user = source.metadata.user;
  }
  if (plan.tagging == Directive::copy) options.tags = source.tags;
  if (!plan.names_algorithm) {
    options.checksum = source.checksum.algorithm == ChecksumAlgorithm::none ? ChecksumAlgorithm::crc64nvme : source.checksum.algorithm;
  }
  options.size = source.size;
  options.owner = request.user_id();

  const std::string source_version = source.version_id;
  SlowAnswer answer(request);
  Copied copied = co_await answer.wait(run_copy(request, **reader, std::move(options)));
  if (!copied.info) co_return co_await answer.fail(request.error(copied.info.error()));
  ResponseHead response = request.answer();
  if (source_version != "null") response.headers.add("x-amz-copy-source-version-id", source_version);
  add_version_header(response, request, copied.info->version_id);
  co_return co_await answer.succeed(std::move(response), copy_document(*copied.info));
}

}  // namespace quarry::frontends::s3
