// Node: what one node is above its machine, put together: cluster (drives, metadata, data), object engine, identities, S3 and admin front
// ends. The machine's part (loops, listeners, opening real drives, files below the root) is the daemon's; a simulator gives twins of it,
// and runs the same node in one thread (testing/sim_node.h).
//
// Confined to the executor on which it was opened ("home"), but for the front ends and what they serve, which are thread-safe.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "auth/identity.h"
#include "cluster/cluster.h"
#include "frontends/admin/admin_server.h"
#include "frontends/s3/s3_server.h"
#include "io/blocking_pool.h"
#include "io/clock.h"
#include "object/object_engine.h"

namespace quarry::node {

// What a node stands on; outlives it. The executors are those of the drives and of whoever calls.
struct Services {
  Clock& clock;
  Random& random;
  BlockingPool& blocking;           // the metadata's index, and what else waits for the machine
  BlockingPool* compute = nullptr;  // hashes of bodies; null: on the caller's loop
};

struct NodeOptions {
  cluster::ClusterOptions cluster;               // but for its pool, clock and randomness, which are the node's
  std::optional<cluster::CreateOptions> create;  // of a new store; none: the drives carry one
  frontends::s3::S3Options s3;
  std::string version;  // of the program
};

// The administrator's first key that works.
struct AdministratorKey {
  std::string access_key, secret_key;
  bool is_new = false;  // this start made it
};

class Node {
 public:
  // The cluster and the objects in it: enough for fsck. Errors: those of Cluster::create and open.
  static Task<Result<std::unique_ptr<Node>>> open(Services services, NodeOptions options);
  virtual ~Node() = default;

  // Hides files of objects that were removed while the node could not (ObjectEngine::settle_names).
  virtual Task<Result<void>> settle_names() = 0;
  // Makes the front ends, and an administrator where there is none. Once; then s3(), admin() and identities() are there. The admin front
  // end says that the node is ready when it is told so (AdminServer::set_ready).
  virtual Task<Result<AdministratorKey>> begin() = 0;

  virtual cluster::Cluster& cluster() = 0;
  virtual object::ObjectEngine& objects() = 0;
  virtual auth::IdentityStore& identities() = 0;
  virtual HttpHandler& s3() = 0;
  virtual frontends::admin::AdminServer& admin() = 0;

  // The node is about to end: /health/ready says so, and nobody waits for a drive that hangs any more. Any thread.
  virtual void begin_close() = 0;
  // Closes data and metadata, so that the next start replays nothing. When no request is under way any more; must be called before
  // destruction. Errors: the first; everything is closed all the same.
  virtual Task<Result<void>> close() = 0;
  // After close: a drive hangs, and neither the node nor what it stands on may be destroyed (Cluster::hangs).
  virtual bool hangs() const = 0;
};

}  // namespace quarry::node
