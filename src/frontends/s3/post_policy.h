// The policy document of a browser form upload: what a signer allows the holder of a form to upload, and until when. Pure functions.
// JSON: {"expiration": "2026-12-01T12:00:00Z", "conditions": [{"bucket": "b"}, ["starts-with", "$key", "user/"], ["content-length-range",
// 0, 9]]}
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/s3/errors.h"
#include "io/clock.h"

namespace quarry::frontends::s3 {

// The fields of a form, in the order sent; names in lower case.
struct FormField {
  std::string name, value;
};
using FormFields = std::vector<FormField>;
const std::string* find_field(const FormFields& fields, std::string_view lower_case_name);

struct PolicyCondition {
  enum class Kind : uint8_t { equal, starts_with };
  Kind kind = Kind::equal;
  std::string field;  // lower case
  std::string value;
  std::string text;          // as the refusal quotes it
  bool names_field = false;  // it began with '$'; else it can never hold
};

struct PostPolicy {
  WallTime expiration = 0;
  std::vector<PolicyCondition> conditions;
  struct Range {
    uint64_t first = 0, last = 0;
  };
  std::optional<Range> length_range;  // of several, what all allow
};

inline constexpr size_t kPolicyConditionsMax = 1000;

// Errors: InvalidPolicyDocument.
S3Result<PostPolicy> parse_post_policy(std::string_view base64);

// Whether the form keeps to its policy: not expired, every condition true, no field that no condition covers.
// fields: with bucket; without the file. Errors: AccessDenied, naming the condition or the field.
S3Result<void> check_post_policy(const PostPolicy& policy, const FormFields& fields, WallTime now);

}  // namespace quarry::frontends::s3
