// UringNetwork: TCP over the ring of the calling executor. TLS goes on top (io/tls.h).
//
// A stream holds no buffer of its own, so an idle connection costs its state (under 1 KiB here) and what the kernel keeps.
// Deadlines cost nothing while they are met: each direction has one timer, armed for the earliest deadline seen and moved only when it
// fires. close() cancels what is pending; operations keep the connection's state alive until the kernel lets go of it, so a stream may be
// destroyed while its reader waits. Listeners and streams are confined to the executor that made them.
#pragma once
#include "io/network.h"
#include "io/thread_pool.h"

namespace quarry {

class UringNetwork : public Network {
 public:
  struct Options {
    int backlog = 4096;  // connections the kernel accepts ahead of us (bounded by net.core.somaxconn)
    size_t lookup_threads = 2;
    Duration keepalive_idle = std::chrono::seconds(60);  // then a probe every quarter of it, four times
  };
  explicit UringNetwork(Options options);
  UringNetwork() : UringNetwork(Options{}) {}
  ~UringNetwork() override;

  // On a RingExecutor. For several executors on one port: let the first listen (port 0 is chosen then), the others take its
  // address(). Errors: busy (the port is taken), permission_denied, not_found (no such host), io_error.
  Result<std::unique_ptr<Listener>> listen(const SocketAddress& address, bool reuse_port) override;
  // Tries each address of the name in turn. Errors: not_found (name), unavailable (refused, unreachable), timed_out.
  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, TimePoint deadline) override;

 private:
  const Options options_;
  std::unique_ptr<ThreadPool> lookup_;
};

}  // namespace quarry
