// The XML documents that requests carry, parsed and checked. Pure functions; nothing in them is trusted.
#pragma once
#include <string_view>
#include <vector>

#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/errors.h"
#include "object/object_engine.h"

namespace quarry::frontends::s3 {

inline constexpr size_t kDeleteTargetsMax = 1000;

// A part as the client lists it.
struct ListedPart {
  object::CompletedPart part;
  ChecksumAlgorithm algorithm = ChecksumAlgorithm::none;
};
// CompleteMultipartUpload. Errors: MalformedXML, InvalidArgument (numbers, checksums).
S3Result<std::vector<ListedPart>> parse_completed_parts(std::string_view document);

struct DeleteList {
  std::vector<object::DeleteTarget> targets;
  bool quiet = false;
};
// Delete, with 1 to kDeleteTargetsMax objects. Errors: MalformedXML.
S3Result<DeleteList> parse_delete_list(std::string_view document);

// What CreateBucketConfiguration asks for.
struct BucketWish {
  object::Tags tags;
};
// Empty: nothing is asked for. region: the server's. Errors: MalformedXML, InvalidLocationConstraint, InvalidTag.
S3Result<BucketWish> parse_bucket_configuration(std::string_view document, std::string_view region);

}  // namespace quarry::frontends::s3
