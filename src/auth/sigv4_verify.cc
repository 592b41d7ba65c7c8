// The verifying side of Signature V4: taking the signature of a request apart, and comparing it.
#include <charconv>
#include <ctime>

#include "auth/canonical_request.h"
#include "auth/sigv4.h"
#include "base/coding.h"

namespace quarry::auth {
namespace {

constexpr int64_t kPresignedSecondsMax = 7 * 24 * 3600;

Refusal refuse(std::string_view code, std::string message) { return Refusal{code, std::move(message), {}}; }
std::unexpected<Refusal> refused(std::string_view code, std::string message) { return std::unexpected(refuse(code, std::move(message))); }

std::unexpected<Refusal> invalid_argument(std::string message, std::string_view name, std::string_view value) {
  return std::unexpected(
      Refusal{"InvalidArgument", std::move(message), {{"ArgumentName", std::string(name)}, {"ArgumentValue", std::string(value)}}});
}
template <class... Args>
std::unexpected<Refusal> malformed_header(fmt::format_string<Args...> format, Args&&... args) {
  return refused("AuthorizationHeaderMalformed",
                 "The authorization header is malformed; " + fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
std::unexpected<Refusal> bad_query(fmt::format_string<Args...> format, Args&&... args) {
  return refused("AuthorizationQueryParametersError", fmt::format(format, std::forward<Args>(args)...));
}

std::unexpected<Refusal> asymmetric() {
  return refused("NotImplemented", "Asymmetric signatures (Signature Version 4A) are not supported. Please use AWS4-HMAC-SHA256.");
}

std::string iso_time(int64_t seconds) {
  const auto time = static_cast<time_t>(seconds);
  tm parts{};
  gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec);
}

bool is_date(std::string_view text) {
  if (text.size() != 8) return false;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
  }
  const int month = (text[4] - '0') * 10 + text[5] - '0';
  const int day = (text[6] - '0') * 10 + text[7] - '0';
  return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

enum class CredentialFault : uint8_t { none, shape, service, terminal, date };
struct CredentialParts {
  CredentialFault fault = CredentialFault::none;
  std::string_view access_key, date, region, service, terminal;
};

// <access key>/YYYYMMDD/REGION/SERVICE/aws4_request
CredentialParts parse_credential(std::string_view text) {
  CredentialParts parts;
  std::string_view* const fields[] = {&parts.access_key, &parts.date, &parts.region, &parts.service, &parts.terminal};
  size_t count = 0;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find('/', at), text.size());
    if (count < 5) *fields[count] = text.substr(at, end - at);
    ++count;
    at = end + 1;
  }
  if (count != 5) {
    parts.fault = CredentialFault::shape;
  } else if (parts.service != "s3") {
    parts.fault = CredentialFault::service;
  } else if (parts.terminal != kTerminal) {
    parts.fault = CredentialFault::terminal;
  } else if (!is_date(parts.date)) {
    parts.fault = CredentialFault::date;
  }
  return parts;
}

std::string credential_fault_text(const CredentialParts& parts) {
  switch (parts.fault) {
    case CredentialFault::service: return fmt::format("incorrect service \"{}\". This endpoint belongs to \"s3\".", parts.service);
    case CredentialFault::terminal: return fmt::format("incorrect terminal \"{}\". This endpoint uses \"aws4_request\".", parts.terminal);
    case CredentialFault::date:
      return fmt::format("incorrect date format \"{}\". This date in the credential must be in the format \"yyyyMMdd\".", parts.date);
    default: return "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".";
  }
}

Checked<void> parse_payload(std::string_view text, RequestSignature& signature) {
  signature.payload_text = text;
  if (text == kUnsignedPayload) {
    signature.payload = PayloadKind::unsigned_payload;
  } else if (text == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") {
    signature.payload = PayloadKind::streaming_signed;
  } else if (text == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") {
    signature.payload = PayloadKind::streaming_signed_trailer;
  } else if (text == "STREAMING-UNSIGNED-PAYLOAD-TRAILER") {
    signature.payload = PayloadKind::streaming_unsigned_trailer;
  } else if (text == "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD" || text == "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER") {
    return asymmetric();
  } else {
    auto bytes = text.size() == 64 ? from_hex(text) : Result<std::string>(Error(Code::malformed));
    if (!bytes) {
      return invalid_argument(
          "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, "
          "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, "
          "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER "
          "or a valid sha256 value.",
          "x-amz-content-sha256", text);
    }
    std::memcpy(signature.payload_sha256.data(), bytes->data(), 32);
    signature.payload = PayloadKind::sha256;
  }
  return {};
}

std::string_view header_of(const RequestHead& request, std::string_view name) { return request.find_or(name); }

std::string_view query_of(const RequestHead& request, std::string_view name) {
  const auto* parameter = request.find_query(name);
  return parameter == nullptr ? std::string_view() : std::string_view(parameter->value);
}

Refusal invalid_token() { return refuse("InvalidToken", "The provided token is malformed or otherwise invalid."); }

// Takes "Credential=..., SignedHeaders=..., Signature=..." apart. White space is not significant.
Checked<void> parse_components(std::string_view text, std::string_view (&values)[3]) {
  constexpr std::string_view kNames[] = {"Credential", "SignedHeaders", "Signature"};
  std::string_view parts[3];
  size_t count = 0;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    std::string_view part = text.substr(at, end - at);
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    while (!part.empty() && part.back() == ' ') part.remove_suffix(1);
    if (count < 3) parts[count] = part;
    ++count;
    at = end + 1;
  }
  if (count != 3) return malformed_header("the authorization header requires three components: Credential, SignedHeaders, and Signature.");
  bool seen[3] = {};
  for (const std::string_view part : parts) {
    const size_t equal = part.find('=');
    if (equal == std::string_view::npos || part.find('=', equal + 1) != std::string_view::npos) {
      return malformed_header("the authorization component \"{}\" is malformed.", part);
    }
    for (size_t n = 0; n < 3; ++n) {
      if (part.substr(0, equal) != kNames[n]) continue;
      values[n] = part.substr(equal + 1);
      seen[n] = true;
    }
  }
  for (size_t n = 0; n < 3; ++n) {
    if (!seen[n]) return malformed_header("missing {}.", kNames[n]);
  }
  return {};
}

