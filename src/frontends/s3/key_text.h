// Keys are UTF-8, and so is all else in a request's URI. Stores of former versions took any bytes: what such a bucket holds can still be
// listed, read and removed by its name, so that it can be cleaned; nothing new gets such a name.
#pragma once
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

// Errors: InvalidURI (bytes that are not UTF-8, overlong forms, surrogates; unless they name what the bucket holds and the operation reads
// or removes), and those of listing.
Task<S3Result<void>> check_text(Request& request);

}  // namespace quarry::frontends::s3
