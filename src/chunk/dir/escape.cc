#include "chunk/dir/escape.h"

namespace quarry::chunk::dir {
namespace {

constexpr size_t kPieceMax = 240;  // escaped bytes of one piece of a long component; room for %+ and %=
constexpr std::string_view kOwnDirectory = ".quarry";

// One component, escaped, as one piece (not yet cut). Units are single bytes and escapes of two or three bytes.
std::vector<std::string> escape_units(std::string_view component, bool is_bucket) {
  if (component.empty()) return {"%_"};
  const bool leading_dot = component == "." || component == ".." || (is_bucket && component == kOwnDirectory);
  std::vector<std::string> units;
  units.reserve(component.size());
  for (size_t i = 0; i < component.size(); ++i) {
    const char c = component[i];
    if (c == '%') {
      units.emplace_back("%25");
    } else if (c == '\0') {
      units.emplace_back("%00");
    } else if (c == '.' && i == 0 && leading_dot) {
      units.emplace_back("%2E");
    } else {
      units.emplace_back(1, c);
    }
  }
  return units;
}

void append_component(std::string& path, std::string_view component, bool is_bucket) {
  size_t total = 0;
  // The usual component needs nothing.
  if (!component.empty() && component.size() <= kPieceMax && component[0] != '.' && component.find('%') == std::string_view::npos &&
      component.find('\0') == std::string_view::npos) {
    path.append(component);
    return;
  }
  const auto units = escape_units(component, is_bucket);
  for (const auto& unit : units) total += unit.size();
  if (total <= kPieceMax) {
    for (const auto& unit : units) path.append(unit);
    return;
  }
  size_t filled = 0;
  for (std::string_view unit : units) {
    if (filled + unit.size() > kPieceMax) {
      path.append("%+/");
      filled = 0;
      if (unit == ".") unit = "%2E";  // the rest of the component could be "." or ".."
    }
    path.append(unit);
    filled += unit.size();
  }
}

// The text of one piece without its closing mark; none if it holds something that is no escape.
std::optional<std::string> unescape(std::string_view piece) {
  std::string text;
  for (size_t i = 0; i < piece.size(); ++i) {
    if (piece[i] != '%') {
      text.push_back(piece[i]);
    } else if (piece.substr(i, 3) == "%25") {
      text.push_back('%');
      i += 2;
    } else if (piece.substr(i, 3) == "%00") {
      text.push_back('\0');
      i += 2;
    } else if (piece.substr(i, 3) == "%2E") {
      text.push_back('.');
      i += 2;
    } else if (piece.substr(i, 2) == "%_") {
      i += 1;
    } else {
      return std::nullopt;
    }
  }
  return text;
}

}  // namespace

Result<std::string> path_of_key(std::string_view bucket, std::string_view key, PathForm form) {
  if (bucket.empty()) return fail(Code::invalid_argument, "a file needs a bucket");
  if (bucket.find('/') != std::string_view::npos) return fail(Code::invalid_argument, "a bucket's name holds a slash");
  std::string path;
  path.reserve(bucket.size() + 1 + key.size());
  append_component(path, bucket, true);
  for (size_t at = 0;;) {
    const size_t slash = key.find('/', at);
    path.push_back('/');
    append_component(path, key.substr(at, slash == std::string_view::npos ? slash : slash - at), false);
    if (slash == std::string_view::npos) break;
    at = slash + 1;
  }
  if (form == PathForm::yielding) path.append("%=");
  if (path.size() > kPathMax)
    return fail(Code::too_large, "a key of {} bytes becomes a path of {}: at most {}", key.size(), path.size(), kPathMax);
  return path;
}

std::optional<BucketAndKey> parse_path(std::string_view path) {
  PathForm form = PathForm::plain;
  std::string_view body = path;
  if (body.ends_with("%=")) {
    form = PathForm::yielding;
    body.remove_suffix(2);
  }
  std::vector<std::string> components(1);
  for (size_t at = 0;;) {
    const size_t slash = body.find('/', at);
    std::string_view piece = body.substr(at, slash == std::string_view::npos ? slash : slash - at);
    const bool continued = slash != std::string_view::npos && piece.ends_with("%+");
    if (continued) piece.remove_suffix(2);
    auto text = unescape(piece);
    if (!text) return std::nullopt;
    components.back() += *text;
    if (slash == std::string_view::npos) break;
    if (!continued) components.emplace_back();
    at = slash + 1;
  }
  if (components.size() < 2) return std::nullopt;
  BucketAndKey found;
  found.bucket = std::move(components[0]);
  for (size_t i = 1; i < components.size(); ++i) {
    if (i > 1) found.key.push_back('/');
    found.key += components[i];
  }
  // Many texts read as this key; only one of them is its path.
  const auto canonical = path_of_key(found.bucket, found.key, form);
  if (!canonical || *canonical != path) return std::nullopt;
  return found;
}

BucketAndKey key_of_path(std::string_view path) {
  if (auto found = parse_path(path)) return std::move(*found);
  const size_t slash = path.find('/');
  if (slash == std::string_view::npos) return {std::string(), std::string(path)};
  return {std::string(path.substr(0, slash)), std::string(path.substr(slash + 1))};
}

}  // namespace quarry::chunk::dir
