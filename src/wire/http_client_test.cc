// The client against our own server, over the in-memory network and virtual time.
#include "wire/http_client.h"

#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"
#include "wire/http_server.h"
#include "wire/memory_stream.h"

namespace quarry {
namespace {

using std::chrono::seconds;

class EchoHandler final : public HttpHandler {
 public:
  Task<void> handle(HttpExchange& exchange) override {
    ++calls;
    const std::string path = exchange.request.path;
    if (path == "/echo") {
      ResponseHead head;
      head.headers.add("X-Length", exchange.request.content_length ? fmt::format("{}", *exchange.request.content_length) : "chunked");
      (co_await exchange.response.send_head(std::move(head))).ignore("test");
      for (;;) {
        auto piece = co_await exchange.body.read(100'000);
        if (!piece || piece->empty()) break;
        (co_await exchange.response.write(std::move(*piece))).ignore("test");
      }
      (co_await exchange.response.finish()).ignore("test");
    } else if (path == "/sink") {
      Buffer buffer(1 << 20);
      uint64_t total = 0;
      for (;;) {
        const auto got = co_await exchange.body.read_into(buffer.mutable_view());
        if (!got || *got == 0) break;
        for (size_t i = 0; i < *got; ++i) EXPECT_EQ(buffer.data()[i], static_cast<uint8_t>((total + i) % 251));
        total += *got;
      }
      (co_await exchange.response.respond({}, fmt::format("{}", total))).ignore("test");
    } else if (path == "/slow-sink") {  // takes its time, but never pauses for long
      Buffer buffer(1 << 20);
      uint64_t total = 0;
      for (;;) {
        const auto got = co_await exchange.body.read_into(buffer.mutable_view());
        if (!got || *got == 0) break;
        total += *got;
        co_await sleep_for(seconds(20));
      }
      (co_await exchange.response.respond({}, fmt::format("{}", total))).ignore("test");
    } else if (path == "/refuse") {
      ResponseHead head;
      head.status = 403;
      (co_await exchange.response.respond(std::move(head), "refused")).ignore("test");
    } else if (path == "/wait") {
      co_await sleep_for(seconds(100));
      (co_await exchange.response.respond({}, "late")).ignore("test");
    } else {
      (co_await exchange.response.respond({}, "hello")).ignore("test");
    }
  }
  int calls = 0;
};

class CountingSource final : public BodySource {
 public:
  explicit CountingSource(uint64_t total, size_t piece = 70'001) : left_(total), piece_(piece) {}
  Task<Result<SharedBytes>> next() override {
    const auto size = static_cast<size_t>(std::min<uint64_t>(left_, piece_));
    if (fail_at != 0 && at_ >= fail_at) co_return Error(Code::io_error, "the disk broke");
    Buffer buffer(size);
    for (size_t i = 0; i < size; ++i) buffer.data()[i] = static_cast<uint8_t>((at_ + i) % 251);
    at_ += size;
    left_ -= size;
    if (size == 0) co_return SharedBytes();
    co_return SharedBytes(std::move(buffer));
  }
  uint64_t fail_at = 0;
  uint64_t produced() const { return at_; }

 private:
  uint64_t left_, at_ = 0;
  size_t piece_;
};

struct Fixture {
  SimExecutor executor;
  MemoryNetwork network;
  EchoHandler handler;
  std::unique_ptr<HttpServer> server;
  HttpClientOptions options;
  std::unique_ptr<HttpClient> client;
  Url url;

