// An S3 server that keeps everything in memory: the real front end, object engine and network over the memory twins. For conformance suites
// while the front end is worked on, and for measuring the front end alone. Ends at SIGTERM or SIGINT.
//   s3_memory_server [PORT] [ACCESS_KEY SECRET_KEY]
#include <csignal>
#include <cstdio>

#include "base/log.h"
#include "frontends/s3/s3_server.h"
#include "io/ring_executor.h"
#include "io/uring_network.h"
#include "meta/memory/memory_meta_store.h"
#include "object/make_object_engine.h"
#include "object/testing/memory_data_plane.h"

namespace quarry {
namespace {

volatile std::sig_atomic_t stop_requested = 0;

// Prints the heads of requests, for looking at what clients send: S3_MEMORY_SERVER_TRACE=1.
class Tracer : public HttpHandler {
 public:
  explicit Tracer(HttpHandler& inner) : inner_(inner) {}
  Task<void> handle(HttpExchange& exchange) override {
    std::string text = fmt::format("{} {}\n", exchange.request.method, exchange.request.target);
    for (const auto& field : exchange.request.headers) text += fmt::format("  {}: {}\n", field.name, field.value);
    std::fputs(text.c_str(), stdout);
    return inner_.handle(exchange);
  }

 private:
  HttpHandler& inner_;
};

Task<Result<void>> make_user(auth::IdentityStore& identities, std::string name, bool administrator, std::string access_key,
                             std::string secret_key) {
  CO_TRY(co_await identities.create_user(name, administrator));
  CO_TRY(co_await identities.create_key(name, std::move(access_key), std::move(secret_key)));
  co_return Result<void>();
}

Task<int> serve(RingExecutor& executor, uint16_t port, std::string access_key, std::string secret_key) {
  auto store = meta::MemoryMetaStore::create({});
  object::MemoryDataPlane data(*store);
  auto engine = object::make_object_engine({.meta = *store, .data = data, .clock = system_clock(), .random = system_random()});
  auto identities = auth::make_identity_store(*store, std::string(32, 'k'), system_clock(), system_random());
  auto admin = co_await make_user(*identities, "admin", true, access_key, secret_key);
  auto other = co_await make_user(*identities, "other", false, "other-access", "other-secret-key");
  if (!admin || !other) co_return 1;
  {
    frontends::s3::S3Options options;
    options.virtual_hosts = {"s3.localhost"};
    frontends::s3::S3Server s3(*engine, *identities, system_clock(), options);
    UringNetwork network;
    Tracer tracer(s3);
    const bool trace = std::getenv("S3_MEMORY_SERVER_TRACE") != nullptr;
    HttpServer server(trace ? static_cast<HttpHandler&>(tracer) : s3, HttpServerOptions{});
    auto listener = network.listen({"127.0.0.1", port}, false);
    if (!listener) {
      std::fprintf(stderr, "%s\n", listener.error().to_string().c_str());
      co_return 1;
    }
    std::printf("http://%s %s %s\n", (*listener)->address().to_string().c_str(), access_key.c_str(), secret_key.c_str());
    std::fflush(stdout);
    server.start(std::move(*listener));
    while (stop_requested == 0) co_await sleep_for(std::chrono::milliseconds(100));
    co_await server.stop(executor.now() + std::chrono::seconds(2));
  }
  co_return 0;
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) {
  std::signal(SIGTERM, [](int) { quarry::stop_requested = 1; });
  std::signal(SIGINT, [](int) { quarry::stop_requested = 1; });
  std::signal(SIGPIPE, SIG_IGN);
  const auto port = static_cast<uint16_t>(argc > 1 ? std::atoi(argv[1]) : 0);
  auto executor = quarry::RingExecutor::create();
  if (!executor) {
    std::fprintf(stderr, "%s\n", executor.error().to_string().c_str());
    return 1;
  }
  return (*executor)->run(quarry::serve(**executor, port, argc > 3 ? argv[2] : "quarry-access", argc > 3 ? argv[3] : "quarry-secret-key"));
}
