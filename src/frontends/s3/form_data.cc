#include "frontends/s3/form_data.h"

#include "wire/http_message.h"

namespace quarry::frontends::s3 {
namespace {

S3Error malformed() { return S3Error(E::malformed_post_request); }

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Reads `; name=value` or `; name="value"` off the front. In quotes, browsers write %22 for '"' and older ones \"; a backslash before
// anything else is itself (it stands in paths of Windows).
struct Parameter {
  std::string_view name;
  std::string value;
};
std::optional<Parameter> next_parameter(std::string_view& text) {
  text = trim(text);
  if (text.empty() || text.front() != ';') return std::nullopt;
  text = trim(text.substr(1));
  const size_t equal = text.find('=');
  if (equal == std::string_view::npos) return std::nullopt;
  Parameter parameter{.name = trim(text.substr(0, equal)), .value = {}};
  text = trim(text.substr(equal + 1));
  if (!text.starts_with('"')) {
    const size_t end = std::min(text.find(';'), text.size());
    parameter.value = trim(text.substr(0, end));
    text.remove_prefix(end);
    return parameter;
  }
  for (size_t at = 1; at < text.size(); ++at) {
    if (text[at] == '"') {
      text.remove_prefix(at + 1);
      return parameter;
    }
    if (text[at] == '\\' && at + 1 < text.size() && text[at + 1] == '"') ++at;
    parameter.value.push_back(text[at]);
  }
  return std::nullopt;  // the quotes do not end
}

}  // namespace

S3Result<std::string> parse_form_boundary(std::string_view content_type) {
  const size_t semicolon = std::min(content_type.find(';'), content_type.size());
  if (!equal_ignoring_case(trim(content_type.substr(0, semicolon)), "multipart/form-data")) return std::string();
  std::string_view rest = content_type.substr(semicolon);
  while (auto parameter = next_parameter(rest)) {
    if (!equal_ignoring_case(parameter->name, "boundary")) continue;
    if (parameter->value.empty() || parameter->value.size() > kFormBoundaryMax) return malformed();
    return std::move(parameter->value);
  }
  return malformed();
}

S3Result<FormPartHead> parse_form_part_head(std::string_view head) {
  FormPartHead part;
  bool named = false;
  while (!head.empty()) {
    const size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return malformed();
    if (!equal_ignoring_case(trim(line.substr(0, colon)), "content-disposition")) continue;
    std::string_view value = trim(line.substr(colon + 1));
    const size_t semicolon = std::min(value.find(';'), value.size());
    if (!equal_ignoring_case(trim(value.substr(0, semicolon)), "form-data")) return malformed();
    value.remove_prefix(semicolon);
    while (auto parameter = next_parameter(value)) {
      if (equal_ignoring_case(parameter->name, "name")) {
        if (named) return malformed();
        named = true;
        part.name = std::move(parameter->value);
      } else if (equal_ignoring_case(parameter->name, "filename")) {
        part.has_filename = true;
        part.filename = std::move(parameter->value);
      }
    }
    if (!trim(value).empty()) return malformed();
  }
  if (!named || part.name.empty()) return malformed();
  return part;
}

S3Result<FormDecoder::Step> FormDecoder::step_behind(size_t consumed, std::string_view window) {
  TRY_ASSIGN(Step next, step(window.substr(consumed)));
  next.consumed += consumed;
  return next;
}

S3Result<FormDecoder::Step> FormDecoder::step(std::string_view window) {
  switch (state_) {
    case State::start: {
      // Before the first part there is no line to end.
      const std::string_view first = std::string_view(delimiter_).substr(2);
      const size_t shown = std::min(window.size(), first.size());
      if (window.substr(0, shown) != first.substr(0, shown)) return malformed();
      if (shown < first.size()) return Step{};
      state_ = State::after_boundary;
      return step_behind(shown, window);
    }
    case State::after_boundary: {
      if (window.size() < 2) return Step{};
      const std::string_view mark = window.substr(0, 2);
      if (mark == "--") {
        state_ = State::done;
        return Step{.kind = Kind::end, .consumed = 2, .text = {}};
      }
      if (mark != "\r\n") return malformed();
      state_ = State::head;
      return step_behind(2, window);
    }
    case State::head: {
      const size_t end = window.substr(0, kFormPartHeadMax + 4).find("\r\n\r\n");
      if (end == std::string_view::npos) {
        if (window.size() >= kFormPartHeadMax + 4) return malformed();
        return Step{};
      }
      state_ = State::data;
      return Step{.kind = Kind::head, .consumed = end + 4, .text = window.substr(0, end)};
    }
    case State::data: {
      const size_t found = window.find(delimiter_);
      if (found == 0) {
        state_ = State::after_boundary;
        return Step{.kind = Kind::part_end, .consumed = delimiter_.size(), .text = {}};
      }
      // What may be the beginning of the delimiter is shown again.
      const size_t sure = found != std::string_view::npos     ? found
                          : window.size() < delimiter_.size() ? 0
                                                              : window.size() - (delimiter_.size() - 1);
      if (sure == 0) return Step{};
      return Step{.kind = Kind::data, .consumed = sure, .text = window.substr(0, sure)};
    }
    case State::done: return Step{.kind = Kind::end, .consumed = 0, .text = {}};
  }
  return malformed();
}

}  // namespace quarry::frontends::s3
