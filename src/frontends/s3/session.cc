#include "frontends/s3/session.h"

#include "wire/uri.h"

namespace quarry::frontends::s3 {
namespace {

bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool looks_like_ipv4(std::string_view name) {
  int dots = 0;
  for (const char c : name) {
    if (c == '.') {
      ++dots;
    } else if (c < '0' || c > '9') {
      return false;
    }
  }
  return dots == 3;
}

// What stands before ".domain" in a host, in lower case.
std::optional<std::string> bucket_before(std::string_view host, std::string_view domain) {
  if (host.size() <= domain.size() + 1) return std::nullopt;
  const size_t cut = host.size() - domain.size();
  if (host[cut - 1] != '.' || !equal_ignoring_case(host.substr(cut), domain)) return std::nullopt;
  std::string bucket(host.substr(0, cut - 1));
  for (char& c : bucket) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return bucket;
}

// The bucket in a Host header, if it is a sub-domain of one of ours, or of localhost (which is loopback by definition, RFC 6761 6.3).
std::optional<std::string> bucket_of_host(std::string_view authority, const std::vector<std::string>& domains) {
  const auto parts = split_host_port(authority);
  if (!parts) return std::nullopt;
  for (const auto& domain : domains) {
    if (auto bucket = bucket_before(parts->host, domain)) return bucket;
  }
  return bucket_before(parts->host, "localhost");
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

bool is_valid_bucket_name(std::string_view name) {
  if (name.size() < 3 || name.size() > 63) return false;
  if (!is_lower_or_digit(name.front()) || !is_lower_or_digit(name.back())) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (!is_lower_or_digit(c) && c != '-' && c != '.') return false;
    if (c == '.' && i > 0 && name[i - 1] == '.') return false;
  }
  if (looks_like_ipv4(name)) return false;
  for (const std::string_view prefix : {"xn--", "sthree-", "amzn-s3-demo-"}) {
    if (name.starts_with(prefix)) return false;
  }
  for (const std::string_view suffix : {"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"}) {
    if (name.ends_with(suffix)) return false;
  }
  return true;
}

bool escapes_bucket(std::string_view key) {
  int depth = 0;
  size_t at = 0;
  while (at <= key.size()) {
    const size_t end = std::min(key.find('/', at), key.size());
    const std::string_view part = key.substr(at, end - at);
    if (part == "..") {
      if (--depth < 0) return true;
    } else if (!part.empty() && part != ".") {
      ++depth;
    }
    at = end + 1;
  }
  // What is nothing but dots and slashes names the bucket itself.
  return depth == 0 && key.find_first_not_of("./") == std::string_view::npos && key.find('.') != std::string_view::npos;
}

S3Result<void> parse_address(Request& request) {
  if (request.head.target_malformed) return S3Error(E::invalid_uri);
  std::string_view path = request.head.path;
  if (path.empty() || path.front() != '/') return path == "*" || path.empty() ? S3Error(E::method_not_allowed) : S3Error(E::invalid_uri);
  path.remove_prefix(1);
  if (auto bucket = bucket_of_host(request.head.authority, request.services.options.virtual_hosts)) {
    request.is_virtual_host = true;
    request.bucket = std::move(*bucket);
    request.key = path;
  } else {
    const size_t slash = path.find('/');
    request.bucket = path.substr(0, slash);
    if (slash != std::string_view::npos) request.key = path.substr(slash + 1);
    if (request.bucket.empty() && !request.key.empty()) return S3Error(E::invalid_bucket_name).detail("BucketName", "");
  }
  if (request.key.size() > object::kObjectKeyMax) {
    return S3Error(E::key_too_long)
        .detail("Size", std::to_string(request.key.size()))
        .detail("MaxSizeAllowed", std::to_string(object::kObjectKeyMax));
  }
  return {};
}

Attribution parse_attribution(std::string_view header) {
  Attribution attribution;
  size_t at = 0;
  while (at <= header.size()) {
    const size_t end = std::min(header.find(';', at), header.size());
    const std::string_view part = trim(header.substr(at, end - at));
    at = end + 1;
    const size_t equal = part.find('=');
    if (equal == std::string_view::npos) continue;
    const std::string_view name = trim(part.substr(0, equal));
    const std::string_view value = trim(part.substr(equal + 1)).substr(0, kAttributionValueMax);
    if (name == "tenant") attribution.tenant = value;
    if (name == "team") attribution.team = value;
    if (name == "project") attribution.project = value;
    if (name == "job") attribution.job = value;
    if (name == "rank") attribution.rank = value;
  }
  return attribution;
}

std::string_view application_of(std::string_view user_agent) {
  constexpr std::string_view kMark = "app/";
  for (size_t at = 0; at < user_agent.size();) {
    const size_t end = std::min(user_agent.find(' ', at), user_agent.size());
    const std::string_view word = user_agent.substr(at, end - at);
    if (word.starts_with(kMark)) return word.substr(kMark.size(), kAttributionValueMax);
    at = end + 1;
  }
  return {};
}

Task<S3Result<void>> find_credential(Request& request) {
  auto credential = co_await request.services.identities.credential(std::string(request.signature.access_key));
  if (!credential) {
    if (credential.error().code() != Code::not_found) co_return request.error(credential.error());
    co_return S3Error(E::invalid_access_key_id).detail("AWSAccessKeyId", std::string(request.signature.access_key));
  }
  request.credential = std::move(*credential);
  request.ctx.identity.user = request.credential->user.name;
  request.ctx.identity.access_key = request.credential->key.access_key;
  co_return S3Result<void>();
}

void forget_credential(Request& request) {
  request.credential.reset();
  request.ctx.identity = {};
}

Task<S3Result<void>> authenticate(Request& request, auth::SigningKeyCache& keys) {
  if (const auto attribution = request.header("x-quarry-attribution")) request.ctx.attribution = parse_attribution(*attribution);
  if (request.ctx.attribution.job.empty()) request.ctx.attribution.job = application_of(request.header_or("user-agent"));
  const auth::VerifyOptions options{.region = request.services.options.region, .now = request.services.clock.wall_now()};
  auto signature = auth::parse_signature(request.head, options);
  if (!signature) co_return S3Error(std::move(signature).error());
  request.signature = std::move(*signature);
  if (request.signature.place == auth::SignaturePlace::none) co_return S3Result<void>();

  auto found = co_await find_credential(request);
  if (!found) co_return found;
  const Sha256Bytes key =
      keys.get(request.signature.access_key, request.credential->secret, request.signature.date, request.signature.region);
  auto verified = auth::verify_signature(request.head, request.signature, key);
  if (!verified) {
    forget_credential(request);
    co_return S3Error(std::move(verified).error());
  }
  request.chunk_signing = std::move(*verified);
  co_return S3Result<void>();
}

}  // namespace quarry::frontends::s3
