// Coding kernels side by side with the libraries' own loops, in one run; each pair ends in a ratio (ours / theirs).
//   codec_bench [seconds per measurement]
// Both sides run alternately on the same buffers and the medians are compared. Exit status 1 if a ratio of the table misses its bar.
#include <isa-l/crc.h>
#include <isa-l/crc64.h>
#include <isa-l/erasure_code.h>
#include <openssl/evp.h>
#include <time.h>

#include <cstdio>
#include <random>

#include "codec/checksum.h"
#include "codec/crc32c.h"
#include "codec/digest.h"
#include "codec/erasure.h"
#include "codec/md5_multi.h"

namespace quarry {
namespace {

double cpu_now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

bool failed = false;

// GiB per CPU-second of ours and theirs, alternating.
template <class Ours, class Theirs>
void compare(const std::string& name, uint64_t bytes, double seconds, double bar, Ours ours, Theirs theirs) {
  std::vector<double> a, b;
  const double end = cpu_now() + seconds;
  ours();
  theirs();
  const auto timed = [](auto& run) {
    const double start = cpu_now();
    run();
    return cpu_now() - start;
  };
  for (size_t i = 0; cpu_now() < end || a.size() < 5; ++i) {
    if (i % 2 == 0) {
      a.push_back(timed(ours));
      b.push_back(timed(theirs));
    } else {
      b.push_back(timed(theirs));
      a.push_back(timed(ours));
    }
  }
  const auto median = [](std::vector<double>& v) {
    std::ranges::nth_element(v, v.begin() + static_cast<ptrdiff_t>(v.size() / 2));
    return v[v.size() / 2];
  };
  const double gib = static_cast<double>(bytes) / static_cast<double>(kGiB);
  const double x = gib / median(a), y = gib / median(b);
  std::printf("%-34s %7.2f GiB/CPU-s   reference %7.2f   ratio %.3f%s\n", name.c_str(), x, y, x / y,
              bar > 0 && x / y < bar ? "  BELOW THE BAR" : "");
  std::fflush(stdout);
  if (bar > 0 && x / y < bar) failed = true;
}

struct Shards {
  std::vector<Buffer> buffers;
  std::vector<uint8_t*> pointers;
  Shards(uint32_t count, size_t bytes) {
    std::mt19937_64 random(1);
    for (uint32_t i = 0; i < count; ++i) {
      buffers.emplace_back(bytes);
      for (size_t at = 0; at + 8 <= bytes; at += 8) store_word(buffers.back().data() + at, random());
      pointers.push_back(buffers.back().data());
    }
  }
  static void store_word(uint8_t* at, uint64_t word) { std::memcpy(at, &word, 8); }
};

void erasure(uint32_t k, uint32_t m, size_t bytes, double seconds) {
  Shards shards(k + m, bytes);
  const auto code = *ErasureCode::get(k, m);
  std::vector<uint8_t> matrix((k + m) * k), tables(32 * k * m);
  gf_gen_cauchy1_matrix(matrix.data(), static_cast<int>(k + m), static_cast<int>(k));
  ec_init_tables(static_cast<int>(k), static_cast<int>(m), matrix.data() + k * k, tables.data());
  const std::vector<const uint8_t*> data(shards.pointers.begin(), shards.pointers.begin() + k);
  const auto isal = [&] {
    ec_encode_data(static_cast<int>(bytes), static_cast<int>(k), static_cast<int>(m), tables.data(), shards.pointers.data(),
                   shards.pointers.data() + k);
  };
  const std::string size = bytes >= kMiB ? fmt::format("{} MiB", bytes / kMiB) : fmt::format("{} KiB", bytes / kKiB);
  compare(
      fmt::format("encode {}+{}, {} shards", k, m, size), bytes * k, seconds, 0.95,
      [&] { code->encode(data, std::span(shards.pointers).subspan(k), bytes); }, isal);
  // Decoding m lost data shards is the same product with other coefficients.
  const ShardMask lost = (ShardMask{1} << std::min(m, k)) - 1;
  const uint32_t rows = std::min(m, k);
  compare(
      fmt::format("decode {}+{}, {} lost, {}", k, m, rows, size), bytes * k, seconds, 0.95,
      [&] { std::move(code->reconstruct(shards.pointers, bytes, code->all() & ~lost, lost)).ignore("masks are right"); },
      [&] {
        ec_encode_data(static_cast<int>(bytes), static_cast<int>(k), static_cast<int>(rows), tables.data(), shards.pointers.data() + rows,
                       shards.pointers.data());
      });
}

int run(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  for (const size_t bytes : {64 * kKiB, 1 * kMiB}) {
    erasure(4, 2, bytes, seconds);
    erasure(8, 3, bytes, seconds);
    erasure(10, 4, bytes, seconds);
  }
  erasure(16, 8, kMiB, seconds);

  Buffer buffer(kMiB);
  std::memset(buffer.data(), 0x5a, buffer.size());
  compare(
      "crc32c, 1 MiB", kMiB, seconds, 0.95,
      [&] {
        volatile uint32_t sum = crc32c(1, buffer);
        (void)sum;
      },
      [&] {
        volatile uint32_t sum = crc32_iscsi(buffer.data(), static_cast<int>(buffer.size()), 1);
        (void)sum;
      });
  compare(
      "crc32c, 64 KiB", kMiB, seconds, 0.95,
      [&] {
        for (size_t at = 0; at < kMiB; at += 65536) {
          volatile uint32_t sum = crc32c(1, buffer.view().subspan(at, 65536));
          (void)sum;
        }
      },
      [&] {
        for (size_t at = 0; at < kMiB; at += 65536) {
          volatile uint32_t sum = crc32_iscsi(buffer.data() + at, 65536, 1);
          (void)sum;
        }
      });
  compare(
      "crc64nvme, 1 MiB (isa-l: ecma)", kMiB, seconds, 0,
      [&] {
        volatile uint64_t sum = crc64nvme(0, buffer);
        (void)sum;
      },
      [&] {
        volatile uint64_t sum = crc64_ecma_refl(0, buffer.data(), buffer.size());
        (void)sum;
      });

  // MD5 of 16 streams of 256 KiB against OpenSSL, one after the other.
  std::vector<Buffer> inputs;
  for (int i = 0; i < 16; ++i) {
    inputs.emplace_back(256 * kKiB);
    std::memset(inputs.back().data(), i, inputs.back().size());
  }
  compare(
      fmt::format("md5 x16, {} lanes (openssl: 1)", md5_lanes()), 16 * 256 * kKiB, seconds, 0,
      [&] {
        std::array<Md5Stream, 16> streams;
        std::vector<Md5Update> updates;
        for (size_t i = 0; i < 16; ++i) updates.push_back({&streams[i], inputs[i].view()});
        md5_update_many(updates);
        for (auto& stream : streams) {
          volatile uint8_t first = stream.finish()[0];
          (void)first;
        }
      },
      [&] {
        for (const auto& input : inputs) {
          volatile uint8_t first = md5(input)[0];
          (void)first;
        }
      });
  compare(
      "md5 x1 (openssl: 1)", 256 * kKiB, seconds, 0,
      [&] {
        Md5Stream stream;
        stream.update(inputs[0]);
        volatile uint8_t first = stream.finish()[0];
        (void)first;
      },
      [&] {
        volatile uint8_t first = md5(inputs[0])[0];
        (void)first;
      });
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace quarry

int main(int argc, char** argv) { return quarry::run(argc, argv); }
