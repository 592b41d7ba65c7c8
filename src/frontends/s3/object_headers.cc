#include "frontends/s3/object_headers.h"

#include <charconv>
#include <ctime>

#include "base/utf8.h"
#include "frontends/s3/header_text.h"
#include "wire/uri.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

constexpr std::string_view kMetaPrefix = "x-amz-meta-";
constexpr WallTime kSecond = 1'000'000'000;

bool has_prefix(std::string_view name, std::string_view prefix) {
  return name.size() > prefix.size() && equal_ignoring_case(name.substr(0, prefix.size()), prefix);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Content-Encoding without "aws-chunked", which is about the transfer and not about the object.
std::string stored_encoding(std::string_view text) {
  if (lower(text).find("aws-chunked") == std::string::npos) return std::string(text);
  std::string out;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string_view part = trim(text.substr(at, end - at));
    at = end + 1;
    if (part.empty() || equal_ignoring_case(part, "aws-chunked")) continue;
    if (!out.empty()) out.append(",");
    out.append(part);
  }
  return out;
}

bool is_storage_class(std::string_view text) {
  constexpr std::string_view kClasses[] = {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA",      "INTELLIGENT_TIERING",
                                           "GLACIER",  "DEEP_ARCHIVE",       "GLACIER_IR",  "EXPRESS_ONEZONE", "OUTPOSTS",
                                           "SNOW"};
  return std::ranges::find(kClasses, text) != std::end(kClasses);
}

S3Result<void> refuse_promises(const Request& request) {
  TRY(refuse_encryption(request));
  if (request.header("x-amz-write-offset-bytes")) return header_not_implemented("x-amz-write-offset-bytes", "appending to an object");
  const std::string_view mode = request.header_or("x-amz-object-lock-mode");
  const std::string_view until = request.header_or("x-amz-object-lock-retain-until-date");
  if (mode.empty() != until.empty()) {
    return invalid_argument("x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied.",
                            mode.empty() ? "x-amz-object-lock-mode" : "x-amz-object-lock-retain-until-date", "");
  }
  bool lock = false;
  request.for_each_header([&](const HttpField& field) { lock = lock || has_prefix(field.name, "x-amz-object-lock-"); });
  if (lock) return S3Error(E::invalid_request, "Bucket is missing ObjectLockConfiguration");
  return {};
}

// Characters, not bytes.
size_t length_of(std::string_view utf8) {
  return static_cast<size_t>(std::ranges::count_if(utf8, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

bool is_tag_text(std::string_view text) {
  constexpr std::string_view kMarks = " _.:/=+-@";
  return std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || static_cast<uint8_t>(c) >= 0x80 ||
           kMarks.find(c) != std::string_view::npos;
  });
}

// Whether a stored name may stand in a header.
bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kMarks.find(c) != std::string_view::npos;
  });
}

std::vector<std::string> parse_etags(std::string_view text) {
  std::vector<std::string> etags;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    std::string_view etag = trim(text.substr(at, end - at));
    at = end + 1;
    if (etag.starts_with("W/")) etag.remove_prefix(2);
    etag = unquoted(etag);
    if (!etag.empty()) etags.emplace_back(etag);
  }
  return etags;
}

// The ETag of a condition that has one. An empty one matches nothing, and is a condition all the same.
std::string single_etag(std::string_view text) {
  std::string_view etag = trim(text);
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  return std::string(unquoted(etag));
}

