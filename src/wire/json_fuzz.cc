// Any bytes: a tree within the limits or an error. Strings that were read survive writing and reading.
#include "base/check.h"
#include "wire/json.h"

namespace {
void visit(const quarry::JsonValue& value) {
  if (const auto text = value.as_string()) {
    quarry::JsonWriter writer;
    writer.value(*text);
    const auto again = quarry::parse_json(writer.str());
    CHECK(again && again->as_string() == *text);
  }
  for (const auto& item : value.items()) visit(item);
  for (const auto& [name, member] : value.members()) visit(member);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quarry::JsonLimits limits;
  limits.nodes_max = 1000;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto root = quarry::parse_json(text, limits)) visit(*root);
  // Any bytes can be written as a string.
  quarry::JsonWriter writer;
  writer.value(text);
  CHECK(quarry::parse_json(writer.str()).has_value());
  return 0;
}
