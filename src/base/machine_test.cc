#include "base/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/bytes.h"

namespace quarry {
namespace {

class Machine : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "quarry-machine-" + std::to_string(::getpid());
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << '\n';
  }
  MachineLimits limits() const { return machine_limits_below(root_, {.memory_bytes = 64 * kGiB, .processors = 16}); }
  std::string root_;
};

TEST_F(Machine, without_control_groups_it_is_the_whole_machine) {
  EXPECT_EQ(limits().memory_bytes, 64 * kGiB);
  EXPECT_EQ(limits().processors, 16u);
  EXPECT_GT(machine_limits().memory_bytes, 0u);
  EXPECT_GE(machine_limits().processors, 1u);
}

TEST_F(Machine, the_least_of_all_groups_above_counts) {
  write("/proc/self/cgroup", "0::/system.slice/quarry.service");
  write("/sys/fs/cgroup/system.slice/memory.max", "2147483648");
  write("/sys/fs/cgroup/system.slice/quarry.service/memory.max", "max");
  write("/sys/fs/cgroup/system.slice/quarry.service/memory.high", "4294967296");
  write("/sys/fs/cgroup/system.slice/quarry.service/cpu.max", "150000 100000");
  EXPECT_EQ(limits().memory_bytes, 2 * kGiB);
  EXPECT_EQ(limits().processors, 2u);
}

TEST_F(Machine, a_container_sees_its_own_group_as_the_root) {
  write("/proc/self/cgroup", "0::/");
  write("/sys/fs/cgroup/memory.max", "1073741824");
  write("/sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT_EQ(limits().memory_bytes, kGiB);
  EXPECT_EQ(limits().processors, 16u);
}

TEST_F(Machine, groups_of_version_1_count_too) {
  write("/proc/self/cgroup", "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:freezer:/docker/abc");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912");
  write("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
  EXPECT_EQ(limits().memory_bytes, 512 * kMiB);
  EXPECT_EQ(limits().processors, 1u);
}

}  // namespace
}  // namespace quarry
