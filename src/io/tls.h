// TLS 1.3, and only 1.3, over any Stream. OpenSSL sees memory, never a socket: ciphertext is collected and goes out up to 256 KiB
// per system call, small parts share a record, and a connection that idles in wait_readable holds no buffers.
//
//   auto identity = load_tls_identity("server.pem", "server.key");       // or make_self_signed_identity({"localhost"})
//   auto context = TlsServerContext::create(*identity, {});
//   auto stream = co_await tls_accept(std::move(tcp), **context, deadline);
//
// Contexts are thread-safe; streams are confined to their executor like the stream below them. A stream whose peer vanishes without
// a close_notify fails its read with connection_closed, so a cut answer is never taken for a whole one.
#pragma once
#include <string>
#include <vector>

#include "io/clock.h"
#include "io/network.h"

namespace quarry {

// A certificate chain (leaf first) and its private key, PEM. The key is a secret: never log it.
struct TlsIdentity {
  std::string certificate_pem;
  std::string key_pem;
};

// Errors: not_found, permission_denied, malformed (no PEM inside).
Result<TlsIdentity> load_tls_identity(const std::string& certificate_path, const std::string& key_path);
// For a first start: ECDSA P-256, signed by itself, valid from yesterday for `validity`; names are DNS names or IP addresses, which
// go into subjectAltName. Clients trust it by taking the certificate itself as their CA; many refuse one of more than 825 days in all.
Result<TlsIdentity> make_self_signed_identity(const std::vector<std::string>& names, Duration validity = std::chrono::hours(24 * 824));

class TlsServerContext {
 public:
  struct Options {
    std::vector<std::string> alpn = {"h2", "http/1.1"};  // in order of preference
    std::string client_ca_pem;                           // not empty: clients are asked for a certificate of this CA
    bool require_client_certificate = false;             // and refused without one
  };
  // Errors: malformed, misconfigured (key and certificate do not belong together).
  static Result<std::unique_ptr<TlsServerContext>> create(const TlsIdentity& identity, Options options);
  ~TlsServerContext();
  // New handshakes use it from now on; connections stay. On an error the old identity stays. Session tickets stay good.
  Result<void> reload(const TlsIdentity& identity);
  // The leaf's end of validity, for a warning ahead of time.
  WallTime expires_at() const;

  struct State;
  State& state() { return *state_; }

 private:
  explicit TlsServerContext(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class TlsClientContext {
 public:
  struct Options {
    std::string ca_pem;              // trusted certificates; empty: the system's
    bool skip_verification = false;  // for tools on request only: anybody may then sit in between
    TlsIdentity identity;            // own certificate for mTLS; empty: none
    std::vector<std::string> alpn = {"http/1.1"};
  };
  static Result<std::unique_ptr<TlsClientContext>> create(Options options);
  ~TlsClientContext();

  struct State;
  State& state() { return *state_; }

 private:
  explicit TlsClientContext(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Handshakes; the stream is closed on failure. Errors: timed_out, connection_closed, malformed (not TLS 1.3), unauthenticated (the
// certificate was refused: says why).
Task<Result<std::unique_ptr<Stream>>> tls_accept(std::unique_ptr<Stream> stream, TlsServerContext& context, TimePoint deadline);
// server_name: checked against the certificate, a DNS name or an IP address.
Task<Result<std::unique_ptr<Stream>>> tls_connect(std::unique_ptr<Stream> stream, TlsClientContext& context, std::string server_name,
                                                  TimePoint deadline);

}  // namespace quarry
