// Grouping of names in listings: prefix, delimiter, and where a page starts. Pure.
#pragma once
#include <string>
#include <string_view>

#include "object/engine/keys.h"

namespace quarry::object {

inline constexpr size_t kListLimitMax = 10000;  // items of a page; `truncated` says that there are more

// The common prefix that `name` (which begins with prefix) falls under; empty: none, it is listed itself.
inline std::string_view common_prefix(std::string_view name, std::string_view prefix, std::string_view delimiter) {
  if (delimiter.empty()) return {};
  const size_t at = name.find(delimiter, prefix.size());
  return at == std::string_view::npos ? std::string_view() : name.substr(0, at + delimiter.size());
}

// The row where a listing starts that gives names and common prefixes strictly greater than `after`.
// A common prefix is one item: where `after` lies in or is one, the whole of it is passed.
inline std::string first_row_after(RowKind kind, BucketId bucket, std::string_view after, std::string_view prefix,
                                   std::string_view delimiter) {
  const meta::KeyRange all = prefix_rows(kind, bucket, prefix);
  if (after.empty()) return all.begin;
  std::string row;
  if (after.starts_with(prefix)) {
    const std::string_view group = common_prefix(after, prefix, delimiter);
    row = group.empty() ? after_key(kind, bucket, after) : after_prefix(kind, bucket, group);
  } else {
    row = after_key(kind, bucket, after);
  }
  return std::max(row, all.begin);
}

}  // namespace quarry::object
