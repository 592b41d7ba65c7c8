// Any bytes: a tree within the limits or an error. A tree that was read can be written and read again.
#include "base/check.h"
#include "wire/xml.h"

namespace {
size_t measure(const quarry::XmlNode& node, size_t depth) {
  CHECK(depth <= 32);
  size_t nodes = 1 + node.attributes.size();
  for (const auto& child : node.children) nodes += measure(child, depth + 1);
  return nodes;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quarry::XmlLimits limits;
  limits.nodes_max = 1000;
  const auto root = quarry::parse_xml({reinterpret_cast<const char*>(data), size}, limits);
  if (!root) return 0;
  CHECK(measure(*root, 1) <= limits.nodes_max);
  quarry::XmlWriter writer;
  writer.element("Text", root->text);
  const std::string text = writer.take();
  const auto again = quarry::parse_xml(text);
  CHECK(again && again->text == root->text);
  return 0;
}
