#include "io/uring_network.h"

#include <arpa/inet.h>
#include <liburing.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "io/ring_executor.h"

namespace quarry {
namespace {
constexpr size_t kPartsPerCall = 64;
constexpr size_t kBytesPerCall = 1 << 30;

// A loop-confined count of references: an object lives as long as its owner or the last operation of the kernel on it.
struct Counted {
  uint32_t references = 0;
};
template <class T>
class Ref {
 public:
  explicit Ref(std::unique_ptr<T> object) : object_(object.release()) { ++object_->references; }
  Ref(const Ref& other) : object_(other.object_) { ++object_->references; }
  Ref& operator=(const Ref&) = delete;
  ~Ref() {
    if (--object_->references == 0) std::unique_ptr<T>{object_}.reset();
  }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }

 private:
  T* object_;
};

// One operation, awaited in the frame of a coroutine.
struct SocketOp : RingOp {
  SocketOp() : RingOp{&finished} {}
  SocketOp(const SocketOp&) = delete;
  std::coroutine_handle<> handle{};
  int result = 0;
  uint32_t flags = 0;
  static void finished(RingOp& op, int result, uint32_t flags) {
    auto& self = static_cast<SocketOp&>(op);
    self.result = result;
    self.flags = flags;
    self.handle.resume();
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) noexcept { handle = h; }
  int await_resume() const noexcept { return result; }
};

// One direction of a stream: the operation that waits, if any, and its deadline. The timer stays armed between operations for the
// earliest deadline it was ever asked for; when it fires too early it moves. So a connection whose deadline moves on with each
// request arms a timer once per deadline, not once per request.
struct Direction {
  struct DeadlineTimer : Timer {
    Direction* direction = nullptr;
  } timer;
  RingExecutor& ring;
  SocketOp* pending = nullptr;
  TimePoint deadline = kNoDeadline;
  bool timed_out = false;

  explicit Direction(RingExecutor& r) : ring(r) {
    timer.direction = this;
    timer.fire = [](Timer& t) { static_cast<DeadlineTimer&>(t).direction->fired(); };
  }
  void begin(SocketOp& op, TimePoint at) {
    pending = &op;
    deadline = at;
    timed_out = false;
    if (at == kNoDeadline || (timer.armed && timer.at <= at)) return;
    ring.cancel(timer);
    ring.arm(timer, at);
  }
  void end() {
    pending = nullptr;
    deadline = kNoDeadline;
  }
  void fired() {
    if (pending == nullptr || deadline == kNoDeadline) return;
    if (ring.now() < deadline) return ring.arm(timer, deadline);
    timed_out = true;
    ring.cancel_op(*pending);
  }
  void close() {
    ring.cancel(timer);
    if (pending != nullptr) ring.cancel_op(*pending);
  }
};

struct Connection : Counted {
  RingExecutor& ring;
  int fd;
  bool closed = false;
  bool drained = false;  // the last read took all there was: wait first, a try would be in vain
  Direction reading, writing;
  // What wait_readable has received already, in a buffer of the loop: [at, end) of buffer `id`.
  struct Received {
    static constexpr uint16_t kNone = UINT16_MAX;
    uint16_t id = kNone;
    uint16_t at = 0, end = 0;
    bool ended = false;  // the peer's end came instead
  } received;

  Connection(RingExecutor& r, int descriptor) : ring(r), fd(descriptor), reading(r), writing(r) {}
  ~Connection() {
    drop_received();
    if (fd >= 0) ::close(fd);
  }
  void drop_received() {
    if (received.id != Received::kNone) ring.return_receive_buffer(std::exchange(received.id, Received::kNone));
  }
  size_t take_received(MutableByteView into) {
    const size_t count = std::min<size_t>(into.size(), received.end - received.at);
    std::memcpy(into.data(), ring.receive_buffer(received.id).data() + received.at, count);
    received.at = static_cast<uint16_t>(received.at + count);
    if (received.at == received.end) drop_received();
    return count;
  }
  void end(Direction& direction) {
    direction.end();
    if (closed) release();
  }
  void close() {
    if (closed) return;
    closed = true;
    reading.close();
    writing.close();
    // The descriptor goes with the last operation, but the peer is told at once.
    if (reading.pending != nullptr || writing.pending != nullptr) shutdown(fd, SHUT_RDWR);
    release();
  }

