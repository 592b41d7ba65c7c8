// What a command that talks to a node needs: an event loop, a network, HTTP, S3 and admin clients, found from its Target.
//   return with_session(options.target, [&](Session& session) -> Task<Result<void>> { ... });
#pragma once
#include <functional>
#include <memory>

#include "cli/options.h"
#include "client/admin_client.h"
#include "client/endpoints.h"
#include "client/s3_client.h"
#include "io/blocking_pool.h"
#include "io/sync.h"

namespace quarry::cli {

struct Session {
  client::Endpoints endpoints;
  HttpClient& http;
  client::S3Client& s3;
  client::AdminClient& admin;
  BlockingPool& pool;
};

// The node's directory: as given, else $QUARRY_ROOT, else ~/.quarry.
std::string root_directory(const std::string& given);

// Addresses and keys, from the target's own fields, the environment, and DIR/endpoints.json, in this order.
Result<client::Endpoints> resolve_endpoints(const Target& target);

// Runs the work on an event loop of its own and returns the exit status; prints the error of a failure.
int with_session(const Target& target, std::function<Task<Result<void>>(Session&)> work);

// "bucket/key" or "s3://bucket/key" or "bucket" -> bucket and key. Errors: invalid_argument.
Result<std::pair<std::string, std::string>> split_path(std::string_view path);

}  // namespace quarry::cli
