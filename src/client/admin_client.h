// AdminClient: calls of the admin API (frontends/admin), JSON in and out, signed like S3 requests.
// Confined to the executor of its HttpClient.
#pragma once
#include <string>

#include "client/s3_client.h"
#include "wire/json.h"

namespace quarry::client {

class AdminClient {
 public:
  // region: that the node expects in signatures.
  AdminClient(HttpClient& http, std::string url, Credentials credentials, std::string region, Clock& clock)
      : http_(http), url_(std::move(url)), credentials_(std::move(credentials)), region_(std::move(region)), clock_(clock) {}
  // path: "/v1/drives"; body: JSON or empty. An answer of 400 or more becomes an Error with the server's code and message.
  // patience: how long the node may work before it answers; zero: as for other requests.
  Task<Result<std::string>> call(std::string method, std::string path, std::string body = {}, Duration patience = {});

 private:
  HttpClient& http_;
  std::string url_;
  Credentials credentials_;
  std::string region_;
  Clock& clock_;
};

}  // namespace quarry::client
