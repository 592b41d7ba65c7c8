// Checksums as S3's headers speak of them: x-amz-checksum-*, x-amz-sdk-checksum-algorithm, x-amz-trailer, x-amz-checksum-type, Content-MD5.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "codec/digest.h"
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

using object::ChecksumAlgorithm;
using object::ChecksumType;

std::string_view algorithm_name(ChecksumAlgorithm algorithm);          // "CRC64NVME"; empty for none
std::string_view checksum_type_name(ChecksumType type);                // "FULL_OBJECT", "COMPOSITE"
std::string checksum_header_name(ChecksumAlgorithm algorithm);         // "x-amz-checksum-crc64nvme"
std::string checksum_element_name(ChecksumAlgorithm algorithm);        // "ChecksumCRC64NVME"
std::optional<ChecksumAlgorithm> algorithm_of(std::string_view name);  // any case
// The raw checksum of a base64 value, if it is one of this algorithm.
std::optional<std::string> decode_checksum(ChecksumAlgorithm algorithm, std::string_view base64);
// As S3 writes it: base64, and "-N" behind a composite one of N parts.
std::string encode_checksum(const object::Checksum& checksum, size_t parts);

// What a request says about the checksum of its body.
struct SentChecksum {
  ChecksumAlgorithm algorithm = ChecksumAlgorithm::none;
  std::optional<std::string> value;  // raw, when in a header
  bool in_trailer = false;
};
S3Result<SentChecksum> parse_sent_checksum(const Request& request);
// Raw MD5 of the Content-MD5 header.
S3Result<std::optional<std::string>> parse_content_md5(const Request& request);

// Algorithm and type of a new multipart upload.
struct UploadChecksum {
  ChecksumAlgorithm algorithm = ChecksumAlgorithm::none;
  ChecksumType type = ChecksumType::composite;
  bool explicit_type = false;
};
S3Result<UploadChecksum> parse_upload_checksum(const Request& request);
S3Result<std::optional<ChecksumType>> parse_checksum_type(const Request& request);

// Checks a whole body against what the headers say of it. required: one of Content-MD5 and x-amz-checksum-* must be there.
S3Result<void> verify_document(const Request& request, std::string_view body, bool required);

// Adds x-amz-checksum-* and x-amz-checksum-type. type: what to tell instead of the checksum's own.
void add_checksum_headers(ResponseHead& response, const object::Checksum& checksum, size_t parts,
                          std::optional<ChecksumType> type = std::nullopt);

}  // namespace quarry::frontends::s3
