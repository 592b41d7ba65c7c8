// A whole connection: the input is what a client sends, in pieces; the server must answer, refuse or wait, and leave nothing behind.
// Also: whatever the parser accepts has the properties that the rest relies on.
#include "io/sim/sim_executor.h"
#include "wire/http_server.h"
#include "wire/memory_stream.h"

namespace quarry {
namespace {

class ReadingHandler final : public HttpHandler {
 public:
  Task<void> handle(HttpExchange& exchange) override {
    CHECK(!exchange.request.method.empty());
    CHECK(!(exchange.request.chunked && exchange.request.content_length && exchange.request.version != HttpVersion::http2));
    const bool by_pieces = exchange.request.path.size() % 2 == 1;
    for (uint64_t total = 0; total < 1 << 20;) {
      Buffer buffer(by_pieces ? 7 : 5000);
      auto got = co_await exchange.body.read_into(buffer.mutable_view());
      if (!got) co_return;
      total += *got;
      if (*got < buffer.size()) break;
    }
    (co_await exchange.response.respond({}, "ok")).ignore("the fuzzer does not listen");
  }
};

Task<void> client(MemoryStream& stream, std::string_view input, size_t step) {
  for (size_t at = 0; at < input.size(); at += step) {
    std::vector<ByteView> parts{bytes_of(input.substr(at, step))};
    const auto sent = co_await stream.write(std::move(parts), kNoDeadline);
    if (!sent) break;
    co_await sleep_for(std::chrono::milliseconds(1));
  }
  (co_await stream.shutdown_write()).ignore("the server may have gone");
}

}  // namespace
}  // namespace quarry

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quarry;
  if (size < 1) return 0;
  const size_t step = data[0] == 0 ? size : data[0];
  const std::string_view input = text_of({data + 1, size - 1});

  Http1HeadScanner scanner({});
  const auto head_size = scanner.scan(input);
  if (head_size && *head_size > 0) {
    RequestHead head;
    if (parse_request_head(input.substr(0, *head_size), head)) {
      CHECK(head.version == HttpVersion::http10 || !head.authority.empty());
      for (const auto& field : head.headers)
        CHECK(!field.name.empty() && field.value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos);
    }
    ClientResponseHead response;
    parse_response_head(input.substr(0, *head_size), response).ignore("either way");
  }

  SimExecutor executor;
  ReadingHandler handler;
  HttpServer server(handler, {});
  auto [ours, theirs] = MemoryStream::pair();
  ours->incoming().capacity = 1 << 20;
  server.serve(std::move(theirs));
  executor.run(client(*ours, input, step));
  executor.run(sleep_for(std::chrono::seconds(300)));
  ours->close();
  executor.run(server.stop(executor.now()));
  CHECK(server.stats().connections_open == 0 && server.stats().requests_active == 0);
  return 0;
}
