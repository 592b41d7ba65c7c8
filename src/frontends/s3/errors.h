// The errors of S3: one table of code, HTTP status and sentence, the one map from Quarry's codes to it, and the error document.
#pragma once
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "auth/sigv4.h"
#include "base/result.h"

namespace quarry::frontends::s3 {

// clang-format off
#define QUARRY_S3_ERRORS(X) \
  X(access_denied, "AccessDenied", 403, "Access Denied.") \
  X(access_control_list_not_supported, "AccessControlListNotSupported", 400, "The bucket does not allow ACLs.") \
  X(authorization_header_malformed, "AuthorizationHeaderMalformed", 400, "The authorization header that you provided is not valid.") \
  X(authorization_query_parameters_error, "AuthorizationQueryParametersError", 400, \
    "The authorization query parameters that you provided are not valid.") \
  X(bad_digest, "BadDigest", 400, "The Content-MD5 you specified did not match what we received.") \
  X(bad_request, "BadRequest", 400, "Bad Request") \
  X(bucket_already_exists, "BucketAlreadyExists", 409, \
    "The requested bucket name is not available. The bucket name can not be an existing collection, and the bucket namespace is " \
    "shared by all users of the system. Please select a different name and try again.") \
  X(bucket_already_owned_by_you, "BucketAlreadyOwnedByYou", 409, \
    "Your previous request to create the named bucket succeeded and you already own it.") \
  X(bucket_not_empty, "BucketNotEmpty", 409, "The bucket you tried to delete is not empty.") \
  X(conditional_request_conflict, "ConditionalRequestConflict", 409, \
    "The conditional request cannot succeed due to a conflicting operation against this resource.") \
  X(entity_too_large, "EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed object size.") \
  X(entity_too_small, "EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size") \
  X(incorrect_number_of_files, "IncorrectNumberOfFilesInPostRequest", 400, "POST requires exactly one file upload per request.") \
  X(incomplete_body, "IncompleteBody", 400, "The request body terminated unexpectedly") \
  X(insufficient_storage, "InsufficientStorage", 507, "There is no space left for this request. Delete something, or add drives.") \
  X(internal_error, "InternalError", 500, "We encountered an internal error, please try again.") \
  X(invalid_access_key_id, "InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records.") \
  X(invalid_argument, "InvalidArgument", 400, "Invalid Argument") \
  X(invalid_bucket_name, "InvalidBucketName", 400, "The specified bucket is not valid.") \
  X(invalid_bucket_state, "InvalidBucketState", 409, "The request is not valid for the current state of the bucket.") \
  X(invalid_chunk_size_error, "InvalidChunkSizeError", 400, "Only the last chunk is allowed to have a size less than 8192 bytes") \
  X(invalid_digest, "InvalidDigest", 400, "The Content-Md5 you specified is not valid.") \
  X(invalid_location_constraint, "InvalidLocationConstraint", 400, "The specified location-constraint is not valid") \
  X(invalid_part, "InvalidPart", 400, \
    "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may " \
    "not match the part's entity tag.") \
  X(invalid_part_number, "InvalidPartNumber", 416, "The requested partnumber is not satisfiable.") \
  X(invalid_part_order, "InvalidPartOrder", 400, "The list of parts was not in ascending order. Parts must be ordered by part number.") \
  X(invalid_policy_document, "InvalidPolicyDocument", 400, \
    "The content of the form does not meet the conditions specified in the policy document.") \
  X(invalid_range, "InvalidRange", 416, "The requested range is not satisfiable") \
  X(invalid_redirect_location, "InvalidRedirectLocation", 400, \
    "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.") \
  X(invalid_request, "InvalidRequest", 400, "Invalid Request.") \
  X(invalid_storage_class, "InvalidStorageClass", 400, "The storage class you specified is not valid") \
  X(invalid_tag, "InvalidTag", 400, "The tag provided was not a valid tag.") \
  X(invalid_token, "InvalidToken", 400, "The provided token is malformed or otherwise invalid.") \
  X(invalid_uri, "InvalidURI", 400, "The specified URI couldn't be parsed.") \
  X(key_too_long, "KeyTooLongError", 400, "Your key is too long.") \
  X(malformed_post_request, "MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data.") \
  X(malformed_trailer, "MalformedTrailerError", 400, \
    "The request contained trailing data that was not well-formed or did not conform to our published schema.") \
  X(malformed_xml, "MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published schema.") \
  X(max_message_length_exceeded, "MaxMessageLengthExceeded", 400, "Your request was too big.") \
  X(max_post_pre_data_length_exceeded, "MaxPostPreDataLengthExceeded", 400, \
    "Your POST request fields preceding the upload file were too large.") \
  X(metadata_too_large, "MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size") \
  X(method_not_allowed, "MethodNotAllowed", 405, "The specified method is not allowed against this resource.") \
  X(missing_content_length, "MissingContentLength", 411, "You must provide the Content-Length HTTP header.") \
  X(missing_request_body, "MissingRequestBodyError", 400, "Request Body is empty") \
  X(no_such_bucket, "NoSuchBucket", 404, "The specified bucket does not exist.") \
  X(no_such_bucket_policy, "NoSuchBucketPolicy", 404, "The bucket policy does not exist.") \
  X(no_such_configuration, "NoSuchConfiguration", 404, "The specified configuration does not exist.") \
  X(no_such_cors_configuration, "NoSuchCORSConfiguration", 404, "The CORS configuration does not exist") \
  X(no_such_key, "NoSuchKey", 404, "The specified key does not exist.") \
  X(no_such_lifecycle_configuration, "NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist") \
  X(no_such_object_lock_configuration, "NoSuchObjectLockConfiguration", 404, \
    "The specified object does not have a ObjectLock configuration.") \
  X(no_such_public_access_block_configuration, "NoSuchPublicAccessBlockConfiguration", 404, \
    "The public access block configuration was not found") \
  X(no_such_tag_set, "NoSuchTagSet", 404, "The TagSet does not exist.") \
  X(no_such_upload, "NoSuchUpload", 404, \
    "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or " \
    "completed.") \
  X(no_such_version, "NoSuchVersion", 404, "The specified version does not exist.") \
  X(no_such_website_configuration, "NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration") \
  X(not_found, "404", 404, "Not Found") \
  X(not_implemented, "NotImplemented", 501, "This functionality is not implemented.") \
  X(not_modified, "NotModified", 304, "Not Modified") \
  X(object_lock_configuration_not_found, "ObjectLockConfigurationNotFoundError", 404, \
    "Object Lock configuration does not exist for this bucket.") \
  X(operation_aborted, "OperationAborted", 409, \
    "A conflicting conditional operation is currently in progress against this resource. Please try again.") \
  X(ownership_controls_not_found, "OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found.") \
  X(path_escapes_bucket, "400", 400, "Bad Request") \
  X(precondition_failed, "PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold.") \
  X(quota_exceeded, "QuotaExceeded", 403, "Your request was denied due to quota exceeded.") \
  X(replication_configuration_not_found, "ReplicationConfigurationNotFoundError", 404, "The replication configuration was not found") \
  X(request_header_section_too_large, "RequestHeaderSectionTooLarge", 400, \
    "Your request header section exceeds the maximum allowed size.") \
  X(request_time_too_skewed, "RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large.") \
  X(request_timeout, "RequestTimeout", 400, \
    "Your socket connection to the server was not read from or written to within the timeout period.") \
  X(server_side_encryption_not_found, "ServerSideEncryptionConfigurationNotFoundError", 404, \
    "The server side encryption configuration was not found") \
  X(service_unavailable, "ServiceUnavailable", 503, "Service is unable to handle request.") \
  X(signature_does_not_match, "SignatureDoesNotMatch", 403, \
    "The request signature we calculated does not match the signature you provided. Check your key and signing method.") \
  X(slow_down, "SlowDown", 503, "Please reduce your request rate.") \
  X(too_many_buckets, "TooManyBuckets", 400, "You have attempted to create more buckets than allowed.") \
  X(unexpected_content, "UnexpectedContent", 400, "This request does not support content.") \
  X(x_amz_content_sha256_mismatch, "XAmzContentSHA256Mismatch", 400, \
    "The provided 'x-amz-content-sha256' header does not match what was computed.")
// clang-format on

enum class E : uint8_t {
#define X(name, code, status, message) name,
  QUARRY_S3_ERRORS(X)
#undef X
};

// An error on its way to the client.
class [[nodiscard]] S3Error {
 public:
  explicit S3Error(E id);
  S3Error(E id, std::string message);
  S3Error(auth::Refusal refusal);  // NOLINT: implicit, so that signature checks pass their refusals up

