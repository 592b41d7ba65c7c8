// Sub-resources that are not offered yet. Reading one answers what S3 answers of a bucket that has none, which is the truth; changing one
// answers NotImplemented.
#pragma once
#include "frontends/s3/ops/operations.h"

namespace quarry::frontends::s3 {

// Answers `error` of a bucket that exists.
Task<S3Result<void>> answer_not_configured(Request& request, E error);
// Answers `document` of a bucket that exists.
Task<S3Result<void>> answer_fixed(Request& request, std::string document);
Task<S3Result<void>> answer_not_implemented(Request& request);

template <E error>
Task<S3Result<void>> not_configured(Request& request) {
  return answer_not_configured(request, error);
}

Task<S3Result<void>> get_bucket_logging(Request& request);
Task<S3Result<void>> get_bucket_notification(Request& request);
Task<S3Result<void>> get_bucket_accelerate(Request& request);
Task<S3Result<void>> get_bucket_request_payment(Request& request);
Task<S3Result<void>> get_bucket_policy_status(Request& request);
Task<S3Result<void>> get_object_lock_state(Request& request);  // retention, legal hold

}  // namespace quarry::frontends::s3
