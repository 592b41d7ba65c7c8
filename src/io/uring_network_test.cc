#include "io/uring_network.h"

#include <gtest/gtest.h>

#include "io/needs_ring.h"

namespace quarry {
namespace {
using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint in(Duration duration) { return Executor::here().now() + duration; }
class UringNetworkTest : public NeedsRing {};

const SocketAddress kAnyPort{"127.0.0.1", 0};

std::unique_ptr<RingExecutor> make_ring() {
  auto executor = RingExecutor::create();
  if (!executor) {
    ADD_FAILURE() << executor.error().to_string();
    std::abort();
  }
  return std::move(*executor);
}

struct Pair {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> client, server;
};
Task<Pair> connected(Network& network) {
  Pair pair;
  pair.listener = std::move(*network.listen(kAnyPort, false));
  auto client = co_await network.connect(pair.listener->address(), in(seconds(5)));
  CHECK(client.has_value(), "connect");
  pair.client = std::move(*client);
  auto server = co_await pair.listener->accept();
  CHECK(server.has_value(), "accept");
  pair.server = std::move(*server);
  co_return pair;
}
Task<Result<std::string>> read_text(Stream& stream, Duration patience) {
  Buffer into(4096);
  Result<size_t> got = co_await stream.read(into.mutable_view(), in(patience));
  if (!got) co_return std::move(got).error();
  co_return std::string(text_of(into.view().first(*got)));
}
Task<Result<void>> write_text(Stream& stream, std::string text) {
  std::vector<ByteView> parts{bytes_of(text)};
  Result<void> result = co_await stream.write(std::move(parts), in(seconds(5)));
  co_return result;
}

TEST_F(UringNetworkTest, bytes_go_both_ways_and_end_in_order) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    Pair pair = co_await connected(net);
    EXPECT_TRUE(pair.server->peer().is_loopback());
    EXPECT_NE(pair.server->peer().port, 0);
    Result<void> sent = co_await write_text(*pair.client, "ping");
    EXPECT_TRUE(sent);
    Result<std::string> got = co_await read_text(*pair.server, seconds(5));
    EXPECT_EQ(got.value_or("?"), "ping");
    sent = co_await write_text(*pair.server, "pong");
    sent = co_await pair.server->shutdown_write();
    EXPECT_TRUE(sent);
    got = co_await read_text(*pair.client, seconds(5));
    EXPECT_EQ(got.value_or("?"), "pong");
    got = co_await read_text(*pair.client, seconds(5));
    EXPECT_EQ(got.value_or("?"), "") << "the orderly end";
    sent = co_await write_text(*pair.client, "half open");
    got = co_await read_text(*pair.server, seconds(5));
    EXPECT_EQ(got.value_or("?"), "half open");
  }(network));
}

TEST_F(UringNetworkTest, large_gathered_writes_arrive_whole_while_both_sides_work) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    Pair pair = co_await connected(net);
    TaskGroup group;
    group.spawn([](Stream& stream) -> Task<void> {
      std::vector<Buffer> owned;
      std::vector<ByteView> parts;
      for (int i = 0; i < 150; ++i) {
        Buffer& part = owned.emplace_back(static_cast<size_t>(1 + i * 997 % 200'000));
        std::memset(part.data(), i, part.size());
        parts.push_back(part.view());
        parts.push_back({});  // empty parts are nothing
      }
      Result<void> sent = co_await stream.write(std::move(parts), in(seconds(20)));
      EXPECT_TRUE(sent);
      Result<void> ended = co_await stream.shutdown_write();
      EXPECT_TRUE(ended);
    }(*pair.server));
    std::vector<size_t> counts(150);
    Buffer into(kMiB);
    uint8_t last = 0;
    for (;;) {
      Result<size_t> got = co_await pair.client->read(into.mutable_view(), in(seconds(20)));
      EXPECT_TRUE(got);
      if (!got || *got == 0) break;
      for (size_t i = 0; i < *got; ++i) {
        EXPECT_GE(into.data()[i], last);
        last = into.data()[i];
        ++counts[last];
      }
    }
    for (size_t i = 0; i < counts.size(); ++i) EXPECT_EQ(counts[i], 1 + i * 997 % 200'000);
    co_await group.join();
  }(network));
}

