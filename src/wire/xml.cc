#include "wire/xml.h"

#include <expat.h>

#include "base/check.h"
#include "base/utf8.h"

namespace quarry {
namespace {

// U+FFFE and U+FFFF: UTF-8, but no characters of XML.
bool is_noncharacter(std::string_view sequence) { return sequence == "\xef\xbf\xbe" || sequence == "\xef\xbf\xbf"; }

std::string_view local_name(const char* name) {
  const std::string_view whole(name);
  const size_t colon = whole.rfind(':');
  return colon == std::string_view::npos ? whole : whole.substr(colon + 1);
}

struct Reading {
  XML_Parser parser = nullptr;
  const XmlLimits& limits;
  XmlNode root;
  // A node's address is stable while its subtree is open: its parent's children grow only after it is closed.
  std::vector<XmlNode*> open;
  size_t nodes = 0;
  std::optional<Error> error;

  explicit Reading(const XmlLimits& bounds) : limits(bounds) {}
  void stop(Error why) {
    if (error) return;
    error.emplace(std::move(why));
    XML_StopParser(parser, XML_FALSE);
  }
  bool count(size_t n) {
    nodes += n;
    if (nodes <= limits.nodes_max) return true;
    stop(fail(Code::too_large, "XML of more than {} elements", limits.nodes_max));
    return false;
  }
};

void on_start(void* user, const XML_Char* name, const XML_Char** attributes) {
  auto& reading = *static_cast<Reading*>(user);
  if (reading.error || !reading.count(1)) return;
  if (reading.open.size() >= reading.limits.depth_max) {
    reading.stop(fail(Code::too_large, "XML deeper than {} levels", reading.limits.depth_max));
    return;
  }
  XmlNode* const node = reading.open.empty() ? &reading.root : &reading.open.back()->children.emplace_back();
  node->name = local_name(name);
  for (size_t i = 0; attributes[i] != nullptr; i += 2) {
    if (!reading.count(1)) return;
    node->attributes.emplace_back(local_name(attributes[i]), attributes[i + 1]);
  }
  reading.open.push_back(node);
}
void on_end(void* user, const XML_Char*) {
  auto& reading = *static_cast<Reading*>(user);
  if (!reading.error) reading.open.pop_back();
}
void on_text(void* user, const XML_Char* text, int size) {
  auto& reading = *static_cast<Reading*>(user);
  if (!reading.error && !reading.open.empty()) reading.open.back()->text.append(text, static_cast<size_t>(size));
}
void on_doctype(void* user, const XML_Char*, const XML_Char*, const XML_Char*, int) {
  static_cast<Reading*>(user)->stop(Error(Code::malformed, "XML with a document type is not read"));
}

struct FreeParser {
  void operator()(XML_Parser parser) const { XML_ParserFree(parser); }
};

}  // namespace

const XmlNode* XmlNode::child(std::string_view child_name) const {
  for (const auto& node : children) {
    if (node.name == child_name) return &node;
  }
  return nullptr;
}
std::string_view XmlNode::child_text(std::string_view child_name) const { return optional_text(child_name).value_or(std::string_view()); }
std::optional<std::string_view> XmlNode::optional_text(std::string_view child_name) const {
  const XmlNode* const node = child(child_name);
  return node == nullptr ? std::nullopt : std::optional<std::string_view>(node->text);
}
std::string_view XmlNode::attribute(std::string_view attribute_name) const {
  for (const auto& [key, value] : attributes) {
    if (key == attribute_name) return value;
  }
  return {};
}
size_t XmlNode::count(std::string_view child_name) const {
  return static_cast<size_t>(std::ranges::count_if(children, [&](const XmlNode& node) { return node.name == child_name; }));
}

Result<XmlNode> parse_xml(std::string_view text, const XmlLimits& limits) {
  if (text.size() > limits.bytes_max) return fail(Code::too_large, "XML of {} bytes, at most {} are read", text.size(), limits.bytes_max);
  const std::unique_ptr<std::remove_pointer_t<XML_Parser>, FreeParser> parser(XML_ParserCreate(nullptr));
  CHECK(parser != nullptr, "out of memory");
  Reading reading(limits);
  reading.parser = parser.get();
  XML_SetUserData(parser.get(), &reading);
  XML_SetElementHandler(parser.get(), on_start, on_end);
  XML_SetCharacterDataHandler(parser.get(), on_text);
  XML_SetStartDoctypeDeclHandler(parser.get(), on_doctype);
  const XML_Status status = XML_Parse(parser.get(), text.data(), static_cast<int>(text.size()), XML_TRUE);
  if (reading.error) return std::move(*reading.error);
  if (status != XML_STATUS_OK) {
    return fail(Code::malformed, "XML line {}, column {}: {}", XML_GetCurrentLineNumber(parser.get()),
                XML_GetCurrentColumnNumber(parser.get()), XML_ErrorString(XML_GetErrorCode(parser.get())));
  }
  return std::move(reading.root);
}

void xml_escape_append(std::string_view text, std::string& out) {
  // Runs that need no escape are copied at once: a listing is thousands of short texts with none.
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    size_t size = 1;
    if (static_cast<uint8_t>(c) >= 0x80) {
      size = utf8_sequence(text, at);
      if (size > 0 && !is_noncharacter(text.substr(at, size))) {
        at += size;
        continue;
      }
    } else if (static_cast<uint8_t>(c) >= 0x20 && c != '&' && c != '<' && c != '>' && c != '"') {
      ++at;
      continue;
    }
    out.append(text, begin, at - begin);
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (size == 0) {
          out += kReplacementCharacter;  // no text: the document stays well-formed whatever name is in it
          size = 1;
        } else {
          fmt::format_to(std::back_inserter(out), "&#x{:x};", static_cast<uint32_t>(utf8_character(text, at, size)));
        }
    }
    at += size;
    begin = at;
  }
  out.append(text, begin);
}

