// HTTP/2 connections (RFC 9113): nghttp2 does the framing, this file the I/O and the streams.
// One task reads and feeds the session, one collects frames and writes them, one per stream runs the handler. All of them, and nghttp2's
// callbacks, run on the connection's executor; callbacks never resume a coroutine, they post.
// Back-pressure: received DATA opens the flow-control window again only when the handler has taken it, so a slow handler costs at most
// http2_stream_window_bytes. Sent DATA is never copied: the frame header and references to the handler's bytes go into one gathered write.
#include <nghttp2/nghttp2.h>

#include <charconv>
#include <deque>

#include "wire/http_connection.h"

namespace quarry {
namespace {

constexpr size_t kReadBuffer = 64 * kKiB;
constexpr size_t kSendBatch = 1 * kMiB;        // bytes collected for one write
constexpr size_t kSendParts = 500;             // and pieces: below what one gathered write takes
constexpr size_t kQueuePiece = 64 * kKiB;
constexpr uint32_t kResetsBurst = 1000;        // streams that the peer may reset before it is sent away, and per second (CVE-2023-44487)
constexpr uint32_t kResetsPerSecond = 50;
constexpr size_t kSkippedMax = 16;

class Http2Connection;

class Http2Stream final : public BodyReader, public ResponseWriter {
 public:
  Http2Stream(Http2Connection& connection, int32_t id) : connection_(connection), id_(id) {}

  std::optional<uint64_t> length() const override { return head.content_length; }
  uint64_t bytes_read() const override { return body_read_; }
  Task<Result<size_t>> read_into(MutableByteView into) override;
  Task<Result<SharedBytes>> read(size_t max) override;
  Task<Result<void>> send_head(ResponseHead response) override;
  Task<Result<void>> write(std::vector<SharedBytes> parts) override;
  Task<Result<void>> flush() override;
  Task<Result<void>> finish() override;
  Task<Result<void>> respond(ResponseHead response, std::string body) override;
  bool head_sent() const override { return responded_; }
  void abort() override;

  // From the session's callbacks.
  void add_header(std::string_view name, std::string_view value);
  int finish_head(bool end_stream);  // the status to refuse with, or 0
  void deliver(ByteView bytes);
  void remote_end() {
    remote_ended_ = true;
    readable_.pulse();
  }
  void closed() {
    closed_ = true;
    readable_.pulse();
    sent_.pulse();
  }
  // DATA for up to `length` bytes is wanted: how many there are, and whether the body ends with them. nullopt: none now.
  std::optional<size_t> offer(size_t length, bool* end);
  void take(size_t size, std::vector<SharedBytes>& parts);
  void was_sent(size_t bytes) {
    unsent_ -= bytes;
    sent_.pulse();
  }
  Task<void> handle();

  RequestHead head;
  TimePoint begun{};
  bool head_complete = false;
  int refuse_with = 0;
  bool has_task = false;  // from the complete head to the end of the handler's task
  bool handled = false;   // nobody reads the body any more
  bool is_closed() const { return closed_; }
  bool end_sent = false;
  int32_t id() const { return id_; }

 private:
  struct Piece {
    uint32_t at, size;
  };
  Result<void> usable() const;
  size_t take_buffered(MutableByteView into);
  Task<Result<void>> invite();
  void start_response(const ResponseHead& response, bool has_body);
  Task<Result<void>> wait_sent();

  Http2Connection& connection_;
  const int32_t id_;
  // Head as it arrives: texts in one string, cut out when it is complete.
  std::string texts_;
  std::vector<std::pair<Piece, Piece>> fields_;
  std::vector<std::pair<Piece, Piece>> pseudo_;

  // Body in.
  std::deque<std::pair<Buffer, size_t>> received_;  // and how much of each was taken
  MutableByteView waiting_into_;                    // a read in progress
  size_t waiting_have_ = 0;
  Event readable_;
  bool remote_ended_ = false;
  bool continue_owed_ = false;
  uint64_t body_read_ = 0;

  // Body out.
  std::deque<SharedBytes> out_;
  uint64_t out_bytes_ = 0;   // in out_
  uint64_t unsent_ = 0;      // handed over by the handler and not yet written to the stream
  Event sent_;
  std::optional<uint64_t> left_out_;
  bool responded_ = false, finished_ = false, no_body_ = false, aborted_ = false;
  bool closed_ = false;
};

class Http2Connection {
 public:
  Http2Connection(HttpServing& serving, Stream& stream, HttpConnectionControl& control) : serving_(serving), stream_(stream), control_(control) {}
  ~Http2Connection() {
    control_.drain = nullptr;
    nghttp2_session_del(session_);
  }
  Task<void> run(std::string received);