TEST_F(UringNetworkTest, a_read_and_a_write_time_out) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    Pair pair = co_await connected(net);
    const TimePoint start = Executor::here().now();
    Result<std::string> got = co_await read_text(*pair.server, milliseconds(20));
    EXPECT_FALSE(got);
    EXPECT_EQ(got.error().code(), Code::timed_out);
    EXPECT_GE(Executor::here().now() - start, milliseconds(20));
    Result<void> waited = co_await pair.server->wait_readable(in(milliseconds(10)));
    EXPECT_EQ(waited.error().code(), Code::timed_out);
    // A later deadline after an earlier one: the timer that is still armed must not cut it short.
    got = co_await read_text(*pair.server, milliseconds(60));
    EXPECT_EQ(got.error().code(), Code::timed_out);
    EXPECT_GE(Executor::here().now() - start, milliseconds(90));
    // The connection still works after a read timed out.
    Result<void> sent = co_await write_text(*pair.client, "late");
    EXPECT_TRUE(sent);
    waited = co_await pair.server->wait_readable(in(seconds(5)));
    EXPECT_TRUE(waited);
    got = co_await read_text(*pair.server, seconds(5));
    EXPECT_EQ(got.value_or("?"), "late");
    Buffer flood(8 * kMiB);
    std::memset(flood.data(), 0, flood.size());
    std::vector<ByteView> parts{flood.view(), flood.view()};
    sent = co_await pair.server->write(std::move(parts), in(milliseconds(30)));
    EXPECT_FALSE(sent);
    EXPECT_EQ(sent.error().code(), Code::timed_out);
  }(network));
}

TEST_F(UringNetworkTest, deadlines_that_move_on_cost_one_timer) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    Pair pair = co_await connected(net);
    const TimePoint start = Executor::here().now();
    int rounds = 0;
    while (Executor::here().now() - start < milliseconds(60) || rounds <= 10) {
      Result<void> sent = co_await write_text(*pair.client, "x");
      Result<std::string> got = co_await read_text(*pair.server, milliseconds(25));
      EXPECT_EQ(got.value_or("?"), "x");
      if (!got) break;
      ++rounds;
    }
    EXPECT_GT(rounds, 10);
  }(network));
}

TEST_F(UringNetworkTest, close_cancels_who_waits_and_the_stream_may_die_first) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    Pair pair = co_await connected(net);
    TaskGroup group;
    int cancelled = 0;
    group.spawn([](Stream& stream, int& count) -> Task<void> {
      Result<std::string> got = co_await read_text(stream, seconds(60));
      count += !got && got.error().code() == Code::cancelled;
    }(*pair.server, cancelled));
    group.spawn([](Stream& stream, int& count) -> Task<void> {
      Buffer flood(8 * kMiB);
      std::memset(flood.data(), 1, flood.size());
      std::vector<ByteView> parts{flood.view(), flood.view()};
      Result<void> sent = co_await stream.write(std::move(parts), in(seconds(60)));
      count += !sent && sent.error().code() == Code::cancelled;
    }(*pair.server, cancelled));
    co_await sleep_for(milliseconds(10));
    pair.server->close();
    pair.server->close();
    pair.server.reset();
    co_await group.join();
    EXPECT_EQ(cancelled, 2);
    Result<std::string> after = co_await read_text(*pair.client, seconds(5));
    while (after && !after->empty()) after = co_await read_text(*pair.client, seconds(5));
    pair.client->close();
    after = co_await read_text(*pair.client, seconds(5));
    EXPECT_EQ(after.error().code(), Code::cancelled);
  }(network));
}

TEST_F(UringNetworkTest, a_peer_that_vanishes_is_an_error_or_an_end) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    Pair pair = co_await connected(net);
    Result<void> sent = co_await write_text(*pair.client, "unread");
    EXPECT_TRUE(sent);
    co_await sleep_for(milliseconds(100));
    pair.server->close();  // with unread bytes: the kernel resets the connection
    Result<std::string> got = co_await read_text(*pair.client, seconds(5));
    EXPECT_TRUE(!got && got.error().code() == Code::connection_closed);
    sent = co_await write_text(*pair.client, "into the void");
    EXPECT_EQ(sent.error().code(), Code::connection_closed);
  }(network));
}

