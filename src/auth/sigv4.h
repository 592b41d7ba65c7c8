// AWS Signature Version 4 as S3 uses it: signing (command line, load generators, tests) and verification (front end), in headers and in
// the query (presigned URLs), and the chain of signatures over the chunks of a streaming body.
// Which reading of the standard: docs/protocols/s3.md. Pure but for SigningKeyCache; nothing here waits.
#pragma once
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "codec/digest.h"
#include "io/clock.h"
#include "wire/http_message.h"

namespace quarry::auth {

// ---- what both sides share -----------------------------------------------------------------------------------------------------------

inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";
inline constexpr std::string_view kEmptySha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// What x-amz-content-sha256 says about the body.
enum class PayloadKind : uint8_t {
  absent,                      // no header (allowed in the query form: unsigned)
  unsigned_payload,            // UNSIGNED-PAYLOAD
  sha256,                      // 64 hex digits: the body must have this digest
  streaming_signed,            // STREAMING-AWS4-HMAC-SHA256-PAYLOAD: aws-chunked, each chunk signed
  streaming_signed_trailer,    // STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER
  streaming_unsigned_trailer,  // STREAMING-UNSIGNED-PAYLOAD-TRAILER: aws-chunked, not signed, checksum behind the data
};
constexpr bool payload_is_chunked(PayloadKind kind) { return kind >= PayloadKind::streaming_signed; }
constexpr bool payload_has_trailer(PayloadKind kind) { return kind >= PayloadKind::streaming_signed_trailer; }

// HMAC key of a day, region and service: HMAC chain over "AWS4" + secret.
Sha256Bytes derive_signing_key(std::string_view secret, std::string_view date, std::string_view region, std::string_view service);

// "20130524T000000Z" of a wall time, and back (seconds since 1970). Errors: malformed.
std::string amz_timestamp(WallTime now);
Result<int64_t> parse_amz_timestamp(std::string_view text);

// Bounded cache of signing keys; thread-safe. Full: the whole cache is dropped (a key costs 2 us to make again).
class SigningKeyCache {
 public:
  static constexpr size_t kKeysMax = 4096;
  SigningKeyCache();
  ~SigningKeyCache();
  Sha256Bytes get(std::string_view access_key, std::string_view secret, std::string_view date, std::string_view region);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// ---- signing: the client's side ------------------------------------------------------------------------------------------------------

struct SigningCredentials {
  std::string access_key, secret_key;
  std::string region = "us-east-1";
};

struct RequestToSign {
  std::string_view method;
  std::string_view host;       // as the Host header will be: "127.0.0.1:9000"
  std::string_view raw_path;   // percent-encoded by percent_encode(path, keep_slash = true), beginning with '/'
  std::string_view raw_query;  // percent-encoded, without '?'
};

// Adds x-amz-date, x-amz-content-sha256 and Authorization to headers; signs Host, Content-Type, Content-MD5 and all x-amz-* that are there.
//   payload_hash: sha256_hex(body), kUnsignedPayload, or a STREAMING-... name
// Returns the hex signature (the seed of a chunk chain). `key` may be given to save its derivation (a load generator's inner loop).
std::string sign_request(const SigningCredentials& credentials, const RequestToSign& request, HeaderBlock& headers,
                         std::string_view payload_hash, WallTime now, const Sha256Bytes* key = nullptr);

// The raw query, with signature, of a presigned URL: host + raw_path + '?' + result. headers: what the user of the URL must send too.
std::string presign_query(const SigningCredentials& credentials, const RequestToSign& request, std::span<const HttpField> headers,
                          int64_t expires_seconds, WallTime now);

// ---- verification: the server's side -------------------------------------------------------------------------------------------------

// Why a request is not accepted, in S3's own words: the front end sends it as it is.
struct Refusal {
  std::string_view code;  // S3's error code, a literal: "SignatureDoesNotMatch"
  std::string message;
  std::vector<std::pair<std::string, std::string>> details;  // further elements of the error document
};
template <class T>
using Checked = std::expected<T, Refusal>;

enum class SignaturePlace : uint8_t { none, header, query };

// The signature of a request, taken apart but not yet verified. Views borrow the RequestHead.
struct RequestSignature {
  SignaturePlace place = SignaturePlace::none;  // none: anonymous, the rest is empty
  std::string_view access_key, date, region;
  std::string_view signed_headers;  // "host;x-amz-date"
  std::string_view signature;
  std::string timestamp;        // 20130524T000000Z
  int64_t time = 0;             // the same, seconds since 1970
  int64_t expires_seconds = 0;  // query form
  PayloadKind payload = PayloadKind::absent;
  std::string_view payload_text;  // x-amz-content-sha256 as sent
  Sha256Bytes payload_sha256{};   // of kind sha256
};

struct VerifyOptions {
  std::string_view region;  // of this server
  WallTime now = 0;
  int64_t skew_seconds_max = 15 * 60;
};

// What is answered to signature version 2, in headers, queries and forms: it says what to set.
Refusal signature_v2_refusal();

// Finds and checks the form, the scope and the time of the signature; looks at no secret.
Checked<RequestSignature> parse_signature(const RequestHead& request, const VerifyOptions& options);

// Continues where the head's signature ended: signatures of chunks and trailers.
struct ChunkSigningContext {
  Sha256Bytes key{};
  std::string timestamp, scope;    // scope: date/region/s3/aws4_request
  std::string previous_signature;  // hex; at first the seed signature
};

// The signature of a browser form upload stands in fields of the form and is over its policy document, as sent. Views borrow the fields.
struct FormSignatureFields {
  std::string_view algorithm, credential, date, policy, signature;
};
inline constexpr int64_t kFormSignatureSecondsMax = 7 * 24 * 3600;  // from x-amz-date; the policy's own expiration usually comes first
Checked<RequestSignature> parse_form_signature(const FormSignatureFields& fields, const VerifyOptions& options);
Checked<void> verify_form_signature(std::string_view policy, const RequestSignature& signature, const Sha256Bytes& signing_key);

// Compares the signature with the one the secret's owner would have made (in constant time). signing_key: derive_signing_key(secret, ...).
Checked<ChunkSigningContext> verify_signature(const RequestHead& request, const RequestSignature& signature,
                                              const Sha256Bytes& signing_key);

// Hex signature of the next chunk (its payload's SHA-256), or of the trailers (SHA-256 of their canonical text); advances the context.
std::string sign_chunk(ChunkSigningContext& context, const Sha256Bytes& payload_sha256);
std::string sign_trailer(ChunkSigningContext& context, const Sha256Bytes& trailer_sha256);

}  // namespace quarry::auth
