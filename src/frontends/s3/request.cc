#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {
namespace {

bool has_prefix(std::string_view name, std::string_view prefix) {
  return name.size() > prefix.size() && equal_ignoring_case(name.substr(0, prefix.size()), prefix);
}

}  // namespace

std::vector<HttpField> headers_in_query(const RequestHead& head) {
  constexpr std::string_view kPrefix = "x-amz-";
  constexpr std::string_view kLeftOut[] = {"algorithm",
                                           "credential",
                                           "date",
                                           "expires",
                                           "signedheaders",
                                           "signature",
                                           "trailer",
                                           "security-token",
                                           "content-sha256",
                                           "decoded-content-length",
                                           "sdk-checksum-algorithm"};
  std::vector<HttpField> fields;
  for (const auto& parameter : head.query) {
    if (!has_prefix(parameter.name, kPrefix)) continue;
    const std::string_view rest = std::string_view(parameter.name).substr(kPrefix.size());
    if (has_prefix(rest, "checksum-") || std::ranges::any_of(kLeftOut, [&](auto name) { return equal_ignoring_case(rest, name); }))
      continue;
    if (!head.find(parameter.name)) fields.push_back({parameter.name, parameter.value});
  }
  return fields;
}

std::optional<std::string_view> Request::header(std::string_view name) const {
  if (const auto value = head.find(name)) return value;
  for (const auto& field : query_headers) {
    if (equal_ignoring_case(field.name, name)) return field.value;
  }
  return std::nullopt;
}

ResponseHead Request::answer(int status) const {
  ResponseHead response;
  response.status = status;
  response.headers.add("x-amz-request-id", request_id);
  response.headers.add("x-amz-id-2", host_id);
  return response;
}

Task<S3Result<void>> Request::respond(ResponseHead response, std::string body) {
  if (head.method != "HEAD") bytes_sent += body.size();
  auto sent = co_await exchange.response.respond(std::move(response), std::move(body));
  std::move(sent).ignore("the client is gone: the server sees to the connection");
  co_return S3Result<void>();
}

Task<S3Result<void>> Request::respond_xml(std::string document, int status) {
  ResponseHead response = answer(status);
  response.headers.add("Content-Type", "application/xml");
  co_return co_await respond(std::move(response), std::move(document));
}

Task<S3Result<void>> Request::respond_empty(int status) { co_return co_await respond(answer(status)); }

Task<S3Result<void>> check_access(Request& request, std::string bucket_name) {
  if (request.credential == nullptr) {
    auto there = co_await request.services.objects.get_bucket(request.ctx, bucket_name);
    if (!there) co_return to_s3_error(there.error(), {.bucket = bucket_name});
    co_return S3Error(E::access_denied);
  }
  const std::string_view expected_owner =
      request.header_or(bucket_name == request.bucket ? "x-amz-expected-bucket-owner" : "x-amz-source-expected-bucket-owner");
  if (request.is_administrator() && expected_owner.empty()) co_return S3Result<void>();
  auto bucket = co_await request.services.objects.get_bucket(request.ctx, bucket_name);
  if (!bucket) co_return to_s3_error(bucket.error(), {.bucket = bucket_name});
  const bool owns = bucket->owner == request.user_id();
  if (!expected_owner.empty() && expected_owner != bucket->owner) {
    // An owner may also be named by what he signs with, or by his name.
    const bool named = owns && (expected_owner == request.credential->key.access_key || expected_owner == request.credential->user.name);
    if (!named) co_return S3Error(E::access_denied);
  }
  if (!owns && !request.is_administrator()) co_return S3Error(E::access_denied);
  if (bucket_name == request.bucket) request.bucket_info = std::move(*bucket);
  co_return S3Result<void>();
}

}  // namespace quarry::frontends::s3
