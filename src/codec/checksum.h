// The other cyclic checksums that S3 speaks, with the conventions of crc32c.h: seed 0, chaining, combine by length.
//   crc32     IEEE 802.3 (zlib, gzip):  crc32(0, "123456789")     == 0xcbf43926
//   crc64nvme NVM Express (Rocksoft):   crc64nvme(0, "123456789") == 0xae8b14860a799888
// Pure, any thread. crc64nvme folds with VPCLMULQDQ or PCLMULQDQ where the processor has them (decided at run time), else tables.
#pragma once
#include "base/bytes.h"

namespace quarry {

uint32_t crc32(uint32_t seed, ByteView bytes);
uint32_t crc32_combine(uint32_t first, uint32_t second, uint64_t second_length);
uint64_t crc64nvme(uint64_t seed, ByteView bytes);
uint64_t crc64nvme_combine(uint64_t first, uint64_t second, uint64_t second_length);

namespace detail {
uint64_t crc64nvme_table(uint64_t seed, ByteView bytes);  // the portable path, for tests and benchmarks
}  // namespace detail

}  // namespace quarry
