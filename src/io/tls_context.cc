// Identities and contexts of TLS: everything that happens once, before any byte flows. The stream is in tls.cc.
#include "io/tls_context.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>

namespace quarry {

std::string openssl_reason() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {
    const char* reason = ERR_reason_error_string(code);
    if (!text.empty()) text += "; ";
    text += reason != nullptr ? reason : "unknown reason";
  }
  return text.empty() ? "unknown reason" : text;
}

namespace {
template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;

BioPtr memory(std::string_view text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string drain(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

std::vector<X509Ptr> parse_certificates(std::string_view pem) {
  std::vector<X509Ptr> all;
  const BioPtr bio = memory(pem);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) all.emplace_back(certificate);
  ERR_clear_error();  // the end of the text is an error to OpenSSL
  return all;
}

// A key with a passphrase would make OpenSSL ask on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

Result<void> use_identity(SSL_CTX* context, const TlsIdentity& identity) {
  ERR_clear_error();
  const auto chain = parse_certificates(identity.certificate_pem);
  if (chain.empty()) return fail(Code::malformed, "the TLS certificate holds no PEM certificate");
  const KeyPtr key(PEM_read_bio_PrivateKey(memory(identity.key_pem).get(), nullptr, no_passphrase, nullptr));
  if (key == nullptr)
    return fail(Code::malformed, "the TLS key cannot be read ({}): it must be PEM without a passphrase", openssl_reason());
  if (SSL_CTX_use_certificate(context, chain[0].get()) != 1) return fail(Code::malformed, "TLS certificate: {}", openssl_reason());
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, chain[i].get()) != 1) return fail(Code::malformed, "TLS certificate chain: {}", openssl_reason());
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return fail(Code::misconfigured, "TLS key and certificate do not belong together: {}", openssl_reason());
  }
  return {};
}

Result<void> trust(SSL_CTX* context, std::string_view ca_pem) {
  const auto trusted = parse_certificates(ca_pem);
  if (trusted.empty()) return fail(Code::malformed, "the CA file holds no PEM certificate");
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  for (const auto& certificate : trusted) X509_STORE_add_cert(store, certificate.get());
  // A trusted certificate need not be a root: one that signed itself for its server is trusted as such.
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  ERR_clear_error();
  return {};
}

std::string alpn_wire(const std::vector<std::string>& protocols) {
  std::string wire;
  for (const auto& name : protocols) {
    CHECK(!name.empty() && name.size() < 256);
    wire += static_cast<char>(name.size());
    wire += name;
  }
  return wire;
}

SslContextPtr base_context(const SSL_METHOD* method) {
  SslContextPtr context(SSL_CTX_new(method), SSL_CTX_free);
  CHECK(context != nullptr, "out of memory");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);  // tickets hold the state; a cache would be a shared lock
  SSL_CTX_set1_groups_list(context.get(), "X25519:P-256:P-384");
  return context;
}

