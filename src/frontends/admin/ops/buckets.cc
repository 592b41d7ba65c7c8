// GET /v1/buckets/NAME: settings and usage. POST /v1/buckets/NAME {"redundancy","inline_limit","pack_limit","quota_bytes","quota_objects",
// "versioning"}: changes what is named. POST /v1/buckets/NAME/rewrite: rewrite.cc. POST /v1/buckets/NAME/pin|unpin {"key"}: keeps an object
// in the read cache.
#include <set>

#include "frontends/admin/admin_server.h"

namespace quarry::frontends::admin {
namespace {

constexpr std::string_view kVersioning[] = {"off", "enabled", "suspended"};

Result<void> apply(const JsonValue& body, object::BucketInfo& info) {
  for (const auto& [name, value] : body.members()) {
    const auto number = value.as_u64();
    const auto text = value.as_string();
    if (name == "redundancy" && text) {
      info.policy.redundancy = *text;
    } else if (name == "inline_limit" && number && *number <= 32 * kKiB) {
      info.policy.inline_limit = static_cast<uint32_t>(*number);
    } else if (name == "pack_limit" && number && *number <= kMiB) {
      info.policy.pack_limit = static_cast<uint32_t>(*number);
    } else if (name == "quota_bytes" && number) {
      info.quota.bytes = *number;
    } else if (name == "quota_objects" && number) {
      info.quota.objects = *number;
    } else if (name == "versioning" && text && (*text == "enabled" || *text == "suspended")) {
      info.versioning = *text == "enabled" ? object::Versioning::enabled : object::Versioning::suspended;
    } else {
      return fail(Code::invalid_argument,
                  "'{}' is no bucket setting, or its value is out of bounds: redundancy (profile, ec:k+m, mirror:n or whole:k+m), "
                  "inline_limit (<= 32 KiB), "
                  "pack_limit (<= 1 MiB), quota_bytes, quota_objects, versioning (enabled, suspended)",
                  name);
    }
  }
  return {};
}

}  // namespace

Task<Result<Answer>> buckets_op(AdminServices& services, Call& call) {
  if (call.segments.size() < 2) co_return fail(Code::not_found, "name a bucket: /v1/buckets/NAME");
  const std::string name = call.segments[1];
  if (call.segments.size() == 3 && call.head.method == "POST" && (call.segments[2] == "pin" || call.segments[2] == "unpin")) {
    CO_TRY_ASSIGN(const std::string key, call.body.string_at("key"));
    CO_TRY(co_await services.objects.pin(call.ctx, name, key, call.segments[2] == "pin"));
    co_return Answer{};
  }
  if (call.segments.size() == 3 && call.head.method == "POST" && call.segments[2] == "rewrite") {
    auto answer = co_await rewrite_op(services, call);
    co_return answer;
  }
  if (call.segments.size() != 2) co_return fail(Code::not_found, "there is no {} {}", call.head.method, call.head.raw_path);
  if (call.head.method == "POST") {
    if (const JsonValue* redundancy = call.body.find("redundancy")) {
      // Of drives that are away now data can be kept again when they are back; of those that are given up it cannot.
      std::set<std::string> domains;
      for (const auto& drive : services.data.drives()) {
        if (drive.state != "removed" && drive.state != "failed") domains.insert(drive.domain);
      }
      CO_TRY(cluster::parse_redundancy(redundancy->as_string().value_or(""), static_cast<unsigned>(domains.size())));
    }
    JsonValue body = call.body;
    object::ObjectEngine::BucketChange change = [body](object::BucketInfo& info) { return apply(body, info); };
    CO_TRY(co_await services.objects.update_bucket(call.ctx, name, std::move(change)));
  } else if (call.head.method != "GET") {
    co_return fail(Code::not_found, "there is no {} {}", call.head.method, call.head.raw_path);
  }
  CO_TRY_ASSIGN(const auto info, co_await services.objects.get_bucket(call.ctx, name));
  CO_TRY_ASSIGN(const auto usage, co_await services.objects.bucket_usage(call.ctx, name));
  JsonWriter json;
  json.begin_object()
      .field("name", info.name)
      .field("owner", info.owner)
      .field("created", info.created)
      .field("versioning", kVersioning[static_cast<size_t>(info.versioning) % 3])
      .field("redundancy", info.policy.redundancy)
      .field("inline_limit", info.policy.inline_limit)
      .field("pack_limit", info.policy.pack_limit)
      .field("quota_bytes", info.quota.bytes)
      .field("quota_objects", info.quota.objects)
      .field("objects", usage.objects)
      .field("bytes", usage.bytes)
      .end_object();
  co_return Answer{.json = json.take()};
}

}  // namespace quarry::frontends::admin
