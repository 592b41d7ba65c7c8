// CRC-32C (Castagnoli), the checksum of everything Quarry stores. Pure, any thread.
// Convention (that of RFC 3720, zlib-style chaining): crc32c(0, "123456789") == 0xe3069283, and
// crc32c(crc32c(0, a), b) == crc32c(0, a ++ b). A seed that names the place (chunk id, block number) is made by crc32c over
// the encoded name and passed as the first argument.
#pragma once
#include "base/bytes.h"

namespace quarry {

uint32_t crc32c(uint32_t seed, ByteView bytes);

// The checksum of a ++ b from crc32c(0, a), crc32c(0, b) and the length of b. O(log length).
uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_length);

}  // namespace quarry
