// A load generator for any S3 endpoint: so many requests in flight for so long, over kept connections, with rates, latencies and
// errors as the result. The same code and settings drive our server and its peers, so ratios are of servers, not of clients.
// Bodies are unsigned (as current SDKs over TLS) or signed with their SHA-256 (as SDKs over plain HTTP); data is pseudo-random.
#pragma once
#include <string>
#include <vector>

#include "client/s3_client.h"
#include "io/executor.h"

namespace quarry::client {

enum class LoadOperation : uint8_t { put, get, mixed, list, remove, stat };

struct LoadOptions {
  S3Endpoint endpoint;
  std::string bucket = "quarry-bench";
  LoadOperation operation = LoadOperation::put;
  uint64_t object_bytes = 4096;
  unsigned connections = 16;  // requests in flight, one connection each
  unsigned threads = 1;       // event loops that share the connections
  Duration duration = std::chrono::seconds(10);
  uint64_t objects = 1000;  // names used by put (overwritten in turn) and prepared for the others
  unsigned mixed_get_percent = 70;
  bool each_once = false;  // put: every name once and no more, instead of for `duration`
  bool sign_body = false;
  bool prepare = true;  // make the bucket and, where the operation reads, the objects
  bool clean_up = true;
};

struct LoadResult {
  uint64_t requests = 0, errors = 0, bytes = 0;
  uint64_t gets = 0, puts = 0;
  double seconds = 0;
  double p50_ms = 0, p90_ms = 0, p99_ms = 0, max_ms = 0;
  std::string first_error;
  double client_cpu_seconds = 0;  // of the whole process during the run
  double requests_per_second() const { return seconds > 0 ? static_cast<double>(requests) / seconds : 0; }
  double bytes_per_second() const { return seconds > 0 ? static_cast<double>(bytes) / seconds : 0; }
};

// Blocks the calling thread (which must not be an executor's) until the load is over.
Result<LoadResult> run_load(const LoadOptions& options);

std::string load_result_json(const LoadOptions& options, const LoadResult& result);

}  // namespace quarry::client