// Times beyond what 64 bits of nanoseconds hold (the years 1677 to 2262) are the first or last that they do.
WallTime wall_time_of(int64_t seconds) {
  WallTime time = 0;
  if (__builtin_mul_overflow(seconds, kSecond, &time)) {
    return seconds < 0 ? std::numeric_limits<WallTime>::min() : std::numeric_limits<WallTime>::max() - kSecond;
  }
  return std::min(time, std::numeric_limits<WallTime>::max() - kSecond);
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || fault != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<WallTime> parse_time(std::string_view text) {
  if (const auto seconds = parse_http_date(text)) return wall_time_of(*seconds);
  return parse_iso_time(text);
}

S3Result<void> refuse_encryption(const Request& request) {
  std::string_view asks;
  request.for_each_header([&](const HttpField& field) {
    for (const std::string_view prefix : {"x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption"}) {
      if (equal_ignoring_case(field.name.substr(0, prefix.size()), prefix)) asks = field.name;
    }
  });
  if (asks.empty()) return {};
  const bool reads = request.head.method == "GET" || request.head.method == "HEAD";
  if (!reads) return header_not_implemented(lower(asks), "server-side encryption");
  if (request.key.empty()) return {};
  return S3Error(E::invalid_request, "The encryption parameters are not applicable to this object.").detail("Header", lower(asks));
}

S3Result<object::ObjectMetadata> parse_object_metadata(const Request& request) {
  TRY(refuse_promises(request));
  object::ObjectMetadata metadata;
  metadata.content_type = request.header_or("content-type");
  metadata.content_encoding = stored_encoding(request.header_or("content-encoding"));
  metadata.content_disposition = request.header_or("content-disposition");
  metadata.content_language = request.header_or("content-language");
  metadata.cache_control = request.header_or("cache-control");
  metadata.expires = request.header_or("expires");
  metadata.website_redirect = request.header_or("x-amz-website-redirect-location");
  if (!metadata.website_redirect.empty() && !request.head.find("x-amz-website-redirect-location")) {
    TRY_ASSIGN(metadata.website_redirect, header_value_of("x-amz-website-redirect-location", metadata.website_redirect));
  }
  metadata.storage_class = request.header_or("x-amz-storage-class");
  if (metadata.content_type.empty()) metadata.content_type = "binary/octet-stream";
  if (!metadata.storage_class.empty() && !is_storage_class(metadata.storage_class)) return S3Error(E::invalid_storage_class);
  if (metadata.storage_class == "STANDARD") metadata.storage_class.clear();
  const std::string& redirect = metadata.website_redirect;
  if (!redirect.empty() && !redirect.starts_with("/") && !redirect.starts_with("http://") && !redirect.starts_with("https://")) {
    return S3Error(E::invalid_redirect_location);
  }

  size_t bytes = 0;
  std::optional<HttpField> no_text;
  request.for_each_header([&](const HttpField& field) {
    if (!has_prefix(field.name, kMetaPrefix)) return;
    if (!is_utf8(field.name) || !is_utf8(field.value)) no_text = field;
    std::string name = lower(field.name.substr(kMetaPrefix.size()));
    bytes += name.size() + field.value.size();
    const auto same = std::ranges::find_if(metadata.user, [&](const auto& entry) { return entry.first == name; });
    if (same != metadata.user.end()) {
      same->second.append(",").append(field.value);
    } else {
      metadata.user.emplace_back(std::move(name), field.value);
    }
  });
  if (no_text) return invalid_argument("User metadata must be UTF-8.", no_text->name, no_text->value);
  if (bytes > object::kUserMetadataMax) {
    return S3Error(E::metadata_too_large)
        .detail("Size", std::to_string(bytes))
        .detail("MaxSizeAllowed", std::to_string(object::kUserMetadataMax));
  }
  return metadata;
}

S3Result<void> check_tag(std::string_view name, std::string_view value) {
  constexpr std::string_view kSystem = "aws:";
  if (equal_ignoring_case(name.substr(0, kSystem.size()), kSystem)) {
    return S3Error(E::invalid_tag, "System tags cannot be added/updated by requester").detail("TagKey", std::string(name));
  }
  if (name.empty() || length_of(name) > 128 || !is_tag_text(name)) {
    return S3Error(E::invalid_tag, "The TagKey you have provided is invalid").detail("TagKey", std::string(name));
  }
  if (length_of(value) > 256 || !is_tag_text(value)) {
    return S3Error(E::invalid_tag, "The TagValue you have provided is invalid")
        .detail("TagKey", std::string(name))
        .detail("TagValue", std::string(value));
  }
  return {};
}

S3Result<object::Tags> parse_tagging_header(std::string_view text) {
  const auto malformed = [&] {
    return invalid_argument(
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.",
        "x-amz-tagging", text);
  };
  object::Tags tags;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find('&', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    at = end + 1;
    if (part.empty()) continue;
    const size_t equal = part.find('=');
    auto name = percent_decode(part.substr(0, equal), PlusSign::is_space);
    auto value = percent_decode(equal == std::string_view::npos ? std::string_view() : part.substr(equal + 1), PlusSign::is_space);
    const bool named = name.has_value(), valued = value.has_value();
    if (!named || !valued || name->empty() || !is_utf8(*name) || !is_utf8(*value)) return malformed();
    TRY(check_tag(*name, *value));
    if (std::ranges::any_of(tags, [&](const auto& tag) { return tag.first == *name; })) return malformed();
    tags.emplace_back(std::move(*name), std::move(*value));
  }
  if (tags.size() > kObjectTagsMax) return S3Error(E::bad_request, fmt::format("Object tags cannot be greater than {}", kObjectTagsMax));
  return tags;
}

S3Result<object::Tags> parse_tagging_document(std::string_view document, size_t tags_max) {
  const auto root = parse_xml(document);
  if (!root || root->name != "Tagging") return S3Error(E::malformed_xml);
  const XmlNode* set = root->child("TagSet");
  if (set == nullptr) return S3Error(E::malformed_xml);
  if (set->children.size() > tags_max) {
    return S3Error(E::bad_request, tags_max == kObjectTagsMax ? fmt::format("Object tags cannot be greater than {}", tags_max)
                                                              : fmt::format("Bucket tag count cannot be greater than {}", tags_max));
  }
  object::Tags tags;
  for (const auto& node : set->children) {
    if (node.name != "Tag" || node.count("Key") != 1 || node.count("Value") > 1) return S3Error(E::malformed_xml);
    std::string name(node.child_text("Key")), value(node.child_text("Value"));
    TRY(check_tag(name, value));
    if (std::ranges::any_of(tags, [&](const auto& tag) { return tag.first == name; })) {
      return S3Error(E::invalid_tag, "Cannot provide multiple Tags with the same key").detail("TagKey", std::move(name));
    }
    tags.emplace_back(std::move(name), std::move(value));
  }
  return tags;
}

std::string tagging_document(const object::Tags& tags) {
  XmlWriter xml;
  xml.open_with_namespace("Tagging", "http://s3.amazonaws.com/doc/2006-03-01/").open("TagSet");
  object::Tags sorted = tags;
  std::ranges::sort(sorted);
  for (const auto& [name, value] : sorted) xml.open("Tag").element("Key", name).element("Value", value).close();
  xml.close().close();
  return xml.take();
}

object::Conditions parse_read_conditions(const Request& request, std::string_view prefix) {
  const auto header = [&](std::string_view name) {
    return request.header(prefix.empty() ? std::string(name) : std::string(prefix) + std::string(name));
  };
  object::Conditions conditions;
  if (const auto text = header("if-match")) conditions.if_match = parse_etags(*text);
  if (const auto text = header("if-none-match")) conditions.if_none_match = parse_etags(*text);
  if (const auto text = header("if-modified-since")) conditions.if_modified_since = parse_time(*text);
  if (const auto text = header("if-unmodified-since")) conditions.if_unmodified_since = parse_time(*text);
  return conditions;
}

S3Result<object::Conditions> parse_write_conditions(const Request& request) {
  object::Conditions conditions;
  const auto match = request.header("if-match");
  const auto none = request.header("if-none-match");
  const auto refused = [](std::string_view header) {  // S3's own sentence: these it does not have either
    return S3Error(E::not_implemented, "A header you provided implies functionality that is not implemented.")
        .detail("Header", std::string(header));
  };
  if (none && (match || trim(*none) != "*")) return refused("If-None-Match");
  if (match && (trim(*match) == "*" || match->find(',') != std::string_view::npos)) return refused("If-Match");
  if (match) conditions.if_match = {single_etag(*match)};
  if (none) conditions.if_none_match = {"*"};
  return conditions;
}

S3Result<object::Conditions> parse_delete_conditions(const Request& request) {
  object::Conditions conditions;
  // A condition that cannot be read is none that may be left out.
  if (const auto match = request.header("if-match")) {
    conditions.if_match = parse_etags(*match);
    if (conditions.if_match.empty()) conditions.if_match = {single_etag(*match)};
  }
  if (const auto time = request.header("x-amz-if-match-last-modified-time")) {
    conditions.if_match_last_modified = parse_time(*time);
    if (!conditions.if_match_last_modified) {
      return invalid_argument("x-amz-if-match-last-modified-time is not a time", "x-amz-if-match-last-modified-time", *time);
    }
  }
  if (const auto size = request.header("x-amz-if-match-size")) {
    conditions.if_match_size = parse_number(*size);
    if (!conditions.if_match_size) return invalid_argument("x-amz-if-match-size is not a number", "x-amz-if-match-size", *size);
  }
  return conditions;
}

S3Error precondition_failed(const object::Conditions& conditions, const object::ObjectInfo& info) {
  const auto names = [&](const std::vector<std::string>& etags) {
    return std::ranges::any_of(etags, [&](const std::string& etag) { return etag == "*" || etag == info.etag; });
  };
  std::string_view condition = "If-Unmodified-Since";
  if (!conditions.if_match.empty() && !names(conditions.if_match)) {
    condition = "If-Match";
  } else if (!conditions.if_none_match.empty() && names(conditions.if_none_match)) {
    condition = "If-None-Match";
  } else if (conditions.if_modified_since && !conditions.if_unmodified_since) {
    condition = "If-Modified-Since";
  }
  return S3Error(E::precondition_failed).detail("Condition", std::string(condition));
}

bool range_applies(const Request& request, const object::ObjectInfo& info) {
  const auto header = request.header("if-range");
  if (!header) return true;
  const std::string_view validator = trim(*header);
  if (validator.starts_with("W/")) return false;  // weak ones never match
  if (validator.starts_with('"')) return unquoted(validator) == info.etag;
  if (const auto seconds = parse_http_date(validator)) return *seconds == info.modified / kSecond;
  return validator == info.etag;  // as If-Match: S3's clients leave the quotes out
}

ParsedRange parse_range(std::string_view text, uint64_t size) {
  ParsedRange whole;
  if (!text.starts_with("bytes=") || text.find(',') != std::string_view::npos) return whole;
  text = text.substr(6);
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return whole;
  const std::string_view first_text = text.substr(0, dash), last_text = text.substr(dash + 1);
  const auto first = parse_number(first_text), last = parse_number(last_text);
  if ((!first_text.empty() && !first) || (!last_text.empty() && !last) || (!first && !last)) return whole;
  if (!first) {  // the last N bytes
    if (*last == 0) return {RangeKind::unsatisfiable, {}};
    if (size == 0) return whole;
    const uint64_t length = std::min(*last, size);
    return {RangeKind::part, {size - length, length}};
  }
  if (last && *last < *first) return whole;
  if (*first >= size) return {RangeKind::unsatisfiable, {}};
  const uint64_t end = last ? std::min(*last, size - 1) : size - 1;
  return {RangeKind::part, {*first, end - *first + 1}};
}

S3Result<ByteRange> parse_copy_range(std::string_view text, uint64_t size) {
  const auto malformed = [&] {
    return invalid_argument(
        "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the "
        "first and last "
        "bytes to copy",
        "x-amz-copy-source-range", text);
  };
  if (!text.starts_with("bytes=")) return malformed();
  const std::string_view ends = text.substr(6);
  const size_t dash = ends.find('-');
  if (dash == std::string_view::npos) return malformed();
  const auto first = parse_number(ends.substr(0, dash)), last = parse_number(ends.substr(dash + 1));
  if (!first || !last || *last < *first) return malformed();
  if (*last >= size)
    return invalid_argument(fmt::format("Range specified is not valid for source object of size: {}", size), "x-amz-copy-source-range",
                            text);
  return ByteRange{*first, *last - *first + 1};
}

void add_object_headers(ResponseHead& response, const object::ObjectInfo& info, const object::ObjectMetadata& metadata) {
  HeaderBlock& headers = response.headers;
  headers.add("ETag", quoted_etag(info.etag));
  headers.add("Last-Modified", http_time(info.modified));
  headers.add("Accept-Ranges", "bytes");
  const auto add = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) headers.add(name, value);
  };
  add("Content-Type", metadata.content_type.empty() ? "binary/octet-stream" : metadata.content_type);
  add("Content-Encoding", metadata.content_encoding);
  add("Content-Disposition", metadata.content_disposition);
  add("Content-Language", metadata.content_language);
  add("Cache-Control", metadata.cache_control);
  add("Expires", metadata.expires);
  add("x-amz-website-redirect-location", metadata.website_redirect);
  add("x-amz-storage-class", metadata.storage_class);  // STANDARD is not said
  size_t unprintable = 0;
  for (const auto& [name, value] : metadata.user) {
    if (!is_token(name)) {
      ++unprintable;
      continue;
    }
    const std::string header = "x-amz-meta-" + name;
    headers.add(header, mail_safe(value));
  }
  if (unprintable > 0) headers.add("x-amz-missing-meta", unprintable);
  if (!info.tags.empty()) headers.add("x-amz-tagging-count", info.tags.size());
}

