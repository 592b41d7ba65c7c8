// POST /v1/drives {"path","force"}: add. POST /v1/drives/N/{drain,remove,replace,disable,enable} {"path","force","reason"}. GET is part of
// /v1/status.
#include <charconv>

#include "frontends/admin/admin_server.h"

namespace quarry::frontends::admin {
namespace {
bool flag_of(const JsonValue& body, std::string_view name) {
  const JsonValue* value = body.find(name);
  return value != nullptr && value->as_bool().value_or(false);
}
}  // namespace

Task<Result<Answer>> drives_op(AdminServices& services, Call& call) {
  if (call.head.method != "POST")
    co_return fail(Code::not_found, "use POST /v1/drives or POST /v1/drives/NUMBER/drain|remove|replace|disable|enable");
  const bool force = flag_of(call.body, "force");
  if (call.segments.size() == 1) {
    CO_TRY_ASSIGN(const std::string path, call.body.string_at("path"));
    CO_TRY(co_await services.data.add_drive(path, force));
    co_return Answer{.status = 201};
  }
  uint32_t number = 0;
  if (call.segments.size() == 3) {
    const std::string& text = call.segments[1];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) co_return fail(Code::invalid_argument, "'{}' is no drive number", text);
    if (call.segments[2] == "drain") {
      CO_TRY(co_await services.data.drain_drive(number));
      co_return Answer{.status = 202};
    }
    if (call.segments[2] == "remove") {
      CO_TRY(co_await services.data.remove_drive(number, force));
      co_return Answer{.status = 202};
    }
    if (call.segments[2] == "disable") {
      const JsonValue* reason = call.body.find("reason");
      CO_TRY(co_await services.data.disable_drive(number, reason != nullptr ? std::string(reason->as_string().value_or("")) : std::string(),
                                                  force));
      co_return Answer{.status = 200};
    }
    if (call.segments[2] == "enable") {
      CO_TRY(co_await services.data.enable_drive(number, force));
      co_return Answer{.status = 200};
    }
    if (call.segments[2] == "replace") {
      CO_TRY_ASSIGN(const std::string path, call.body.string_at("path"));
      CO_TRY(co_await services.data.replace_drive(number, path, force));
      co_return Answer{.status = 202};
    }
  }
  co_return fail(Code::not_found, "use POST /v1/drives or POST /v1/drives/NUMBER/drain|remove|replace|disable|enable");
}

}  // namespace quarry::frontends::admin
