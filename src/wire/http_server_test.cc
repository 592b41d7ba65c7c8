#include "wire/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"
#include "wire/memory_stream.h"

namespace quarry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

Buffer filled(size_t size) {
  Buffer buffer(size);
  for (size_t i = 0; i < size; ++i) buffer.data()[i] = static_cast<uint8_t>('a' + i % 23);
  return buffer;
}

// Behaves as its path says.
class PathHandler final : public HttpHandler {
 public:
  Task<void> handle(HttpExchange& exchange) override {
    ++calls;
    const std::string path = exchange.request.path;
    if (path == "/hello") {
      (co_await exchange.response.respond({}, "hello")).ignore("the test looks at the bytes");
    } else if (path == "/echo") {
      auto text = co_await exchange.body.read_all(1 << 20);
      if (!text) {
        error = text.error().code();
        co_return;
      }
      last_body = *text;
      (co_await exchange.response.respond({}, "got " + *text)).ignore("test");
    } else if (path == "/pieces") {
      std::string all;
      for (;;) {
        auto piece = co_await exchange.body.read(7);
        if (!piece) {
          error = piece.error().code();
          co_return;
        }
        if (piece->empty()) break;
        EXPECT_LE(piece->size(), 7u);
        all += text_of(*piece);
      }
      (co_await exchange.response.respond({}, all)).ignore("test");
    } else if (path == "/big") {
      ResponseHead head;
      head.content_length = 3 << 20;
      (co_await exchange.response.send_head(std::move(head))).ignore("test");
      const SharedBytes part(filled(1 << 20));
      for (int i = 0; i < 3; ++i) {
        auto sent = co_await exchange.response.write(part);
        if (!sent) {
          error = sent.error().code();
          co_return;
        }
      }
      (co_await exchange.response.finish()).ignore("test");
    } else if (path == "/stream") {
      (co_await exchange.response.send_head({})).ignore("test");
      (co_await exchange.response.write(SharedBytes::copy_of(bytes_of("one")))).ignore("test");
      (co_await exchange.response.write(SharedBytes::copy_of(bytes_of("two!")))).ignore("test");
      (co_await exchange.response.finish()).ignore("test");
    } else if (path == "/short") {
      ResponseHead head;
      head.content_length = 10;
      (co_await exchange.response.send_head(std::move(head))).ignore("test");
      (co_await exchange.response.write(SharedBytes::copy_of(bytes_of("one")))).ignore("test");
      (co_await exchange.response.finish()).ignore("a bug to be shown to the client");
    } else if (path == "/refuse") {
      ResponseHead head;
      head.status = 403;
      (co_await exchange.response.respond(std::move(head), "no")).ignore("test");
    } else if (path == "/slow") {
      co_await sleep_for(seconds(5));
      (co_await exchange.response.respond({}, "slow")).ignore("test");
    } else if (path == "/nobody") {
      ResponseHead head;
      head.status = 204;
      (co_await exchange.response.send_head(std::move(head))).ignore("test");
      (co_await exchange.response.finish()).ignore("test");
    }
  }
  std::pair<std::string, std::string> error_body(int status) override { return {"application/xml", fmt::format("<E>{}</E>", status)}; }

  int calls = 0;
  std::string last_body;
  std::optional<Code> error;
};

struct Fixture {
  SimExecutor executor;
  PathHandler handler;
  ManualClock clock;
  std::unique_ptr<HttpServer> server;
  std::unique_ptr<MemoryStream> client;
  MemoryStream* server_side = nullptr;

