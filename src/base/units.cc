#include "base/units.h"

#include <charconv>

namespace quarry {
namespace {
struct Unit {
  std::string_view name;
  double factor;
};
constexpr double kK = 1024;
constexpr Unit kSizes[] = {{"", 1},
                           {"B", 1},
                           {"K", kK},
                           {"KiB", kK},
                           {"KB", 1e3},
                           {"M", kK* kK},
                           {"MiB", kK* kK},
                           {"MB", 1e6},
                           {"G", kK* kK* kK},
                           {"GiB", kK* kK* kK},
                           {"GB", 1e9},
                           {"T", kK* kK* kK* kK},
                           {"TiB", kK* kK* kK* kK},
                           {"TB", 1e12},
                           {"P", kK* kK* kK* kK* kK},
                           {"PiB", kK* kK* kK* kK* kK},
                           {"PB", 1e15}};
constexpr Unit kDurations[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}};

bool same_letters(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return (x | 32) == (y | 32); });
}

template <size_t N>
Result<double> parse_with_unit(std::string_view text, const Unit (&units)[N], const char* what, const char* example) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc{} && number >= 0) {
    std::string_view rest(end, static_cast<size_t>(text.data() + text.size() - end));
    while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
    for (const auto& unit : units) {
      if (same_letters(rest, unit.name)) return number * unit.factor;
    }
  }
  return fail(Code::malformed, "'{}' is not a {}; write for example {}", text, what, example);
}
}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  TRY_ASSIGN(const double value, parse_with_unit(text, kSizes, "size", "64MiB"));
  if (value > 9.2e18) return fail(Code::malformed, "size '{}' is too large", text);
  return static_cast<uint64_t>(value);
}

std::string format_size(uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit < 6) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  return value < 10 ? fmt::format("{:.2f} {}", value, kNames[unit]) : fmt::format("{:.1f} {}", value, kNames[unit]);
}

std::string format_rate(double bytes_per_second) {
  return format_size(bytes_per_second > 0 ? static_cast<uint64_t>(bytes_per_second) : 0) + "/s";
}

Result<Duration> parse_duration(std::string_view text) {
  TRY_ASSIGN(const double value, parse_with_unit(text, kDurations, "duration", "5s"));
  if (value > 9.2e18) return fail(Code::malformed, "duration '{}' is too long", text);
  return Duration(static_cast<int64_t>(value));
}

std::string format_duration(Duration duration) {
  const double seconds = std::chrono::duration<double>(duration).count();
  if (seconds < 1e-3) return fmt::format("{:.0f}us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f}ms", seconds * 1e3);
  if (seconds < 120) return fmt::format("{:.1f}s", seconds);
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 7200) return fmt::format("{}m {}s", whole / 60, whole % 60);
  return fmt::format("{}h {}m", whole / 3600, whole % 3600 / 60);
}

}  // namespace quarry
