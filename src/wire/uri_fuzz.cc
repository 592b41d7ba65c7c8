// Any bytes: decoded or refused, and what is encoded decodes to itself.
#include "base/check.h"
#include "wire/http_message.h"
#include "wire/uri.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quarry;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CHECK(*percent_decode(percent_encode(text)) == text);
  CHECK(*percent_decode(percent_encode(text, true)) == text);
  CHECK(*percent_decode(s3_encode_key(text), PlusSign::is_space) == text);
  if (const auto decoded = percent_decode(text)) CHECK(decoded->size() <= text.size());
  if (const auto query = parse_query(text)) {
    for (const auto& parameter : *query) CHECK(parameter.has_value || parameter.raw_value.empty());
  }
  if (const auto parts = split_target(text)) CHECK(!parts->path.empty());
  if (const auto host = split_host_port(text)) CHECK(!host->host.empty());
  if (const auto url = parse_url(text)) CHECK(!url->host.empty() && url->path.starts_with('/'));
  if (const auto date = parse_http_date(text)) CHECK(*parse_http_date(http_date(*date)) == *date);
  return 0;
}
