// One stream of an HTTP/2 connection: the request's body in, the response out. Internal to wire.
// Flow control: received DATA opens the window again only when the handler has taken it. Sent DATA is never copied: take() hands out
// references to the handler's bytes, and write() completes when they have left.
#pragma once
#include <deque>

#include "wire/http_connection.h"

struct nghttp2_session;

namespace quarry {

// What a stream needs of its connection.
struct Http2Link {
  HttpServing& serving;
  Stream& stream;
  Executor& executor = Executor::here();
  nghttp2_session* session = nullptr;
  bool dead = false;  // no more I/O
  Event send_wanted{};

  TimePoint after(Duration duration) const { return executor.now() + duration; }
  void wake_sender() { send_wanted.set(); }
};

class Http2Stream final : public BodyReader, public ResponseWriter {
 public:
  Http2Stream(Http2Link& link, int32_t id) : link_(link), id_(id) {}

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

  Http2Link& link_;
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
  uint64_t out_bytes_ = 0;  // in out_
  uint64_t unsent_ = 0;     // handed over by the handler and not yet written to the stream
  Event sent_;
  std::optional<uint64_t> left_out_;
  bool responded_ = false, finished_ = false, no_body_ = false, aborted_ = false;
  bool closed_ = false;
};

}  // namespace quarry
