#include "base/error.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "base/check.h"

namespace quarry {

std::string_view code_name(Code code) {
  switch (code) {
#define X(name, number, cls, text) \
  case Code::name: return #name;
    QUARRY_ERROR_CODES(X)
#undef X
  }
  return "unlisted_code";
}

std::string_view code_description(Code code) {
  switch (code) {
#define X(name, number, cls, text) \
  case Code::name: return text;
    QUARRY_ERROR_CODES(X)
#undef X
  }
  return "a code this program does not know";
}

ErrorClass code_class(Code code) {
  switch (code) {
#define X(name, number, cls, text) \
  case Code::name: return ErrorClass::cls;
    QUARRY_ERROR_CODES(X)
#undef X
  }
  return ErrorClass::environment;
}

std::string_view reason_name(Reason reason) {
  switch (reason) {
#define X(name, number, text) \
  case Reason::name: return #name;
    QUARRY_ERROR_REASONS(X)
#undef X
  }
  return "unlisted_reason";
}

std::string_view reason_description(Reason reason) {
  switch (reason) {
#define X(name, number, text) \
  case Reason::name: return text;
    QUARRY_ERROR_REASONS(X)
#undef X
  }
  return "a reason this program does not know";
}

Error Error::with(std::string_view what) && {
  context_ = context_.empty() ? std::string(what) : fmt::format("{}: {}", what, context_);
  return std::move(*this);
}

Error Error::because(Reason reason) && {
  reason_ = reason;
  return std::move(*this);
}

std::string Error::to_string() const {
  return context_.empty() ? std::string(code_name(code_)) : fmt::format("{}: {}", code_name(code_), context_);
}

Error errno_error(int error_number, std::string_view what) {
  const auto text = fmt::format("{}: {}", what, std::generic_category().message(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT: return Error(Code::no_space, text);
    case ENODEV:
    case ENXIO: return Error(Code::device_gone, text);
    case EROFS: return Error(Code::read_only, text);
    case ENOENT: return Error(Code::not_found, text);
    case EEXIST: return Error(Code::already_exists, text);
    case EACCES:
    case EPERM: return Error(Code::permission_denied, text);
    case EBUSY: return Error(Code::busy, text);
    case EMFILE:
    case ENFILE: return Error(Code::overloaded, text + ": raise the limit of open files (ulimit -n)");  // of this process or machine
    case ETIMEDOUT: return Error(Code::timed_out, text);
    case ECANCELED: return Error(Code::cancelled, text);
    case EPIPE:
    case ECONNRESET: return Error(Code::connection_closed, text);
    default: return Error(Code::io_error, text);
  }
}

void check_failed(const char* file, int line, const char* expression, std::string_view detail) {
  std::fprintf(stderr, "CHECK failed: %s:%d: %s%s%.*s\n", file, line, expression, detail.empty() ? "" : ": ",
               static_cast<int>(detail.size()), detail.data());
  std::fflush(stderr);
  std::abort();
}

#ifdef QUARRY_DEV
namespace detail {
void died_unread(const char* error) {
  std::fprintf(stderr, "a Result dies unread: %s\n", error);
  std::fflush(stderr);
  std::abort();
}
}  // namespace detail
#endif

}  // namespace quarry
