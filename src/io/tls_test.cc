#include "io/tls.h"

#include <gtest/gtest.h>

#include "io/needs_ring.h"
#include "io/uring_network.h"

namespace quarry {
namespace {
using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint in(Duration duration) { return Executor::here().now() + duration; }

struct Both {
  Result<std::unique_ptr<Stream>> client = fail(Code::internal, "not run"), server = fail(Code::internal, "not run");
  bool good() const { return client.has_value() && server.has_value(); }
};

Task<void> accept_side(Listener& listener, TlsServerContext& context, Both& out) {
  auto tcp = co_await listener.accept();
  auto stream = co_await tls_accept(std::move(*tcp), context, in(seconds(5)));
  out.server = std::move(stream);
}
Task<Both> handshake(Network& network, TlsServerContext& server, TlsClientContext& client, std::string name) {
  Both both;
  auto listener = std::move(*network.listen({"127.0.0.1", 0}, false));
  TaskGroup group;
  group.spawn(accept_side(*listener, server, both));
  auto tcp = co_await network.connect(listener->address(), in(seconds(5)));
  auto stream = co_await tls_connect(std::move(*tcp), client, name, in(seconds(5)));
  both.client = std::move(stream);
  co_await group.join();
  std::move(both.client).ignore("a test reads the side that it is about");
  std::move(both.server).ignore("a test reads the side that it is about");
  co_return both;
}

Task<Result<std::string>> read_all(Stream& stream) {
  std::string text;
  Buffer into(100'000);
  for (;;) {
    Result<size_t> got = co_await stream.read(into.mutable_view(), in(seconds(20)));
    if (!got) co_return std::move(got).error();
    if (*got == 0) co_return text;
    text.append(text_of(into.view().first(*got)));
  }
}
Task<Result<void>> write_parts(Stream& stream, std::vector<std::string> texts) {
  std::vector<ByteView> parts;
  for (const auto& text : texts) parts.push_back(bytes_of(text));
  Result<void> sent = co_await stream.write(std::move(parts), in(seconds(20)));
  co_return sent;
}

class TlsTest : public NeedsRing {
 protected:
  void SetUp() override {
    NeedsRing::SetUp();
    if (IsSkipped()) return;
    auto executor = RingExecutor::create();
    if (!executor) {
      ADD_FAILURE() << executor.error().to_string();
      std::abort();
    }
    executor_ = std::move(*executor);
    identity_ = *make_self_signed_identity({"localhost", "127.0.0.1", "::1", "*.quarry.test"});
    server_ = *TlsServerContext::create(identity_, {});
    client_ = *TlsClientContext::create({.ca_pem = identity_.certificate_pem});
  }
  Both shake(TlsServerContext& server, TlsClientContext& client, std::string name = "localhost") {
    return executor_->run(handshake(network_, server, client, std::move(name)));
  }
  UringNetwork network_;
  std::unique_ptr<RingExecutor> executor_;
  TlsIdentity identity_;
  std::unique_ptr<TlsServerContext> server_;
  std::unique_ptr<TlsClientContext> client_;
};

TEST_F(TlsTest, carries_bytes_both_ways_and_ends_in_order) {
  Both both = shake(*server_, *client_);
  ASSERT_TRUE(both.good()) << (both.client ? both.server.error().to_string() : both.client.error().to_string());
  EXPECT_TRUE((*both.server)->is_tls());
  EXPECT_EQ((*both.server)->alpn(), "http/1.1");
  EXPECT_EQ((*both.client)->alpn(), "http/1.1");
  executor_->run([](Stream& a, Stream& b) -> Task<void> {
    Result<void> sent = co_await write_parts(a, {"hello ", "", "from ", "many parts"});
    EXPECT_TRUE(sent);
    Result<void> ended = co_await a.shutdown_write();
    EXPECT_TRUE(ended);
    Result<std::string> got = co_await read_all(b);
    EXPECT_EQ(got.value_or("?"), "hello from many parts");
    sent = co_await write_parts(b, {"and back"});
    EXPECT_TRUE(sent);
    ended = co_await b.shutdown_write();
    got = co_await read_all(a);
    EXPECT_EQ(got.value_or("?"), "and back");
  }(**both.client, **both.server));
}

TEST_F(TlsTest, large_bodies_of_odd_parts_arrive_whole_in_both_directions_at_once) {
  Both both = shake(*server_, *client_);
  ASSERT_TRUE(both.good());
  executor_->run([](Stream& a, Stream& b) -> Task<void> {
    const auto send = [](Stream& stream, size_t seed) -> Task<void> {
      std::vector<std::string> parts;
      for (size_t i = 0; i < 80; ++i) parts.push_back(std::string((i * 7919 + seed) % 90'000, static_cast<char>('a' + i % 26)));
      Result<void> sent = co_await write_parts(stream, parts);
      EXPECT_TRUE(sent);
      Result<void> ended = co_await stream.shutdown_write();
      EXPECT_TRUE(ended);
    };
    const auto expect = [](Stream& stream, size_t seed) -> Task<void> {
      std::string whole;
      for (size_t i = 0; i < 80; ++i) whole += std::string((i * 7919 + seed) % 90'000, static_cast<char>('a' + i % 26));
      Result<std::string> got = co_await read_all(stream);
      EXPECT_TRUE(got && *got == whole);
    };
    TaskGroup group;
    group.spawn(send(a, 1));
    group.spawn(send(b, 2));
    group.spawn(expect(a, 2));
    group.spawn(expect(b, 1));
    co_await group.join();
  }(**both.client, **both.server));
}

TEST_F(TlsTest, names_and_addresses_are_checked) {
  EXPECT_TRUE(shake(*server_, *client_, "127.0.0.1").good());
  EXPECT_TRUE(shake(*server_, *client_, "::1").good());
  EXPECT_TRUE(shake(*server_, *client_, "bucket.quarry.test").good());
  const Both wrong = shake(*server_, *client_, "example.org");
  ASSERT_FALSE(wrong.client);
  EXPECT_EQ(wrong.client.error().code(), Code::unauthenticated);
  EXPECT_NE(wrong.client.error().context().find("hostname mismatch"), std::string::npos) << wrong.client.error().to_string();
  EXPECT_FALSE(wrong.server) << "the server is told";
}

TEST_F(TlsTest, a_strange_certificate_is_refused_unless_asked_not_to_look) {
  const auto other = *make_self_signed_identity({"localhost"});
  const auto stranger = *TlsServerContext::create(other, {});
  const Both refused = shake(*stranger, *client_);
  ASSERT_FALSE(refused.client);
  EXPECT_EQ(refused.client.error().code(), Code::unauthenticated);
  const auto blind = *TlsClientContext::create({.skip_verification = true});
  EXPECT_TRUE(shake(*stranger, *blind).good());
}

TEST_F(TlsTest, an_expired_certificate_is_refused) {
  const auto old = *make_self_signed_identity({"localhost"}, seconds(-60));
  const auto server = *TlsServerContext::create(old, {});
  const auto client = *TlsClientContext::create({.ca_pem = old.certificate_pem});
  const Both refused = shake(*server, *client);
  ASSERT_FALSE(refused.client);
  EXPECT_NE(refused.client.error().context().find("expired"), std::string::npos);
  EXPECT_LT(server->expires_at(), system_clock().wall_now());
  EXPECT_GT(server_->expires_at(), system_clock().wall_now());
}

TEST_F(TlsTest, a_reload_serves_the_new_certificate_and_a_bad_one_changes_nothing) {
  const auto fresh = *make_self_signed_identity({"localhost"});
  EXPECT_FALSE(server_->reload({"rubbish", "rubbish"}));
  const auto mixed = server_->reload({fresh.certificate_pem, identity_.key_pem});
  ASSERT_FALSE(mixed);
  EXPECT_EQ(mixed.error().code(), Code::misconfigured);
  EXPECT_TRUE(shake(*server_, *client_).good());
  ASSERT_TRUE(server_->reload(fresh));
  EXPECT_FALSE(shake(*server_, *client_).client);
  const auto follower = *TlsClientContext::create({.ca_pem = fresh.certificate_pem});
  EXPECT_TRUE(shake(*server_, *follower).good());
}

TEST_F(TlsTest, alpn_prefers_our_order_and_refuses_strangers) {
  const auto both_protocols = *TlsClientContext::create({.ca_pem = identity_.certificate_pem, .alpn = {"http/1.1", "h2"}});
  Both both = shake(*server_, *both_protocols);
  ASSERT_TRUE(both.good());
  EXPECT_EQ((*both.client)->alpn(), "h2");
  const auto stranger = *TlsClientContext::create({.ca_pem = identity_.certificate_pem, .alpn = {"spdy/3"}});
  EXPECT_FALSE(shake(*server_, *stranger).client);
  const auto none = *TlsClientContext::create({.ca_pem = identity_.certificate_pem, .alpn = {}});
  both = shake(*server_, *none);
  ASSERT_TRUE(both.good());
  EXPECT_EQ((*both.server)->alpn(), "");
}

TEST_F(TlsTest, client_certificates_are_asked_for_and_named) {
  const auto who = *make_self_signed_identity({"worker-7"});
  const auto strict = *TlsServerContext::create(identity_, {.client_ca_pem = who.certificate_pem, .require_client_certificate = true});
  const auto known = *TlsClientContext::create({.ca_pem = identity_.certificate_pem, .identity = who});
  Both both = shake(*strict, *known);
  ASSERT_TRUE(both.good());
  EXPECT_NE((*both.server)->peer_certificate_subject().find("CN=worker-7"), std::string_view::npos);
  const Both anonymous = shake(*strict, *client_);
  EXPECT_FALSE(anonymous.server);
  EXPECT_FALSE(TlsServerContext::create(identity_, {.require_client_certificate = true}));
}

TEST_F(TlsTest, rubbish_instead_of_a_handshake_is_malformed_and_silence_times_out) {
  executor_->run([](UringNetwork& network, TlsServerContext& context) -> Task<void> {
    auto listener = std::move(*network.listen({"127.0.0.1", 0}, false));
    auto client = co_await network.connect(listener->address(), in(seconds(5)));
    Result<void> sent = co_await write_parts(**client, {"GET / HTTP/1.1\r\nHost: x\r\n\r\n"});
    EXPECT_TRUE(sent);
    auto tcp = co_await listener->accept();
    auto stream = co_await tls_accept(std::move(*tcp), context, in(seconds(5)));
    EXPECT_FALSE(stream);
    EXPECT_EQ(stream.error().code(), Code::malformed);
    auto silent = co_await network.connect(listener->address(), in(seconds(5)));
    auto waiting = co_await listener->accept();
    auto never = co_await tls_accept(std::move(*waiting), context, in(milliseconds(20)));
    EXPECT_FALSE(never);
    EXPECT_EQ(never.error().code(), Code::timed_out);
  }(network_, *server_));
}

TEST_F(TlsTest, a_cut_connection_is_not_an_end) {
  Both both = shake(*server_, *client_);
  ASSERT_TRUE(both.good());
  executor_->run([](Both& pair) -> Task<void> {
    Result<void> sent = co_await write_parts(**pair.client, {"half an ans"});
    EXPECT_TRUE(sent);
    (*pair.client)->close();
    Result<std::string> got = co_await read_all(**pair.server);
    EXPECT_FALSE(got);
    EXPECT_EQ(got.error().code(), Code::connection_closed);
  }(both));
}

TEST_F(TlsTest, a_stream_may_die_under_its_reader_and_an_idle_one_holds_no_buffer) {
  Both both = shake(*server_, *client_);
  ASSERT_TRUE(both.good());
  executor_->run([](Both& pair) -> Task<void> {
    TaskGroup group;
    Code code{};
    group.spawn([](Stream& stream, Code& out) -> Task<void> {
      Result<std::string> got = co_await read_all(stream);
      if (!got) out = got.error().code();
    }(**pair.server, code));
    TaskGroup idle;
    idle.spawn([](Stream& stream) -> Task<void> {
      // The ticket that came after the handshake counts as readable; then it idles.
      Buffer into(16);
      Result<size_t> got = co_await stream.read(into.mutable_view(), in(milliseconds(5)));
      EXPECT_FALSE(got);
      RingExecutor::here().has_receive_buffers();  // made once for the loop
      const uint64_t before = buffer_bytes_in_use();
      Result<void> ready = co_await stream.wait_readable(in(milliseconds(5)));
      EXPECT_TRUE(!ready && ready.error().code() == Code::timed_out);
      EXPECT_LE(buffer_bytes_in_use(), before);
    }(**pair.client));
    co_await idle.join();
    pair.server->reset();
    co_await group.join();
    EXPECT_EQ(code, Code::cancelled);
  }(both));
}

TEST(TlsIdentity, files_are_read_or_refused_clearly) {
  EXPECT_EQ(load_tls_identity("/nonexistent/cert.pem", "/nonexistent/key.pem").error().code(), Code::not_found);
  EXPECT_FALSE(make_self_signed_identity({"bad name,with:stuff"}));
}

}  // namespace
}  // namespace quarry
