// Which drives are taken back by themselves. On directories of a temporary folder, with a data plane that notes what it is asked for.
#include "daemon/returning_drives.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>

#include "chunk/dir/dir_store.h"
#include "daemon/drives.h"
#include "daemon/testing/folder_and_loop.h"

namespace quarry::daemon {
namespace {

namespace fs = std::filesystem;

class Plane final : public cluster::DataPlane {
 public:
  Result<std::unique_ptr<cluster::DataWriter>> begin_write(const cluster::WriteOptions&) override { return unused(); }
  std::unique_ptr<cluster::DataReader> read(const cluster::DataLayout&, uint64_t, uint64_t, cluster::CachePolicy) override {
    return nullptr;
  }
  void record(meta::Transaction&, const cluster::DataLayout&, std::string) override {}
  void retire(meta::Transaction&, const cluster::DataLayout&) override {}
  void retired() override {}
  std::vector<cluster::DriveStatus> drives() const override { return list; }
  cluster::RepairStatus repair_status() const override { return {}; }
  cluster::ScrubStatus scrub_status() const override { return {}; }
  cluster::SpaceStatus space_status() const override { return {}; }
  cluster::CacheStatus cache_status() const override { return {}; }
  Task<Result<void>> add_drive(std::string, bool) override { co_return unused(); }
  Task<Result<void>> drain_drive(uint32_t) override { co_return unused(); }
  Task<Result<void>> remove_drive(uint32_t, bool) override { co_return unused(); }
  Task<Result<void>> replace_drive(uint32_t, std::string, bool) override { co_return unused(); }
  Task<Result<void>> take_back_drive(uint32_t number, std::string) override {
    taken.push_back(number);
    ++asked;
    co_return Result<void>();
  }
  Task<Result<void>> start_scrub() override { co_return unused(); }
  Task<Result<FsckReport>> fsck(bool) override { co_return unused(); }

  std::vector<cluster::DriveStatus> list;
  std::vector<uint32_t> taken;  // of the loop's thread
  std::atomic<int> asked{0};

 private:
  static Error unused() { return fail(Code::unsupported, "not asked for here"); }
};

class Returning : public FolderAndLoop {
 protected:
  // A drive that lies there, ready to be opened.
  void add(std::string state, std::string_view cause) {
    const auto number = static_cast<uint32_t>(plane_.list.size() + 1);
    const std::string path = root_ + "/" + std::to_string(number);
    const auto id = wait_on(loop(), chunk::DirStore::format(path, {.cluster = system_random().uuid()}));
    ASSERT_TRUE(id) << id.error().to_string();
    plane_.list.push_back({.number = number, .id = *id, .path = "dir:" + path, .state = std::move(state), .cause = cause});
  }
  Plane plane_;
};

// It would be taken from the other node, which would take it back.
TEST_F(Returning, a_drive_that_another_node_has_opened_is_left_to_it) {
  add("missing", "taken");
  add("failed", "taken");
  add("disabled", "");
  add("active", "");
  add("failed", "forced");
  add("missing", "replaced");
  add("failed", "");
  add("missing", "away");
  add("failed", "away");
  {
    ReturningDrives returning(loop(), plane_);
    for (int i = 0; i < 3000 && plane_.asked < 2; ++i) ::usleep(10'000);  // drives are looked at in turn: the last two of all
    returning.stop();
  }
  EXPECT_EQ(plane_.taken, (std::vector<uint32_t>{8, 9}));
}

}  // namespace
}  // namespace quarry::daemon
