// Two connected in-memory streams, for tests of protocol code: what one writes the other reads. Confined to one executor. Each direction
// holds at most `capacity` bytes, so that back-pressure and stalled peers can be played; a read can be limited to a few bytes at a time.
#pragma once
#include <memory>
#include <string>

#include "io/network.h"
#include "io/sync.h"

namespace quarry {

struct MemoryPipe {
  std::string bytes;
  size_t capacity = 256 * kKiB;
  size_t read_max = SIZE_MAX;  // bytes that one read returns at most
  bool ended = false;          // the writer is done
  bool broken = false;         // either side was closed
  uint64_t total = 0;          // bytes ever written
  Event changed;
};

class MemoryStream final : public Stream {
 public:
  MemoryStream(std::shared_ptr<MemoryPipe> in, std::shared_ptr<MemoryPipe> out) : in_(std::move(in)), out_(std::move(out)) {}
  ~MemoryStream() override { close(); }
  static std::pair<std::unique_ptr<MemoryStream>, std::unique_ptr<MemoryStream>> pair() {
    auto a = std::make_shared<MemoryPipe>(), b = std::make_shared<MemoryPipe>();
    return {std::make_unique<MemoryStream>(a, b), std::make_unique<MemoryStream>(b, a)};
  }

  Task<Result<size_t>> read(MutableByteView into, TimePoint deadline) override;
  Task<Result<void>> wait_readable(TimePoint deadline) override;
  Task<Result<void>> write(std::vector<ByteView> parts, TimePoint deadline) override;
  Task<Result<void>> shutdown_write() override;
  void close() override;
  const SocketAddress& peer() const override { return peer_; }
  std::string_view alpn() const override { return alpn_; }

  MemoryPipe& incoming() { return *in_; }
  MemoryPipe& outgoing() { return *out_; }
  bool closed() const { return closed_; }
  uint64_t writes() const { return writes_; }
  void set_alpn(std::string alpn) { alpn_ = std::move(alpn); }

 private:
  std::shared_ptr<MemoryPipe> in_, out_;
  SocketAddress peer_{"198.51.100.7", 40000};
  std::string alpn_;
  bool closed_ = false;
  uint64_t writes_ = 0;
};

// A network whose connections are MemoryStreams: connect() hands the other end to the listener of that port.
class MemoryNetwork final : public Network {
 public:
  Result<std::unique_ptr<Listener>> listen(const SocketAddress& address, bool reuse_port) override;
  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, TimePoint deadline) override;
  uint64_t connects() const { return connects_; }

  struct Port {
    std::deque<std::unique_ptr<Stream>> waiting;
    bool open = true;
    Event changed;
  };

 private:
  std::map<uint16_t, std::shared_ptr<Port>> ports_;
  uint16_t next_port_ = 20000;
  uint64_t connects_ = 0;
};

}  // namespace quarry