Checked<RequestSignature> parse_header_form(const RequestHead& request, std::string_view authorization, const VerifyOptions& options) {
  RequestSignature signature;
  signature.place = SignaturePlace::header;

  // How it is signed comes first: who signs in another way has no reason to send what this one needs.
  const size_t space = authorization.find(' ');
  if (space == std::string_view::npos) {
    return invalid_argument("Authorization header is invalid -- one and only one ' ' (space) required.", "Authorization", authorization);
  }
  const std::string_view algorithm = authorization.substr(0, space);
  if (algorithm == "AWS") return std::unexpected(signature_v2_refusal());
  if (algorithm == "AWS4-ECDSA-P256-SHA256") return asymmetric();
  if (algorithm != kAlgorithm) return invalid_argument("Unsupported Authorization Type", "Authorization", algorithm);

  std::string_view date = header_of(request, "x-amz-date");
  if (!date.empty()) {
    auto time = parse_amz_timestamp(date);
    if (!time) return refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header.");
    signature.time = *time;
    signature.timestamp = date;
  } else {
    date = header_of(request, "date");
    auto time = parse_amz_timestamp(date);
    if (!time) time = parse_http_date(date);
    if (!time || *time < 0 || *time > kSigningTimeMax)
      return refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header.");
    signature.time = *time;
    signature.timestamp = amz_timestamp(*time * 1'000'000'000);
  }

  const int64_t now = options.now / 1'000'000'000;
  if (signature.time > now + options.skew_seconds_max || signature.time < now - options.skew_seconds_max) {
    Refusal skewed = refuse("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.");
    skewed.details = {{"RequestTime", signature.timestamp},
                      {"ServerTime", iso_time(now)},
                      {"MaxAllowedSkewMilliseconds", std::to_string(options.skew_seconds_max * 1000)}};
    return std::unexpected(std::move(skewed));
  }

  std::string_view values[3];
  if (auto parsed = parse_components(authorization.substr(space + 1), values); !parsed) return std::unexpected(std::move(parsed).error());
  const CredentialParts credential = parse_credential(values[0]);
  if (credential.fault != CredentialFault::none) return malformed_header("{}", credential_fault_text(credential));
  if (credential.region != options.region) {
    Refusal wrong = refuse("AuthorizationHeaderMalformed",
                           fmt::format("The authorization header is malformed; the region \"{}\" is wrong; expecting \"{}\"",
                                       credential.region, options.region));
    wrong.details = {{"Region", std::string(options.region)}};
    return std::unexpected(std::move(wrong));
  }
  if (std::string_view(signature.timestamp).substr(0, 8) != credential.date) {
    return malformed_header("The authorization header is malformed; Invalid credential date. Date is not the same as X-Amz-Date.");
  }
  if (!header_of(request, "x-amz-security-token").empty()) return std::unexpected(invalid_token());

  signature.access_key = credential.access_key;
  signature.date = credential.date;
  signature.region = credential.region;
  signature.signed_headers = values[1];
  signature.signature = values[2];

  const std::string_view payload = header_of(request, "x-amz-content-sha256");
  if (payload.empty()) return refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256");
  if (auto parsed = parse_payload(payload, signature); !parsed) return std::unexpected(std::move(parsed).error());
  return signature;
}

Checked<RequestSignature> parse_query_form(const RequestHead& request, const VerifyOptions& options) {
  RequestSignature signature;
  signature.place = SignaturePlace::query;
  const auto missing = [] {
    return bad_query(
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, "
        "X-Amz-SignedHeaders, and X-Amz-Expires parameters.");
  };

  const std::string_view algorithm = query_of(request, "X-Amz-Algorithm");
  if (algorithm.empty()) return missing();
  if (algorithm == "AWS4-ECDSA-P256-SHA256") return bad_query("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"");
  if (algorithm != kAlgorithm) return bad_query("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256\"");

  const std::string_view credential_text = query_of(request, "X-Amz-Credential");
  if (credential_text.empty()) return missing();
  const CredentialParts credential = parse_credential(credential_text);
  if (credential.fault != CredentialFault::none) {
    return bad_query("Error parsing the X-Amz-Credential parameter; {}", credential_fault_text(credential));
  }
  if (request.has_query("X-Amz-Security-Token")) return std::unexpected(invalid_token());
  if (credential.region != options.region) {
    Refusal wrong = refuse("AuthorizationQueryParametersError",
                           fmt::format("Error parsing the X-Amz-Credential parameter; the region \"{}\" is wrong; expecting \"{}\"",
                                       credential.region, options.region));
    wrong.details = {{"Region", std::string(options.region)}};
    return std::unexpected(std::move(wrong));
  }

  const std::string_view date = query_of(request, "X-Amz-Date");
  if (date.empty()) return missing();
  const auto time = parse_amz_timestamp(date);
  if (!time) return bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"");
  if (date.substr(0, 8) != credential.date) {
    return bad_query("Invalid credential date \"{}\". This date is not the same as X-Amz-Date: \"{}\".", credential.date,
                     date.substr(0, 8));
  }
  signature.time = *time;
  signature.timestamp = date;
  signature.access_key = credential.access_key;
  signature.date = credential.date;
  signature.region = credential.region;
  signature.signature = query_of(request, "X-Amz-Signature");
  signature.signed_headers = query_of(request, "X-Amz-SignedHeaders");
  if (signature.signature.empty() || signature.signed_headers.empty()) return missing();

  const std::string_view expires = query_of(request, "X-Amz-Expires");
  if (expires.empty()) return missing();
  const auto [end, fault] = std::from_chars(expires.data(), expires.data() + expires.size(), signature.expires_seconds);
  if (fault == std::errc::result_out_of_range ||
      (fault == std::errc() && end == expires.data() + expires.size() && signature.expires_seconds > kPresignedSecondsMax)) {
    return bad_query(
        "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds");
  }
  if (fault != std::errc() || end != expires.data() + expires.size()) return bad_query("X-Amz-Expires should be a number");
  if (signature.expires_seconds < 0) return bad_query("X-Amz-Expires must be non-negative");

  const int64_t now = options.now / 1'000'000'000;
  if ((signature.time + signature.expires_seconds) * 1'000'000'000 < options.now) {
    Refusal expired = refuse("AccessDenied", "Request has expired.");
    expired.details = {{"X-Amz-Expires", std::to_string(signature.expires_seconds)},
                       {"Expires", iso_time(signature.time + signature.expires_seconds)},
                       {"ServerTime", iso_time(now)}};
    return std::unexpected(std::move(expired));
  }
  if (signature.time > now + options.skew_seconds_max) return refused("AccessDenied", "Request is not valid yet.");

  std::string_view payload = query_of(request, "X-Amz-Content-Sha256");
  if (payload.empty()) payload = header_of(request, "x-amz-content-sha256");
  if (payload.empty()) {
    signature.payload_text = kUnsignedPayload;
  } else if (auto parsed = parse_payload(payload, signature); !parsed) {
    return std::unexpected(std::move(parsed).error());
  }
  return signature;
}

bool starts_with_amz(std::string_view name) { return name.size() > 6 && equal_ignoring_case(name.substr(0, 6), "x-amz-"); }

// Whether `name` (any case) is in the list "a;b;c" (lower case).
bool is_listed(std::string_view list, std::string_view name) {
  size_t at = 0;
  while (at <= list.size()) {
    const size_t end = std::min(list.find(';', at), list.size());
    if (equal_ignoring_case(list.substr(at, end - at), name)) return true;
    at = end + 1;
  }
  return false;
}

// Every x-amz-* header, and Host, must be under the signature.
Checked<void> check_all_signed(const RequestHead& request, const RequestSignature& signature) {
  std::string unsigned_names;
  if (!is_listed(signature.signed_headers, "host")) unsigned_names = "host";
  for (const auto& field : request.headers) {
    if (!starts_with_amz(field.name) || is_listed(signature.signed_headers, field.name)) continue;
    // SDKs leave this one out of a presigned URL's list; its value is under the signature all the same.
    if (signature.place == SignaturePlace::query && equal_ignoring_case(field.name, "x-amz-content-sha256")) continue;
    if (!unsigned_names.empty()) unsigned_names.append(", ");
    for (const char c : field.name) unsigned_names.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  }
  if (unsigned_names.empty()) return {};
  Refusal refusal = refuse("AccessDenied", "There were headers present in the request which were not signed");
  refusal.details = {{"HeadersNotSigned", std::move(unsigned_names)}};
  return std::unexpected(std::move(refusal));
}

std::string canonical_request(const RequestHead& request, const RequestSignature& signature) {
  std::string canonical;
  canonical.reserve(1024);
  canonical.append(request.method).append("\n");
  append_canonical_path(request.raw_path, canonical);
  canonical.push_back('\n');
  append_canonical_query(request.query, signature.place == SignaturePlace::query ? std::string_view("X-Amz-Signature") : std::string_view(),
                         canonical);
  canonical.push_back('\n');
  size_t at = 0;
  while (at <= signature.signed_headers.size()) {
    const size_t end = std::min(signature.signed_headers.find(';', at), signature.signed_headers.size());
    const std::string_view name = signature.signed_headers.substr(at, end - at);
    canonical.append(name).append(":");
    if (name == "host") {
      append_canonical_value(request.authority, canonical);
    } else {
      bool first = true;
      for (const auto& field : request.headers) {
        if (!equal_ignoring_case(field.name, name)) continue;
        if (!first) canonical.push_back(',');
        first = false;
        append_canonical_value(field.value, canonical);
      }
    }
    canonical.push_back('\n');
    at = end + 1;
  }
  canonical.append("\n").append(signature.signed_headers).append("\n").append(signature.payload_text);
  return canonical;
}

std::string spaced_hex(std::string_view text) {
  std::string out;
  out.reserve(text.size() * 3);
  for (const char c : text) {
    if (!out.empty()) out.push_back(' ');
    out.append(fmt::format("{:02x}", static_cast<uint8_t>(c)));
  }
  return out;
}

}  // namespace

