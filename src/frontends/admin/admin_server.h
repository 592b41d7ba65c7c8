// The admin API: health, metrics, and administration of a node as JSON over HTTP. Page: docs/guide/admin-api.md.
//
// /health/live, /health/ready and /metrics answer anybody who can reach the listener (which is on loopback unless asked for by name).
// Everything under /v1/ needs a Signature V4 by an administrator's access key (region and service as for S3) over a hashed payload.
// One handler serves all executors: it keeps no state of its own but what is atomic.
#pragma once
#include <atomic>
#include <functional>
#include <string>

#include "auth/identity.h"
#include "auth/sigv4.h"
#include "cluster/data_plane.h"
#include "meta/meta_store.h"
#include "object/object_engine.h"
#include "wire/http_server.h"
#include "wire/json.h"

namespace quarry::frontends::admin {

struct AdminServices {
  cluster::DataPlane& data;
  meta::MetaStore& metadata;
  object::ObjectEngine& objects;
  auth::IdentityStore& identities;
  Clock& clock;
  std::string region = "us-east-1";
  std::string version;  // of the program
  std::string cluster_id;
  std::string profile;  // default redundancy, as text
  WallTime started = 0;
};

// What an operation answers: a status and a JSON document.
struct Answer {
  int status = 200;
  std::string json = "{}";
};

// One call, parsed: path split at '/', query and JSON body.
struct Call {
  const RequestContext& ctx;
  std::vector<std::string> segments;  // of the path behind /v1/
  const RequestHead& head;
  JsonValue body;  // null without a body
};

class AdminServer : public HttpHandler {
 public:
  explicit AdminServer(AdminServices services) : services_(std::move(services)) {}
  Task<void> handle(HttpExchange& exchange) override;
  // Until then, and while shutting down, /health/ready answers 503.
  void set_ready(bool ready) { ready_ = ready; }

 private:
  Task<Result<std::string>> authenticate(HttpExchange& exchange, const std::string& body);
  Task<Result<Answer>> dispatch(Call& call);
  AdminServices services_;
  auth::SigningKeyCache signing_keys_;
  std::atomic<bool> ready_{false};
};

// Operations, one file a group under ops/.
Task<Result<Answer>> status_op(AdminServices& services, Call& call);
Task<Result<Answer>> drives_op(AdminServices& services, Call& call);
Task<Result<Answer>> adopt_op(AdminServices& services, Call& call);
Task<Result<Answer>> rewrite_op(AdminServices& services, Call& call);
Task<Result<Answer>> users_op(AdminServices& services, Call& call);
Task<Result<Answer>> keys_op(AdminServices& services, Call& call);
Task<Result<Answer>> buckets_op(AdminServices& services, Call& call);
Task<Result<Answer>> fsck_op(AdminServices& services, Call& call);
Task<Result<Answer>> jobs_op(AdminServices& services, Call& call);
Task<Result<Answer>> scrub_op(AdminServices& services, Call& call);

// What GET /v1/status and the metrics say of the node: its data, and whether it takes writes.
cluster::HealthStatus health_of(const cluster::DataPlane& data, const meta::MetaStore& metadata);

// The document that POST /v1/fsck answers.
std::string fsck_json(const object::ObjectEngine::FsckReport& objects, const cluster::DataPlane::FsckReport& data);

// HTTP status of an error code: the admin front end's one table.
int status_of(Code code);

}  // namespace quarry::frontends::admin
