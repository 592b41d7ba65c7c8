#pragma once
#include <string_view>

namespace quarry::cli {
inline constexpr std::string_view kVersion = "0.1.0";
}  // namespace quarry::cli