Refusal signature_v2_refusal() {
  // The message is S3's, word for word: clients and suites compare it.
  Refusal refusal =
      refuse("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.");
  refusal.details = {{"Hint",
                      "This request is signed with signature version 2. Set the client to version 4; boto3 presigns with version 2 in "
                      "us-east-1 unless it is given Config(signature_version='s3v4')."}};
  return refusal;
}

Checked<RequestSignature> parse_signature(const RequestHead& request, const VerifyOptions& options) {
  for (const auto& parameter : request.query) {
    const std::string_view name = parameter.name;
    if (name.starts_with("X-Amz-") && (name == "X-Amz-Algorithm" || name == "X-Amz-Credential" || name == "X-Amz-Signature" ||
                                       name == "X-Amz-Date" || name == "X-Amz-SignedHeaders" || name == "X-Amz-Expires")) {
      return parse_query_form(request, options);
    }
    if (name == "AWSAccessKeyId" || name == "Signature") return std::unexpected(signature_v2_refusal());
  }
  const auto authorization = request.find("authorization");
  if (authorization) return parse_header_form(request, *authorization, options);

  // Anonymous: only what x-amz-content-sha256 says about the body matters.
  RequestSignature anonymous;
  const std::string_view payload = header_of(request, "x-amz-content-sha256");
  if (!payload.empty()) {
    if (auto parsed = parse_payload(payload, anonymous); !parsed) return std::unexpected(std::move(parsed).error());
  }
  return anonymous;
}

