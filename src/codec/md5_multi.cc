// The kernel is one template over a vector type, compiled once per instruction set. A block of each lane is transposed so that word i of
// all lanes is one vector; then the 64 steps are those of RFC 1321, all lanes at once.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "codec/md5_multi.h"

#include <immintrin.h>
#include <openssl/md5.h>

#include "base/check.h"

namespace quarry {

struct Md5Access {
  static std::array<uint32_t, 4>& state(Md5Stream& stream) { return stream.state_; }
  static uint64_t& length(Md5Stream& stream) { return stream.length_; }
  static std::array<uint8_t, 64>& partial(Md5Stream& stream) { return stream.partial_; }
};

namespace {

constexpr uint32_t kSines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1,
    0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453,
    0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942,
    0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05,
    0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d,
    0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
constexpr int kShifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
constexpr int kWordStep[4] = {1, 5, 3, 7};
constexpr int kWordStart[4] = {0, 1, 5, 0};

// One block of all lanes; V is a vector of uint32_t. w: the 16 message words.
#define QUARRY_MD5_ROUNDS(V, a, b, c, d, w)                                     \
  _Pragma("clang loop unroll(full)") for (int step = 0; step < 64; ++step) {    \
    const int round = step / 16;                                                \
    V f;                                                                        \
    if (round == 0)                                                             \
      f = d ^ (b & (c ^ d));                                                    \
    else if (round == 1)                                                        \
      f = c ^ (d & (b ^ c));                                                    \
    else if (round == 2)                                                        \
      f = b ^ c ^ d;                                                            \
    else                                                                        \
      f = c ^ (b | ~d);                                                         \
    const int word = (kWordStart[round] + kWordStep[round] * (step % 16)) % 16; \
    const int shift = kShifts[round][step % 4];                                 \
    const V sum = a + (w[word] + kSines[step]) + f;                             \
    a = d;                                                                      \
    d = c;                                                                      \
    c = b;                                                                      \
    b = b + ((sum << shift) | (sum >> (32 - shift)));                           \
  }

// A single stream gains nothing from vectors; OpenSSL's assembly is the fastest scalar code there is (1.7 times what clang makes of the
// rounds below), and its low-level interface takes the state as it is.
void scalar_blocks(std::array<uint32_t, 4>& state, const uint8_t* at, size_t blocks) {
  if (blocks == 0) return;
  MD5_CTX context{};
  context.A = state[0];
  context.B = state[1];
  context.C = state[2];
  context.D = state[3];
  CHECK(MD5_Update(&context, at, blocks * 64) == 1);
  state = {context.A, context.B, context.C, context.D};
}

typedef uint32_t Vector4 __attribute__((vector_size(16)));
typedef uint32_t Vector8 __attribute__((vector_size(32)));
typedef uint32_t Vector16 __attribute__((vector_size(64)));

constexpr size_t kLanesMax = 16;
using LaneState = uint32_t[kLanesMax];  // one word of the state of every lane

// `blocks` blocks of each of the first kLanes streams. state[i][lane]: word i.
#define QUARRY_MD5_KERNEL(NAME, V, kLanes, TARGET)                                                                          \
  __attribute__((target(TARGET))) void NAME(LaneState* state, const uint8_t** data, size_t blocks) {                        \
    V a, b, c, d;                                                                                                           \
    std::memcpy(&a, state[0], sizeof a);                                                                                    \
    std::memcpy(&b, state[1], sizeof b);                                                                                    \
    std::memcpy(&c, state[2], sizeof c);                                                                                    \
    std::memcpy(&d, state[3], sizeof d);                                                                                    \
    for (size_t block = 0; block < blocks; ++block) {                                                                       \
      alignas(64) uint32_t words[16][kLanes];                                                                               \
      for (int lane = 0; lane < (kLanes); lane += 4) {                                                                      \
        for (int word = 0; word < 16; word += 4) {                                                                          \
          Vector4 r0, r1, r2, r3;                                                                                           \
          std::memcpy(&r0, data[lane] + block * 64 + word * 4, 16);                                                         \
          std::memcpy(&r1, data[lane + 1] + block * 64 + word * 4, 16);                                                     \
          std::memcpy(&r2, data[lane + 2] + block * 64 + word * 4, 16);                                                     \
          std::memcpy(&r3, data[lane + 3] + block * 64 + word * 4, 16);                                                     \
          const Vector4 t0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), t1 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5); \
          const Vector4 t2 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), t3 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7); \
          const Vector4 s0 = __builtin_shufflevector(t0, t1, 0, 1, 4, 5), s1 = __builtin_shufflevector(t0, t1, 2, 3, 6, 7); \
          const Vector4 s2 = __builtin_shufflevector(t2, t3, 0, 1, 4, 5), s3 = __builtin_shufflevector(t2, t3, 2, 3, 6, 7); \
          std::memcpy(&words[word][lane], &s0, 16);                                                                         \
          std::memcpy(&words[word + 1][lane], &s1, 16);                                                                     \
          std::memcpy(&words[word + 2][lane], &s2, 16);                                                                     \
          std::memcpy(&words[word + 3][lane], &s3, 16);                                                                     \
        }                                                                                                                   \
      }                                                                                                                     \
      const V* w = reinterpret_cast<const V*>(words);                                                                       \
      const V a0 = a, b0 = b, c0 = c, d0 = d;                                                                               \
      QUARRY_MD5_ROUNDS(V, a, b, c, d, w)                                                                                   \
      a += a0;                                                                                                              \
      b += b0;                                                                                                              \
      c += c0;                                                                                                              \
      d += d0;                                                                                                              \
    }                                                                                                                       \
    std::memcpy(state[0], &a, sizeof a);                                                                                    \
    std::memcpy(state[1], &b, sizeof b);                                                                                    \
    std::memcpy(state[2], &c, sizeof c);                                                                                    \
    std::memcpy(state[3], &d, sizeof d);                                                                                    \
  }

