#include "wire/http_client.h"

#include <deque>

#include "io/sync.h"
#include "wire/http1_body.h"

namespace quarry {
namespace {

constexpr size_t kReceiveBuffer = 16 * kKiB;
constexpr uint64_t kWriteUnit = 256 * kKiB;   // what stall_timeout is about
constexpr uint64_t kOverlapMin = 256 * kKiB;  // a longer body is sent while the response is awaited: it may come early
constexpr Duration kContinueWait = std::chrono::seconds(1);

struct Connection {
  std::string key;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<char[]> buffer = std::make_unique_for_overwrite<char[]>(kReceiveBuffer);
  size_t capacity = kReceiveBuffer;
  size_t begin = 0, end = 0;
  bool reused = false;
  TimePoint idle_since{};

  std::string_view unread() const { return {buffer.get() + begin, end - begin}; }
};

bool repeatable(const ClientRequest& request) {
  if (request.source != nullptr || request.method == "POST" || request.method == "PATCH") return false;
  for (size_t i = 0; i < request.headers.size(); ++i) {
    const std::string_view name = request.headers.at(i).name;
    if (name.size() > 3 && equal_ignoring_case(name.substr(0, 3), "if-")) return false;
  }
  return true;
}

}  // namespace

struct HttpClient::State {
  Network& network;
  HttpClientOptions options;
  Semaphore permits;
  std::deque<std::unique_ptr<Connection>> idle;  // oldest first

  State(Network& n, HttpClientOptions o) : network(n), options(std::move(o)), permits(options.connections_max) {}

  std::unique_ptr<Connection> take_idle(const std::string& key);
  void give_back(std::unique_ptr<Connection> connection);
  Task<Result<std::unique_ptr<Connection>>> connect(Url url, std::string key, TimePoint deadline);
};

// Also the owner of the connection and of its permit.
struct ClientResponse::State final : BodyReader {
  std::shared_ptr<HttpClient::State> client;
  std::unique_ptr<Connection> connection;
  std::string head_text;  // the views of head borrow it
  ClientResponseHead head;
  Http1Body body;
  bool head_request = false;
  bool reusable = false;
  TimePoint sent_at{};  // when the stream last took something of the request

  explicit State(std::shared_ptr<HttpClient::State> c)
      : client(std::move(c)), body(client->options.limits, client->options.stall_timeout, "response body") {}
  State(const State&) = delete;
  ~State() override {
    if (connection && reusable && body.done() && !body.failed() && body.rest().empty()) {
      client->give_back(std::move(connection));
    } else if (connection) {
      connection->stream->close();
    }
    client->permits.release();
  }

  std::optional<uint64_t> length() const override {
    return body.kind() == Http1Body::Kind::length ? std::optional(body.left() + body.bytes_read()) : std::nullopt;
  }
  uint64_t bytes_read() const override { return body.bytes_read(); }
  Task<Result<size_t>> read_into(MutableByteView into) override {
    auto result = co_await body.read_into(into);
    co_return result;
  }
  Task<Result<SharedBytes>> read(size_t max) override {
    auto result = co_await body.read(max);
    co_return result;
  }

