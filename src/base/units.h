// Human quantities: sizes ("64MiB"), durations ("1.5s"), and their printing.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace quarry {

using Duration = std::chrono::nanoseconds;

// "4096", "64KiB", "64K", "1.5GiB", "10GB" (decimal), "1TiB". Errors: malformed.
Result<uint64_t> parse_size(std::string_view text);
std::string format_size(uint64_t bytes);                 // "1.5 GiB"
std::string format_rate(double bytes_per_second);        // "812 MiB/s"
Result<Duration> parse_duration(std::string_view text);  // "250ms", "5s", "2m", "1h", "7d"
std::string format_duration(Duration duration);          // "1.2s", "3m 20s"

}  // namespace quarry
