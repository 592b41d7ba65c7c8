#include "wire/http1_parser.h"

#include <emmintrin.h>

#include <charconv>

#include "base/check.h"

namespace quarry {
namespace {

enum : uint8_t { kToken = 1, kTarget = 2, kValue = 4 };
constexpr auto kClass = [] {
  std::array<uint8_t, 256> classes{};
  for (int c = 0x21; c < 0x7f; ++c) classes[static_cast<size_t>(c)] = kTarget | kValue;
  for (int c = 0x80; c < 0x100; ++c) classes[static_cast<size_t>(c)] = kValue;  // obs-text
  classes[' '] = kValue;
  classes['\t'] = kValue;
  const auto token = [&](char c) { classes[static_cast<uint8_t>(c)] |= kToken; };
  for (char c = 'a'; c <= 'z'; ++c) token(c);
  for (char c = 'A'; c <= 'Z'; ++c) token(c);
  for (char c = '0'; c <= '9'; ++c) token(c);
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) token(c);
  return classes;
}();

bool all(std::string_view text, uint8_t wanted) {
  return std::ranges::all_of(text, [wanted](char c) { return (kClass[static_cast<uint8_t>(c)] & wanted) != 0; });
}

// No control bytes but tab. 16 at a time; a tab or a violation goes to the table.
bool valid_value(std::string_view text) {
  const char* at = text.data();
  size_t size = text.size();
  for (; size >= 16; at += 16, size -= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    const __m128i rubout = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
    if (_mm_movemask_epi8(_mm_or_si128(control, rubout)) != 0 && !all(std::string_view(at, 16), kValue)) return false;
  }
  return all(std::string_view(at, size), kValue);
}

constexpr bool blank(char c) { return c == ' ' || c == '\t'; }

// Every LF has a CR before it (the scanner saw to that); lines are handed out without both.
struct Lines {
  std::string_view rest;
  std::string_view next() {
    const auto* const end = static_cast<const char*>(std::memchr(rest.data(), '\n', rest.size()));
    if (end == nullptr) return std::exchange(rest, {});
    const auto size = static_cast<size_t>(end - rest.data());
    const std::string_view line = rest.substr(0, size > 0 && rest[size - 1] == '\r' ? size - 1 : size);
    rest.remove_prefix(size + 1);
    return line;
  }
};

Error bad(std::string_view what) { return Error(Code::malformed, std::string(what)); }

Result<HttpField> parse_field(std::string_view line) {
  if (blank(line[0])) return bad("a header continues over two lines (obs-fold)");
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return bad("a header line has no name");
  const std::string_view name = line.substr(0, colon);
  if (!all(name, kToken)) return bad("a header name holds a character that is not allowed");
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && blank(value.front())) value.remove_prefix(1);
  while (!value.empty() && blank(value.back())) value.remove_suffix(1);
  if (!valid_value(value)) return bad("a header value holds a control character");
  return HttpField{name, value};
}

Result<uint64_t> parse_content_length(std::string_view value) {
  uint64_t length = 0;
  if (value.empty() || value.size() > 19 || !std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; })) {
    return bad("Content-Length is not a number");
  }
  std::from_chars(value.data(), value.data() + value.size(), length);
  return length;
}

// What both directions of a message share.
struct Framing {
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool close = false, keep_alive = false;

  Result<void> see(const HttpField& field) {
    switch (field.name.size()) {
      case 10:
        if (equal_ignoring_case(field.name, "connection")) see_connection(field.value);
        break;
      case 14:
        if (equal_ignoring_case(field.name, "content-length")) {
          if (content_length) return bad("Content-Length is given twice");
          TRY_ASSIGN(content_length, parse_content_length(field.value));
        }
        break;
      case 17:
        if (equal_ignoring_case(field.name, "transfer-encoding")) {
          if (chunked) return bad("Transfer-Encoding is given twice");
          if (!equal_ignoring_case(field.value, "chunked")) {
            return Error(Code::unsupported, "a Transfer-Encoding other than chunked");
          }
          chunked = true;
        }
        break;
      default: break;
    }
    return {};
  }
  void see_connection(std::string_view value) {
    while (!value.empty()) {
      const size_t end = std::min(value.find(','), value.size());
      std::string_view option = value.substr(0, end);
      value.remove_prefix(std::min(end + 1, value.size()));
      while (!option.empty() && blank(option.front())) option.remove_prefix(1);
      while (!option.empty() && blank(option.back())) option.remove_suffix(1);
      if (equal_ignoring_case(option, "close")) close = true;
      if (equal_ignoring_case(option, "keep-alive")) keep_alive = true;
    }
  }
  Result<void> check() const {
    if (chunked && content_length) return bad("both Content-Length and Transfer-Encoding are given");
    return {};
  }
};