  Task<Result<void>> send(std::vector<ByteView> parts);
  Task<Result<void>> send_body(const ClientRequest& request, const bool* stop);
  Task<Result<void>> receive_head(TimePoint deadline, bool* any_byte);
  Task<Result<void>> exchange(const std::string& head_bytes, const ClientRequest& request, bool* any_byte);
  Duration head_patience{};  // ClientRequest::patience
  void begin_body();
};

std::unique_ptr<Connection> HttpClient::State::take_idle(const std::string& key) {
  const TimePoint now = Executor::here().now();
  while (!idle.empty() && idle.front()->idle_since + options.idle_timeout <= now) idle.pop_front();
  for (auto it = idle.rbegin(); it != idle.rend(); ++it) {
    if ((*it)->key != key) continue;
    auto connection = std::move(*it);
    idle.erase(std::next(it).base());
    return connection;
  }
  return nullptr;
}

void HttpClient::State::give_back(std::unique_ptr<Connection> connection) {
  connection->begin = connection->end = 0;
  connection->reused = true;
  connection->idle_since = Executor::here().now();
  idle.push_back(std::move(connection));
  if (idle.size() > options.idle_connections_max) idle.pop_front();
}

Task<Result<std::unique_ptr<Connection>>> HttpClient::State::connect(Url url, std::string key, TimePoint deadline) {
  if (url.is_tls && !options.tls)
    co_return fail(Code::misconfigured, "https://{} needs TLS, which this client was not given", url.authority());
  auto stream = co_await network.connect(SocketAddress{url.host, url.port}, deadline);
  if (!stream) {
    // Nothing was sent: whatever the reason, the same request may be tried again.
    const Code code = stream.error().code() == Code::timed_out ? Code::timed_out : Code::unavailable;
    co_return fail(code, "connect to {}: {}", url.authority(), stream.error().to_string());
  }
  auto connection = std::make_unique<Connection>();
  connection->key = std::move(key);
  connection->stream = std::move(*stream);
  if (url.is_tls) {
    auto secured = co_await options.tls(std::move(connection->stream), url.host, deadline);
    if (!secured) co_return std::move(secured).error().with(fmt::format("TLS with {}", url.authority()));
    connection->stream = std::move(*secured);
  }
  co_return std::move(connection);
}

Task<Result<void>> ClientResponse::State::send(std::vector<ByteView> parts) {
  std::vector<ByteView> unit;
  size_t room = kWriteUnit;
  for (size_t i = 0; i < parts.size();) {
    const size_t take = std::min(room, parts[i].size());
    unit.push_back(parts[i].first(take));
    parts[i] = parts[i].subspan(take);
    if (parts[i].empty()) ++i;
    room -= take;
    if (room > 0 && i < parts.size()) continue;
    CO_TRY(co_await connection->stream->write(std::move(unit), Executor::here().now() + client->options.stall_timeout));
    sent_at = Executor::here().now();
    unit.clear();
    room = kWriteUnit;
  }
  co_return Result<void>();
}

// Sends the body, until the end or until *stop.
Task<Result<void>> ClientResponse::State::send_body(const ClientRequest& request, const bool* stop) {
  for (const SharedBytes& part : request.body) {
    for (size_t at = 0; at < part.size() && !*stop; at += kWriteUnit) {
      std::vector<ByteView> parts{part.view().subspan(at, std::min<size_t>(kWriteUnit, part.size() - at))};
      CO_TRY(co_await send(std::move(parts)));
    }
  }
  if (request.source == nullptr) co_return Result<void>();
  uint64_t left = request.source_length.value_or(0);
  while (!*stop) {
    CO_TRY_ASSIGN(const SharedBytes piece, co_await request.source->next());
    if (piece.empty()) break;
    std::vector<ByteView> parts;
    std::string size_line;
    if (request.source_length) {
      if (piece.size() > left)
        co_return fail(Code::invalid_argument, "the body is longer than the {} bytes announced", *request.source_length);
      left -= piece.size();
      parts.push_back(piece.view());
    } else {
      size_line = fmt::format("{:x}\r\n", piece.size());
      parts = {bytes_of(size_line), piece.view(), bytes_of("\r\n")};
    }
    CO_TRY(co_await send(std::move(parts)));
  }
  if (*stop) co_return Result<void>();
  if (request.source_length) {
    if (left > 0) co_return fail(Code::invalid_argument, "the body ends {} bytes before the length announced", left);
  } else {
    std::vector<ByteView> parts{bytes_of("0\r\n\r\n")};
    CO_TRY(co_await send(std::move(parts)));
  }
  co_return Result<void>();
}

Task<Result<void>> ClientResponse::State::receive_head(TimePoint deadline, bool* any_byte) {
  Connection& c = *connection;
  Http1HeadScanner scanner(client->options.limits);
  for (;;) {
    if (c.begin < c.end) {
      CO_TRY_ASSIGN(const size_t size, scanner.scan(c.unread()));
      if (size > 0) {
        head_text.assign(c.unread().substr(0, size));
        c.begin += size;
        CO_TRY(parse_response_head(head_text, head));
        co_return Result<void>();
      }
    }
    if (c.end == c.capacity) {
      if (c.begin == 0) {
        // The scanner refuses a head of head_bytes_max, so growth is bounded.
        auto larger = std::make_unique_for_overwrite<char[]>(c.capacity * 2);
        std::memcpy(larger.get(), c.buffer.get(), c.end);
        c.buffer = std::move(larger);
        c.capacity *= 2;
      } else {
        std::memmove(c.buffer.get(), c.buffer.get() + c.begin, c.end - c.begin);
        c.end -= c.begin;
        c.begin = 0;
      }
    }
    const TimePoint asked = Executor::here().now();
    auto got = co_await c.stream->read({reinterpret_cast<uint8_t*>(c.buffer.get()) + c.end, c.capacity - c.end},
                                       std::min(deadline, asked + std::max(head_patience, client->options.stall_timeout)));
    // While a body is being sent its progress counts: an upload may take hours before it is answered.
    if (!got && got.error().code() == Code::timed_out && sent_at > asked && Executor::here().now() < deadline) continue;
    if (!got) co_return std::move(got).error();
    if (*got == 0) co_return Error(Code::connection_closed, "the server closed the connection before its answer");
    *any_byte = true;
    c.end += *got;
  }
}

void ClientResponse::State::begin_body() {
  Http1Body::Kind kind = Http1Body::Kind::until_end;
  uint64_t length = 0;
  if (head_request || status_forbids_body(head.status)) {
    kind = Http1Body::Kind::length;
  } else if (head.chunked) {
    kind = Http1Body::Kind::chunked;
  } else if (head.content_length) {
    kind = Http1Body::Kind::length;
    length = *head.content_length;
  }
  reusable = reusable && head.keep_alive && kind != Http1Body::Kind::until_end;
  body.start(*connection->stream, kind, length, connection->unread());
}

namespace {
Task<void> into_slot(Task<Result<void>> task, Result<void>* slot) { *slot = co_await std::move(task); }
}  // namespace

Task<Result<void>> ClientResponse::State::exchange(const std::string& head_bytes, const ClientRequest& request, bool* any_byte) {
  uint64_t body_size = request.source_length.value_or(0);
  for (const auto& part : request.body) body_size += part.size();
  const bool has_body = body_size > 0 || request.source != nullptr;
  const bool ask_first = request.expect_continue && has_body;
  const bool overlap = request.source != nullptr || body_size > kOverlapMin;
  reusable = true;
  head_patience = request.patience;
  head_request = request.method == "HEAD";

  std::vector<ByteView> first{bytes_of(head_bytes)};
  if (!ask_first && !overlap) {
    for (const auto& part : request.body) first.push_back(part.view());
  }
  Result<void> written = co_await send(std::move(first));

  bool answered = false;
  if (written && ask_first) {
    const TimePoint patience = std::min(request.deadline, Executor::here().now() + kContinueWait);
    Result<void> early = co_await receive_head(patience, any_byte);
    if (early && head.status >= 200) {
      answered = true;
      reusable = false;  // the server may or may not still wait for the body
    } else if (!early && early.error().code() != Code::timed_out) {
      co_return early;
    }
  }
  bool stop = answered;
  TaskGroup writer;
  if (written && has_body && !answered && (ask_first || overlap)) writer.spawn(into_slot(send_body(request, &stop), &written));

  Result<void> received;
  while (!answered) {
    received = co_await receive_head(request.deadline, any_byte);
    // If the body could not be sent, the server may have said why before it closed.
    if (!received) break;
    if (head.status == 101) {
      received = Error(Code::malformed, "the server switches to a protocol nobody asked for");
      break;
    }
    answered = head.status >= 200;
  }
  if (writer.running() > 0) {
    stop = true;  // an early answer, or none: what is not sent yet is not wanted
    reusable = false;
    if (!received) connection->stream->close();
  }
  co_await writer.join();
  if (!written) {
    reusable = false;
    // The source's own error, or the reason why nothing could be sent, says more than a missing answer.
    if (!received) co_return written;
    if (request.source != nullptr && written.error().code() != Code::connection_closed) co_return written;
  }
  if (!received) co_return received;
  begin_body();
  co_return Result<void>();
}

ClientResponse::ClientResponse(std::unique_ptr<State> state) : state_(std::move(state)) {}
ClientResponse::~ClientResponse() = default;
int ClientResponse::status() const { return state_->head.status; }
const ClientResponseHead& ClientResponse::head() const { return state_->head; }
std::string_view ClientResponse::header(std::string_view name) const { return state_->head.find(name).value_or(std::string_view()); }
BodyReader& ClientResponse::body() { return *state_; }

HttpClient::HttpClient(Network& network, HttpClientOptions options) : state_(std::make_shared<State>(network, std::move(options))) {}
HttpClient::~HttpClient() = default;
void HttpClient::close_idle() { state_->idle.clear(); }

Task<Result<std::unique_ptr<ClientResponse>>> HttpClient::send(Url url, ClientRequest request) {
  const auto client = state_;
  std::string head;
  head.reserve(256 + request.headers.serialized().size());
  head += request.method;
  head += ' ';
  head += request.target;
  head += " HTTP/1.1\r\n";
  if (!request.headers.has("Host")) head += fmt::format("Host: {}\r\n", url.authority());
  head += request.headers.serialized();
  uint64_t size = request.source_length.value_or(0);
  for (const auto& part : request.body) size += part.size();
  if (request.source != nullptr && !request.source_length) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (size > 0 || request.method == "PUT" || request.method == "POST") {
    head += fmt::format("Content-Length: {}\r\n", size);
  }
  if (request.expect_continue && (size > 0 || request.source != nullptr)) head += "Expect: 100-continue\r\n";
  head += "\r\n";

  co_await client->permits.acquire();
  auto state = std::make_unique<ClientResponse::State>(client);  // gives the permit back
  const std::string key = fmt::format("{} {}", url.is_tls ? "https" : "http", url.authority());
  for (bool may_reuse = true;; may_reuse = false) {
    if (may_reuse) state->connection = client->take_idle(key);
    if (!state->connection) {
      const TimePoint deadline = std::min(request.deadline, Executor::here().now() + client->options.connect_timeout);
      CO_TRY_ASSIGN(state->connection, co_await client->connect(url, key, deadline));
    }
    bool any_byte = false;
    Result<void> done = co_await state->exchange(head, request, &any_byte);
    if (done) co_return std::unique_ptr<ClientResponse>(new ClientResponse(std::move(state)));
    const bool stale = state->connection->reused && !any_byte && done.error().code() == Code::connection_closed && repeatable(request);
    state->connection->stream->close();
    state->connection.reset();
    if (!stale) co_return std::move(done).error().with(fmt::format("{} {}", request.method, url.authority()));
  }
}

std::string_view HttpClient::Answer::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

Task<Result<HttpClient::Answer>> HttpClient::call(Url url, ClientRequest request, size_t body_max) {
  CO_TRY_ASSIGN(std::unique_ptr<ClientResponse> response, co_await send(std::move(url), std::move(request)));
  Answer answer;
  answer.status = response->status();
  for (const auto& field : response->head().headers) answer.headers.emplace_back(field.name, field.value);
  CO_TRY_ASSIGN(answer.body, co_await response->text(body_max));
  co_return std::move(answer);
}

}  // namespace quarry