  HttpServing& serving() { return serving_; }
  Stream& stream() { return stream_; }
  nghttp2_session* session() { return session_; }
  TimePoint after(Duration duration) const { return executor_.now() + duration; }
  bool dead() const { return dead_; }
  void wake_sender() { send_wanted_.set(); }

 private:
  struct Batch {
    struct Part {
      size_t at = 0, size = 0;  // in control, or
      SharedBytes data;
    };
    std::string control;
    std::vector<Part> parts;
    std::vector<std::pair<int32_t, size_t>> sent;  // DATA bytes per stream
    size_t bytes = 0;
  };

  void start_session();
  bool feed(ByteView bytes);
  void start_ready();
  Task<void> run_stream(Http2Stream& stream);
  Task<void> send_loop();
  void add_control(ByteView bytes);
  Http2Stream* find(int32_t id) {
    const auto found = streams_.find(id);
    return found == streams_.end() ? nullptr : found->second.get();
  }
  void forget_if_over(int32_t id);
  void go_away(uint32_t code);
  bool head_overdue() const;
  bool finished() const { return !nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_); }

  static Http2Connection& self(void* user) { return *static_cast<Http2Connection*>(user); }
  static int on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* header, void* user);
  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                       uint8_t, void* user);
  static int on_frame_recv(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int on_data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user);
  static int on_close(nghttp2_session*, int32_t id, uint32_t, void* user);
  static int on_frame_send(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int on_send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t length, nghttp2_data_source*, void* user);
  static ssize_t on_read_length(nghttp2_session*, uint8_t, int32_t, int32_t session_window, int32_t stream_window, uint32_t frame_max, void*) {
    return std::min<int64_t>({session_window, stream_window, frame_max});
  }

  HttpServing& serving_;
  Stream& stream_;
  HttpConnectionControl& control_;
  Executor& executor_ = Executor::here();
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, std::unique_ptr<Http2Stream>> streams_;
  std::vector<int32_t> ready_;  // heads complete, handlers not yet started
  TaskGroup tasks_;
  TaskGroup sender_;
  Event send_wanted_;
  Batch batch_;
  bool draining_ = false;
  bool dead_ = false;       // no more I/O
  bool said_all_ = false;   // our side of the stream is shut
  TimePoint last_active_{};
  TimePoint resets_since_{};
  uint32_t resets_ = 0;
  int32_t highest_id_ = -1;
  std::vector<std::pair<int32_t, int32_t>> skipped_;  // open ranges of ids that were passed over, the latest kSkippedMax
};

// ---- stream ------------------------------------------------------------------------------------------------------------------

void Http2Stream::add_header(std::string_view name, std::string_view value) {
  if (refuse_with != 0) return;
  const Http1Limits& limits = connection_.serving().options.limits;
  if (texts_.size() + name.size() + value.size() > limits.head_bytes_max || fields_.size() >= limits.headers_max) {
    refuse_with = 431;
    return;
  }
  const Piece n{static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(name.size())};
  texts_ += name;
  const Piece v{static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(value.size())};
  texts_ += value;
  (name.starts_with(':') ? pseudo_ : fields_).emplace_back(n, v);
}

int Http2Stream::finish_head(bool end_stream) {
  head_complete = true;
  remote_ended_ = end_stream;
  const auto cut = [this](Piece piece) { return std::string_view(texts_).substr(piece.at, piece.size); };
  head.version = HttpVersion::http2;
  for (const auto& [name, value] : pseudo_) {
    if (cut(name) == ":method") head.method = cut(value);
    if (cut(name) == ":path") head.target = cut(value);
    if (cut(name) == ":authority") head.authority = cut(value);
  }
  for (const auto& [name, value] : fields_) {
    const HttpField field{cut(name), cut(value)};
    if (field.name == "host" && head.authority.empty()) head.authority = field.value;
    if (field.name == "expect") head.expect_continue = equal_ignoring_case(field.value, "100-continue");
    if (field.name == "content-length") {
      uint64_t length = 0;
      const auto [end, error] = std::from_chars(field.value.data(), field.value.data() + field.value.size(), length);
      if (error != std::errc() || end != field.value.data() + field.value.size()) return 400;
      head.content_length = length;
    }
    head.headers.push_back(field);
  }
  if (end_stream && !head.content_length) head.content_length = 0;
  head.chunked = !head.content_length;  // a body of unknown length
  continue_owed_ = head.expect_continue && !end_stream;
  if (refuse_with != 0) return refuse_with;
  if (head.method == "CONNECT") return 501;
  return head.split() ? 0 : 400;
}

