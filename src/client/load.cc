#include "client/load.h"

#include <sys/resource.h>

#include "auth/sigv4.h"
#include "codec/digest.h"
#include "io/ring_executor.h"
#include "io/uring_network.h"
#include "wire/json.h"

namespace quarry::client {
namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Worker {
  const LoadOptions& options;
  Url url;
  std::vector<SharedBytes> bodies;  // a few, taken in turn
  std::vector<std::string> body_hashes;
  std::atomic<uint64_t>& next_name;
  std::vector<uint64_t> latencies_ns;  // of this loop
  LoadResult result;
  auth::SigningCredentials credentials{};
  std::string key_date;
  Sha256Bytes key{};

  std::string name_of(uint64_t number) const { return fmt::format("bench/{:03}/{:08}", number % 997, number); }

  ClientRequest request(std::string_view method, const std::string& path, const std::string& query, const SharedBytes* body,
                        const std::string* hash) {
    ClientRequest out;
    out.method = method;
    out.target = query.empty() ? path : path + "?" + query;
    const std::string host = url.authority();
    const WallTime now = system_clock().wall_now();
    const std::string date = auth::amz_timestamp(now).substr(0, 8);
    if (date != key_date) {
      key = auth::derive_signing_key(credentials.secret_key, date, credentials.region, "s3");
      key_date = date;
    }
    const auth::RequestToSign to_sign{.method = method, .host = host, .raw_path = path, .raw_query = query};
    auth::sign_request(credentials, to_sign, out.headers, hash == nullptr ? auth::kUnsignedPayload : std::string_view(*hash), now, &key);
    if (body != nullptr && !body->empty()) out.body.push_back(*body);
    return out;
  }

  Task<Result<uint64_t>> one(HttpClient& http, LoadOperation operation, uint64_t number, Buffer& scratch) {
    const std::string path = "/" + options.bucket + "/" + name_of(number);
    ClientRequest to_send;
    switch (operation) {
      case LoadOperation::put: {
        const size_t body = number % bodies.size();
        to_send = request("PUT", path, "", &bodies[body], options.sign_body ? &body_hashes[body] : nullptr);
        break;
      }
      case LoadOperation::remove: to_send = request("DELETE", path, "", nullptr, nullptr); break;
      case LoadOperation::stat: to_send = request("HEAD", path, "", nullptr, nullptr); break;
      case LoadOperation::list:
        to_send = request("GET", "/" + options.bucket, "list-type=2&max-keys=1000&prefix=bench%2F", nullptr, nullptr);
        break;
      default: to_send = request("GET", path, "", nullptr, nullptr); break;
    }
    CO_TRY_ASSIGN(auto response, co_await http.send(url, std::move(to_send)));
    uint64_t bytes = operation == LoadOperation::put ? options.object_bytes : 0;
    if (response->status() >= 300) {
      Result<std::string> text = co_await response->text(65536);
      co_return fail(Code::internal, "HTTP {}: {}", response->status(), text.value_or("").substr(0, 300));
    }
    for (;;) {
      CO_TRY_ASSIGN(const size_t n, co_await response->body().read_into({scratch.data(), scratch.capacity()}));
      if (n == 0) break;
      bytes += n;
    }
    if (operation == LoadOperation::get && bytes != options.object_bytes) {
      co_return fail(Code::corrupt, "{} has {} bytes instead of {}", path, bytes, options.object_bytes);
    }
    co_return bytes;
  }

  Task<void> connection(HttpClient& http, TimePoint end, uint64_t limit) {
    Buffer scratch(options.object_bytes > 256 * kKiB || options.operation == LoadOperation::list ? kMiB : 64 * kKiB);
    uint64_t turn = 0;
    while (Executor::here().now() < end) {
      const uint64_t ticket = next_name.fetch_add(1, std::memory_order_relaxed);
      if (limit > 0 && ticket >= limit) break;
      LoadOperation operation = options.operation;
      if (operation == LoadOperation::mixed)
        operation = ticket * 37 % 100 < options.mixed_get_percent ? LoadOperation::get : LoadOperation::put;
      const uint64_t number = limit > 0 ? ticket : ticket * 7919 % std::max<uint64_t>(options.objects, 1);
      const TimePoint start = Executor::here().now();
      Result<uint64_t> bytes = co_await one(http, operation, number, scratch);
      const TimePoint stop = Executor::here().now();
      if (!bytes) {
        if (result.errors++ == 0) result.first_error = bytes.error().to_string();
        if (++turn > 100 && result.requests == 0) break;  // nothing works: do not spin
        continue;
      }
      ++result.requests;
      result.bytes += *bytes;
      (operation == LoadOperation::put ? result.puts : result.gets) += 1;
      latencies_ns.push_back(static_cast<uint64_t>((stop - start).count()));
    }
  }

  // limit 0: until the time is over; else each name below limit once.
  Task<void> run(unsigned connections, TimePoint end, uint64_t limit) {
    auto network = std::make_unique<UringNetwork>();
    HttpClientOptions http_options;
    http_options.connections_max = connections;
    http_options.idle_connections_max = connections;
    HttpClient http(*network, http_options);
    TaskGroup group;
    for (unsigned i = 0; i < connections; ++i) group.spawn(connection(http, end, limit));
    co_await group.join();
    http.close_idle();
  }
};

Result<LoadResult> run_phase(const LoadOptions& options, uint64_t limit) {
  TRY_ASSIGN(const Url url, parse_url(options.endpoint.url));
  const unsigned threads = std::max(1u, std::min(options.threads, options.connections));
  TRY_ASSIGN(auto pool, ExecutorPool::start({.name = "load", .threads = threads}));
  std::atomic<uint64_t> next_name{0};
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<SharedBytes> bodies;
  std::vector<std::string> hashes;
  if (options.operation == LoadOperation::put || options.operation == LoadOperation::mixed) {
    SeededRandom random(20261121);
    const size_t different = options.object_bytes > 64 * kMiB ? 1 : 4;
    for (size_t i = 0; i < different; ++i) {
      Buffer body(options.object_bytes);
      random.fill(body.mutable_view());
      hashes.push_back(options.sign_body ? sha256_hex(body) : std::string());
      bodies.emplace_back(std::move(body));
    }
  }
  for (unsigned i = 0; i < threads; ++i) {
    workers.push_back(std::unique_ptr<Worker>(new Worker{options, url, bodies, hashes, next_name, {}, {}}));
    workers.back()->credentials = {options.endpoint.credentials.access_key, options.endpoint.credentials.secret_key,
                                   options.endpoint.region};
  }

  const double cpu_before = cpu_seconds();
  const TimePoint start = pool->executor(0).now();
  const TimePoint end = limit > 0 ? kNoDeadline : start + options.duration;
  std::vector<std::thread> waiters;
  for (unsigned i = 0; i < threads; ++i) {
    const unsigned share = options.connections / threads + (i < options.connections % threads ? 1 : 0);
    waiters.emplace_back([&, i, share] { wait_on(pool->executor(i), workers[i]->run(share, end, limit)); });
  }
  for (auto& waiter : waiters) waiter.join();

  LoadResult total;
  total.seconds = std::chrono::duration<double>(pool->executor(0).now() - start).count();
  total.client_cpu_seconds = cpu_seconds() - cpu_before;
  std::vector<uint64_t> latencies;
  for (const auto& worker : workers) {
    total.requests += worker->result.requests;
    total.errors += worker->result.errors;
    total.bytes += worker->result.bytes;
    total.gets += worker->result.gets;
    total.puts += worker->result.puts;
    if (total.first_error.empty()) total.first_error = worker->result.first_error;
    latencies.insert(latencies.end(), worker->latencies_ns.begin(), worker->latencies_ns.end());
  }
  std::sort(latencies.begin(), latencies.end());
  const auto quantile = [&](double q) {
    return latencies.empty() ? 0.0
                             : static_cast<double>(latencies[static_cast<size_t>(q * static_cast<double>(latencies.size() - 1))]) * 1e-6;
  };
  total.p50_ms = quantile(0.5);
  total.p90_ms = quantile(0.9);
  total.p99_ms = quantile(0.99);
  total.max_ms = quantile(1);
  pool->stop();
  return total;
}

Result<void> make_bucket(const LoadOptions& options) {
  TRY_ASSIGN(auto executor, RingExecutor::create());
  return executor->run([](const LoadOptions* o) -> Task<Result<void>> {
    auto network = std::make_unique<UringNetwork>();
    HttpClient http(*network, {});
    S3Client s3(http, o->endpoint, system_clock());
    Result<void> made = co_await s3.create_bucket(o->bucket);
    if (!made && made.error().code() != Code::already_exists) co_return made;
    co_return Result<void>();
  }(&options));
}

}  // namespace

