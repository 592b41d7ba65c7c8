// Which drives a start opens, formats, and leaves alone. On directories of a temporary folder: what is decided is the same for every kind.
#include "daemon/drives.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "chunk/dir/dir_store.h"
#include "chunk/fencing.h"
#include "cluster/map/chunk_ids.h"
#include "daemon/mount_notes.h"
#include "daemon/sizes.h"
#include "daemon/testing/folder_and_loop.h"

namespace quarry::daemon {
namespace {

namespace fs = std::filesystem;

class Drives : public FolderAndLoop {
 protected:
  std::string at(const std::string& name) const { return "dir:" + root_ + "/" + name; }
  Uuid format(const std::string& name, Uuid cluster) {
    auto drive = wait_on(loop(), chunk::DirStore::format(root_ + "/" + name, {.cluster = cluster}));
    EXPECT_TRUE(drive) << drive.error().to_string();
    return drive ? *drive : Uuid{};
  }
  bool is_formatted(const std::string& name) const { return fs::exists(root_ + "/" + name + "/.quarry/descriptor"); }
  Uuid store_of(const std::string& name) const {
    const auto identity = chunk::DirStore::identify(root_ + "/" + name);
    return identity ? identity->cluster : Uuid{};
  }
  StartRules rules() {
    StartRules rules;
    rules.begin_creation = [this](const Uuid& store) -> Result<void> {
      begun_.push_back(store);
      return {};
    };
    return rules;
  }
  StartRules rules_after(RootMemory::Stage stage, Uuid store) {
    StartRules after = rules();
    after.memory = {.stage = stage, .store = store, .drives = {}};
    return after;
  }
  // Opens, and closes again.
  Result<OpenedDrives> open(const std::vector<std::string>& names, StartRules rules) {
    std::vector<DriveToOpen> drives;
    for (const auto& name : names) drives.push_back({at(name), &loop()});
    Result<OpenedDrives> opened = wait_on(loop(), open_drives(std::move(drives), std::move(rules)));
    if (!opened) return opened;
    for (auto& drive : opened->drives) {
      const Result<void> closed = wait_on(loop(), [](chunk::ChunkStore* store) { return store->close(); }(drive.store.get()));
      EXPECT_TRUE(closed);
      wait_on(loop(), [](std::unique_ptr<chunk::ChunkStore>* store) -> Task<void> {
        store->reset();
        co_return;
      }(&drive.store));
    }
    return opened;
  }
  void put(const std::string& name, ChunkId id) {
    auto store = wait_on(loop(), chunk::DirStore::open(root_ + "/" + name, {}));
    ASSERT_TRUE(store) << store.error().to_string();
    const std::string text = "bytes";
    const Result<void> done = wait_on(loop(), [](chunk::ChunkStore* to, ChunkId chunk, const std::string* bytes) -> Task<Result<void>> {
      std::vector<ByteView> parts{bytes_of(*bytes)};
      CO_TRY(co_await to->put(chunk, std::move(parts), {}));
      co_return co_await to->close();
    }(store->get(), id, &text));
    ASSERT_TRUE(done) << done.error().to_string();
    wait_on(loop(), [](std::unique_ptr<chunk::DirStore>* of) -> Task<void> {
      of->reset();
      co_return;
    }(&*store));
  }

  const Uuid store_ = system_random().uuid(), other_ = system_random().uuid();
  std::vector<Uuid> begun_;
  OwnedDrives owned_;
};

TEST_F(Drives, a_root_remembers_its_store_and_how_far_it_came) {
  auto memory = read_root_memory(root_);
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->stage, RootMemory::Stage::nothing);
  for (const auto stage : {RootMemory::Stage::creating, RootMemory::Stage::made}) {
    ASSERT_TRUE(write_root_memory(root_, {.stage = stage, .store = store_, .drives = {"/dev/sda", "dir:/mnt/a"}}));
    memory = read_root_memory(root_);
    ASSERT_TRUE(memory);
    EXPECT_EQ(memory->stage, stage);
    EXPECT_EQ(memory->store, store_);
    EXPECT_EQ(memory->drives, (std::vector<std::string>{"/dev/sda", "dir:/mnt/a"}));
  }
  std::ofstream(root_ + "/drives.list") << "# by an earlier program\n/dev/sda\n";
  memory = read_root_memory(root_);
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->stage, RootMemory::Stage::made);
  EXPECT_TRUE(memory->store.is_nil());
}

