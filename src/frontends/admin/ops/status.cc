// GET /v1/status: everything a person asks first, in one document.
#include "frontends/admin/admin_server.h"

namespace quarry::frontends::admin {

cluster::HealthStatus health_of(const cluster::DataPlane& data, const meta::MetaStore& metadata) {
  auto health = data.health();
  const auto stats = metadata.stats();
  if (!stats.failure.empty()) {
    health.problems.push_back(
        {cluster::HealthLevel::degraded, "writes_refused", "writes are refused, the store is read-only: " + stats.failure});
  }
  if (!stats.index_trouble.empty())
    health.problems.push_back({cluster::HealthLevel::degraded, "index", "the index of the metadata is in trouble: " + stats.index_trouble});
  return health;
}

Task<Result<Answer>> status_op(AdminServices& services, Call& call) {
  if (call.head.method != "GET" || call.segments.size() != 1) co_return fail(Code::not_found, "use GET /v1/status");
  const auto drives = services.data.drives();
  const auto space = services.data.space_status();
  const auto repair = services.data.repair_status();
  const auto scrub = services.data.scrub_status();
  const auto cache = services.data.cache_status();
  const auto metadata = services.metadata.stats();

  const auto health = health_of(services.data, services.metadata);

  JsonWriter json;
  json.begin_object()
      .field("version", services.version)
      .field("cluster", services.cluster_id)
      .field("profile", services.profile)
      .field("health", cluster::health_level_name(health.level()))
      .field("uptime_seconds", (services.clock.wall_now() - services.started) / 1'000'000'000);
  json.key("problems").begin_array();
  for (const auto& problem : health.problems) {
    json.begin_object()
        .field("level", cluster::health_level_name(problem.level))
        .field("cause", problem.cause)
        .field("sentence", problem.sentence)
        .end_object();
  }
  json.end_array();
  json.key("space").begin_object();
  json.field("raw_bytes", space.raw_bytes).field("used_bytes", space.used_bytes).field("free_bytes", space.free_bytes);
  json.field("payload_bytes", space.payload_bytes).field("usable_free_bytes", space.usable_free_bytes).end_object();
  json.key("drives").begin_array();
  for (const auto& drive : drives) {
    json.begin_object()
        .field("number", drive.number)
        .field("id", drive.id.to_string())
        .field("path", drive.path)
        .field("kind", drive.kind)
        .field("domain", drive.domain)
        .field("state", drive.state)
        .field("reason", drive.reason)
        .field("cause", drive.cause)
        .field("file_system", drive.file_system)
        .field("size_bytes", drive.size_bytes)
        .field("used_bytes", drive.used_bytes)
        .field("free_bytes", drive.free_bytes)
        .field("room_bytes", drive.room_bytes)
        .field("read_errors", drive.read_errors)
        .field("write_errors", drive.write_errors)
        .field("checksum_errors", drive.checksum_errors)
        .end_object();
  }
  json.end_array();
  json.key("repair").begin_object();
  json.field("activity", repair.activity).field("pending_writes", repair.pending_writes).field("repaired_writes", repair.repaired_writes);
  json.field("repaired_bytes", repair.repaired_bytes)
      .field("lost_writes", repair.lost_writes)
      .field("changed_writes", repair.changed_writes);
  json.field("lowest_redundancy", uint64_t{repair.lowest_redundancy}).field("bytes_per_second", repair.bytes_per_second);
  json.field("eta_seconds", repair.eta_seconds).end_object();
  json.key("scrub").begin_object();
  json.field("state", scrub.state)
      .field("reason", scrub.reason)
      .field("position", scrub.position)
      .field("bytes_checked", scrub.bytes_checked);
  json.field("chunks_checked", scrub.chunks_checked).field("damaged", scrub.damaged).field("repaired", scrub.repaired);
  json.field("last_complete", scrub.last_complete).end_object();
  json.key("cache").begin_object();
  json.field("capacity_bytes", cache.capacity_bytes).field("used_bytes", cache.used_bytes).field("pinned_bytes", cache.pinned_bytes);
  json.field("hits", cache.hits).field("misses", cache.misses).end_object();
  json.key("metadata").begin_object();
  json.field("version", metadata.version).field("keys", metadata.keys_estimate).field("bytes", metadata.bytes_on_disk);
  json.field("commits", metadata.commits)
      .field("conflicts", metadata.conflicts)
      .field("log_bytes_since_checkpoint", metadata.log_bytes_since_checkpoint);
  json.field("failure", metadata.failure).field("index_trouble", metadata.index_trouble);
  json.end_object();
  json.end_object();
  co_return Answer{.json = json.take()};
}

}  // namespace quarry::frontends::admin
