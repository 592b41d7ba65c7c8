// HTTP server core over the ring, on loopback: requests and bytes per CPU-second of the server's thread.
//   http_bench [seconds]      small GETs, 10 MiB GETs and PUTs on 32 connections; one line each
//   http_bench serve PORT     only the server, for h2spec, h2load, wrk, curl; ends with standard input
//   http_bench serve-tls PORT the same over TLS 1.3 with a certificate of its own making
// Handler: GET /N answers N bytes, PUT reads the body into one 1 MiB buffer and drops it.
#include <pthread.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <thread>

#include "io/ring_executor.h"
#include "io/tls.h"
#include "io/uring_network.h"
#include "loop_steps.h"
#include "wire/http_server.h"

namespace quarry {
namespace {

class BenchHandler final : public HttpHandler {
 public:
  BenchHandler() : block_(make_block()) {}

  Task<void> handle(HttpExchange& exchange) override {
    if (exchange.request.has_body()) {
      if (!scratch_.data()) scratch_ = Buffer(1 << 20);
      for (;;) {
        const auto got = co_await exchange.body.read_into(scratch_.mutable_view());
        if (!got) co_return;
        if (*got < scratch_.size()) break;
      }
      (co_await exchange.response.respond({}, "")).ignore("a client that left");
      co_return;
    }
    uint64_t size = 128;
    const std::string_view path = exchange.request.path;
    std::from_chars(path.data() + 1, path.data() + path.size(), size);
    ResponseHead head;
    head.headers.add("Content-Type", "application/octet-stream").add("ETag", "\"900150983cd24fb0d6963f7d28e17f72\"");
    head.content_length = size;
    (co_await exchange.response.send_head(std::move(head))).ignore("a client that left");
    for (uint64_t left = size; left > 0;) {
      const auto part = static_cast<size_t>(std::min<uint64_t>(left, block_.size()));
      const auto sent = co_await exchange.response.write(block_.slice(0, part));
      if (!sent) co_return;
      left -= part;
    }
    (co_await exchange.response.finish()).ignore("a client that left");
  }

 private:
  static SharedBytes make_block() {
    Buffer buffer(1 << 20);
    std::memset(buffer.data(), 'q', buffer.size());
    return SharedBytes(std::move(buffer));
  }
  SharedBytes block_;
  Buffer scratch_;
};

double thread_cpu_seconds(pthread_t thread) {
  clockid_t clock;
  timespec time{};
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

struct Load {
  SocketAddress address;
  std::string request;  // head
  uint64_t request_body = 0;
  uint64_t answer_body = 0;
  TimePoint until{};
  uint64_t requests = 0;
  uint64_t failures = 0;
};

// One connection: request after request. Answers are counted, not parsed: their size is known after the first.
Task<void> client(Network& network, Load& load, Buffer& buffer) {
  auto stream = co_await network.connect(load.address, kNoDeadline);
  if (!stream) {
    ++load.failures;
    co_return;
  }
  uint64_t answer_bytes = 0;
  while (Executor::here().now() < load.until) {
    std::vector<ByteView> parts{bytes_of(load.request)};
    for (uint64_t left = load.request_body; left > 0;) {
      const auto part = static_cast<size_t>(std::min<uint64_t>(left, buffer.size()));
      parts.push_back(buffer.view().first(part));
      left -= part;
    }
    const auto sent = co_await (*stream)->write(std::move(parts), kNoDeadline);
    if (!sent) break;
    uint64_t got = 0;
    while (answer_bytes == 0 || got < answer_bytes) {
      const auto n = co_await (*stream)->read(buffer.mutable_view(), kNoDeadline);
      if (!n || *n == 0) {
        ++load.failures;
        co_return;
      }
      if (answer_bytes == 0) {
        const size_t head = text_of(buffer.view().first(*n)).find("\r\n\r\n");
        if (head != std::string_view::npos) answer_bytes = head + 4 + load.answer_body;
      }
      got += *n;
    }
    ++load.requests;
  }
  (*stream)->close();
}

Task<void> clients(Network& network, Load& load, size_t connections, Duration duration) {
  load.until = Executor::here().now() + duration;
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < connections; ++i) buffers.emplace_back(size_t{1} << 20);
  TaskGroup group;
  for (size_t i = 0; i < connections; ++i) group.spawn(client(network, load, buffers[i]));
  co_await group.join();
}

struct Served {
  BenchHandler handler;
  UringNetwork network;
  std::unique_ptr<HttpServer> server;
  SocketAddress address;