TEST_F(Drives, a_new_store_is_announced_before_anything_is_formatted) {
  StartRules refusing = rules();
  refusing.begin_creation = [](const Uuid&) -> Result<void> { return fail(Code::no_space, "the root is full"); };
  EXPECT_EQ(open({"a", "b"}, std::move(refusing)).error().code(), Code::no_space);
  EXPECT_FALSE(is_formatted("a") || is_formatted("b"));
  const auto opened = open({"a", "b"}, rules());
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_TRUE(opened->fresh);
  EXPECT_EQ(begun_, std::vector<Uuid>{opened->cluster});
  EXPECT_EQ(store_of("a"), opened->cluster);
}

TEST_F(Drives, a_root_that_had_a_store_gets_no_other_one_unless_it_is_told) {
  fs::create_directories(root_ + "/a");
  for (StartRules remembers : {rules_after(RootMemory::Stage::made, store_), rules_after(RootMemory::Stage::made, Uuid{})}) {
    EXPECT_EQ(open({"a", "b"}, remembers).error().code(), Code::misconfigured);
  }
  StartRules index = rules();
  index.has_index = true;
  EXPECT_EQ(open({"a", "b"}, index).error().code(), Code::misconfigured);
  EXPECT_TRUE(begun_.empty());
  EXPECT_FALSE(is_formatted("a") || is_formatted("b"));
  StartRules told = rules_after(RootMemory::Stage::made, store_);
  told.force = true;
  const auto opened = open({"a", "b"}, told);
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_NE(opened->cluster, store_);
}

TEST_F(Drives, an_offline_check_makes_nothing) {
  StartRules offline = rules();
  offline.may_create = false;
  EXPECT_EQ(open({"a"}, offline).error().code(), Code::not_found);
  format("b", store_);
  offline = rules_after(RootMemory::Stage::creating, store_);
  offline.may_create = false;
  const auto opened = open({"a", "b"}, offline);
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_FALSE(opened->fresh);
  EXPECT_FALSE(is_formatted("a"));
}

TEST_F(Drives, a_creation_that_was_cut_short_is_begun_anew) {
  const Uuid first = format("a", store_);
  put("a", cluster::chunk_id({.kind = cluster::ChunkKind::metadata_root, .serial = 1}));
  const auto opened = open({"a", "b"}, rules_after(RootMemory::Stage::creating, store_));
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_TRUE(opened->fresh);
  EXPECT_EQ(opened->drives.size(), 2u);
  EXPECT_EQ(store_of("a"), store_);
  EXPECT_EQ(store_of("b"), store_);
  EXPECT_NE(chunk::DirStore::identify(root_ + "/a")->drive, first) << "what was left of it is still there";
}

TEST_F(Drives, a_store_that_holds_data_is_no_remnant_of_a_creation) {
  const Uuid first = format("a", store_);
  put("a", cluster::chunk_id({.kind = cluster::ChunkKind::data, .serial = 1}));
  const auto opened = open({"a", "b"}, rules_after(RootMemory::Stage::creating, store_));
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_FALSE(opened->fresh);
  EXPECT_EQ(chunk::DirStore::identify(root_ + "/a")->drive, first);
  EXPECT_FALSE(is_formatted("b"));
}

TEST_F(Drives, blank_and_strange_drives_beside_a_store_are_left_alone_and_stop_nobody) {
  format("a", store_);
  format("b", other_);
  format("c", Uuid{});
  fs::create_directories(root_ + "/d");
  auto opened = open({"a", "b", "c", "d"}, rules_after(RootMemory::Stage::made, store_));
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(opened->drives.size(), 1u);
  EXPECT_EQ(opened->unusable.size(), 3u);
  std::string told;
  for (const auto& one : opened->unusable) told += one.then + "\n";
  EXPECT_NE(told.find(fmt::format("DESTROY what is on it: `quarry device add --force {}`", at("b"))), std::string::npos) << told;
  EXPECT_NE(told.find(fmt::format("to use it: `quarry device add {}`", at("c"))), std::string::npos) << told;
  EXPECT_NE(told.find(fmt::format("to use it: `quarry device add {}`", at("d"))), std::string::npos) << told;
  EXPECT_TRUE(store_of("c").is_nil());
  EXPECT_FALSE(is_formatted("d"));
  opened = open({"a", "d"}, rules());  // the root is lost, too
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(opened->drives.size(), 1u);
  EXPECT_FALSE(is_formatted("d"));
  EXPECT_EQ(open({"a", "b"}, rules()).error().code(), Code::wrong_owner) << "whose drives are meant is not known";
  EXPECT_EQ(open({"b"}, rules_after(RootMemory::Stage::made, store_)).error().code(), Code::wrong_owner);
}

TEST_F(Drives, a_drive_with_two_names_is_opened_once) {
  format("a", store_);
  fs::create_directory_symlink(root_ + "/a", root_ + "/also-a");
  const auto opened = open({"also-a", "a"}, rules());
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(opened->drives.size(), 1u);
  EXPECT_TRUE(opened->unusable.empty());
}

