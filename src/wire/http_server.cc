#include "wire/http_server.h"

#include <list>

#include "base/log.h"
#include "wire/http_connection.h"

namespace quarry {

void HttpServing::refresh() {
  const Clock& clock = options.clock != nullptr ? *options.clock : system_clock();
  const int64_t second = clock.wall_now() / 1'000'000'000;
  if (second == second_) return;
  second_ = second;
  date_ = http_date(second);
  common_ = fmt::format("Date: {}\r\n", date_);
  if (!options.server_header.empty()) common_ += fmt::format("Server: {}\r\n", options.server_header);
}
std::string_view HttpServing::common_headers() {
  refresh();
  return common_;
}
std::string_view HttpServing::date_value() {
  refresh();
  return date_;
}

ResponseHead server_error_head(HttpServing& serving, int status, std::string& body) {
  ResponseHead head;
  head.status = status;
  auto [type, text] = serving.handler.error_body(status);
  body = std::move(text);
  if (!body.empty()) head.headers.add("Content-Type", type);
  return head;
}

namespace {

// A stream that can be closed while somebody else owns it. `self` points to it for as long as it lives.
class ReachableStream final : public Stream {
 public:
  ReachableStream(std::unique_ptr<Stream> inner, std::shared_ptr<Stream*> self) : inner_(std::move(inner)), self_(std::move(self)) {
    *self_ = this;
  }
  ~ReachableStream() override { *self_ = nullptr; }
  Task<Result<size_t>> read(MutableByteView into, TimePoint deadline) override { return inner_->read(into, deadline); }
  Task<Result<void>> wait_readable(TimePoint deadline) override { return inner_->wait_readable(deadline); }
  Task<Result<void>> write(std::vector<ByteView> parts, TimePoint deadline) override { return inner_->write(std::move(parts), deadline); }
  Task<Result<void>> shutdown_write() override { return inner_->shutdown_write(); }
  void close() override { inner_->close(); }
  const SocketAddress& peer() const override { return inner_->peer(); }
  std::string_view alpn() const override { return inner_->alpn(); }
  bool is_tls() const override { return inner_->is_tls(); }
  std::string_view peer_certificate_subject() const override { return inner_->peer_certificate_subject(); }

 private:
  std::unique_ptr<Stream> inner_;
  std::shared_ptr<Stream*> self_;
};

}  // namespace

struct HttpServer::State {
  HttpServing serving;
  Executor& executor = Executor::here();
  std::vector<std::unique_ptr<Listener>> listeners;
  std::list<HttpConnectionControl> connections;
  Event changed;  // pulsed when a connection ends
  TaskGroup tasks;
  bool stopped = false;

  State(HttpHandler& handler, HttpServerOptions options) : serving(handler, std::move(options)) {}

  static Task<void> accept_loop(State& state, Listener& listener, TlsAcceptor tls);
  static Task<void> serve(State& state, std::unique_ptr<Stream> stream, TlsAcceptor tls);
};

Task<void> HttpServer::State::accept_loop(State& state, Listener& listener, TlsAcceptor tls) {
  while (!state.serving.stopping) {
    if (state.serving.stats.connections_open >= state.serving.options.connections_max) {
      co_await state.changed.wait();
      continue;
    }
    auto accepted = co_await listener.accept();
    if (accepted && state.serving.stopping) break;
    if (!accepted) {
      if (state.serving.stopping || accepted.error().code() == Code::cancelled) break;
      // Out of files or memory, or a connection that died in the queue: others may still get through.
      LOG_WARNING("accept failed", {"port", listener.address().port}, {"error", accepted.error().to_string()});
      co_await sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    ++state.serving.stats.connections_accepted;
    state.tasks.spawn(serve(state, std::move(*accepted), tls));
  }
}

Task<void> HttpServer::State::serve(State& state, std::unique_ptr<Stream> stream, TlsAcceptor tls) {
  HttpServing& serving = state.serving;
  ++serving.stats.connections_open;
  const auto control = state.connections.emplace(state.connections.end());
  if (tls) {
    // During the handshake the acceptor owns the stream; nothing has been accepted yet, so stop() may cut it.
    control->handshake = std::make_shared<Stream*>(nullptr);
    std::unique_ptr<Stream> reachable = std::make_unique<ReachableStream>(std::move(stream), control->handshake);
    auto secured = co_await tls(std::move(reachable), state.executor.now() + serving.options.tls_handshake_timeout);
    stream = secured ? std::move(*secured) : nullptr;
    control->handshake.reset();
  }
  if (stream != nullptr && !serving.stopping) {
    control->stream = stream.get();
    std::string received;
    bool http2 = stream->alpn() == "h2" && serving.options.enable_http2;
    if (!http2) {
      const Http1End end = co_await serve_http1(serving, *stream, *control, received);
      http2 = end == Http1End::upgrade_to_http2;
    }
    if (http2) co_await serve_http2(serving, *stream, *control, std::move(received));
    stream->close();
  }
  state.connections.erase(control);
  --serving.stats.connections_open;
  state.changed.pulse();
}

HttpServer::HttpServer(HttpHandler& handler, HttpServerOptions options) : state_(std::make_unique<State>(handler, std::move(options))) {}
HttpServer::~HttpServer() { CHECK(state_->tasks.running() == 0, "an HttpServer dies before stop() has completed"); }

void HttpServer::start(std::unique_ptr<Listener> listener, TlsAcceptor tls) {
  CHECK(!state_->serving.stopping);
  state_->listeners.push_back(std::move(listener));
  state_->tasks.spawn(State::accept_loop(*state_, *state_->listeners.back(), std::move(tls)));
}

void HttpServer::serve(std::unique_ptr<Stream> stream) {
  CHECK(!state_->serving.stopping);
  ++state_->serving.stats.connections_accepted;
  state_->tasks.spawn(State::serve(*state_, std::move(stream), {}));
}

Task<void> HttpServer::stop(TimePoint deadline) {
  State& state = *state_;
  state.serving.stopping = true;
  for (auto& listener : state.listeners) listener->close();
  for (auto& control : state.connections) {
    if (control.drain) {
      control.drain();
    } else if (control.idle) {
      control.stream->close();
    } else if (control.handshake != nullptr && *control.handshake != nullptr) {
      (*control.handshake)->close();
    }
  }
  state.changed.pulse();  // an acceptor may wait for room
  while (state.serving.stats.connections_open > 0) {
    const bool in_time = co_await state.changed.wait_until(deadline);
    if (!in_time && state.executor.now() >= deadline) break;
  }
  for (auto& control : state.connections) {
    if (control.stream != nullptr) control.stream->close();
  }
  co_await state.tasks.join();
  state.listeners.clear();
}

HttpServerStats HttpServer::stats() const { return state_->serving.stats; }

}  // namespace quarry
