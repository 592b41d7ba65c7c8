// HTTP/2 connections (RFC 9113): nghttp2 does the framing, this file the I/O and the streams.
// One task reads and feeds the session, one collects frames and writes them, one per stream runs the handler. All of them, and nghttp2's
// callbacks, run on the connection's executor; callbacks never resume a coroutine, they post.
// Back-pressure: received DATA opens the flow-control window again only when the handler has taken it, so a slow handler costs at most
// http2_stream_window_bytes. Sent DATA is never copied: the frame header and references to the handler's bytes go into one gathered write.
#include <nghttp2/nghttp2.h>

#include "wire/http2_stream.h"

namespace quarry {
namespace {

constexpr size_t kReadBuffer = 64 * kKiB;
constexpr size_t kSendBatch = 1 * kMiB;  // bytes collected for one write
constexpr size_t kSendParts = 500;       // and pieces
constexpr uint32_t kResetsBurst = 1000;  // streams that the peer may reset before it is sent away, and per second (CVE-2023-44487)
constexpr uint32_t kResetsPerSecond = 50;
constexpr size_t kSkippedMax = 16;

class Http2Connection {
 public:
  Http2Connection(HttpServing& serving, Stream& stream, HttpConnectionControl& control) : link_{serving, stream}, control_(control) {}
  ~Http2Connection() {
    control_.drain = nullptr;
    nghttp2_session_del(link_.session);
  }
  Task<void> run(std::string received);

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
  bool finished() const { return !nghttp2_session_want_read(link_.session) && !nghttp2_session_want_write(link_.session); }

  static Http2Connection& self(void* user) { return *static_cast<Http2Connection*>(user); }
  static int on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* header, void* user);
  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
                       size_t value_size, uint8_t, void* user);
  static int on_frame_recv(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int on_data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user);
  static int on_close(nghttp2_session*, int32_t id, uint32_t, void* user);
  static int on_frame_send(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int on_send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t length, nghttp2_data_source*, void* user);
  static ssize_t on_read_length(nghttp2_session*, uint8_t, int32_t, int32_t session_window, int32_t stream_window, uint32_t frame_max,
                                void*) {
    return std::min<int64_t>({session_window, stream_window, frame_max});
  }

  Http2Link link_;
  HttpConnectionControl& control_;
  std::map<int32_t, std::unique_ptr<Http2Stream>> streams_;
  std::vector<int32_t> ready_;  // heads complete, handlers not yet started
  TaskGroup tasks_;
  TaskGroup sender_;
  Batch batch_;
  bool draining_ = false;
  bool said_all_ = false;  // our side of the stream is shut
  TimePoint last_active_{};
  TimePoint resets_since_{};
  uint32_t resets_ = 0;
  int32_t highest_id_ = -1;
  std::vector<std::pair<int32_t, int32_t>> skipped_;  // open ranges of ids that were passed over, the latest kSkippedMax
};

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
  if (c.streams_.size() >= size_t{2} * c.link_.serving.options.http2_streams_max) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
    return 0;
  }
  auto stream = std::make_unique<Http2Stream>(c.link_, id);
  stream->begun = c.link_.executor.now();
  c.streams_.emplace(id, std::move(stream));
  return 0;
}

int Http2Connection::on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
                               size_t value_size, uint8_t, void* user) {
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
    return 0;  // trailers are checked by nghttp2 and dropped
  if (Http2Stream* const stream = self(user).find(frame->hd.stream_id))
    stream->add_header(text_of({name, name_size}), text_of({value, value_size}));
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
    const TimePoint now = c.link_.executor.now();
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

int Http2Connection::on_send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t length, nghttp2_data_source* source,
                                  void* user) {
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
  CHECK(nghttp2_session_server_new2(&link_.session, callbacks, this, option) == 0, "out of memory");
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);

  const HttpServerOptions& options = link_.serving.options;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.http2_streams_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.http2_stream_window_bytes},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, options.http2_frame_bytes_max},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(options.limits.head_bytes_max)},
  };
  CHECK(nghttp2_submit_settings(link_.session, NGHTTP2_FLAG_NONE, settings, std::size(settings)) == 0);
  CHECK(nghttp2_session_set_local_window_size(link_.session, NGHTTP2_FLAG_NONE, 0,
                                              static_cast<int32_t>(options.http2_connection_window_bytes)) == 0);
}