TEST_F(Drives, a_directory_that_waits_for_its_file_system_is_not_formatted) {
  fs::create_directories(root_ + "/mnt/a");
  std::ofstream(root_ + "/mnt/a/" + kMountNote) << "see daemon/mount_notes.h\n";
  for (const char* name : {"mnt/a", "mnt/a/quarry"}) {
    EXPECT_EQ(open({name}, rules()).error().code(), Code::misconfigured) << name;
    const auto added = wait_on(loop(), open_new_drive(loop(), owned_, at(name), store_, false));
    EXPECT_EQ(added.error().code(), Code::misconfigured) << name;
  }
  EXPECT_FALSE(fs::exists(root_ + "/mnt/a/quarry"));
  const auto kfs = wait_on(loop(), open_new_drive(loop(), owned_, "kfs:" + root_ + "/mnt/a", store_, false));
  EXPECT_EQ(kfs.error().code(), Code::misconfigured) << "the note itself is nothing to destroy";
  EXPECT_TRUE(begun_.empty());
}

TEST_F(Drives, fstab_tells_where_a_file_system_is_missing) {
  const std::string table = root_ + "/fstab";
  std::ofstream(table) << "UUID=1234 " << root_ << "/mnt/a ext4 defaults 0 2\n/dev/sdb none swap sw 0 0\n/dev/sda / ext4 defaults 0 1\n";
  EXPECT_NE(missing_mount(root_ + "/mnt/a", table), "");
  EXPECT_NE(missing_mount(root_ + "/mnt/a/b/c", table), "");
  EXPECT_EQ(missing_mount(root_ + "/mnt/ab", table), "");
  EXPECT_EQ(missing_mount(root_ + "/mnt", table), "");
  EXPECT_EQ(missing_mount("/proc/self", table), "");
}

TEST_F(Drives, what_is_left_of_a_drive_is_not_formatted_unless_it_is_told) {
  format("a", store_);
  put("a", cluster::chunk_id({.kind = cluster::ChunkKind::metadata_frame, .serial = 1}));
  fs::remove(root_ + "/a/.quarry/descriptor");
  EXPECT_EQ(open({"a"}, rules()).error().code(), Code::already_exists);
  StartRules told = rules();
  told.force = true;
  const auto opened = open({"a"}, told);
  ASSERT_TRUE(opened) << opened.error().to_string();
  EXPECT_EQ(store_of("a"), opened->cluster);
}

TEST(Sizes, all_parts_together_stay_inside_small_limits_and_are_whole_on_large_machines) {
  for (const uint64_t memory : {512 * kMiB, 768 * kMiB, kGiB, 2 * kGiB, 3 * kGiB}) EXPECT_LT(sizes_for(memory).sum(), memory / 2) << memory;
  const Sizes large = sizes_for(16 * kGiB);
  EXPECT_EQ(large.read_cache, 4 * kGiB);
  EXPECT_EQ(large.write_memory, 384 * kMiB);
  EXPECT_EQ(large.index_memtable, 64 * kMiB);
}

// Closed here, as a drive that was disabled or that vanished; meanwhile another node takes it. Found and opened again by its identity.
TEST_F(Drives, what_another_node_has_opened_since_is_left_to_it_unless_forced) {
  const auto close = [this](Result<cluster::OpenedDrive> opened) {
    ASSERT_TRUE(opened) << opened.error().to_string();
    const Result<void> closed = wait_on(loop(), [](std::unique_ptr<chunk::ChunkStore>* store) -> Task<Result<void>> {
      Result<void> done = co_await (*store)->close();
      store->reset();
      co_return done;
    }(&opened->store));
    EXPECT_TRUE(closed);
  };
  const auto open_again = [this](bool force) { return wait_on(loop(), open_known_drive(loop(), owned_, at("a"), store_, force)); };
  close(wait_on(loop(), open_new_drive(loop(), owned_, at("a"), store_, false)));
  close(open_again(false));
  close(open_again(false));
  put("a", {1, 1});  // the other one
  const auto refused = open_again(false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::wrong_owner);
  EXPECT_NE(refused.error().context().find(chunk::kTakenByAnother), std::string::npos) << refused.error().to_string();
  const auto not_added = wait_on(loop(), open_new_drive(loop(), owned_, at("a"), store_, false));
  ASSERT_FALSE(not_added);
  EXPECT_EQ(not_added.error().code(), Code::wrong_owner);
  close(open_again(true));
  close(open_again(false));
}

}  // namespace
}  // namespace quarry::daemon
