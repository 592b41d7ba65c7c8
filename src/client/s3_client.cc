#include "client/s3_client.h"

#include <charconv>

#include "auth/sigv4.h"
#include "base/coding.h"
#include "codec/checksum.h"
#include "codec/digest.h"
#include "wire/xml.h"

namespace quarry::client {
namespace {

std::string unquote(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

uint64_t number_or_zero(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

constexpr std::string_view kBucketNameRule =
    " A bucket's name has 3 to 63 characters: lower-case letters, digits, '-' and '.'; it begins and ends with a letter or a digit, holds "
    "no "
    "two dots in a row, is no IPv4 address, and has none of the prefixes and suffixes that S3 keeps for itself (xn--, sthree-, "
    "amzn-s3-demo-; "
    "-s3alias, --ol-s3, .mrap, --x-s3, --table-s3).";

Code code_of(int status, std::string_view s3_code) {
  if (s3_code == "NoSuchKey" || s3_code == "NoSuchBucket" || s3_code == "NoSuchUpload") return Code::not_found;
  if (s3_code == "BucketAlreadyOwnedByYou" || s3_code == "BucketAlreadyExists") return Code::already_exists;
  if (s3_code == "BucketNotEmpty") return Code::not_empty;
  if (s3_code == "BadDigest") return Code::checksum_mismatch;
  switch (status) {
    case 304:
    case 412: return Code::precondition_failed;
    case 400: return Code::invalid_argument;
    case 401:
    case 403: return Code::permission_denied;
    case 404: return Code::not_found;
    case 409: return Code::busy;
    case 416: return Code::out_of_range;
    case 429:
    case 503: return Code::unavailable;
    case 507: return Code::no_space;
    default: return status >= 500 ? Code::internal : Code::invalid_argument;
  }
}

RemoteObject object_of(const ClientResponse& response, std::string key) {
  RemoteObject object;
  object.key = std::move(key);
  object.size = number_or_zero(response.header("content-length"));
  object.etag = unquote(response.header("etag"));
  object.version_id = response.header("x-amz-version-id");
  object.last_modified = response.header("last-modified");
  object.content_type = response.header("content-type");
  object.checksum_crc64nvme = response.header("x-amz-checksum-crc64nvme");
  object.delete_marker = response.header("x-amz-delete-marker") == "true";
  for (const auto& field : response.head().headers) {
    if (field.name.size() > 11 && equal_ignoring_case(field.name.substr(0, 11), "x-amz-meta-")) {
      object.user_metadata.emplace_back(field.name.substr(11), field.value);
    }
  }
  return object;
}

std::string crc64_header(const std::vector<SharedBytes>& body) {
  uint64_t crc = 0;
  for (const auto& part : body) crc = crc64nvme(crc, part);
  uint8_t raw[8];
  store_le(raw, std::byteswap(crc));
  return to_base64(raw);
}

}  // namespace

S3Client::S3Client(HttpClient& http, S3Endpoint endpoint, Clock& clock) : http_(http), endpoint_(std::move(endpoint)), clock_(clock) {}

Task<Result<std::unique_ptr<ClientResponse>>> S3Client::send(S3Request request) {
  CO_TRY_ASSIGN(const Url url, parse_url(endpoint_.url));
  const std::string operation = fmt::format("{} {}/{}", request.method, request.bucket, request.key);

  ClientRequest out;
  out.method = request.method;
  std::string path = "/";
  if (!request.bucket.empty()) path += percent_encode(request.bucket);
  if (!request.key.empty()) path += "/" + percent_encode(request.key, true);
  std::sort(request.query.begin(), request.query.end());
  std::string query;
  for (const auto& [name, value] : request.query) {
    query += query.empty() ? "" : "&";
    query += percent_encode(name) + "=" + percent_encode(value);
  }
  out.target = query.empty() ? path : path + "?" + query;

  for (const auto& [name, value] : request.headers) out.headers.add(name, value);
  const std::string host = url.authority();
  const auth::RequestToSign to_sign{.method = request.method, .host = host, .raw_path = path, .raw_query = query};
  const auth::SigningCredentials credentials{endpoint_.credentials.access_key, endpoint_.credentials.secret_key, endpoint_.region};
  auth::sign_request(credentials, to_sign, out.headers, auth::kUnsignedPayload, clock_.wall_now());
  out.body = std::move(request.body);
  out.deadline = request.deadline;

  auto sent = co_await http_.send(url, std::move(out));
  if (!sent) co_return std::move(sent).error().with(operation);
  std::unique_ptr<ClientResponse> response = std::move(*sent);
  const int status = response->status();
  if (status < 300) co_return response;

  std::string s3_code, message;
  if (request.method != "HEAD") {
    auto text = co_await response->text(1 << 20);
    if (text) {
      if (auto xml = parse_xml(*text)) {
        s3_code = xml->child_text("Code");
        message = xml->child_text("Message");
      }
    }
  }
  if (s3_code.empty() && status == 404)
    s3_code = request.key.empty() ? "there is no such bucket" : "there is no such object";  // HEAD has no body
  if (s3_code.empty()) s3_code = fmt::format("HTTP {}", status);
  if (s3_code == "InvalidBucketName") message += kBucketNameRule;
  co_return fail(code_of(status, s3_code), "{}: {}{}{}", operation, s3_code, message.empty() ? "" : ": ", message);
}

Task<Result<std::string>> S3Client::call(S3Request request) {
  CO_TRY_ASSIGN(auto response, co_await send(std::move(request)));
  Result<std::string> text = co_await response->text();
  if (text && text->find("<Error>") != std::string::npos && text->find("<Error>") < 128) {
    // CopyObject and CompleteMultipartUpload may answer 200 and then fail.
    if (auto xml = parse_xml(*text); xml && xml->name == "Error") {
      co_return fail(code_of(500, xml->child_text("Code")), "{}: {}", xml->child_text("Code"), xml->child_text("Message"));
    }
  }
  co_return text;
}

Task<Result<void>> S3Client::create_bucket(std::string bucket) {
  S3Request request{.method = "PUT", .bucket = bucket};
  CO_TRY(co_await call(std::move(request)));
  co_return Result<void>();
}

Task<Result<bool>> S3Client::has_bucket(std::string bucket) {
  S3Request request{.method = "HEAD", .bucket = bucket};
  auto found = co_await send(std::move(request));
  if (!found && found.error().code() == Code::not_found) co_return false;
  if (!found) co_return std::move(found).error();
  co_return true;
}

Task<Result<void>> S3Client::delete_bucket(std::string bucket) {
  S3Request request{.method = "DELETE", .bucket = bucket};
  CO_TRY(co_await call(std::move(request)));
  co_return Result<void>();
}

Task<Result<std::vector<RemoteObject>>> S3Client::list_buckets() {
  S3Request request;
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  CO_TRY_ASSIGN(const XmlNode xml, parse_xml(text));
  std::vector<RemoteObject> buckets;
  if (const XmlNode* list = xml.child("Buckets")) {
    for (const auto& node : list->children) {
      RemoteObject bucket;
      bucket.key = node.child_text("Name");
      bucket.last_modified = node.child_text("CreationDate");
      buckets.push_back(std::move(bucket));
    }
  }
  co_return buckets;
}

Task<Result<RemoteObject>> S3Client::put(std::string bucket, std::string key, std::vector<SharedBytes> body,
                                         std::vector<std::pair<std::string, std::string>> headers) {
  S3Request request{.method = "PUT", .bucket = bucket, .key = key, .headers = std::move(headers)};
  request.headers.emplace_back("x-amz-checksum-crc64nvme", crc64_header(body));
  request.body = std::move(body);
  CO_TRY_ASSIGN(auto response, co_await send(std::move(request)));
  RemoteObject object = object_of(*response, key);
  CO_TRY(co_await response->text());
  co_return object;
}

Task<Result<RemoteObject>> S3Client::head(std::string bucket, std::string key, std::string version_id) {
  S3Request request{.method = "HEAD", .bucket = bucket, .key = key, .headers = {{"x-amz-checksum-mode", "ENABLED"}}};
  if (!version_id.empty()) request.query.emplace_back("versionId", version_id);
  CO_TRY_ASSIGN(auto response, co_await send(std::move(request)));
  co_return object_of(*response, key);
}

Task<Result<std::unique_ptr<ClientResponse>>> S3Client::get(std::string bucket, std::string key, std::string range, std::string if_match,
                                                            std::string version_id) {
  S3Request request{.bucket = bucket, .key = key};
  request.headers.emplace_back("x-amz-checksum-mode", "ENABLED");
  if (!range.empty()) request.headers.emplace_back("range", range);
  if (!if_match.empty()) request.headers.emplace_back("if-match", "\"" + if_match + "\"");
  if (!version_id.empty()) request.query.emplace_back("versionId", version_id);
  auto response = co_await send(std::move(request));
  co_return response;
}

Task<Result<void>> S3Client::remove(std::string bucket, std::string key, std::string version_id, Missing missing) {
  S3Request request{.method = "DELETE", .bucket = bucket, .key = key};
  if (!version_id.empty()) request.query.emplace_back("versionId", version_id);
  if (missing == Missing::is_an_error) request.headers.emplace_back("if-match", "*");
  CO_TRY(co_await call(std::move(request)));
  co_return Result<void>();
}

Task<Result<std::vector<std::string>>> S3Client::remove_many(std::string bucket, std::vector<RemoteVersion> targets) {
  // Names that XML cannot carry (control characters; bytes that are no text, from stores of former versions) go into a path each.
  const auto carried = std::ranges::partition(targets, [](const RemoteVersion& target) { return xml_carries(target.key); });
  const std::vector<RemoteVersion> alone(std::make_move_iterator(carried.begin()), std::make_move_iterator(carried.end()));
  targets.erase(carried.begin(), carried.end());
  std::vector<std::string> errors;
  for (const auto& target : alone) {
    auto removed = co_await remove(bucket, target.key, target.version_id);
    if (!removed) errors.push_back(percent_encode(target.key, true) + ": " + removed.error().to_string());
  }
  if (targets.empty()) co_return errors;
  XmlWriter xml;
  xml.open("Delete").element("Quiet", "true");
  for (const auto& target : targets) {
    xml.open("Object").element("Key", target.key);
    if (!target.version_id.empty()) xml.element("VersionId", target.version_id);
    xml.close();
  }
  xml.close();
  S3Request request{.method = "POST", .bucket = bucket, .query = {{"delete", ""}}};
  request.body.push_back(SharedBytes::copy_of(bytes_of(xml.str())));
  request.headers.emplace_back("x-amz-checksum-crc64nvme", crc64_header(request.body));
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  CO_TRY_ASSIGN(const XmlNode answer, parse_xml(text));
  for (const auto& node : answer.children) {
    if (node.name == "Error")
      errors.push_back(fmt::format("{}: {} {}", node.child_text("Key"), node.child_text("Code"), node.child_text("Message")));
  }
  co_return errors;
}

Task<Result<RemoteVersions>> S3Client::list_versions(std::string bucket, RemoteVersion after) {
  S3Request request{.bucket = bucket, .query = {{"versions", ""}, {"encoding-type", "url"}}};
  if (!after.key.empty()) request.query.emplace_back("key-marker", after.key);
  if (!after.version_id.empty()) request.query.emplace_back("version-id-marker", after.version_id);
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  XmlLimits limits;
  limits.bytes_max = 64 * kMiB;
  CO_TRY_ASSIGN(const XmlNode xml, parse_xml(text, limits));
  RemoteVersions page;
  for (const auto& node : xml.children) {
    if (node.name != "Version" && node.name != "DeleteMarker") continue;
    RemoteVersion version;
    CO_TRY_ASSIGN(version.key, percent_decode(node.child_text("Key"), PlusSign::is_space));
    version.version_id = node.child_text("VersionId");
    page.versions.push_back(std::move(version));
  }
  if (xml.child_text("IsTruncated") == "true") {
    CO_TRY_ASSIGN(page.next.key, percent_decode(xml.child_text("NextKeyMarker"), PlusSign::is_space));
    page.next.version_id = xml.child_text("NextVersionIdMarker");
  }
  co_return page;
}

Task<Result<void>> S3Client::copy(std::string from_bucket, std::string from_key, std::string bucket, std::string key) {
  S3Request request{.method = "PUT", .bucket = bucket, .key = key};
  request.headers.emplace_back("x-amz-copy-source", "/" + percent_encode(from_bucket) + "/" + percent_encode(from_key, true));
  CO_TRY(co_await call(std::move(request)));
  co_return Result<void>();
}

Task<Result<RemoteList>> S3Client::list(std::string bucket, std::string prefix, std::string delimiter, std::string continuation,
                                        size_t limit) {
  S3Request request{.bucket = bucket, .query = {{"list-type", "2"}, {"encoding-type", "url"}, {"max-keys", std::to_string(limit)}}};
  if (!prefix.empty()) request.query.emplace_back("prefix", prefix);
  if (!delimiter.empty()) request.query.emplace_back("delimiter", delimiter);
  if (!continuation.empty()) request.query.emplace_back("continuation-token", continuation);
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  XmlLimits limits;
  limits.bytes_max = 64 * kMiB;
  CO_TRY_ASSIGN(const XmlNode xml, parse_xml(text, limits));
  RemoteList page;
  for (const auto& node : xml.children) {
    if (node.name == "Contents") {
      RemoteObject object;
      CO_TRY_ASSIGN(object.key, percent_decode(node.child_text("Key"), PlusSign::is_space));
      object.size = number_or_zero(node.child_text("Size"));
      object.etag = unquote(node.child_text("ETag"));
      object.last_modified = node.child_text("LastModified");
      page.objects.push_back(std::move(object));
    } else if (node.name == "CommonPrefixes") {
      CO_TRY_ASSIGN(std::string name, percent_decode(node.child_text("Prefix"), PlusSign::is_space));
      page.common_prefixes.push_back(std::move(name));
    }
  }
  if (xml.child_text("IsTruncated") == "true") page.next = xml.child_text("NextContinuationToken");
  co_return page;
}

Task<Result<std::string>> S3Client::create_upload(std::string bucket, std::string key, std::string content_type) {
  S3Request request{.method = "POST", .bucket = bucket, .key = key, .query = {{"uploads", ""}}};
  if (!content_type.empty()) request.headers.emplace_back("content-type", content_type);
  request.headers.emplace_back("x-amz-checksum-algorithm", "CRC64NVME");
  request.headers.emplace_back("x-amz-checksum-type", "FULL_OBJECT");
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  CO_TRY_ASSIGN(const XmlNode xml, parse_xml(text));
  std::string upload_id(xml.child_text("UploadId"));
  if (upload_id.empty()) co_return fail(Code::malformed, "the server's answer to CreateMultipartUpload names no upload");
  co_return upload_id;
}

Task<Result<RemotePart>> S3Client::put_part(std::string bucket, std::string key, std::string upload_id, uint32_t number,
                                            std::vector<SharedBytes> body) {
  S3Request request{
      .method = "PUT", .bucket = bucket, .key = key, .query = {{"partNumber", std::to_string(number)}, {"uploadId", upload_id}}};
  request.headers.emplace_back("x-amz-checksum-crc64nvme", crc64_header(body));
  RemotePart part;
  part.number = number;
  for (const auto& piece : body) part.size += piece.size();
  request.body = std::move(body);
  CO_TRY_ASSIGN(auto response, co_await send(std::move(request)));
  part.etag = unquote(response->header("etag"));
  CO_TRY(co_await response->text());
  co_return part;
}

Task<Result<std::vector<RemotePart>>> S3Client::list_parts(std::string bucket, std::string key, std::string upload_id) {
  std::vector<RemotePart> parts;
  std::string marker;
  for (;;) {
    S3Request request{.bucket = bucket, .key = key, .query = {{"uploadId", upload_id}}};
    if (!marker.empty()) request.query.emplace_back("part-number-marker", marker);
    CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
    CO_TRY_ASSIGN(const XmlNode xml, parse_xml(text));
    for (const auto& node : xml.children) {
      if (node.name != "Part") continue;
      parts.push_back({static_cast<uint32_t>(number_or_zero(node.child_text("PartNumber"))), number_or_zero(node.child_text("Size")),
                       unquote(node.child_text("ETag"))});
    }
    if (xml.child_text("IsTruncated") != "true") break;
    std::string next(xml.child_text("NextPartNumberMarker"));
    if (next.empty() || next == marker) co_return fail(Code::malformed, "the server's list of parts of {}/{} does not get on", bucket, key);
    marker = std::move(next);
  }
  co_return parts;
}

Task<Result<std::vector<std::pair<std::string, std::string>>>> S3Client::list_uploads(std::string bucket, std::string key) {
  S3Request request{.bucket = bucket, .query = {{"uploads", ""}, {"prefix", key}, {"encoding-type", "url"}}};
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  CO_TRY_ASSIGN(const XmlNode xml, parse_xml(text));
  std::vector<std::pair<std::string, std::string>> uploads;
  for (const auto& node : xml.children) {
    if (node.name != "Upload") continue;
    CO_TRY_ASSIGN(std::string name, percent_decode(node.child_text("Key"), PlusSign::is_space));
    uploads.emplace_back(std::move(name), node.child_text("UploadId"));
  }
  co_return uploads;
}

Task<Result<RemoteObject>> S3Client::complete_upload(std::string bucket, std::string key, std::string upload_id,
                                                     std::vector<RemotePart> parts) {
  XmlWriter xml;
  xml.open("CompleteMultipartUpload");
  for (const auto& part : parts) {
    xml.open("Part").element("PartNumber", uint64_t{part.number}).element("ETag", "\"" + part.etag + "\"").close();
  }
  xml.close();
  S3Request request{.method = "POST", .bucket = bucket, .key = key, .query = {{"uploadId", upload_id}}};
  request.body.push_back(SharedBytes::copy_of(bytes_of(xml.str())));
  CO_TRY_ASSIGN(const std::string text, co_await call(std::move(request)));
  CO_TRY_ASSIGN(const XmlNode answer, parse_xml(text));
  RemoteObject object;
  object.key = key;
  object.etag = unquote(answer.child_text("ETag"));
  for (const auto& part : parts) object.size += part.size;
  co_return object;
}

Task<Result<void>> S3Client::abort_upload(std::string bucket, std::string key, std::string upload_id) {
  S3Request request{.method = "DELETE", .bucket = bucket, .key = key, .query = {{"uploadId", upload_id}}};
  CO_TRY(co_await call(std::move(request)));
  co_return Result<void>();
}

}  // namespace quarry::client
