// quarry user list|create|enable|disable|delete and quarry key show|list|create|enable|disable|delete
#include <iostream>

#include "cli/hints.h"
#include "cli/session.h"
#include "cli/terminal.h"

namespace quarry::cli {
namespace {

std::string shown(const JsonValue& value) {
  if (value.as_bool()) return *value.as_bool() ? "yes" : "no";
  if (value.as_string()) return std::string(*value.as_string());
  return fmt::format("{}", value.as_u64().value_or(0));
}

Task<Result<void>> print_list(Session& session, std::string path, bool as_json, std::vector<std::string> columns) {
  CO_TRY_ASSIGN(const std::string text, co_await session.admin.call("GET", path));
  if (as_json) {
    fmt::print("{}", text);
    co_return Result<void>();
  }
  CO_TRY_ASSIGN(const JsonValue json, parse_json(text));
  std::vector<std::vector<std::string>> rows;
  for (const auto& item : json.items()) {
    std::vector<std::string> row;
    for (const auto& column : columns) row.push_back(item.find(column) == nullptr ? "" : shown(*item.find(column)));
    rows.push_back(std::move(row));
  }
  for (auto& column : columns)
    std::transform(column.begin(), column.end(), column.begin(),
                   [](char c) { return c == '_' ? ' ' : static_cast<char>(std::toupper(c)); });
  print_table(columns, rows);
  co_return Result<void>();
}

Task<Result<void>> change(Session& session, std::string collection, std::string name, std::string verb, bool as_json) {
  const std::string path = "/v1/" + collection + "/" + percent_encode(name);
  if (verb == "delete") {
    CO_TRY(co_await session.admin.call("DELETE", path));
  } else {
    CO_TRY(co_await session.admin.call("POST", path + "/" + verb));
  }
  const std::string_view what = collection == "users" ? "user" : "key";
  if (as_json) {
    JsonWriter json;
    json.begin_object().field(what, name).field("done", verb).end_object();
    fmt::print("{}\n", json.str());
  } else {
    fmt::print("{} {}: {}d\n", what, name, verb);
  }
  co_return Result<void>();
}

Task<Result<void>> create_user(Session& session, const UserOptions& options) {
  JsonWriter json;
  json.begin_object().field("name", options.name).field("administrator", options.administrator).end_object();
  CO_TRY_ASSIGN(const std::string text, co_await session.admin.call("POST", "/v1/users", json.take()));
  if (options.target.json) {
    fmt::print("{}", text);
  } else {
    fmt::print("created user {}; {}\n", options.name,
               with_root(fmt::format("give it a key with: `quarry key create {}`", options.name), options.target.root));
  }
  co_return Result<void>();
}

Task<Result<void>> create_key(Session& session, const UserOptions& options) {
  JsonWriter json;
  json.begin_object();
  if (!options.access_key.empty()) json.field("access_key", options.access_key);
  if (options.secret_from_stdin) {
    std::string secret;
    std::getline(std::cin, secret);
    json.field("secret_key", secret);
  }
  json.end_object();
  CO_TRY_ASSIGN(const std::string text,
                co_await session.admin.call("POST", "/v1/users/" + percent_encode(options.name) + "/keys", json.take()));
  if (options.target.json) {
    fmt::print("{}", text);
    co_return Result<void>();
  }
  CO_TRY_ASSIGN(const JsonValue key, parse_json(text));
  CO_TRY_ASSIGN(const std::string access_key, key.string_at("access_key"));
  CO_TRY_ASSIGN(const std::string secret_key, key.string_at("secret_key"));
  fmt::print("access key  {}\nsecret key  {}\nThe secret is not shown again.\n", access_key, secret_key);
  co_return Result<void>();
}

}  // namespace

int run_user_list(const UserOptions& options) {
  return with_session(options.target, [&](Session& session) {
    return print_list(session, "/v1/users", options.target.json, {"name", "administrator", "enabled", "id"});
  });
}
int run_user_create(const UserOptions& options) {
  return with_session(options.target, [&](Session& session) { return create_user(session, options); });
}
int run_user_change(const UserOptions& options, const char* verb) {
  return with_session(options.target, [&](Session& session) { return change(session, "users", options.name, verb, options.target.json); });
}
int run_key_show(const UserOptions& options) {
  const auto endpoints = resolve_endpoints(options.target);
  if (!endpoints) return print_error(endpoints.error().to_string());
  if (options.target.json) {
    JsonWriter json;
    json.begin_object().field("access_key", endpoints->access_key).field("secret_key", endpoints->secret_key).end_object();
    fmt::print("{}\n", json.str());
  } else {
    fmt::print("access key  {}\nsecret key  {}\n", endpoints->access_key, endpoints->secret_key);
  }
  return 0;
}
int run_key_list(const UserOptions& options) {
  return with_session(options.target, [&](Session& session) {
    return print_list(session, "/v1/users/" + percent_encode(options.name) + "/keys", options.target.json, {"access_key", "enabled"});
  });
}
int run_key_create(const UserOptions& options) {
  return with_session(options.target, [&](Session& session) { return create_key(session, options); });
}
int run_key_change(const UserOptions& options, const char* verb) {
  return with_session(options.target,
                      [&](Session& session) { return change(session, "keys", options.access_key, verb, options.target.json); });
}

}  // namespace quarry::cli
