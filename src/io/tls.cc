#include "io/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "io/sync.h"
#include "io/tls_context.h"

namespace quarry {
namespace {
constexpr size_t kRecord = 16 * kKiB;    // plaintext of one record at most, RFC 8446 5.1
constexpr size_t kRecordOverhead = 512;  // header, tag, padding: more than OpenSSL ever adds
constexpr size_t kBatch = 256 * kKiB;    // ciphertext of one system call
constexpr size_t kSmallIn = 20 * kKiB;   // a first read holds one full record

// Everything of one connection. Shared by the stream and its running coroutines, so that the stream may be destroyed under them.
struct Tls {
  std::unique_ptr<Stream> raw;
  SSL* ssl = nullptr;
  std::string alpn;
  std::string peer_subject;

  // Ciphertext that came in: in[in_at, in_end). No buffer while idle.
  Buffer in;
  size_t in_at = 0, in_end = 0;
  bool in_ended = false;     // the peer's TCP end
  bool in_was_full = false;  // the last read filled the buffer: take a larger one

  // Ciphertext that waits to go out: out[0, out_size).
  Buffer out;
  size_t out_size = 0;
  bool flushing = false;
  Event flushed;
  std::optional<Error> write_error;
  bool closed = false;

  ~Tls() {
    if (ssl != nullptr) SSL_free(ssl);
  }
};
using TlsRef = std::shared_ptr<Tls>;

// ---------------------------------------------------------------- OpenSSL's view of the two buffers

int bio_read(BIO* bio, char* data, int length) {
  auto& tls = *static_cast<Tls*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (tls.in_at == tls.in_end) {
    if (tls.in_ended) return 0;
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t count = std::min(static_cast<size_t>(length), tls.in_end - tls.in_at);
  std::memcpy(data, tls.in.data() + tls.in_at, count);
  tls.in_at += count;
  return static_cast<int>(count);
}

// Never refuses: what is waiting grows by one record, a handshake flight or an alert at a time, and is flushed before it is a batch.
int bio_write(BIO* bio, const char* data, int length) {
  auto& tls = *static_cast<Tls*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const size_t needed = tls.out_size + static_cast<size_t>(length);
  if (needed > tls.out.capacity()) {
    Buffer larger(std::max(std::min(2 * needed, kBatch), needed));
    if (tls.out_size > 0) std::memcpy(larger.data(), tls.out.data(), tls.out_size);
    tls.out = std::move(larger);
  }
  std::memcpy(tls.out.data() + tls.out_size, data, static_cast<size_t>(length));
  tls.out_size = needed;
  return length;
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO_METHOD* bio_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "quarry buffers");
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  return method;
}

// ---------------------------------------------------------------- moving ciphertext

Error cancelled_error() { return fail(Code::cancelled, "the connection was closed here"); }

// Sends what waits. Reader and writer may both come here; one sends at a time, in order.
Task<Result<void>> flush(TlsRef tls, TimePoint deadline) {
  while (tls->out_size > 0 || tls->flushing) {
    if (tls->write_error) co_return Error(*tls->write_error);
    if (tls->flushing) {
      co_await tls->flushed.wait();
      continue;
    }
    Buffer sending = std::move(tls->out);
    sending.resize(std::exchange(tls->out_size, 0));
    tls->flushing = true;
    tls->flushed.reset();
    std::vector<ByteView> parts{sending.view()};
    Result<void> sent = co_await tls->raw->write(std::move(parts), deadline);
    tls->flushing = false;
    if (!sent) tls->write_error = sent.error();
    tls->flushed.set();
    // The same buffer serves the next batch, unless somebody has started another.
    if (tls->out_size == 0 && tls->out.capacity() == 0 && sending.capacity() >= kBatch) tls->out = std::move(sending);
    if (!sent) co_return sent;
  }
  if (tls->write_error) co_return Error(*tls->write_error);
  co_return Result<void>();
}

// Reads more ciphertext; nothing is left of the last.
Task<Result<void>> fill(TlsRef tls, TimePoint deadline) {
  if (tls->closed) co_return cancelled_error();
  const size_t wanted = tls->in_was_full ? kBatch : kSmallIn;
  if (tls->in.capacity() < wanted) tls->in = Buffer(wanted);
  tls->in_at = tls->in_end = 0;
  // Held here while the read waits: the buffer's owner may go, the kernel's target may not.
  Buffer target = std::move(tls->in);
  target.resize(target.capacity());
  Result<size_t> got = co_await tls->raw->read(target.mutable_view(), deadline);
  if (!got) co_return std::move(got).error();
  tls->in = std::move(target);
  tls->in_end = *got;
  tls->in_ended = *got == 0;
  tls->in_was_full = *got == tls->in.size();
  co_return Result<void>();
}

Error protocol_error(Tls& tls, int ssl_error, const char* what) {
  if (ssl_error == SSL_ERROR_SYSCALL ||
      (ssl_error == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)) {
    ERR_clear_error();
    return fail(Code::connection_closed, "TLS {}: the peer left without saying goodbye", what);
  }
  const long verdict = SSL_get_verify_result(tls.ssl);
  const auto reason = openssl_reason();
  if (verdict != X509_V_OK) return fail(Code::unauthenticated, "TLS {}: {} ({})", what, X509_verify_cert_error_string(verdict), reason);
  return fail(Code::malformed, "TLS {}: {}", what, reason);
}

Task<Result<void>> handshake(TlsRef tls, TimePoint deadline) {
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(tls->ssl);
    const int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, result);
    std::optional<Error> refused;
    if (result != 1 && error != SSL_ERROR_WANT_READ) refused = protocol_error(*tls, error, "handshake");
    // The alert that says why goes out too.
    Result<void> sent = co_await flush(tls, deadline);
    if (refused) {
      std::move(sent).ignore("the handshake's own error says more");
      co_return std::move(*refused);
    }
    if (!sent) co_return sent;
    if (result == 1) break;
    CO_TRY(co_await fill(tls, deadline));
  }
  const unsigned char* protocol = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(tls->ssl, &protocol, &length);
  if (length > 0) tls->alpn.assign(reinterpret_cast<const char*>(protocol), length);
  if (X509* certificate = SSL_get0_peer_certificate(tls->ssl)) {
    if (SSL_get_verify_result(tls->ssl) == X509_V_OK) {
      BIO* text = BIO_new(BIO_s_mem());
      X509_NAME_print_ex(text, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
      char* data = nullptr;
      const long size = BIO_get_mem_data(text, &data);
      tls->peer_subject.assign(data, static_cast<size_t>(size));
      BIO_free(text);
    }
  }
  co_return Result<void>();
}

class TlsStream : public Stream {
 public:
  explicit TlsStream(TlsRef tls) : tls_(std::move(tls)) {}
  ~TlsStream() override { close(); }
  Task<Result<size_t>> read(MutableByteView into, TimePoint deadline) override { return read(tls_, into, deadline); }
  Task<Result<void>> wait_readable(TimePoint deadline) override { return wait_readable(tls_, deadline); }
  Task<Result<void>> write(std::vector<ByteView> parts, TimePoint deadline) override { return write(tls_, std::move(parts), deadline); }
  Task<Result<void>> shutdown_write() override { return shutdown_write(tls_); }
  void close() override {
    tls_->closed = true;
    tls_->raw->close();
  }
  const SocketAddress& peer() const override { return tls_->raw->peer(); }
  std::string_view alpn() const override { return tls_->alpn; }
  bool is_tls() const override { return true; }
  std::string_view peer_certificate_subject() const override { return tls_->peer_subject; }