  explicit Fixture(HttpServerOptions options = {}) {
    options.clock = &clock;
    server = std::make_unique<HttpServer>(handler, options);
    connect();
  }
  ~Fixture() {
    client->close();
    executor.run(server->stop(executor.now() + seconds(60)));
  }
  void connect() {
    auto [ours, theirs] = MemoryStream::pair();
    client = std::move(ours);
    server_side = theirs.get();
    server->serve(std::move(theirs));
  }
  void send(std::string_view text) {
    executor.run([](MemoryStream& stream, std::string bytes) -> Task<void> {
      std::vector<ByteView> parts{bytes_of(bytes)};
      (co_await stream.write(std::move(parts), kNoDeadline)).ignore("the server may have gone");
    }(*client, std::string(text)));
  }
  // Reads until nothing comes for `patience`, or the end.
  std::string receive(Duration patience = milliseconds(10)) {
    return executor.run([](MemoryStream& stream, Duration wait) -> Task<std::string> {
      std::string all;
      uint8_t piece[4096];
      for (;;) {
        auto got = co_await stream.read({piece, sizeof piece}, Executor::here().now() + wait);
        if (!got || *got == 0) co_return all;
        all += text_of({piece, *got});
      }
    }(*client, patience));
  }
  std::string ask(std::string_view text, Duration patience = milliseconds(10)) {
    send(text);
    return receive(patience);
  }
  bool ended() const { return client->incoming().ended || client->incoming().broken; }
};

std::string get(std::string_view path, std::string_view headers = "") {
  return fmt::format("GET {} HTTP/1.1\r\nHost: a\r\n{}\r\n", path, headers);
}
std::string body_of(std::string_view response) {
  const size_t end = response.find("\r\n\r\n");
  return end == std::string_view::npos ? std::string() : std::string(response.substr(end + 4));
}

