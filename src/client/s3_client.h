// S3Client: what our own command line, load generator and tests need of S3, against any S3 server.
// Signature V4 with unsigned payloads; every upload carries a CRC64NVME, every whole download is checked against one if sent.
// Confined to the executor of its HttpClient.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/clock.h"
#include "wire/http_client.h"

namespace quarry::client {

struct Credentials {
  std::string access_key, secret_key;
};

struct S3Endpoint {
  std::string url;  // "http://127.0.0.1:9000"
  Credentials credentials;
  std::string region = "us-east-1";
};

struct RemoteObject {
  std::string key;
  uint64_t size = 0;
  std::string etag;  // without quotes
  std::string version_id;
  std::string last_modified;  // as sent
  std::string content_type;
  std::string checksum_crc64nvme;  // base64, when sent
  bool delete_marker = false;
  std::vector<std::pair<std::string, std::string>> user_metadata;
};

struct RemotePart {
  uint32_t number = 0;
  uint64_t size = 0;
  std::string etag;
};

struct RemoteList {
  std::vector<RemoteObject> objects;
  std::vector<std::string> common_prefixes;
  std::string next;  // continuation token; empty: complete
};

// One request, any operation: the building block of the named ones below.
struct S3Request {
  std::string method = "GET";
  std::string bucket, key;
  std::vector<std::pair<std::string, std::string>> query;  // decoded
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<SharedBytes> body;
  TimePoint deadline = kNoDeadline;
};

struct RemoteVersion {
  std::string key;
  std::string version_id = {};  // empty: whatever is current
};
struct RemoteVersions {
  std::vector<RemoteVersion> versions;
  RemoteVersion next = {};  // where the next page begins; its key empty: there is none
};

class S3Client {
 public:
  S3Client(HttpClient& http, S3Endpoint endpoint, Clock& clock);

  // Sends; any status of 300 or more becomes an Error whose context is "S3Code: message".
  Task<Result<std::unique_ptr<ClientResponse>>> send(S3Request request);
  // The same with the whole answer as text.
  Task<Result<std::string>> call(S3Request request);

  // One's own bucket can be made again where the server's region is us-east-1 (as at AWS): nothing changes then.
  Task<Result<void>> create_bucket(std::string bucket);
  Task<Result<bool>> has_bucket(std::string bucket);  // whether there is one that may be used
  Task<Result<void>> delete_bucket(std::string bucket);
  Task<Result<std::vector<RemoteObject>>> list_buckets();  // key: name, last_modified: creation

  Task<Result<RemoteObject>> put(std::string bucket, std::string key, std::vector<SharedBytes> body,
                                 std::vector<std::pair<std::string, std::string>> headers = {});
  Task<Result<RemoteObject>> head(std::string bucket, std::string key, std::string version_id = {});
  // Response head is there; the body is read by the caller. first/last: inclusive byte range when has_range.
  Task<Result<std::unique_ptr<ClientResponse>>> get(std::string bucket, std::string key, std::string range = {}, std::string if_match = {},
                                                    std::string version_id = {});
  enum class Missing : uint8_t { is_fine, is_an_error };  // what S3 answers by itself, or precondition_failed
  Task<Result<void>> remove(std::string bucket, std::string key, std::string version_id = {}, Missing missing = Missing::is_fine);
  // Per-key errors ("key: code message"); empty: all gone. At most 1,000. A version id removes that version for good.
  Task<Result<std::vector<std::string>>> remove_many(std::string bucket, std::vector<RemoteVersion> targets);
  // The next 1,000 versions and delete markers, behind those of the page before.
  Task<Result<RemoteVersions>> list_versions(std::string bucket, RemoteVersion after = {});
  Task<Result<void>> copy(std::string from_bucket, std::string from_key, std::string bucket, std::string key);
  Task<Result<RemoteList>> list(std::string bucket, std::string prefix, std::string delimiter, std::string continuation,
                                size_t limit = 1000);

  Task<Result<std::string>> create_upload(std::string bucket, std::string key, std::string content_type);
  Task<Result<RemotePart>> put_part(std::string bucket, std::string key, std::string upload_id, uint32_t number,
                                    std::vector<SharedBytes> body);
  Task<Result<std::vector<RemotePart>>> list_parts(std::string bucket, std::string key, std::string upload_id);
  Task<Result<std::vector<std::pair<std::string, std::string>>>> list_uploads(std::string bucket, std::string key);  // (key, upload id)
  Task<Result<RemoteObject>> complete_upload(std::string bucket, std::string key, std::string upload_id, std::vector<RemotePart> parts);
  Task<Result<void>> abort_upload(std::string bucket, std::string key, std::string upload_id);

  const S3Endpoint& endpoint() const { return endpoint_; }

 private:
  HttpClient& http_;
  S3Endpoint endpoint_;
  Clock& clock_;
};

}  // namespace quarry::client
