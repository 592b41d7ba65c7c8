// CRC-32 and CRC-32C by ISA-L, CRC-64/NVME by our own folding (ISA-L 2.30 has other 64-bit polynomials only).
#include "codec/checksum.h"

#include <immintrin.h>
#include <isa-l/crc.h>

#include "codec/crc32c.h"
#include "codec/crc_math.h"

namespace quarry {
namespace {

constexpr uint32_t kPoly32 = 0xedb88320;
constexpr uint32_t kPoly32c = 0x82f63b78;
constexpr uint64_t kPoly64 = 0x9a6c9329ac4bc9b5;  // 0xad93d23594c93659 reflected

constexpr size_t kChunkMax = size_t{1} << 30;  // ISA-L takes lengths as int

// ---- CRC-64/NVME -------------------------------------------------------------------------------------------------------------
// "Slicing by 8": table[n][b] is byte b followed by n zero bytes.
using Tables64 = std::array<std::array<uint64_t, 256>, 8>;
constexpr Tables64 make_tables64() {
  Tables64 tables{};
  for (uint64_t byte = 0; byte < 256; ++byte) {
    uint64_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ kPoly64 : crc >> 1;
    tables[0][byte] = crc;
  }
  for (size_t n = 1; n < 8; ++n) {
    for (size_t byte = 0; byte < 256; ++byte) tables[n][byte] = (tables[n - 1][byte] >> 8) ^ tables[0][tables[n - 1][byte] & 0xff];
  }
  return tables;
}
constexpr Tables64 kTables64 = make_tables64();

uint64_t table_state(uint64_t state, const uint8_t* at, size_t size) {
  for (; size >= 8; size -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    word ^= state;
    state = 0;
    for (size_t i = 0; i < 8; ++i) state ^= kTables64[7 - i][(word >> (8 * i)) & 0xff];
  }
  for (; size > 0; --size, ++at) state = (state >> 8) ^ kTables64[0][(state ^ *at) & 0xff];
  return state;
}

// Folding (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", 2009), reflected: a 128-bit lane stands for
// L x^64 + H, L in its low half. The carry-less product of two reflected 64-bit words, read as a reflected 128-bit word, is their product
// times x; so moving a lane up by D bits is  clmul(L, x^(64+D-1)) ^ clmul(H, x^(D-1)).
// consteval: a thousand steps of polynomial arithmetic, which must not happen at each call.
consteval uint64_t fold_low(uint64_t bits) { return detail::power_of_x<uint64_t, kPoly64>(64 + bits - 1); }
consteval uint64_t fold_high(uint64_t bits) { return detail::power_of_x<uint64_t, kPoly64>(bits - 1); }

__attribute__((target("pclmul,sse4.2"))) inline __m128i fold128(__m128i lane, __m128i constants) {
  return _mm_xor_si128(_mm_clmulepi64_si128(lane, constants, 0x00), _mm_clmulepi64_si128(lane, constants, 0x11));
}

// size >= 64.
__attribute__((target("pclmul,sse4.2"))) uint64_t pclmul_state(uint64_t state, const uint8_t* at, size_t size) {
  const auto load = [](const uint8_t* from)
                        __attribute__((target("pclmul,sse4.2"))) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); };
  const __m128i by512 = _mm_set_epi64x(static_cast<int64_t>(fold_high(512)), static_cast<int64_t>(fold_low(512)));
  const __m128i by128 = _mm_set_epi64x(static_cast<int64_t>(fold_high(128)), static_cast<int64_t>(fold_low(128)));
  __m128i a = _mm_xor_si128(load(at), _mm_cvtsi64_si128(static_cast<int64_t>(state)));
  __m128i b = load(at + 16), c = load(at + 32), d = load(at + 48);
  for (at += 64, size -= 64; size >= 64; at += 64, size -= 64) {
    a = _mm_xor_si128(fold128(a, by512), load(at));
    b = _mm_xor_si128(fold128(b, by512), load(at + 16));
    c = _mm_xor_si128(fold128(c, by512), load(at + 32));
    d = _mm_xor_si128(fold128(d, by512), load(at + 48));
  }
  b = _mm_xor_si128(fold128(a, by128), b);
  c = _mm_xor_si128(fold128(b, by128), c);
  d = _mm_xor_si128(fold128(c, by128), d);
  for (; size >= 16; at += 16, size -= 16) d = _mm_xor_si128(fold128(d, by128), load(at));
  alignas(16) uint8_t last[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(last), d);
  return table_state(table_state(0, last, 16), at, size);
}