bool xml_carries(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<uint8_t>(text[at]);
    const size_t size = utf8_sequence(text, at);
    if (size == 0 || (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || is_noncharacter(text.substr(at, size))) return false;
    at += size;
  }
  return true;
}

XmlWriter::XmlWriter() : out_("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n") {}

void XmlWriter::end_tag() {
  if (tag_open_) out_ += '>';
  tag_open_ = false;
}
XmlWriter& XmlWriter::open(std::string_view name) {
  end_tag();
  out_ += '<';
  out_ += name;
  stack_.emplace_back(name);
  tag_open_ = true;
  return *this;
}
XmlWriter& XmlWriter::open_with_namespace(std::string_view name, std::string_view xmlns) { return open(name).attribute("xmlns", xmlns); }
XmlWriter& XmlWriter::attribute(std::string_view name, std::string_view value) {
  CHECK(tag_open_);
  out_ += ' ';
  out_ += name;
  out_ += "=\"";
  xml_escape_append(value, out_);
  out_ += '"';
  return *this;
}
XmlWriter& XmlWriter::text(std::string_view value) {
  end_tag();
  xml_escape_append(value, out_);
  return *this;
}
XmlWriter& XmlWriter::close() {
  CHECK(!stack_.empty());
  end_tag();
  out_ += "</";
  out_ += stack_.back();
  out_ += '>';
  stack_.pop_back();
  return *this;
}
XmlWriter& XmlWriter::element(std::string_view name, std::string_view value) {
  end_tag();
  out_ += '<';
  out_ += name;
  out_ += '>';
  xml_escape_append(value, out_);
  out_ += "</";
  out_ += name;
  out_ += '>';
  return *this;
}
XmlWriter& XmlWriter::element(std::string_view name, uint64_t value) {
  return element(name, std::string_view(fmt::format_int(value).c_str()));
}
std::string XmlWriter::take() {
  CHECK(stack_.empty(), "an XML element is left open");
  return std::move(out_);
}

}  // namespace quarry
