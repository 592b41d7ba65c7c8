// GET /v1/jobs: what was done for whom since the node started.
#include "frontends/admin/admin_server.h"
#include "observe/usage.h"

namespace quarry::frontends::admin {
namespace {

void write_counts(JsonWriter& json, const UsageCounts& counts) {
  json.field("requests", counts.requests).field("errors", counts.errors).field("bytes_in", counts.bytes_in);
  json.field("bytes_out", counts.bytes_out).field("microseconds", counts.microseconds);
}

}  // namespace

Task<Result<Answer>> jobs_op(AdminServices& services, Call& call) {
  if (call.head.method != "GET" || call.segments.size() != 1) co_return fail(Code::not_found, "use GET /v1/jobs");
  JsonWriter json;
  json.begin_object().key("jobs").begin_array();
  for (const auto& row : usage()) {
    const Attribution& a = row.attribution;
    json.begin_object()
        .field("user", row.user)
        .field("tenant", a.tenant)
        .field("team", a.team)
        .field("project", a.project)
        .field("job", a.job);
    write_counts(json, row.sum());
    json.key("operations").begin_object();
    for (size_t kind = 0; kind < kUsageKinds; ++kind) {
      if (row.counts[kind].requests == 0) continue;
      json.key(usage_kind_name(static_cast<UsageKind>(kind))).begin_object();
      write_counts(json, row.counts[kind]);
      json.end_object();
    }
    json.end_object().end_object();
  }
  json.end_array().end_object();
  co_return Answer{.json = json.take()};
}

}  // namespace quarry::frontends::admin