// size >= 256. Eight 128-bit lanes in four 256-bit registers.
__attribute__((target("vpclmulqdq,avx2,pclmul"))) uint64_t vpclmul_state(uint64_t state, const uint8_t* at, size_t size) {
  const auto load = [](const uint8_t* from) __attribute__((target("vpclmulqdq,avx2,pclmul"))) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  };
  const auto fold = [](__m256i lane, __m256i constants) __attribute__((target("vpclmulqdq,avx2,pclmul"))) {
    return _mm256_xor_si256(_mm256_clmulepi64_epi128(lane, constants, 0x00), _mm256_clmulepi64_epi128(lane, constants, 0x11));
  };
  const __m256i by1024 = _mm256_set_epi64x(static_cast<int64_t>(fold_high(1024)), static_cast<int64_t>(fold_low(1024)),
                                           static_cast<int64_t>(fold_high(1024)), static_cast<int64_t>(fold_low(1024)));
  __m256i a = _mm256_xor_si256(load(at), _mm256_set_epi64x(0, 0, 0, static_cast<int64_t>(state)));
  __m256i b = load(at + 32), c = load(at + 64), d = load(at + 96);
  for (at += 128, size -= 128; size >= 128; at += 128, size -= 128) {
    a = _mm256_xor_si256(fold(a, by1024), load(at));
    b = _mm256_xor_si256(fold(b, by1024), load(at + 32));
    c = _mm256_xor_si256(fold(c, by1024), load(at + 64));
    d = _mm256_xor_si256(fold(d, by1024), load(at + 96));
  }
  // What is left is the CRC, from state 0, of the 128 folded bytes followed by the rest.
  alignas(32) uint8_t last[128];
  _mm256_store_si256(reinterpret_cast<__m256i*>(last), a);
  _mm256_store_si256(reinterpret_cast<__m256i*>(last + 32), b);
  _mm256_store_si256(reinterpret_cast<__m256i*>(last + 64), c);
  _mm256_store_si256(reinterpret_cast<__m256i*>(last + 96), d);
  _mm256_zeroupper();
  state = pclmul_state(0, last, sizeof last);
  return size >= 64 ? pclmul_state(state, at, size) : table_state(state, at, size);
}

const bool kHasPclmul = __builtin_cpu_supports("pclmul") != 0;
const bool kHasVpclmul = kHasPclmul && __builtin_cpu_supports("vpclmulqdq") != 0 && __builtin_cpu_supports("avx2") != 0;

}  // namespace

uint32_t crc32c(uint32_t seed, ByteView bytes) {
  uint32_t state = ~seed;
  for (const uint8_t* at = bytes.data(); !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), kChunkMax)), at = bytes.data()) {
    state = crc32_iscsi(const_cast<uint8_t*>(at), static_cast<int>(std::min(bytes.size(), kChunkMax)), state);
  }
  return ~state;
}
uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_length) {
  return detail::combine<uint32_t, kPoly32c>(first, second, second_length);
}

uint32_t crc32(uint32_t seed, ByteView bytes) {
  // crc32_gzip_refl inverts before and after by itself.
  return crc32_gzip_refl(seed, bytes.data(), bytes.size());
}
uint32_t crc32_combine(uint32_t first, uint32_t second, uint64_t second_length) {
  return detail::combine<uint32_t, kPoly32>(first, second, second_length);
}

uint64_t crc64nvme(uint64_t seed, ByteView bytes) {
  if (bytes.size() >= 256 && kHasVpclmul) return ~vpclmul_state(~seed, bytes.data(), bytes.size());
  if (bytes.size() >= 64 && kHasPclmul) return ~pclmul_state(~seed, bytes.data(), bytes.size());
  return ~table_state(~seed, bytes.data(), bytes.size());
}
uint64_t crc64nvme_combine(uint64_t first, uint64_t second, uint64_t second_length) {
  return detail::combine<uint64_t, kPoly64>(first, second, second_length);
}

namespace detail {
uint64_t crc64nvme_table(uint64_t seed, ByteView bytes) { return ~table_state(~seed, bytes.data(), bytes.size()); }
}  // namespace detail

}  // namespace quarry
