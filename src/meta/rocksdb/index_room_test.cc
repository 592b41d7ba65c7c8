// Starts while the file system of the index is full to the last byte: the index may be lost, so the store starts.
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "meta/crash_fixture.h"

namespace quarry::meta {
namespace {

class IndexWithoutRoom : public RocksdbCrash {
 protected:
  void SetUp() override {
    if (::mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, "size=24m") != 0) GTEST_SKIP() << "mounting is not permitted here";
    mounted_ = true;
    options_.spare_directories = {"/nowhere", directory_.path(), spare_.path()};
    options_.checkpoint_at_close_bytes = 0;
  }
  void TearDown() override {
    RocksdbCrash::TearDown();
    if (mounted_) ::umount2(directory_.path().c_str(), MNT_DETACH);
  }
  std::string ballast() const { return directory_.path() + "/somebody-elses"; }
  void take_all_room() {
    std::ofstream out(ballast(), std::ios::binary | std::ios::app);
    for (const size_t size : {size_t{64 << 10}, size_t{1}}) {
      const std::string block(size, 'x');
      while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
      }
      out.clear();
    }
    struct statvfs space{};
    ASSERT_EQ(::statvfs(directory_.path().c_str(), &space), 0);
    ASSERT_EQ(space.f_bavail, 0u);
  }
  bool spare_is_used() const { return !fs::is_empty(spare_.path()); }

  TemporaryDirectory spare_;
  bool mounted_ = false;
};

TEST_F(IndexWithoutRoom, starts_elsewhere_and_says_so) {
  for (const bool checkpointed : {false, true}) {
    open();
    fill(filled_, filled_ + 50);
    if (checkpointed) checkpoint();
    fill(filled_, filled_ + 50);
    close();
    take_all_room();
    for (int again = 0; again < 2; ++again) {
      open();
      EXPECT_TRUE(spare_is_used());
      EXPECT_NE(store_->stats().index_trouble.find(spare_.path()), std::string::npos) << store_->stats().index_trouble;
      expect_filled();
      fill(filled_, filled_ + 100);
      checkpoint();
      expect_filled();
      if (again == 0) {
        kill();
      } else {
        close();
      }
      EXPECT_FALSE(spare_is_used());
    }
    fs::remove(ballast());
    open();  // the index in its own place is behind the log: it is replaced
    EXPECT_EQ(store_->stats().index_trouble, "");
    EXPECT_FALSE(spare_is_used());
    expect_filled();
    close();
  }
}

TEST_F(IndexWithoutRoom, starts_in_its_own_place_with_the_room_that_was_kept) {
  options_.reserve_bytes = 8u << 20;
  open();
  fill(0, 50);
  close();
  take_all_room();
  open();
  EXPECT_EQ(store_->status().opened_by, "directory");
  EXPECT_EQ(store_->stats().index_trouble, "");
  expect_filled();
  fill(50, 60);
  close();
}

TEST_F(IndexWithoutRoom, starts_elsewhere_where_not_even_a_directory_can_be_made) {
  ASSERT_EQ(::mount("tmpfs", directory_.path().c_str(), "tmpfs", MS_REMOUNT, "size=24m,nr_inodes=200"), 0);
  open();
  fill(0, 50);
  checkpoint();
  fill(50, 60);
  kill();
  fs::remove_all(path() + "/db");
  for (int i = 0; std::ofstream(fmt::format("{}/{}", directory_.path(), i)); ++i) ASSERT_LT(i, 1000);
  open();
  EXPECT_EQ(store_->status().opened_by, "checkpoint");
  EXPECT_TRUE(spare_is_used());
  expect_filled();
  close();
}

TEST_F(IndexWithoutRoom, refuses_where_there_is_none_anywhere) {
  open();
  fill(0, 50);
  close();
  take_all_room();
  options_.spare_directories = {directory_.path()};
  const auto refused = try_open();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::no_space) << refused.error().to_string();
  EXPECT_NE(refused.error().to_string().find("no other file system"), std::string::npos) << refused.error().to_string();
  fs::remove(ballast());
  open();
  expect_filled();
  close();
}

}  // namespace
}  // namespace quarry::meta