TEST(HttpServer, answers_and_keeps_the_connection) {
  Fixture f;
  const std::string first = f.ask(get("/hello"));
  EXPECT_EQ(first, "HTTP/1.1 200 OK\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: Quarry\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(f.server_side->writes(), 1u);  // head and body in one send
  EXPECT_EQ(f.ask(get("/hello")), first);
  EXPECT_FALSE(f.ended());
  EXPECT_EQ(f.server->stats().requests, 2u);
}

TEST(HttpServer, pipelined_requests_are_answered_in_order) {
  Fixture f;
  const std::string post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  const std::string all = f.ask(get("/hello") + post + get("/stream") + "\r\n" + post + get("/hello"));
  size_t at = 0;
  for (const std::string_view expected : {"hello", "got abc", "3\r\none\r\n4\r\ntwo!\r\n0\r\n\r\n", "got abc", "hello"}) {
    at = all.find(fmt::format("\r\n\r\n{}", expected), at);
    ASSERT_NE(at, std::string::npos) << expected << "\n" << all;
  }
  EXPECT_EQ(f.handler.calls, 5);
}

TEST(HttpServer, requests_that_come_byte_by_byte) {
  Fixture f;
  f.client->outgoing().read_max = 1;
  for (const std::string_view framing :
       {"Content-Length: 11\r\n\r\nhello world", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nT: x\r\n\r\n"}) {
    for (const std::string_view path : {"/echo", "/pieces"}) {
      const std::string answer = f.ask(fmt::format("PUT {} HTTP/1.1\r\nHost: a\r\n{}", path, framing));
      EXPECT_THAT(answer, EndsWith("hello world"));
    }
  }
  EXPECT_EQ(f.handler.calls, 4);
}

TEST(HttpServer, long_heads_get_a_larger_buffer_and_too_long_ones_431) {
  Fixture f;
  EXPECT_THAT(f.ask(get("/hello", "X: " + std::string(30'000, 'a') + "\r\n")), EndsWith("hello"));
  EXPECT_THAT(f.ask(get("/hello", "X: " + std::string(65'000, 'a') + "\r\n")), EndsWith("hello"));
  const std::string refused = f.ask(get("/hello", "X: " + std::string(70'000, 'a') + "\r\n"));
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(refused, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(refused, EndsWith("<E>431</E>"));
  EXPECT_TRUE(f.ended());
}

TEST(HttpServer, a_bad_request_is_answered_and_the_connection_ends) {
  Fixture f;
  EXPECT_THAT(f.ask("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_TRUE(f.ended());
  f.connect();
  EXPECT_THAT(f.ask("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), StartsWith("HTTP/1.1 505 "));
  f.connect();
  EXPECT_THAT(f.ask("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"), StartsWith("HTTP/1.1 501 "));
  for (const std::string line :
       {"GET /", "nonsense", "\x16\x03\x01 nonsense", "GET / HTTP/1.1 extra", "PRI * HTTP/2.1", "GET  / HTTP/1.1"}) {
    f.connect();
    const std::string answer = f.ask(line + "\r\n\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 505 ")) << line << ": " << answer;
    EXPECT_TRUE(f.ended()) << line;
  }
  EXPECT_EQ(f.handler.calls, 0);
}

TEST(HttpServer, continue_is_sent_when_the_handler_reads) {
  Fixture f;
  f.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(f.receive(), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(body_of(f.ask("abc")), "got abc");
  EXPECT_FALSE(f.ended());
}

TEST(HttpServer, a_refused_expectation_closes_without_swallowing_the_body) {
  Fixture f;
  const std::string answer = f.ask("PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(f.ended());
}

TEST(HttpServer, a_small_unread_body_is_dropped_and_a_large_one_closes) {
  Fixture f;
  EXPECT_THAT(f.ask("PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + get("/hello")), EndsWith("hello"));
  EXPECT_FALSE(f.ended());
  const std::string answer = f.ask("PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + std::string(100'000, 'x'));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(f.ended());
}

TEST(HttpServer, head_and_204_have_no_body) {
  Fixture f;
  const std::string head = f.ask("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Content-Length: 5\r\n"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
  EXPECT_THAT(f.ask("HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n"), EndsWith("Content-Length: 3145728\r\n\r\n"));
  const std::string none = f.ask(get("/nobody"));
  EXPECT_THAT(none, Not(HasSubstr("Content-Length")));
  EXPECT_THAT(none, EndsWith("\r\n\r\n"));
  EXPECT_FALSE(f.ended());
}

TEST(HttpServer, http10_ends_where_it_must) {
  Fixture f;
  EXPECT_THAT(f.ask("GET /stream HTTP/1.0\r\n\r\n"), EndsWith("Connection: close\r\n\r\nonetwo!"));
  EXPECT_TRUE(f.ended());
  f.connect();
  EXPECT_THAT(f.ask("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), HasSubstr("Connection: keep-alive\r\n"));
  EXPECT_FALSE(f.ended());
}

TEST(HttpServer, an_answer_that_stays_short_breaks_the_connection) {
  Fixture f;
  f.ask(get("/short"));
  EXPECT_TRUE(f.ended());
}

TEST(HttpServer, a_silent_handler_is_answered_with_500) {
  Fixture f;
  EXPECT_THAT(f.ask(get("/unknown")), StartsWith("HTTP/1.1 500 "));
}

TEST(HttpServer, timeouts) {
  Fixture f;
  // A head that does not end.
  f.send("GET /hello HT");
  EXPECT_THAT(f.receive(seconds(20)), StartsWith("HTTP/1.1 408 "));
  EXPECT_TRUE(f.ended());
  // An idle connection goes without a word.
  f.connect();
  f.ask(get("/hello"));
  EXPECT_EQ(f.receive(seconds(119)), "");
  EXPECT_FALSE(f.ended());
  EXPECT_EQ(f.receive(seconds(2)), "");
  EXPECT_TRUE(f.ended());
  // A body that stalls.
  f.connect();
  f.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
  f.receive(seconds(40));
  EXPECT_EQ(f.handler.error, Code::timed_out);
  EXPECT_TRUE(f.ended());
  // A reader that takes nothing.
  f.handler.error.reset();
  f.connect();
  f.send(get("/big"));
  f.executor.run(sleep_for(seconds(40)));
  EXPECT_EQ(f.handler.error, Code::timed_out);
}

TEST(HttpServer, a_client_that_vanishes_mid_upload_is_an_error_never_a_short_body) {
  for (const std::string_view framing : {"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}) {
    Fixture f;
    f.send(fmt::format("PUT /echo HTTP/1.1\r\nHost: a\r\n{}", framing));
    f.client->close();
    f.executor.run(sleep_for(seconds(1)));
    EXPECT_EQ(f.handler.error, Code::connection_closed);
    EXPECT_EQ(f.handler.last_body, "");
  }
}

TEST(HttpServer, large_answers_arrive_whole_through_a_small_window) {
  Fixture f;
  f.client->incoming().capacity = 1000;
  const std::string answer = f.ask(get("/big"));
  const std::string body = body_of(answer);
  ASSERT_EQ(body.size(), 3u << 20);
  const Buffer expected = filled(1 << 20);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(std::string_view(body).substr(static_cast<size_t>(i) << 20, 1 << 20), text_of(expected.view()));
}

TEST(HttpServer, stop_finishes_what_was_accepted_and_closes_the_idle) {
  Fixture f;
  f.ask(get("/hello"));
  auto idle = std::move(f.client);
  f.connect();
  f.send(get("/slow"));
  f.executor.run(sleep_for(milliseconds(1)));
  f.executor.run(f.server->stop(f.executor.now() + seconds(30)));
  EXPECT_TRUE(idle->incoming().ended);
  const std::string answer = f.receive();
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, EndsWith("slow"));
  EXPECT_EQ(f.server->stats().connections_open, 0u);
}

TEST(HttpServer, stop_cuts_what_does_not_end_in_time) {
  Fixture f;
  f.send("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
  f.executor.run(sleep_for(milliseconds(1)));
  f.executor.run(f.server->stop(f.executor.now() + seconds(1)));
  EXPECT_EQ(f.handler.error, Code::cancelled);
}

TEST(HttpServer, connections_are_bounded) {
  SimExecutor executor;
  PathHandler handler;
  HttpServerOptions options;
  options.connections_max = 2;
  HttpServer server(handler, options);
  MemoryNetwork network;
  auto listener = network.listen({"a", 80}, false);
  server.start(std::move(*listener));
  std::vector<std::unique_ptr<Stream>> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(*executor.run(network.connect({"a", 80}, kNoDeadline)));
  executor.run(sleep_for(milliseconds(1)));
  EXPECT_EQ(server.stats().connections_open, 2u);
  clients[0]->close();
  executor.run(sleep_for(milliseconds(1)));
  EXPECT_EQ(server.stats().connections_open, 2u);
  EXPECT_EQ(server.stats().connections_accepted, 3u);
  executor.run(server.stop(executor.now()));
}

// Waits for a hello that never comes, as a TLS handshake with a silent peer does.
Task<Result<std::unique_ptr<Stream>>> never_secured(std::unique_ptr<Stream> stream, TimePoint deadline) {
  uint8_t hello = 0;
  auto got = co_await stream->read({&hello, 1}, deadline);
  if (!got) co_return std::move(got).error();
  co_return std::move(stream);
}

TEST(HttpServer, stop_does_not_wait_for_tls_handshakes) {
  SimExecutor executor;
  PathHandler handler;
  HttpServer server(handler, {});
  MemoryNetwork network;
  auto listener = network.listen({"a", 443}, false);
  server.start(std::move(*listener), never_secured);
  auto silent = *executor.run(network.connect({"a", 443}, kNoDeadline));
  auto gone = *executor.run(network.connect({"a", 443}, kNoDeadline));
  executor.run(sleep_for(milliseconds(1)));
  gone->close();
  executor.run(sleep_for(milliseconds(1)));
  EXPECT_EQ(server.stats().connections_open, 1u);
  const TimePoint begun = executor.now();
  executor.run(server.stop(executor.now() + seconds(30)));
  EXPECT_LT(executor.now() - begun, milliseconds(10));
}

}  // namespace
}  // namespace quarry
