#include "cluster/map/data_layout.h"

#include <gtest/gtest.h>

#include "io/clock.h"

namespace quarry::cluster {
namespace {

DataLayout layout(uint64_t size, unsigned k, unsigned m, uint32_t shard = kMiB) {
  DataLayout l;
  l.write_id = 77;
  l.group = 5;
  l.redundancy = {RedundancyKind::erasure, static_cast<uint8_t>(k), static_cast<uint8_t>(m)};
  l.size = size;
  l.shard_size = shard;
  return l;
}

TEST(DataLayout, stored_data_shards_add_up_to_the_data) {
  for (unsigned k : {1u, 2u, 3u, 4u, 8u, 13u}) {
    for (uint64_t size : {uint64_t{1}, uint64_t{63}, uint64_t{64}, uint64_t{65}, uint64_t{4097}, uint64_t{130'000}, kMiB * uint64_t{k} - 1,
                          kMiB * uint64_t{k}, kMiB * uint64_t{k} + 1, uint64_t{10'000'019}}) {
      const DataLayout l = layout(size, k, 2);
      uint64_t sum = 0;
      for (uint32_t stripe = 0; stripe < l.stripe_count(); ++stripe) {
        const uint32_t length = l.stripe_shard_size(stripe);
        ASSERT_LE(length, l.shard_size);
        ASSERT_GE(uint64_t{length} * k, l.stripe_size(stripe));
        for (unsigned shard = 0; shard < k; ++shard) {
          ASSERT_LE(l.stored_size(stripe, shard), length);
          sum += l.stored_size(stripe, shard);
        }
        ASSERT_EQ(l.stored_size(stripe, k), length);
      }
      EXPECT_EQ(sum, size) << "k " << k;
    }
  }
}

TEST(DataLayout, a_short_stripe_is_not_padded) {
  const DataLayout l = layout(4 * kMiB + 100, 4, 2);
  EXPECT_EQ(l.stripe_count(), 2u);
  EXPECT_EQ(l.stripe_shard_size(1), 64u);
  EXPECT_EQ(l.stored_size(1, 0), 64u);
  EXPECT_EQ(l.stored_size(1, 1), 36u);
  EXPECT_EQ(l.stored_size(1, 2), 0u);
  EXPECT_EQ(l.stored_size(1, 4), 64u);
  EXPECT_EQ(l.stored_bytes(), 6 * kMiB + 100 + 128);
}

TEST(DataLayout, a_full_copy_lies_beside_slices) {
  for (unsigned k : {1u, 2u, 3u, 8u}) {
    for (uint64_t size : {uint64_t{1}, uint64_t{65}, uint64_t{130'000}, kMiB * uint64_t{k}, kMiB * uint64_t{k} + 1, uint64_t{10'000'019}}) {
      const DataLayout slices = layout(size, k, 2);
      DataLayout l = slices;
      l.redundancy.kind = RedundancyKind::whole;
      ASSERT_EQ(l.stripe_count(), slices.stripe_count());
      for (uint32_t stripe = 0; stripe < l.stripe_count(); ++stripe) {
        EXPECT_EQ(l.stored_size(stripe, 0), l.stripe_size(stripe));
        EXPECT_EQ(l.read_shard_size(stripe), l.stripe_size(stripe));
        for (unsigned shard = 0; shard < k + 2; ++shard) EXPECT_EQ(l.stored_size(stripe, 1 + shard), slices.stored_size(stripe, shard));
      }
      EXPECT_EQ(l.stored_bytes(), slices.stored_bytes() + size);
    }
  }
}

TEST(DataLayout, a_full_copy_beside_slices_has_a_version_of_its_own) {
  std::string bytes;
  DataLayout l = layout(123'456'789, 4, 2);
  l.redundancy.kind = RedundancyKind::whole;
  l.encode(bytes);
  EXPECT_EQ(bytes[0], 2);
  EXPECT_EQ(to_hex(bytes_of(bytes)),
            "020304020500"
            "4d"
            "959aef3a"
            "808040");
  Decoder in(bytes);
  auto back = DataLayout::decode(in);
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, l);
  // Neither version takes the other's kinds, and a copy stays within a chunk.
  bytes[0] = 1;
  Decoder older(bytes);
  EXPECT_FALSE(DataLayout::decode(older));
  bytes[0] = 2;
  bytes[1] = 2;
  Decoder mixed(bytes);
  EXPECT_FALSE(DataLayout::decode(mixed));
  l.redundancy.k = 17;
  bytes.clear();
  l.encode(bytes);
  Decoder large(bytes);
  EXPECT_FALSE(DataLayout::decode(large));
}

TEST(DataLayout, is_read_back) {
  std::string bytes;
  const DataLayout l = layout(123'456'789, 4, 2);
  l.encode(bytes);
  Decoder in(bytes);
  auto back = DataLayout::decode(in);
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, l);
  EXPECT_TRUE(in.done());
}

TEST(DataLayout, hostile_bytes_are_refused_or_make_a_sane_layout) {
  SeededRandom random(3);
  std::string good;
  layout(123'456, 4, 2).encode(good);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = good;
    const size_t flips = 1 + random.below(3);
    for (size_t i = 0; i < flips; ++i) bytes[random.below(bytes.size())] = static_cast<char>(random.u64());
    bytes.resize(random.below(bytes.size() + 1));
    Decoder in(bytes);
    auto back = DataLayout::decode(in);
    if (!back) continue;
    ASSERT_GE(back->redundancy.k, 1);
    ASSERT_LE(back->redundancy.width(), 32u);
    ASSERT_GT(back->shard_size, 0u);
    ASSERT_LE(back->stripe_count(), kStripesMax);
  }
}

TEST(ChunkName, survives_the_way_through_an_id) {
  const ChunkName name{
      .kind = ChunkKind::data, .serial = 0xabcdef0123ull, .group = 300, .stripe = 0x123456, .shard = 31, .generation = generation_of(5, 3)};
  const ChunkName back = chunk_name(chunk_id(name));
  EXPECT_EQ(back.serial, name.serial);
  EXPECT_EQ(back.group, name.group);
  EXPECT_EQ(back.stripe, name.stripe);
  EXPECT_EQ(back.shard, name.shard);
  EXPECT_EQ(term_of(back.generation), 5);
  EXPECT_EQ(rewrite_of(back.generation), 3);
}

}  // namespace
}  // namespace quarry::cluster
