// ListObjects, versions 1 and 2: one range scan per page.
#include "base/coding.h"
#include "frontends/s3/listing.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"

namespace quarry::frontends::s3 {
namespace {

struct ListPlan {
  object::ListOptions options;
  KeyEncoding encode;
  size_t limit = 0;
};

S3Result<ListPlan> plan_list(const Request& request) {
  ListPlan plan;
  TRY_ASSIGN(plan.limit, parse_limit(request, "max-keys"));
  TRY_ASSIGN(plan.encode, parse_encoding(request));
  plan.options.prefix = request.query_or("prefix");
  plan.options.delimiter = request.query_or("delimiter");
  plan.options.limit = plan.limit;
  return plan;
}

// A continuation token is the last name of its page. Names that XML cannot carry, or that look encoded, are sent as base64.
constexpr std::string_view kEncodedToken = "base64:";

std::string encode_token(const std::string& name) {
  const bool plain = !name.starts_with(kEncodedToken) && std::ranges::all_of(name, [](char c) { return c > ' ' && c < 0x7f; });
  return plain ? name : std::string(kEncodedToken) + to_base64(bytes_of(name));
}

S3Result<std::string> decode_token(const std::string& token) {
  if (!token.starts_with(kEncodedToken)) return token;
  auto name = from_base64(std::string_view(token).substr(kEncodedToken.size()));
  if (!name) return invalid_argument("The continuation token provided is incorrect", "continuation-token", token);
  return std::move(*name);
}

Task<S3Result<object::ListPage>> run_list(Request& request, ListPlan& plan) {
  if (plan.limit == 0) {
    // Still an error for a bucket that is not there.
    auto bucket = co_await request.services.objects.get_bucket(request.ctx, request.bucket);
    if (!bucket) co_return request.error(bucket.error());
    co_return object::ListPage();
  }
  auto page = co_await request.services.objects.list(request.ctx, request.bucket, plan.options);
  if (!page) co_return request.error(page.error());
  co_return std::move(*page);
}

// names: null where owners are not asked for.
void append_contents(XmlWriter& xml, const object::ListPage& page, const KeyEncoding& encode, const OwnerNames* names) {
  for (const auto& info : page.objects) {
    xml.open("Contents");
    append_object(xml, info, encode);
    if (names != nullptr) append_owner(xml, "Owner", info.owner, *names);
    xml.close();
  }
  append_prefixes(xml, page.common_prefixes, encode);
}

}  // namespace

Task<S3Result<void>> list_objects(Request& request) {
  CO_TRY_ASSIGN(ListPlan plan, plan_list(request));
  const std::string marker(request.query_or("marker"));
  plan.options.after = marker;
  CO_TRY_ASSIGN(const object::ListPage page, co_await run_list(request, plan));
  OwnerNames names(request);
  for (const auto& info : page.objects) {
    if (!names.knows(info.owner)) co_await names.learn(info.owner);
  }

  XmlWriter xml;
  xml.open_with_namespace("ListBucketResult", kNamespace);
  xml.element("Name", request.bucket).element("Prefix", plan.encode(plan.options.prefix)).element("Marker", plan.encode(marker));
  if (page.truncated) xml.element("NextMarker", plan.encode(page.next));
  xml.element("MaxKeys", uint64_t{plan.limit});
  if (!plan.options.delimiter.empty()) xml.element("Delimiter", plan.encode(plan.options.delimiter));
  if (plan.encode.url) xml.element("EncodingType", "url");
  xml.flag("IsTruncated", page.truncated);
  append_contents(xml, page, plan.encode, &names);
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

Task<S3Result<void>> list_objects_v2(Request& request) {
  CO_TRY_ASSIGN(ListPlan plan, plan_list(request));
  const std::string start_after(request.query_or("start-after"));
  const auto* token = request.head.find_query("continuation-token");
  plan.options.after = start_after;
  if (token != nullptr) {
    CO_TRY_ASSIGN(std::string last, decode_token(token->value));
    plan.options.after = std::max(plan.options.after, last);
  }
  CO_TRY_ASSIGN(const object::ListPage page, co_await run_list(request, plan));
  const bool owners = request.query_or("fetch-owner") == "true";
  OwnerNames names(request);
  for (const auto& info : page.objects) {
    if (owners && !names.knows(info.owner)) co_await names.learn(info.owner);
  }

  XmlWriter xml;
  xml.open_with_namespace("ListBucketResult", kNamespace);
  xml.element("Name", request.bucket).element("Prefix", plan.encode(plan.options.prefix));
  xml.element("KeyCount", uint64_t{page.objects.size() + page.common_prefixes.size()});
  xml.element("MaxKeys", uint64_t{plan.limit});
  if (!plan.options.delimiter.empty()) xml.element("Delimiter", plan.encode(plan.options.delimiter));
  if (plan.encode.url) xml.element("EncodingType", "url");
  xml.flag("IsTruncated", page.truncated);
  if (token != nullptr) xml.element("ContinuationToken", token->value);
  if (page.truncated) xml.element("NextContinuationToken", encode_token(page.next));
  if (!start_after.empty()) xml.element("StartAfter", plan.encode(start_after));
  append_contents(xml, page, plan.encode, owners ? &names : nullptr);
  xml.close();
  co_return co_await request.respond_xml(xml.take());
}

}  // namespace quarry::frontends::s3
