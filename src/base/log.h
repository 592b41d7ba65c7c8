// Structured log lines, key=value on standard error (or a file): `ts=... level=info event="..." key=value ...`.
// Thread-safe; a line is one write(2). Never pass a secret: values are printed as they are.
//   LOG_INFO("drive opened", {"drive", id}, {"size", size});
#pragma once
#include <string>
#include <string_view>

namespace quarry {

enum class LogLevel : uint8_t { debug, info, warning, error };

struct LogField {
  template <class T>
  LogField(std::string_view field_key, const T& field_value) : key(field_key), value(fmt::format("{}", field_value)) {}
  std::string_view key;
  std::string value;
};

void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
// Where lines go; default standard error. Takes effect for all threads; fd stays the caller's.
void set_log_file_descriptor(int fd);
void log_line(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

}  // namespace quarry

#define QUARRY_LOG(level, event, ...)                                                  \
  do {                                                                                 \
    if (::quarry::log_enabled(level)) ::quarry::log_line(level, event, {__VA_ARGS__}); \
  } while (false)
#define LOG_DEBUG(event, ...) QUARRY_LOG(::quarry::LogLevel::debug, event, __VA_ARGS__)
#define LOG_INFO(event, ...) QUARRY_LOG(::quarry::LogLevel::info, event, __VA_ARGS__)
#define LOG_WARNING(event, ...) QUARRY_LOG(::quarry::LogLevel::warning, event, __VA_ARGS__)
#define LOG_ERROR(event, ...) QUARRY_LOG(::quarry::LogLevel::error, event, __VA_ARGS__)
