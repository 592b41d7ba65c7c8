// quarry bench: the load generator, against our own node or any S3 endpoint.
#include "base/units.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "client/load.h"

namespace quarry::cli {

int run_bench(const BenchOptions& options) {
  auto endpoints = resolve_endpoints(options.target);
  if (!endpoints) return print_error(endpoints.error().to_string());
  client::LoadOptions load;
  load.endpoint = {endpoints->s3, {endpoints->access_key, endpoints->secret_key}, endpoints->region};
  load.bucket = options.bucket;
  static const std::map<std::string, client::LoadOperation> kOperations = {
      {"put", client::LoadOperation::put},   {"get", client::LoadOperation::get},       {"mixed", client::LoadOperation::mixed},
      {"list", client::LoadOperation::list}, {"delete", client::LoadOperation::remove}, {"stat", client::LoadOperation::stat}};
  load.operation = kOperations.at(options.operation);
  auto size = parse_size(options.size);
  auto duration = parse_duration(options.duration);
  if (!size) return print_error(size.error().to_string());
  if (!duration) return print_error(duration.error().to_string());
  load.object_bytes = *size;
  load.duration = *duration;
  load.connections = options.connections;
  load.threads = options.threads;
  load.objects = options.objects;
  load.each_once = options.each_once;
  load.sign_body = options.sign_body;
  load.clean_up = !options.keep;
  load.prepare = !options.no_prepare;
  auto result = client::run_load(load);
  if (!result) return print_error(result.error().to_string());
  if (options.target.json) {
    fmt::print("{}\n", client::load_result_json(load, *result));
  } else {
    fmt::print("{} {} of {}, {} in flight: {:.0f} requests/s, {}; latency p50 {:.2f} ms, p99 {:.2f} ms, max {:.1f} ms; {} errors{}\n",
               result->requests, options.operation, format_size(load.object_bytes), load.connections, result->requests_per_second(),
               format_rate(result->bytes_per_second()), result->p50_ms, result->p99_ms, result->max_ms, result->errors,
               result->first_error.empty() ? "" : " (first: " + result->first_error + ")");
  }
  return result->errors == 0 ? 0 : 1;
}

}  // namespace quarry::cli