  S3Error&& detail(std::string name, std::string value) &&;
  E id() const { return id_; }
  std::string_view code() const;
  int status() const;
  const std::string& message() const { return message_; }
  const std::string& to_string() const { return message_; }
  const std::vector<std::pair<std::string, std::string>>& details() const { return details_; }
  // What happened inside, for the log; never sent.
  std::string cause;
  // Headers to add to the answer.
  std::vector<std::pair<std::string_view, std::string>> headers;

 private:
  E id_;
  std::string message_;
  std::vector<std::pair<std::string, std::string>> details_;
};

// A value or an S3Error; works with TRY, CO_TRY and their _ASSIGN forms.
template <class T = void>
class [[nodiscard]] S3Result : public MustRead<T, S3Error> {
  using Base = MustRead<T, S3Error>;

 public:
  using Base::Base;
  S3Result() = default;
  S3Result(S3Error error) : Base(std::unexpect, std::move(error)) {}  // NOLINT: implicit by design
};

// What an error of the layers below concerns; used where its code alone does not say.
struct ErrorSubject {
  std::string_view bucket, key, version_id, upload_id;
};
// The one map from Quarry's codes. Nothing of the error's own text reaches the client but where it was written for it.
S3Error to_s3_error(const Error& error, const ErrorSubject& subject);

// InvalidArgument with ArgumentName and ArgumentValue.
S3Error invalid_argument(std::string message, std::string_view name, std::string_view value);
// NotImplemented, naming the header, and what it asks for.
S3Error header_not_implemented(std::string_view header, std::string_view what);

std::string error_document(const S3Error& error, std::string_view resource, std::string_view request_id, std::string_view host_id);

}  // namespace quarry::frontends::s3