void Http2Stream::deliver(ByteView bytes) {
  if (handled) {  // nobody will read it
    nghttp2_session_consume(connection_.session(), id_, bytes.size());
    return;
  }
  if (waiting_have_ < waiting_into_.size()) {
    const size_t size = std::min(bytes.size(), waiting_into_.size() - waiting_have_);
    std::memcpy(waiting_into_.data() + waiting_have_, bytes.data(), size);
    waiting_have_ += size;
    nghttp2_session_consume(connection_.session(), id_, size);
    bytes = bytes.subspan(size);
    readable_.pulse();
  }
  while (!bytes.empty()) {
    if (received_.empty() || received_.back().first.size() == received_.back().first.capacity()) {
      received_.emplace_back(Buffer(kQueuePiece), 0);
      received_.back().first.resize(0);
    }
    Buffer& last = received_.back().first;
    const size_t size = std::min(bytes.size(), last.capacity() - last.size());
    std::memcpy(last.data() + last.size(), bytes.data(), size);
    last.resize(last.size() + size);
    bytes = bytes.subspan(size);
    readable_.pulse();
  }
}

size_t Http2Stream::take_buffered(MutableByteView into) {
  size_t have = 0;
  while (!received_.empty() && have < into.size()) {
    auto& [buffer, taken] = received_.front();
    const size_t size = std::min(into.size() - have, buffer.size() - taken);
    std::memcpy(into.data() + have, buffer.data() + taken, size);
    taken += size;
    have += size;
    if (taken == buffer.size()) received_.pop_front();
  }
  if (have > 0) {
    nghttp2_session_consume(connection_.session(), id_, have);
    connection_.wake_sender();
  }
  return have;
}

Result<void> Http2Stream::usable() const {
  if (connection_.dead()) return Error(Code::connection_closed, "the connection ended");
  // A stream that ended with our END_STREAM has not failed.
  if ((closed_ && !end_sent) || aborted_) return Error(Code::connection_closed, "the peer reset the stream");
  return {};
}

Task<Result<void>> Http2Stream::invite() {
  if (!continue_owed_) co_return Result<void>();
  continue_owed_ = false;
  if (responded_ || closed_) co_return Result<void>();
  static constexpr std::string_view kName = ":status", kValue = "100";
  nghttp2_nv status{reinterpret_cast<uint8_t*>(const_cast<char*>(kName.data())), reinterpret_cast<uint8_t*>(const_cast<char*>(kValue.data())),
                    kName.size(), kValue.size(), NGHTTP2_NV_FLAG_NONE};
  nghttp2_submit_headers(connection_.session(), NGHTTP2_FLAG_NONE, id_, nullptr, &status, 1, nullptr);
  connection_.wake_sender();
  co_return Result<void>();
}

Task<Result<size_t>> Http2Stream::read_into(MutableByteView into) {
  CO_TRY(co_await invite());
  size_t have = take_buffered(into);
  while (have < into.size() && !remote_ended_) {
    CO_TRY(usable());
    waiting_into_ = into;
    waiting_have_ = have;
    const bool in_time = co_await readable_.wait_until(connection_.after(connection_.serving().options.body_stall_timeout));
    const bool progress = waiting_have_ > have;
    have = waiting_have_;
    waiting_into_ = {};
    waiting_have_ = 0;
    if (progress) connection_.wake_sender();
    if (!in_time && !progress && !remote_ended_) co_return Error(Code::timed_out, "request body: no byte came in time");
  }
  body_read_ += have;
  co_return have;
}

Task<Result<SharedBytes>> Http2Stream::read(size_t max) {
  CO_TRY(co_await invite());
  if (max == 0) co_return SharedBytes();
  for (;;) {
    if (!received_.empty()) {
      Buffer buffer(std::min(max, kQueuePiece));
      const size_t got = take_buffered(buffer.mutable_view());
      buffer.resize(got);
      body_read_ += got;
      co_return SharedBytes(std::move(buffer));
    }
    if (remote_ended_) co_return SharedBytes();
    CO_TRY(usable());
    const bool in_time = co_await readable_.wait_until(connection_.after(connection_.serving().options.body_stall_timeout));
    if (!in_time && received_.empty() && !remote_ended_) co_return Error(Code::timed_out, "request body: no byte came in time");
  }
}