void add_version_header(ResponseHead& response, const Request& request, std::string_view version_id) {
  if (version_id.empty() || (version_id == "null" && !request.has_query("versionId"))) return;
  response.headers.add("x-amz-version-id", version_id);
}

std::string quoted_etag(std::string_view etag) {
  std::string out;
  out.reserve(etag.size() + 2);
  out.append("\"").append(etag).append("\"");
  return out;
}

std::string_view unquoted(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') return etag.substr(1, etag.size() - 2);
  return etag;
}

std::string iso_time(WallTime time) {
  const auto seconds = static_cast<time_t>(time / kSecond);
  tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec, time % kSecond / 1'000'000);
}

std::string http_time(WallTime time) { return http_date(time / kSecond); }

std::optional<WallTime> parse_iso_time(std::string_view text) {
  tm parts{};
  const std::string copy(text);
  const char* rest = strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) return std::nullopt;
  WallTime nanoseconds = 0;
  if (*rest == '.') {
    WallTime unit = kSecond / 10;
    for (++rest; *rest >= '0' && *rest <= '9'; ++rest, unit /= 10) nanoseconds += (*rest - '0') * unit;
  }
  if (std::string_view(rest) != "Z") return std::nullopt;
  return wall_time_of(timegm(&parts)) + nanoseconds;
}

}  // namespace quarry::frontends::s3
