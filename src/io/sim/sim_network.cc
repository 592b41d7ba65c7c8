#include "io/sim/sim_network.h"

#include "base/check.h"

namespace quarry {
namespace {

// One direction of a connection.
struct Pipe {
  struct Segment {
    std::vector<uint8_t> bytes;  // empty: the orderly end
    size_t at = 0;
    TimePoint ready;
    bool held = false;  // by a partition or stall, until heal
  };
  std::string from, to;
  std::deque<Segment> segments;
  size_t bytes = 0;
  bool writer_ended = false;
  bool reader_gone = false;
  TimePoint last_ready{};
  Event changed;
};

struct Connection {
  std::shared_ptr<Pipe> pipes[2];  // [0] from the connecting side, [1] from the accepting one
  bool reset = false;
  void do_reset() {
    reset = true;
    for (const auto& pipe : pipes) {
      pipe->segments.clear();
      pipe->bytes = 0;
      pipe->changed.pulse();
    }
  }
};

struct Listening {
  SocketAddress address;
  std::deque<std::unique_ptr<Stream>> ready;
  Event changed;
  bool closed = false;
};

bool is_loopback_name(const std::string& host) {
  return host == "localhost" || host == "127.0.0.1" || host == "::1" || host == "0.0.0.0" || host == "::";
}

using Pair = std::pair<std::string, std::string>;
}  // namespace

struct SimFabric::State {
  Options options;
  uint64_t random;
  uint16_t next_port = 10000;
  std::map<std::pair<std::string, uint16_t>, std::weak_ptr<Listening>> listeners;
  std::vector<std::weak_ptr<Connection>> connections;
  std::set<Pair> blocked;  // directions
  Event healed;

