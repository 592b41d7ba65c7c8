// A server that answers what a test tells it to, over a network in memory: for how the clients take answers that our node seldom gives.
#pragma once
#include <gtest/gtest.h>

#include <deque>

#include "io/sim/sim_executor.h"
#include "wire/http_client.h"
#include "wire/http_server.h"
#include "wire/memory_stream.h"

namespace quarry::client {

class ScriptedServer final : public HttpHandler {
 public:
  struct Answer {
    int status = 200;
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers = {};
  };
  struct Seen {
    std::string method, path, query, body;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string header(std::string_view name) const {
      for (const auto& [key, value] : headers) {
        if (equal_ignoring_case(key, name)) return value;
      }
      return {};
    }
  };

  ScriptedServer() : server_(*this, HttpServerOptions()), client_(network_, HttpClientOptions()) {
    server_.start(std::move(*network_.listen({"server", 9000}, false)));
  }
  ~ScriptedServer() override {
    client_.close_idle();
    executor_.run(server_.stop(executor_.now() + std::chrono::seconds(1)));
  }
  void say(Answer answer) { script_.push_back(std::move(answer)); }
  HttpClient& http() { return client_; }
  std::string url() const { return "http://server:9000"; }
  template <class T>
  T run(Task<T> task) {
    return executor_.run(std::move(task));
  }
  std::vector<Seen> seen;

  Task<void> handle(HttpExchange& exchange) override {
    Seen request{.method = std::string(exchange.request.method),
                 .path = std::string(exchange.request.raw_path),
                 .query = std::string(exchange.request.raw_query),
                 .body = {},
                 .headers = {}};
    for (const auto& field : exchange.request.headers) request.headers.emplace_back(field.name, field.value);
    for (;;) {
      auto piece = co_await exchange.body.read(100'000);
      if (!piece || piece->empty()) break;
      request.body += text_of(*piece);
    }
    seen.push_back(std::move(request));
    Answer answer{.status = 500, .body = "nothing is left to say"};
    if (!script_.empty()) {
      answer = std::move(script_.front());
      script_.pop_front();
    }
    ResponseHead head;
    head.status = answer.status;
    for (const auto& [name, value] : answer.headers) head.headers.add(name, value);
    (co_await exchange.response.respond(std::move(head), answer.body)).ignore("the client sees it");
  }

 private:
  SimExecutor executor_;
  MemoryNetwork network_;
  HttpServer server_;
  HttpClient client_;
  std::deque<Answer> script_;
};

}  // namespace quarry::client
