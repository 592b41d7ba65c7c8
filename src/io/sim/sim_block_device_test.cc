#include "io/sim/sim_block_device.h"

#include <gtest/gtest.h>

#include "io/sim/sim_executor.h"

namespace quarry {
namespace {

Buffer pattern(size_t size, uint8_t value) {
  Buffer buffer(size);
  std::memset(buffer.data(), value, size);
  return buffer;
}

class SimBlockDeviceTest : public testing::Test {
 protected:
  SimBlockDeviceTest() : disk_(SimDisk::create({.size = 16 * kMiB})), device_(disk_->open()) {}
  Result<void> write(uint64_t offset, const Buffer& data, Durability durability = Durability::volatile_) {
    return executor_.run(device_->write(offset, data, durability));
  }
  Result<void> read(uint64_t offset, Buffer& into) { return executor_.run(device_->read(offset, into.mutable_view())); }
  uint8_t byte_at(uint64_t offset) {
    Buffer into(4096);
    EXPECT_TRUE(read(round_down(offset, 4096), into));
    return into.data()[offset % 4096];
  }
  SimExecutor executor_;
  std::shared_ptr<SimDisk> disk_;
  std::unique_ptr<BlockDevice> device_;
};

TEST_F(SimBlockDeviceTest, reads_back_what_was_written_and_zeros_elsewhere) {
  ASSERT_TRUE(write(8192, pattern(8192, 7)));
  EXPECT_EQ(byte_at(8191), 0);
  EXPECT_EQ(byte_at(8192), 7);
  EXPECT_EQ(byte_at(16383), 7);
  EXPECT_EQ(byte_at(16384), 0);
}

TEST_F(SimBlockDeviceTest, a_gathered_write_is_one_write_in_order) {
  const Buffer a = pattern(4096, 1), b = pattern(8192, 2);
  std::vector<ByteView> parts{a.view(), b.view()};
  ASSERT_TRUE(executor_.run(device_->write_gather(4096, std::move(parts), Durability::durable)));
  EXPECT_EQ(byte_at(4096), 1);
  EXPECT_EQ(byte_at(8192), 2);
  EXPECT_EQ(byte_at(16383), 2);
  EXPECT_EQ(disk_->stats().durable_writes, 1u);
}

TEST_F(SimBlockDeviceTest, only_what_was_flushed_or_durable_is_stable) {
  ASSERT_TRUE(write(0, pattern(4096, 1)));
  ASSERT_TRUE(executor_.run(device_->flush()));
  ASSERT_TRUE(write(4096, pattern(4096, 2)));
  ASSERT_TRUE(write(8192, pattern(4096, 3), Durability::durable));
  ASSERT_TRUE(write(8192, pattern(4096, 4)));
  const auto stable = disk_->stable_copy();
  EXPECT_EQ(stable->peek(0, 1).data()[0], 1);
  EXPECT_EQ(stable->peek(4096, 1).data()[0], 0);
  EXPECT_EQ(stable->peek(8192, 1).data()[0], 3);
  EXPECT_EQ(disk_->peek(8192, 1).data()[0], 4);
  EXPECT_EQ(disk_->unstable_writes(), 3u);
}

TEST_F(SimBlockDeviceTest, an_older_unflushed_write_never_overtakes_a_durable_one) {
  ASSERT_TRUE(write(0, pattern(4096, 1)));
  ASSERT_TRUE(write(0, pattern(4096, 2), Durability::durable));
  for (uint64_t seed = 0; seed < 50; ++seed) EXPECT_EQ(disk_->crash_image(seed)->peek(0, 1).data()[0], 2);
}

TEST_F(SimBlockDeviceTest, a_crash_keeps_drops_and_tears_unstable_writes) {
  ASSERT_TRUE(write(0, pattern(16384, 9)));
  std::set<size_t> survivors;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Buffer after = disk_->crash_image(seed)->peek(0, 16384);
    size_t landed = 0;
    for (size_t i = 0; i < after.size(); i += 512) {
      // A sector is old or new, never a mixture.
      for (size_t j = 1; j < 512; ++j) ASSERT_EQ(after.data()[i + j], after.data()[i]);
      landed += after.data()[i] == 9;
    }
    survivors.insert(landed);
  }
  EXPECT_TRUE(survivors.contains(0));
  EXPECT_TRUE(survivors.contains(32));
  EXPECT_GT(survivors.size(), 8u);
}

TEST_F(SimBlockDeviceTest, a_bad_sector_fails_reads_until_it_is_written) {
  disk_->add_bad_range(8192, 512);
  Buffer into(16384);
  const auto failed = read(0, into);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Code::io_error);
  EXPECT_NE(failed.error().context().find("8192"), std::string::npos);
  Buffer before(8192);
  EXPECT_TRUE(read(0, before));
  ASSERT_TRUE(write(8192, pattern(4096, 1)));
  EXPECT_TRUE(read(0, into));
}