Checked<ChunkSigningContext> verify_signature(const RequestHead& request, const RequestSignature& signature,
                                              const Sha256Bytes& signing_key) {
  if (auto all = check_all_signed(request, signature); !all) return std::unexpected(std::move(all).error());
  const std::string canonical = canonical_request(request, signature);
  ChunkSigningContext context;
  context.key = signing_key;
  context.timestamp = signature.timestamp;
  context.scope = credential_scope(signature.date, signature.region);
  const std::string to_sign = string_to_sign(context.timestamp, context.scope, canonical);
  context.previous_signature = to_hex(hmac_sha256(signing_key, to_sign));
  if (!equal_constant_time(bytes_of(context.previous_signature), bytes_of(signature.signature))) {
    Refusal refusal =
        refuse("SignatureDoesNotMatch",
               "The request signature we calculated does not match the signature you provided. Check your key and signing method.");
    refusal.details = {{"AWSAccessKeyId", std::string(signature.access_key)},
                       {"StringToSign", to_sign},
                       {"SignatureProvided", std::string(signature.signature)},
                       {"StringToSignBytes", spaced_hex(to_sign)},
                       {"CanonicalRequest", canonical},
                       {"CanonicalRequestBytes", spaced_hex(canonical)}};
    return std::unexpected(std::move(refusal));
  }
  return context;
}

