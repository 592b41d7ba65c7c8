// One frame of the metadata log: a group of committed transactions. Layout: docs/formats/metadata-log.md, section 2.
// Frames form a chain: each carries the check of the one before, so a frame of another history is never taken for this one's.
// Pure, any thread. Decoding is safe on hostile bytes; it never allocates more than a few bytes for each byte of input.
#pragma once
#include <string>
#include <vector>

#include "base/ids.h"
#include "meta/commit_log.h"
#include "meta/meta_store.h"

namespace quarry::meta {

inline constexpr uint32_t kLogFrameMagic = 0x31464d51;  // "QMF1"
inline constexpr uint16_t kLogFrameVersion = 1;
inline constexpr size_t kLogFrameHeaderSize = 64;

struct LogFrameHeader {
  FrameNumber number = 0;
  Version first_version = 0;  // of the first transaction; the others follow one by one
  uint32_t transactions = 0;  // at least 1
  Uuid store;
  uint32_t previous_check = 0;  // of frame number - 1; 0 for frame 1
  uint32_t check = 0;           // of this frame: CRC32C of the header, which holds that of the payload
};

// Collects transactions, then seals: header in front, checksums in place.
class LogFrameWriter {
 public:
  LogFrameWriter() : bytes_(kLogFrameHeaderSize, '\0') {}
  void add(std::string_view ops);  // operations without stamps (WriteSet)
  uint32_t transactions() const { return transactions_; }
  size_t size() const { return bytes_.size(); }
  // Fills in header.transactions and header.check. The writer is spent.
  std::string seal(LogFrameHeader& header);

 private:
  std::string bytes_;
  uint32_t transactions_ = 0;
};

struct LogFrame {
  LogFrameHeader header;
  std::vector<std::string_view> transactions;  // operations of each, inside the bytes that were decoded; known to parse
};

// Errors: corrupt (with the place), incompatible (a newer version or unknown flags).
Result<LogFrameHeader> decode_log_frame_header(ByteView bytes);
Result<LogFrame> decode_log_frame(ByteView bytes);

}  // namespace quarry::meta
