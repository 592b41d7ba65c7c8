// Receiving bodies: object data into an ObjectWriter without copies, and small documents into text.
#pragma once
#include "auth/aws_chunked.h"
#include "frontends/s3/checksum_headers.h"
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

// What the headers of a PUT say about its body.
struct UploadPlan {
  uint64_t size = 0;  // of the data, without aws-chunked framing
  SentChecksum checksum;
  object::Expected expected;    // receive_upload adds what comes in a trailer
  bool compute_sha256 = false;  // for PutOptions
  // The sent checksum is of another algorithm than the one to be kept: receive_upload checks it, not the writer.
  bool verify_here = false;
  std::string verified;  // then: its raw value
};
// Errors: MissingContentLength, EntityTooLarge, InvalidDigest, InvalidRequest (checksum headers).
S3Result<UploadPlan> plan_upload(const Request& request);

// Moves the whole body into the writer, in buffers of transfer_buffer_bytes, one being written while the next is received. Every byte,
// chunk signature and trailer is verified when it returns, but for what ObjectWriter::finish(plan.expected) checks.
Task<S3Result<void>> receive_upload(Request& request, UploadPlan& plan, object::ObjectWriter& writer);

// The error of a finished write. algorithm: of the checksum that was sent, to name it when it was wrong.
S3Error write_error(const Request& request, const Error& error, ChecksumAlgorithm algorithm);

// The whole body of a request for settings, verified against x-amz-content-sha256, Content-MD5 and x-amz-checksum-*.
// Errors: MaxMessageLengthExceeded, MissingRequestBodyError (if it must not be empty), XAmzContentSHA256Mismatch, BadDigest,
// IncompleteBody. ignored: the x-amz-checksum-* headers of the request speak of something else than its body
enum class Digests : uint8_t { ignored, optional, required };
enum class EmptyBody : uint8_t { allowed, refused };
Task<S3Result<std::string>> read_document(Request& request, Digests digests, EmptyBody empty);

}  // namespace quarry::frontends::s3
