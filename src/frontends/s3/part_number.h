// Part numbers, and the checksum of a part against what its upload was created with.
#pragma once
#include "frontends/s3/checksum_headers.h"

namespace quarry::frontends::s3 {

// The partNumber parameter. Errors: InvalidArgument.
S3Result<uint32_t> parse_part_number(const Request& request);

// Which algorithm a part is kept with: the upload's, or the default where it names none. Errors: InvalidRequest (another than the upload's;
// or none, where each part needs one).
S3Result<ChecksumAlgorithm> part_algorithm(const object::UploadInfo& upload, ChecksumAlgorithm sent, bool is_copy);

}  // namespace quarry::frontends::s3