 private:
  void release() {
    if (reading.pending != nullptr || writing.pending != nullptr) return;
    drop_received();
    if (fd >= 0) ::close(std::exchange(fd, -1));
  }
};
using ConnectionRef = Ref<Connection>;

Error stream_error(const Direction& direction, bool closed, int error_number, const char* verb) {
  if (closed) return fail(Code::cancelled, "{}: the connection was closed here", verb);
  if (direction.timed_out) return fail(Code::timed_out, "{}: the deadline passed", verb);
  switch (error_number) {
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN: return fail(Code::connection_closed, "{}: {}", verb, strerror(error_number));
    // The other side has gone silent (keep-alive, retransmission): for the caller the same as a reset.
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH: return fail(Code::connection_closed, "{}: {}", verb, strerror(error_number));
    default: return errno_error(error_number, verb);
  }
}

SocketAddress address_of(const sockaddr_storage& storage) {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET) {
    const auto& four = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text));
    return {text, ntohs(four.sin_port)};
  }
  if (storage.ss_family == AF_INET6) {
    const auto& six = reinterpret_cast<const sockaddr_in6&>(storage);
    // A connection over IPv4 to a socket of both families: written as what it is.
    if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
      inet_ntop(AF_INET, six.sin6_addr.s6_addr + 12, text, sizeof(text));
    } else {
      inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text));
    }
    return {text, ntohs(six.sin6_port)};
  }
  return {};
}

class UringStream : public Stream {
 public:
  UringStream(RingExecutor& ring, int fd) : connection_(std::make_unique<Connection>(ring, fd)) {}
  UringStream(RingExecutor& ring, int fd, SocketAddress peer) : UringStream(ring, fd) { peer_ = std::move(peer); }
  ~UringStream() override { close(); }

  Task<Result<size_t>> read(MutableByteView into, TimePoint deadline) override {
    ConnectionRef connection = connection_;
    return read(connection, into, deadline);
  }
  Task<Result<void>> wait_readable(TimePoint deadline) override {
    ConnectionRef connection = connection_;
    return wait_readable(connection, deadline);
  }
  Task<Result<void>> write(std::vector<ByteView> parts, TimePoint deadline) override {
    ConnectionRef connection = connection_;
    return write(connection, std::move(parts), deadline);
  }
  Task<Result<void>> shutdown_write() override {
    ConnectionRef connection = connection_;
    return shutdown_write(connection);
  }

  void close() override { connection_->close(); }

  const SocketAddress& peer() const override {
    if (!peer_) {
      sockaddr_storage storage{};
      socklen_t length = sizeof(storage);
      getpeername(connection_->fd, reinterpret_cast<sockaddr*>(&storage), &length);
      peer_ = address_of(storage);
    }
    return *peer_;
  }

 private:
  // Coroutines of the connection, not of the stream: they may outlive it.
  static Task<Result<size_t>> read(ConnectionRef connection, MutableByteView into, TimePoint deadline) {
    if (connection->closed) co_return fail(Code::cancelled, "read: the connection was closed here");
    CHECK(connection->reading.pending == nullptr, "two readers on one stream");
    CHECK(!into.empty(), "a read of nothing");
    if (connection->received.id != Connection::Received::kNone) co_return connection->take_received(into);
    if (connection->received.ended) co_return size_t{0};
    for (;;) {
      SocketOp op;
      io_uring_sqe* sqe = connection->ring.prepare(op);
      io_uring_prep_recv(sqe, connection->fd, into.data(), std::min(into.size(), kBytesPerCall), 0);
      if (connection->drained) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
      connection->reading.begin(op, deadline);
      const int result = co_await op;
      connection->end(connection->reading);
      connection->drained = (op.flags & IORING_CQE_F_SOCK_NONEMPTY) == 0;
      if (result >= 0) co_return static_cast<size_t>(result);
      if (connection->closed || connection->reading.timed_out)
        co_return stream_error(connection->reading, connection->closed, -result, "read");
      if (result == -EINTR || result == -EAGAIN) continue;
      co_return stream_error(connection->reading, false, -result, "read");
    }
  }