// One chain of 8 lanes leaves the vector units waiting for themselves; two side by side (the compiler makes two registers of a Vector16)
// take 1.25 times as long for twice the work. With 8 streams or fewer the narrow one is faster.
QUARRY_MD5_KERNEL(avx2_narrow_blocks, Vector8, 8, "avx2")
QUARRY_MD5_KERNEL(avx2_wide_blocks, Vector16, 16, "avx2")
QUARRY_MD5_KERNEL(avx512_blocks, Vector16, 16, "avx512f")

// Fills the stream's partial block first; the rest of `bytes` then begins at a block.
ByteView complete_partial(Md5Stream& stream, ByteView bytes) {
  uint64_t& length = Md5Access::length(stream);
  const size_t waiting = length % 64;
  if (waiting == 0) return bytes;
  const size_t take = std::min(bytes.size(), 64 - waiting);
  std::memcpy(Md5Access::partial(stream).data() + waiting, bytes.data(), take);
  length += take;
  if (waiting + take == 64) scalar_blocks(Md5Access::state(stream), Md5Access::partial(stream).data(), 1);
  return bytes.subspan(take);
}

void keep_tail(Md5Stream& stream, ByteView tail) {
  if (!tail.empty()) std::memcpy(Md5Access::partial(stream).data(), tail.data(), tail.size());
}

// Lanes take jobs from the list; when one runs dry it takes the next. All lanes advance by the smallest number of blocks any of them
// has left, so lengths that differ cost nothing but the bookkeeping. With few jobs left the scalar path is as fast.
using Kernel = void (*)(LaneState*, const uint8_t**, size_t);
void run_lanes(std::span<const Md5Update> updates, Kernel wide, Kernel narrow) {
  constexpr size_t kLanes = kLanesMax;
  constexpr size_t kLanesWorth = 2;
  struct Job {
    Md5Stream* stream;
    const uint8_t* at;
    size_t blocks;
    ByteView tail;
  };
  std::array<Job, kLanes> jobs;
  size_t active = 0, next = 0;
  alignas(64) LaneState state[4];
  const auto load = [&](size_t lane) {
    for (size_t word = 0; word < 4; ++word) state[word][lane] = Md5Access::state(*jobs[lane].stream)[word];
  };
  const auto store = [&](size_t lane) {
    for (size_t word = 0; word < 4; ++word) Md5Access::state(*jobs[lane].stream)[word] = state[word][lane];
  };
  const auto fill = [&](size_t lane) {
    while (next < updates.size()) {
      const Md5Update& update = updates[next++];
      const ByteView rest = complete_partial(*update.stream, update.bytes);
      const size_t blocks = rest.size() / 64;
      Md5Access::length(*update.stream) += rest.size();
      if (blocks == 0) {
        keep_tail(*update.stream, rest);
        continue;
      }
      jobs[lane] = {update.stream, rest.data(), blocks, rest.subspan(blocks * 64)};
      load(lane);
      return true;
    }
    return false;
  };
  while (active < kLanes && fill(active)) ++active;
  while (active >= kLanesWorth) {
    size_t blocks = SIZE_MAX;
    for (size_t lane = 0; lane < active; ++lane) blocks = std::min(blocks, jobs[lane].blocks);
    std::array<const uint8_t*, kLanes> data;
    for (size_t lane = 0; lane < kLanes; ++lane) data[lane] = jobs[lane < active ? lane : 0].at;  // idle lanes redo lane 0; it is not kept
    (active > kLanes / 2 ? wide : narrow)(state, data.data(), blocks);
    for (size_t lane = 0; lane < active;) {
      Job& job = jobs[lane];
      job.at += blocks * 64;
      job.blocks -= blocks;
      if (job.blocks > 0) {
        ++lane;
        continue;
      }
      store(lane);
      keep_tail(*job.stream, job.tail);
      if (fill(lane)) {
        ++lane;
        continue;
      }
      --active;
      if (lane != active) {
        store(active);
        jobs[lane] = jobs[active];
        load(lane);
      }
    }
  }
  for (size_t lane = 0; lane < active; ++lane) {
    store(lane);
    scalar_blocks(Md5Access::state(*jobs[lane].stream), jobs[lane].at, jobs[lane].blocks);
    keep_tail(*jobs[lane].stream, jobs[lane].tail);
  }
  for (; next < updates.size(); ++next) updates[next].stream->update(updates[next].bytes);
}

