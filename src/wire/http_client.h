// HTTP/1.1 client with a bounded pool of kept connections. For the command line, load generators, node-to-node calls and tests.
// Confined to its executor.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "io/network.h"
#include "wire/body.h"
#include "wire/http1_parser.h"
#include "wire/uri.h"

namespace quarry {

// Wraps a connected stream in TLS as a client: io/tls.h, or anything else.
using TlsWrapper =
    std::function<Task<Result<std::unique_ptr<Stream>>>(std::unique_ptr<Stream> stream, std::string host, TimePoint deadline)>;

struct HttpClientOptions {
  size_t connections_max = 256;                      // in use at once, all hosts together; further requests wait their turn
  size_t idle_connections_max = 64;                  // kept beside them
  Duration idle_timeout = std::chrono::seconds(20);  // a kept connection older than this is not used again
  Duration connect_timeout = std::chrono::seconds(10);
  Duration stall_timeout = std::chrono::seconds(60);  // without any progress in either direction
  Http1Limits limits;
  TlsWrapper tls;  // needed for https
};

struct ClientRequest {
  std::string method = "GET";
  std::string target = "/";       // raw, sent as it is
  HeaderBlock headers;            // without Host, Content-Length and Transfer-Encoding, unless Host is to differ from the URL's
  std::vector<SharedBytes> body;  // or:
  BodySource* source = nullptr;   // outlives send(); chunked unless source_length is known
  std::optional<uint64_t> source_length;
  bool expect_continue = false;      // sends the body only when the server asks for it (or after 1 s)
  TimePoint deadline = kNoDeadline;  // until the response head has arrived
  Duration patience{};               // if not zero: so long, instead of stall_timeout, the server may work before its head arrives
};

// A response whose head has arrived. Destroying it with the body read to the end returns the connection to the pool, else closes it.
class ClientResponse {
 public:
  ~ClientResponse();
  int status() const;
  const ClientResponseHead& head() const;
  std::string_view header(std::string_view name) const;  // empty when absent
  BodyReader& body();
  Task<Result<std::string>> text(size_t max = 64 * kMiB) { return body().read_all(max); }

 private:
  friend class HttpClient;
  struct State;
  explicit ClientResponse(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class HttpClient {
 public:
  HttpClient(Network& network, HttpClientOptions options);
  ~HttpClient();  // responses must be gone

  // Sends the request to url's host (url.path is not used) and completes when the final response head is there (1xx are consumed).
  // A kept connection that the server closed meanwhile is replaced once, if nothing of the response had arrived and the request may be sent
  // again: an idempotent method, no If- header, a body of parts, not a source.
  // Errors: unavailable (cannot connect), timed_out, connection_closed, malformed (bad response), misconfigured (https without a wrapper).
  Task<Result<std::unique_ptr<ClientResponse>>> send(Url url, ClientRequest request);
  // Convenience: sends, and reads the whole answer.
  struct Answer {
    int status = 0;
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string_view header(std::string_view name) const;
  };
  Task<Result<Answer>> call(Url url, ClientRequest request, size_t body_max = 64 * kMiB);
  void close_idle();

 private:
  friend struct ClientResponse::State;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace quarry
