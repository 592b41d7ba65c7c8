#include <charconv>

#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/documents.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/slow_answer.h"
#include "frontends/s3/upload_body.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

// The parts' checksums must be those of the upload, and all there where the object's checksum is made of them.
S3Result<void> check_part_checksums(const object::UploadInfo& upload, const std::vector<ListedPart>& parts) {
  const ChecksumAlgorithm chosen = upload.checksum.algorithm;
  if (chosen == ChecksumAlgorithm::none) return {};
  for (const auto& listed : parts) {
    if (listed.algorithm != ChecksumAlgorithm::none && listed.algorithm != chosen) {
      return S3Error(E::bad_digest, fmt::format("The {} you specified for part {} did not match what we received.",
                                                lower(algorithm_name(listed.algorithm)), listed.part.number));
    }
    if (listed.algorithm == ChecksumAlgorithm::none && upload.checksum.type == ChecksumType::composite) {
      return S3Error(E::invalid_request,
                     fmt::format("The upload was created using a {} checksum. The complete request must include the checksum for each "
                                 "part. It was missing for part {} in the request.",
                                 lower(algorithm_name(chosen)), listed.part.number));
    }
  }
  return {};
}

// The checksum of the whole object that the client expects: x-amz-checksum-*, for composite ones perhaps with "-N" behind it.
S3Result<std::string> parse_final_checksum(const Request& request, const object::UploadInfo& upload) {
  constexpr std::string_view kPrefix = "x-amz-checksum-";
  std::string expected;
  size_t count = 0;
  for (const auto& field : request.head.headers) {
    if (field.name.size() <= kPrefix.size() || !equal_ignoring_case(field.name.substr(0, kPrefix.size()), kPrefix)) continue;
    const auto algorithm = algorithm_of(field.name.substr(kPrefix.size()));
    if (!algorithm) continue;  // -type
    if (++count > 1)
      return S3Error(E::invalid_request, "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
    std::string_view value = field.value;
    const size_t dash = value.find('-');
    bool count_is_number = true;
    if (upload.checksum.type == ChecksumType::composite && dash != std::string_view::npos) {
      const std::string_view part_count = value.substr(dash + 1);
      count_is_number = !part_count.empty() && std::ranges::all_of(part_count, [](char c) { return c >= '0' && c <= '9'; });
      value = value.substr(0, dash);
    }
    auto raw = count_is_number ? decode_checksum(*algorithm, value) : std::nullopt;
    if (!raw) return S3Error(E::invalid_request, fmt::format("Value for {} header is invalid.", checksum_header_name(*algorithm)));
    if (*algorithm == upload.checksum.algorithm) expected = std::move(*raw);
  }
  return expected;
}

S3Result<std::optional<uint64_t>> parse_object_size(const Request& request) {
  const auto header = request.header("x-amz-mp-object-size");
  if (!header) return std::optional<uint64_t>();
  int64_t value = 0;
  const auto [end, fault] = std::from_chars(header->data(), header->data() + header->size(), value);
  if (fault != std::errc() || end != header->data() + header->size()) {
    return S3Error(E::invalid_request, fmt::format("Value for x-amz-mp-object-size header is invalid: '{}'", *header));
  }
  if (value < 0) return S3Error(E::invalid_request, fmt::format("Value for x-amz-mp-object-size header is less than zero: '{}'", value));
  return std::optional<uint64_t>(static_cast<uint64_t>(value));
}

// The engine's "part N: missing", "order", "too small: part N has M bytes", "size: the parts have M bytes, ..." in S3's words.
S3Error complete_error(const Request& request, const Error& error, const object::CompleteOptions& options, ChecksumAlgorithm algorithm) {
  const std::string& text = error.context();
  if (error.code() == Code::checksum_mismatch) {
    return S3Error(E::bad_digest, fmt::format("The {} you specified did not match the calculated checksum.", algorithm_name(algorithm)));
  }
  if (error.code() != Code::invalid_argument) return request.error(error);
  unsigned part = 0;
  unsigned long long size = 0;
  if (text.starts_with("order")) return S3Error(E::invalid_part_order);
  if (std::sscanf(text.c_str(), "too small: part %u has %llu bytes", &part, &size) == 2) {
    return S3Error(E::entity_too_small)
        .detail("ProposedSize", std::to_string(size))
        .detail("MinSizeAllowed", std::to_string(object::kPartSizeMin))
        .detail("PartNumber", std::to_string(part));
  }
  if (std::sscanf(text.c_str(), "size: the parts have %llu bytes", &size) == 1) {
    return S3Error(E::invalid_request,
                   fmt::format("The provided 'x-amz-mp-object-size' header value {} does not match what was computed: {}",
                               options.expected_size.value_or(0), size));
  }
  if (std::sscanf(text.c_str(), "part %u:", &part) == 1) {
    const auto named = std::ranges::find_if(options.parts, [part](const auto& listed) { return listed.number == part; });
    return S3Error(E::invalid_part)
        .detail("UploadId", request.upload_id())
        .detail("PartNumber", std::to_string(part))
        .detail("ETag", named == options.parts.end() ? std::string() : named->etag);
  }
  return request.error(error);
}

struct Completed {
  Result<object::ObjectInfo> info;
};
Task<Completed> run_complete(Request& request, object::CompleteOptions options) {
  auto info =
      co_await request.services.objects.complete_upload(request.ctx, request.bucket, request.key, request.upload_id(), std::move(options));
  co_return Completed{std::move(info)};
}

std::string complete_document(const Request& request, const object::ObjectInfo& info) {
  XmlWriter xml;
  xml.open_with_namespace("CompleteMultipartUploadResult", kNamespace);
  xml.element("Location",
              fmt::format("{}://{}{}", request.exchange.is_tls ? "https" : "http", request.head.authority, request.head.raw_path));
  xml.element("Bucket", request.bucket).element("Key", request.key).element("ETag", quoted_etag(info.etag));
  if (info.checksum.algorithm != ChecksumAlgorithm::none) {
    const size_t dash = info.etag.rfind('-');
    size_t parts = info.parts.size();
    if (parts == 0 && dash != std::string::npos) std::from_chars(info.etag.data() + dash + 1, info.etag.data() + info.etag.size(), parts);
    xml.element(checksum_element_name(info.checksum.algorithm), encode_checksum(info.checksum, parts));
    xml.element("ChecksumType", checksum_type_name(info.checksum.type));
  }
  xml.close();
  return xml.take();
}

}  // namespace

