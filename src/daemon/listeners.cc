#include "daemon/listeners.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/log.h"
#include "io/tls.h"
#include "io/uring_network.h"

namespace quarry::daemon {
namespace {

// Connections of clients take at most half of the descriptors: drives, the index and the admin listener always find some.
HttpServerOptions s3_options(size_t loops) {
  HttpServerOptions options;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    options.connections_max = std::clamp<size_t>(limit.rlim_cur / 2 / loops, 4, options.connections_max);
  return options;
}

// What one loop serves.
struct Loop {
  RingExecutor* executor = nullptr;
  std::unique_ptr<UringNetwork> network;
  std::unique_ptr<HttpServer> s3, admin;
};

class RunningListeners : public Listeners {
 public:
  Result<void> begin(ExecutorPool& loops, const NodeConfig& config, HttpHandler& s3, HttpHandler& admin) {
    config_ = config;
    loops_count_ = loops.size();
    s3_address_ = config.s3;
    admin_address_ = config.admin;
    if (config.tls) {
      TRY_ASSIGN(const auto own, identity());
      TRY_ASSIGN(tls_, TlsServerContext::create(own, {}));
    }
    for (size_t i = 0; i < loops.size(); ++i) {
      loops_.push_back(std::make_unique<Loop>());
      Loop& loop = *loops_.back();
      loop.executor = &loops.executor(i);
      TRY(wait_on(*loop.executor, start_loop(loop, s3, i == 0 ? &admin : nullptr)));
    }
    return {};
  }

  SocketAddress s3_address() const override { return s3_address_; }
  SocketAddress admin_address() const override { return admin_address_; }

  Result<void> reload_certificate() override {
    if (!tls_) return {};
    TRY_ASSIGN(const auto own, identity());
    return tls_->reload(own);
  }

  void stop(Duration drain) override {
    std::vector<std::thread> waiters;
    for (auto& loop : loops_) {
      waiters.emplace_back([&loop, drain] { wait_on(*loop->executor, stop_loop(*loop, drain)); });
    }
    for (auto& waiter : waiters) waiter.join();
    loops_.clear();
  }

 private:
  // The identity the configuration names, or a self-signed one kept under root/tls.
  Result<TlsIdentity> identity() const {
    if (!config_.tls_certificate.empty()) return load_tls_identity(config_.tls_certificate, config_.tls_key);
    namespace fs = std::filesystem;
    const fs::path directory = fs::path(config_.root) / "tls", certificate = directory / "certificate.pem", key = directory / "key.pem";
    std::error_code error;
    if (fs::exists(certificate, error) && fs::exists(key, error)) return load_tls_identity(certificate, key);
    fs::create_directories(directory, error);
    if (error) return fail(Code::io_error, "{}: {}", directory.string(), error.message());
    std::vector<std::string> names = {"localhost", "127.0.0.1", "::1"};
    for (const auto& host : {config_.s3.host, config_.admin.host}) {
      if (host != "0.0.0.0" && host != "::" && std::find(names.begin(), names.end(), host) == names.end()) names.push_back(host);
    }
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) == 0 && name[0] != 0) names.emplace_back(name);
    TRY_ASSIGN(auto made, make_self_signed_identity(names));
    TRY(write_private(key, made.key_pem));
    TRY(write_private(certificate, made.certificate_pem));
    return made;
  }

  static Result<void> write_private(const std::filesystem::path& path, const std::string& text) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return errno_error(errno, path.string());
    const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
    const int error = errno;
    ::close(fd);
    if (!written) return errno_error(error, path.string());
    return {};
  }

  Result<void> serve(Loop& loop, HttpServer& server, SocketAddress& address, bool reuse_port) {
    TRY_ASSIGN(auto listener, loop.network->listen(address, reuse_port));
    address.port = listener->address().port;
    if (!tls_) {
      server.start(std::move(listener));
      return {};
    }
    TlsServerContext& context = *tls_;
    server.start(std::move(listener), [&context](std::unique_ptr<Stream> stream, TimePoint deadline) {
      return tls_accept(std::move(stream), context, deadline);
    });
    return {};
  }

  Task<Result<void>> start_loop(Loop& loop, HttpHandler& s3, HttpHandler* admin) {
    loop.network = std::make_unique<UringNetwork>();
    loop.s3 = std::make_unique<HttpServer>(s3, s3_options(loops_count_));
    CO_TRY(serve(loop, *loop.s3, s3_address_, true));
    if (admin != nullptr) {
      loop.admin = std::make_unique<HttpServer>(*admin, HttpServerOptions{});
      CO_TRY(serve(loop, *loop.admin, admin_address_, false));
    }
    co_return Result<void>();
  }

  static Task<void> stop_loop(Loop& loop, Duration drain) {
    const TimePoint deadline = Executor::here().now() + drain;
    if (loop.s3) co_await loop.s3->stop(deadline);
    if (loop.admin) co_await loop.admin->stop(deadline);
    loop.s3.reset();
    loop.admin.reset();
    loop.network.reset();
  }

  NodeConfig config_;
  size_t loops_count_ = 1;
  SocketAddress s3_address_, admin_address_;
  std::unique_ptr<TlsServerContext> tls_;
  std::vector<std::unique_ptr<Loop>> loops_;
};

}  // namespace

Result<std::unique_ptr<Listeners>> Listeners::open(ExecutorPool& loops, const NodeConfig& config, HttpHandler& s3, HttpHandler& admin) {
  auto listeners = std::make_unique<RunningListeners>();
  Result<void> begun = listeners->begin(loops, config, s3, admin);
  if (!begun) {
    listeners->stop(std::chrono::seconds(0));
    return std::move(begun).error();
  }
  std::unique_ptr<Listeners> open = std::move(listeners);
  return open;
}

}  // namespace quarry::daemon
