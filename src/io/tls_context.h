// Inside of TLS contexts, for tls.cc and tls_context.cc alone.
#pragma once
#include <openssl/ssl.h>

#include "io/tls.h"

namespace quarry {

using SslContextPtr = std::shared_ptr<SSL_CTX>;

// Empties OpenSSL's error queue of this thread into one line.
std::string openssl_reason();

struct TlsServerContext::State {
  Options options;
  std::string alpn;  // in wire form; the context refers to it
  mutable std::mutex mutex;
  SslContextPtr context;  // guarded by mutex; replaced by reload
  SslContextPtr current() const {
    const std::lock_guard lock(mutex);
    return context;
  }
};

struct TlsClientContext::State {
  SslContextPtr context;
  bool verify = true;
};

}  // namespace quarry
