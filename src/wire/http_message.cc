#include "wire/http_message.h"

#include <charconv>

#include "base/check.h"

namespace quarry {
namespace {

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

constexpr std::string_view kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr std::string_view kLongDays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
constexpr std::string_view kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

[[maybe_unused]] constexpr bool token_char(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// Reads pieces of a date; stays failed after the first mismatch.
struct DateReader {
  std::string_view rest;
  bool ok = true;
  void literal(std::string_view text) {
    if (!rest.starts_with(text))
      ok = false;
    else
      rest.remove_prefix(text.size());
  }
  int number(size_t digits) {
    int value = 0;
    if (rest.size() < digits) {
      ok = false;
      return 0;
    }
    for (size_t i = 0; i < digits; ++i) {
      if (rest[i] < '0' || rest[i] > '9') ok = false;
      value = value * 10 + (rest[i] - '0');
    }
    rest.remove_prefix(digits);
    return value;
  }
  int month() {
    for (int i = 0; i < 12; ++i) {
      if (rest.starts_with(kMonths[i])) {
        rest.remove_prefix(3);
        return i + 1;
      }
    }
    ok = false;
    return 1;
  }
  bool any_of(std::span<const std::string_view> names) {
    for (const auto name : names) {
      if (rest.starts_with(name)) {
        rest.remove_prefix(name.size());
        return true;
      }
    }
    return false;
  }
};

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

std::optional<std::string_view> RequestHead::find(std::string_view name) const {
  for (const auto& field : headers) {
    if (equal_ignoring_case(field.name, name)) return field.value;
  }
  return std::nullopt;
}
std::string_view RequestHead::find_or(std::string_view name, std::string_view otherwise) const { return find(name).value_or(otherwise); }

const QueryParameter* RequestHead::find_query(std::string_view name) const {
  for (const auto& parameter : query) {
    if (parameter.name == name) return &parameter;
  }
  return nullptr;
}

bool RequestHead::split() {
  const auto parts = split_target(target);
  if (!parts) return false;
  raw_path = parts->path;
  raw_query = parts->query;
  if (!parts->authority.empty()) authority = parts->authority;  // RFC 9112 3.2.2: it wins over Host
  target_malformed = !percent_decode_into(raw_path, PlusSign::stays, path) || !parse_query_into(raw_query, query);
  if (target_malformed) {
    path.clear();
    query.clear();
  }
  return true;
}

void RequestHead::clear() {
  method = target = raw_path = raw_query = authority = {};
  version = HttpVersion::http11;
  target_malformed = false;
  path.clear();  // query keeps its elements and their memory: split() reuses them
  headers.clear();
  content_length.reset();
  chunked = expect_continue = false;
  keep_alive = true;
}

HeaderBlock& HeaderBlock::add(std::string_view name, std::string_view value) {
  DCHECK(!name.empty() && std::ranges::all_of(name, token_char));
  Entry entry{};
  entry.name = static_cast<uint32_t>(text_.size());
  entry.name_size = static_cast<uint32_t>(name.size());
  text_ += name;
  text_ += ": ";
  entry.value = static_cast<uint32_t>(text_.size());
  entry.value_size = static_cast<uint32_t>(value.size());
  text_ += value;
  for (size_t i = entry.value; i < text_.size(); ++i) {
    const auto c = static_cast<uint8_t>(text_[i]);
    if ((c < 0x20 && c != '\t') || c == 0x7f) text_[i] = ' ';
  }
  text_ += "\r\n";
  entries_.push_back(entry);
  return *this;
}
HeaderBlock& HeaderBlock::add(std::string_view name, uint64_t value) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  return add(name, std::string_view(digits, static_cast<size_t>(end - digits)));
}
HttpField HeaderBlock::at(size_t i) const {
  const Entry& entry = entries_[i];
  const std::string_view text(text_);
  return {text.substr(entry.name, entry.name_size), text.substr(entry.value, entry.value_size)};
}
std::optional<std::string_view> HeaderBlock::find(std::string_view name) const {
  for (size_t i = 0; i < entries_.size(); ++i) {
    const HttpField field = at(i);
    if (equal_ignoring_case(field.name, name)) return field.value;
  }
  return std::nullopt;
}
bool HeaderBlock::has(std::string_view name) const { return find(name).has_value(); }

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "Status";
  }
}

std::string http_date(int64_t unix_seconds) {
  using namespace std::chrono;
  const sys_seconds time{seconds(unix_seconds)};
  const auto day = floor<days>(time);
  const year_month_day date(day);
  const hh_mm_ss clock(time - day);
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[weekday(day).c_encoding()], static_cast<unsigned>(date.day()),
                     kMonths[static_cast<unsigned>(date.month()) - 1], static_cast<int>(date.year()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count());
}

Result<int64_t> parse_http_date(std::string_view text) {
  DateReader in{text};
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  const auto clock = [&] {
    hour = in.number(2);
    in.literal(":");
    minute = in.number(2);
    in.literal(":");
    second = in.number(2);
  };
  if (in.any_of(kLongDays)) {  // RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
    in.literal(", ");
    day = in.number(2);
    in.literal("-");
    month = in.month();
    in.literal("-");
    year = in.number(2);
    year += year < 70 ? 2000 : 1900;
    in.literal(" ");
    clock();
    in.literal(" GMT");
  } else if (in.any_of(kDays)) {
    if (in.rest.starts_with(',')) {  // IMF-fixdate
      in.literal(", ");
      day = in.number(2);
      in.literal(" ");
      month = in.month();
      in.literal(" ");
      year = in.number(4);
      in.literal(" ");
      clock();
      in.literal(" GMT");
    } else {  // asctime: Sun Nov  6 08:49:37 1994
      in.literal(" ");
      month = in.month();
      in.literal(" ");
      const bool padded = in.rest.starts_with(' ');
      if (padded) in.literal(" ");
      day = in.number(padded ? 1 : 2);
      in.literal(" ");
      clock();
      in.literal(" ");
      year = in.number(4);
    }
  } else {
    in.ok = false;
  }
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!in.ok || !in.rest.empty() || !date.ok() || hour > 23 || minute > 59 || second > 60) {
    return fail(Code::malformed, "'{}' is not an HTTP date", text.substr(0, 64));
  }
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::sys_days(date).time_since_epoch()).count() + hour * 3600 +
         minute * 60 + second;
}

}  // namespace quarry
