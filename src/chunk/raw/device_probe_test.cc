#include "chunk/raw/device_probe.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "chunk/raw/raw_store.h"
#include "chunk/test_payload.h"
#include "io/ring_executor.h"
#include "io/uring_block_device.h"

namespace quarry::chunk {
namespace {

class DeviceProbe : public testing::Test {
 protected:
  void SetUp() override {
    directory = "/var/tmp/quarry-probe-XXXXXX";
    ASSERT_NE(::mkdtemp(directory.data()), nullptr);
    path = directory + "/drive";
    ASSERT_TRUE(create_file_device(path, 64 * kMiB));
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  void write(uint64_t offset, std::string_view bytes) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)), static_cast<ssize_t>(bytes.size()));
    ::close(fd);
  }
  std::string directory, path;
};

TEST_F(DeviceProbe, an_empty_file_carries_nothing) {
  const auto content = probe_device(path);
  ASSERT_TRUE(content) << content.error().to_string();
  EXPECT_FALSE(*content);
  const auto missing = probe_device(path + "x");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Code::not_found);
}

TEST_F(DeviceProbe, a_partition_table_is_seen) {
  std::string sector(512, '\0');
  sector[446 + 4] = '\x83';  // one Linux partition from sector 2048 of 1000
  sector[446 + 8 + 1] = 8;
  sector[446 + 12] = '\xe8';
  sector[446 + 13] = 3;
  sector[510] = '\x55';
  sector[511] = '\xaa';
  write(0, sector);
  const auto content = probe_device(path);
  ASSERT_TRUE(content);
  ASSERT_TRUE(*content);
  EXPECT_EQ((*content)->kind, "partition table");
  EXPECT_EQ((*content)->type, "dos");
}

TEST_F(DeviceProbe, swap_space_is_seen) {
  std::string header(4096, '\0');
  header[1024] = 1;                              // version
  header[1028] = '\xff';                         // last page
  header.replace(1036, 16, "0123456789abcdef");  // uuid
  header.replace(4086, 10, "SWAPSPACE2");
  write(0, header);
  const auto content = probe_device(path);
  ASSERT_TRUE(content);
  ASSERT_TRUE(*content);
  EXPECT_EQ((*content)->type, "swap");
}

TEST_F(DeviceProbe, our_own_store_is_seen_and_works_on_a_real_file) {
  auto ring = RingExecutor::create();
  if (!ring) GTEST_SKIP() << ring.error().to_string();
  RingExecutor& executor = **ring;
  {
    auto device = executor.run(UringBlockDevice::open(path));
    ASSERT_TRUE(device) << device.error().to_string();
    ASSERT_TRUE(executor.run(RawStore::format(**device, {.cluster = {{5}}})));
    executor.run((*device)->close());
  }
  const auto content = probe_device(path);
  ASSERT_TRUE(content);
  ASSERT_TRUE(*content);
  EXPECT_EQ((*content)->kind, "quarry store");
  for (int round = 0; round < 2; ++round) {
    auto device = executor.run(UringBlockDevice::open(path));
    ASSERT_TRUE(device);
    auto twice = executor.run(UringBlockDevice::open(path));
    EXPECT_FALSE(twice) << "opened twice";
    auto store = executor.run(RawStore::open(std::move(*device), {}));
    ASSERT_TRUE(store) << store.error().to_string();
    for (uint64_t n = 0; n < 40; ++n) {
      const size_t size = n % 4 == 0 ? 300'000 + n : n * 500;
      const std::string text = test_payload(n, size);
      if (round == 0) {
        const auto put = executor.run((*store)->put({1, n}, {bytes_of(text)}, {}));
        ASSERT_TRUE(put) << put.error().to_string();
      }
      auto got = executor.run((*store)->get({1, n}, 0, kChunkSizeMax));
      ASSERT_TRUE(got) << got.error().to_string();
      EXPECT_TRUE(text_of(got->view()) == text);
    }
    ASSERT_TRUE(executor.run((*store)->close()));
  }
}

TEST_F(DeviceProbe, the_machines_devices_can_be_listed) {
  const auto devices = list_devices();
  ASSERT_TRUE(devices) << devices.error().to_string();
  for (const auto& device : *devices) {
    EXPECT_TRUE(device.path.starts_with("/dev/"));
    EXPECT_GT(device.size, 0u);
  }
}

}  // namespace
}  // namespace quarry::chunk
