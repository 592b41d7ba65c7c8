// Users:  GET /v1/users; POST /v1/users {"name","administrator"}; POST /v1/users/NAME/enable|disable; DELETE /v1/users/NAME
// Keys:   GET /v1/users/NAME/keys; POST /v1/users/NAME/keys {"access_key","secret_key"} (both optional; the answer shows the secret once)
//         POST /v1/keys/KEY/enable|disable; DELETE /v1/keys/KEY
#include "frontends/admin/admin_server.h"

namespace quarry::frontends::admin {
namespace {

void write_user(JsonWriter& json, const auth::User& user) {
  json.begin_object()
      .field("id", user.id)
      .field("name", user.name)
      .field("administrator", user.administrator)
      .field("enabled", user.enabled)
      .field("created", user.created)
      .end_object();
}

std::string text_or_empty(const JsonValue& body, std::string_view name) {
  const JsonValue* value = body.find(name);
  return value == nullptr ? std::string() : std::string(value->as_string().value_or(""));
}

}  // namespace

Task<Result<Answer>> users_op(AdminServices& services, Call& call) {
  auto& identities = services.identities;
  const std::string_view method = call.head.method;
  if (call.segments.size() == 1 && method == "GET") {
    CO_TRY_ASSIGN(const auto users, co_await identities.list_users());
    JsonWriter json;
    json.begin_array();
    for (const auto& user : users) write_user(json, user);
    json.end_array();
    co_return Answer{.json = json.take()};
  }
  if (call.segments.size() == 1 && method == "POST") {
    CO_TRY_ASSIGN(const std::string name, call.body.string_at("name"));
    const JsonValue* administrator = call.body.find("administrator");
    CO_TRY_ASSIGN(const auto user,
                  co_await identities.create_user(name, administrator != nullptr && administrator->as_bool().value_or(false)));
    JsonWriter json;
    write_user(json, user);
    co_return Answer{.status = 201, .json = json.take()};
  }
  if (call.segments.size() == 2 && method == "DELETE") {
    CO_TRY(co_await identities.delete_user(call.segments[1]));
    co_return Answer{};
  }
  if (call.segments.size() == 3 && method == "POST" && (call.segments[2] == "enable" || call.segments[2] == "disable")) {
    CO_TRY(co_await identities.set_user_enabled(call.segments[1], call.segments[2] == "enable"));
    co_return Answer{};
  }
  if (call.segments.size() == 3 && call.segments[2] == "keys" && method == "GET") {
    CO_TRY_ASSIGN(const auto keys, co_await identities.list_keys(call.segments[1]));
    JsonWriter json;
    json.begin_array();
    for (const auto& key : keys) {
      json.begin_object().field("access_key", key.access_key).field("enabled", key.enabled).field("created", key.created).end_object();
    }
    json.end_array();
    co_return Answer{.json = json.take()};
  }
  if (call.segments.size() == 3 && call.segments[2] == "keys" && method == "POST") {
    CO_TRY_ASSIGN(const auto key, co_await identities.create_key(call.segments[1], text_or_empty(call.body, "access_key"),
                                                                 text_or_empty(call.body, "secret_key")));
    JsonWriter json;
    json.begin_object().field("access_key", key.access_key).field("secret_key", key.secret_key).end_object();
    co_return Answer{.status = 201, .json = json.take()};
  }
  co_return fail(Code::not_found, "there is no {} {}", method, call.head.raw_path);
}

Task<Result<Answer>> keys_op(AdminServices& services, Call& call) {
  if (call.segments.size() == 2 && call.head.method == "DELETE") {
    CO_TRY(co_await services.identities.delete_key(call.segments[1]));
    co_return Answer{};
  }
  if (call.segments.size() == 3 && call.head.method == "POST" && (call.segments[2] == "enable" || call.segments[2] == "disable")) {
    CO_TRY(co_await services.identities.set_key_enabled(call.segments[1], call.segments[2] == "enable"));
    co_return Answer{};
  }
  co_return fail(Code::not_found, "there is no {} {}", call.head.method, call.head.raw_path);
}

}  // namespace quarry::frontends::admin
