// Listeners: the S3 listener on every loop (the kernel spreads connections over them) and the admin listener on the first, over TLS or not.
#pragma once
#include <memory>

#include "daemon/node_config.h"
#include "io/ring_executor.h"
#include "wire/http_server.h"

namespace quarry::daemon {

class Listeners {
 public:
  // Blocks until all listen. Errors: busy (a port is taken), misconfigured (certificate).
  static Result<std::unique_ptr<Listeners>> open(ExecutorPool& loops, const NodeConfig& config, HttpHandler& s3, HttpHandler& admin);
  virtual ~Listeners() = default;
  virtual SocketAddress s3_address() const = 0;  // with the real port
  virtual SocketAddress admin_address() const = 0;
  // Reads certificate and key again; on an error the old ones stay. Any thread.
  virtual Result<void> reload_certificate() = 0;
  // Blocks: stops accepting, drains, cuts what is left at the end of `drain`.
  virtual void stop(Duration drain) = 0;
};

}  // namespace quarry::daemon
