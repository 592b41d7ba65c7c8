// The whole-device path of UringBlockDevice, on a loop device: O_EXCL, probing of sysfs, TRIM through the ring, growth. Needs the
// right to make loop devices; where there is none (an unprivileged container) these tests say so and are skipped.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "io/needs_ring.h"
#include "io/uring_block_device.h"

namespace quarry {
namespace {

class LoopDeviceTest : public NeedsRing {
 protected:
  void SetUp() override {
    NeedsRing::SetUp();
    if (IsSkipped()) return;
    std::string name = "/var/tmp/quarry-loop-test-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    file_ = folder_ + "/backing";
    ASSERT_TRUE(create_file_device(file_, 64 * kMiB));
    if (!attach()) GTEST_SKIP() << "cannot make a loop device here: " << strerror(errno);
    auto executor = RingExecutor::create();
    ASSERT_TRUE(executor) << executor.error().to_string();
    executor_ = std::move(*executor);
  }
  void TearDown() override {
    executor_.reset();
    if (loop_ >= 0) {
      ioctl(loop_, LOOP_CLR_FD, 0);
      ::close(loop_);
    }
    if (backing_ >= 0) ::close(backing_);
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
    NeedsRing::TearDown();
  }
  bool attach() {
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) return false;
    backing_ = ::open(file_.c_str(), O_RDWR | O_CLOEXEC);
    // Another process may take the number between the two calls.
    for (int tries = 0; tries < 10 && loop_ < 0; ++tries) {
      const int number = ioctl(control, LOOP_CTL_GET_FREE);
      if (number < 0) break;
      device_path_ = fmt::format("/dev/loop{}", number);
      const int fd = ::open(device_path_.c_str(), O_RDWR | O_CLOEXEC);
      if (fd < 0) break;
      if (ioctl(fd, LOOP_SET_FD, backing_) == 0) {
        loop_ = fd;
      } else {
        ::close(fd);
      }
    }
    ::close(control);
    return loop_ >= 0;
  }
  std::unique_ptr<BlockDevice> open() {
    auto device = executor_->run(UringBlockDevice::open(device_path_));
    if (!device) {
      ADD_FAILURE() << device.error().to_string();
      return nullptr;
    }
    return std::move(*device);
  }
  std::string folder_, file_, device_path_;
  int backing_ = -1, loop_ = -1;
  std::unique_ptr<RingExecutor> executor_;
};

TEST_F(LoopDeviceTest, is_probed_opened_once_written_and_read) {
  auto device = open();
  ASSERT_NE(device, nullptr);
  EXPECT_EQ(device->info().size, 64 * kMiB);
  EXPECT_EQ(device->info().block_size, 4096u);
  EXPECT_NE(device->info().drive_class, DriveClass::file);
  EXPECT_GE(device->info().atomic_write, 512u);
  const auto second = executor_->run(UringBlockDevice::open(device_path_));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::busy);
  Buffer data(kMiB);
  for (size_t i = 0; i < data.size(); ++i) data.data()[i] = static_cast<uint8_t>(i * 31 >> 8);
  ASSERT_TRUE(executor_->run(device->write(4096, data, Durability::durable)));
  ASSERT_TRUE(executor_->run(device->flush()));
  Buffer back(kMiB);
  ASSERT_TRUE(executor_->run(device->read(4096, back.mutable_view())));
  EXPECT_EQ(std::memcmp(back.data(), data.data(), data.size()), 0);
  executor_->run(device->close());
  device = open();
  ASSERT_NE(device, nullptr) << "a closed device can be opened again at once";
  executor_->run(device->close());
}

TEST_F(LoopDeviceTest, discard_reaches_the_backing_file) {
  auto device = open();
  ASSERT_NE(device, nullptr);
  if (!device->info().supports_discard) GTEST_SKIP() << "the file system below has no holes";
  Buffer data(8 * kMiB);
  std::memset(data.data(), 1, data.size());
  ASSERT_TRUE(executor_->run(device->write(0, data, Durability::durable)));
  struct stat before{}, after{};
  ASSERT_EQ(fstat(backing_, &before), 0);
  ASSERT_TRUE(executor_->run(device->discard(0, 8 * kMiB)));
  ASSERT_TRUE(executor_->run(device->flush()));
  ASSERT_EQ(fsync(backing_), 0);
  ASSERT_EQ(fstat(backing_, &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  executor_->run(device->close());
}

TEST_F(LoopDeviceTest, growth_is_seen_after_a_refresh) {
  auto device = open();
  ASSERT_NE(device, nullptr);
  ASSERT_EQ(truncate(file_.c_str(), 96 * 1024 * 1024), 0);
  ASSERT_EQ(ioctl(loop_, LOOP_SET_CAPACITY, 0), 0);
  EXPECT_EQ(*executor_->run(device->refresh_size()), 96 * kMiB);
  Buffer data(4096);
  std::memset(data.data(), 9, data.size());
  EXPECT_TRUE(executor_->run(device->write(95 * kMiB, data, Durability::durable)));
  executor_->run(device->close());
}

TEST_F(LoopDeviceTest, a_device_that_vanished_is_gone_not_a_bad_sector_and_not_full) {
  auto device = open();
  ASSERT_NE(device, nullptr);
  // As if pulled out: the capacity becomes zero under the open device.
  ASSERT_EQ(ftruncate(backing_, 0), 0);
  ASSERT_EQ(ioctl(loop_, LOOP_SET_CAPACITY, 0), 0);
  Buffer into(4096);
  const auto result = executor_->run(device->read(8192, into.mutable_view()));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::device_gone) << result.error().to_string();
  for (const Durability durability : {Durability::volatile_, Durability::durable}) {
    const auto written = executor_->run(device->write(8192, into, durability));
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code(), Code::device_gone) << written.error().to_string();
  }
  const auto gathered = executor_->run(device->write_gather(8192, {into.view(), into.view()}, Durability::durable));
  ASSERT_FALSE(gathered);
  EXPECT_EQ(gathered.error().code(), Code::device_gone) << gathered.error().to_string();
  executor_->run(device->close());
}

}  // namespace
}  // namespace quarry