 private:
  static Task<Result<size_t>> read(TlsRef tls, MutableByteView into, TimePoint deadline) {
    CHECK(!into.empty(), "a read of nothing");
    for (;;) {
      if (tls->closed) co_return cancelled_error();
      // As many records as are here: a large read costs one resumption, not one per 16 KiB.
      size_t total = 0;
      int error = SSL_ERROR_NONE;
      while (total < into.size()) {
        size_t count = 0;
        ERR_clear_error();
        const int result = SSL_read_ex(tls->ssl, into.data() + total, into.size() - total, &count);
        if (result != 1) {
          error = SSL_get_error(tls->ssl, result);
          break;
        }
        total += count;
      }
      std::optional<Error> broken;
      if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_ZERO_RETURN)
        broken = protocol_error(*tls, error, "read");
      // An answer to a key update, or an alert.
      if (tls->out_size > 0) {
        Result<void> sent = co_await flush(tls, deadline);
        std::move(sent).ignore("the writer reports what is wrong with writing");
      }
      if (total > 0) co_return total;  // an error comes again with the next read
      if (broken) co_return std::move(*broken);
      if (error == SSL_ERROR_ZERO_RETURN) co_return size_t{0};
      CO_TRY(co_await fill(tls, deadline));
    }
  }

  static Task<Result<void>> wait_readable(TlsRef tls, TimePoint deadline) {
    if (tls->closed) co_return cancelled_error();
    if (tls->in_at < tls->in_end || SSL_has_pending(tls->ssl) == 1 || tls->in_ended) co_return Result<void>();
    tls->in = Buffer();
    tls->in_was_full = false;
    if (!tls->flushing && tls->out_size == 0) tls->out = Buffer();
    CO_TRY(co_await tls->raw->wait_readable(deadline));
    co_return Result<void>();
  }