  Fixture() {
    restart();
    options.connections_max = 4;
    client = std::make_unique<HttpClient>(network, options);
    url = *parse_url("http://server:9000");
  }
  ~Fixture() {
    client->close_idle();
    stop();
  }
  void restart() {
    server = std::make_unique<HttpServer>(handler, HttpServerOptions());
    server->start(std::move(*network.listen({"server", 9000}, false)));
  }
  void stop() { executor.run(server->stop(executor.now() + seconds(1))); }
  Result<HttpClient::Answer> call(ClientRequest request) { return executor.run(client->call(url, std::move(request))); }
};

ClientRequest request(std::string method, std::string target, std::string body = "") {
  ClientRequest r;
  r.method = std::move(method);
  r.target = std::move(target);
  if (!body.empty()) r.body.push_back(SharedBytes::copy_of(bytes_of(body)));
  return r;
}

TEST(HttpClient, reuses_one_connection) {
  Fixture f;
  for (int i = 0; i < 5; ++i) {
    const auto answer = f.call(request("GET", "/"));
    ASSERT_TRUE(answer) << answer.error().to_string();
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "hello");
    EXPECT_EQ(answer->header("content-length"), "5");
  }
  EXPECT_EQ(f.network.connects(), 1u);
}

TEST(HttpClient, bodies_of_parts_and_sources_and_chunked_answers) {
  Fixture f;
  auto parts = request("POST", "/echo", "one ");
  parts.body.push_back(SharedBytes::copy_of(bytes_of("two")));
  const auto echoed = f.call(std::move(parts));
  ASSERT_TRUE(echoed);
  EXPECT_EQ(echoed->body, "one two");
  EXPECT_EQ(echoed->header("x-length"), "7");

  for (const bool known : {false, true}) {
    CountingSource source(5'000'000);
    auto streamed = request("PUT", "/sink");
    streamed.source = &source;
    if (known) streamed.source_length = 5'000'000;
    const auto answer = f.call(std::move(streamed));
    ASSERT_TRUE(answer) << answer.error().to_string();
    EXPECT_EQ(answer->body, "5000000");
  }
  const auto none = f.call(request("PUT", "/echo"));
  EXPECT_EQ(none->header("x-length"), "0");
  const auto head = f.call(request("HEAD", "/"));
  EXPECT_EQ(head->body, "");
  EXPECT_EQ(head->header("content-length"), "5");
  EXPECT_EQ(f.network.connects(), 1u);
}

TEST(HttpClient, expect_continue_spares_a_refused_body) {
  Fixture f;
  auto welcome = request("PUT", "/echo", "abc");
  welcome.expect_continue = true;
  EXPECT_EQ(f.call(std::move(welcome))->body, "abc");
  CountingSource source(5'000'000);
  auto refused = request("PUT", "/refuse");
  refused.expect_continue = true;
  refused.source = &source;
  const auto answer = f.call(std::move(refused));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 403);
  EXPECT_EQ(source.produced(), 0u);
}

TEST(HttpClient, an_early_answer_ends_a_long_upload) {
  Fixture f;
  CountingSource source(200'000'000);
  auto refused = request("PUT", "/refuse");
  refused.source = &source;
  refused.source_length = 200'000'000;
  const auto answer = f.call(std::move(refused));
  ASSERT_TRUE(answer) << answer.error().to_string();
  EXPECT_EQ(answer->status, 403);
  EXPECT_EQ(answer->body, "refused");
  EXPECT_LT(source.produced(), 10'000'000u);
}

TEST(HttpClient, an_upload_may_take_longer_than_a_stall_while_it_gets_on) {
  Fixture f;
  const auto before = f.executor.now();
  const auto answer = f.call(request("PUT", "/slow-sink", std::string(20'000'000, 'x')));
  ASSERT_TRUE(answer) << answer.error().to_string();
  EXPECT_EQ(answer->body, "20000000");
  EXPECT_GT(f.executor.now() - before, 3 * f.options.stall_timeout);
}

TEST(HttpClient, a_source_that_fails_or_lies_fails_the_request) {
  Fixture f;
  CountingSource broken(5'000'000);
  broken.fail_at = 1'000'000;
  auto first = request("PUT", "/sink");
  first.source = &broken;
  first.source_length = 5'000'000;
  EXPECT_EQ(f.call(std::move(first)).error().code(), Code::io_error);
  CountingSource small(1'000);
  auto second = request("PUT", "/sink");
  second.source = &small;
  second.source_length = 2'000;
  EXPECT_EQ(f.call(std::move(second)).error().code(), Code::invalid_argument);
  EXPECT_EQ(f.call(request("GET", "/"))->body, "hello");
}

TEST(HttpClient, a_stale_connection_is_replaced_once_where_that_is_safe) {
  Fixture f;
  EXPECT_TRUE(f.call(request("GET", "/")));
  f.stop();
  f.restart();
  EXPECT_TRUE(f.call(request("GET", "/")));
  EXPECT_EQ(f.network.connects(), 2u);
  f.stop();
  f.restart();
  EXPECT_EQ(f.call(request("POST", "/")).error().code(), Code::connection_closed);
  EXPECT_TRUE(f.call(request("POST", "/")));
  f.stop();
  f.restart();
  auto conditional = request("PUT", "/", "x");
  conditional.headers.add("If-None-Match", "*");
  EXPECT_EQ(f.call(std::move(conditional)).error().code(), Code::connection_closed);
}

TEST(HttpClient, nobody_there_and_nobody_answers) {
  Fixture f;
  Url other = f.url;
  other.port = 1;
  EXPECT_EQ(f.executor.run(f.client->call(other, request("GET", "/"))).error().code(), Code::unavailable);
  other.is_tls = true;
  EXPECT_EQ(f.executor.run(f.client->call(other, request("GET", "/"))).error().code(), Code::misconfigured);
  auto hurried = request("GET", "/wait");
  hurried.deadline = f.executor.now() + seconds(3);
  EXPECT_EQ(f.call(std::move(hurried)).error().code(), Code::timed_out);
}

TEST(HttpClient, connections_in_use_are_bounded) {
  Fixture f;
  std::vector<Task<Result<HttpClient::Answer>>> tasks;
  for (int i = 0; i < 20; ++i) tasks.push_back(f.client->call(f.url, request("GET", "/")));
  const auto answers = f.executor.run(when_all(std::move(tasks)));
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->body, "hello");
  }
  EXPECT_LE(f.network.connects(), 4u);
}

TEST(HttpClient, a_response_dropped_midway_closes_its_connection) {
  Fixture f;
  {
    CountingSource source(1'000'000);
    auto r = request("POST", "/echo", std::string(200'000, 'x'));
    auto response = f.executor.run(f.client->send(f.url, std::move(r)));
    ASSERT_TRUE(response);
    EXPECT_EQ(f.executor.run((*response)->body().read(10))->size(), 10u);
  }
  EXPECT_TRUE(f.call(request("GET", "/")));
  EXPECT_EQ(f.network.connects(), 2u);
}

}  // namespace
}  // namespace quarry
