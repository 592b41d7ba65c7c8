// JSON: a reader into a small bounded tree (simdjson underneath), and a writer that appends text. Pure, any thread.
#pragma once
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace quarry {

struct JsonLimits {
  size_t bytes_max = 16 * 1024 * 1024;
  size_t depth_max = 64;
  size_t nodes_max = 1'000'000;
};

class JsonValue {
 public:
  using Array = std::vector<JsonValue>;
  using Object = std::vector<std::pair<std::string, JsonValue>>;  // in the order of the text; of duplicate names the first is found
  JsonValue() = default;
  // One of the alternatives below, exactly (an open template would make JsonValue look constructible from Result<JsonValue>).
  template <class T>
    requires std::same_as<T, bool> || std::same_as<T, int64_t> || std::same_as<T, uint64_t> || std::same_as<T, double> ||
             std::same_as<T, std::string> || std::same_as<T, Array> || std::same_as<T, Object>
  explicit JsonValue(T value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_number() const;
  bool is_bool() const { return std::holds_alternative<bool>(value_); }

  // Member of an object, or null if there is none or this is no object.
  const JsonValue* find(std::string_view name) const;
  // The value of a member, or an error that names it: malformed.
  Result<std::string> string_at(std::string_view name) const;
  Result<uint64_t> u64_at(std::string_view name) const;
  // Values, or nothing if of another type (or out of range).
  std::optional<std::string_view> as_string() const;
  std::optional<uint64_t> as_u64() const;
  std::optional<int64_t> as_i64() const;
  std::optional<double> as_double() const;
  std::optional<bool> as_bool() const;
  const Array& items() const;     // empty unless an array
  const Object& members() const;  // empty unless an object

 private:
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

// Errors: malformed, too_large (a limit).
Result<JsonValue> parse_json(std::string_view text, const JsonLimits& limits = {});

// Writes one value; commas are its business.
//   JsonWriter json; json.begin_object().field("size", size).key("names").begin_array().value("a").end_array().end_object();
class JsonWriter {
 public:
  explicit JsonWriter(int indent = 0) : indent_(indent) {}  // 0: on one line
  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);  // invalid UTF-8 becomes U+FFFD
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(uint64_t number);
  JsonWriter& value(int64_t number);
  JsonWriter& value(uint32_t number) { return value(static_cast<uint64_t>(number)); }
  JsonWriter& value(int number) { return value(static_cast<int64_t>(number)); }
  JsonWriter& value(double number);  // not finite: null
  JsonWriter& value(bool flag);
  JsonWriter& null();
  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    key(name);
    return value(v);
  }
  const std::string& str() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  void before_value();
  void new_line();
  std::string out_;
  std::vector<bool> has_items_;
  int indent_;
  bool after_key_ = false;
};

void json_escape_append(std::string_view text, std::string& out);

}  // namespace quarry
