// Descriptors, headers and identities of any bytes: decoded or refused, and what is decoded encodes to the same bytes.
#include "base/check.h"
#include "base/coding.h"
#include "chunk/kfs/format.h"
#include "codec/crc32c.h"

using namespace quarry;
using namespace quarry::chunk::kfs;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  // With a right checksum, so that the fields are reached too.
  for (const bool mended : {false, true}) {
    if (mended && text.size() > 12) {
      text.replace(0, 8, "QRYKFSST");
      store_le<uint32_t>(reinterpret_cast<uint8_t*>(text.data()) + 8, crc32c(0, bytes_of(std::string_view(text).substr(12))));
    }
    const auto descriptor = decode_descriptor(text);
    if (descriptor) CHECK(encode_descriptor(*descriptor) == text);
  }
  std::string header(reinterpret_cast<const char*>(data), size);
  for (const bool mended : {false, true}) {
    if (mended && header.size() >= 4) {
      const uint32_t seed = crc32c(0x6b667331, bytes_of("00ff"));
      store_le<uint32_t>(reinterpret_cast<uint8_t*>(header.data()) + header.size() - 4,
                         crc32c(seed, bytes_of(std::string_view(header).substr(0, header.size() - 4))));
    }
    const auto decoded = decode_header("00ff", header);
    if (decoded) CHECK(encode_header("00ff", *decoded) == header);
  }
  check_identity(text, Uuid{}, 0).ignore("any answer will do");
  (void)identity_is_sound(text);
  const std::string_view name = name_of_run_key(text);
  CHECK(name.empty() || is_name(name));
  return 0;
}
