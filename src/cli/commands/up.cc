// quarry up, quarry server: a node in the foreground until SIGTERM or SIGINT.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "cli/hints.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "daemon/node.h"

namespace quarry::cli {
namespace {

Result<daemon::NodeConfig> config_of(const UpOptions& options) {
  if (!options.config.empty()) {
    TRY_ASSIGN(auto config, daemon::read_config_file(options.config));
    config.accept_loss = options.accept_loss;
    return config;
  }
  daemon::NodeConfig config;
  config.root = root_directory(options.root);
  TRY_ASSIGN(config.s3, SocketAddress::parse(options.s3));
  TRY_ASSIGN(config.admin, SocketAddress::parse(options.admin));
  config.devices = options.devices;
  if (!options.devices.empty() && options.drives_given) {
    return fail(Code::invalid_argument, "--device takes the place of --drives and --drive-size: give one or the other");
  }
  config.drives = options.drives;
  TRY_ASSIGN(config.drive_bytes, parse_size(options.drive_size));
  config.profile = options.profile;
  config.tls = options.tls;
  config.tls_certificate = options.tls_certificate;
  config.tls_key = options.tls_key;
  if (options.cache_size != "auto") {
    TRY_ASSIGN(config.cache_bytes, parse_size(options.cache_size));
  }
  config.cores = options.cores;
  config.force_format = options.force;
  config.accept_loss = options.accept_loss;
  TRY_ASSIGN(config.log_level, daemon::parse_log_level(options.log_level));
  TRY(config.validate());
  return config;
}

}  // namespace

int run_up(const UpOptions& options) {
  auto config = config_of(options);
  if (!config) return print_error(config.error().to_string());
  set_log_level(config->log_level);

  // Blocked before any thread starts, so that only sigwait below sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const std::string root = config->root;
  auto node = daemon::Node::start(std::move(*config));
  if (!node) {
    print_error(with_root(node.error().to_string(), root));
    if (node.error().context().find("--accept-loss") != std::string::npos) {
      const std::string how =
          options.config.empty() ? fmt::format("quarry up --root {}", root) : fmt::format("quarry server --config {}", options.config);
      fmt::print(stderr, "  to go on without them, and give up what only they hold: `{} --accept-loss`\n", how);
    }
    return 1;
  }
  if (options.json) {
    const auto& at = (*node)->endpoints();
    JsonWriter json;
    json.begin_object().field("s3", at.s3).field("admin", at.admin).field("access_key", at.access_key).end_object();
    fmt::print("{}\n", json.str());
  } else {
    fmt::print("{}", (*node)->summary());
  }
  std::fflush(stdout);

  int received = 0;
  for (;;) {
    sigwait(&signals, &received);
    if (received != SIGHUP) break;
    const Result<void> reloaded = (*node)->reload_certificate();
    if (reloaded) {
      LOG_INFO("certificate read again");
    } else {
      LOG_ERROR("the certificate cannot be read; the old one stays", {"error", reloaded.error().to_string()});
    }
  }
  LOG_INFO("stopping", {"signal", received});
  const Result<void> stopped = (*node)->stop();
  if ((*node)->hangs()) {
    std::fflush(nullptr);
    _exit(stopped ? 0 : print_error(stopped.error().to_string()));
  }
  return stopped ? 0 : print_error(stopped.error().to_string());
}

}  // namespace quarry::cli
