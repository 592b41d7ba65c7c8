#include "io/memory_probe.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/bytes.h"

namespace quarry {
namespace {

class MemoryProbeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root = std::filesystem::path(::testing::TempDir()) /
           ("memory_probe_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(root);
    put("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root); }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  Result<MemoryReport> look() { return SystemMemoryProbe(root.string()).look(); }
  std::filesystem::path root;
};

TEST_F(MemoryProbeTest, tells_what_the_machine_has) {
  auto report = look();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->total, 16 * kGiB);
  EXPECT_EQ(report->available, 8 * kGiB);
  EXPECT_EQ(report->pressure, 0);
  put("proc/pressure/memory", "some avg10=12.50 avg60=3.00 avg300=1.00 total=5\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1\n");
  EXPECT_DOUBLE_EQ(look()->pressure, 0.125);
}

TEST_F(MemoryProbeTest, a_limit_of_any_group_above_counts) {
  put("proc/self/cgroup", "0::/outer/inner\n");
  put("sys/fs/cgroup/outer/memory.max", "2147483648\n");
  put("sys/fs/cgroup/outer/memory.current", "1610612736\n");
  put("sys/fs/cgroup/outer/memory.stat", "anon 1073741824\ninactive_file 268435456\nactive_file 268435456\nslab_reclaimable 0\n");
  put("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  put("sys/fs/cgroup/outer/inner/memory.current", "1610612736\n");
  auto report = look();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->total, 2 * kGiB);
  EXPECT_EQ(report->available, kGiB) << "pages of files can be taken back";
  put("sys/fs/cgroup/outer/inner/memory.max", "1610612736\n");
  report = look();
  EXPECT_EQ(report->total, 1536 * kMiB);
  put("sys/fs/cgroup/outer/inner/memory.high", "1342177280\n");
  EXPECT_EQ(look()->total, 1280 * kMiB) << "who takes more is slowed down";
  EXPECT_EQ(report->available, 0u);
}

TEST_F(MemoryProbeTest, version_1_limits_too) {
  put("proc/self/cgroup", "12:cpu,cpuacct:/x\n7:memory:/docker/1\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");  // as seen inside of a container: the path is that of the host
  put("sys/fs/cgroup/memory/memory.usage_in_bytes", "536870912\n");
  put("sys/fs/cgroup/memory/memory.stat", "inactive_file 0\ntotal_inactive_file 268435456\ntotal_active_file 0\n");
  auto report = look();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->total, kGiB);
  EXPECT_EQ(report->available, 768 * kMiB);
}

TEST_F(MemoryProbeTest, says_so_where_nothing_is_known) {
  std::filesystem::remove_all(root);
  EXPECT_EQ(look().error().code(), Code::unsupported);
}

}  // namespace
}  // namespace quarry
