#include "frontends/s3/post_policy.h"

#include <charconv>

#include "base/coding.h"
#include "frontends/s3/object_headers.h"
#include "wire/json.h"

namespace quarry::frontends::s3 {
namespace {

constexpr JsonLimits kPolicyLimits{.bytes_max = 64 * 1024, .depth_max = 8, .nodes_max = 8000};

template <class... Args>
S3Error invalid(fmt::format_string<Args...> format, Args&&... args) {
  return S3Error(E::invalid_policy_document, "Invalid Policy: " + fmt::format(format, std::forward<Args>(args)...));
}
S3Error invalid_json() { return invalid("Invalid JSON."); }
S3Error denied(std::string reason) { return S3Error(E::access_denied, "Invalid according to Policy: " + std::move(reason)); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

// A bound of content-length-range: a number, or one in quotes.
std::optional<uint64_t> bound_of(const JsonValue& value) {
  if (const auto number = value.as_u64()) return number;
  const auto text = value.as_string();
  if (!text || text->empty()) return std::nullopt;
  uint64_t number = 0;
  const auto [end, fault] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (fault != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return number;
}

// ["operation", argument, argument]
S3Result<void> parse_list(const JsonValue::Array& items, PostPolicy& policy) {
  const auto operation = items.empty() ? std::nullopt : items[0].as_string();
  if (!operation) return invalid("Invalid Condition: missing operation identifier.");
  const bool is_range = *operation == "content-length-range";
  if (!is_range && *operation != "eq" && *operation != "starts-with")
    return invalid("Invalid Condition: unknown operation '{}'.", *operation);
  if (items.size() != 3) return invalid("Invalid {}: wrong number of arguments.", *operation);
  if (is_range) {
    const auto first = bound_of(items[1]), last = bound_of(items[2]);
    if (!first || !last) return invalid_json();
    PostPolicy::Range range{*first, *last};
    if (policy.length_range) {
      range = {std::max(range.first, policy.length_range->first), std::min(range.last, policy.length_range->last)};
    }
    policy.length_range = range;
    return {};
  }
  const auto field = items[1].as_string(), value = items[2].as_string();
  if (!field || !value) return invalid_json();
  PolicyCondition condition;
  condition.kind = *operation == "eq" ? PolicyCondition::Kind::equal : PolicyCondition::Kind::starts_with;
  condition.names_field = field->starts_with('$');
  condition.field = lower(condition.names_field ? field->substr(1) : *field);
  condition.value = *value;
  JsonWriter json;
  json.begin_array().value(*operation).value(*field).value(*value).end_array();
  condition.text = json.take();
  policy.conditions.push_back(std::move(condition));
  return {};
}

// {"field": "value"}
S3Result<void> parse_simple(const JsonValue::Object& members, PostPolicy& policy) {
  if (members.size() != 1) return invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.");
  const auto& [field, node] = members.front();
  const auto value = node.as_string();
  if (!value) return invalid("Invalid Simple-Condition: value must be a string.");
  std::string text = "[\"eq\", \"$";
  json_escape_append(field, text);
  text.append("\", \"");
  json_escape_append(*value, text);
  text.append("\"]");
  policy.conditions.push_back({.field = lower(field), .value = std::string(*value), .text = std::move(text), .names_field = true});
  return {};
}

bool holds(const PolicyCondition& condition, const FormFields& fields) {
  if (!condition.names_field) return false;
  const std::string* value = find_field(fields, condition.field);
  if (value == nullptr) return false;
  if (condition.kind == PolicyCondition::Kind::equal) return *value == condition.value;
  if (condition.field != "content-type") return value->starts_with(condition.value);
  // Of a list of types, each must begin so.
  for (size_t at = 0; at <= value->size();) {
    const size_t end = std::min(value->find(',', at), value->size());
    std::string_view part = std::string_view(*value).substr(at, end - at);
    while (part.starts_with(' ')) part.remove_prefix(1);
    if (!part.starts_with(condition.value)) return false;
    at = end + 1;
  }
  return true;
}

// Fields that need no condition: what signs cannot sign itself.
bool needs_condition(std::string_view field) {
  return field != "x-amz-signature" && field != "file" && field != "policy" && !field.starts_with("x-ignore-");
}

}  // namespace

const std::string* find_field(const FormFields& fields, std::string_view lower_case_name) {
  for (const auto& field : fields) {
    if (field.name == lower_case_name) return &field.value;
  }
  return nullptr;
}

S3Result<PostPolicy> parse_post_policy(std::string_view base64) {
  if (base64.empty()) return invalid("Expecting '{{' but found End-of-Input");
  const auto text = from_base64(base64);
  if (!text) return invalid("invalid Base64 encoding.");
  const auto document = parse_json(*text, kPolicyLimits);
  if (!document || !document->is_object()) return invalid_json();
  for (const auto& [name, value] : document->members()) {
    if (name != "expiration" && name != "conditions") return invalid("Unexpected: \"{}\"", name);
  }
  PostPolicy policy;
  const JsonValue* expiration = document->find("expiration");
  if (expiration == nullptr) return invalid("Policy missing expiration.");
  const auto expires = expiration->as_string();
  if (!expires) return invalid_json();
  const auto time = parse_iso_time(*expires);
  if (!time) return invalid("Invalid 'expiration' value: '{}'", *expires);
  policy.expiration = *time;
  const JsonValue* conditions = document->find("conditions");
  if (conditions == nullptr) return invalid("Policy missing conditions.");
  if (!conditions->is_array()) return invalid("Invalid 'conditions' value: must be a List.");
  if (conditions->items().size() > kPolicyConditionsMax) return invalid("more than {} conditions.", kPolicyConditionsMax);
  for (const auto& node : conditions->items()) {
    if (node.is_array()) {
      TRY(parse_list(node.items(), policy));
    } else if (node.is_object()) {
      TRY(parse_simple(node.members(), policy));
    } else {
      return invalid("Invalid condition test: must be a List or Object.");
    }
  }
  return policy;
}

S3Result<void> check_post_policy(const PostPolicy& policy, const FormFields& fields, WallTime now) {
  if (policy.expiration <= now) return denied("Policy expired.");
  for (const auto& condition : policy.conditions) {
    if (!holds(condition, fields)) return denied("Policy Condition failed: " + condition.text);
  }
  std::string extra;
  for (const auto& field : fields) {
    if (!needs_condition(field.name)) continue;
    const bool covered = std::ranges::any_of(policy.conditions, [&](const auto& condition) { return condition.field == field.name; });
    if (covered) continue;
    if (!extra.empty()) extra.append(", ");
    extra.append(field.name);
  }
  if (!extra.empty()) return denied("Extra input fields: " + extra);
  return {};
}

}  // namespace quarry::frontends::s3
