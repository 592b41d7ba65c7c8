// How a program on this machine finds a node: DIR/endpoints.json, which `quarry up` writes (mode 0600), or explicit addresses.
#pragma once
#include <string>

#include "base/result.h"

namespace quarry::client {

struct Endpoints {
  std::string s3;  // "http://127.0.0.1:9000"
  std::string admin;
  std::string access_key, secret_key;
  std::string region = "us-east-1";  // that the node expects in signatures
};

Result<Endpoints> read_endpoints(const std::string& root);
// Replaces DIR/endpoints.json atomically; the file is readable by its owner alone.
Result<void> write_endpoints(const std::string& root, const Endpoints& endpoints);

}  // namespace quarry::client
