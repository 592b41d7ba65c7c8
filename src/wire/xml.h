// XML as S3 speaks it: a reader into a small bounded tree (expat; no DTD, no entities but the five), and a writer. Pure, any thread.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace quarry {

struct XmlLimits {
  size_t bytes_max = 4 * 1024 * 1024;
  size_t depth_max = 32;
  size_t nodes_max = 200'000;
};

struct XmlNode {
  std::string name;                                             // local name, the namespace prefix removed
  std::string text;                                             // character data directly in this node, joined; white space kept
  std::vector<std::pair<std::string, std::string>> attributes;  // local names
  std::vector<XmlNode> children;

  const XmlNode* child(std::string_view child_name) const;         // first of that name, or null
  std::string_view child_text(std::string_view child_name) const;  // empty when absent
  std::optional<std::string_view> optional_text(std::string_view child_name) const;
  std::string_view attribute(std::string_view attribute_name) const;  // empty when absent
  size_t count(std::string_view child_name) const;
};

// The root element. Errors: malformed (not well-formed, a DOCTYPE, invalid UTF-8), too_large (a limit).
Result<XmlNode> parse_xml(std::string_view text, const XmlLimits& limits = {});

// Appends one document. Elements are closed in order; names are our own literals and not checked.
class XmlWriter {
 public:
  // Starts with the declaration <?xml version="1.0" encoding="UTF-8"?> and a line break.
  XmlWriter();
  XmlWriter& open(std::string_view name);
  XmlWriter& open_with_namespace(std::string_view name, std::string_view xmlns);
  XmlWriter& attribute(std::string_view name, std::string_view value);  // directly after open
  XmlWriter& text(std::string_view value);
  XmlWriter& close();
  XmlWriter& element(std::string_view name, std::string_view value);
  XmlWriter& element(std::string_view name, uint64_t value);
  XmlWriter& element(std::string_view name, bool value) = delete;  // say "true" or "false" yourself
  XmlWriter& flag(std::string_view name, bool value) { return element(name, value ? std::string_view("true") : std::string_view("false")); }
  template <size_t N>
  XmlWriter& element(std::string_view name, const char (&value)[N]) {
    return element(name, std::string_view(value, N - 1));
  }
  const std::string& str() const { return out_; }
  std::string take();  // CHECKs that all is closed

 private:
  void end_tag();
  std::string out_;
  std::vector<std::string> stack_;
  bool tag_open_ = false;
};

// Escapes & < > " and writes control characters (which XML 1.0 cannot carry raw) as S3 does: as numeric references (&#x1;).
// parse_xml accepts them only where XML 1.0 does (tab, LF, CR), as all XML readers do; clients that list such keys ask for
// encoding-type=url. Bytes that are not UTF-8 become U+FFFD each.
void xml_escape_append(std::string_view text, std::string& out);
// Whether a text arrives as it is in an element that was written by XmlWriter and read by an XML reader.
bool xml_carries(std::string_view text);

}  // namespace quarry
