// POST /v1/fsck {"repair"}: proves the invariants on the running node. POST /v1/scrub: starts a pass.
#include "frontends/admin/admin_server.h"

namespace quarry::frontends::admin {

std::string fsck_json(const object::ObjectEngine::FsckReport& objects, const cluster::DataPlane::FsckReport& data) {
  JsonWriter json;
  json.begin_object().field("sound", objects.violations.empty() && data.violations.empty());
  json.key("violations").begin_array();
  for (const auto& violation : objects.violations) json.value(violation);
  for (const auto& violation : data.violations) json.value(violation);
  json.end_array();
  json.field("buckets", objects.buckets)
      .field("objects", objects.objects)
      .field("versions", objects.versions)
      .field("uploads", objects.uploads);
  json.field("bytes", objects.bytes).field("data_rows", data.data_rows).field("chunks", data.chunks);
  json.field("orphan_chunks", data.orphan_chunks).field("missing_chunks", data.missing_chunks);
  json.end_object();
  return json.take();
}

Task<Result<Answer>> fsck_op(AdminServices& services, Call& call) {
  if (call.head.method != "POST") co_return fail(Code::not_found, "use POST /v1/fsck");
  const JsonValue* repair_flag = call.body.find("repair");
  const bool repair = repair_flag != nullptr && repair_flag->as_bool().value_or(false);
  CO_TRY_ASSIGN(const auto objects, co_await services.objects.fsck(call.ctx, repair));
  CO_TRY_ASSIGN(const auto data, co_await services.data.fsck(repair));
  co_return Answer{.json = fsck_json(objects, data)};
}

Task<Result<Answer>> scrub_op(AdminServices& services, Call& call) {
  if (call.head.method != "POST") co_return fail(Code::not_found, "use POST /v1/scrub; progress is in GET /v1/status");
  CO_TRY(co_await services.data.start_scrub());
  co_return Answer{.status = 202};
}

}  // namespace quarry::frontends::admin