void Http2Stream::start_response(const ResponseHead& response, bool has_body) {
  CHECK(!responded_, "a response is begun twice");
  responded_ = true;
  no_body_ = head.method == "HEAD" || status_forbids_body(response.status);
  left_out_ = response.content_length;
  if (!usable()) return;

  std::vector<nghttp2_nv> fields;
  fields.reserve(response.headers.size() + 4);
  const auto add = [&fields](std::string_view name, std::string_view value) {
    fields.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())), reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(),
                      value.size(), NGHTTP2_NV_FLAG_NONE});
  };
  char status[4] = {};
  std::to_chars(status, status + 3, response.status);
  add(":status", std::string_view(status, 3));
  add("date", connection_.serving().date_value());
  if (!connection_.serving().options.server_header.empty()) add("server", connection_.serving().options.server_header);
  char digits[24];
  if (response.content_length && !status_forbids_body(response.status)) {
    const auto [end, error] = std::to_chars(digits, digits + sizeof digits, *response.content_length);
    add("content-length", std::string_view(digits, static_cast<size_t>(end - digits)));
  }
  for (size_t i = 0; i < response.headers.size(); ++i) {
    const HttpField field = response.headers.at(i);
    if (equal_ignoring_case(field.name, "connection") || equal_ignoring_case(field.name, "transfer-encoding")) continue;
    add(field.name, field.value);
  }
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags, nghttp2_data_source* source, void*) -> ssize_t {
    bool end = false;
    const auto size = static_cast<Http2Stream*>(source->ptr)->offer(length, &end);
    if (!size) return NGHTTP2_ERR_DEFERRED;
    if (*size > 0) *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (end) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(*size);
  };
  const bool with_body = has_body && !no_body_;
  if (nghttp2_submit_response(connection_.session(), id_, fields.data(), fields.size(), with_body ? &provider : nullptr) != 0) abort();
  connection_.wake_sender();
}

std::optional<size_t> Http2Stream::offer(size_t length, bool* end) {
  const size_t size = static_cast<size_t>(std::min<uint64_t>(length, out_bytes_));
  // The end is known when the handler said so, or when all that was announced has been handed over.
  const bool complete = finished_ || (left_out_ && *left_out_ == 0);
  *end = complete && size == out_bytes_;
  if (size == 0 && !*end) return std::nullopt;
  return size;
}

void Http2Stream::take(size_t size, std::vector<SharedBytes>& parts) {
  out_bytes_ -= size;
  while (size > 0) {
    SharedBytes& front = out_.front();
    const size_t part = std::min(size, front.size());
    if (part == front.size()) {
      parts.push_back(std::move(front));
      out_.pop_front();
    } else {
      parts.push_back(front.slice(0, part));
      front = front.slice(part, front.size() - part);
    }
    size -= part;
  }
}

Task<Result<void>> Http2Stream::send_head(ResponseHead response) {
  start_response(response, !response.content_length || *response.content_length > 0);
  co_return usable();
}

Task<Result<void>> Http2Stream::wait_sent() {
  while (unsent_ > 0) {
    CO_TRY(usable());
    const uint64_t before = unsent_;
    const bool in_time = co_await sent_.wait_until(connection_.after(connection_.serving().options.write_stall_timeout));
    if (!in_time && unsent_ == before) {
      abort();
      co_return Error(Code::timed_out, "the peer takes nothing of the response");
    }
  }
  co_return Result<void>();
}

Task<Result<void>> Http2Stream::write(std::vector<SharedBytes> parts) {
  CHECK(responded_ && !finished_, "a body is written outside its response");
  CO_TRY(usable());
  uint64_t size = 0;
  for (const auto& part : parts) size += part.size();
  if (no_body_ || size == 0) co_return Result<void>();
  if (left_out_) {
    CHECK(size <= *left_out_, "more body is written than was announced");
    *left_out_ -= size;
  }
  for (auto& part : parts) {
    if (!part.empty()) out_.push_back(std::move(part));
  }
  out_bytes_ += size;
  unsent_ += size;
  nghttp2_session_resume_data(connection_.session(), id_);
  connection_.wake_sender();
  auto result = co_await wait_sent();
  co_return result;
}

