#include "cli/session.h"

#include <fstream>

#include "cli/hints.h"
#include "cli/terminal.h"
#include "daemon/node.h"
#include "io/ring_executor.h"
#include "io/thread_pool.h"
#include "io/tls.h"
#include "io/uring_network.h"

namespace quarry::cli {
namespace {

std::string environment(const char* first, const char* second = nullptr) {
  if (const char* value = std::getenv(first)) return value;
  if (second != nullptr) {
    if (const char* value = std::getenv(second)) return value;
  }
  return {};
}

}  // namespace

std::string root_directory(const std::string& given) {
  if (!given.empty()) return given;
  const std::string set = environment("QUARRY_ROOT");
  if (!set.empty()) return set;
  const std::string home = environment("HOME");
  return (home.empty() ? std::string(".") : home) + "/.quarry";
}

Result<client::Endpoints> resolve_endpoints(const Target& target) {
  client::Endpoints endpoints;
  const bool explicit_address = !target.s3.empty() || !target.admin.empty();
  if (!explicit_address || target.access_key.empty()) {
    auto known = client::read_endpoints(root_directory(target.root));
    if (known) {
      endpoints = std::move(*known);
    } else if (!explicit_address) {
      return std::move(known).error();
    }
  }
  if (!target.s3.empty()) endpoints.s3 = target.s3;
  if (!target.admin.empty()) endpoints.admin = target.admin;
  if (!target.region.empty()) endpoints.region = target.region;
  const std::string access_key =
      !target.access_key.empty() ? target.access_key : environment("QUARRY_ACCESS_KEY", explicit_address ? "AWS_ACCESS_KEY_ID" : nullptr);
  std::string secret_key = environment("QUARRY_SECRET_KEY", explicit_address ? "AWS_SECRET_ACCESS_KEY" : nullptr);
  if (!target.secret_key_file.empty()) {
    std::ifstream file(target.secret_key_file);
    if (!std::getline(file, secret_key)) return fail(Code::not_found, "{} cannot be read", target.secret_key_file);
  }
  if (!access_key.empty()) endpoints.access_key = access_key;
  if (!secret_key.empty()) endpoints.secret_key = secret_key;
  if (endpoints.access_key.empty() || endpoints.secret_key.empty()) {
    return fail(Code::unauthenticated, "no keys: give --root, or --access-key with --secret-key-file (or $QUARRY_SECRET_KEY)");
  }
  return endpoints;
}

int with_session(const Target& target, std::function<Task<Result<void>>(Session&)> work) {
  auto endpoints = resolve_endpoints(target);
  if (!endpoints) return print_error(endpoints.error().to_string());
  auto executor = RingExecutor::create();
  if (!executor) return print_error(executor.error().to_string());

  HttpClientOptions options;
  std::unique_ptr<TlsClientContext> tls;
  if (endpoints->s3.starts_with("https:") || endpoints->admin.starts_with("https:")) {
    std::string ca_file = target.ca_file;
    if (ca_file.empty() && target.s3.empty() && target.admin.empty()) ca_file = root_directory(target.root) + "/tls/certificate.pem";
    TlsClientContext::Options tls_options;
    if (std::ifstream file(ca_file); !ca_file.empty() && file) {
      tls_options.ca_pem.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    } else if (!target.ca_file.empty()) {
      return print_error(fmt::format("{} cannot be read", ca_file));
    }
    auto context = TlsClientContext::create(std::move(tls_options));
    if (!context) return print_error(context.error().to_string());
    tls = std::move(*context);
    options.tls = [&tls](std::unique_ptr<Stream> stream, std::string host, TimePoint deadline) {
      return tls_connect(std::move(stream), *tls, std::move(host), deadline);
    };
  }
  ThreadPool pool("files", 4);
  const auto run = [&]() -> Result<void> {
    return (*executor)->run([](const client::Endpoints* at, const HttpClientOptions* http_options, BlockingPool* files,
                               std::function<Task<Result<void>>(Session&)>* body) -> Task<Result<void>> {
      auto network = std::make_unique<UringNetwork>();
      HttpClient http(*network, *http_options);
      client::S3Client s3(http, {at->s3, {at->access_key, at->secret_key}, at->region}, system_clock());
      client::AdminClient admin(http, at->admin, {at->access_key, at->secret_key}, at->region, system_clock());
      Session session{*at, http, s3, admin, *files};
      Task<Result<void>> task = (*body)(session);
      Result<void> result = co_await std::move(task);
      http.close_idle();
      co_return result;
    }(&*endpoints, &options, &pool, &work));
  };
  const Result<void> result = run();
  if (result) return 0;
  print_error(with_root(result.error().to_string(), target.root));
  const std::string root = root_directory(target.root);
  const bool local = target.s3.empty() && target.admin.empty();
  if (result.error().code() == Code::unavailable && local && !daemon::node_is_running(root))
    fmt::print(stderr, "  the node is not running; to start it: `quarry up --root {}`\n", root);
  return 1;
}

Result<std::pair<std::string, std::string>> split_path(std::string_view path) {
  if (path.starts_with("s3://")) path.remove_prefix(5);
  const size_t slash = std::min(path.find('/'), path.size());
  const std::string bucket(path.substr(0, slash));
  if (bucket.empty()) return fail(Code::invalid_argument, "'{}' names no bucket: write BUCKET/KEY", path);
  return std::pair(bucket, std::string(slash < path.size() ? path.substr(slash + 1) : ""));
}

}  // namespace quarry::cli
