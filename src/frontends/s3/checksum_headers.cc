#include "frontends/s3/checksum_headers.h"

#include "base/coding.h"

namespace quarry::frontends::s3 {
namespace {

constexpr std::string_view kPrefix = "x-amz-checksum-";

ChecksumKind kind_of(ChecksumAlgorithm algorithm) { return static_cast<ChecksumKind>(algorithm); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

S3Error unsupported_algorithm() {
  return S3Error(E::invalid_request,
                 "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
                 "[CRC32, CRC32C, CRC64NVME, MD5, SHA1, SHA256, SHA512, XXHASH128, XXHASH3, XXHASH64]");
}
S3Error invalid_value(std::string_view header) {
  return S3Error(E::invalid_request, fmt::format("Value for {} header is invalid.", header));
}

bool is_cyclic(ChecksumAlgorithm algorithm) { return algorithm != ChecksumAlgorithm::none && checksum_is_crc(kind_of(algorithm)); }

}  // namespace

std::string_view algorithm_name(ChecksumAlgorithm algorithm) {
  return algorithm == ChecksumAlgorithm::none ? std::string_view() : checksum_name(kind_of(algorithm));
}
std::string_view checksum_type_name(ChecksumType type) { return type == ChecksumType::composite ? "COMPOSITE" : "FULL_OBJECT"; }
std::string checksum_header_name(ChecksumAlgorithm algorithm) { return std::string(kPrefix) + lower(algorithm_name(algorithm)); }
std::string checksum_element_name(ChecksumAlgorithm algorithm) { return "Checksum" + std::string(algorithm_name(algorithm)); }

std::optional<ChecksumAlgorithm> algorithm_of(std::string_view name) {
  const auto kind = checksum_kind_of(name);
  if (!kind) return std::nullopt;
  return static_cast<ChecksumAlgorithm>(*kind);
}

std::optional<std::string> decode_checksum(ChecksumAlgorithm algorithm, std::string_view base64) {
  auto raw = from_base64(base64);
  if (!raw || raw->size() != checksum_size(kind_of(algorithm))) return std::nullopt;
  return std::move(*raw);
}

std::string encode_checksum(const object::Checksum& checksum, size_t parts) {
  std::string text = to_base64(bytes_of(checksum.value));
  if (checksum.type == ChecksumType::composite) text += fmt::format("-{}", parts);
  return text;
}

S3Result<SentChecksum> parse_sent_checksum(const Request& request) {
  SentChecksum sent;
  const std::string_view sdk_name = request.header_or("x-amz-sdk-checksum-algorithm");
  std::optional<ChecksumAlgorithm> sdk_algorithm;
  if (!sdk_name.empty()) {
    sdk_algorithm = algorithm_of(sdk_name);
    if (!sdk_algorithm) return unsupported_algorithm();
  }

  size_t values = 0;
  std::string_view value_header;
  for (const auto& field : request.head.headers) {
    if (field.name.size() <= kPrefix.size() || !equal_ignoring_case(field.name.substr(0, kPrefix.size()), kPrefix)) continue;
    const std::string_view name = field.name.substr(kPrefix.size());
    if (equal_ignoring_case(name, "mode") || equal_ignoring_case(name, "type") || equal_ignoring_case(name, "algorithm")) continue;
    const auto algorithm = algorithm_of(name);
    if (!algorithm) return S3Error(E::invalid_request, "The algorithm type you specified in x-amz-checksum- header is invalid.");
    if (++values > 1)
      return S3Error(E::invalid_request, "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
    sent.algorithm = *algorithm;
    value_header = field.value;
  }

  const std::string_view trailer = request.header_or("x-amz-trailer");
  if (values > 0 && !trailer.empty())
    return S3Error(E::invalid_request, "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
  if (sdk_algorithm && values == 0 && trailer.empty()) {
    return S3Error(E::invalid_request,
                   "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.");
  }
  if (!trailer.empty()) {
    const bool named = trailer.size() > kPrefix.size() && equal_ignoring_case(trailer.substr(0, kPrefix.size()), kPrefix);
    const auto algorithm = named ? algorithm_of(trailer.substr(kPrefix.size())) : std::nullopt;
    if (!algorithm) return S3Error(E::invalid_request, "The value specified in the x-amz-trailer header is not supported");
    sent.algorithm = *algorithm;
    sent.in_trailer = true;
  }
  if (values > 0) {
    sent.value = decode_checksum(sent.algorithm, value_header);
    if (!sent.value) return invalid_value(checksum_header_name(sent.algorithm));
  }
  if (sdk_algorithm && *sdk_algorithm != sent.algorithm) return invalid_value("x-amz-sdk-checksum-algorithm");
  return sent;
}

S3Result<std::optional<std::string>> parse_content_md5(const Request& request) {
  const auto header = request.header("content-md5");
  if (!header) return std::optional<std::string>();
  auto raw = from_base64(*header);
  if (!raw || raw->size() != 16) return S3Error(E::invalid_digest).detail("Content-MD5", std::string(*header));
  return std::optional<std::string>(std::move(*raw));
}

S3Result<std::optional<ChecksumType>> parse_checksum_type(const Request& request) {
  const std::string_view text = request.header_or("x-amz-checksum-type");
  if (text.empty()) return std::optional<ChecksumType>();
  if (equal_ignoring_case(text, "COMPOSITE")) return std::optional(ChecksumType::composite);
  if (equal_ignoring_case(text, "FULL_OBJECT")) return std::optional(ChecksumType::full_object);
  return invalid_value("x-amz-checksum-type");
}

S3Result<UploadChecksum> parse_upload_checksum(const Request& request) {
  UploadChecksum checksum;
  const std::string_view name = request.header_or("x-amz-checksum-algorithm");
  if (!name.empty()) {
    const auto algorithm = algorithm_of(name);
    if (!algorithm) return unsupported_algorithm();
    checksum.algorithm = *algorithm;
  }
  TRY_ASSIGN(const auto type, parse_checksum_type(request));
  if (type && name.empty())
    return S3Error(E::invalid_request, "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.");
  if (checksum.algorithm == ChecksumAlgorithm::none) return checksum;
  const bool only_full = checksum.algorithm == ChecksumAlgorithm::crc64nvme;
  checksum.explicit_type = type.has_value();
  checksum.type = type.value_or(only_full ? ChecksumType::full_object : ChecksumType::composite);
  const bool possible = checksum.type == ChecksumType::composite ? !only_full : is_cyclic(checksum.algorithm);
  if (!possible) {
    return S3Error(E::invalid_request, fmt::format("The {} checksum type cannot be used with the {} checksum algorithm.",
                                                   checksum_type_name(checksum.type), lower(algorithm_name(checksum.algorithm))));
  }
  return checksum;
}

S3Result<void> verify_document(const Request& request, std::string_view body, bool required) {
  TRY_ASSIGN(const auto md5_sent, parse_content_md5(request));
  TRY_ASSIGN(const SentChecksum sent, parse_sent_checksum(request));
  if (required && !md5_sent && !sent.value)
    return S3Error(E::invalid_request, "Missing required header for this request: Content-MD5 OR x-amz-checksum-*");
  if (md5_sent) {
    const auto calculated = md5(bytes_of(body));
    if (text_of(calculated) != *md5_sent) {
      return S3Error(E::bad_digest).detail("ExpectedDigest", to_hex(bytes_of(*md5_sent))).detail("CalculatedDigest", to_base64(calculated));
    }
  }
  if (sent.value) {
    S3Checksum calculated(kind_of(sent.algorithm));
    calculated.update(bytes_of(body));
    if (text_of(calculated.finish()) != *sent.value) {
      return S3Error(E::bad_digest,
                     fmt::format("The {} you specified did not match the calculated checksum.", algorithm_name(sent.algorithm)));
    }
  }
  return {};
}

void add_checksum_headers(ResponseHead& response, const object::Checksum& checksum, size_t parts, std::optional<ChecksumType> type) {
  if (checksum.algorithm == ChecksumAlgorithm::none) return;
  response.headers.add(checksum_header_name(checksum.algorithm), encode_checksum(checksum, parts));
  response.headers.add("x-amz-checksum-type", checksum_type_name(type.value_or(checksum.type)));
}

}  // namespace quarry::frontends::s3
