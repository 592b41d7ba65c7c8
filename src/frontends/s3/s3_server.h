// S3Server: the S3 API over ObjectEngine and IdentityStore. One handler serves all executors: it is thread-safe, and keeps nothing between
// requests but caches and counters.
#pragma once
#include <memory>
#include <string>

#include "auth/sigv4.h"
#include "frontends/s3/request.h"

namespace quarry::frontends::s3 {

class S3Server : public HttpHandler {
 public:
  // What is referenced outlives the server.
  S3Server(object::ObjectEngine& objects, auth::IdentityStore& identities, Clock& clock, S3Options options);
  ~S3Server() override;
  Task<void> handle(HttpExchange& exchange) override;
  std::pair<std::string, std::string> error_body(int status) override;

 private:
  Task<S3Result<void>> serve(Request& request);

  S3Services services_;
  auth::SigningKeyCache signing_keys_;
};

}  // namespace quarry::frontends::s3