// "HTTP/1.x"
Result<HttpVersion> parse_version(std::string_view text) {
  if (text.size() != 8 || !text.starts_with("HTTP/") || text[6] != '.' || text[5] < '0' || text[5] > '9' || text[7] < '0' ||
      text[7] > '9') {
    return bad("no HTTP version where one belongs");
  }
  if (text[5] != '1') return Error(Code::unsupported, "only HTTP/1.0, HTTP/1.1 and HTTP/2 are served");
  return text[7] == '0' ? HttpVersion::http10 : HttpVersion::http11;
}

bool valid_authority(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (kClass[static_cast<uint8_t>(c)] & kTarget) != 0 && c != '/' && c != '?' && c != '#' && c != '@' && c != '\\' && c != '"' &&
           c != '<' && c != '>' && c != ',';
  });
}

}  // namespace

Result<size_t> Http1HeadScanner::scan(std::string_view all_bytes) {
  while (scanned_ < all_bytes.size()) {
    const auto* const found = static_cast<const char*>(std::memchr(all_bytes.data() + scanned_, '\n', all_bytes.size() - scanned_));
    if (found == nullptr) {
      scanned_ = all_bytes.size();
      break;
    }
    const auto end = static_cast<size_t>(found - all_bytes.data());
    if (end == 0 || all_bytes[end - 1] != '\r') return bad("a line ends in a bare LF");
    if (end + 1 > limits_.head_bytes_max) break;
    scanned_ = end + 1;
    if (end - 1 == line_start_) return scanned_;  // the empty line
    line_start_ = scanned_;
    if (++lines_ > limits_.headers_max + 1) return fail(Code::too_large, "more than {} headers", limits_.headers_max);
  }
  if (all_bytes.size() > limits_.head_bytes_max || scanned_ >= limits_.head_bytes_max) {
    return fail(Code::too_large, "request line and headers exceed {} bytes", limits_.head_bytes_max);
  }
  return size_t{0};
}

Result<void> parse_request_head(std::string_view text, RequestHead& head) {
  head.clear();
  Lines lines{text};
  const std::string_view start = lines.next();
  const size_t first = start.find(' ');
  const size_t last = start.rfind(' ');
  if (first == std::string_view::npos || first == last) return bad("the request line is not: method target version");
  head.method = start.substr(0, first);
  head.target = start.substr(first + 1, last - first - 1);
  if (head.method.empty() || !all(head.method, kToken)) return bad("the method holds a character that is not allowed");
  if (head.target.empty() || !all(head.target, kTarget)) return bad("the request target holds a character that is not allowed");
  TRY_ASSIGN(head.version, parse_version(start.substr(last + 1)));

  Framing framing;
  bool has_host = false;
  for (;;) {
    const std::string_view line = lines.next();
    if (line.empty()) break;
    TRY_ASSIGN(const HttpField field, parse_field(line));
    TRY(framing.see(field));
    if (field.name.size() == 4 && equal_ignoring_case(field.name, "host")) {
      if (has_host) return bad("Host is given twice");
      if (!valid_authority(field.value)) return bad("Host is not a host");
      has_host = true;
      head.authority = field.value;
    } else if (field.name.size() == 6 && equal_ignoring_case(field.name, "expect")) {
      head.expect_continue = equal_ignoring_case(field.value, "100-continue");
    }
    head.headers.push_back(field);
  }
  if (!lines.rest.empty()) return bad("an empty line inside the head");
  TRY(framing.check());
  if (head.version == HttpVersion::http11 && !has_host) return bad("Host is missing");
  if (head.version == HttpVersion::http10) {
    if (framing.chunked) return bad("Transfer-Encoding in HTTP/1.0");
    head.expect_continue = false;
  }
  head.content_length = framing.content_length;
  head.chunked = framing.chunked;
  head.keep_alive = head.version == HttpVersion::http11 ? !framing.close : framing.keep_alive && !framing.close;
  if (head.method == "CONNECT") return Error(Code::unsupported, "CONNECT is not offered");
  if (!head.split()) return bad("the request target is not a path");
  if (!head.authority.empty() && !valid_authority(head.authority)) return bad("the request target names no host");
  return {};
}