Task<Result<void>> Http2Stream::flush() {
  connection_.wake_sender();
  co_return usable();
}

Task<Result<void>> Http2Stream::finish() {
  CHECK(responded_ && !finished_, "a response is finished twice or before it began");
  if (const auto state = usable(); !state) {
    finished_ = true;
    co_return state;
  }
  if (left_out_ && *left_out_ != 0 && !no_body_) {
    abort();
    co_return fail(Code::internal, "a response ends {} bytes before its announced length", *left_out_);
  }
  finished_ = true;
  nghttp2_session_resume_data(connection_.session(), id_);
  connection_.wake_sender();
  co_return Result<void>();
}

Task<Result<void>> Http2Stream::respond(ResponseHead response, std::string body) {
  if (!response.content_length) response.content_length = body.size();
  const bool empty = body.empty();
  start_response(response, !empty);
  CHECK(no_body_ || *response.content_length == body.size(), "a body of another length than was announced");
  finished_ = true;
  if (empty || no_body_) co_return usable();
  left_out_ = 0;
  out_.push_back(SharedBytes::copy_of(bytes_of(body)));
  out_bytes_ += body.size();
  unsent_ += body.size();
  connection_.wake_sender();
  auto result = co_await wait_sent();
  co_return result;
}

void Http2Stream::abort() {
  if (aborted_ || closed_) return;
  aborted_ = true;
  nghttp2_submit_rst_stream(connection_.session(), NGHTTP2_FLAG_NONE, id_, NGHTTP2_INTERNAL_ERROR);
  connection_.wake_sender();
}

Task<void> Http2Stream::handle() {
  HttpServing& serving = connection_.serving();
  ++serving.stats.requests;
  ++serving.stats.requests_active;
  if (refuse_with == 0) {
    HttpExchange exchange{head, connection_.stream().peer(), connection_.stream().is_tls(), *this, *this};
    co_await serving.handler.handle(exchange);
  }
  if (!responded_ && usable()) {
    std::string body;
    ResponseHead response = server_error_head(serving, refuse_with != 0 ? refuse_with : 500, body);
    (co_await respond(std::move(response), std::move(body))).ignore("the peer is gone: nobody to tell");
  }
  if (!finished_) abort();
  handled = true;
  // What was received and not read opens the connection's window again for the other streams.
  size_t unread = 0;
  for (const auto& [buffer, taken] : received_) unread += buffer.size() - taken;
  if (unread > 0) nghttp2_session_consume(connection_.session(), id_, unread);
  received_.clear();
  while (finished_ && !end_sent && usable()) co_await sent_.wait();
  // The answer is complete and the peer still sends: it may stop (RFC 9113 8.1).
  if (!remote_ended_ && usable()) nghttp2_submit_rst_stream(connection_.session(), NGHTTP2_FLAG_NONE, id_, NGHTTP2_NO_ERROR);
  connection_.wake_sender();
  --serving.stats.requests_active;
}

// ---- callbacks ---------------------------------------------------------------------------------------------------------------

// A client opens its streams in rising order; those it skipped are closed for good, and HEADERS on them an error of the connection
// (RFC 9113 5.1.1), which nghttp2 passes over.
int Http2Connection::on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* header, void* user) {
  Http2Connection& c = self(user);
  if (header->type != NGHTTP2_HEADERS || header->stream_id % 2 == 0) return 0;
  if (header->stream_id > c.highest_id_) {
    if (header->stream_id > c.highest_id_ + 2) {
      if (c.skipped_.size() == kSkippedMax) c.skipped_.erase(c.skipped_.begin());
      c.skipped_.emplace_back(c.highest_id_, header->stream_id);
    }
    c.highest_id_ = header->stream_id;
    return 0;
  }
  for (const auto& [after_id, before_id] : c.skipped_) {
    if (header->stream_id > after_id && header->stream_id < before_id) {
      c.go_away(NGHTTP2_PROTOCOL_ERROR);
      return 0;
    }
  }
  return 0;
}

int Http2Connection::on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
  Http2Connection& c = self(user);
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  const int32_t id = frame->hd.stream_id;
  // Streams that the peer has reset still count while their handlers run.
  if (c.streams_.size() >= size_t{2} * c.serving_.options.http2_streams_max) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
    return 0;
  }
  auto stream = std::make_unique<Http2Stream>(c, id);
  stream->begun = c.executor_.now();
  c.streams_.emplace(id, std::move(stream));
  return 0;
}

