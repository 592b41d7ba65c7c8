#include "io/sim/sim_network.h"

#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"

namespace quarry {
namespace {
using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint in(Duration duration) { return Executor::here().now() + duration; }

struct Pair {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> client, server;
};
Task<Pair> connected(Network& client, Network& server) {
  Pair pair;
  pair.listener = std::move(*server.listen({"server", 0}, false));
  auto stream = co_await client.connect(pair.listener->address(), in(seconds(60)));
  CHECK(stream.has_value());
  pair.client = std::move(*stream);
  auto accepted = co_await pair.listener->accept();
  CHECK(accepted.has_value());
  pair.server = std::move(*accepted);
  co_return pair;
}
Task<Result<std::string>> read_text(Stream& stream, Duration patience = seconds(60)) {
  Buffer into(4096);
  Result<size_t> got = co_await stream.read(into.mutable_view(), in(patience));
  if (!got) co_return std::move(got).error();
  co_return std::string(text_of(into.view().first(*got)));
}
Task<Result<void>> write_text(Stream& stream, std::string text, Duration patience = seconds(60)) {
  std::vector<ByteView> parts{bytes_of(text)};
  Result<void> result = co_await stream.write(std::move(parts), in(patience));
  co_return result;
}

class SimNetworkTest : public testing::Test {
 protected:
  void make(SimFabric::Options options) {
    fabric_ = std::make_unique<SimFabric>(options);
    client_ = fabric_->host("client");
    server_ = fabric_->host("server");
    pair_ = executor_.run(connected(*client_, *server_));
  }
  Result<std::string> read(Stream& stream, Duration patience = seconds(60)) { return executor_.run(read_text(stream, patience)); }
  Result<void> write(Stream& stream, std::string text, Duration patience = seconds(60)) {
    return executor_.run(write_text(stream, std::move(text), patience));
  }
  SimExecutor executor_;
  std::unique_ptr<SimFabric> fabric_;
  std::unique_ptr<Network> client_, server_;
  Pair pair_;
};

TEST_F(SimNetworkTest, delivers_in_order_after_the_latency_and_ends) {
  make({.latency_min = milliseconds(10), .latency_max = milliseconds(10)});
  const TimePoint start = executor_.now();
  ASSERT_TRUE(write(*pair_.client, "hello"));
  EXPECT_EQ(read(*pair_.server).value_or("?"), "hello");
  EXPECT_EQ(executor_.now() - start, milliseconds(10));
  EXPECT_TRUE(executor_.run(pair_.client->shutdown_write()));
  EXPECT_EQ(read(*pair_.server).value_or("?"), "");
  EXPECT_EQ(read(*pair_.server).value_or("?"), "") << "the end stays the end";
  ASSERT_TRUE(write(*pair_.server, "half open"));
  EXPECT_EQ(read(*pair_.client).value_or("?"), "half open");
}

TEST_F(SimNetworkTest, splits_reads_without_losing_a_byte) {
  make({.latency_max = milliseconds(3), .split_reads = true, .seed = 5});
  std::string text;
  for (int i = 0; i < 3000; ++i) text += static_cast<char>('a' + i % 26);
  ASSERT_TRUE(write(*pair_.client, text));
  std::string got;
  int reads = 0;
  while (got.size() < text.size()) {
    const auto part = read(*pair_.server);
    ASSERT_TRUE(part && !part->empty());
    got += *part;
    ++reads;
  }
  EXPECT_EQ(got, text);
  EXPECT_GT(reads, 2);
}

TEST_F(SimNetworkTest, a_full_buffer_holds_the_writer_until_its_deadline) {
  make({.buffer_max = 1000});
  const auto late = write(*pair_.client, std::string(5000, 'x'), seconds(1));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Code::timed_out);
  EXPECT_EQ(read(*pair_.server)->size(), 1000u);
}

TEST_F(SimNetworkTest, a_partition_delays_what_was_on_its_way_and_heals) {
  make({.latency_min = milliseconds(10), .latency_max = milliseconds(10)});
  ASSERT_TRUE(write(*pair_.client, "on its way"));
  fabric_->partition("client", "server");
  EXPECT_EQ(read(*pair_.server, seconds(5)).error().code(), Code::timed_out);
  EXPECT_EQ(executor_.run(client_->connect(pair_.listener->address(), executor_.now() + seconds(1))).error().code(), Code::timed_out);
  fabric_->heal("client", "server");
  EXPECT_EQ(read(*pair_.server).value_or("?"), "on its way");
}

TEST_F(SimNetworkTest, a_stall_is_one_way) {
  make({});
  fabric_->stall("client", "server");
  ASSERT_TRUE(write(*pair_.client, "stuck"));
  ASSERT_TRUE(write(*pair_.server, "passes"));
  EXPECT_EQ(read(*pair_.client).value_or("?"), "passes");
  EXPECT_EQ(read(*pair_.server, seconds(5)).error().code(), Code::timed_out);
  fabric_->heal_all();
  EXPECT_EQ(read(*pair_.server).value_or("?"), "stuck");
}

TEST_F(SimNetworkTest, a_cut_resets_both_sides_and_a_dead_host_refuses) {
  make({});
  ASSERT_TRUE(write(*pair_.client, "lost"));
  fabric_->cut("client", "server");
  EXPECT_EQ(read(*pair_.server).error().code(), Code::connection_closed);
  EXPECT_EQ(write(*pair_.client, "x").error().code(), Code::connection_closed);
  EXPECT_EQ(fabric_->open_connections(), 0u);
  const SocketAddress address = pair_.listener->address();
  EXPECT_TRUE(executor_.run(client_->connect(address, executor_.now() + seconds(1))));
  fabric_->kill("server");
  EXPECT_EQ(executor_.run(client_->connect(address, executor_.now() + seconds(1))).error().code(), Code::unavailable);
  EXPECT_EQ(executor_.run(pair_.listener->accept()).error().code(), Code::cancelled);
}

TEST_F(SimNetworkTest, close_is_an_end_or_with_unread_bytes_a_reset_and_cancels_the_waiter) {
  make({});
  pair_.client->close();
  EXPECT_EQ(read(*pair_.server).value_or("?"), "");
  EXPECT_EQ(write(*pair_.server, "x").error().code(), Code::connection_closed);
  EXPECT_EQ(read(*pair_.client).error().code(), Code::cancelled);
  pair_ = executor_.run(connected(*client_, *server_));
  ASSERT_TRUE(write(*pair_.client, "unread"));
  pair_.server->close();
  EXPECT_EQ(read(*pair_.client).error().code(), Code::connection_closed);
  pair_ = executor_.run(connected(*client_, *server_));
  const Code code = executor_.run([](Pair& pair) -> Task<Code> {
    Code seen{};
    TaskGroup group;
    group.spawn([](Stream& stream, Code& out) -> Task<void> {
      Result<std::string> got = co_await read_text(stream);
      if (!got) out = got.error().code();
    }(*pair.server, seen));
    co_await sleep_for(milliseconds(1));
    pair.server.reset();
    co_await group.join();
    co_return seen;
  }(pair_));
  EXPECT_EQ(code, Code::cancelled);
}

TEST_F(SimNetworkTest, one_seed_is_one_history) {
  const auto history = [](uint64_t seed) {
    SimExecutor executor;
    SimFabric fabric({.latency_max = milliseconds(20), .split_reads = true, .seed = seed});
    auto a = fabric.host("client"), b = fabric.host("server");
    return executor.run([](Network& client, Network& server) -> Task<std::string> {
      Pair pair = co_await connected(client, server);
      std::string trace;
      for (int i = 0; i < 20; ++i) {
        Result<void> sent = co_await write_text(*pair.client, std::string(100, 'x'));
        CHECK(sent.has_value());
        Result<std::string> got = co_await read_text(*pair.server);
        trace += fmt::format("{}@{} ", got->size(), Executor::here().now().time_since_epoch().count());
      }
      co_return trace;
    }(*a, *b));
  };
  EXPECT_EQ(history(1), history(1));
  EXPECT_NE(history(1), history(2));
}

}  // namespace
}  // namespace quarry