std::optional<std::string_view> ClientResponseHead::find(std::string_view name) const {
  for (const auto& field : headers) {
    if (equal_ignoring_case(field.name, name)) return field.value;
  }
  return std::nullopt;
}

Result<void> parse_response_head(std::string_view text, ClientResponseHead& head) {
  head = ClientResponseHead();
  Lines lines{text};
  const std::string_view start = lines.next();
  if (start.size() < 12 || start[8] != ' ' || (start.size() > 12 && start[12] != ' '))
    return bad("the status line is not: version status reason");
  TRY_ASSIGN(head.version, parse_version(start.substr(0, 8)));
  for (const char c : start.substr(9, 3)) {
    if (c < '0' || c > '9') return bad("the status is not a number");
    head.status = head.status * 10 + (c - '0');
  }
  if (head.status < 100) return bad("the status is not a number from 100 on");
  if (!valid_value(start.substr(12))) return bad("the reason holds a control character");
  Framing framing;
  for (;;) {
    const std::string_view line = lines.next();
    if (line.empty()) break;
    TRY_ASSIGN(const HttpField field, parse_field(line));
    TRY(framing.see(field));
    head.headers.push_back(field);
  }
  if (!lines.rest.empty()) return bad("an empty line inside the head");
  TRY(framing.check());
  head.content_length = framing.content_length;
  head.chunked = framing.chunked;
  head.keep_alive = head.version == HttpVersion::http11 ? !framing.close : framing.keep_alive && !framing.close;
  return {};
}

void ChunkedDecoder::skip_payload(uint64_t bytes) {
  CHECK(state_ == State::payload && bytes <= left_);
  left_ -= bytes;
  if (left_ == 0) state_ = State::payload_end;
}

void ChunkedDecoder::give_back_payload(uint64_t bytes) {
  CHECK(bytes > 0 && (state_ == State::payload || state_ == State::payload_end));
  left_ += bytes;
  state_ = State::payload;
}

Result<ChunkedDecoder::Step> ChunkedDecoder::next(std::string_view input) {
  Step step;
  while (step.consumed < input.size() || state_ == State::done) {
    std::string_view rest = input.substr(step.consumed);
    switch (state_) {
      case State::size_line: {
        const size_t line_end = rest.find('\n');
        if (line_end == std::string_view::npos || line_end >= limits_.chunk_line_bytes_max) {
          if (rest.size() >= limits_.chunk_line_bytes_max) return Error(Code::too_large, "a chunk size line is too long");
          return step;
        }
        if (line_end == 0 || rest[line_end - 1] != '\r') return bad("a chunk size line ends in a bare LF");
        const std::string_view line = rest.substr(0, line_end - 1);
        uint64_t size = 0;
        const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), size, 16);
        const auto digits = static_cast<size_t>(end - line.data());
        // from_chars would take a sign.
        if (error != std::errc() || digits == 0 || line[0] == '-' || size > static_cast<uint64_t>(INT64_MAX))
          return bad("a chunk size is not a number");
        if (digits < line.size() && (line[digits] != ';' || !valid_value(line.substr(digits))))
          return bad("a chunk size is followed by garbage");
        step.consumed += line_end + 1;
        left_ = size;
        state_ = size == 0 ? State::trailer : State::payload;
        break;
      }
      case State::payload: {
        const auto take = static_cast<size_t>(std::min<uint64_t>(left_, rest.size()));
        step.payload = rest.substr(0, take);
        step.consumed += take;
        skip_payload(take);
        return step;
      }
      case State::payload_end:
        if (rest[0] != '\r' || (rest.size() > 1 && rest[1] != '\n')) return bad("a chunk does not end where its size says");
        if (rest.size() < 2) return step;
        step.consumed += 2;
        state_ = State::size_line;
        break;
      case State::trailer: {
        const size_t line_end = rest.find('\n');
        if (line_end == std::string_view::npos) {
          if (trailer_bytes_ + rest.size() > limits_.trailer_bytes_max) return Error(Code::too_large, "the trailers are too long");
          return step;
        }
        if (line_end == 0 || rest[line_end - 1] != '\r') return bad("a trailer ends in a bare LF");
        trailer_bytes_ += line_end + 1;
        if (trailer_bytes_ > limits_.trailer_bytes_max) return Error(Code::too_large, "the trailers are too long");
        step.consumed += line_end + 1;
        if (line_end == 1) {
          state_ = State::done;
        } else {
          TRY(parse_field(rest.substr(0, line_end - 1)));
        }
        break;
      }
      case State::done: step.done = true; return step;
    }
  }
  return step;
}

}  // namespace quarry
