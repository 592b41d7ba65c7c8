#include "meta/log_frame.h"

#include "base/coding.h"
#include "codec/crc32c.h"
#include "meta/write_set.h"

namespace quarry::meta {
namespace {
// Offsets of the header's fields.
constexpr size_t kMagicAt = 0, kVersionAt = 4, kFlagsAt = 6, kPayloadSizeAt = 8, kTransactionsAt = 12, kNumberAt = 16, kFirstVersionAt = 24,
                 kStoreAt = 32, kPreviousCheckAt = 48, kPayloadCheckAt = 52, kReservedAt = 56, kCheckAt = 60;
static_assert(kCheckAt + 4 == kLogFrameHeaderSize);
}  // namespace

void LogFrameWriter::add(std::string_view ops) {
  Encoder(bytes_).text(ops);
  ++transactions_;
}

std::string LogFrameWriter::seal(LogFrameHeader& header) {
  CHECK(transactions_ > 0 && bytes_.size() <= kFrameSizeMax);
  header.transactions = transactions_;
  auto* at = reinterpret_cast<uint8_t*>(bytes_.data());
  const ByteView payload = bytes_of(bytes_).subspan(kLogFrameHeaderSize);
  store_le(at + kMagicAt, kLogFrameMagic);
  store_le(at + kVersionAt, kLogFrameVersion);
  store_le<uint16_t>(at + kFlagsAt, 0);
  store_le(at + kPayloadSizeAt, static_cast<uint32_t>(payload.size()));
  store_le(at + kTransactionsAt, transactions_);
  store_le(at + kNumberAt, header.number);
  store_le(at + kFirstVersionAt, header.first_version);
  std::memcpy(at + kStoreAt, header.store.bytes.data(), header.store.bytes.size());
  store_le(at + kPreviousCheckAt, header.previous_check);
  store_le(at + kPayloadCheckAt, crc32c(0, payload));
  store_le<uint32_t>(at + kReservedAt, 0);
  header.check = crc32c(0, ByteView(at, kCheckAt));
  store_le(at + kCheckAt, header.check);
  return std::move(bytes_);
}

Result<LogFrameHeader> decode_log_frame_header(ByteView bytes) {
  if (bytes.size() < kLogFrameHeaderSize) return fail(Code::corrupt, "a log frame of {} bytes is shorter than its header", bytes.size());
  const uint8_t* at = bytes.data();
  if (load_le<uint32_t>(at + kMagicAt) != kLogFrameMagic) return fail(Code::corrupt, "a log frame does not begin with its magic number");
  const auto check = load_le<uint32_t>(at + kCheckAt);
  if (crc32c(0, bytes.first(kCheckAt)) != check) return fail(Code::corrupt, "the header of a log frame fails its checksum");
  const auto version = load_le<uint16_t>(at + kVersionAt);
  if (version != kLogFrameVersion)
    return fail(Code::incompatible, "log frame of version {}; this program reads version {}", version, kLogFrameVersion);
  if (const auto flags = load_le<uint16_t>(at + kFlagsAt); flags != 0)
    return fail(Code::incompatible, "log frame with unknown flags {:#x}", flags);
  LogFrameHeader header;
  header.number = load_le<uint64_t>(at + kNumberAt);
  header.first_version = load_le<uint64_t>(at + kFirstVersionAt);
  header.transactions = load_le<uint32_t>(at + kTransactionsAt);
  std::memcpy(header.store.bytes.data(), at + kStoreAt, header.store.bytes.size());
  header.previous_check = load_le<uint32_t>(at + kPreviousCheckAt);
  header.check = check;
  if (load_le<uint32_t>(at + kReservedAt) != 0 || header.number == 0 || header.first_version == 0 || header.transactions == 0) {
    return fail(Code::corrupt, "log frame {} has fields that cannot be", header.number);
  }
  if (load_le<uint32_t>(at + kPayloadSizeAt) != bytes.size() - kLogFrameHeaderSize) {
    return fail(Code::corrupt, "log frame {} has {} bytes of payload, its header says {}", header.number,
                bytes.size() - kLogFrameHeaderSize, load_le<uint32_t>(at + kPayloadSizeAt));
  }
  return header;
}

Result<LogFrame> decode_log_frame(ByteView bytes) {
  LogFrame frame;
  TRY_ASSIGN(frame.header, decode_log_frame_header(bytes));
  const ByteView payload = bytes.subspan(kLogFrameHeaderSize);
  const FrameNumber number = frame.header.number;
  if (crc32c(0, payload) != load_le<uint32_t>(bytes.data() + kPayloadCheckAt)) {
    return fail(Code::corrupt, "the payload of log frame {} fails its checksum", number);
  }
  if (frame.header.transactions > payload.size()) return fail(Code::corrupt, "log frame {} has too many transactions", number);
  Decoder in(payload);
  frame.transactions.reserve(frame.header.transactions);
  for (uint32_t i = 0; i < frame.header.transactions; ++i) {
    const std::string_view ops = in.text();
    OpReader reader(ops);
    Op op;
    bool known = in.ok() && !ops.empty();
    while (known && reader.next(op)) {
      known = op.kind <= OpKind::add && op.key.front() >= space::kUser;
    }
    if (!known || !reader.ok()) return fail(Code::corrupt, "transaction {} of log frame {} does not parse", i, number);
    frame.transactions.push_back(ops);
  }
  TRY(in.finish(fmt::format("log frame {}", number)));
  return frame;
}

}  // namespace quarry::meta
