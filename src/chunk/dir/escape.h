// Names of objects as paths of a file system, and back. Pure, any thread. The rules, with examples: docs/formats/dir.md, section 3.
//
// A path is bucket/component/component..., the key cut at its slashes. What a file system cannot name is escaped with '%':
//   %00 NUL   %25 '%'   %2E a leading '.' of "." or ".." (of ".quarry" too, in a bucket)   %_ an empty component
//   NAME%+ a directory: the component goes on in the next one (names are at most 255 bytes)
//   NAME%= a file: its plain name is taken by a directory ("a" beside "a/b")
// Every key has exactly two paths, the plain one and the one that yields (%=), and no two keys share one.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quarry::chunk::dir {

inline constexpr size_t kComponentMax = 255;  // bytes of one name in a file system
inline constexpr size_t kPathMax = 4000;      // bytes of a path relative to the mountpath

enum class PathForm : uint8_t { plain, yielding };

// Errors: too_large (the path would be longer than a file system can name), invalid_argument (no bucket).
Result<std::string> path_of_key(std::string_view bucket, std::string_view key, PathForm form = PathForm::plain);

struct BucketAndKey {
  std::string bucket, key;
  bool operator==(const BucketAndKey&) const = default;
};
// The key whose path (in either form) this is, byte for byte; none if no key has this path.
std::optional<BucketAndKey> parse_path(std::string_view path);

// The key under which an existing file is best adopted: that of its path if it is one of ours (so that a tree taken out of Quarry comes
// back under the same keys), else the path itself, literally.
BucketAndKey key_of_path(std::string_view path);

}  // namespace quarry::chunk::dir
