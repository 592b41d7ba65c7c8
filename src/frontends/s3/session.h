// The beginning of every request: what it addresses (path or virtual-host style), for whom it is, and who proves to be asking.
#pragma once
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

// Fills bucket and key. Errors: InvalidURI, InvalidBucketName, KeyTooLongError.
S3Result<void> parse_address(Request& request);

// Checks the signature and fills credential, identity and what bodies need. Anonymous requests pass; access is decided later.
Task<S3Result<void>> authenticate(Request& request, auth::SigningKeyCache& keys);

// Fills credential and identity from the key that the signature names, before it is verified; whose signature turns out to be wrong is
// forgotten again. Errors: InvalidAccessKeyId.
Task<S3Result<void>> find_credential(Request& request);
void forget_credential(Request& request);

// x-quarry-attribution: "tenant=a; team=b; project=c; job=d; rank=0". Unknown and malformed parts are dropped, long ones cut: it is no
// claim.
inline constexpr size_t kAttributionValueMax = 64;
Attribution parse_attribution(std::string_view header);

// The application that SDKs of AWS name in User-Agent ("app/NAME", from AWS_SDK_UA_APP_ID): the job, when nothing else names one.
std::string_view application_of(std::string_view user_agent);

// Whether a key, read as a path, climbs out of its bucket ("..", "a/../../b"). S3 refuses such keys: no client can address them.
bool escapes_bucket(std::string_view key);

// AWS's rules for names of general purpose buckets.
bool is_valid_bucket_name(std::string_view name);

}  // namespace quarry::frontends::s3
