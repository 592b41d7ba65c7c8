// Result<T>: a value or an Error. std::expected with [[nodiscard]] on the type, and the macros that pass errors up.
#pragma once
#include <expected>
#include <utility>

#include "base/error.h"

namespace quarry {

template <class T = void>
class [[nodiscard]] Result : public std::expected<T, Error> {
  using Base = std::expected<T, Error>;

 public:
  using Base::Base;
  Result(Error error) : Base(std::unexpect, std::move(error)) {}  // NOLINT: implicit by design
  Result(Base&& base) : Base(std::move(base)) {}                  // NOLINT
  // States that a failure does not matter here, and why.
  void ignore(const char* /*why*/) && {}
};

template <>
class [[nodiscard]] Result<void> : public std::expected<void, Error> {
  using Base = std::expected<void, Error>;

 public:
  using Base::Base;
  Result() = default;
  Result(Error error) : Base(std::unexpect, std::move(error)) {}  // NOLINT
  Result(Base&& base) : Base(std::move(base)) {}                  // NOLINT
  void ignore(const char* /*why*/) && {}
};

// fail(Code::not_found, "bucket '{}'", name)
template <class... Args>
Error fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace quarry

#define QUARRY_JOIN2(a, b) a##b
#define QUARRY_JOIN(a, b) QUARRY_JOIN2(a, b)

// TRY(expr): returns the error of expr from this function. TRY_ASSIGN(auto x, expr): the same, else x = value.
#define TRY(expr)                                            \
  do {                                                       \
    auto try_result_ = (expr);                               \
    if (!try_result_) return std::move(try_result_).error(); \
  } while (false)
#define TRY_ASSIGN(declaration, expr) TRY_ASSIGN_IMPL(QUARRY_JOIN(try_result_, __LINE__), declaration, expr)
#define TRY_ASSIGN_IMPL(name, declaration, expr) \
  auto name = (expr);                            \
  if (!name) return std::move(name).error();     \
  declaration = std::move(*name)

// The same inside a coroutine; expr is usually `co_await something(...)`.
#define CO_TRY(expr)                                            \
  do {                                                          \
    auto try_result_ = (expr);                                  \
    if (!try_result_) co_return std::move(try_result_).error(); \
  } while (false)
#define CO_TRY_ASSIGN(declaration, expr) CO_TRY_ASSIGN_IMPL(QUARRY_JOIN(try_result_, __LINE__), declaration, expr)
#define CO_TRY_ASSIGN_IMPL(name, declaration, expr) \
  auto name = (expr);                               \
  if (!name) co_return std::move(name).error();     \
  declaration = std::move(*name)
