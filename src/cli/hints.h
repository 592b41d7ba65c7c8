// Hints: commands inside messages, in backticks. Typed as they are printed they work; the place of a NEW drive is for people to name.
#pragma once
#include <string>
#include <string_view>

namespace quarry::cli {

// The message with `--root ROOT` in each command that talks to a node; as it is where root is empty: the default is what is meant.
std::string with_root(std::string_view message, std::string_view root);

}  // namespace quarry::cli
