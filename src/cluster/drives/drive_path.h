// DrivePath: how people name a drive: KIND:PATH, or a plain PATH for a raw one. The text is kept as it is in map and labels, so that what a
// drive is can be told while it is away.
#pragma once
#include <string>
#include <string_view>

namespace quarry::cluster {

struct DrivePath {
  std::string_view kind;  // "raw", or what stands before the first ':' if it is a plain word ("kfs", "dir"); views into the text
  std::string_view path;
};

inline DrivePath parse_drive_path(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0 || colon > 8) return {"raw", text};
  for (const char c : text.substr(0, colon)) {
    if (c < 'a' || c > 'z') return {"raw", text};
  }
  return {text.substr(0, colon), text.substr(colon + 1)};
}

}  // namespace quarry::cluster
