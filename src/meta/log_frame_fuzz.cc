// Hostile bytes as a log frame, as operations, and as the description of a checkpoint. What decodes must hold what its types
// promise, and a frame that decodes must be the one frame with these bytes.
#include "base/coding.h"
#include "codec/crc32c.h"
#include "meta/checkpoint.h"
#include "meta/log_frame.h"
#include "meta/write_set.h"

using namespace quarry;        // NOLINT: a fuzz target
using namespace quarry::meta;  // NOLINT

namespace {
void check_frame(std::string_view bytes) {
  const auto frame = decode_log_frame(bytes_of(bytes));
  if (!frame) return;
  LogFrameWriter writer;
  for (const auto ops : frame->transactions) {
    writer.add(ops);
    Overlay overlay;
    OpReader reader(ops);
    Op op;
    while (reader.next(op)) {
      CHECK(!op.key.empty() && op.key.size() <= kKeySizeMax + 1 && op.value.size() <= kValueSizeMax);
      overlay.apply(op);
    }
    CHECK(reader.ok());
  }
  CHECK(frame->transactions.size() == frame->header.transactions);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > kFrameSizeMax) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check_frame(input);
  // The same with its checksums put right, so that the fuzzer gets past them.
  if (size >= kLogFrameHeaderSize) {
    std::string sealed(input);
    auto* at = reinterpret_cast<uint8_t*>(sealed.data());
    store_le(at, kLogFrameMagic);
    store_le(at + 4, kLogFrameVersion);
    store_le<uint16_t>(at + 6, 0);
    store_le(at + 8, static_cast<uint32_t>(size - kLogFrameHeaderSize));
    store_le<uint32_t>(at + 56, 0);
    store_le(at + 52, crc32c(0, bytes_of(sealed).subspan(kLogFrameHeaderSize)));
    store_le(at + 60, crc32c(0, bytes_of(sealed).first(60)));
    check_frame(sealed);
  }
  CheckpointExtra::decode(input).value_or(CheckpointExtra{});
  std::string extra;
  Encoder(extra).u32(kCheckpointMagic).u16(kCheckpointVersion).u16(0).bytes(bytes_of(input));
  Encoder(extra).u32(crc32c(0, bytes_of(extra)));
  if (const auto decoded = CheckpointExtra::decode(extra)) {
    for (const auto& file : decoded->files) CHECK(is_plain_file_name(file.name));
  }
  return 0;
}
