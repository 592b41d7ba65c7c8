#include <charconv>

#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "wire/xml.h"

namespace quarry::frontends::s3 {
namespace {

constexpr size_t kBucketsMax = 10'000;

S3Result<size_t> parse_max_buckets(const Request& request) {
  const auto* parameter = request.head.find_query("max-buckets");
  if (parameter == nullptr) return kBucketsMax;
  const std::string& text = parameter->value;
  size_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc() || end != text.data() + text.size() || value < 1 || value > kBucketsMax) {
    return invalid_argument("Argument max-buckets must be an integer between 1 and 10000.", "max-buckets", text);
  }
  return value;
}

}  // namespace

// A user sees the own buckets, an administrator all. The continuation token is the last name of the page.
Task<S3Result<void>> list_buckets(Request& request) {
  if (request.credential == nullptr) co_return S3Error(E::access_denied);
  CO_TRY_ASSIGN(const size_t limit, parse_max_buckets(request));
  const std::string prefix(request.query_or("prefix"));
  const std::string region(request.query_or("bucket-region"));
  std::string after(request.query_or("continuation-token"));

  std::vector<object::BucketInfo> page;
  bool truncated = false;
  const bool other_region = !region.empty() && region != request.services.options.region;
  while (!truncated && !other_region) {
    auto buckets = co_await request.services.objects.list_buckets(request.ctx, prefix, after, limit + 1);
    if (!buckets) co_return request.error(buckets.error());
    if (buckets->empty()) break;
    after = buckets->back().name;
    for (auto& bucket : *buckets) {
      if (!request.is_administrator() && bucket.owner != request.user_id()) continue;
      if (page.size() == limit) {
        truncated = true;
        break;
      }
      page.push_back(std::move(bucket));
    }
  }

  XmlWriter xml;
  xml.open_with_namespace("ListAllMyBucketsResult", kNamespace);
  xml.open("Owner").element("ID", request.user_id()).element("DisplayName", request.credential->user.name).close();
  xml.open("Buckets");
  for (const auto& bucket : page) {
    xml.open("Bucket").element("Name", bucket.name).element("CreationDate", iso_time(bucket.created));
    xml.element("BucketRegion", request.services.options.region).close();
  }
  xml.close();
  if (!prefix.empty()) xml.element("Prefix", prefix);
  if (truncated) xml.element("ContinuationToken", page.back().name);
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

}  // namespace quarry::frontends::s3
