#include "frontends/s3/part_number.h"

#include <charconv>

namespace quarry::frontends::s3 {

S3Result<uint32_t> parse_part_number(const Request& request) {
  const std::string_view text = request.query_or("partNumber");
  uint32_t number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || fault != std::errc() || end != text.data() + text.size() || number < 1 || number > object::kPartNumberMax) {
    return invalid_argument("Part number must be an integer between 1 and 10000, inclusive.", "partNumber", text);
  }
  return number;
}

S3Result<ChecksumAlgorithm> part_algorithm(const object::UploadInfo& upload, ChecksumAlgorithm sent, bool is_copy) {
  const ChecksumAlgorithm chosen = upload.checksum.algorithm;
  if (chosen == ChecksumAlgorithm::none) return ChecksumAlgorithm::crc64nvme;
  const bool may_be_absent = is_copy || upload.checksum.type == ChecksumType::full_object;
  if (sent == chosen || (sent == ChecksumAlgorithm::none && may_be_absent)) return chosen;
  return S3Error(E::invalid_request,
                 fmt::format("Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                             algorithm_name(chosen), sent == ChecksumAlgorithm::none ? std::string_view("null") : algorithm_name(sent)));
}

}  // namespace quarry::frontends::s3
