// HTTP server: HTTP/1.1 and HTTP/2 (ALPN h2, or prior knowledge on plain connections) for one handler, on one executor. To use several
// cores, run one server per executor and listen with reuse_port.
//   - keep-alive, pipelining in order, Expect: 100-continue answered when the handler first reads the body (a handler that answers without
//     reading closes the connection when body bytes are outstanding, instead of swallowing them);
//   - an idle connection holds no buffer; a slow handler makes the peer wait, never the memory grow;
//   - every wait on a peer has a timeout; connections are bounded.
// Confined to its executor.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "io/clock.h"
#include "io/network.h"
#include "io/sync.h"
#include "wire/body.h"
#include "wire/http1_parser.h"

namespace quarry {

struct HttpServerOptions {
  Http1Limits limits;
  size_t connections_max = 20'000;       // per server; beyond it the listener waits until one ends (the kernel's queue holds the rest)
  size_t read_buffer_bytes = 16 * 1024;  // taken for a head that does not fit into the connection's own 2 KiB, and for chunked bodies;
                                         // grows up to limits.head_bytes_max for a large head, and goes when the connection is idle
  Duration header_timeout = std::chrono::seconds(15);       // from the first byte of a head to its end
  Duration idle_timeout = std::chrono::seconds(120);        // between requests
  Duration body_stall_timeout = std::chrono::seconds(30);   // no byte of a body
  Duration write_stall_timeout = std::chrono::seconds(30);  // per 256 KiB that the peer does not take
  Duration tls_handshake_timeout = std::chrono::seconds(10);
  uint64_t drain_body_bytes_max = 256 * 1024;  // an unread request body of at most this is read and dropped to keep the connection
  // When a connection is closed under a peer that still sends, its bytes are dropped for a while, so that it can read the answer.
  Duration linger_timeout = std::chrono::seconds(3);
  uint64_t linger_bytes_max = 64 << 20;
  Duration http2_late_body_grace = std::chrono::seconds(1);  // the same for one stream, before it is reset
  std::string server_header = "Quarry";                      // empty: none
  const Clock* clock = nullptr;                              // for Date; null: the system's
  bool enable_http2 = true;
  uint32_t http2_streams_max = 128;
  uint32_t http2_stream_window_bytes = 4 << 20;
  uint32_t http2_connection_window_bytes = 64 << 20;
  // 16 KiB is what h2spec and nghttp2-based clients expect; a larger setting helps only clients that use it; see README.
  uint32_t http2_frame_bytes_max = 16 << 10;
};

// One request and its answer. Lives until the handler's task ends.
struct HttpExchange {
  const RequestHead& request;
  const SocketAddress& peer;
  bool is_tls;
  BodyReader& body;
  ResponseWriter& response;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Answers the request. Runs on the server's executor; for HTTP/2 several run at once on a connection. Returning without send_head is
  // answered with 500; returning after send_head without finish aborts the connection (or stream).
  virtual Task<void> handle(HttpExchange& exchange) = 0;
  // The body of an answer that the server gives by itself (400, 408, 431, 500, 501, 503, 505), and its content type.
  virtual std::pair<std::string, std::string> error_body(int status) { return {"text/plain", ""}; }
};

// Makes a TLS stream out of an accepted one (handshake included): io/tls.h. Runs in the connection's own task, so that a slow handshake
// delays nobody else.
using TlsAcceptor = std::function<Task<Result<std::unique_ptr<Stream>>>(std::unique_ptr<Stream> stream, TimePoint deadline)>;

struct HttpServerStats {
  uint64_t connections_accepted = 0;
  uint64_t connections_open = 0;
  uint64_t requests = 0;
  uint64_t requests_active = 0;
};

class HttpServer {
 public:
  // handler outlives the server.
  HttpServer(HttpHandler& handler, HttpServerOptions options);
  ~HttpServer();  // CHECKs that stop() has completed

  // Accepts from listener until stop(). May be called for several listeners.
  void start(std::unique_ptr<Listener> listener, TlsAcceptor tls = {});
  // Serves one connection that is already there (tests; a TLS listener's streams). Same life as accepted ones.
  void serve(std::unique_ptr<Stream> stream);
  // Stops accepting, closes idle connections at once, lets accepted requests finish until the deadline, then cuts them. Completes when
  // nothing is left.
  Task<void> stop(TimePoint deadline);
  HttpServerStats stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quarry
