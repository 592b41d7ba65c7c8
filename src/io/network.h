// Streams and listeners: TCP and TLS 1.3 over it. Real: io/uring_network.h, io/tls.h. Simulated: io/sim/sim_network.h.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/executor.h"

namespace quarry {

struct SocketAddress {
  std::string host;  // literal IPv4, IPv6 (no brackets), or a name
  uint16_t port = 0;
  // "127.0.0.1:9000", "[::1]:9000", "localhost:0". Errors: malformed.
  static Result<SocketAddress> parse(std::string_view text);
  std::string to_string() const;
  bool is_loopback() const;
};

// A byte stream. Confined to its executor. One reader and one writer at a time; the two may overlap.
class Stream {
 public:
  virtual ~Stream() = default;
  // At least 1 byte, or 0 at the peer's orderly end. Errors: timed_out, connection_closed, cancelled (close() was called).
  virtual Task<Result<size_t>> read(MutableByteView into, TimePoint deadline) = 0;
  // Waits until a read would not have to: bytes are there, or the peer's end, or the connection broke (the read then says how).
  // A connection that idles here holds no buffer: allocate one for `read` afterwards. Errors: timed_out, cancelled.
  virtual Task<Result<void>> wait_readable(TimePoint deadline) = 0;
  // Sends all parts, in order; parts stay valid until completion. Errors as read.
  virtual Task<Result<void>> write(std::vector<ByteView> parts, TimePoint deadline) = 0;
  // No more writes; the peer reads an orderly end.
  virtual Task<Result<void>> shutdown_write() = 0;
  // Cancels what is pending and releases the socket. Safe to call twice and while a read or write waits (they then fail).
  virtual void close() = 0;
  virtual const SocketAddress& peer() const = 0;
  // Application protocol agreed by TLS ALPN ("h2", "http/1.1"); empty without TLS.
  virtual std::string_view alpn() const { return {}; }
  virtual bool is_tls() const { return false; }
  // Subject of the client certificate that was verified (mTLS), RFC 2253 form; empty if there was none.
  virtual std::string_view peer_certificate_subject() const { return {}; }
};

class Listener {
 public:
  virtual ~Listener() = default;
  virtual Task<Result<std::unique_ptr<Stream>>> accept() = 0;  // cancelled after close()
  virtual void close() = 0;
  virtual const SocketAddress& address() const = 0;  // with the real port
};

class Network {
 public:
  virtual ~Network() = default;
  // reuse_port: several executors listen on one port and the kernel spreads connections over them.
  virtual Result<std::unique_ptr<Listener>> listen(const SocketAddress& address, bool reuse_port) = 0;
  virtual Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, TimePoint deadline) = 0;
};

}  // namespace quarry
