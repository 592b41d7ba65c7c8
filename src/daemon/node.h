// Node: one running Quarry: drives, cluster, object engine, identities, S3 and admin listeners, wired together and taken down in order.
#pragma once
#include <memory>

#include "client/endpoints.h"
#include "daemon/node_config.h"

namespace quarry::daemon {

class Node {
 public:
  // Formats fresh drives, opens or creates the store, starts listening, writes root/endpoints.json. Blocks; on a thread that is no
  // executor's. On failure nothing is left running.
  static Result<std::unique_ptr<Node>> start(NodeConfig config);
  // Opens the store of a node that is not running, checks every invariant and closes it again. The report is the JSON of POST /v1/fsck.
  // Blocks.
  static Result<std::string> check(NodeConfig config, bool repair);
  virtual ~Node() = default;
  virtual const client::Endpoints& endpoints() const = 0;
  virtual std::string summary() const = 0;        // a few lines for people: endpoints, drives, redundancy
  virtual Result<void> reload_certificate() = 0;  // on SIGHUP
  // Stops accepting, finishes what was accepted (at most drain_timeout), makes the next start cheap, closes. Blocks.
  // With a drive that hangs it returns all the same; then hangs() says so.
  virtual Result<void> stop() = 0;
  // After stop: the kernel holds threads of this process in calls to a drive. Everything else is closed and let go; the process can only
  // end at once (_exit).
  virtual bool hangs() const = 0;
};

// Whether a process holds the lock of this root directory.
bool node_is_running(const std::string& root);

}  // namespace quarry::daemon