int choose_alpn(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* offered, unsigned int offered_length,
                void* arg) {
  const auto& ours = *static_cast<const std::string*>(arg);
  unsigned char* chosen = nullptr;
  const int result = SSL_select_next_proto(&chosen, out_length, reinterpret_cast<const unsigned char*>(ours.data()),
                                           static_cast<unsigned int>(ours.size()), offered, offered_length);
  if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;  // RFC 7301 3.2: no_application_protocol
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

Result<SslContextPtr> server_context(const TlsIdentity& identity, const TlsServerContext::Options& options, const std::string& alpn) {
  SslContextPtr context = base_context(TLS_server_method());
  SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
  // CHACHA first for clients that put it first (no AES in hardware), otherwise ours.
  SSL_CTX_set_options(context.get(), SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_num_tickets(context.get(), 1);
  static constexpr unsigned char kSessionContext[] = "quarry";
  SSL_CTX_set_session_id_context(context.get(), kSessionContext, sizeof(kSessionContext) - 1);
  TRY(use_identity(context.get(), identity));
  if (!alpn.empty()) SSL_CTX_set_alpn_select_cb(context.get(), choose_alpn, const_cast<std::string*>(&alpn));
  if (!options.client_ca_pem.empty()) {
    TRY(trust(context.get(), options.client_ca_pem));
    for (const auto& certificate : parse_certificates(options.client_ca_pem)) SSL_CTX_add_client_CA(context.get(), certificate.get());
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | (options.require_client_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       nullptr);
  } else if (options.require_client_certificate) {
    return fail(Code::misconfigured, "client certificates are required, but no CA to check them is given");
  }
  return context;
}

Result<std::string> read_whole(const std::string& path) {
  std::unique_ptr<FILE, Freer<std::fclose>> file(std::fopen(path.c_str(), "re"));
  if (file == nullptr) return errno_error(errno, path);
  std::string text;
  char part[4096];
  while (const size_t n = std::fread(part, 1, sizeof(part), file.get())) {
    text.append(part, n);
    if (text.size() > kMiB) return fail(Code::malformed, "{} is too large for a PEM file", path);
  }
  return text;
}
}  // namespace

Result<TlsIdentity> load_tls_identity(const std::string& certificate_path, const std::string& key_path) {
  TlsIdentity identity;
  TRY_ASSIGN(identity.certificate_pem, read_whole(certificate_path));
  TRY_ASSIGN(identity.key_pem, read_whole(key_path));
  if (identity.certificate_pem.find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    return fail(Code::malformed, "{} holds no PEM certificate", certificate_path);
  }
  if (identity.key_pem.find("PRIVATE KEY-----") == std::string::npos) return fail(Code::malformed, "{} holds no PEM private key", key_path);
  return identity;
}

Result<TlsIdentity> make_self_signed_identity(const std::vector<std::string>& names, Duration validity) {
  ERR_clear_error();
  CHECK(!names.empty());
  const KeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr certificate(X509_new());
  if (key == nullptr || certificate == nullptr) return fail(Code::internal, "making a TLS key: {}", openssl_reason());
  X509* x = certificate.get();
  X509_set_version(x, X509_VERSION_3);
  uint8_t serial[16];
  system_random().fill(serial);
  serial[0] &= 0x7f;  // positive, RFC 5280 4.1.2.2
  serial[0] |= 0x40;
  BIGNUM* number = BN_bin2bn(serial, sizeof(serial), nullptr);
  BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x));
  BN_free(number);
  X509_gmtime_adj(X509_getm_notBefore(x), -24 * 3600);
  X509_gmtime_adj(X509_getm_notAfter(x), static_cast<long>(validity / std::chrono::seconds(1)));
  X509_NAME* subject = X509_get_subject_name(x);
  // The common name holds 64 characters at most; the names that count are in subjectAltName.
  const std::string common = names.front().substr(0, 64);
  X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("Quarry (self-signed)"), -1, -1, 0);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(common.c_str()), -1, -1, 0);
  X509_set_issuer_name(x, subject);
  X509_set_pubkey(x, key.get());
  std::string alternatives;
  for (const auto& name : names) {
    in6_addr address;
    const bool ip = inet_pton(AF_INET, name.c_str(), &address) == 1 || inet_pton(AF_INET6, name.c_str(), &address) == 1;
    if (!ip && name.find_first_of(",:\n ") != std::string::npos) return fail(Code::invalid_argument, "'{}' is no host name", name);
    alternatives += fmt::format("{}{}:{}", alternatives.empty() ? "" : ",", ip ? "IP" : "DNS", name);
  }
  X509V3_CTX extensions;
  X509V3_set_ctx_nodb(&extensions);
  X509V3_set_ctx(&extensions, x, x, nullptr, nullptr, 0);
  const std::pair<int, std::string> wanted[] = {
      {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, "critical,digitalSignature"},
      {NID_ext_key_usage, "serverAuth,clientAuth"}, {NID_subject_key_identifier, "hash"},
      {NID_subject_alt_name, alternatives},
  };
  for (const auto& [id, value] : wanted) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &extensions, id, value.c_str());
    if (extension == nullptr) return fail(Code::invalid_argument, "certificate for '{}': {}", alternatives, openssl_reason());
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
  }
  if (X509_sign(x, key.get(), EVP_sha256()) == 0) return fail(Code::internal, "signing a certificate: {}", openssl_reason());
  const BioPtr certificate_out(BIO_new(BIO_s_mem())), key_out(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(certificate_out.get(), x);
  PEM_write_bio_PKCS8PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  return TlsIdentity{drain(certificate_out.get()), drain(key_out.get())};
}

// ---------------------------------------------------------------- contexts

TlsServerContext::TlsServerContext(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsServerContext::~TlsServerContext() = default;

Result<std::unique_ptr<TlsServerContext>> TlsServerContext::create(const TlsIdentity& identity, Options options) {
  auto state = std::make_unique<State>();
  state->alpn = alpn_wire(options.alpn);
  state->options = std::move(options);
  TRY_ASSIGN(state->context, server_context(identity, state->options, state->alpn));
  return std::unique_ptr<TlsServerContext>(new TlsServerContext(std::move(state)));
}

Result<void> TlsServerContext::reload(const TlsIdentity& identity) {
  TRY_ASSIGN(SslContextPtr fresh, server_context(identity, state_->options, state_->alpn));
  const std::lock_guard lock(state_->mutex);
  std::array<unsigned char, 80> keys{};
  if (SSL_CTX_get_tlsext_ticket_keys(state_->context.get(), keys.data(), keys.size()) == 1) {
    SSL_CTX_set_tlsext_ticket_keys(fresh.get(), keys.data(), keys.size());
  }
  state_->context = std::move(fresh);
  return {};
}

WallTime TlsServerContext::expires_at() const {
  const SslContextPtr context = state_->current();
  tm at{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(SSL_CTX_get0_certificate(context.get())), &at) != 1) return 0;
  return timegm(&at) * 1'000'000'000ll;
}

TlsClientContext::TlsClientContext(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsClientContext::~TlsClientContext() = default;

Result<std::unique_ptr<TlsClientContext>> TlsClientContext::create(Options options) {
  auto state = std::make_unique<State>();
  state->context = base_context(TLS_client_method());
  SSL_CTX* context = state->context.get();
  SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
  if (options.skip_verification) {
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
  } else {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    if (options.ca_pem.empty()) {
      SSL_CTX_set_default_verify_paths(context);
    } else {
      TRY(trust(context, options.ca_pem));
    }
  }
  if (!options.identity.certificate_pem.empty()) TRY(use_identity(context, options.identity));
  const std::string alpn = alpn_wire(options.alpn);
  if (!alpn.empty())
    SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size()));
  state->verify = !options.skip_verification;
  return std::unique_ptr<TlsClientContext>(new TlsClientContext(std::move(state)));
}

}  // namespace quarry
