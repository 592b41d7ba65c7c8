// The body of one HTTP/1.1 message being received, for server and client: by length, chunked, or until the connection ends.
// Bytes go from the stream straight into the caller's memory, but for what arrived together with the head and for chunk framing, which
// passes through a buffer that exists only while it is needed. Confined to its executor. Internal to wire.
#pragma once
#include <memory>

#include "io/network.h"
#include "wire/http1_parser.h"

namespace quarry {

class Http1Body {
 public:
  enum class Kind : uint8_t { length, chunked, until_end };

  // what: for errors ("request body"). stall: a read from the stream waits this long.
  Http1Body(const Http1Limits& limits, Duration stall, std::string_view what) : limits_(limits), stall_(stall), what_(what) {}

  // Begins a body. received: bytes that came behind the head; they stay valid and unmoved until rest() was dealt with.
  void start(Stream& stream, Kind kind, uint64_t length, std::string_view received);

  bool done() const;  // nothing is left to read
  bool failed() const { return failed_; }
  Kind kind() const { return kind_; }
  uint64_t left() const { return kind_ == Kind::length ? left_ : done() ? 0 : UINT64_MAX; }
  uint64_t bytes_read() const { return bytes_read_; }
  // Contracts of BodyReader.
  Task<Result<size_t>> read_into(MutableByteView into);
  Task<Result<SharedBytes>> read(size_t max);
  // Once done: bytes received beyond the end, the start of the next message. A view of `received`, or of the framing buffer.
  std::string_view rest() const;
  bool rest_is_in_framing_buffer() const { return received_.empty() && begin_ != end_; }
  void release_buffer();

 private:
  Task<Result<void>> read_some(MutableByteView into, size_t* got);
  Task<Result<size_t>> read_plain(MutableByteView into, bool all);
  Task<Result<size_t>> read_chunked(MutableByteView into, bool all);
  Result<size_t> take_chunk_bytes(MutableByteView into);
  // A framing line or all trailers always fit.
  size_t buffer_capacity() const { return std::max<size_t>(16 * kKiB, limits_.trailer_bytes_max + limits_.chunk_line_bytes_max + 1); }
  void need_buffer() {
    if (!buffer_) buffer_ = std::make_unique_for_overwrite<char[]>(buffer_capacity());
  }

  Http1Limits limits_;
  Duration stall_;
  std::string_view what_;
  Stream* stream_ = nullptr;
  Kind kind_ = Kind::length;
  uint64_t left_ = 0;
  bool ended_ = false;  // until_end: the end has come
  bool failed_ = false;
  uint64_t bytes_read_ = 0;
  ChunkedDecoder chunks_;
  std::string_view received_;  // not yet used
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0, end_ = 0;
};

}  // namespace quarry
