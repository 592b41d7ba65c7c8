#include "daemon/listeners.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "io/needs_ring.h"
#include "io/tls.h"
#include "io/uring_network.h"
#include "wire/http_client.h"

namespace quarry::daemon {
namespace {

class SaysItsName final : public HttpHandler {
 public:
  explicit SaysItsName(std::string name) : name_(std::move(name)) {}
  Task<void> handle(HttpExchange& exchange) override {
    if (exchange.request.path == "/slow") co_await sleep_for(std::chrono::milliseconds(300));
    (co_await exchange.response.respond({}, name_)).ignore("the test sees what arrives");
  }

 private:
  const std::string name_;
};

class ListenersTest : public NeedsRing {
 protected:
  void SetUp() override {
    NeedsRing::SetUp();
    if (IsSkipped()) return;
    std::string name = "/var/tmp/quarry-listeners-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    config_.root = name;
    config_.s3 = {"127.0.0.1", 0};
    config_.admin = {"127.0.0.1", 0};
    auto loops = ExecutorPool::start({.name = "test", .threads = 2});
    ASSERT_TRUE(loops) << loops.error().to_string();
    loops_ = std::move(*loops);
  }
  void TearDown() override {
    loops_.reset();
    if (!config_.root.empty()) std::filesystem::remove_all(config_.root);
    NeedsRing::TearDown();
  }
  Result<std::unique_ptr<Listeners>> open() { return Listeners::open(*loops_, config_, s3_, admin_); }

  // One GET on a connection of its own, from this thread. Plain; or over TLS, trusting `certificate`.
  static Result<std::string> get(const SocketAddress& address, const std::string& path = "/", const std::string& certificate = "") {
    TRY_ASSIGN(auto loop, RingExecutor::create());
    UringNetwork network;
    HttpClientOptions options;
    std::unique_ptr<TlsClientContext> tls;
    if (!certificate.empty()) {
      TRY_ASSIGN(tls, TlsClientContext::create({.ca_pem = certificate}));
      options.tls = [&tls](std::unique_ptr<Stream> stream, std::string host, TimePoint deadline) {
        return tls_connect(std::move(stream), *tls, std::move(host), deadline);
      };
    }
    HttpClient client(network, options);
    TRY_ASSIGN(const Url url, parse_url((certificate.empty() ? "http://" : "https://") + address.to_string()));
    ClientRequest request;
    request.target = path;
    Result<HttpClient::Answer> answer = loop->run(client.call(url, std::move(request)));
    client.close_idle();
    if (!answer) return std::move(answer).error();
    return answer->body;
  }

  static std::string content(const std::filesystem::path& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  NodeConfig config_;
  SaysItsName s3_{"s3"}, admin_{"admin"};
  std::unique_ptr<ExecutorPool> loops_;
};

TEST_F(ListenersTest, each_handler_is_reached_at_the_port_that_the_kernel_chose) {
  auto listeners = open();
  ASSERT_TRUE(listeners) << listeners.error().to_string();
  EXPECT_NE((*listeners)->s3_address().port, 0);
  EXPECT_NE((*listeners)->s3_address().port, (*listeners)->admin_address().port);
  for (int i = 0; i < 8; ++i) {  // whichever loop the kernel gives the connection to
    const auto said = get((*listeners)->s3_address());
    ASSERT_TRUE(said) << said.error().to_string();
    EXPECT_EQ(*said, "s3");
  }
  const auto said = get((*listeners)->admin_address());
  ASSERT_TRUE(said) << said.error().to_string();
  EXPECT_EQ(*said, "admin");
  (*listeners)->stop(std::chrono::seconds(1));
}

TEST_F(ListenersTest, a_port_that_is_taken_is_busy_and_leaves_nothing_open) {
  auto first = open();
  ASSERT_TRUE(first) << first.error().to_string();
  config_.admin = (*first)->admin_address();
  auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::busy) << second.error().to_string();
  (*first)->stop(std::chrono::seconds(1));
  auto third = open();
  ASSERT_TRUE(third) << third.error().to_string();
  (*third)->stop(std::chrono::seconds(1));
}

TEST_F(ListenersTest, an_accepted_request_is_answered_before_they_stop) {
  auto listeners = open();
  ASSERT_TRUE(listeners) << listeners.error().to_string();
  const SocketAddress address = (*listeners)->s3_address();
  std::string said;
  std::thread asking([&] {
    auto answer = get(address, "/slow");
    said = answer ? *answer : answer.error().to_string();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  (*listeners)->stop(std::chrono::seconds(20));
  asking.join();
  // On a machine so busy that it had not connected yet, the port is closed: that is no cut answer either.
  EXPECT_TRUE(said == "s3" || said.find("unavailable") == 0) << said;
  EXPECT_FALSE(get(address));
}

TEST_F(ListenersTest, a_certificate_is_made_once_kept_private_and_trusted_by_name) {
  config_.tls = true;
  auto listeners = open();
  ASSERT_TRUE(listeners) << listeners.error().to_string();
  const std::string certificate = content(config_.root + "/tls/certificate.pem");
  struct stat info{};
  ASSERT_EQ(::stat((config_.root + "/tls/key.pem").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  const auto said = get((*listeners)->s3_address(), "/", certificate);
  ASSERT_TRUE(said) << said.error().to_string();
  EXPECT_EQ(*said, "s3");
  EXPECT_FALSE(get((*listeners)->s3_address())) << "plain text on a port with TLS";
  (*listeners)->stop(std::chrono::seconds(1));

  auto again = open();
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(content(config_.root + "/tls/certificate.pem"), certificate);
  (*again)->stop(std::chrono::seconds(1));
}

TEST_F(ListenersTest, a_certificate_that_cannot_be_used_stops_the_start_and_a_reload_keeps_the_old_one) {
  config_.tls = true;
  config_.tls_certificate = config_.root + "/c.pem";
  config_.tls_key = config_.root + "/k.pem";
  EXPECT_FALSE(open()) << "they are not there";
  std::ofstream(config_.tls_certificate) << "nonsense";
  std::ofstream(config_.tls_key) << "nonsense";
  EXPECT_FALSE(open()) << "they are none";

  const auto own = make_self_signed_identity({"127.0.0.1"}), other = make_self_signed_identity({"127.0.0.1"});
  ASSERT_TRUE(own && other);
  std::ofstream(config_.tls_certificate) << own->certificate_pem;
  std::ofstream(config_.tls_key) << own->key_pem;
  auto listeners = open();
  ASSERT_TRUE(listeners) << listeners.error().to_string();
  const SocketAddress address = (*listeners)->s3_address();
  EXPECT_TRUE(get(address, "/", own->certificate_pem));

  std::ofstream(config_.tls_certificate) << other->certificate_pem;  // without its key
  EXPECT_FALSE((*listeners)->reload_certificate());
  EXPECT_TRUE(get(address, "/", own->certificate_pem));
  EXPECT_FALSE(get(address, "/", other->certificate_pem));

  std::ofstream(config_.tls_key) << other->key_pem;
  const auto reloaded = (*listeners)->reload_certificate();
  EXPECT_TRUE(reloaded) << reloaded.error().to_string();
  EXPECT_TRUE(get(address, "/", other->certificate_pem));
  EXPECT_FALSE(get(address, "/", own->certificate_pem));
  (*listeners)->stop(std::chrono::seconds(1));
}

}  // namespace
}  // namespace quarry::daemon
