// The headers of objects, both ways: metadata, tags, conditions, ranges. Pure functions over a request.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

inline constexpr size_t kObjectTagsMax = 10;
inline constexpr size_t kBucketTagsMax = 50;

// Nothing is encrypted: whoever asks for it, or sends a key, is refused. Errors: NotImplemented; InvalidRequest (reading).
S3Result<void> refuse_encryption(const Request& request);
// Content-Type and the other headers an object keeps, and x-amz-meta-*. Errors: MetadataTooLarge, NotImplemented (encryption, object
// lock, other headers that promise what is not there), InvalidStorageClass, InvalidRedirectLocation.
S3Result<object::ObjectMetadata> parse_object_metadata(const Request& request);
// x-amz-tagging: url-encoded. Errors: InvalidArgument, InvalidTag, BadRequest (too many).
S3Result<object::Tags> parse_tagging_header(std::string_view text);
// A Tagging document. Errors: MalformedXML, InvalidTag, BadRequest.
S3Result<object::Tags> parse_tagging_document(std::string_view document, size_t tags_max);
S3Result<void> check_tag(std::string_view name, std::string_view value);
std::string tagging_document(const object::Tags& tags);

// If-Match and its kin on reads; prefix "x-amz-copy-source-" for copy sources.
object::Conditions parse_read_conditions(const Request& request, std::string_view prefix = {});
// On writes only If-Match: etag and If-None-Match: * have a meaning; else NotImplemented.
S3Result<object::Conditions> parse_write_conditions(const Request& request);
S3Result<object::Conditions> parse_delete_conditions(const Request& request);
// Which condition of a read does not hold, for the error document.
S3Error precondition_failed(const object::Conditions& conditions, const object::ObjectInfo& info);

struct ByteRange {
  uint64_t offset = 0, length = 0;
};
enum class RangeKind : uint8_t { whole, part, unsatisfiable };
struct ParsedRange {
  RangeKind kind = RangeKind::whole;
  ByteRange range;
};
// Whether If-Range lets the Range header count (RFC 9110 13.1.5): else the whole object is meant, because it is not the one whose beginning
// the client has.
bool range_applies(const Request& request, const object::ObjectInfo& info);
// A Range header over `size` bytes (RFC 9110 14.2). What is malformed or names several ranges is ignored: the whole object is meant.
ParsedRange parse_range(std::string_view text, uint64_t size);
// x-amz-copy-source-range: both ends must be given and lie inside. Errors: InvalidArgument.
S3Result<ByteRange> parse_copy_range(std::string_view text, uint64_t size);

// Headers that GET and HEAD show of an object. metadata: the object's, or what the request put in its place.
void add_object_headers(ResponseHead& response, const object::ObjectInfo& info, const object::ObjectMetadata& metadata);
void add_version_header(ResponseHead& response, const Request& request, std::string_view version_id);

std::string quoted_etag(std::string_view etag);
std::string_view unquoted(std::string_view etag);
std::string iso_time(WallTime time);  // 2009-10-12T17:50:30.000Z
std::string http_time(WallTime time);
std::optional<WallTime> parse_iso_time(std::string_view text);
std::optional<WallTime> parse_time(
    std::string_view text);  // an HTTP date, or an ISO one; what 64 bits cannot hold is the last or first that they do

}  // namespace quarry::frontends::s3
