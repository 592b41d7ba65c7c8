// The canonical request of Signature V4 and what is signed over it. Internal to auth; both sides build the same text through it.
// S3's variant: the path is percent-encoded once and not normalised ("a//b" and "a/../b" are keys like any other).
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/coding.h"
#include "codec/digest.h"
#include "wire/http_message.h"

namespace quarry::auth {

inline constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
inline constexpr std::string_view kTerminal = "aws4_request";

// Appends the canonical form of a path as sent: every byte but the unreserved ones and '/' as %XX, upper case.
void append_canonical_path(std::string_view raw_path, std::string& out);
// Appends the canonical query: sorted, encoded; a parameter named `except` is left out (X-Amz-Signature).
void append_canonical_query(const std::vector<QueryParameter>& query, std::string_view except, std::string& out);
// Appends a header's value, trimmed and with runs of spaces as one.
void append_canonical_value(std::string_view value, std::string& out);

// AWS4-HMAC-SHA256 \n timestamp \n scope \n hex(sha256(canonical))
std::string string_to_sign(std::string_view timestamp, std::string_view scope, std::string_view canonical);
std::string credential_scope(std::string_view date, std::string_view region);  // date/region/s3/aws4_request

// Times of signatures are taken from 1970 to the end of 2199, and refused outside before anything is computed from them.
inline constexpr unsigned kSigningYearMin = 1970, kSigningYearMax = 2199;
inline constexpr int64_t kSigningTimeMax = 7'258'118'399;  // 2199-12-31T23:59:59Z

// Seconds since 1970 of a UTC date and time; no range checks.
int64_t unix_seconds(int year, unsigned month, unsigned day, unsigned hour, unsigned minute, unsigned second);

}  // namespace quarry::auth