  static Task<Result<void>> wait_readable(ConnectionRef connection, TimePoint deadline) {
    if (connection->closed) co_return fail(Code::cancelled, "wait: the connection was closed here");
    CHECK(connection->reading.pending == nullptr, "two readers on one stream");
    auto& received = connection->received;
    if (received.id != Connection::Received::kNone || received.ended) co_return Result<void>();
    // The kernel picks a buffer of the loop when bytes come, so that the first of them are here without another operation. When
    // all are in use, or there are none, it only tells.
    bool poll = !connection->ring.has_receive_buffers();
    for (;;) {
      SocketOp op;
      io_uring_sqe* sqe = connection->ring.prepare(op);
      if (poll) {
        io_uring_prep_poll_add(sqe, connection->fd, POLLIN | POLLRDHUP);
      } else {
        io_uring_prep_recv(sqe, connection->fd, nullptr, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = RingExecutor::kReceiveGroup;
        if (connection->drained) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
      }
      connection->reading.begin(op, deadline);
      const int result = co_await op;
      connection->end(connection->reading);
      connection->drained = !poll && (op.flags & IORING_CQE_F_SOCK_NONEMPTY) == 0;
      if ((op.flags & IORING_CQE_F_BUFFER) != 0) {
        const auto id = static_cast<uint16_t>(op.flags >> IORING_CQE_BUFFER_SHIFT);
        if (result > 0 && !connection->closed) {
          received.id = id;
          received.at = 0;
          received.end = static_cast<uint16_t>(result);
          co_return Result<void>();
        }
        connection->ring.return_receive_buffer(id);
      }
      if (connection->closed || connection->reading.timed_out)
        co_return stream_error(connection->reading, connection->closed, -result, "wait");
      if (result > 0) co_return Result<void>();
      if (result == 0 && !poll) {
        received.ended = true;
        co_return Result<void>();
      }
      if (result == -ENOBUFS) {
        poll = true;
        continue;
      }
      if (result == -EINTR || result == -EAGAIN) continue;
      co_return stream_error(connection->reading, false, -result, "wait");
    }
  }

  static Task<Result<void>> write(ConnectionRef connection, std::vector<ByteView> parts, TimePoint deadline) {
    CHECK(connection->writing.pending == nullptr, "two writers on one stream");
    size_t first = 0;
    size_t inside = 0;  // of parts[first], sent already
    for (;;) {
      while (first < parts.size() && inside == parts[first].size()) {
        ++first;
        inside = 0;
      }
      if (first == parts.size()) co_return Result<void>();
      if (connection->closed) co_return fail(Code::cancelled, "write: the connection was closed here");
      SocketOp op;
      iovec vectors[kPartsPerCall];
      msghdr message{};
      // MSG_WAITALL: the ring itself continues short sends (5.19).
      if (first + 1 == parts.size()) {
        const ByteView part = parts[first].subspan(inside);
        io_uring_prep_send(connection->ring.prepare(op), connection->fd, part.data(), std::min(part.size(), kBytesPerCall),
                           MSG_NOSIGNAL | MSG_WAITALL);
      } else {
        size_t count = 0, bytes = 0;
        for (size_t i = first; i < parts.size() && count < kPartsPerCall && bytes < kBytesPerCall; ++i) {
          const ByteView part = i == first ? parts[i].subspan(inside) : parts[i];
          if (part.empty()) continue;
          vectors[count++] = {const_cast<uint8_t*>(part.data()), part.size()};
          bytes += part.size();
        }
        message.msg_iov = vectors;
        message.msg_iovlen = count;
        io_uring_prep_sendmsg(connection->ring.prepare(op), connection->fd, &message, MSG_NOSIGNAL | MSG_WAITALL);
      }
      connection->writing.begin(op, deadline);
      const int result = co_await op;
      connection->end(connection->writing);
      if (result < 0) {
        if ((result == -EINTR || result == -EAGAIN) && !connection->closed && !connection->writing.timed_out) continue;
        co_return stream_error(connection->writing, connection->closed, -result, "write");
      }
      auto sent = static_cast<size_t>(result);
      while (sent > 0) {
        const size_t part = std::min(sent, parts[first].size() - inside);
        inside += part;
        sent -= part;
        if (inside == parts[first].size() && sent > 0) {
          ++first;
          inside = 0;
        }
      }
      // Cut off in the middle: the deadline's cancel found a send that had made progress.
      if (connection->writing.timed_out) co_return stream_error(connection->writing, connection->closed, ETIMEDOUT, "write");
    }
  }

  static Task<Result<void>> shutdown_write(ConnectionRef connection) {
    if (connection->closed) co_return fail(Code::cancelled, "shutdown: the connection was closed here");
    if (shutdown(connection->fd, SHUT_WR) != 0) co_return stream_error(connection->writing, false, errno, "shutdown");
    co_return Result<void>();
  }

  ConnectionRef connection_;
  mutable std::optional<SocketAddress> peer_;
};

// ---------------------------------------------------------------- listening

constexpr Duration kTellAgain = std::chrono::seconds(10);

// One accept at a time; what is not asked for waits in the backlog. Shared by the listener, the kernel's operation and the waiting
// accept().
struct Acceptor : RingOp, Counted {
  RingExecutor& ring;
  const int fd;
  bool closed = false;
  bool armed = false;
  int last_error = 0;
  TimePoint told_at{};  // that there are no descriptors
  int accepted = -1;    // not yet asked for
  std::coroutine_handle<> waiter{};
  std::optional<Ref<Acceptor>> kept;  // while the kernel holds the operation