int Http2Connection::on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
                               size_t value_size, uint8_t, void* user) {
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;  // trailers are checked by nghttp2 and dropped
  if (Http2Stream* const stream = self(user).find(frame->hd.stream_id)) stream->add_header(text_of({name, name_size}), text_of({value, value_size}));
  return 0;
}

int Http2Connection::on_frame_recv(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  Http2Connection& c = self(user);
  Http2Stream* const stream = c.find(frame->hd.stream_id);
  const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (frame->hd.type == NGHTTP2_HEADERS && stream != nullptr) {
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      stream->refuse_with = stream->finish_head(end);
      stream->has_task = true;
      c.ready_.push_back(frame->hd.stream_id);
    } else if (end) {
      stream->remote_end();
    }
  } else if (frame->hd.type == NGHTTP2_DATA && stream != nullptr && end) {
    stream->remote_end();
  } else if (frame->hd.type == NGHTTP2_RST_STREAM) {
    const TimePoint now = c.executor_.now();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - c.resets_since_).count();
    if (seconds > 0) {
      const auto forgiven = static_cast<uint64_t>(seconds) * kResetsPerSecond;
      c.resets_ = forgiven >= c.resets_ ? 0 : c.resets_ - static_cast<uint32_t>(forgiven);
      c.resets_since_ = now;
    }
    if (++c.resets_ > kResetsBurst) c.go_away(NGHTTP2_ENHANCE_YOUR_CALM);
  }
  return 0;
}

int Http2Connection::on_data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user) {
  if (Http2Stream* const stream = self(user).find(id)) {
    stream->deliver({data, size});
  } else {
    nghttp2_session_consume(session, id, size);
  }
  return 0;
}

int Http2Connection::on_close(nghttp2_session*, int32_t id, uint32_t, void* user) {
  Http2Connection& c = self(user);
  if (Http2Stream* const stream = c.find(id)) {
    stream->closed();
    c.forget_if_over(id);
  }
  return 0;
}

int Http2Connection::on_frame_send(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  if (Http2Stream* const stream = self(user).find(frame->hd.stream_id)) {
    stream->end_sent = true;
    stream->was_sent(0);  // wakes the handler's task
  }
  return 0;
}

int Http2Connection::on_send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t length, nghttp2_data_source* source, void* user) {
  Http2Connection& c = self(user);
  auto& stream = *static_cast<Http2Stream*>(source->ptr);
  c.add_control({header, 9});
  std::vector<SharedBytes> taken;
  stream.take(length, taken);
  for (auto& part : taken) {
    c.batch_.bytes += part.size();
    c.batch_.parts.push_back({0, part.size(), std::move(part)});
  }
  c.batch_.sent.emplace_back(frame->hd.stream_id, length);
  return 0;
}

// ---- connection --------------------------------------------------------------------------------------------------------------

void Http2Connection::start_session() {
  nghttp2_session_callbacks* callbacks = nullptr;
  CHECK(nghttp2_session_callbacks_new(&callbacks) == 0, "out of memory");
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
  nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_read_length);
  nghttp2_option* option = nullptr;
  CHECK(nghttp2_option_new(&option) == 0, "out of memory");
  nghttp2_option_set_no_auto_window_update(option, 1);
  CHECK(nghttp2_session_server_new2(&session_, callbacks, this, option) == 0, "out of memory");
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);

  const HttpServerOptions& options = serving_.options;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.http2_streams_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.http2_stream_window_bytes},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, options.http2_frame_bytes_max},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(options.limits.head_bytes_max)},
  };
  CHECK(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)) == 0);
  CHECK(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(options.http2_connection_window_bytes)) == 0);
}

// false: the connection is beyond repair.
bool Http2Connection::feed(ByteView bytes) {
  const ssize_t used = nghttp2_session_mem_recv(session_, bytes.data(), bytes.size());
  start_ready();
  wake_sender();
  return used >= 0;
}

void Http2Connection::start_ready() {
  for (const int32_t id : std::exchange(ready_, {})) {
    if (Http2Stream* const stream = find(id)) tasks_.spawn(run_stream(*stream));
  }
}

Task<void> Http2Connection::run_stream(Http2Stream& stream) {
  co_await stream.handle();
  stream.has_task = false;
  forget_if_over(stream.id());
}