// Whether a kernel computes MD5 on this processor. Asked once before it is used: an ETag must not depend on the machine.
bool agrees_with_scalar(detail::Md5Kernel kernel) {
  std::array<uint8_t, 400> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 + 11);
  std::array<Md5Stream, 17> streams;
  std::vector<Md5Update> updates;
  for (size_t i = 0; i < streams.size(); ++i) updates.push_back({&streams[i], ByteView(bytes).subspan(i, 200 + i * 8)});
  detail::md5_update_many_with(kernel, updates);
  for (size_t i = 0; i < streams.size(); ++i) {
    Md5Stream scalar;
    scalar.update(updates[i].bytes);
    if (streams[i].finish() != scalar.finish()) return false;
  }
  return true;
}

detail::Md5Kernel best_kernel() {
  static const detail::Md5Kernel kBest = [] {
    for (const auto kernel : {detail::Md5Kernel::avx512, detail::Md5Kernel::avx2}) {
      if (detail::md5_kernel_available(kernel) && agrees_with_scalar(kernel)) return kernel;
    }
    return detail::Md5Kernel::scalar;
  }();
  return kBest;
}

}  // namespace

void Md5Stream::update(ByteView bytes) {
  const ByteView rest = complete_partial(*this, bytes);
  const size_t blocks = rest.size() / 64;
  scalar_blocks(state_, rest.data(), blocks);
  length_ += rest.size();
  keep_tail(*this, rest.subspan(blocks * 64));
}

Md5Bytes Md5Stream::finish() {
  const uint64_t bits = length_ * 8;
  uint8_t padding[72] = {0x80};
  const size_t size = (length_ % 64 < 56 ? 56 : 120) - length_ % 64;
  std::memcpy(padding + size, &bits, 8);
  update({padding, size + 8});
  DCHECK(length_ % 64 == 0);
  Md5Bytes out;
  std::memcpy(out.data(), state_.data(), out.size());
  *this = Md5Stream();
  return out;
}

void md5_update_many(std::span<const Md5Update> updates) { detail::md5_update_many_with(best_kernel(), updates); }

size_t md5_lanes() {
  switch (best_kernel()) {
    case detail::Md5Kernel::avx512:
    case detail::Md5Kernel::avx2: return kLanesMax;
    case detail::Md5Kernel::scalar: return 1;
  }
  return 1;
}

namespace detail {

bool md5_kernel_available(Md5Kernel kernel) {
  switch (kernel) {
    case Md5Kernel::scalar: return true;
    case Md5Kernel::avx2: return __builtin_cpu_supports("avx2") != 0;
    case Md5Kernel::avx512: return __builtin_cpu_supports("avx512f") != 0;
  }
  return false;
}

void md5_update_many_with(Md5Kernel kernel, std::span<const Md5Update> updates) {
  CHECK(md5_kernel_available(kernel));
  switch (kernel) {
    case Md5Kernel::scalar:
      for (const auto& update : updates) update.stream->update(update.bytes);
      return;
    case Md5Kernel::avx2: run_lanes(updates, avx2_wide_blocks, avx2_narrow_blocks); return;
    case Md5Kernel::avx512: run_lanes(updates, avx512_blocks, avx512_blocks); return;
  }
}

}  // namespace detail
}  // namespace quarry
