#include "codec/erasure.h"

#include <gtest/gtest.h>

#include <random>

#include "base/coding.h"

namespace quarry {
namespace {

struct Stripe {
  std::vector<std::vector<uint8_t>> shards;
  std::vector<uint8_t*> pointers;
  Stripe(uint32_t count, size_t bytes, uint64_t seed) : shards(count, std::vector<uint8_t>(bytes)) {
    std::mt19937_64 random(seed);
    for (auto& shard : shards) {
      for (auto& byte : shard) byte = static_cast<uint8_t>(random());
      pointers.push_back(shard.data());
    }
  }
  void encode(const ErasureCode& code, size_t bytes) {
    std::vector<const uint8_t*> data(pointers.begin(), pointers.begin() + code.data_shards());
    code.encode(data, std::span(pointers).subspan(code.data_shards()), bytes);
  }
};

// Multiplication by shift and add modulo 0x11d, independent of the library.
uint8_t slow_multiply(uint8_t a, uint8_t b) {
  unsigned product = 0, factor = a;
  for (int bit = 0; bit < 8; ++bit, factor <<= 1) {
    if (factor & 0x100) factor ^= 0x11d;
    if (b >> bit & 1) product ^= factor;
  }
  return static_cast<uint8_t>(product);
}

TEST(ErasureCode, matrix_is_the_documented_cauchy_matrix) {
  for (const auto& [k, m] : {std::pair{4u, 2u}, {8u, 3u}, {10u, 4u}, {1u, 1u}, {28u, 4u}}) {
    const auto code = *ErasureCode::get(k, m);
    for (uint32_t row = 0; row < m; ++row) {
      for (uint32_t column = 0; column < k; ++column) {
        EXPECT_EQ(slow_multiply(code->coefficient(row, column), static_cast<uint8_t>((k + row) ^ column)), 1);
      }
    }
  }
}

TEST(ErasureCode, parity_of_the_documented_vector) {
  // docs/formats/stripe.md, section 1.
  const auto code = *ErasureCode::get(4, 2);
  Stripe stripe(6, 4, 0);
  for (uint8_t i = 0; i < 4; ++i) {
    for (uint8_t j = 0; j < 4; ++j) stripe.shards[i][j] = static_cast<uint8_t>(i * 4 + j);
  }
  stripe.encode(*code, 4);
  for (uint32_t row = 0; row < 2; ++row) {
    for (size_t byte = 0; byte < 4; ++byte) {
      uint8_t sum = 0;
      for (uint32_t i = 0; i < 4; ++i) sum ^= slow_multiply(code->coefficient(row, i), stripe.shards[i][byte]);
      EXPECT_EQ(stripe.shards[4 + row][byte], sum);
    }
  }
  EXPECT_EQ(to_hex(stripe.shards[4]), "3a1a7a5a");
  EXPECT_EQ(to_hex(stripe.shards[5]), "ba9afada");
}

TEST(ErasureCode, any_k_shards_rebuild_the_rest) {
  for (const auto& [k, m] : {std::pair{1u, 0u}, {1u, 3u}, {2u, 1u}, {4u, 2u}, {3u, 4u}}) {
    const auto code = *ErasureCode::get(k, m);
    const size_t bytes = 133;
    Stripe stripe(k + m, bytes, k * 100 + m);
    stripe.encode(*code, bytes);
    const Stripe original = stripe;
    for (ShardMask present = 0; present <= code->all(); ++present) {
      Stripe damaged(k + m, bytes, 7);
      for (uint32_t i = 0; i < k + m; ++i) {
        if (present >> i & 1) damaged.shards[i] = original.shards[i];
        damaged.pointers[i] = damaged.shards[i].data();
      }
      const auto result = code->reconstruct(damaged.pointers, bytes, present, code->all() & ~present);
      if (static_cast<uint32_t>(std::popcount(present)) < k) {
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error().code(), Code::data_lost);
      } else {
        ASSERT_TRUE(result);
        EXPECT_EQ(damaged.shards, original.shards) << k << "+" << m << " present " << present;
      }
    }
  }
}

TEST(ErasureCode, wide_codes_and_every_length_from_random_losses) {
  std::mt19937_64 random(42);
  for (const auto& [k, m] : {std::pair{8u, 3u}, {10u, 4u}, {16u, 16u}, {28u, 4u}, {20u, 10u}}) {
    const auto code = *ErasureCode::get(k, m);
    for (const size_t bytes : {1ul, 31ul, 32ul, 33ul, 63ul, 64ul, 65ul, 127ul, 4096ul, 32767ul, 32768ul, 32769ul, 100'001ul}) {
      Stripe stripe(k + m, bytes, random());
      stripe.encode(*code, bytes);
      Stripe damaged = stripe;
      ShardMask lost = 0;
      while (static_cast<uint32_t>(std::popcount(lost)) < m) lost |= ShardMask{1} << (random() % (k + m));
      for (uint32_t i = 0; i < k + m; ++i) {
        if (lost >> i & 1) std::ranges::fill(damaged.shards[i], 0xee);
        damaged.pointers[i] = damaged.shards[i].data();
      }
      ASSERT_TRUE(code->reconstruct(damaged.pointers, bytes, code->all() & ~lost, lost));
      EXPECT_EQ(damaged.shards, stripe.shards) << k << "+" << m << " bytes " << bytes << " lost " << lost;
    }
  }
}

TEST(ErasureCode, parity_ends_where_the_shard_ends) {
  const auto code = *ErasureCode::get(3, 2);
  for (size_t bytes = 0; bytes < 200; ++bytes) {
    Stripe stripe(5, bytes + 64, 3);
    for (int i = 3; i < 5; ++i) std::ranges::fill(stripe.shards[i], 0xab);
    stripe.encode(*code, bytes);
    for (int i = 3; i < 5; ++i) {
      for (size_t at = bytes; at < bytes + 64; ++at) ASSERT_EQ(stripe.shards[i][at], 0xab) << bytes;
    }
  }
}

TEST(ErasureCode, refuses_impossible_geometries_and_masks) {
  EXPECT_EQ(ErasureCode::get(0, 1).error().code(), Code::invalid_argument);
  EXPECT_EQ(ErasureCode::get(30, 3).error().code(), Code::invalid_argument);
  EXPECT_EQ(ErasureCode::get(4'000'000'000u, 1).error().code(), Code::invalid_argument);
  const auto code = *ErasureCode::get(2, 1);
  Stripe stripe(3, 8, 1);
  EXPECT_EQ(code->reconstruct(stripe.pointers, 8, 0b011, 0b010).error().code(), Code::invalid_argument);
  EXPECT_EQ(code->reconstruct(stripe.pointers, 8, 0b1011, 0b100).error().code(), Code::invalid_argument);
}

TEST(ErasureCode, decode_tables_stay_bounded) {
  const auto code = *ErasureCode::get(12, 4);
  Stripe stripe(16, 64, 9);
  stripe.encode(*code, 64);
  const auto original = stripe.shards;
  for (ShardMask lost = 1; lost < 0xffff; ++lost) {
    if (std::popcount(lost) > 4) continue;
    ASSERT_TRUE(code->reconstruct(stripe.pointers, 64, code->all() & ~lost, lost));
    ASSERT_EQ(stripe.shards, original);
  }
}

}  // namespace
}  // namespace quarry
