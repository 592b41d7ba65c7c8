#include "io/uring_block_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "io/needs_ring.h"

namespace quarry {
namespace {

Buffer pattern(size_t size, uint64_t seed) {
  Buffer buffer(size);
  for (size_t i = 0; i < size; i += 8) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    std::memcpy(buffer.data() + i, &seed, 8);
  }
  return buffer;
}
bool same(ByteView a, ByteView b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0; }

class UringBlockDeviceTest : public NeedsRing {
 protected:
  void SetUp() override {
    NeedsRing::SetUp();
    if (IsSkipped()) return;
    // Not tmpfs: O_DIRECT is to be real.
    std::string name = "/var/tmp/quarry-device-test-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ + "/drive";
    auto executor = RingExecutor::create();
    ASSERT_TRUE(executor) << executor.error().to_string();
    executor_ = std::move(*executor);
    const auto created = create_file_device(path_, 64 * kMiB);
    ASSERT_TRUE(created) << created.error().to_string();
    device_ = open();
    ASSERT_NE(device_, nullptr);
  }
  void TearDown() override {
    if (device_) executor_->run(device_->close());
    device_.reset();
    executor_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
    NeedsRing::TearDown();
  }
  std::unique_ptr<BlockDevice> open() {
    auto device = executor_->run(UringBlockDevice::open(path_));
    if (!device) {
      ADD_FAILURE() << device.error().to_string();
      return nullptr;
    }
    return std::move(*device);
  }
  std::string folder_, path_;
  std::unique_ptr<RingExecutor> executor_;
  std::unique_ptr<BlockDevice> device_;
};

TEST_F(UringBlockDeviceTest, the_file_is_sparse_and_of_exactly_the_size) {
  struct stat status{};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 64 * 1024 * 1024);
  EXPECT_LT(status.st_blocks * 512, 1024 * 1024);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(device_->info().size, 64 * kMiB);
  EXPECT_EQ(device_->info().drive_class, DriveClass::file);
  EXPECT_EQ(create_file_device(path_, kMiB).error().code(), Code::already_exists);
}

TEST_F(UringBlockDeviceTest, reads_back_durable_plain_gathered_and_unregistered_writes) {
  const Buffer a = pattern(kMiB, 1), b = pattern(64 * kKiB, 2), c = pattern(4096, 3);
  const Buffer huge = pattern(9 * kMiB, 4);  // from the heap: beyond the arena's classes
  ASSERT_TRUE(executor_->run(device_->write(0, a, Durability::durable)));
  ASSERT_TRUE(executor_->run(device_->write(8 * kMiB, huge, Durability::volatile_)));
  std::vector<ByteView> parts{c.view(), b.view(), c.view()};
  ASSERT_TRUE(executor_->run(device_->write_gather(2 * kMiB, std::move(parts), Durability::durable)));
  ASSERT_TRUE(executor_->run(device_->flush()));
  Buffer into(kMiB);
  ASSERT_TRUE(executor_->run(device_->read(0, into.mutable_view())));
  EXPECT_TRUE(same(into, a));
  ASSERT_TRUE(executor_->run(device_->read(2 * kMiB, into.mutable_view())));
  EXPECT_TRUE(same(into.view().subspan(0, 4096), c));
  EXPECT_TRUE(same(into.view().subspan(4096, b.size()), b));
  EXPECT_TRUE(same(into.view().subspan(4096 + b.size(), 4096), c));
  Buffer large(9 * kMiB);
  ASSERT_TRUE(executor_->run(device_->read(8 * kMiB, large.mutable_view())));
  EXPECT_TRUE(same(large, huge));
  const DeviceStats stats = device_->stats();
  EXPECT_EQ(stats.reads, 3u);
  EXPECT_EQ(stats.writes, 3u);
  EXPECT_EQ(stats.flushes, 1u);
  EXPECT_EQ(stats.bytes_written, a.size() + huge.size() + b.size() + 2 * c.size());
  EXPECT_GT(stats.write_ns, 0u);
  EXPECT_EQ(stats.in_flight, 0u);
}

