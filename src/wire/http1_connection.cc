// One HTTP/1.1 connection: reads heads, hands each request to the handler, writes answers, in order.
// Buffers: 2 KiB inside the connection hold most heads, so an idle connection owns nothing else. A larger head takes a larger buffer until
// the connection is idle again. Body bytes go from the socket straight to the handler's memory, but for what arrived with the head and for
// chunk framing. Views of the head stay valid while its request is handled: the head buffer is not moved before the request is over.
#include <charconv>

#include "wire/http1_body.h"
#include "wire/http_connection.h"

namespace quarry {
namespace {

constexpr size_t kSmallBuffer = 2048;
constexpr uint64_t kWriteUnit = 256 * kKiB;  // what write_stall_timeout is about

class Http1Connection final : public BodyReader, public ResponseWriter {
 public:
  Http1Connection(HttpServing& serving, Stream& stream, HttpConnectionControl& control)
      : serving_(serving),
        stream_(stream),
        control_(control),
        body_(serving.options.limits, serving.options.body_stall_timeout, "request body") {}

  Task<Http1End> run(std::string& received);

  std::optional<uint64_t> length() const override { return head_.chunked ? std::nullopt : std::optional(head_.content_length.value_or(0)); }
  uint64_t bytes_read() const override { return body_.bytes_read(); }
  Task<Result<size_t>> read_into(MutableByteView into) override;
  Task<Result<SharedBytes>> read(size_t max) override;

  Task<Result<void>> send_head(ResponseHead head) override;
  Task<Result<void>> write(std::vector<SharedBytes> parts) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> finish() override;
  Task<Result<void>> respond(ResponseHead head, std::string body) override;
  bool head_sent() const override { return responded_; }
  void abort() override {
    broken_ = true;
    stream_.close();
  }

 private:
  enum class HeadEnd : uint8_t { request, closed, http2 };

  TimePoint after(Duration duration) const { return executor_.now() + duration; }
  std::string_view unread() const { return {buffer_ + begin_, end_ - begin_}; }
  void grow(size_t capacity);
  void release_buffers();
  Task<HeadEnd> next_head();
  Task<void> handle_request();
  Task<void> refuse(int status);
  Task<bool> finish_body();
  Task<void> linger();
  Task<Result<void>> before_body_read();
  void collect_rest();
  void start_response(ResponseHead& head);
  Task<Result<void>> send(std::vector<ByteView> parts);
  Error broken() const { return Error(Code::connection_closed, "the connection failed earlier"); }

  HttpServing& serving_;
  Stream& stream_;
  HttpConnectionControl& control_;
  Executor& executor_ = Executor::here();

  // Received and not yet used: buffer_[begin_, end_). While a request is handled, body_ keeps account of it.
  char small_[kSmallBuffer];
  std::unique_ptr<char[]> large_;
  char* buffer_ = small_;
  size_t capacity_ = kSmallBuffer;
  size_t begin_ = 0, end_ = 0;

  // The present request.
  RequestHead head_;
  Http1Body body_;
  bool continue_owed_ = false;  // the peer waits for 100 Continue