TEST_F(SimBlockDeviceTest, healing_the_middle_leaves_both_ends_bad) {
  disk_->add_bad_range(0, 12288);
  ASSERT_TRUE(write(4096, pattern(4096, 1)));
  Buffer into(4096);
  EXPECT_FALSE(read(0, into));
  EXPECT_TRUE(read(4096, into));
  EXPECT_FALSE(read(8192, into));
}

TEST_F(SimBlockDeviceTest, scripted_failures_carry_their_code_and_end) {
  disk_->fail_next_writes(1, Code::no_space);
  auto result = write(0, pattern(4096, 1));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::no_space);
  EXPECT_EQ(byte_at(0), 0);
  EXPECT_TRUE(write(0, pattern(4096, 1)));
  disk_->fail_next_flushes(1);
  EXPECT_FALSE(executor_.run(device_->flush()));
  EXPECT_EQ(disk_->stable_copy()->peek(0, 1).data()[0], 0) << "a failed flush makes nothing stable";
  EXPECT_TRUE(executor_.run(device_->flush()));
  EXPECT_EQ(disk_->stable_copy()->peek(0, 1).data()[0], 1);
  disk_->fail_next_reads(1);
  Buffer into(4096);
  EXPECT_FALSE(read(0, into));
  EXPECT_TRUE(read(0, into));
}

TEST_F(SimBlockDeviceTest, a_failing_write_may_land_in_part) {
  disk_->fail_next_writes(1, Code::io_error, 1536);
  EXPECT_FALSE(write(0, pattern(4096, 5)));
  EXPECT_EQ(byte_at(1535), 5);
  EXPECT_EQ(byte_at(1536), 0);
}

TEST_F(SimBlockDeviceTest, a_lost_write_is_acknowledged_and_absent) {
  disk_->lose_next_write();
  ASSERT_TRUE(write(0, pattern(4096, 5), Durability::durable));
  EXPECT_EQ(byte_at(0), 0);
}

TEST_F(SimBlockDeviceTest, a_misdirected_write_lands_elsewhere) {
  disk_->misdirect_next_write(65536);
  ASSERT_TRUE(write(0, pattern(4096, 5), Durability::durable));
  EXPECT_EQ(byte_at(0), 0);
  EXPECT_EQ(byte_at(65536), 5);
}

TEST_F(SimBlockDeviceTest, flips_bits_and_swaps_ranges) {
  ASSERT_TRUE(write(0, pattern(4096, 0)));
  disk_->flip_bit(100, 3);
  EXPECT_EQ(byte_at(100), 8);
  disk_->swap_ranges(0, 4096, 4096);
  EXPECT_EQ(byte_at(4196), 8);
  EXPECT_EQ(byte_at(100), 0);
  disk_->set_fault_hook([](const SimRequest& request) {
    SimFault fault;
    if (request.kind == SimRequestKind::read) fault.flip_bit = 9;
    return fault;
  });
  EXPECT_EQ(byte_at(1), 2);
  disk_->set_fault_hook({});
  EXPECT_EQ(byte_at(1), 0);
}

TEST_F(SimBlockDeviceTest, a_device_that_vanishes_fails_what_is_in_flight_too) {
  disk_->set_delay(std::chrono::milliseconds(5));
  TaskGroup group;
  const Buffer data = pattern(4096, 1);
  std::optional<Result<void>> result;
  executor_.run(
      [](SimBlockDeviceTest&, BlockDevice& device, SimDisk& disk, const Buffer& bytes, std::optional<Result<void>>& out) -> Task<void> {
        TaskGroup tasks;
        tasks.spawn([](BlockDevice& d, const Buffer& b, std::optional<Result<void>>& r) -> Task<void> {
          Result<void> written = co_await d.write(0, b, Durability::durable);
          r.emplace(std::move(written));
        }(device, bytes, out));
        co_await sleep_for(std::chrono::milliseconds(1));
        disk.set_gone(true);
        co_await tasks.join();
      }(*this, *device_, *disk_, data, result));
  ASSERT_TRUE(result && !*result);
  EXPECT_EQ(result->error().code(), Code::device_gone);
  disk_->set_gone(false);
  EXPECT_EQ(byte_at(0), 0);
}

