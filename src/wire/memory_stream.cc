#include "wire/memory_stream.h"

namespace quarry {

Task<Result<size_t>> MemoryStream::read(MutableByteView into, TimePoint deadline) {
  const auto in = in_;  // outlives this stream while the read waits
  for (;;) {
    if (closed_) co_return Error(Code::cancelled, "the stream was closed");
    if (!in->bytes.empty()) {
      const size_t size = std::min({into.size(), in->bytes.size(), in->read_max});
      std::memcpy(into.data(), in->bytes.data(), size);
      in->bytes.erase(0, size);
      in->changed.pulse();
      co_return size;
    }
    if (in->ended) co_return size_t{0};
    if (in->broken) co_return Error(Code::connection_closed, "the peer closed the stream");
    const bool in_time = co_await in->changed.wait_until(deadline);
    if (!in_time && in->bytes.empty() && !in->ended && !in->broken) co_return Error(Code::timed_out, "nothing to read");
  }
}

Task<Result<void>> MemoryStream::wait_readable(TimePoint deadline) {
  const auto in = in_;
  for (;;) {
    if (closed_) co_return Error(Code::cancelled, "the stream was closed");
    if (!in->bytes.empty() || in->ended || in->broken) co_return Result<void>();
    const bool in_time = co_await in->changed.wait_until(deadline);
    if (!in_time && in->bytes.empty() && !in->ended && !in->broken) co_return Error(Code::timed_out, "nothing to read");
  }
}

Task<Result<void>> MemoryStream::write(std::vector<ByteView> parts, TimePoint deadline) {
  const auto out = out_;
  ++writes_;
  for (ByteView part : parts) {
    while (!part.empty()) {
      if (closed_) co_return Error(Code::cancelled, "the stream was closed");
      if (out->broken) co_return Error(Code::connection_closed, "the peer closed the stream");
      const size_t room = out->capacity > out->bytes.size() ? out->capacity - out->bytes.size() : 0;
      if (room == 0) {
        const bool in_time = co_await out->changed.wait_until(deadline);
        if (!in_time && out->bytes.size() >= out->capacity) co_return Error(Code::timed_out, "the peer takes nothing");
        continue;
      }
      const size_t size = std::min(room, part.size());
      out->bytes.append(text_of(part.first(size)));
      out->total += size;
      part = part.subspan(size);
      out->changed.pulse();
    }
  }
  co_return Result<void>();
}

Task<Result<void>> MemoryStream::shutdown_write() {
  out_->ended = true;
  out_->changed.pulse();
  co_return Result<void>();
}

void MemoryStream::close() {
  if (closed_) return;
  closed_ = true;
  out_->ended = true;
  in_->broken = true;  // the other side's writes fail
  out_->changed.pulse();
  in_->changed.pulse();
}

namespace {
class MemoryListener final : public Listener {
 public:
  MemoryListener(std::shared_ptr<MemoryNetwork::Port> port, SocketAddress address) : port_(std::move(port)), address_(std::move(address)) {}
  ~MemoryListener() override { close(); }
  Task<Result<std::unique_ptr<Stream>>> accept() override {
    const auto port = port_;
    for (;;) {
      if (!port->open) co_return Error(Code::cancelled, "the listener was closed");
      if (!port->waiting.empty()) {
        auto stream = std::move(port->waiting.front());
        port->waiting.pop_front();
        co_return std::move(stream);
      }
      co_await port->changed.wait();
      port->changed.reset();
    }
  }
  void close() override {
    port_->open = false;
    port_->waiting.clear();
    port_->changed.pulse();
  }
  const SocketAddress& address() const override { return address_; }

 private:
  std::shared_ptr<MemoryNetwork::Port> port_;
  SocketAddress address_;
};
}  // namespace

Result<std::unique_ptr<Listener>> MemoryNetwork::listen(const SocketAddress& address, bool /*reuse_port*/) {
  SocketAddress real = address;
  if (real.port == 0) real.port = next_port_++;
  auto& port = ports_[real.port];
  if (port && port->open) return fail(Code::already_exists, "port {} is in use", real.port);
  port = std::make_shared<Port>();
  return std::make_unique<MemoryListener>(port, real);
}

Task<Result<std::unique_ptr<Stream>>> MemoryNetwork::connect(SocketAddress address, TimePoint /*deadline*/) {
  const auto found = ports_.find(address.port);
  if (found == ports_.end() || !found->second->open) co_return fail(Code::unavailable, "nobody listens on port {}", address.port);
  ++connects_;
  auto [ours, theirs] = MemoryStream::pair();
  found->second->waiting.push_back(std::move(theirs));
  found->second->changed.pulse();
  co_return std::unique_ptr<Stream>(std::move(ours));
}

}  // namespace quarry
