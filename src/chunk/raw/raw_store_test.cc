#include "chunk/raw/raw_store.h"

#include <gtest/gtest.h>

#include "io/sim/sim_block_device.h"
#include "io/sim/sim_executor.h"

namespace quarry::chunk {
namespace {

std::string payload(uint64_t seed, size_t size) {
  std::string text(size, '\0');
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
  for (auto& c : text) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>(x);
  }
  return text;
}
ChunkId id_of(uint64_t n) { return {n * 0x9e3779b97f4a7c15ull, n}; }

class RawStoreTest : public testing::Test {
 protected:
  void SetUp() override { create(64 * kMiB); }
  void create(uint64_t size) {
    disk = SimDisk::create({.size = size});
    auto device = disk->open();
    const auto formatted = executor.run(RawStore::format(*device, {.cluster = cluster}));
    ASSERT_TRUE(formatted) << formatted.error().to_string();
    executor.run(device->close());
    device.reset();
    open();
  }
  void open(RawStoreOptions options = {}) {
    auto opened = executor.run(RawStore::open(disk->open(), options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void close() {
    const auto closed = executor.run(store->close());
    ASSERT_TRUE(closed) << closed.error().to_string();
    store.reset();
  }
  void reopen() {
    close();
    open();
  }
  Result<void> put(uint64_t n, std::string text, Stream stream = Stream::data) {
    text_ = std::move(text);
    return executor.run(store->put(id_of(n), {bytes_of(text_)}, {stream}));
  }
  void expect_chunk(uint64_t n, const std::string& text) {
    const auto got = executor.run(store->get(id_of(n), 0, kChunkSizeMax));
    ASSERT_TRUE(got) << n << ": " << got.error().to_string();
    ASSERT_EQ(got->size(), text.size()) << n;
    EXPECT_TRUE(text_of(got->view()) == text) << n;
  }
  void expect_sound() {
    const auto report = executor.run(store->fsck());
    ASSERT_TRUE(report);
    for (const auto& sentence : report->violations) ADD_FAILURE() << sentence;
  }

  SimExecutor executor;
  const Uuid cluster = {{1, 2, 3}};
  std::shared_ptr<SimDisk> disk;
  std::unique_ptr<RawStore> store;
  std::string text_;
  void TearDown() override {
    if (store) close();
  }
};

TEST_F(RawStoreTest, chunks_of_all_sizes_survive_a_reopen) {
  const std::vector<size_t> sizes = {0,     1,     100,     4095,    4096,          4097,      65535,
                                     65536, 65537, 100'000, 1 << 20, (1 << 20) + 1, 5'000'000, kChunkSizeMax};
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto result = put(i + 1, payload(i, sizes[i]));
    ASSERT_TRUE(result) << sizes[i] << ": " << result.error().to_string();
  }
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < sizes.size(); ++i) expect_chunk(i + 1, payload(i, sizes[i]));
    expect_sound();
    reopen();
    EXPECT_EQ(store->open_report().chunks, sizes.size());
    EXPECT_TRUE(store->open_report().damage.empty());
  }
}

TEST_F(RawStoreTest, removed_chunks_stay_removed_and_their_space_returns) {
  for (uint64_t n = 1; n <= 30; ++n) ASSERT_TRUE(put(n, payload(n, n % 2 == 0 ? 1 << 20 : 5000)));
  const auto before = store->space();
  std::vector<ChunkId> ids;
  for (uint64_t n = 1; n <= 30; ++n) ids.push_back(id_of(n));
  ASSERT_TRUE(executor.run(store->remove(ids)));
  ASSERT_TRUE(executor.run(store->remove(ids)));
  const auto gone = executor.run(store->get(id_of(3), 0, 10));
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code(), Code::not_found);
  EXPECT_EQ(store->space().payload_bytes, 0u);
  EXPECT_GT(store->space().free_bytes, before.free_bytes + 14 * kMiB);
  reopen();
  EXPECT_EQ(store->open_report().chunks, 0u);
  expect_sound();
}

}  // namespace
}  // namespace quarry::chunk
