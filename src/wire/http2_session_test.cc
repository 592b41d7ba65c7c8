// The server's HTTP/2 side against a client made of nghttp2, over in-memory streams and virtual time. Framing and state rules are the
// business of h2spec (tests/conformance); here: bodies, back-pressure, aborts, draining, bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include "io/sim/sim_executor.h"
#include "wire/http_server.h"
#include "wire/memory_stream.h"

namespace quarry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

SharedBytes counted(uint64_t from, size_t size) {
  Buffer buffer(size);
  for (size_t i = 0; i < size; ++i) buffer.data()[i] = static_cast<uint8_t>((from + i) % 251);
  return SharedBytes(std::move(buffer));
}

class Handler final : public HttpHandler {
 public:
  Task<void> handle(HttpExchange& exchange) override {
    ++calls;
    path = exchange.request.path;
    if (path == "/echo") {
      ResponseHead head;
      head.headers.add("X-Host", exchange.request.authority).add("X-Query", exchange.request.raw_query);
      (co_await exchange.response.send_head(std::move(head))).ignore("test");
      for (;;) {
        auto piece = co_await exchange.body.read(10'000);
        if (!piece) {
          error = piece.error().code();
          co_return;
        }
        if (piece->empty()) break;
        (co_await exchange.response.write(std::move(*piece))).ignore("test");
      }
      (co_await exchange.response.finish()).ignore("test");
    } else if (path == "/sink") {
      Buffer buffer(100'000);
      uint64_t total = 0;
      if (slow) co_await sleep_for(seconds(10));
      for (;;) {
        const auto got = co_await exchange.body.read_into(buffer.mutable_view());
        if (!got) {
          error = got.error().code();
          co_return;
        }
        for (size_t i = 0; i < *got; ++i) EXPECT_EQ(buffer.data()[i], (total + i) % 251);
        total += *got;
        if (*got < buffer.size()) break;
      }
      (co_await exchange.response.respond({}, fmt::format("{}", total))).ignore("test");
    } else if (path == "/big") {
      ResponseHead head;
      head.content_length = 5'000'000;
      (co_await exchange.response.send_head(std::move(head))).ignore("test");
      for (uint64_t at = 0; at < 5'000'000; at += 1'000'000) {
        const auto sent = co_await exchange.response.write(counted(at, 1'000'000));
        if (!sent) {
          error = sent.error().code();
          co_return;
        }
      }
      (co_await exchange.response.finish()).ignore("test");
    } else if (path == "/half") {
      (co_await exchange.response.send_head({})).ignore("test");
      (co_await exchange.response.write(counted(0, 10))).ignore("test");
    } else if (path == "/refuse") {
      ResponseHead head;
      head.status = 403;
      (co_await exchange.response.respond(std::move(head), "no")).ignore("test");
    } else if (path == "/wait") {
      co_await sleep_for(seconds(5));
      (co_await exchange.response.respond({}, "waited")).ignore("test");
    }
  }
  int calls = 0;
  bool slow = false;
  std::string path;
  std::optional<Code> error;
};

struct Answer {
  std::string status, body;
  std::map<std::string, std::string> headers;
  std::vector<std::string> informational;
  bool closed = false;
  uint32_t error = 0;
};

// A client session. Sends what nghttp2 wants to send, reads what comes.
struct Fixture {
  SimExecutor executor;
  Handler handler;
  HttpServerOptions options;
  std::unique_ptr<HttpServer> server;
  std::unique_ptr<MemoryStream> stream;
  nghttp2_session* session = nullptr;
  std::map<int32_t, Answer> answers;
  bool goaway = false;
  bool auto_window = true;
  uint64_t upload_offset = 0;

  explicit Fixture(HttpServerOptions with = {}, bool windows = true) : options(std::move(with)), auto_window(windows) {
    server = std::make_unique<HttpServer>(handler, options);
    auto [ours, theirs] = MemoryStream::pair();
    stream = std::move(ours);
    server->serve(std::move(theirs));

    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
                      size_t value_size, uint8_t, void* user) {
          Answer& answer = static_cast<Fixture*>(user)->answers[frame->hd.stream_id];
          const std::string key(text_of({name, name_size})), text(text_of({value, value_size}));
          if (key == ":status" && text.starts_with('1'))
            answer.informational.push_back(text);
          else if (key == ":status")
            answer.status = text;
          else
            answer.headers[key] = text;
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user) {
          static_cast<Fixture*>(user)->answers[id].body.append(text_of({data, size}));
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, [](nghttp2_session*, int32_t id, uint32_t code, void* user) {
      Answer& answer = static_cast<Fixture*>(user)->answers[id];
      answer.closed = true;
      answer.error = code;
      return 0;
    });
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
      if (frame->hd.type == NGHTTP2_GOAWAY) static_cast<Fixture*>(user)->goaway = true;
      return 0;
    });
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    if (!auto_window) nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_session_client_new2(&session, callbacks, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  ~Fixture() {
    stream->close();
    executor.run(server->stop(executor.now() + seconds(60)));
    nghttp2_session_del(session);
  }

  int32_t request(std::string method, std::string path, nghttp2_data_provider* body = nullptr,
                  std::vector<std::pair<std::string, std::string>> more = {}) {
    std::vector<std::pair<std::string, std::string>> fields{
        {":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "host:9000"}};
    fields.insert(fields.end(), more.begin(), more.end());
    std::vector<nghttp2_nv> nv;
    for (auto& [name, value] : fields) {
      nv.push_back({reinterpret_cast<uint8_t*>(name.data()), reinterpret_cast<uint8_t*>(value.data()), name.size(), value.size(),
                    NGHTTP2_NV_FLAG_NONE});
    }
    return nghttp2_submit_request(session, nullptr, nv.data(), nv.size(), body, nullptr);
  }
  // Bytes 0, 1, ... 250, 0, ... up to `total`.
  static nghttp2_data_provider upload(uint64_t& left_and_offset) {
    nghttp2_data_provider provider{};
    provider.source.ptr = &left_and_offset;
    provider.read_callback = [](nghttp2_session*, int32_t, uint8_t* into, size_t size, uint32_t* flags, nghttp2_data_source* source,
                                void* user) -> ssize_t {
      auto& left = *static_cast<uint64_t*>(source->ptr);
      uint64_t& offset = static_cast<Fixture*>(user)->upload_offset;
      const auto n = static_cast<size_t>(std::min<uint64_t>(size, left));
      for (size_t i = 0; i < n; ++i) into[i] = static_cast<uint8_t>((offset + i) % 251);
      left -= n;
      offset += n;
      if (left == 0) *flags |= NGHTTP2_DATA_FLAG_EOF;
      return static_cast<ssize_t>(n);
    };
    return provider;
  }
  // Exchanges bytes until nothing moves for `patience`.
  void pump(Duration patience = milliseconds(10)) {
    executor.run([](Fixture& f, Duration wait) -> Task<void> {
      uint8_t piece[16384];
      for (;;) {
        const uint8_t* data = nullptr;
        for (ssize_t size = 0; (size = nghttp2_session_mem_send(f.session, &data)) > 0;) {
          std::vector<ByteView> parts{ByteView(data, static_cast<size_t>(size))};
          (co_await f.stream->write(std::move(parts), Executor::here().now() + seconds(1))).ignore("the server may have gone");
        }
        const auto got = co_await f.stream->read({piece, sizeof piece}, Executor::here().now() + wait);
        if (!got || *got == 0) co_return;
        nghttp2_session_mem_recv(f.session, piece, *got);
      }
    }(*this, patience));
  }
};

TEST(Http2, many_requests_on_one_connection) {
  Fixture f;
  std::vector<int32_t> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(f.request("GET", fmt::format("/echo?n={}", i)));
  f.pump();
  for (size_t i = 0; i < ids.size(); ++i) {
    const Answer& answer = f.answers[ids[i]];
    EXPECT_EQ(answer.status, "200");
    EXPECT_EQ(answer.headers.at("x-query"), fmt::format("n={}", i));
    EXPECT_EQ(answer.headers.at("x-host"), "host:9000");
    EXPECT_TRUE(answer.closed);
    EXPECT_EQ(answer.error, 0u);
  }
  EXPECT_EQ(f.server->stats().requests, 20u);
  EXPECT_EQ(f.server->stats().requests_active, 0u);
}

TEST(Http2, bodies_both_ways_arrive_whole) {
  Fixture f;
  uint64_t left = 3'000'000;
  auto body = Fixture::upload(left);
  const int32_t sink = f.request("PUT", "/sink", &body);
  f.pump();
  EXPECT_EQ(f.answers[sink].body, "3000000");
  const int32_t big = f.request("GET", "/big");
  f.pump();
  ASSERT_EQ(f.answers[big].body.size(), 5'000'000u);
  for (size_t i = 0; i < 5'000'000; ++i)
    ASSERT_EQ(static_cast<uint8_t>(f.answers[big].body[i]), (i % 1'000'000 + i / 1'000'000 * 1'000'000) % 251);
  EXPECT_EQ(f.answers[big].headers.at("content-length"), "5000000");
  const int32_t head = f.request("HEAD", "/big");
  f.pump();
  EXPECT_EQ(f.answers[head].body, "");
  EXPECT_TRUE(f.answers[head].closed);
}

TEST(Http2, a_slow_handler_stops_the_peer_at_the_window) {
  HttpServerOptions options;
  options.http2_stream_window_bytes = 256 * 1024;
  Fixture f(options);
  f.handler.slow = true;
  uint64_t left = 3'000'000;
  auto body = Fixture::upload(left);
  const int32_t sink = f.request("PUT", "/sink", &body);
  f.pump(seconds(1));
  EXPECT_EQ(f.upload_offset, 256u * 1024);
  f.pump(seconds(20));
  EXPECT_EQ(f.answers[sink].body, "3000000");
}

TEST(Http2, a_peer_that_opens_no_window_is_cut_and_others_go_on) {
  Fixture f({}, false);
  const int32_t big = f.request("GET", "/big");
  f.pump();
  EXPECT_EQ(f.answers[big].body.size(), 65'535u);
  f.executor.run(sleep_for(seconds(40)));
  f.pump();
  EXPECT_EQ(f.handler.error, Code::timed_out);
  EXPECT_TRUE(f.answers[big].closed);
  EXPECT_NE(f.answers[big].error, 0u);
  const int32_t after = f.request("HEAD", "/big");
  f.pump();
  EXPECT_EQ(f.answers[after].status, "200");
}

TEST(Http2, continue_when_the_handler_reads) {
  Fixture f;
  uint64_t left = 10;
  auto body = Fixture::upload(left);
  const int32_t id = f.request("PUT", "/sink", &body, {{"expect", "100-continue"}});
  f.pump();
  EXPECT_EQ(f.answers[id].informational, std::vector<std::string>{"100"});
  EXPECT_EQ(f.answers[id].body, "10");
}

TEST(Http2, a_refusal_tells_the_peer_to_stop_sending) {
  HttpServerOptions options;
  options.http2_stream_window_bytes = 65'535;
  Fixture f(options);
  uint64_t left = 10'000'000;
  auto body = Fixture::upload(left);
  const int32_t id = f.request("PUT", "/refuse", &body);
  f.pump();
  EXPECT_EQ(f.answers[id].status, "403");
  EXPECT_EQ(f.answers[id].body, "no");
  EXPECT_FALSE(f.answers[id].closed);  // it may still end by itself, but no more is invited
  f.pump(seconds(2));
  EXPECT_TRUE(f.answers[id].closed);
  EXPECT_EQ(f.answers[id].error, 0u);
  EXPECT_LT(f.upload_offset, 1'000'000u);
  // The dropped bytes opened the connection's window again: other streams can use all of it.
  for (int i = 0; i < 5; ++i) {
    f.upload_offset = 0;
    uint64_t more = 3'000'000;
    auto next = Fixture::upload(more);
    const int32_t sink = f.request("PUT", "/sink", &next);
    f.pump();
    EXPECT_EQ(f.answers[sink].body, "3000000");
  }
}

TEST(Http2, a_mistake_behind_an_early_answer_is_still_an_error) {
  Fixture f;
  size_t next = 0;
  nghttp2_data_provider body{};
  body.source.ptr = &next;
  body.read_callback = [](nghttp2_session*, int32_t, uint8_t* into, size_t, uint32_t*, nghttp2_data_source* source, void*) -> ssize_t {
    size_t& size = *static_cast<size_t*>(source->ptr);
    if (size == 0) return NGHTTP2_ERR_DEFERRED;
    std::memset(into, 'x', size);
    return static_cast<ssize_t>(std::exchange(size, 0));
  };
  const int32_t id = f.request("PUT", "/refuse", &body, {{"content-length", "5"}});
  f.pump();
  EXPECT_EQ(f.answers[id].status, "403");
  next = 6;  // one more than was announced
  nghttp2_session_resume_data(f.session, id);
  f.pump();
  EXPECT_TRUE(f.answers[id].closed);
  EXPECT_EQ(f.answers[id].error, static_cast<uint32_t>(NGHTTP2_PROTOCOL_ERROR));
}

TEST(Http2, broken_answers_and_vanished_peers_are_errors) {
  Fixture f;
  const int32_t half = f.request("GET", "/half");
  f.pump();
  EXPECT_EQ(f.answers[half].error, static_cast<uint32_t>(NGHTTP2_INTERNAL_ERROR));
  const int32_t silent = f.request("GET", "/nothing");
  f.pump();
  EXPECT_EQ(f.answers[silent].status, "500");

  // Reset by the peer in the middle of a body: the handler gets an error, not a short body.
  HttpServerOptions options;
  uint64_t left = 100'000'000;
  auto body = Fixture::upload(left);
  f.handler.slow = true;
  f.upload_offset = 0;
  const int32_t id = f.request("PUT", "/sink", &body);
  f.pump(milliseconds(100));
  nghttp2_submit_rst_stream(f.session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  f.pump(seconds(20));
  EXPECT_EQ(f.handler.error, Code::connection_closed);
  // And when the whole connection goes.
  f.handler.error.reset();
  f.upload_offset = 0;
  uint64_t more = 100'000'000;
  auto next = Fixture::upload(more);
  f.request("PUT", "/sink", &next);
  f.pump(milliseconds(100));
  f.stream->close();
  f.executor.run(sleep_for(seconds(20)));
  EXPECT_EQ(f.handler.error, Code::connection_closed);
  EXPECT_EQ(f.server->stats().connections_open, 0u);
}

TEST(Http2, a_body_that_stalls_times_out) {
  Fixture f;
  nghttp2_data_provider never{};
  never.read_callback = [](nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*, nghttp2_data_source*, void*) -> ssize_t {
    return NGHTTP2_ERR_DEFERRED;
  };
  f.request("PUT", "/sink", &never);
  f.pump();
  f.executor.run(sleep_for(seconds(35)));
  EXPECT_EQ(f.handler.error, Code::timed_out);
}

TEST(Http2, oversized_heads_get_431) {
  Fixture f;
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 200; ++i) many.emplace_back(fmt::format("x-{}", i), "v");
  const int32_t id = f.request("GET", "/echo", nullptr, many);
  f.pump();
  EXPECT_EQ(f.answers[id].status, "431");
  EXPECT_EQ(f.handler.calls, 0);
}

TEST(Http2, resets_in_bulk_end_the_connection) {
  Fixture f;
  for (int round = 0; round < 30 && !f.goaway; ++round) {
    for (int i = 0; i < 50; ++i) {
      const int32_t id = f.request("GET", "/wait");
      const uint8_t* data = nullptr;
      ssize_t size = nghttp2_session_mem_send(f.session, &data);
      while (size > 0) {
        f.executor.run([](Fixture& x, ByteView bytes) -> Task<void> {
          std::vector<ByteView> parts{bytes};
          (co_await x.stream->write(std::move(parts), kNoDeadline)).ignore("the server may have gone");
        }(f, ByteView(data, static_cast<size_t>(size))));
        size = nghttp2_session_mem_send(f.session, &data);
      }
      nghttp2_submit_rst_stream(f.session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    }
    f.pump(milliseconds(1));
  }
  EXPECT_TRUE(f.goaway);
  EXPECT_LE(f.handler.calls, 300);  // handlers of reset streams still run: they are bounded too
}

TEST(Http2, stop_finishes_open_streams_and_says_goodbye) {
  Fixture f;
  const int32_t id = f.request("GET", "/wait");
  f.pump(milliseconds(1));
  EXPECT_EQ(f.server->stats().requests_active, 1u);
  // stop() and the client run side by side.
  f.executor.run([](Fixture& x) -> Task<void> {
    TaskGroup group;
    group.spawn(x.server->stop(Executor::here().now() + seconds(30)));
    uint8_t piece[4096];
    for (;;) {
      const auto got = co_await x.stream->read({piece, sizeof piece}, kNoDeadline);
      if (!got || *got == 0) break;
      nghttp2_session_mem_recv(x.session, piece, *got);
    }
    co_await group.join();
  }(f));
  EXPECT_TRUE(f.goaway);
  EXPECT_EQ(f.answers[id].body, "waited");
  EXPECT_EQ(f.server->stats().connections_open, 0u);
}

TEST(Http2, an_idle_connection_ends) {
  Fixture f;
  f.request("GET", "/echo");
  f.pump();
  f.executor.run(sleep_for(seconds(150)));
  f.pump();
  EXPECT_TRUE(f.goaway);
  EXPECT_EQ(f.server->stats().connections_open, 0u);
}

}  // namespace
}  // namespace quarry
