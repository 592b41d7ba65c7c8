// MD5 of many streams at once. One stream is bound to one scalar dependency chain (about 0.6 GiB per CPU-second); the streams of
// concurrent uploads are independent, so up to 16 are advanced side by side in the lanes of the vector unit (AVX2 or AVX-512, decided
// at run time; scalar elsewhere): 4.8 GiB per CPU-second with AVX2. RFC 1321.
#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "codec/digest.h"

namespace quarry {

// One MD5 computation. Plain data, copyable (a copy is a fork of the stream). Confined to one task at a time.
class Md5Stream {
 public:
  void update(ByteView bytes);  // scalar
  Md5Bytes finish();            // and starts anew
  uint64_t bytes() const { return length_; }

 private:
  friend struct Md5Access;
  std::array<uint32_t, 4> state_{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  uint64_t length_ = 0;
  std::array<uint8_t, 64> partial_{};  // length_ % 64 bytes are waiting
};

struct Md5Update {
  Md5Stream* stream;
  ByteView bytes;
};

// Feeds each stream its bytes; equal to stream->update(bytes) for each in turn, but with full blocks of all streams together.
// Streams are distinct. Any number of updates; lengths may differ (lanes refill from the list as they run dry). Pure but for the streams.
void md5_update_many(std::span<const Md5Update> updates);

// Lanes that md5_update_many uses on this processor: 16 or 1. With 8 or fewer streams it does 2.9 GiB per CPU-second.
size_t md5_lanes();

namespace detail {
enum class Md5Kernel : uint8_t { scalar, avx2, avx512 };
bool md5_kernel_available(Md5Kernel kernel);
void md5_update_many_with(Md5Kernel kernel, std::span<const Md5Update> updates);  // for tests and benchmarks
}  // namespace detail

}  // namespace quarry