TEST_F(UringBlockDeviceTest, many_requests_overlap) {
  const int bad = executor_->run([](BlockDevice& device) -> Task<int> {
    int failures = 0;
    TaskGroup group;
    for (uint64_t i = 0; i < 600; ++i) {
      group.spawn([](BlockDevice& d, uint64_t block, int& count) -> Task<void> {
        const Buffer data = pattern(4096, block);
        Result<void> written = co_await d.write(block * 4096, data, Durability::volatile_);
        Buffer into(4096);
        Result<void> got = co_await d.read(block * 4096, into.mutable_view());
        count += !written || !got || !same(into, data);
      }(device, i, failures));
    }
    co_await group.join();
    co_return failures;
  }(*device_));
  EXPECT_EQ(bad, 0);
  EXPECT_GT(device_->stats().in_flight_max, 100u);
}

TEST_F(UringBlockDeviceTest, a_second_opener_is_told_so) {
  const auto second = executor_->run(UringBlockDevice::open(path_));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::busy);
  EXPECT_NE(second.error().context().find("already open by another process"), std::string::npos);
  executor_->run(device_->close());
  EXPECT_EQ(executor_->run(device_->flush()).error().code(), Code::device_gone);
  device_ = open();
  EXPECT_NE(device_, nullptr);
}

TEST_F(UringBlockDeviceTest, refuses_what_cannot_be_done) {
  const Buffer data = pattern(8192, 1);
  EXPECT_EQ(executor_->run(device_->write(64 * kMiB - 4096, data, Durability::durable)).error().code(), Code::out_of_range);
  EXPECT_EQ(executor_->run(device_->write(512, data, Durability::durable)).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor_->run(device_->write(0, data.view().subspan(512, 4096), Durability::durable)).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor_->run(UringBlockDevice::open(folder_)).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor_->run(UringBlockDevice::open(folder_ + "/absent")).error().code(), Code::not_found);
  executor_->run(device_->close());
  auto reader = executor_->run(UringBlockDevice::open(path_, {.read_only = true}));
  ASSERT_TRUE(reader);
  EXPECT_EQ(executor_->run((*reader)->write(0, data, Durability::durable)).error().code(), Code::read_only);
  executor_->run((*reader)->close());
}

TEST_F(UringBlockDeviceTest, discard_gives_space_back_and_a_grown_file_is_seen) {
  const Buffer data = pattern(8 * kMiB, 1);
  ASSERT_TRUE(executor_->run(device_->write(0, data, Durability::durable)));
  struct stat before{}, after{};
  ASSERT_EQ(stat(path_.c_str(), &before), 0);
  ASSERT_TRUE(executor_->run(device_->discard(0, 8 * kMiB)));
  ASSERT_EQ(stat(path_.c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  Buffer into(4096);
  ASSERT_TRUE(executor_->run(device_->read(kMiB, into.mutable_view())));
  EXPECT_EQ(into.data()[0], 0);
  ASSERT_EQ(truncate(path_.c_str(), 128 * 1024 * 1024), 0);
  EXPECT_EQ(*executor_->run(device_->refresh_size()), 128 * kMiB);
  EXPECT_TRUE(executor_->run(device_->write(127 * kMiB, into, Durability::durable)));
}

TEST_F(UringBlockDeviceTest, a_truncated_file_is_an_error_not_zeros) {
  ASSERT_EQ(truncate(path_.c_str(), 32 * 1024 * 1024), 0);
  Buffer into(kMiB);
  const auto result = executor_->run(device_->read(40 * kMiB, into.mutable_view()));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::io_error);
}

TEST_F(UringBlockDeviceTest, close_waits_for_what_is_in_flight) {
  const bool written = executor_->run([](BlockDevice& device) -> Task<bool> {
    const Buffer data = pattern(4 * kMiB, 5);
    bool ok = false;
    TaskGroup group;
    group.spawn([](BlockDevice& d, const Buffer& bytes, bool& out) -> Task<void> {
      Result<void> result = co_await d.write(0, bytes, Durability::durable);
      out = result.has_value();
    }(device, data, ok));
    co_await device.close();
    const bool at_close = ok;
    co_await group.join();
    co_return at_close || ok;
  }(*device_));
  EXPECT_TRUE(written);
}

}  // namespace
}  // namespace quarry
