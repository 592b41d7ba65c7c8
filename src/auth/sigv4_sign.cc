// Keys, timestamps and the signing side of Signature V4.
#include <ctime>

#include "auth/canonical_request.h"
#include "auth/sigv4.h"
#include "base/coding.h"

namespace quarry::auth {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

std::string hex_hmac(const Sha256Bytes& key, std::string_view text) { return to_hex(hmac_sha256(key, text)); }

// Headers to sign: lower-case name and value, sorted by name.
using SignedFields = std::vector<std::pair<std::string, std::string_view>>;

void append_canonical_headers(const SignedFields& fields, std::string& canonical, std::string& names) {
  for (const auto& [name, value] : fields) {
    canonical.append(name).append(":");
    append_canonical_value(value, canonical);
    canonical.push_back('\n');
    if (!names.empty()) names.push_back(';');
    names.append(name);
  }
}

// The query is already encoded; its parts only need to be in order.
void append_sorted_query(std::string_view raw_query, std::string& out) {
  if (raw_query.empty()) return;
  std::vector<std::pair<std::string_view, std::string_view>> parts;
  size_t at = 0;
  while (at <= raw_query.size()) {
    const size_t end = std::min(raw_query.find('&', at), raw_query.size());
    const std::string_view part = raw_query.substr(at, end - at);
    if (!part.empty()) {
      const size_t equal = part.find('=');
      parts.emplace_back(part.substr(0, equal), equal == std::string_view::npos ? std::string_view() : part.substr(equal + 1));
    }
    at = end + 1;
  }
  std::sort(parts.begin(), parts.end());
  bool first = true;
  for (const auto& [name, value] : parts) {
    if (!first) out.push_back('&');
    first = false;
    out.append(name).append("=").append(value);
  }
}

}  // namespace

Sha256Bytes derive_signing_key(std::string_view secret, std::string_view date, std::string_view region, std::string_view service) {
  std::string start = "AWS4";
  start.append(secret);
  const auto day_key = hmac_sha256(bytes_of(start), date);
  const auto region_key = hmac_sha256(day_key, region);
  const auto service_key = hmac_sha256(region_key, service);
  return hmac_sha256(service_key, kTerminal);
}

std::string amz_timestamp(WallTime now) {
  const auto seconds = static_cast<time_t>(now / 1'000'000'000);
  tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                     parts.tm_sec);
}

Result<int64_t> parse_amz_timestamp(std::string_view text) {
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z')
    return fail(Code::malformed, "'{}' is not of the form yyyyMMdd'T'HHmmss'Z'", text);
  unsigned fields[6] = {};
  constexpr size_t kStarts[6] = {0, 4, 6, 9, 11, 13};
  constexpr size_t kSizes[6] = {4, 2, 2, 2, 2, 2};
  for (size_t f = 0; f < 6; ++f) {
    for (size_t i = 0; i < kSizes[f]; ++i) {
      const char c = text[kStarts[f] + i];
      if (c < '0' || c > '9') return fail(Code::malformed, "'{}' is not of the form yyyyMMdd'T'HHmmss'Z'", text);
      fields[f] = fields[f] * 10 + static_cast<unsigned>(c - '0');
    }
  }
  if (fields[1] < 1 || fields[1] > 12 || fields[2] < 1 || fields[2] > 31 || fields[3] > 23 || fields[4] > 59 || fields[5] > 60) {
    return fail(Code::malformed, "'{}' is no time", text);
  }
  // What lies outside is nobody's time to sign at, and would leave the 64 bits in which times are counted (nanoseconds: 1677 to 2262).
  if (fields[0] < kSigningYearMin || fields[0] > kSigningYearMax) return fail(Code::malformed, "the year of '{}' is out of range", text);
  return unix_seconds(static_cast<int>(fields[0]), fields[1], fields[2], fields[3], fields[4], fields[5]);
}

struct SigningKeyCache::State {
  std::mutex mutex;
  std::unordered_map<std::string, Sha256Bytes> keys;
};

SigningKeyCache::SigningKeyCache() : state_(std::make_unique<State>()) {}
SigningKeyCache::~SigningKeyCache() = default;

Sha256Bytes SigningKeyCache::get(std::string_view access_key, std::string_view secret, std::string_view date, std::string_view region) {
  // The secret is part of the name (hashed), so a key made anew under an old name never meets the old signing key.
  std::string name;
  name.reserve(access_key.size() + date.size() + region.size() + 10);
  const uint64_t secret_hash = hash64(bytes_of(secret), 0x5143);
  name.append(access_key).append("/").append(date).append("/").append(region);
  name.append(reinterpret_cast<const char*>(&secret_hash), sizeof secret_hash);
  {
    std::lock_guard lock(state_->mutex);
    if (const auto found = state_->keys.find(name); found != state_->keys.end()) return found->second;
  }
  const auto key = derive_signing_key(secret, date, region, "s3");
  std::lock_guard lock(state_->mutex);
  if (state_->keys.size() >= kKeysMax) state_->keys.clear();
  state_->keys.emplace(std::move(name), key);
  return key;
}