  uint64_t next_random() {
    // splitmix64 (Steele, Lea, Flood 2014)
    uint64_t z = (random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  Duration latency() {
    const int64_t span = (options.latency_max - options.latency_min).count();
    return options.latency_min + Duration(span > 0 ? static_cast<int64_t>(next_random() % static_cast<uint64_t>(span + 1)) : 0);
  }
  bool is_blocked(const std::string& from, const std::string& to) const { return blocked.contains({from, to}); }
  template <class F>
  void each_connection(F visit) {
    std::erase_if(connections, [](const auto& weak) { return weak.expired(); });
    for (const auto& weak : std::vector(connections)) {
      if (const auto connection = weak.lock()) visit(*connection);
    }
  }
  void push(Pipe& pipe, std::vector<uint8_t> bytes) {
    Pipe::Segment segment;
    segment.bytes = std::move(bytes);
    segment.ready = pipe.last_ready = std::max(pipe.last_ready, Executor::here().now() + latency());
    segment.held = is_blocked(pipe.from, pipe.to);
    pipe.bytes += segment.bytes.size();
    pipe.segments.push_back(std::move(segment));
    pipe.changed.pulse();
  }
  void block(const std::string& from, const std::string& to) {
    blocked.insert({from, to});
    const TimePoint now = Executor::here().now();
    each_connection([&](Connection& connection) {
      for (const auto& pipe : connection.pipes) {
        if (pipe->from != from || pipe->to != to) continue;
        for (auto& segment : pipe->segments) segment.held |= segment.ready > now;
      }
    });
  }
  void unblock(const std::string& from, const std::string& to) {
    blocked.erase({from, to});
    each_connection([&](Connection& connection) {
      for (const auto& pipe : connection.pipes) {
        if (pipe->from != from || pipe->to != to) continue;
        for (auto& segment : pipe->segments) {
          if (!std::exchange(segment.held, false)) continue;
          segment.ready = pipe->last_ready = std::max(pipe->last_ready, Executor::here().now() + latency());
        }
        pipe->changed.pulse();
      }
    });
    healed.pulse();
  }
};

namespace {

// One end. Its coroutines hold it, so the stream may die under them.
struct Side {
  SimFabric::State& fabric;
  std::shared_ptr<Connection> connection;
  std::shared_ptr<Pipe> in, out;
  SocketAddress peer;
  bool closed = false;
  bool reading = false, writing = false;

  std::optional<Error> trouble(const char* verb) const {
    if (closed) return fail(Code::cancelled, "{}: the connection was closed here", verb);
    if (connection->reset) return fail(Code::connection_closed, "{}: reset (simulated)", verb);
    return std::nullopt;
  }
};
using SideRef = std::shared_ptr<Side>;

class SimStream : public Stream {
 public:
  explicit SimStream(SideRef side) : side_(std::move(side)) {}
  ~SimStream() override { close(); }
  Task<Result<size_t>> read(MutableByteView into, TimePoint deadline) override { return read(side_, into, deadline); }
  Task<Result<void>> wait_readable(TimePoint deadline) override { return wait_readable(side_, deadline); }
  Task<Result<void>> write(std::vector<ByteView> parts, TimePoint deadline) override { return write(side_, std::move(parts), deadline); }
  Task<Result<void>> shutdown_write() override { return shutdown_write(side_); }
  void close() override {
    Side& side = *side_;
    if (side.closed) return;
    side.closed = true;
    side.in->reader_gone = true;
    if (Executor::current() == nullptr) return;  // after the simulation: nobody waits
    // As TCP does: unread bytes at close become a reset, otherwise an orderly end.
    if (!side.connection->reset) {
      if (side.in->bytes > 0) {
        side.connection->do_reset();
      } else if (!std::exchange(side.out->writer_ended, true)) {
        side.fabric.push(*side.out, {});
      }
    }
    side.in->changed.pulse();
    side.out->changed.pulse();
  }
  const SocketAddress& peer() const override { return side_->peer; }

 private:
  // Waits until the front segment may be read.
  static Task<Result<void>> arrive(SideRef side, TimePoint deadline) {
    Executor& executor = Executor::here();
    CHECK(!side->reading, "two readers on one stream");
    side->reading = true;
    std::optional<Error> error;
    for (;;) {
      if ((error = side->trouble("read"))) break;
      const auto& segments = side->in->segments;
      const TimePoint now = executor.now();
      if (!segments.empty() && !segments.front().held && segments.front().ready <= now) break;
      if (now >= deadline) {
        error = fail(Code::timed_out, "read: the deadline passed");
        break;
      }
      TimePoint until = deadline;
      if (!segments.empty() && !segments.front().held) until = std::min(until, segments.front().ready);
      co_await side->in->changed.wait_until(until);
    }
    side->reading = false;
    if (error) co_return std::move(*error);
    co_return Result<void>();
  }
  static Task<Result<void>> wait_readable(SideRef side, TimePoint deadline) {
    co_await Executor::here().yield();
    Result<void> arrived = co_await arrive(side, deadline);
    if (!arrived && arrived.error().code() == Code::connection_closed) co_return Result<void>();  // the read says it
    co_return arrived;
  }
  static Task<Result<size_t>> read(SideRef side, MutableByteView into, TimePoint deadline) {
    CHECK(!into.empty(), "a read of nothing");
    co_await Executor::here().yield();
    CO_TRY(co_await arrive(side, deadline));
    Pipe& pipe = *side->in;
    const TimePoint now = Executor::here().now();
    size_t room = into.size();
    if (side->fabric.options.split_reads) {
      // Often a handful of bytes: parsers break at the seams.
      const uint64_t dice = side->fabric.next_random();
      room = std::min(room, std::max<size_t>(1, pipe.bytes));
      room = 1 + (dice >> 8) % (dice % 4 == 0 ? std::min<size_t>(room, 8) : room);
    }
    size_t total = 0;
    while (total < room && !pipe.segments.empty()) {
      auto& segment = pipe.segments.front();
      if (segment.held || segment.ready > now || segment.bytes.empty()) break;  // the end stays, for every later read
      const size_t count = std::min(room - total, segment.bytes.size() - segment.at);
      std::memcpy(into.data() + total, segment.bytes.data() + segment.at, count);
      total += count;
      segment.at += count;
      pipe.bytes -= count;
      if (segment.at == segment.bytes.size()) pipe.segments.pop_front();
    }
    pipe.changed.pulse();
    co_return total;
  }
  static Task<Result<void>> write(SideRef side, std::vector<ByteView> parts, TimePoint deadline) {
    Executor& executor = Executor::here();
    CHECK(!side->writing, "two writers on one stream");
    side->writing = true;
    co_await executor.yield();
    std::optional<Error> error;
    Pipe& pipe = *side->out;
    for (ByteView part : parts) {
      while (!part.empty() && !error) {
        if ((error = side->trouble("write"))) break;
        if (pipe.reader_gone || pipe.writer_ended) {
          error = fail(Code::connection_closed, "write: the peer has closed");
        } else if (pipe.bytes >= side->fabric.options.buffer_max) {
          if (executor.now() >= deadline) {
            error = fail(Code::timed_out, "write: the deadline passed");
          } else {
            co_await pipe.changed.wait_until(deadline);
          }
        } else {
          const size_t count = std::min(part.size(), side->fabric.options.buffer_max - pipe.bytes);
          side->fabric.push(pipe, {part.begin(), part.begin() + static_cast<ptrdiff_t>(count)});
          part = part.subspan(count);
        }
      }
      if (error) break;
    }
    side->writing = false;
    if (error) co_return std::move(*error);
    co_return Result<void>();
  }
  static Task<Result<void>> shutdown_write(SideRef side) {
    co_await Executor::here().yield();
    if (auto error = side->trouble("shutdown")) co_return std::move(*error);
    if (!std::exchange(side->out->writer_ended, true)) side->fabric.push(*side->out, {});
    co_return Result<void>();
  }
  SideRef side_;
};

class SimListener : public Listener {
 public:
  explicit SimListener(std::shared_ptr<Listening> listening) : listening_(std::move(listening)) {}
  ~SimListener() override { close(); }
  Task<Result<std::unique_ptr<Stream>>> accept() override { return accept(listening_); }
  void close() override {
    if (std::exchange(listening_->closed, true)) return;
    listening_->ready.clear();
    if (Executor::current() != nullptr) listening_->changed.pulse();
  }
  const SocketAddress& address() const override { return listening_->address; }

 private:
  static Task<Result<std::unique_ptr<Stream>>> accept(std::shared_ptr<Listening> listening) {
    co_await Executor::here().yield();
    while (listening->ready.empty() && !listening->closed) co_await listening->changed.wait();
    if (listening->closed) co_return fail(Code::cancelled, "accept: the listener was closed");
    std::unique_ptr<Stream> stream = std::move(listening->ready.front());
    listening->ready.pop_front();
    co_return stream;
  }
  std::shared_ptr<Listening> listening_;
};

class SimNetwork : public Network {
 public:
  SimNetwork(SimFabric::State& fabric, std::string name) : fabric_(fabric), name_(std::move(name)) {}

  Result<std::unique_ptr<Listener>> listen(const SocketAddress& address, bool) override {
    if (address.host != name_ && !is_loopback_name(address.host)) {
      return fail(Code::not_found, "host '{}' is not this host ('{}')", address.host, name_);
    }
    SocketAddress real = address;
    while (real.port == 0) {
      const uint16_t port = fabric_.next_port++;
      const auto it = fabric_.listeners.find({name_, port});
      if (it == fabric_.listeners.end() || it->second.expired()) real.port = port;
    }
    auto& slot = fabric_.listeners[{name_, real.port}];
    const auto taken = slot.lock();
    if (taken && !taken->closed) return fail(Code::busy, "{} is in use", real.to_string());
    auto listening = std::make_shared<Listening>();
    listening->address = real;
    slot = listening;
    return std::make_unique<SimListener>(std::move(listening));
  }

  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, TimePoint deadline) override {
    return connect(fabric_, name_, std::move(address), deadline);
  }

 private:
  static Task<Result<std::unique_ptr<Stream>>> connect(SimFabric::State& fabric, std::string from, SocketAddress address,
                                                       TimePoint deadline) {
    Executor& executor = Executor::here();
    const std::string to = is_loopback_name(address.host) ? from : address.host;
    co_await executor.yield();
    while (fabric.is_blocked(from, to) || fabric.is_blocked(to, from)) {
      if (executor.now() >= deadline) co_return fail(Code::timed_out, "connect to {}: the deadline passed", address.to_string());
      co_await fabric.healed.wait_until(deadline);
    }
    const TimePoint arrival = executor.now() + fabric.latency() + fabric.latency();
    if (arrival > deadline) {
      co_await sleep_until(std::max(deadline, executor.now()));
      co_return fail(Code::timed_out, "connect to {}: the deadline passed", address.to_string());
    }
    if (arrival > executor.now()) co_await sleep_until(arrival);
    const auto it = fabric.listeners.find({to, address.port});
    const auto listening = it == fabric.listeners.end() ? nullptr : it->second.lock();
    if (listening == nullptr || listening->closed || listening->ready.size() >= fabric.options.backlog) {
      co_return fail(Code::unavailable, "connect to {}: refused", address.to_string());
    }
    auto connection = std::make_shared<Connection>();
    for (auto& pipe : connection->pipes) pipe = std::make_shared<Pipe>();
    connection->pipes[0]->from = connection->pipes[1]->to = from;
    connection->pipes[0]->to = connection->pipes[1]->from = to;
    fabric.connections.push_back(connection);
    const SocketAddress client{from, fabric.next_port++};
    listening->ready.push_back(
        std::make_unique<SimStream>(std::make_shared<Side>(fabric, connection, connection->pipes[0], connection->pipes[1], client)));
    listening->changed.pulse();
    std::unique_ptr<Stream> stream =
        std::make_unique<SimStream>(std::make_shared<Side>(fabric, connection, connection->pipes[1], connection->pipes[0], address));
    co_return stream;
  }
  SimFabric::State& fabric_;
  std::string name_;
};
}  // namespace

SimFabric::SimFabric(Options options) : state_(std::make_unique<State>()) {
  state_->options = options;
  state_->random = options.seed;
}
SimFabric::~SimFabric() = default;

std::unique_ptr<Network> SimFabric::host(std::string name) { return std::make_unique<SimNetwork>(*state_, std::move(name)); }

void SimFabric::partition(const std::string& a, const std::string& b) {
  state_->block(a, b);
  state_->block(b, a);
}
void SimFabric::heal(const std::string& a, const std::string& b) {
  state_->unblock(a, b);
  state_->unblock(b, a);
}
void SimFabric::heal_all() {
  for (const auto& [from, to] : std::set(state_->blocked)) state_->unblock(from, to);
}
void SimFabric::stall(const std::string& from, const std::string& to) { state_->block(from, to); }
void SimFabric::cut(const std::string& a, const std::string& b) {
  state_->each_connection([&](Connection& connection) {
    const Pipe& pipe = *connection.pipes[0];
    if ((pipe.from == a && pipe.to == b) || (pipe.from == b && pipe.to == a)) connection.do_reset();
  });
}
void SimFabric::kill(const std::string& name) {
  state_->each_connection([&](Connection& connection) {
    if (connection.pipes[0]->from == name || connection.pipes[0]->to == name) connection.do_reset();
  });
  for (auto it = state_->listeners.begin(); it != state_->listeners.end();) {
    if (it->first.first != name) {
      ++it;
      continue;
    }
    if (const auto listening = it->second.lock()) {
      listening->closed = true;
      listening->ready.clear();
      listening->changed.pulse();
    }
    it = state_->listeners.erase(it);
  }
}
void SimFabric::set_latency(Duration min, Duration max) {
  state_->options.latency_min = min;
  state_->options.latency_max = max;
}
size_t SimFabric::open_connections() const {
  size_t count = 0;
  state_->each_connection([&](Connection& connection) { count += !connection.reset; });
  return count;
}

}  // namespace quarry
