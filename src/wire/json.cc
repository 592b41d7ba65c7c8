#include "wire/json.h"

#include <simdjson.h>

#include <cmath>

#include "base/check.h"
#include "base/utf8.h"

namespace quarry {
namespace {

struct Conversion {
  const JsonLimits& limits;
  size_t nodes = 0;

  Result<JsonValue> convert(simdjson::dom::element element) {
    if (++nodes > limits.nodes_max) return fail(Code::too_large, "JSON of more than {} values", limits.nodes_max);
    using simdjson::dom::element_type;
    switch (element.type()) {
      case element_type::NULL_VALUE: return JsonValue();
      case element_type::BOOL: return JsonValue(bool(element.get_bool().value_unsafe()));
      case element_type::INT64: return JsonValue(int64_t(element.get_int64().value_unsafe()));
      case element_type::UINT64: return JsonValue(uint64_t(element.get_uint64().value_unsafe()));
      case element_type::DOUBLE: return JsonValue(double(element.get_double().value_unsafe()));
      case element_type::STRING: return JsonValue(std::string(element.get_string().value_unsafe()));
      case element_type::ARRAY: {
        JsonValue::Array items;
        const simdjson::dom::array array = element.get_array().value_unsafe();
        for (const simdjson::dom::element item : array) {
          TRY_ASSIGN(JsonValue value, convert(item));
          items.push_back(std::move(value));
        }
        return JsonValue(std::move(items));
      }
      case element_type::OBJECT: {
        JsonValue::Object members;
        const simdjson::dom::object object = element.get_object().value_unsafe();
        for (const auto& member : object) {
          TRY_ASSIGN(JsonValue value, convert(member.value));
          members.emplace_back(std::string(member.key), std::move(value));
        }
        return JsonValue(std::move(members));
      }
    }
    return Error(Code::malformed, "JSON of an unknown type");
  }
};

}  // namespace

bool JsonValue::is_number() const {
  return std::holds_alternative<int64_t>(value_) || std::holds_alternative<uint64_t>(value_) || std::holds_alternative<double>(value_);
}
const JsonValue* JsonValue::find(std::string_view name) const {
  for (const auto& [key, value] : members()) {
    if (key == name) return &value;
  }
  return nullptr;
}
Result<std::string> JsonValue::string_at(std::string_view name) const {
  const JsonValue* const value = find(name);
  const auto text = value == nullptr ? std::nullopt : value->as_string();
  if (!text) return fail(Code::malformed, "JSON member '{}' is not a string", name);
  return std::string(*text);
}
Result<uint64_t> JsonValue::u64_at(std::string_view name) const {
  const JsonValue* const value = find(name);
  const auto number = value == nullptr ? std::nullopt : value->as_u64();
  if (!number) return fail(Code::malformed, "JSON member '{}' is not a whole number from 0 on", name);
  return *number;
}
std::optional<std::string_view> JsonValue::as_string() const {
  if (const auto* text = std::get_if<std::string>(&value_)) return *text;
  return std::nullopt;
}
std::optional<uint64_t> JsonValue::as_u64() const {
  if (const auto* number = std::get_if<uint64_t>(&value_)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value_); number != nullptr && *number >= 0) return static_cast<uint64_t>(*number);
  return std::nullopt;
}
std::optional<int64_t> JsonValue::as_i64() const {
  if (const auto* number = std::get_if<int64_t>(&value_)) return *number;
  return std::nullopt;  // the reader keeps as int64_t all that fits
}
std::optional<double> JsonValue::as_double() const {
  if (const auto* number = std::get_if<double>(&value_)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value_)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<uint64_t>(&value_)) return static_cast<double>(*number);
  return std::nullopt;
}
std::optional<bool> JsonValue::as_bool() const {
  if (const auto* flag = std::get_if<bool>(&value_)) return *flag;
  return std::nullopt;
}
const JsonValue::Array& JsonValue::items() const {
  static const Array kNone;
  const auto* const array = std::get_if<Array>(&value_);
  return array == nullptr ? kNone : *array;
}
const JsonValue::Object& JsonValue::members() const {
  static const Object kNone;
  const auto* const object = std::get_if<Object>(&value_);
  return object == nullptr ? kNone : *object;
}

Result<JsonValue> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.bytes_max) return fail(Code::too_large, "JSON of {} bytes, at most {} are read", text.size(), limits.bytes_max);
  simdjson::dom::parser parser(limits.bytes_max);
  if (const auto error = parser.allocate(text.size(), limits.depth_max)) {
    return fail(Code::too_large, "JSON of {} bytes: {}", text.size(), simdjson::error_message(error));
  }
  simdjson::dom::element root;
  if (const auto error = parser.parse(text.data(), text.size(), true).get(root)) {
    const bool deep = error == simdjson::DEPTH_ERROR;
    return fail(deep ? Code::too_large : Code::malformed, "JSON: {}", simdjson::error_message(error));
  }
  Conversion conversion{limits};
  return conversion.convert(root);
}

void json_escape_append(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    const size_t sequence = utf8_sequence(text, i);
    if (sequence == 0) {
      out += kReplacementCharacter;
      ++i;
      continue;
    }
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<uint8_t>(c) < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out.append(text, i, sequence);
    }
    i += sequence;
  }
}

void JsonWriter::new_line() {
  if (indent_ == 0) return;
  out_ += '\n';
  out_.append(has_items_.size() * static_cast<size_t>(indent_), ' ');
}
void JsonWriter::before_value() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (has_items_.empty()) return;
  if (has_items_.back()) out_ += ',';
  has_items_.back() = true;
  new_line();
}
JsonWriter& JsonWriter::begin_object() {
  before_value();
  out_ += '{';
  has_items_.push_back(false);
  return *this;
}
JsonWriter& JsonWriter::begin_array() {
  before_value();
  out_ += '[';
  has_items_.push_back(false);
  return *this;
}
JsonWriter& JsonWriter::end_object() {
  CHECK(!has_items_.empty() && !after_key_);
  const bool had = has_items_.back();
  has_items_.pop_back();
  if (had) new_line();
  out_ += '}';
  return *this;
}
JsonWriter& JsonWriter::end_array() {
  CHECK(!has_items_.empty());
  const bool had = has_items_.back();
  has_items_.pop_back();
  if (had) new_line();
  out_ += ']';
  return *this;
}
JsonWriter& JsonWriter::key(std::string_view name) {
  CHECK(!after_key_);
  before_value();
  out_ += '"';
  json_escape_append(name, out_);
  out_ += indent_ == 0 ? "\":" : "\": ";
  after_key_ = true;
  return *this;
}
JsonWriter& JsonWriter::value(std::string_view text) {
  before_value();
  out_ += '"';
  json_escape_append(text, out_);
  out_ += '"';
  return *this;
}
JsonWriter& JsonWriter::value(uint64_t number) {
  before_value();
  fmt::format_to(std::back_inserter(out_), "{}", number);
  return *this;
}
JsonWriter& JsonWriter::value(int64_t number) {
  before_value();
  fmt::format_to(std::back_inserter(out_), "{}", number);
  return *this;
}
JsonWriter& JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();
  before_value();
  fmt::format_to(std::back_inserter(out_), "{}", number);
  return *this;
}
JsonWriter& JsonWriter::value(bool flag) {
  before_value();
  out_ += flag ? "true" : "false";
  return *this;
}
JsonWriter& JsonWriter::null() {
  before_value();
  out_ += "null";
  return *this;
}

}  // namespace quarry
