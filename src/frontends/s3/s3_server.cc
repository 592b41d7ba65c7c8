#include "frontends/s3/s3_server.h"

#include "base/coding.h"
#include "base/log.h"
#include "frontends/s3/key_text.h"
#include "frontends/s3/object_headers.h"
#include "frontends/s3/ops/operations.h"
#include "frontends/s3/routes.h"
#include "frontends/s3/session.h"
#include "observe/metrics.h"
#include "observe/usage.h"

namespace quarry::frontends::s3 {
namespace {

constexpr size_t kStatusClasses = 6;  // 1xx .. 5xx by first digit

// Counters of one operation, looked up once.
struct OperationMetrics {
  std::array<std::optional<Counter>, kStatusClasses> requests;
  std::optional<Histogram> seconds;
  UsageKind kind = UsageKind::other;
};

UsageKind usage_kind_of(const Operation& operation) {
  if (operation.method == "DELETE" || operation.name == "delete_objects") return UsageKind::remove;
  if (operation.name.starts_with("list_")) return UsageKind::list;
  if (operation.name == "post_object") return UsageKind::write;
  if (operation.scope != Scope::object) return UsageKind::other;
  return operation.method == "GET" || operation.method == "HEAD" ? UsageKind::read : UsageKind::write;
}

// By position in operations(); the last is for requests that named none.
class MetricsTable {
 public:
  MetricsTable() : rows_(operations().size() + 1) {
    const auto requests = metrics::counter_family("s3_requests_total", "S3 requests answered", {"operation", "status"});
    const auto seconds =
        metrics::histogram_family("s3_request_seconds", "Time from the head of an S3 request to the end of its answer", {"operation"});
    constexpr std::string_view kNames[kStatusClasses] = {"other", "1xx", "2xx", "3xx", "4xx", "5xx"};
    for (size_t i = 0; i < rows_.size(); ++i) {
      const std::string_view name = i < operations().size() ? operations()[i].name : std::string_view("none");
      for (size_t s = 0; s < kStatusClasses; ++s) rows_[i].requests[s] = requests.with({name, kNames[s]});
      rows_[i].seconds = seconds.with({name});
      if (i < operations().size()) rows_[i].kind = usage_kind_of(operations()[i]);
    }
  }
  const OperationMetrics& of(const Operation* operation) const {
    return rows_[operation == nullptr ? rows_.size() - 1 : static_cast<size_t>(operation - operations().data())];
  }

 private:
  std::vector<OperationMetrics> rows_;
};
const MetricsTable& metrics_table() {
  static const MetricsTable table;
  return table;
}

Scope scope_of(const Request& request) {
  if (request.bucket.empty()) return Scope::service;
  return request.key.empty() ? Scope::bucket : Scope::object;
}

// Combinations of a method and sub-resources that S3 names a mistake of their own.
S3Result<void> check_combination(const Request& request, Scope scope) {
  const std::string_view method = request.head.method;
  if (scope == Scope::object && method == "GET") {
    if (request.has_query("uploads")) return S3Error(E::invalid_request, "Key is not expected for the GET method ?uploads subresource");
    if (request.has_query("versions")) return S3Error(E::invalid_request, "There is no such thing as the ?versions sub-resource for a key");
  }
  if (scope == Scope::object && method == "PUT" && request.has_query("uploadId") && !request.has_query("partNumber")) {
    return S3Error(E::method_not_allowed).detail("Method", "PUT").detail("ResourceType", "UPLOAD");
  }
  if (scope == Scope::object && method == "PUT" && request.has_query("partNumber") && !request.has_query("uploadId")) {
    return invalid_argument("This operation does not accept partNumber without uploadId", "partNumber", "partNumber");
  }
  if (const auto source = request.header("x-amz-copy-source")) {
    const bool copies =
        request.operation != nullptr && (request.operation->run == copy_object || request.operation->run == upload_part_copy);
    if (!copies && (method != "PUT" || scope == Scope::object) && (method != "POST" || request.has_query("uploadId")))
      return invalid_argument("You can only specify a copy source header for copy requests.", "x-amz-copy-source", *source);
  }
  if (const auto* version = request.head.find_query("versionId"); version != nullptr && version->value.empty() && scope == Scope::object) {
    return invalid_argument("Version id cannot be the empty string", "versionId", "");
  }
  return {};
}

S3Error wrong_method(const Request& request, Scope scope) {
  constexpr std::string_view kTypes[] = {"SERVICE", "BUCKET", "OBJECT"};
  const std::string_view type = request.head.method == "POST" ? kTypes[0] : kTypes[static_cast<size_t>(scope)];
  return S3Error(E::method_not_allowed).detail("Method", std::string(request.head.method)).detail("ResourceType", std::string(type));
}

S3Error unknown_parameter(const Request& request, const QueryParameter& stranger, Scope scope) {
  if (stranger.name == "versionId" && scope == Scope::object)
    return invalid_argument("This operation does not accept a version-id.", "versionId", stranger.value);
  if (selects_an_operation(stranger.name)) return wrong_method(request, scope).detail("SubResource", stranger.name);
  return S3Error(E::not_implemented,
                 fmt::format("{} with the query parameter '{}' is not implemented.", request.head.method, stranger.name))
      .detail("QueryParameter", stranger.name);
}

// S3's limit on the headers of a request, so that what is accepted here is accepted there.
S3Result<void> check_header_section(const Request& request) {
  constexpr size_t kHeaderSectionMax = 8 * 1024;
  size_t bytes = 0;
  for (const auto& field : request.head.headers) bytes += field.name.size() + field.value.size();
  if (bytes <= kHeaderSectionMax) return {};
  return S3Error(E::request_header_section_too_large).detail("MaxSizeAllowed", std::to_string(kHeaderSectionMax));
}

Task<int> send_error(Request& request, const S3Error& error) {
  ResponseHead response = request.answer(error.status());
  response.headers.add("Content-Type", "application/xml");
  for (const auto& [name, value] : error.headers) response.headers.add(name, value);
  // SDKs learn the right region from it: an answer to HEAD has nothing else to say it with.
  if (!request.bucket.empty() && error.id() != E::no_such_bucket && !response.headers.has("x-amz-bucket-region")) {
    response.headers.add("x-amz-bucket-region", request.services.options.region);
  }
  std::string document;
  if (!status_forbids_body(error.status()) && request.head.method != "HEAD") {
    document = error_document(error, request.head.raw_path, request.request_id, request.host_id);
  }
  auto sent = co_await request.respond(std::move(response), std::move(document));
  static_cast<void>(sent.has_value());  // respond() has no failure of its own
  co_return error.status();
}

}  // namespace

S3Server::S3Server(object::ObjectEngine& objects, auth::IdentityStore& identities, Clock& clock, S3Options options)
    : services_{objects, identities, clock, std::move(options)} {
  metrics_table();
}
S3Server::~S3Server() = default;

Task<void> S3Server::handle(HttpExchange& exchange) {
  Executor& here = Executor::here();
  const TimePoint begun = here.now();
  Request request{.exchange = exchange, .services = services_, .head = exchange.request};
  request.ctx.id = new_request_id();
  request.request_id = request.ctx.id.short_id();
  request.host_id = request.ctx.id.to_string();
  auto served = co_await serve(request);
  int status = served ? 200 : served.error().status();
  if (!served && !exchange.response.head_sent()) {
    status = co_await send_error(request, served.error());
    if (status >= 500 && status != 501) {
      LOG_WARNING("request failed", {"request", request.request_id}, {"operation", request.ctx.operation}, {"bucket", request.bucket},
                  {"key", request.key}, {"code", served.error().code()},
                  {"error", served.error().cause.empty() ? served.error().message() : served.error().cause});
    }
  }
  if (request.failed) status = 500;  // what the client saw may be a head that said 200
  const OperationMetrics& row = metrics_table().of(request.operation);
  row.requests[static_cast<size_t>(status / 100) % kStatusClasses]->add();
  const Duration taken = here.now() - begun;
  row.seconds->observe(taken);
  count_usage(request.ctx, row.kind,
              {.requests = 1,
               .errors = status >= 400 ? 1u : 0u,
               .bytes_in = exchange.body.bytes_read(),
               .bytes_out = request.bytes_sent,
               .microseconds = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(taken).count())});
}

