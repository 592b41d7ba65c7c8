#include "client/admin_client.h"

#include "auth/sigv4.h"
#include "codec/digest.h"

namespace quarry::client {
namespace {
Code code_named(std::string_view name) {
#define X(code, number, cls, text) \
  if (name == #code) return Code::code;
  QUARRY_ERROR_CODES(X)
#undef X
  return Code::internal;
}
}  // namespace

Task<Result<std::string>> AdminClient::call(std::string method, std::string path, std::string body, Duration patience) {
  CO_TRY_ASSIGN(const Url url, parse_url(url_));
  ClientRequest request;
  request.method = method;
  request.target = path;
  request.patience = patience;
  const size_t question = path.find('?');
  const std::string raw_path = path.substr(0, question), raw_query = question == std::string::npos ? "" : path.substr(question + 1);
  const std::string host = url.authority();
  if (!body.empty()) request.headers.add("content-type", "application/json");
  const auth::RequestToSign to_sign{.method = method, .host = host, .raw_path = raw_path, .raw_query = raw_query};
  const auth::SigningCredentials credentials{credentials_.access_key, credentials_.secret_key, region_};
  auth::sign_request(credentials, to_sign, request.headers, sha256_hex(bytes_of(body)), clock_.wall_now());
  if (!body.empty()) request.body.push_back(SharedBytes::copy_of(bytes_of(body)));
  auto answer = co_await http_.call(url, std::move(request));
  if (!answer) co_return std::move(answer).error().with(fmt::format("admin {}", url_));
  if (answer->status < 400) co_return std::move(answer->body);
  if (auto json = parse_json(answer->body)) {
    const std::string code = json->string_at("code").value_or("internal"), message = json->string_at("message").value_or(answer->body);
    co_return Error(code_named(code), message);
  }
  co_return fail(Code::internal, "the node answered {} to {} {}", answer->status, method, path);
}

}  // namespace quarry::client