Checked<RequestSignature> parse_form_signature(const FormSignatureFields& fields, const VerifyOptions& options) {
  RequestSignature signature;
  if (fields.algorithm != kAlgorithm) return invalid_argument("Only AWS4-HMAC-SHA256 is supported", "X-Amz-Algorithm", fields.algorithm);
  const auto time = parse_amz_timestamp(fields.date);
  if (!time) return invalid_argument("X-Amz-Date must be formated via ISO8601 Long format", "X-Amz-Date", fields.date);
  const CredentialParts credential = parse_credential(fields.credential);
  if (credential.fault != CredentialFault::none) {
    return invalid_argument(credential_fault_text(credential), "x-amz-credential", fields.credential);
  }
  if (credential.region != options.region) {
    return invalid_argument(fmt::format("the region \"{}\" is wrong; expecting \"{}\"", credential.region, options.region),
                            "x-amz-credential", fields.credential);
  }
  if (fields.date.substr(0, 8) != credential.date) {
    return invalid_argument("Invalid credential date. Date is not the same as X-Amz-Date.", "x-amz-credential", fields.credential);
  }
  if (*time + kFormSignatureSecondsMax < options.now / 1'000'000'000) {
    return refused("AccessDenied", "Invalid according to Policy: Policy expired.");
  }
  signature.access_key = credential.access_key;
  signature.date = credential.date;
  signature.region = credential.region;
  signature.signature = fields.signature;
  signature.timestamp = fields.date;
  signature.time = *time;
  return signature;
}

Checked<void> verify_form_signature(std::string_view policy, const RequestSignature& signature, const Sha256Bytes& signing_key) {
  const std::string expected = to_hex(hmac_sha256(signing_key, policy));
  if (equal_constant_time(bytes_of(expected), bytes_of(signature.signature))) return {};
  Refusal refusal =
      refuse("SignatureDoesNotMatch",
             "The request signature we calculated does not match the signature you provided. Check your key and signing method.");
  refusal.details = {{"AWSAccessKeyId", std::string(signature.access_key)},
                     {"StringToSign", std::string(policy)},
                     {"SignatureProvided", std::string(signature.signature)},
                     {"StringToSignBytes", spaced_hex(policy)}};
  return std::unexpected(std::move(refusal));
}

}  // namespace quarry::auth
