// CHECK ends the process when the program itself is wrong. Input from disk, wire or user never reaches a CHECK.
#pragma once
#include <string_view>

namespace quarry {
[[noreturn, gnu::cold]] void check_failed(const char* file, int line, const char* expression, std::string_view detail = {});
}  // namespace quarry

#define CHECK(condition, ...) \
  (static_cast<bool>(condition) ? void(0) : ::quarry::check_failed(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__))
#ifdef QUARRY_DEV
#define DCHECK(condition) CHECK(condition)
#else
#define DCHECK(condition) static_cast<void>(sizeof(!(condition)))
#endif