TEST_F(UringNetworkTest, connect_says_why_it_failed) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    auto listener = std::move(*net.listen(kAnyPort, false));
    const SocketAddress address = listener->address();
    auto taken = net.listen(address, false);
    EXPECT_EQ(taken.error().code(), Code::busy);
    listener->close();
    auto refused = co_await net.connect(address, in(seconds(5)));
    for (int i = 0; i < 200 && refused; ++i) {  // the kernel ends it a moment later
      co_await sleep_for(milliseconds(10));
      refused = co_await net.connect(address, in(seconds(5)));
    }
    EXPECT_FALSE(refused);
    if (refused) co_return;
    EXPECT_EQ(refused.error().code(), Code::unavailable);
    SocketAddress nowhere{"no-such-host.invalid", 1};
    auto unknown = co_await net.connect(nowhere, in(seconds(5)));
    EXPECT_FALSE(unknown);
    if (unknown) co_return;
    const Code code = unknown.error().code();
    EXPECT_TRUE(code == Code::not_found || code == Code::timed_out) << unknown.error().to_string();  // a machine's name service may be away
    auto late = co_await net.connect(address, in(seconds(-1)));
    EXPECT_EQ(late.error().code(), Code::timed_out);
  }(network));
}

TEST_F(UringNetworkTest, names_and_ipv6_work) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    auto any = net.listen(*SocketAddress::parse("*:0"), false);
    EXPECT_TRUE(any);
    if (!any) co_return;
    const uint16_t port = (*any)->address().port;
    for (const char* host : {"127.0.0.1", "::1", "localhost"}) {
      SocketAddress target{host, port};
      if (!net.listen(SocketAddress{host, 0}, false)) continue;  // most containers have no IPv6
      auto client = co_await net.connect(target, in(seconds(5)));
      EXPECT_TRUE(client) << host;
      if (!client) co_return;
      auto server = co_await (*any)->accept();
      EXPECT_TRUE(server && (*server)->peer().is_loopback()) << host;
    }
  }(network));
}

TEST_F(UringNetworkTest, closing_a_listener_cancels_accept_and_refuses) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    auto listener = std::move(*net.listen(kAnyPort, false));
    TaskGroup group;
    bool cancelled = false;
    group.spawn([](Listener& l, bool& out) -> Task<void> {
      auto stream = co_await l.accept();
      out = !stream && stream.error().code() == Code::cancelled;
    }(*listener, cancelled));
    co_await sleep_for(milliseconds(2));
    listener->close();
    co_await group.join();
    EXPECT_TRUE(cancelled);
  }(network));
}

TEST_F(UringNetworkTest, many_connections_at_once_all_arrive_and_idle_ones_are_cheap) {
  UringNetwork network;
  auto executor = make_ring();
  executor->run([](Network& net) -> Task<void> {
    auto listener = std::move(*net.listen(kAnyPort, false));
    std::vector<std::unique_ptr<Stream>> clients, servers;
    for (int i = 0; i < 200; ++i) {
      auto client = co_await net.connect(listener->address(), in(seconds(5)));
      EXPECT_TRUE(client);
      clients.push_back(std::move(*client));
    }
    while (servers.size() < clients.size()) {
      auto server = co_await listener->accept();
      EXPECT_TRUE(server);
      servers.push_back(std::move(*server));
    }
    RingExecutor::here().has_receive_buffers();  // made once for the loop
    const uint64_t before = buffer_bytes_in_use();
    TaskGroup group;
    int woken = 0;
    for (auto& server : servers) {
      group.spawn([](Stream& stream, int& count) -> Task<void> {
        Result<void> ready = co_await stream.wait_readable(in(seconds(30)));
        count += ready.has_value();
      }(*server, woken));
    }
    co_await sleep_for(milliseconds(5));
    EXPECT_EQ(buffer_bytes_in_use(), before);
    clients.clear();  // the peer's end wakes them
    co_await group.join();
    EXPECT_EQ(woken, 200);
  }(network));
}