  std::unique_ptr<TlsServerContext> tls;

  Task<void> start(uint16_t port, bool with_tls) {
    TlsAcceptor acceptor;
    if (with_tls) {
      const auto identity = make_self_signed_identity({"localhost", "127.0.0.1"});
      CHECK(identity.has_value());
      tls = std::move(*TlsServerContext::create(*identity, {}));
      acceptor = [context = tls.get()](std::unique_ptr<Stream> stream, TimePoint deadline) {
        return tls_accept(std::move(stream), *context, deadline);
      };
    }
    server = std::make_unique<HttpServer>(handler, HttpServerOptions());
    auto listener = network.listen({"127.0.0.1", port}, false);
    if (!listener) {
      std::fprintf(stderr, "%s\n", listener.error().to_string().c_str());
      std::exit(1);
    }
    address = (*listener)->address();
    server->start(std::move(*listener), std::move(acceptor));
    co_return;
  }
  Task<void> stop() { co_await server->stop(Executor::here().now() + std::chrono::seconds(1)); }
};

Task<pthread_t> my_thread() { co_return pthread_self(); }

int run(int argc, char** argv) {
  auto pool = ExecutorPool::start({.name = "server", .threads = 1});
  auto load_pool = ExecutorPool::start({.name = "load", .threads = 1});
  if (!pool || !load_pool) {
    std::fprintf(stderr, "%s\n", (!pool ? pool.error() : load_pool.error()).to_string().c_str());
    return 1;
  }
  auto& server_loop = (*pool)->executor(0);
  auto& load_loop = (*load_pool)->executor(0);
  Served served;
  const bool with_tls = argc == 3 && std::string_view(argv[1]) == "serve-tls";
  const bool only_serve = with_tls || (argc == 3 && std::string_view(argv[1]) == "serve");
  wait_on(server_loop, served.start(only_serve ? static_cast<uint16_t>(std::atoi(argv[2])) : 0, with_tls));
  if (only_serve) {
    std::printf("port %u\n", served.address.port);
    std::fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
  } else {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 2;
    const pthread_t thread = wait_on(server_loop, my_thread());
    UringNetwork network;
    constexpr uint64_t kBody = 10 << 20;
    const struct {
      const char* name;
      const char* head;
      uint64_t up, down;
      size_t connections;
    } cases[] = {
        {"small GET", "GET /128 HTTP/1.1\r\nHost: 127.0.0.1:9000\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", 0, 128, 32},
        {"10 MiB GET", "GET /10485760 HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\r\n", 0, kBody, 8},
        {"10 MiB PUT", "PUT /x HTTP/1.1\r\nHost: 127.0.0.1:9000\r\nContent-Length: 10485760\r\n\r\n", kBody, 0, 8},
    };
    for (const auto& c : cases) {
      Load load;
      load.address = served.address;
      load.request = c.head;
      load.request_body = c.up;
      load.answer_body = c.down;
      const double cpu = thread_cpu_seconds(thread);
      const auto start = std::chrono::steady_clock::now();
      wait_on(load_loop,
              clients(network, load, c.connections, std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds))));
      const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const double used = thread_cpu_seconds(thread) - cpu;
      const auto requests = static_cast<double>(load.requests);
      const double gib = requests * static_cast<double>(c.up + c.down) / static_cast<double>(kGiB);
      std::printf("%-12s %8.0f requests/s  %8.0f requests/CPU-s  %6.2f GiB/CPU-s  (server %.2f CPU-s in %.2f s, failures %llu)\n", c.name,
                  requests / wall, requests / used, gib / used, used, wall, static_cast<unsigned long long>(load.failures));
    }
  }
  wait_on(server_loop, served.stop());
  (*load_pool)->stop();
  (*pool)->stop();
  return 0;
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) { return quarry::status_with_loop_steps(quarry::run(argc, argv)); }
