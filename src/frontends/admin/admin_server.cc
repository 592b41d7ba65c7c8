#include "frontends/admin/admin_server.h"

#include "codec/digest.h"
#include "observe/metrics.h"

namespace quarry::frontends::admin {
namespace {

constexpr size_t kBodyMax = 1 << 20;

using Operation = Task<Result<Answer>> (*)(AdminServices&, Call&);
struct Route {
  std::string_view first_segment;
  Operation operation;
};
constexpr Route kRoutes[] = {{"status", status_op},   {"drives", drives_op}, {"adopt", adopt_op}, {"users", users_op}, {"keys", keys_op},
                             {"buckets", buckets_op}, {"fsck", fsck_op},     {"scrub", scrub_op}, {"jobs", jobs_op}};

std::string error_json(const Error& error) {
  JsonWriter json;
  json.begin_object()
      .field("code", code_name(error.code()))
      .field("message", error.context().empty() ? code_description(error.code()) : std::string_view(error.context()));
  if (error.reason() != Reason::none) json.field("reason", reason_name(error.reason()));
  return json.end_object().take();
}

Task<void> respond(HttpExchange& exchange, int status, std::string_view type, std::string body) {
  ResponseHead head;
  head.status = status;
  head.headers.add("Content-Type", type).add("Cache-Control", "no-store");
  Result<void> sent = co_await exchange.response.respond(std::move(head), std::move(body));
  std::move(sent).ignore("the client left; there is nobody to tell");
}

}  // namespace

Task<Result<std::string>> AdminServer::authenticate(HttpExchange& exchange, const std::string& body) {
  const auth::VerifyOptions options{.region = services_.region, .now = services_.clock.wall_now()};
  const auto signature = auth::parse_signature(exchange.request, options);
  if (!signature) co_return fail(Code::unauthenticated, "{}: {}", signature.error().code, signature.error().message);
  if (signature->place == auth::SignaturePlace::none) {
    co_return fail(Code::unauthenticated, "sign the request with an administrator's access key (Signature V4)");
  }
  if (signature->payload != auth::PayloadKind::sha256 || !equal_constant_time(signature->payload_sha256, sha256(bytes_of(body)))) {
    co_return fail(Code::unauthenticated, "x-amz-content-sha256 must be the SHA-256 of the body");
  }
  CO_TRY_ASSIGN(const auto credential, co_await services_.identities.credential(std::string(signature->access_key)));
  const auto key = signing_keys_.get(signature->access_key, credential->secret, signature->date, signature->region);
  const auto verified = auth::verify_signature(exchange.request, *signature, key);
  if (!verified) co_return fail(Code::unauthenticated, "{}: {}", verified.error().code, verified.error().message);
  if (!credential->user.administrator) co_return fail(Code::permission_denied, "user '{}' is no administrator", credential->user.name);
  co_return credential->user.name;
}

Task<Result<Answer>> AdminServer::dispatch(Call& call) {
  for (const Route& route : kRoutes) {
    if (!call.segments.empty() && call.segments[0] == route.first_segment) {
      Result<Answer> answer = co_await route.operation(services_, call);
      co_return answer;
    }
  }
  co_return fail(Code::not_found, "there is no {} {}", call.head.method, call.head.raw_path);
}

Task<void> AdminServer::handle(HttpExchange& exchange) {
  const std::string path = exchange.request.path;
  if (path == "/health/live") {
    co_await respond(exchange, 200, "text/plain", "live\n");
    co_return;
  }
  if (path == "/health/ready") {
    const bool ready = ready_;
    co_await respond(exchange, ready ? 200 : 503, "text/plain", ready ? "ready\n" : "not ready\n");
    co_return;
  }
  if (path == "/metrics") {
    co_await respond(exchange, 200, metrics::kPrometheusContentType, metrics::prometheus_text());
    co_return;
  }

  Result<std::string> body = co_await exchange.body.read_all(kBodyMax);
  if (!body) {
    const Error error = std::move(body).error();
    co_await respond(exchange, status_of(error.code()), "application/json", error_json(error));
    co_return;
  }
  RequestContext ctx;
  ctx.id = new_request_id();
  ctx.operation = "admin";
  Result<std::string> user = co_await authenticate(exchange, *body);
  Result<Answer> answer = fail(Code::not_found, "there is no {}", path);
  if (!user) {
    // An unknown key is told the same as a wrong signature.
    answer = user.error().code() == Code::not_found ? Result<Answer>(fail(Code::unauthenticated, "unknown access key"))
                                                    : Result<Answer>(std::move(user).error());
  } else if (path.starts_with("/v1/")) {
    ctx.identity.user = *user;
    Call call{ctx, {}, exchange.request, {}};
    for (size_t from = 4; from <= path.size();) {
      const size_t slash = std::min(path.find('/', from), path.size());
      if (slash > from) call.segments.push_back(path.substr(from, slash - from));
      from = slash + 1;
    }
    Result<JsonValue> parsed = body->empty() ? Result<JsonValue>(JsonValue()) : parse_json(*body);
    if (!parsed) {
      answer = std::move(parsed).error();
    } else {
      call.body = std::move(*parsed);
      answer = co_await dispatch(call);
    }
  }
  if (answer) {
    co_await respond(exchange, answer->status, "application/json", answer->json + "\n");
  } else {
    co_await respond(exchange, status_of(answer.error().code()), "application/json", error_json(answer.error()) + "\n");
  }
}

}  // namespace quarry::frontends::admin