  static Task<Result<void>> write(TlsRef tls, std::vector<ByteView> parts, TimePoint deadline) {
    size_t first = 0, inside = 0;
    Buffer staging;  // small parts share a record
    for (;;) {
      while (first < parts.size() && inside == parts[first].size()) {
        ++first;
        inside = 0;
      }
      if (first == parts.size()) break;
      if (tls->closed) co_return cancelled_error();
      ByteView record = parts[first].subspan(inside).first(std::min(kRecord, parts[first].size() - inside));
      if (record.size() == kRecord || first + 1 == parts.size()) {
        inside += record.size();
      } else {
        if (staging.empty()) staging = Buffer(kRecord);
        size_t filled = 0;
        while (filled < kRecord && first < parts.size()) {
          const size_t count = std::min(kRecord - filled, parts[first].size() - inside);
          if (count > 0) std::memcpy(staging.data() + filled, parts[first].data() + inside, count);
          filled += count;
          inside += count;
          if (inside == parts[first].size()) {
            ++first;
            inside = 0;
          }
        }
        record = staging.view().first(filled);
      }
      // Whole batches of one allocation; a lone small answer gets a small buffer.
      if (tls->out.capacity() == 0 && first + 1 < parts.size()) tls->out = Buffer(kBatch);
      size_t written = 0;
      ERR_clear_error();
      const int result = SSL_write_ex(tls->ssl, record.data(), record.size(), &written);
      if (result != 1) co_return protocol_error(*tls, SSL_get_error(tls->ssl, result), "write");
      CHECK(written == record.size(), "a record was written in part");
      if (tls->out_size + kRecord + kRecordOverhead > kBatch) CO_TRY(co_await flush(tls, deadline));
    }
    CO_TRY(co_await flush(tls, deadline));
    co_return Result<void>();
  }

  static Task<Result<void>> shutdown_write(TlsRef tls) {
    if (tls->closed) co_return cancelled_error();
    ERR_clear_error();
    SSL_shutdown(tls->ssl);  // puts close_notify into the buffer; whether the peer answers is its affair
    ERR_clear_error();
    CO_TRY(co_await flush(tls, kNoDeadline));
    CO_TRY(co_await tls->raw->shutdown_write());
    co_return Result<void>();
  }

  TlsRef tls_;
};

TlsRef make_tls(std::unique_ptr<Stream> stream, SSL_CTX* context) {
  TlsRef tls = std::make_shared<Tls>();
  tls->raw = std::move(stream);
  tls->ssl = SSL_new(context);
  CHECK(tls->ssl != nullptr, "out of memory");
  BIO* bio = BIO_new(bio_method());
  CHECK(bio != nullptr, "out of memory");
  BIO_set_data(bio, tls.get());
  BIO_set_init(bio, 1);
  SSL_set_bio(tls->ssl, bio, bio);
  return tls;
}

Task<Result<std::unique_ptr<Stream>>> finish(TlsRef tls, TimePoint deadline) {
  Result<void> done = co_await handshake(tls, deadline);
  if (!done) {
    tls->raw->close();
    co_return std::move(done).error();
  }
  std::unique_ptr<Stream> stream = std::make_unique<TlsStream>(tls);
  co_return stream;
}
}  // namespace

Task<Result<std::unique_ptr<Stream>>> tls_accept(std::unique_ptr<Stream> stream, TlsServerContext& context, TimePoint deadline) {
  TlsRef tls = make_tls(std::move(stream), context.state().current().get());
  SSL_set_accept_state(tls->ssl);
  return finish(std::move(tls), deadline);
}

Task<Result<std::unique_ptr<Stream>>> tls_connect(std::unique_ptr<Stream> stream, TlsClientContext& context, std::string server_name,
                                                  TimePoint deadline) {
  TlsRef tls = make_tls(std::move(stream), context.state().context.get());
  SSL_set_connect_state(tls->ssl);
  in6_addr address;
  const bool ip = inet_pton(AF_INET, server_name.c_str(), &address) == 1 || inet_pton(AF_INET6, server_name.c_str(), &address) == 1;
  if (ip) {
    if (context.state().verify) X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), server_name.c_str());
  } else {
    SSL_set_tlsext_host_name(tls->ssl, server_name.c_str());  // RFC 6066: names only
    if (context.state().verify) SSL_set1_host(tls->ssl, server_name.c_str());
  }
  return finish(std::move(tls), deadline);
}

}  // namespace quarry
