// Every operation of the front end, one file each (small siblings share one). An operation parses, checks, acts and answers, in that order;
// an error it returns is sent by the server as S3's error document. The table that leads to them: routes.cc.
#pragma once
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

inline constexpr std::string_view kNamespace = "http://s3.amazonaws.com/doc/2006-03-01/";

// service
Task<S3Result<void>> list_buckets(Request& request);

// buckets
Task<S3Result<void>> create_bucket(Request& request);
Task<S3Result<void>> head_bucket(Request& request);
Task<S3Result<void>> delete_bucket(Request& request);
Task<S3Result<void>> get_bucket_location(Request& request);
Task<S3Result<void>> get_bucket_versioning(Request& request);
Task<S3Result<void>> put_bucket_versioning(Request& request);
Task<S3Result<void>> get_bucket_tagging(Request& request);
Task<S3Result<void>> put_bucket_tagging(Request& request);
Task<S3Result<void>> delete_bucket_tagging(Request& request);
Task<S3Result<void>> get_bucket_acl(Request& request);

// listings
Task<S3Result<void>> list_objects(Request& request);
Task<S3Result<void>> list_objects_v2(Request& request);
Task<S3Result<void>> list_object_versions(Request& request);
Task<S3Result<void>> list_multipart_uploads(Request& request);
Task<S3Result<void>> list_parts(Request& request);

// objects
Task<S3Result<void>> put_object(Request& request);
Task<S3Result<void>> get_object(Request& request);
Task<S3Result<void>> head_object(Request& request);
Task<S3Result<void>> delete_object(Request& request);
Task<S3Result<void>> delete_objects(Request& request);
Task<S3Result<void>> copy_object(Request& request);
Task<S3Result<void>> get_object_attributes(Request& request);
Task<S3Result<void>> get_object_tagging(Request& request);
Task<S3Result<void>> put_object_tagging(Request& request);
Task<S3Result<void>> delete_object_tagging(Request& request);
Task<S3Result<void>> get_object_acl(Request& request);
Task<S3Result<void>> post_object(Request& request);

// multipart uploads
Task<S3Result<void>> create_multipart_upload(Request& request);
Task<S3Result<void>> upload_part(Request& request);
Task<S3Result<void>> upload_part_copy(Request& request);
Task<S3Result<void>> complete_multipart_upload(Request& request);
Task<S3Result<void>> abort_multipart_upload(Request& request);

}  // namespace quarry::frontends::s3