Result<LoadResult> run_load(const LoadOptions& options) {
  const bool reads = options.operation != LoadOperation::put;
  if (options.prepare) {
    TRY(make_bucket(options));
    if (reads) {
      LoadOptions prepare = options;
      prepare.operation = LoadOperation::put;
      TRY_ASSIGN(const LoadResult prepared, run_phase(prepare, options.objects));
      if (prepared.errors > 0) return fail(Code::internal, "preparing objects failed {} times: {}", prepared.errors, prepared.first_error);
    }
  }
  TRY_ASSIGN(LoadResult result, run_phase(options, options.operation == LoadOperation::remove || options.each_once ? options.objects : 0));
  if (options.clean_up && options.operation != LoadOperation::remove) {
    LoadOptions clean = options;
    clean.operation = LoadOperation::remove;
    TRY_ASSIGN(const LoadResult cleaned, run_phase(clean, options.objects));
    if (cleaned.errors > 0 && result.first_error.empty()) result.first_error = "clean-up: " + cleaned.first_error;
  }
  return result;
}

std::string load_result_json(const LoadOptions& options, const LoadResult& result) {
  JsonWriter json;
  json.begin_object()
      .field("object_bytes", options.object_bytes)
      .field("connections", uint64_t{options.connections})
      .field("requests", result.requests)
      .field("errors", result.errors)
      .field("first_error", result.first_error)
      .field("seconds", result.seconds)
      .field("requests_per_second", result.requests_per_second())
      .field("mib_per_second", result.bytes_per_second() / static_cast<double>(kMiB))
      .field("p50_ms", result.p50_ms)
      .field("p90_ms", result.p90_ms)
      .field("p99_ms", result.p99_ms)
      .field("max_ms", result.max_ms)
      .field("client_cpu_seconds", result.client_cpu_seconds)
      .end_object();
  return json.take();
}

}  // namespace quarry::client