std::string sign_request(const SigningCredentials& credentials, const RequestToSign& request, HeaderBlock& headers,
                         std::string_view payload_hash, WallTime now, const Sha256Bytes* key) {
  const std::string timestamp = amz_timestamp(now);
  const std::string_view date = std::string_view(timestamp).substr(0, 8);
  headers.add("x-amz-date", timestamp);
  headers.add("x-amz-content-sha256", payload_hash);

  SignedFields fields;
  fields.emplace_back("host", request.host);
  for (size_t i = 0; i < headers.size(); ++i) {
    const HttpField field = headers.at(i);
    std::string name = lower(field.name);
    if (name.starts_with("x-amz-") || name == "content-type" || name == "content-md5") fields.emplace_back(std::move(name), field.value);
  }
  std::sort(fields.begin(), fields.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  std::string canonical, names;
  canonical.append(request.method).append("\n").append(request.raw_path.empty() ? "/" : request.raw_path).append("\n");
  append_sorted_query(request.raw_query, canonical);
  canonical.push_back('\n');
  append_canonical_headers(fields, canonical, names);
  canonical.append("\n").append(names).append("\n").append(payload_hash);

  const std::string scope = credential_scope(date, credentials.region);
  const Sha256Bytes signing_key = key != nullptr ? *key : derive_signing_key(credentials.secret_key, date, credentials.region, "s3");
  std::string signature = hex_hmac(signing_key, string_to_sign(timestamp, scope, canonical));
  headers.add("Authorization", fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithm, credentials.access_key, scope,
                                           names, signature));
  return signature;
}

std::string presign_query(const SigningCredentials& credentials, const RequestToSign& request, std::span<const HttpField> headers,
                          int64_t expires_seconds, WallTime now) {
  const std::string timestamp = amz_timestamp(now);
  const std::string_view date = std::string_view(timestamp).substr(0, 8);
  const std::string scope = credential_scope(date, credentials.region);

  SignedFields fields;
  fields.emplace_back("host", request.host);
  for (const auto& field : headers) fields.emplace_back(lower(field.name), field.value);
  std::sort(fields.begin(), fields.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string canonical_headers, names;
  append_canonical_headers(fields, canonical_headers, names);

  std::string query(request.raw_query);
  if (!query.empty()) query.push_back('&');
  query.append("X-Amz-Algorithm=").append(kAlgorithm);
  query.append("&X-Amz-Credential=").append(percent_encode(credentials.access_key + "/" + scope));
  query.append("&X-Amz-Date=").append(timestamp);
  query.append("&X-Amz-Expires=").append(std::to_string(expires_seconds));
  query.append("&X-Amz-SignedHeaders=").append(percent_encode(names));

  std::string canonical;
  canonical.append(request.method).append("\n").append(request.raw_path.empty() ? "/" : request.raw_path).append("\n");
  append_sorted_query(query, canonical);
  canonical.append("\n").append(canonical_headers).append("\n").append(names).append("\n").append(kUnsignedPayload);
  const auto key = derive_signing_key(credentials.secret_key, date, credentials.region, "s3");
  query.append("&X-Amz-Signature=").append(hex_hmac(key, string_to_sign(timestamp, scope, canonical)));
  return query;
}

namespace {
std::string sign_next(ChunkSigningContext& context, std::string_view algorithm, std::string_view tail) {
  std::string text;
  text.reserve(algorithm.size() + context.timestamp.size() + context.scope.size() + 64 + tail.size() + 4);
  text.append(algorithm).append("\n").append(context.timestamp).append("\n").append(context.scope).append("\n");
  text.append(context.previous_signature).append("\n").append(tail);
  context.previous_signature = hex_hmac(context.key, text);
  return context.previous_signature;
}
}  // namespace

std::string sign_chunk(ChunkSigningContext& context, const Sha256Bytes& payload_sha256) {
  std::string tail(kEmptySha256);
  tail.append("\n").append(to_hex(payload_sha256));
  return sign_next(context, "AWS4-HMAC-SHA256-PAYLOAD", tail);
}

std::string sign_trailer(ChunkSigningContext& context, const Sha256Bytes& trailer_sha256) {
  return sign_next(context, "AWS4-HMAC-SHA256-TRAILER", to_hex(trailer_sha256));
}

}  // namespace quarry::auth