TEST_F(UringNetworkTest, waiting_streams_share_buffers_and_go_on_without_when_all_are_taken) {
  UringNetwork network;
  auto made = RingExecutor::create({.receive_buffers = 4});
  ASSERT_TRUE(made) << made.error().to_string();
  (*made)->run([](Network& net) -> Task<void> {
    auto listener = std::move(*net.listen(kAnyPort, false));
    std::vector<std::unique_ptr<Stream>> clients, servers;
    for (int i = 0; i < 12; ++i) {
      auto client = co_await net.connect(listener->address(), in(seconds(5)));
      auto server = co_await listener->accept();
      clients.push_back(std::move(*client));
      servers.push_back(std::move(*server));
    }
    for (int round = 0; round < 5; ++round) {
      std::vector<std::string> texts;
      for (size_t i = 0; i < clients.size(); ++i)
        texts.push_back(fmt::format("client {} round {} ", i, round) + std::string(i * 1500, 'y'));
      for (size_t i = 0; i < clients.size(); ++i) {
        Result<void> sent = co_await write_text(*clients[i], texts[i]);
        EXPECT_TRUE(sent);
      }
      // All have waited, and hold what there was to hold, before the first reads.
      for (auto& server : servers) {
        Result<void> ready = co_await server->wait_readable(in(seconds(5)));
        EXPECT_TRUE(ready);
        ready = co_await server->wait_readable(in(seconds(5)));
        EXPECT_TRUE(ready) << "waiting twice changes nothing";
      }
      for (size_t i = 0; i < servers.size(); ++i) {
        std::string got;
        while (got.size() < texts[i].size()) {
          Buffer into(1000);
          Result<size_t> count = co_await servers[i]->read(into.mutable_view(), in(seconds(5)));
          EXPECT_TRUE(count && *count > 0);
          if (!count || *count == 0) break;
          got += text_of(into.view().first(*count));
        }
        EXPECT_EQ(got, texts[i]);
      }
    }
    for (size_t i = 0; i < 4; ++i) {
      Result<void> sent = co_await write_text(*clients[i], "never read");
      Result<void> ready = co_await servers[i]->wait_readable(in(seconds(5)));
      EXPECT_TRUE(sent && ready);
      servers[i]->close();  // gives its buffer back
    }
    Result<void> ended = co_await clients[8]->shutdown_write();
    Result<void> ready = co_await servers[8]->wait_readable(in(seconds(5)));
    EXPECT_TRUE(ended && ready);
    Result<std::string> got = co_await read_text(*servers[8], seconds(5));
    EXPECT_EQ(got.value_or("?"), "");
    got = co_await read_text(*servers[8], seconds(5));
    EXPECT_EQ(got.value_or("?"), "") << "the end stays the end";
  }(network));
}

TEST(SocketAddress, parses_and_prints) {
  EXPECT_EQ(SocketAddress::parse("127.0.0.1:9000")->to_string(), "127.0.0.1:9000");
  EXPECT_EQ(SocketAddress::parse("[::1]:80")->to_string(), "[::1]:80");
  EXPECT_EQ(SocketAddress::parse("*:80")->host, "::");
  EXPECT_EQ(SocketAddress::parse(":80")->host, "::");
  EXPECT_EQ(SocketAddress::parse("example.org:65535")->port, 65535);
  for (const char* bad :
       {"", "host", "host:", "host:65536", "host:-1", "host:1x", "::1:80", "[::1]", "[::1]80", "[x]:1", "a b:1", "h:1 "}) {
    const auto result = SocketAddress::parse(bad);
    EXPECT_FALSE(result) << bad;
  }
  EXPECT_TRUE(SocketAddress::parse("127.3.2.1:1")->is_loopback());
  EXPECT_TRUE(SocketAddress::parse("[::1]:1")->is_loopback());
  EXPECT_TRUE((SocketAddress{"::ffff:127.0.0.1", 1}.is_loopback()));
  EXPECT_FALSE(SocketAddress::parse("10.0.0.1:1")->is_loopback());
}

}  // namespace
}  // namespace quarry