TEST_F(SimBlockDeviceTest, slow_is_virtual_time) {
  disk_->set_delay(std::chrono::seconds(30));
  const auto before = executor_.now();
  ASSERT_TRUE(write(0, pattern(4096, 1)));
  EXPECT_EQ(executor_.now() - before, std::chrono::seconds(30));
  EXPECT_EQ(device_->stats().write_ns, 30'000'000'000u);
}

TEST_F(SimBlockDeviceTest, refuses_what_a_real_device_refuses) {
  const Buffer data = pattern(8192, 1);
  EXPECT_EQ(executor_.run(device_->write(16 * kMiB - 4096, data, Durability::durable)).error().code(), Code::out_of_range);
  EXPECT_EQ(executor_.run(device_->write(512, data, Durability::durable)).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor_.run(device_->write(0, data.view().subspan(512, 4096), Durability::durable)).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor_.run(device_->write(UINT64_MAX - 4095, data, Durability::durable)).error().code(), Code::out_of_range);
  disk_->set_read_only(true);
  EXPECT_EQ(executor_.run(device_->write(0, data, Durability::durable)).error().code(), Code::read_only);
  disk_->set_read_only(false);
  disk_->set_space_limit(4096);
  EXPECT_EQ(executor_.run(device_->write(0, data, Durability::durable)).error().code(), Code::no_space);
}

TEST_F(SimBlockDeviceTest, discarded_space_reads_as_garbage_and_costs_nothing) {
  ASSERT_TRUE(write(0, pattern(8192, 1)));
  ASSERT_TRUE(executor_.run(device_->discard(0, 8 * kMiB)));
  EXPECT_EQ(byte_at(0), 0xdb);
  EXPECT_EQ(byte_at(8 * kMiB - 1), 0xdb);
  EXPECT_EQ(byte_at(8 * kMiB), 0);
  EXPECT_EQ(disk_->stable_copy()->peek(0, 1).data()[0], 0) << "a discard is no flush";
}

TEST_F(SimBlockDeviceTest, a_closed_device_refuses_and_the_disk_opens_again_and_grows) {
  ASSERT_TRUE(write(0, pattern(4096, 1)));
  executor_.run(device_->close());
  EXPECT_EQ(write(0, pattern(4096, 2)).error().code(), Code::device_gone);
  device_ = disk_->open();
  EXPECT_EQ(byte_at(0), 1);
  disk_->grow(32 * kMiB);
  EXPECT_EQ(device_->info().size, 16 * kMiB);
  EXPECT_EQ(*executor_.run(device_->refresh_size()), 32 * kMiB);
  EXPECT_TRUE(write(31 * kMiB, pattern(4096, 3)));
}

TEST_F(SimBlockDeviceTest, misuse_stops_the_program) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  disk_->set_delay(std::chrono::milliseconds(1));
  Buffer data = pattern(4096, 1);
  EXPECT_DEATH(executor_.run([](BlockDevice& device, Buffer& bytes) -> Task<void> {
    TaskGroup tasks;
    tasks.spawn([](BlockDevice& d, Buffer& b) -> Task<void> {
      Result<void> written = co_await d.write(0, b, Durability::durable);
      std::move(written).ignore("the test dies");
    }(device, bytes));
    bytes.data()[5] = 77;
    co_await tasks.join();
  }(*device_, data)),
               "changed while it was in flight");
  EXPECT_DEATH(disk_->open(), "already open");
}

TEST(PageImage, copies_share_until_written_and_compare_by_content) {
  PageImage a(4 * kMiB);
  a.write(100, bytes_of("hello"));
  PageImage b = a;
  EXPECT_TRUE(a == b);
  b.write(3 * kMiB - 2, bytes_of("four"));
  EXPECT_FALSE(a == b);
  Buffer out(5);
  a.read(3 * kMiB - 2, out.mutable_view().first(4));
  EXPECT_EQ(out.data()[0], 0);
  b.read(100, out.mutable_view());
  EXPECT_EQ(text_of(out), "hello");
  b.fill(0, 4 * kMiB, 0);
  EXPECT_EQ(b.allocated_bytes(), 0u);
  a.resize(102);
  a.resize(4096);
  a.read(100, out.mutable_view());
  EXPECT_EQ(text_of(out), std::string_view("he\0\0\0", 5));
}

}  // namespace
}  // namespace quarry
