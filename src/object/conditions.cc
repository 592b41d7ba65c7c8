// Preconditions of reads (RFC 9110 13.2.2), of writes and of deletes (as S3 defines them).
#include "object/engine/engine.h"

namespace quarry::object {
namespace {

// HTTP dates have whole seconds.
int64_t seconds(WallTime time) { return time / 1'000'000'000; }

bool any_matches(const std::vector<std::string>& etags, std::string_view etag) {
  return std::any_of(etags.begin(), etags.end(), [etag](const std::string& wanted) { return wanted == "*" || wanted == etag; });
}

}  // namespace

ConditionOutcome evaluate_read_conditions(const Conditions& conditions, const ObjectInfo& info) {
  if (!conditions.if_match.empty()) {
    if (!any_matches(conditions.if_match, info.etag)) return ConditionOutcome::failed;
  } else if (conditions.if_unmodified_since && seconds(info.modified) > seconds(*conditions.if_unmodified_since)) {
    return ConditionOutcome::failed;
  }
  if (!conditions.if_none_match.empty()) {
    if (any_matches(conditions.if_none_match, info.etag)) return ConditionOutcome::not_modified;
  } else if (conditions.if_modified_since && seconds(info.modified) <= seconds(*conditions.if_modified_since)) {
    return ConditionOutcome::not_modified;
  }
  return ConditionOutcome::pass;
}

Result<void> check_write_conditions(const Conditions& conditions, const VersionRecord* current, std::string_view key) {
  if (!conditions.if_match.empty()) {
    if (current == nullptr) return fail(Code::not_found, "key '{}': If-Match names an object, there is none", key);
    if (!any_matches(conditions.if_match, current->etag()))
      return fail(Code::precondition_failed, "key '{}': If-Match; its ETag is {}", key, current->etag());
  }
  if (!conditions.if_none_match.empty() && current != nullptr && any_matches(conditions.if_none_match, current->etag())) {
    return fail(Code::precondition_failed, "key '{}': If-None-Match; its ETag is {}", key, current->etag());
  }
  return {};
}

Result<void> check_delete_conditions(const Conditions& conditions, const VersionRecord* current, std::string_view key) {
  if (current == nullptr) {
    // AWS: "if the ETag matches or if the object does not exist: 204"; only "*" asks for existence.
    const bool must_exist = std::find(conditions.if_match.begin(), conditions.if_match.end(), "*") != conditions.if_match.end();
    if (must_exist) return fail(Code::precondition_failed, "key '{}': If-Match *; there is none", key);
    return {};
  }
  if (!conditions.if_match.empty() && !any_matches(conditions.if_match, current->etag())) {
    return fail(Code::precondition_failed, "key '{}': If-Match; its ETag is {}", key, current->etag());
  }
  if (conditions.if_match_size && *conditions.if_match_size != current->size) {
    return fail(Code::precondition_failed, "key '{}': it has {} bytes", key, current->size);
  }
  if (conditions.if_match_last_modified && seconds(*conditions.if_match_last_modified) != seconds(current->modified)) {
    return fail(Code::precondition_failed, "key '{}': it was modified at another time", key);
  }
  return {};
}

}  // namespace quarry::object