void Http2Connection::forget_if_over(int32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  Http2Stream& stream = *found->second;
  if (stream.is_closed() && !stream.has_task) {
    streams_.erase(found);
    last_active_ = executor_.now();
  }
}

void Http2Connection::add_control(ByteView bytes) {
  auto& parts = batch_.parts;
  if (parts.empty() || !parts.back().data.empty()) parts.push_back({batch_.control.size(), 0, {}});
  parts.back().size += bytes.size();
  batch_.control.append(text_of(bytes));
  batch_.bytes += bytes.size();
}

Task<void> Http2Connection::send_loop() {
  for (;;) {
    batch_ = Batch();
    while (!dead_ && batch_.bytes < kSendBatch && batch_.parts.size() < kSendParts) {
      const uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size < 0) dead_ = true;
      if (size <= 0) break;
      add_control({data, static_cast<size_t>(size)});
    }
    if (batch_.parts.empty()) {
      if (dead_) co_return;
      if (finished() || (draining_ && streams_.empty())) {
        said_all_ = true;
        (co_await stream_.shutdown_write()).ignore("the connection ends either way");
        // Closing while the peer still sends could destroy our last words on their way; one that idles sends nothing.
        const TimePoint linger_until = after(draining_ ? Duration(0) : serving_.options.linger_timeout);
        while (!dead_ && executor_.now() < linger_until) {
          send_wanted_.reset();
          const bool woken = co_await send_wanted_.wait_until(linger_until);
          if (!woken) break;
        }
        stream_.close();
        co_return;
      }
      co_await send_wanted_.wait();
      send_wanted_.reset();
      continue;
    }
    std::vector<ByteView> views;
    views.reserve(batch_.parts.size());
    for (const auto& part : batch_.parts) {
      views.push_back(part.data.empty() ? bytes_of(batch_.control).subspan(part.at, part.size) : part.data.view());
    }
    const auto sent = co_await stream_.write(std::move(views), after(serving_.options.write_stall_timeout));
    if (!sent) {
      dead_ = true;
      stream_.close();
    }
    for (const auto& [id, bytes] : batch_.sent) {
      if (Http2Stream* const stream = find(id)) stream->was_sent(bytes);
    }
  }
}

void Http2Connection::go_away(uint32_t code) {
  nghttp2_session_terminate_session(session_, code);
  wake_sender();
}

bool Http2Connection::head_overdue() const {
  for (const auto& [id, stream] : streams_) {
    if (!stream->head_complete && stream->begun + serving_.options.header_timeout <= executor_.now()) return true;
  }
  return false;
}

Task<void> Http2Connection::run(std::string received) {
  start_session();
  control_.drain = [this] {
    draining_ = true;
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR, nullptr, 0);
    wake_sender();
  };
  if (serving_.stopping) control_.drain();
  sender_.spawn(send_loop());
  bool healthy = received.empty() || feed(bytes_of(received));
  received = std::string();

  std::unique_ptr<uint8_t[]> buffer;
  last_active_ = executor_.now();
  while (healthy && !dead_) {
    const TimePoint deadline = after(std::min(serving_.options.header_timeout, serving_.options.idle_timeout));
    if (streams_.empty()) {
      buffer.reset();
      const auto readable = co_await stream_.wait_readable(deadline);
      if (!readable && readable.error().code() != Code::timed_out) break;
      if (!readable) {
        if (executor_.now() - last_active_ >= serving_.options.idle_timeout && streams_.empty()) go_away(NGHTTP2_NO_ERROR);
        continue;
      }
    }
    if (!buffer) buffer = std::make_unique_for_overwrite<uint8_t[]>(kReadBuffer);
    const auto got = co_await stream_.read({buffer.get(), kReadBuffer}, deadline);
    if (!got) {
      if (got.error().code() != Code::timed_out || head_overdue()) break;
      continue;
    }
    if (*got == 0) break;
    last_active_ = executor_.now();
    if (!said_all_) healthy = feed({buffer.get(), *got});
  }
  dead_ = true;
  wake_sender();
  for (auto& [id, stream] : streams_) stream->closed();
  stream_.close();
  co_await tasks_.join();
  co_await sender_.join();
  streams_.clear();
}

}  // namespace

Task<void> serve_http2(HttpServing& serving, Stream& stream, HttpConnectionControl& control, std::string received) {
  Http2Connection connection(serving, stream, control);
  co_await connection.run(std::move(received));
}

}  // namespace quarry