  Acceptor(RingExecutor& r, int descriptor) : RingOp{&finished}, ring(r), fd(descriptor) {}
  ~Acceptor() {
    if (accepted >= 0) ::close(accepted);
    ::close(fd);
  }
  void arm(const Ref<Acceptor>& self) {
    if (armed || closed) return;
    armed = true;
    kept.emplace(self);
    // Not SOCK_NONBLOCK: the ring would then answer EAGAIN instead of waiting.
    // One at a time: a multishot accept takes all that knock, and with them the descriptors that files and other listeners need, before
    // anybody here can say that it is enough.
    io_uring_prep_accept(ring.prepare(*this), fd, nullptr, nullptr, SOCK_CLOEXEC);
  }
  static void finished(RingOp& op, int result, uint32_t /*flags*/) {
    auto& acceptor = static_cast<Acceptor&>(op);
    const Ref<Acceptor> alive = *std::exchange(acceptor.kept, std::nullopt);
    acceptor.armed = false;
    if (result >= 0) {
      acceptor.accepted = result;
    } else if (result == -ECANCELED) {
      acceptor.closed = true;  // the loop is ending
    } else {
      acceptor.last_error = -result;
    }
    acceptor.wake();
  }
  void wake() {
    if (waiter) ring.post(std::exchange(waiter, {}));
  }
  void close() {
    if (closed) return;
    closed = true;
    if (armed) ring.cancel_op(*this);
    shutdown(fd, SHUT_RDWR);  // new ones are refused from now on, whenever the descriptor goes
    wake();
  }
};

class UringListener : public Listener {
 public:
  UringListener(RingExecutor& ring, int fd, SocketAddress address)
      : acceptor_(std::make_unique<Acceptor>(ring, fd)), address_(std::move(address)) {}
  ~UringListener() override { close(); }

  Task<Result<std::unique_ptr<Stream>>> accept() override { return accept(acceptor_); }
  void close() override { acceptor_->close(); }
  const SocketAddress& address() const override { return address_; }

 private:
  struct Wait {
    Acceptor& acceptor;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const {
      CHECK(!acceptor.waiter, "two accepts wait on one listener");
      acceptor.waiter = handle;
    }
    void await_resume() const noexcept {}
  };
  static Task<Result<std::unique_ptr<Stream>>> accept(Ref<Acceptor> acceptor) {
    for (;;) {
      if (acceptor->closed) co_return fail(Code::cancelled, "accept: the listener was closed");
      if (acceptor->accepted >= 0) {
        std::unique_ptr<Stream> stream = std::make_unique<UringStream>(acceptor->ring, std::exchange(acceptor->accepted, -1));
        co_return stream;
      }
      const int error_number = std::exchange(acceptor->last_error, 0);
      if (error_number == EMFILE || error_number == ENFILE || error_number == ENOBUFS || error_number == ENOMEM) {
        // The connection stays in the backlog. Others have to end first: trying again at once would only burn the processor.
        const TimePoint now = acceptor->ring.now();
        if (now - acceptor->told_at >= kTellAgain) {
          acceptor->told_at = now;
          LOG_WARNING("cannot accept a connection", {"reason", strerror(error_number)},
                      {"hint", "raise the limit of open files (ulimit -n)"});
        }
        co_await sleep_for(std::chrono::milliseconds(100));
      }
      acceptor->arm(acceptor);
      Wait wait{*acceptor};
      co_await wait;
    }
  }
  Ref<Acceptor> acceptor_;
  SocketAddress address_;
};

// ---------------------------------------------------------------- names

struct Endpoint {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

Result<std::vector<Endpoint>> look_up(const SocketAddress& address, bool passive, bool numeric_only) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = (passive ? AI_PASSIVE : 0) | (numeric_only ? AI_NUMERICHOST : 0) | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const auto port = std::to_string(address.port);
  const int error = getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return fail(Code::not_found, "host '{}': {}", address.host, gai_strerror(error));
  std::vector<Endpoint> endpoints;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    Endpoint& endpoint = endpoints.emplace_back();
    std::memcpy(&endpoint.storage, each->ai_addr, each->ai_addrlen);
    endpoint.length = each->ai_addrlen;
  }
  freeaddrinfo(found);
  return endpoints;
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof(value)); }