  // Its response.
  std::string out_;  // the head, until it leaves with the first body bytes
  bool responded_ = false;
  bool finished_ = false;
  bool no_body_ = false;  // HEAD, 204, 304
  bool chunked_out_ = false;
  std::optional<uint64_t> left_out_;
  bool close_ = false;   // after this response
  bool broken_ = false;  // no further I/O makes sense
};

void Http1Connection::grow(size_t capacity) {
  auto larger = std::make_unique_for_overwrite<char[]>(capacity);
  std::memcpy(larger.get(), buffer_ + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  large_ = std::move(larger);
  buffer_ = large_.get();
  capacity_ = capacity;
}

void Http1Connection::release_buffers() {
  body_.release_buffer();
  if (!large_ || begin_ != end_) return;
  large_.reset();
  buffer_ = small_;
  capacity_ = kSmallBuffer;
  begin_ = end_ = 0;
  if (out_.capacity() > 4 * kKiB) out_ = std::string();
}

Task<Http1End> Http1Connection::run(std::string& received) {
  for (bool first = true;; first = false) {
    const HeadEnd end = co_await next_head();
    if (end == HeadEnd::http2 && first) {
      received.assign(unread());
      co_return Http1End::upgrade_to_http2;
    }
    if (end != HeadEnd::request) co_return Http1End::closed;
    ++serving_.stats.requests;
    ++serving_.stats.requests_active;
    co_await handle_request();
    --serving_.stats.requests_active;
    if (broken_ || close_) break;
  }
  if (!broken_) co_await linger();
  co_return Http1End::closed;
}

Task<Http1Connection::HeadEnd> Http1Connection::next_head() {
  Http1HeadScanner scanner(serving_.options.limits);
  TimePoint deadline{};
  bool started = false;
  size_t scanned = 0;
  for (;;) {
    if (!started) {
      // Empty lines before a request line are skipped (RFC 9112 2.2).
      while (end_ - begin_ >= 2 && buffer_[begin_] == '\r' && buffer_[begin_ + 1] == '\n') begin_ += 2;
      if (begin_ == end_) {
        release_buffers();
        begin_ = end_ = 0;
        if (serving_.stopping) co_return HeadEnd::closed;
        control_.idle = true;
        deadline = after(serving_.options.idle_timeout);
      } else if (unread() != "\r") {
        started = true;
        deadline = after(serving_.options.header_timeout);
      }
    }
    if (started && end_ - begin_ > scanned) {
      scanned = end_ - begin_;
      const auto size = scanner.scan(unread());
      if (!size) {
        co_await refuse(size.error().code() == Code::too_large ? 431 : 400);
        co_return HeadEnd::closed;
      }
      if (*size > 0) {
        const std::string_view text = unread().substr(0, *size);
        if (serving_.options.enable_http2 && text == kHttp2Preface.substr(0, 18)) co_return HeadEnd::http2;
        const auto parsed = parse_request_head(text, head_);
        if (!parsed) {
          const bool other_version = parsed.error().code() == Code::unsupported && !text.substr(0, text.find('\r')).contains(" HTTP/1.");
          co_await refuse(parsed.error().code() == Code::malformed ? 400 : other_version ? 505 : 501);
          co_return HeadEnd::closed;
        }
        begin_ += *size;
        co_return HeadEnd::request;
      }
    }
    if (end_ == capacity_) {
      if (begin_ > 0) {
        std::memmove(buffer_, buffer_ + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
      } else {
        // The scanner refuses a head that reaches head_bytes_max, so there is always room for one byte more.
        const size_t wanted = capacity_ < serving_.options.read_buffer_bytes ? serving_.options.read_buffer_bytes : capacity_ * 4;
        grow(std::max(capacity_ + 1, std::min(wanted, serving_.options.limits.head_bytes_max + 1)));
      }
    }
    if (control_.idle && stream_.is_tls()) {
      // A read would make the TLS layer hold a buffer for as long as the connection is idle.
      const auto readable = co_await stream_.wait_readable(deadline);
      if (!readable) co_return HeadEnd::closed;
    }
    const auto got = co_await stream_.read({reinterpret_cast<uint8_t*>(buffer_) + end_, capacity_ - end_}, deadline);
    control_.idle = false;
    if (!got) {
      if (got.error().code() == Code::timed_out && started) co_await refuse(408);
      co_return HeadEnd::closed;
    }
    if (*got == 0) co_return HeadEnd::closed;
    end_ += *got;
  }
}

Task<void> Http1Connection::refuse(int status) {
  head_.clear();
  responded_ = finished_ = no_body_ = false;
  body_.start(stream_, Http1Body::Kind::length, 0, {});
  close_ = true;
  out_.clear();
  std::string body;
  ResponseHead head = server_error_head(serving_, status, body);
  const auto sent = co_await respond(std::move(head), std::move(body));
  if (sent) co_await linger();
}

Task<void> Http1Connection::handle_request() {
  body_.start(stream_, head_.chunked ? Http1Body::Kind::chunked : Http1Body::Kind::length, head_.content_length.value_or(0), unread());
  // A body that has begun to arrive needs no invitation (RFC 9110 10.1.1).
  continue_owed_ = head_.expect_continue && begin_ == end_ && head_.has_body();
  responded_ = finished_ = false;
  close_ = !head_.keep_alive || serving_.stopping;
  out_.clear();

  HttpExchange exchange{head_, stream_.peer(), stream_.is_tls(), *this, *this};
  co_await serving_.handler.handle(exchange);

  if (broken_) co_return;
  if (body_.failed() && !responded_) {
    broken_ = true;
    co_return;
  }
  if (!responded_) {
    std::string body;
    ResponseHead head = server_error_head(serving_, 500, body);
    const auto sent = co_await respond(std::move(head), std::move(body));
    if (!sent) co_return;
  }
  if (!finished_) {
    abort();  // an answer that was begun and not ended must look broken to the peer
    co_return;
  }
  if (!close_) {
    const bool clean = co_await finish_body();
    if (!clean) close_ = true;
  }
  collect_rest();
}

// Gets the rest of the request out of the way. false: the connection cannot be used again.
Task<bool> Http1Connection::finish_body() {
  if (body_.failed()) co_return false;
  if (body_.done()) co_return true;
  if (continue_owed_) co_return false;  // the peer may or may not send the body now: no way to tell
  const uint64_t most = serving_.options.drain_body_bytes_max;
  if (body_.kind() == Http1Body::Kind::length && body_.left() > most) co_return false;
  auto scratch = std::make_unique_for_overwrite<uint8_t[]>(16 * kKiB);
  for (uint64_t dropped = 0;;) {
    const auto got = co_await body_.read_into({scratch.get(), 16 * kKiB});
    if (!got) co_return false;
    dropped += *got;
    if (body_.done()) co_return true;
    if (dropped > most) co_return false;
  }
}

// What was received behind the body is the beginning of the next request.
void Http1Connection::collect_rest() {
  const std::string_view rest = body_.rest();
  if (!body_.rest_is_in_framing_buffer()) {
    begin_ = end_ - rest.size();
    return;
  }
  begin_ = end_ = 0;
  if (rest.size() > capacity_) grow(rest.size());
  std::memcpy(buffer_, rest.data(), rest.size());
  end_ = rest.size();
}

// Ends our side and drops what the peer still sends: closing at once would reset the connection and could destroy the answer on its way.
Task<void> Http1Connection::linger() {
  const bool peer_may_send = !body_.done() || begin_ != end_;
  if (!peer_may_send) co_return;
  const auto shut = co_await stream_.shutdown_write();
  if (!shut) co_return;
  const TimePoint deadline = after(serving_.options.linger_timeout);
  auto scratch = std::make_unique_for_overwrite<uint8_t[]>(64 * kKiB);
  for (uint64_t dropped = 0; dropped < serving_.options.linger_bytes_max;) {
    const auto got = co_await stream_.read({scratch.get(), 64 * kKiB}, deadline);
    if (!got || *got == 0) co_return;
    dropped += *got;
  }
}

// ---- request body ------------------------------------------------------------------------------------------------------------

Task<Result<void>> Http1Connection::before_body_read() {
  if (broken_) co_return broken();
  if (!continue_owed_) co_return Result<void>();
  continue_owed_ = false;
  if (responded_) co_return Result<void>();  // the final answer is out; 100 would come too late
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  std::vector<ByteView> parts{bytes_of(kContinue)};
  auto sent = co_await send(std::move(parts));
  co_return sent;
}

Task<Result<size_t>> Http1Connection::read_into(MutableByteView into) {
  if (body_.done() || into.empty()) co_return size_t{0};
  CO_TRY(co_await before_body_read());
  auto result = co_await body_.read_into(into);
  co_return result;
}

Task<Result<SharedBytes>> Http1Connection::read(size_t max) {
  if (body_.done() || max == 0) co_return SharedBytes();
  CO_TRY(co_await before_body_read());
  auto result = co_await body_.read(max);
  co_return result;
}

// ---- response ----------------------------------------------------------------------------------------------------------------

void Http1Connection::start_response(ResponseHead& head) {
  CHECK(!responded_, "a response is begun twice");
  responded_ = true;
  no_body_ = head_.method == "HEAD" || status_forbids_body(head.status);
  // What finish_body() would refuse to read is said now.
  const bool too_much = body_.kind() == Http1Body::Kind::length && body_.left() > serving_.options.drain_body_bytes_max;
  if (!body_.done() && (continue_owed_ || body_.failed() || too_much)) close_ = true;
  if (serving_.stopping) close_ = true;

  char status[4] = {};
  std::to_chars(status, status + 3, head.status);
  out_ += "HTTP/1.1 ";
  out_ += std::string_view(status, 3);
  out_ += ' ';
  out_ += reason_phrase(head.status);
  out_ += "\r\n";
  out_ += serving_.common_headers();
  out_ += head.headers.serialized();
  left_out_.reset();
  chunked_out_ = false;
  if (!status_forbids_body(head.status)) {
    if (head.content_length) {
      char digits[24];
      const auto [end, error] = std::to_chars(digits, digits + sizeof digits, *head.content_length);
      out_ += "Content-Length: ";
      out_.append(digits, end);
      out_ += "\r\n";
      left_out_ = head.content_length;
    } else if (!no_body_) {
      if (head_.version == HttpVersion::http10) {
        close_ = true;  // the end of the connection is the end of the body
      } else {
        chunked_out_ = true;
        out_ += "Transfer-Encoding: chunked\r\n";
      }
    }
  }
  if (close_) {
    out_ += "Connection: close\r\n";
  } else if (head_.version == HttpVersion::http10) {
    out_ += "Connection: keep-alive\r\n";
  }
  out_ += "\r\n";
}

Task<Result<void>> Http1Connection::send(std::vector<ByteView> parts) {
  if (broken_) co_return broken();
  size_t total = 0;
  for (const auto& part : parts) total += part.size();
  if (total <= kWriteUnit) {
    auto sent = co_await stream_.write(std::move(parts), after(serving_.options.write_stall_timeout));
    if (!sent) broken_ = true;
    co_return sent;
  }
  size_t next = 0;
  while (next < parts.size()) {
    std::vector<ByteView> unit;
    for (size_t room = kWriteUnit; next < parts.size() && room > 0;) {
      const size_t take = std::min(room, parts[next].size());
      unit.push_back(parts[next].first(take));
      parts[next] = parts[next].subspan(take);
      if (parts[next].empty()) ++next;
      room -= take;
    }
    auto sent = co_await stream_.write(std::move(unit), after(serving_.options.write_stall_timeout));
    if (!sent) {
      broken_ = true;
      co_return sent;
    }
  }
  co_return Result<void>();
}

Task<Result<void>> Http1Connection::send_head(ResponseHead head) {
  start_response(head);
  co_return Result<void>();
}

Task<Result<void>> Http1Connection::flush() {
  if (out_.empty()) co_return Result<void>();
  std::vector<ByteView> parts{bytes_of(out_)};
  auto sent = co_await send(std::move(parts));
  out_.clear();
  co_return sent;
}

Task<Result<void>> Http1Connection::write(std::vector<SharedBytes> parts) {
  CHECK(responded_ && !finished_, "a body is written outside its response");
  size_t size = 0;
  for (const auto& part : parts) size += part.size();
  if (left_out_ && !no_body_) {
    CHECK(size <= *left_out_, "more body is written than was announced");
    *left_out_ -= size;
  }
  if (size == 0 || no_body_) co_return Result<void>();
  if (chunked_out_) fmt::format_to(std::back_inserter(out_), "{:x}\r\n", size);
  std::vector<ByteView> views;
  views.reserve(parts.size() + 2);
  if (!out_.empty()) views.push_back(bytes_of(out_));
  for (const auto& part : parts) {
    if (!part.empty()) views.push_back(part.view());
  }
  if (chunked_out_) views.push_back(bytes_of("\r\n"));
  auto sent = co_await send(std::move(views));
  out_.clear();
  co_return sent;
}

Task<Result<void>> Http1Connection::finish() {
  CHECK(responded_ && !finished_, "a response is finished twice or before it began");
  if (broken_) {
    finished_ = true;
    co_return broken();
  }
  if (left_out_ && *left_out_ != 0 && !no_body_) {
    abort();
    co_return fail(Code::internal, "a response ends {} bytes before its announced length", *left_out_);
  }
  finished_ = true;
  if (chunked_out_) out_ += "0\r\n\r\n";
  auto sent = co_await flush();
  co_return sent;
}

Task<Result<void>> Http1Connection::respond(ResponseHead head, std::string body) {
  if (!head.content_length) head.content_length = body.size();
  start_response(head);
  finished_ = true;
  CHECK(no_body_ || *head.content_length == body.size(), "a body of another length than was announced");
  std::vector<ByteView> views{bytes_of(out_)};
  if (!no_body_ && !body.empty()) views.push_back(bytes_of(body));
  auto sent = co_await send(std::move(views));
  out_.clear();
  co_return sent;
}

}  // namespace

Task<Http1End> serve_http1(HttpServing& serving, Stream& stream, HttpConnectionControl& control, std::string& received) {
  Http1Connection connection(serving, stream, control);
  const Http1End end = co_await connection.run(received);
  co_return end;
}

}  // namespace quarry