// false: the connection is beyond repair.
bool Http2Connection::feed(ByteView bytes) {
  const ssize_t used = nghttp2_session_mem_recv(link_.session, bytes.data(), bytes.size());
  start_ready();
  link_.wake_sender();
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
    last_active_ = link_.executor.now();
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
    while (!link_.dead && batch_.bytes < kSendBatch && batch_.parts.size() < kSendParts) {
      const uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(link_.session, &data);
      if (size < 0) link_.dead = true;
      if (size <= 0) break;
      add_control({data, static_cast<size_t>(size)});
    }
    if (batch_.parts.empty()) {
      if (link_.dead) co_return;
      if (finished() || (draining_ && streams_.empty())) {
        said_all_ = true;
        (co_await link_.stream.shutdown_write()).ignore("the connection ends either way");
        // Closing while the peer still sends could destroy our last words on their way; one that idles sends nothing.
        const TimePoint linger_until = link_.after(draining_ ? Duration(0) : link_.serving.options.linger_timeout);
        while (!link_.dead && link_.executor.now() < linger_until) {
          link_.send_wanted.reset();
          const bool woken = co_await link_.send_wanted.wait_until(linger_until);
          if (!woken) break;
        }
        link_.stream.close();
        co_return;
      }
      co_await link_.send_wanted.wait();
      link_.send_wanted.reset();
      continue;
    }
    std::vector<ByteView> views;
    views.reserve(batch_.parts.size());
    for (const auto& part : batch_.parts) {
      views.push_back(part.data.empty() ? bytes_of(batch_.control).subspan(part.at, part.size) : part.data.view());
    }
    const auto sent = co_await link_.stream.write(std::move(views), link_.after(link_.serving.options.write_stall_timeout));
    if (!sent) {
      link_.dead = true;
      link_.stream.close();
    }
    for (const auto& [id, bytes] : batch_.sent) {
      if (Http2Stream* const stream = find(id)) stream->was_sent(bytes);
    }
  }
}

void Http2Connection::go_away(uint32_t code) {
  nghttp2_session_terminate_session(link_.session, code);
  link_.wake_sender();
}

bool Http2Connection::head_overdue() const {
  for (const auto& [id, stream] : streams_) {
    if (!stream->head_complete && stream->begun + link_.serving.options.header_timeout <= link_.executor.now()) return true;
  }
  return false;
}

Task<void> Http2Connection::run(std::string received) {
  start_session();
  control_.drain = [this] {
    draining_ = true;
    nghttp2_submit_goaway(link_.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(link_.session), NGHTTP2_NO_ERROR,
                          nullptr, 0);
    link_.wake_sender();
  };
  if (link_.serving.stopping) control_.drain();
  sender_.spawn(send_loop());
  bool healthy = received.empty() || feed(bytes_of(received));
  received = std::string();

  std::unique_ptr<uint8_t[]> buffer;
  last_active_ = link_.executor.now();
  while (healthy && !link_.dead) {
    const TimePoint deadline = link_.after(std::min(link_.serving.options.header_timeout, link_.serving.options.idle_timeout));
    if (streams_.empty()) {
      buffer.reset();
      const auto readable = co_await link_.stream.wait_readable(deadline);
      if (!readable && readable.error().code() != Code::timed_out) break;
      if (!readable) {
        if (link_.executor.now() - last_active_ >= link_.serving.options.idle_timeout && streams_.empty()) go_away(NGHTTP2_NO_ERROR);
        continue;
      }
    }
    if (!buffer) buffer = std::make_unique_for_overwrite<uint8_t[]>(kReadBuffer);
    const auto got = co_await link_.stream.read({buffer.get(), kReadBuffer}, deadline);
    if (!got) {
      if (got.error().code() != Code::timed_out || head_overdue()) break;
      continue;
    }
    if (*got == 0) break;
    last_active_ = link_.executor.now();
    if (!said_all_) healthy = feed({buffer.get(), *got});
  }
  link_.dead = true;
  link_.wake_sender();
  for (auto& [id, stream] : streams_) stream->closed();
  link_.stream.close();
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
