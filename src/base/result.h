// Result<T>: a value or an Error. std::expected with [[nodiscard]] on the type, and the macros that pass errors up.
//
// In `dev` an error that dies unread stops the program: [[nodiscard]] sees a call whose Result is dropped, not a variable, a member or a
// list that nobody looks at. Read is what was asked for its state, value or error, or ignored with a reason. Moving and copying hand the
// duty on: what is left behind is read. Assigning over one is a decision that stands in the code. A value may die unread, as the second of
// two results does when the first is an error. A frame of a coroutine that is destroyed before its end (its Task was dropped) takes its
// Results along unread: who dropped it decided that.
#pragma once
#include <atomic>
#include <expected>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"

namespace quarry {

#ifdef QUARRY_DEV
namespace detail {
[[gnu::cold]] void died_unread(const char* error);
inline thread_local int unfinished_frames = 0;  // that are being destroyed on this thread
}  // namespace detail

// While it lives, Results may die unread on this thread: around the destruction of a coroutine's frame, if that is before its end.
class UnfinishedFrame {
 public:
  explicit UnfinishedFrame(bool unfinished) : added_(unfinished ? 1 : 0) { detail::unfinished_frames += added_; }
  UnfinishedFrame(const UnfinishedFrame&) = delete;
  ~UnfinishedFrame() { detail::unfinished_frames -= added_; }

 private:
  const int added_;
};

// A std::expected whose error must be read. E has to_string().
template <class T, class E>
class [[nodiscard]] MustRead : public std::expected<T, E> {
  using Base = std::expected<T, E>;

 public:
  using Base::Base;
  MustRead() = default;
  MustRead(Base&& base) : Base(std::move(base)) {}  // NOLINT: implicit by design
  MustRead(MustRead&&) = default;
  MustRead(const MustRead&) = default;
  MustRead& operator=(MustRead&& other) noexcept(std::is_nothrow_move_assignable_v<Base>)
    requires std::is_move_assignable_v<Base>
  {
    Base::operator=(std::move(other));
    unread_ = other.unread_;
    return *this;
  }
  MustRead& operator=(const MustRead& other)
    requires std::is_copy_assignable_v<Base>
  {
    Base::operator=(other);
    unread_ = other.unread_;
    return *this;
  }
  ~MustRead() { check_read(); }

  bool has_value() const noexcept { return read().has_value(); }
  explicit operator bool() const noexcept { return read().has_value(); }
  decltype(auto) value() & { return read().value(); }
  decltype(auto) value() const& { return read().value(); }
  decltype(auto) value() && { return std::move(read()).value(); }
  decltype(auto) error() & { return read().error(); }
  decltype(auto) error() const& { return read().error(); }
  decltype(auto) error() && { return std::move(read()).error(); }
  decltype(auto) operator*() & { return *read(); }
  decltype(auto) operator*() const& { return *read(); }
  decltype(auto) operator*() && { return *std::move(read()); }
  auto operator->() { return std::addressof(*read()); }
  auto operator->() const { return std::addressof(*read()); }
  template <class U>
  T value_or(U&& otherwise) const& {
    return read().value_or(std::forward<U>(otherwise));
  }
  template <class U>
  T value_or(U&& otherwise) && {
    return std::move(read()).value_or(std::forward<U>(otherwise));
  }

 protected:
  Base& read() {
    unread_.take();
    return *this;
  }
  const Base& read() const {
    unread_.take();
    return *this;
  }

 private:
  void check_read() const {
    if (Base::has_value() || !unread_.is.load(std::memory_order_relaxed) || detail::unfinished_frames > 0) return;
    detail::died_unread(Base::error().to_string().c_str());
  }
  struct Unread {
    mutable std::atomic<bool> is{true};  // threads may read one constant Result
    Unread() = default;
    Unread(const Unread& other) : is(other.take()) {}
    Unread& operator=(const Unread& other) {
      is.store(other.take(), std::memory_order_relaxed);
      return *this;
    }
    bool take() const {
      const bool was = is.load(std::memory_order_relaxed);
      is.store(false, std::memory_order_relaxed);
      return was;
    }
  } unread_;
};
#else
class UnfinishedFrame {
 public:
  explicit UnfinishedFrame(bool /*unfinished*/) {}
};
template <class T, class E>
class [[nodiscard]] MustRead : public std::expected<T, E> {
  using Base = std::expected<T, E>;

 public:
  using Base::Base;
  MustRead() = default;
  MustRead(Base&& base) : Base(std::move(base)) {}  // NOLINT: implicit by design

 protected:
  void read() const {}
};
#endif

template <class T = void>
class [[nodiscard]] Result : public MustRead<T, Error> {
  using Base = MustRead<T, Error>;

 public:
  using Base::Base;
  Result() = default;
  Result(Error error) : Base(std::unexpect, std::move(error)) {}             // NOLINT: implicit by design
  Result(std::expected<T, Error>&& expected) : Base(std::move(expected)) {}  // NOLINT
  // States that a failure does not matter here, and why.
  void ignore(const char* /*why*/) && { this->read(); }
};

// Of several results of one piece of work: the first error. The others are read by this; they say no more than that it failed.
template <class T>
Result<void> first_error(const std::vector<Result<T>>& results) {
  std::optional<Error> first;
  for (const auto& result : results) {
    if (!result && !first) first.emplace(result.error());
  }
  if (first) return std::move(*first);
  return {};
}

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
