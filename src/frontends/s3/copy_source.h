// The source of a copy: x-amz-copy-source and its conditions, and moving its bytes into a writer.
#pragma once
#include "frontends/s3/object_headers.h"
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

struct CopySource {
  std::string bucket, key, version_id;
};
// "[/]bucket/key[?versionId=id]", percent-encoded. Errors: InvalidArgument.
S3Result<CopySource> parse_copy_source(std::string_view header);

// Checks access, opens the source and evaluates the conditions on it.
// Errors: AccessDenied, NoSuchBucket, NoSuchKey, PreconditionFailed, InvalidRequest (a delete marker).
Task<S3Result<std::unique_ptr<object::ObjectReader>>> open_copy_source(Request& request, CopySource source);

// Everything in the reader's range goes into the writer.
Task<Result<void>> copy_bytes(object::ObjectReader& reader, object::ObjectWriter& writer, size_t piece_bytes);

}  // namespace quarry::frontends::s3
