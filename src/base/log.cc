#include "base/log.h"

#include <time.h>
#include <unistd.h>

namespace quarry {
namespace {
std::atomic<LogLevel> minimum_level{LogLevel::info};
std::atomic<int> output{2};
constexpr const char* kLevelNames[] = {"debug", "info", "warning", "error"};

void append_value(std::string& line, std::string_view value) {
  const bool plain = !value.empty() && value.find_first_of(" \"=\\\n\r\t") == std::string_view::npos;
  if (plain) {
    line += value;
    return;
  }
  line += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') line += '\\';
    if (c == '\n') {
      line += "\\n";
    } else if (static_cast<unsigned char>(c) < 32) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line += c;
    }
  }
  line += '"';
}
}  // namespace

void set_log_level(LogLevel level) { minimum_level = level; }
bool log_enabled(LogLevel level) { return level >= minimum_level.load(std::memory_order_relaxed); }
void set_log_file_descriptor(int fd) { output = fd; }

void log_line(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  std::string line =
      fmt::format("ts={:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z level={} event=", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                  parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec / 1000000, kLevelNames[static_cast<size_t>(level)]);
  append_value(line, event);
  for (const auto& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_value(line, field.value);
  }
  line += '\n';
  // A log that cannot be written has nowhere to complain.
  [[maybe_unused]] const auto written = ::write(output.load(std::memory_order_relaxed), line.data(), line.size());
}

}  // namespace quarry
