// One S3 request on its way through the front end: who asks, what is addressed, and the services that answer. Confined to its executor.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "auth/identity.h"
#include "auth/sigv4.h"
#include "frontends/s3/errors.h"
#include "io/clock.h"
#include "object/object_engine.h"
#include "observe/request_context.h"
#include "wire/http_server.h"

namespace quarry::frontends::s3 {

struct S3Options {
  std::string region = "us-east-1";
  // Host names whose sub-domains are buckets ("s3.example.org": bucket.s3.example.org). Those of localhost always are,
  // and path style always works.
  std::vector<std::string> virtual_hosts;
  uint64_t put_size_max = object::kPartSizeMax;              // bytes of one PUT
  size_t document_bytes_max = 4 * 1024 * 1024;               // of an XML request body
  size_t transfer_buffer_bytes = kMiB;                       // pieces in which bodies are received and sent
  Duration slow_answer_interval = std::chrono::seconds(10);  // between signs of life of an answer that takes long
};

// What operations work with; outlives every request.
struct S3Services {
  object::ObjectEngine& objects;
  auth::IdentityStore& identities;
  Clock& clock;
  S3Options options;
};

struct Operation;

struct Request {
  HttpExchange& exchange;
  S3Services& services;
  const RequestHead& head;
  RequestContext ctx;
  const Operation* operation = nullptr;

  // x-amz-* parameters of the query stand for headers of these names: SDKs put them there when they make presigned URLs. Views borrow head.
  std::vector<HttpField> query_headers;
  std::string bucket, key;  // decoded; empty where the request addresses the service or a bucket
  bool is_virtual_host = false;

  std::shared_ptr<const auth::Credential> credential;  // null: anonymous
  auth::RequestSignature signature;
  auth::ChunkSigningContext chunk_signing;
  // Present when access() had to read it.
  std::optional<object::BucketInfo> bucket_info;

  // For accounts of usage: bytes of bodies, and whether the operation answered with an error by itself, or broke off.
  uint64_t bytes_sent = 0;
  bool failed = false;
  std::string request_id, host_id;  // as in x-amz-request-id and x-amz-id-2

  bool is_administrator() const { return credential != nullptr && credential->user.administrator; }
  std::string_view user_id() const { return credential == nullptr ? std::string_view() : std::string_view(credential->user.id); }

  std::optional<std::string_view> header(std::string_view name) const;
  std::string_view header_or(std::string_view name, std::string_view otherwise = {}) const { return header(name).value_or(otherwise); }
  // All headers, those that stand in the query behind the others.
  template <class Visit>
  void for_each_header(Visit visit) const {
    for (const auto& field : head.headers) visit(field);
    for (const auto& field : query_headers) visit(field);
  }
  bool has_query(std::string_view name) const { return head.has_query(name); }
  std::string_view query_or(std::string_view name, std::string_view otherwise = {}) const {
    const auto* found = head.find_query(name);
    return found == nullptr ? otherwise : std::string_view(found->value);
  }
  std::string version_id() const { return std::string(query_or("versionId")); }
  std::string upload_id() const { return std::string(query_or("uploadId")); }

  S3Error error(const Error& from) const {
    return to_s3_error(from, {.bucket = bucket, .key = key, .version_id = query_or("versionId"), .upload_id = query_or("uploadId")});
  }

  // A head with the identifiers every answer carries.
  ResponseHead answer(int status = 200) const;
  // Sends a whole answer; a client that is gone is nobody's error.
  Task<S3Result<void>> respond(ResponseHead response, std::string body = {});
  Task<S3Result<void>> respond_xml(std::string document, int status = 200);
  Task<S3Result<void>> respond_empty(int status);
};

// What Request::query_headers is filled with. Signatures are left out, and checksums: AWS ignores them there (the JavaScript SDK presigns
// the checksum of an empty body), and so is what a header says itself.
std::vector<HttpField> headers_in_query(const RequestHead& head);

// Whether the one who asks may use this bucket: its owner, and administrators. Reads the bucket for others than administrators, or where
// x-amz-expected-bucket-owner asks for it.
Task<S3Result<void>> check_access(Request& request, std::string bucket_name);

}  // namespace quarry::frontends::s3
