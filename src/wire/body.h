// Bodies: pulled by the receiver, pushed by the sender. The same interfaces for HTTP/1.1 and HTTP/2, server and client.
// Confined to the connection's executor; one call at a time on each.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/task.h"
#include "wire/http_message.h"

namespace quarry {

// The body of a message being received. Back-pressure: nothing is read from the peer beyond a small buffer until it is asked for.
// Errors of all reads: timed_out (no byte within body_stall_timeout), connection_closed (the peer went away before the end; the body
// is never silently short), malformed (bad chunked framing), cancelled.
class BodyReader {
 public:
  virtual ~BodyReader() = default;
  // Length that the peer declared; absent with chunked coding.
  virtual std::optional<uint64_t> length() const = 0;
  // Body bytes handed out so far.
  virtual uint64_t bytes_read() const = 0;
  // Reads until `into` is full or the body ends. Returns the bytes read: fewer than into.size() only at the end, 0 when nothing is left.
  // Large reads go from the socket straight into `into`, which must stay valid until completion.
  virtual Task<Result<size_t>> read_into(MutableByteView into) = 0;
  // Reads some bytes, at most max; empty at the end. For small bodies and streaming copies.
  virtual Task<Result<SharedBytes>> read(size_t max) = 0;
  // The whole body as text. Errors: too_large if it is longer than max (then the rest is not read).
  Task<Result<std::string>> read_all(size_t max);
};

// Where a body to be sent comes from, when it does not exist in one piece.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // The next piece, or empty at the end.
  virtual Task<Result<SharedBytes>> next() = 0;
};

// Sends one response. Order: send_head, write*, finish; or respond. Completion means: handed to the kernel (or, for send_head and small
// writes, taken into the connection's buffer), so SharedBytes are kept until then and memory is bounded by what the handler passes in.
// Errors: timed_out (the peer takes nothing for write_stall_timeout), connection_closed, cancelled. After an error the handler just
// returns.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  // Kept back until the first body bytes, flush or finish, so that head and a small body leave in one send. CHECKs that it is called once.
  virtual Task<Result<void>> send_head(ResponseHead head) = 0;
  // Sends all parts in order, without copying. For HEAD and body-less statuses the bytes are dropped. A content_length that was announced
  // is enforced: writing more is a bug (CHECK); finishing with less closes the connection, so the client sees the damage.
  virtual Task<Result<void>> write(std::vector<SharedBytes> parts) = 0;
  Task<Result<void>> write(SharedBytes part);
  // Makes what was written so far leave now.
  virtual Task<Result<void>> flush() = 0;
  // The body is complete.
  virtual Task<Result<void>> finish() = 0;
  // The whole answer at once, one send; content_length is set from body unless the caller set it (HEAD).
  virtual Task<Result<void>> respond(ResponseHead head, std::string body) = 0;
  virtual bool head_sent() const = 0;
  // Gives up: the connection (HTTP/1.1) or stream (HTTP/2) is reset, so that a half-sent body is never taken for a whole one.
  virtual void abort() = 0;
};

}  // namespace quarry