Task<S3Result<void>> complete_multipart_upload(Request& request) {
  auto document = co_await read_document(request, Digests::ignored, EmptyBody::allowed);
  if (!document) co_return std::move(document).error();
  CO_TRY_ASSIGN(const auto parts, parse_completed_parts(*document));
  object::CompleteOptions options;
  CO_TRY_ASSIGN(options.conditions, parse_write_conditions(request));
  CO_TRY_ASSIGN(options.expected_size, parse_object_size(request));
  CO_TRY_ASSIGN(const auto type, parse_checksum_type(request));

  auto upload = co_await request.services.objects.get_upload(request.ctx, request.bucket, request.key, request.upload_id());
  object::UploadInfo present;
  if (upload) {
    present = std::move(*upload);
    CO_TRY_ASSIGN(options.expected_checksum, parse_final_checksum(request, present));
    if (type && present.checksum.algorithm != ChecksumAlgorithm::none && *type != present.checksum.type) {
      co_return S3Error(
          E::invalid_request,
          fmt::format("The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
                      checksum_type_name(present.checksum.type)));
    }
    auto checked = check_part_checksums(present, parts);
    if (!checked) co_return checked;
  } else if (upload.error().code() != Code::not_found || upload.error().context().starts_with("bucket")) {
    co_return request.error(upload.error());
  }
  // An upload that is gone may have been completed by this very request, sent before: the engine knows.
  for (const auto& listed : parts) {
    options.parts.push_back(listed.part);
    // Parts of an upload that names no algorithm are kept with the default one; what the client says in another was checked when it sent
    // them.
    if (present.checksum.algorithm == ChecksumAlgorithm::none && listed.algorithm != ChecksumAlgorithm::crc64nvme)
      options.parts.back().checksum.clear();
  }

  SlowAnswer answer(request);
  Completed completed = co_await answer.wait(run_complete(request, options));
  if (!completed.info) co_return co_await answer.fail(complete_error(request, completed.info.error(), options, present.checksum.algorithm));
  ResponseHead response = request.answer();
  add_version_header(response, request, completed.info->version_id);
  co_return co_await answer.succeed(std::move(response), complete_document(request, *completed.info));
}

}  // namespace quarry::frontends::s3
