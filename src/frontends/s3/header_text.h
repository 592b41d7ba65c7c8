// Values that clients gave as text, in headers of answers. A header carries bytes that are read as ISO-8859-1; what other characters become
// there differs: S3 refuses them in headers with a meaning of their own, and encodes user metadata. Pure functions.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "frontends/s3/errors.h"

namespace quarry::frontends::s3 {

bool is_ascii(std::string_view text);

// UTF-8 as ISO-8859-1; nullopt: it holds characters that are none of it, or is no UTF-8.
std::optional<std::string> to_latin1(std::string_view utf8);

// The same for a value with a name. Errors: InvalidArgument, in S3's words.
S3Result<std::string> header_value_of(std::string_view name, std::string_view utf8);

// User metadata as S3 answers it: ASCII as it is, all else as encoded words of RFC 2047 (Q encoding, UTF-8), each of at most 75 characters.
std::string mail_safe(std::string_view utf8);

}  // namespace quarry::frontends::s3