Task<S3Result<void>> S3Server::serve(Request& request) {
  CO_TRY(check_header_section(request));
  CO_TRY(parse_address(request));
  const Scope scope = scope_of(request);
  request.query_headers = headers_in_query(request.head);
  request.operation = find_operation(request, scope);
  if (request.operation != nullptr) {
    request.ctx.operation = "s3.";
    request.ctx.operation.append(request.operation->name);
  }
  CO_TRY(check_combination(request, scope));
  if (request.operation == nullptr) co_return wrong_method(request, scope);
  auto authentic = co_await authenticate(request, signing_keys_);
  if (!authentic) co_return authentic;
  if (const auto* stranger = find_stranger(request.head, *request.operation)) {
    request.operation = nullptr;  // nothing of it was done
    co_return unknown_parameter(request, *stranger, scope);
  }
  if (auth::payload_is_chunked(request.signature.payload) && !request.operation->takes_upload) {
    co_return S3Error(E::invalid_request, "The value of x-amz-content-sha256 header is invalid.");
  }
  if (scope == Scope::object && escapes_bucket(request.key)) co_return S3Error(E::path_escapes_bucket);
  if (scope != Scope::service && request.operation->run != create_bucket) {
    if (!is_valid_bucket_name(request.bucket)) {
      co_return request.head.method == "PUT" || request.head.method == "POST"
          ? S3Error(E::invalid_bucket_name).detail("BucketName", request.bucket)
          : S3Error(E::no_such_bucket).detail("BucketName", request.bucket);
    }
    if (!request.operation->signed_in_body) {
      auto access = co_await check_access(request, request.bucket);
      if (!access) co_return access;
    }
  }
  auto text = co_await check_text(request);
  if (!text) co_return text;
  CO_TRY(refuse_encryption(request));
  auto done = co_await request.operation->run(request);
  if (done || request.exchange.response.head_sent() || scope == Scope::service || request.bucket_info || request.operation->signed_in_body)
    co_return done;
  const E id = done.error().id();
  if ((id != E::invalid_argument && id != E::invalid_request && id != E::no_such_upload) || request.operation->run == create_bucket)
    co_return done;
  // S3 looks for the bucket before anything else. Here only a request that failed pays for that.
  auto bucket = co_await services_.objects.get_bucket(request.ctx, request.bucket);
  if (!bucket && bucket.error().code() == Code::not_found) co_return S3Error(E::no_such_bucket).detail("BucketName", request.bucket);
  co_return done;
}

std::pair<std::string, std::string> S3Server::error_body(int status) {
  E id = E::internal_error;
  switch (status) {
    case 400: id = E::bad_request; break;
    case 408: id = E::request_timeout; break;
    case 431: id = E::request_header_section_too_large; break;
    case 501: {
      const S3Error error(E::not_implemented, "This transfer coding, or this method, is not implemented.");
      return {"application/xml", error_document(error, {}, new_request_id().short_id(), {})};
    }
    case 503: id = E::slow_down; break;
    default: break;
  }
  return {"application/xml", error_document(S3Error(id), {}, new_request_id().short_id(), {})};
}

}  // namespace quarry::frontends::s3