// Set on a listener these hold for each connection it accepts, without a call for each.
void set_stream_options(int fd, Duration keepalive_idle) {
  const int idle = std::max(1, static_cast<int>(keepalive_idle / std::chrono::seconds(1)));
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, std::max(1, idle / 4));
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}
}  // namespace

UringNetwork::UringNetwork(Options options) : options_(options), lookup_(std::make_unique<ThreadPool>("lookup", options.lookup_threads)) {}
UringNetwork::~UringNetwork() = default;

Result<std::unique_ptr<Listener>> UringNetwork::listen(const SocketAddress& address, bool reuse_port) {
  RingExecutor& ring = RingExecutor::here();
  Result<std::vector<Endpoint>> endpoints = look_up(address, true, true);
  if (!endpoints) endpoints = look_up(address, true, false);  // a name: blocks for a moment, at start
  if (!endpoints) return std::move(endpoints).error();
  const Endpoint& endpoint = endpoints->front();
  const int fd = socket(endpoint.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno_error(errno, "socket");
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (reuse_port) set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (endpoint.storage.ss_family == AF_INET6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  set_stream_options(fd, options_.keepalive_idle);
  const auto refuse = [&](const char* what) -> Error {
    const int error_number = errno;
    ::close(fd);
    if (error_number == EADDRINUSE) {
      return fail(Code::busy, "{} is in use by another program: stop it, or choose another port", address.to_string());
    }
    return errno_error(error_number, fmt::format("{} {}", what, address.to_string()));
  };
  if (bind(fd, reinterpret_cast<const sockaddr*>(&endpoint.storage), endpoint.length) != 0) return refuse("bind to");
  if (::listen(fd, options_.backlog) != 0) return refuse("listen on");
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  return std::make_unique<UringListener>(ring, fd, address_of(bound));
}

Task<Result<std::unique_ptr<Stream>>> UringNetwork::connect(SocketAddress address, TimePoint deadline) {
  RingExecutor& ring = RingExecutor::here();
  Result<std::vector<Endpoint>> endpoints = look_up(address, false, true);
  if (!endpoints) {
    // Bounded by the resolver's own limits, not by the deadline.
    auto slow_look_up = [address] { return look_up(address, false, false); };
    endpoints = co_await blocking(*lookup_, slow_look_up);
  }
  if (!endpoints) co_return std::move(endpoints).error();
  Error last = fail(Code::unavailable, "{}: no address", address.to_string());
  for (const Endpoint& endpoint : *endpoints) {
    if (ring.now() >= deadline) co_return fail(Code::timed_out, "connect to {}: the deadline passed", address.to_string());
    const int fd = socket(endpoint.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) co_return errno_error(errno, "socket");
    set_stream_options(fd, options_.keepalive_idle);
    std::unique_ptr<Stream> stream = std::make_unique<UringStream>(ring, fd, address_of(endpoint.storage));  // owns fd
    Direction direction(ring);
    SocketOp op;
    io_uring_prep_connect(ring.prepare(op), fd, reinterpret_cast<const sockaddr*>(&endpoint.storage), endpoint.length);
    direction.begin(op, deadline);
    const int result = co_await op;
    direction.end();
    ring.cancel(direction.timer);
    if (result == 0) co_return stream;
    if (direction.timed_out) co_return fail(Code::timed_out, "connect to {}: the deadline passed", address.to_string());
    last = fail(Code::unavailable, "connect to {}: {}", address.to_string(), strerror(-result));
  }
  co_return last;
}

}  // namespace quarry
