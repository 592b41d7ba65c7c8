// A failing file system: errors of each call, full, read-only, no permission, the directory gone under load, kill -9.
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "chunk/dir/directory_sync.h"
#include "chunk/dir/testing/store_fixture.h"
#include "chunk/fencing.h"

namespace quarry::chunk::dir {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

struct DirFaults : testing::Test {
  std::shared_ptr<MemoryFileSystem> files = MemoryFileSystem::create();
  SimExecutor executor{{.threads = true}};
  std::unique_ptr<DirStore> store;
  void SetUp() override {
    ASSERT_TRUE(format_mountpath(*files, {}));
    open();
  }
  void TearDown() override {
    files->set_hook(nullptr);
    if (store) executor.run(store->close()).ignore("the store may be broken");
  }
  void open() {
    DirStoreOptions options;
    options.threads = 2;
    options.health_timeout = Duration::zero();
    options.file_system = files;
    auto opened = executor.run(DirStore::open("memory", options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void fail_with(Code code, std::set<std::string> operations) {
    files->set_hook([code, operations](const char* operation, const std::string& path) -> Result<void> {
      if (operations.contains(operation)) return fail(code, "{} {}", operation, path);
      return {};
    });
  }
  Result<void> put_chunk(uint64_t serial, const std::string& content) {
    return executor.run(store->put({1, serial}, {bytes_of(content)}, {}));
  }
};

TEST_F(DirFaults, any_single_failing_call_leaves_no_half_thing_and_loses_nothing) {
  const std::string old = test_payload(1, 200'000), fresh = test_payload(2, 150'000), chunk = test_payload(3, 90'000);
  // Each operation of the scenario fails once, with each error; then the store is opened again.
  for (const Code code : {Code::io_error, Code::no_space}) {
    for (uint64_t failing = 1; failing < 70; ++failing) {
      SCOPED_TRACE(fmt::format("{} at operation {}", code_name(code), failing));
      files = MemoryFileSystem::create();
      if (store) {
        executor.run(store->close()).ignore("of the round before");
        store.reset();
      }
      ASSERT_TRUE(format_mountpath(*files, {}));
      open();
      ASSERT_TRUE(executor.run(put_whole_file(*store, {5, 1}, "b", "d/k", old)));
      ASSERT_TRUE(executor.run(store->show_file({5, 1}, {})));
      std::atomic<uint64_t> operations{0};
      files->set_hook([&](const char* operation, const std::string& path) -> Result<void> {
        if (++operations == failing && operation != std::string("check_root")) return fail(code, "{} {}", operation, path);
        return {};
      });
      const auto chunk_put = put_chunk(1, chunk);
      const auto put = executor.run(put_whole_file(*store, {6, 1}, "b", "d/k", fresh));
      const auto shown = executor.run(store->show_file({6, 1}, {}));
      const bool reached = operations >= failing;
      files->set_hook(nullptr);
      EXPECT_NE(store->health().state, StoreState::failed);
      auto got = executor.run(get_whole_file(*store, {5, 1}, old.size()));
      ASSERT_TRUE(got && *got == old);
      executor.run(store->close()).ignore("clean or not");
      open();
      EXPECT_THAT(store->open_report().damage, IsEmpty());
      got = executor.run(get_whole_file(*store, {5, 1}, old.size()));
      ASSERT_TRUE(got && *got == old);
      got = executor.run(get_whole_file(*store, {6, 1}, fresh.size()));
      if (put) {
        ASSERT_TRUE(got && *got == fresh);
      } else {
        ASSERT_FALSE(got) << "was refused, but is there";
      }
      const auto chunk_got = executor.run(store->get({1, 1}, 0, kChunkSizeMax));
      ASSERT_EQ(chunk_got.has_value(), chunk_put.has_value());
      const std::string visible = files->all()["b/d/k"];
      ASSERT_TRUE(visible == (shown ? fresh : old) || (!shown && visible == fresh));
      EXPECT_THAT(executor.run(store->fsck())->violations, IsEmpty());
      ASSERT_TRUE(executor.run(store->remove(chunks_of({5, 1}, old.size()))));
      ASSERT_TRUE(executor.run(store->remove(chunks_of({6, 1}, fresh.size()))));
      executor.run(store->close()).ignore("");
      open();
      EXPECT_EQ(executor.run(store->get({5, 1}, 0, 1)).error().code(), Code::not_found);
      if (!reached) break;
    }
  }
}

TEST_F(DirFaults, a_full_file_system_refuses_puts_and_serves_the_rest) {
  const std::string content = test_payload(1, 50'000);
  ASSERT_TRUE(put_chunk(1, content));
  fail_with(Code::no_space, {"write", "create", "make_directory"});
  EXPECT_EQ(put_chunk(2, content).error().code(), Code::no_space);
  EXPECT_EQ(executor.run(put_whole_file(*store, {5, 1}, "b", "k", content)).error().code(), Code::no_space);
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_TRUE(executor.run(store->check_health())) << "full is not broken";
  EXPECT_TRUE(executor.run(store->get({1, 1}, 0, 100)));
  EXPECT_TRUE(executor.run(store->remove({{1, 1}})));
  files->set_hook(nullptr);
  EXPECT_TRUE(put_chunk(2, content)) << "room again";
}

TEST_F(DirFaults, a_read_only_file_system_turns_the_store_read_only) {
  ASSERT_TRUE(put_chunk(1, "x"));
  fail_with(Code::read_only, {"write", "create", "make_directory", "rename", "remove", "sync", "set_attribute", "link"});
  EXPECT_EQ(put_chunk(2, "y").error().code(), Code::read_only);
  EXPECT_EQ(store->health().state, StoreState::read_only);
  EXPECT_THAT(store->health().reason, HasSubstr("mounted read-only"));
  EXPECT_TRUE(executor.run(store->get({1, 1}, 0, 1)));
  executor.run(store->close()).ignore("");
  open();
  EXPECT_EQ(store->health().state, StoreState::read_only) << "whose it is cannot be written down";
  EXPECT_TRUE(executor.run(store->get({1, 1}, 0, 1)));
  EXPECT_EQ(executor.run(store->check_health()).error().code(), Code::read_only);
  EXPECT_EQ(store->health().state, StoreState::read_only);
}

TEST_F(DirFaults, lost_permission_turns_the_store_read_only_and_says_so) {
  fail_with(Code::permission_denied, {"create"});
  EXPECT_FALSE(put_chunk(1, "x"));
  EXPECT_EQ(store->health().state, StoreState::read_only);
  EXPECT_THAT(store->health().reason, HasSubstr("give the directory back"));
}

TEST_F(DirFaults, writes_that_keep_failing_turn_the_store_read_only) {
  fail_with(Code::io_error, {"sync"});
  for (uint64_t i = 0; i < kWriteErrorsMax; ++i) EXPECT_EQ(put_chunk(i, "x").error().code(), Code::io_error);
  EXPECT_EQ(store->health().state, StoreState::read_only);
  EXPECT_EQ(store->health().write_errors, kWriteErrorsMax);
}

TEST_F(DirFaults, a_vanished_mountpath_fails_the_store) {
  ASSERT_TRUE(put_chunk(1, "x"));
  fail_with(Code::device_gone, {"check_root"});
  EXPECT_EQ(executor.run(store->check_health()).error().code(), Code::device_gone);
  EXPECT_EQ(store->health().state, StoreState::failed);
  EXPECT_EQ(executor.run(store->get({1, 1}, 0, 1)).error().code(), Code::device_gone);
}

struct DirReal : DirStoreTest {};

Task<Result<void>> load(DirStore& store, uint64_t worker, uint64_t steps) {
  for (uint64_t i = 0; i < steps; ++i) {
    const ChunkId first{100 + worker, i + 1};
    const std::string content = test_payload(i, 20'000);
    auto put = co_await put_whole_file(store, first, "b", fmt::format("{}/{}", worker, i), content);
    if (!put) co_return put;
    auto shown = co_await store.show_file(first, {});
    if (!shown) co_return shown;
    auto got = co_await get_whole_file(store, first, content.size());
    if (!got) co_return std::move(got).error();
    if (*got != content) co_return fail(Code::internal, "wrong bytes");
  }
  co_return Result<void>{};
}
Task<std::vector<Result<void>>> load_all(DirStore& store, uint64_t workers, uint64_t steps) {
  std::vector<Task<Result<void>>> tasks;
  for (uint64_t i = 0; i < workers; ++i) tasks.push_back(load(store, i, steps));
  auto results = co_await when_all(std::move(tasks));
  co_return results;
}

TEST_F(DirReal, a_directory_removed_under_load_fails_the_store_and_nothing_else) {
  std::thread remover([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    std::error_code error;
    for (int i = 0; i < 1000 && std::filesystem::exists(directory.path()); ++i) std::filesystem::remove_all(directory.path(), error);
  });
  const auto results = executor.run(load_all(*store, 4, 100'000));
  remover.join();
  for (const auto& result : results) {
    ASSERT_FALSE(result);
    const Code code = result.error().code();
    EXPECT_TRUE(code == Code::device_gone || code == Code::corrupt || code == Code::io_error || code == Code::not_found)
        << result.error().to_string();
  }
  EXPECT_FALSE(executor.run(store->check_health()));
  EXPECT_EQ(store->health().state, StoreState::failed);
  EXPECT_THAT(store->health().reason, HasSubstr("removed"));
}

TEST_F(DirReal, refuses_what_is_no_mountpath_of_ours) {
  EXPECT_EQ(executor.run(DirStore::open(directory.path(), options)).error().code(), Code::busy);
  EXPECT_EQ(executor.run(DirStore::format(directory.path(), {})).error().code(), Code::already_exists);
  EXPECT_EQ(executor.run(DirStore::format(directory / "sub", {})).error().code(), Code::invalid_argument);
  EXPECT_EQ(DirStore::identify(directory / "nothing").error().code(), Code::not_found);
  TemporaryDirectory other;
  EXPECT_EQ(DirStore::identify(other.path()).error().code(), Code::not_found);
  const Uuid ours = system_random().uuid(), theirs = system_random().uuid();
  ASSERT_TRUE(executor.run(DirStore::format(other / "made", {.cluster = theirs, .drive = {}, .label = "label"})));
  EXPECT_EQ(DirStore::identify(other / "made")->label, "label");
  DirStoreOptions mine = options;
  mine.cluster = ours;
  EXPECT_EQ(executor.run(DirStore::open(other / "made", mine)).error().code(), Code::wrong_owner);
  ASSERT_TRUE(executor.run(store->set_cluster_id(ours)));
  EXPECT_EQ(executor.run(store->set_cluster_id(theirs)).error().code(), Code::wrong_owner);
  options.cluster = ours;
  const uint64_t epoch = store->fencing_epoch();
  reopen();
  EXPECT_GT(store->fencing_epoch(), epoch);
  EXPECT_TRUE(store->open_report().clean);
  EXPECT_TRUE(executor.run(store->check_health()));
}

TEST_F(DirReal, a_mountpath_that_another_node_has_opened_is_that_ones) {
  EXPECT_TRUE(executor.run(store->check_health()));
  const std::string file = directory / kDescriptorFile;
  std::ifstream in(file, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(in), {}};
  auto descriptor = decode_descriptor(bytes_of(content));
  ASSERT_TRUE(descriptor);
  EXPECT_EQ(descriptor->fencing_epoch, store->fencing_epoch());
  descriptor->fencing_epoch = next_fencing_epoch(descriptor->fencing_epoch, 5);  // as that one's open does
  std::ofstream(file, std::ios::binary | std::ios::trunc) << encode_descriptor(*descriptor);
  const auto health = executor.run(store->check_health());
  ASSERT_FALSE(health);
  EXPECT_EQ(health.error().code(), Code::device_gone);
  EXPECT_EQ(store->health().state, StoreState::failed);
  EXPECT_EQ(executor.run(store->remove({{1, 1}})).error().code(), Code::device_gone);
}

// A file system of its own, where this process may mount one.
struct DirMounted : testing::Test {
  TemporaryDirectory directory;
  bool mounted = false;
  SimExecutor executor{{.threads = true}};
  std::unique_ptr<DirStore> store;
  void SetUp() override {
    mounted = ::mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=8m") == 0;
    if (!mounted) GTEST_SKIP() << "may not mount here; the same is tested with injected errors";
    ASSERT_TRUE(executor.run(DirStore::format(directory.path(), {})));
    DirStoreOptions options;
    options.health_timeout = Duration::zero();
    auto opened = executor.run(DirStore::open(directory.path(), options));
    ASSERT_TRUE(opened) << opened.error().to_string();
    store = std::move(*opened);
  }
  void TearDown() override {
    if (store) executor.run(store->close()).ignore("");
    store.reset();
    if (mounted) ::umount2(directory.path().c_str(), MNT_DETACH);
  }
};

TEST_F(DirMounted, a_full_disk_loses_nothing_and_recovers) {
  uint64_t kept = 0;
  for (;; ++kept) {
    const std::string content = test_payload(kept, 300'000);
    const auto put = executor.run(put_whole_file(*store, {1, (kept + 1) << 40}, "b", fmt::format("{}", kept), content));
    if (!put) {
      EXPECT_EQ(put.error().code(), Code::no_space) << put.error().to_string();
      break;
    }
    ASSERT_TRUE(executor.run(store->show_file({1, (kept + 1) << 40}, {})));
  }
  ASSERT_GT(kept, 10u);
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_LT(store->space().free_bytes, 600'000u);
  ASSERT_TRUE(executor.run(store->remove(chunks_of({1, (kept + 1) << 40}, 300'000)))) << "what was refused is given up";
  for (uint64_t i = 0; i < kept; ++i) {
    auto got = executor.run(get_whole_file(*store, {1, (i + 1) << 40}, 300'000));
    ASSERT_TRUE(got && *got == test_payload(i, 300'000));
  }
  ASSERT_TRUE(executor.run(store->remove(chunks_of({1, 1ull << 40}, 300'000))));
  EXPECT_TRUE(executor.run(put_whole_file(*store, {2, 1}, "b", "fits", test_payload(0, 200'000))));
}

TEST_F(DirMounted, a_read_only_remount_is_noticed) {
  ASSERT_TRUE(executor.run(put_whole_file(*store, {1, 1}, "b", "k", "content")));
  ASSERT_EQ(::mount("tmpfs", directory.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0);
  EXPECT_FALSE(executor.run(store->check_health()));
  EXPECT_EQ(store->health().state, StoreState::read_only);
  EXPECT_EQ(*executor.run(get_whole_file(*store, {1, 1}, 7)), "content");
  executor.run(store->close()).ignore("");
  store.reset();
  DirStoreOptions options;
  auto opened = executor.run(DirStore::open(directory.path(), options));
  ASSERT_TRUE(opened) << opened.error().to_string();
  store = std::move(*opened);
  EXPECT_EQ(store->health().state, StoreState::read_only);
  EXPECT_EQ(*executor.run(get_whole_file(*store, {1, 1}, 7)), "content");
}

TEST_F(DirMounted, an_unmounted_file_system_is_noticed) {
  ASSERT_EQ(::umount2(directory.path().c_str(), MNT_DETACH), 0);
  EXPECT_EQ(executor.run(store->check_health()).error().code(), Code::device_gone);
  EXPECT_EQ(store->health().state, StoreState::failed);
}

// A file system of its own mounted somewhere inside a mountpath.
struct DirNested : DirStoreTest {
  std::set<std::string> mounts;
  void mount_at(const std::string& path) {
    std::filesystem::create_directories(directory / path);
    if (::mount("tmpfs", (directory / path).c_str(), "tmpfs", 0, "size=4m") != 0) GTEST_SKIP() << "may not mount here";
    mounts.insert(path);
  }
  void unmount(const std::string& path) {
    ASSERT_EQ(::umount2((directory / path).c_str(), MNT_DETACH), 0);
    mounts.erase(path);
  }
  void TearDown() override {
    DirStoreTest::TearDown();
    while (!mounts.empty()) unmount(*mounts.begin());
  }
};

TEST_F(DirNested, keys_below_another_file_system_are_kept_and_shown_when_it_is_gone) {
  ASSERT_NO_FATAL_FAILURE(mount_at("b/other"));
  if (IsSkipped()) return;
  std::ofstream(directory / "b/other/x") << "theirs";
  std::filesystem::create_directories(directory / "b/other/empty");
  ASSERT_TRUE(put({1, 1}, "other/x", "ours"));
  ASSERT_TRUE(put({2, 1}, "other/deep/er", "deep"));
  for (const ChunkId id : {ChunkId{1, 1}, ChunkId{2, 1}}) {
    const auto shown = show(id);
    ASSERT_FALSE(shown);
    EXPECT_EQ(shown.error().code(), Code::unsupported);
    EXPECT_THAT(shown.error().context(), HasSubstr("unmount it"));
  }
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_EQ(store->health().write_errors, 0u);
  EXPECT_EQ(get({1, 1}, 4), "ours");
  put_and_show({3, 1}, "beside", "beside");
  EXPECT_FALSE(std::filesystem::exists(directory / "b/other/deep")) << "nothing is made there";
  reopen();
  EXPECT_EQ(get({2, 1}, 4), "deep");
  EXPECT_EQ(store->open_report().foreign_files, 0u) << "what lies there is none of this mountpath's";
  ASSERT_TRUE(remove({1, 1}, 4));
  EXPECT_EQ(tree()["b/other/x"], "theirs");
  unmount("b/other");
  ASSERT_TRUE(show({2, 1}));
  EXPECT_EQ(tree()["b/other/deep/er"], "deep");
  expect_sound();
}

TEST_F(DirNested, objects_that_a_mount_covers_are_removed_without_harm_to_what_it_holds) {
  put_and_show({1, 1}, "other/x", "ours");
  put_and_show({2, 1}, "other/sub/y", "ours");
  put_and_show({3, 1}, "other/z", "ours");
  ASSERT_NO_FATAL_FAILURE(mount_at("b/other"));
  if (IsSkipped()) return;
  std::filesystem::create_directories(directory / "b/other/sub");
  std::ofstream(directory / "b/other/x") << "theirs";
  ASSERT_TRUE(executor.run(store->hide_file({3, 1})));
  ASSERT_TRUE(remove({1, 1}, 4));
  ASSERT_TRUE(remove({2, 1}, 4));
  EXPECT_EQ(tree()["b/other/x"], "theirs");
  EXPECT_TRUE(std::filesystem::exists(directory / "b/other/sub"));
  EXPECT_EQ(store->health().state, StoreState::online);
}

TEST_F(DirNested, adopt_passes_over_it_and_it_can_be_a_mountpath_of_its_own) {
  std::filesystem::create_directories(directory / "t/d");
  std::ofstream(directory / "t/d/f") << "f";
  ASSERT_NO_FATAL_FAILURE(mount_at("t/other"));
  if (IsSkipped()) return;
  std::ofstream(directory / "t/other/x") << "theirs";
  const auto found = executor.run(store->unrecorded("t", "", 10));
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ(found->at(1).path, "t/other");
  EXPECT_THAT(found->at(1).why_not, HasSubstr("mountpath of its own"));
  for (const std::string& path : {std::string("t/other"), std::string("t/other/x")}) {
    const auto inside = executor.run(store->unrecorded(path, "", 10));
    ASSERT_FALSE(inside) << path;
    EXPECT_THAT(inside.error().context(), HasSubstr("another file system"));
  }
  const auto refused = executor.run(store->adopt({"t/other/x", {1, 0}, kTestChunk, kTestStride, "b", "k", {}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::invalid_argument);
  // Of its own: both are right, and neither sees the other's files.
  ASSERT_TRUE(executor.run(DirStore::format(directory / "t/other", {})));
  EXPECT_EQ(executor.run(DirStore::format(directory / "t/d", {})).error().code(), Code::invalid_argument)
      << "one file system, two mountpaths";
  auto inner = executor.run(DirStore::open(directory / "t/other", options));
  ASSERT_TRUE(inner);
  ASSERT_TRUE(executor.run(put_whole_file(**inner, {9, 1}, "b", "k", "inner")));
  ASSERT_TRUE(executor.run((*inner)->show_file({9, 1}, {})));
  reopen();
  EXPECT_EQ(store->open_report().files, 0u);
  EXPECT_EQ(store->open_report().foreign_files, 1u);
  executor.run((*inner)->close()).ignore("");
}

TEST(DirKill, acknowledged_files_survive_kill_minus_9) {
  TemporaryDirectory directory;
  {
    SimExecutor executor{{.threads = true}};
    ASSERT_TRUE(executor.run(DirStore::format(directory.path(), {})));
  }
  const auto size_of = [](uint64_t serial) { return 1000 + serial * 7919 % 250'000; };
  uint64_t next = 1;
  std::vector<uint64_t> acknowledged;
  for (int round = 0; round < 8; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe_ends[0]);
      SimExecutor executor{{.threads = true}};
      auto opened = executor.run(DirStore::open(directory.path(), {}));
      if (!opened) ::_exit(1);
      for (uint64_t serial = next;; ++serial) {
        const auto put = executor.run(put_whole_file(**opened, {serial, 1}, "b", fmt::format("d{}/k{}", serial % 3, serial % 5),
                                                     test_payload(serial, size_of(serial))));
        if (!put || !executor.run((*opened)->show_file({serial, 1}, {}))) ::_exit(1);
        if (::write(pipe_ends[1], &serial, sizeof serial) != sizeof serial) ::_exit(1);
      }
    }
    ::close(pipe_ends[1]);
    std::atomic<uint64_t> told = 0;
    std::thread killer([child, round, &told] {
      std::this_thread::sleep_for(std::chrono::milliseconds(150 + 37 * round));
      for (int i = 0; i < 10'000 && told < 3; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // a slow machine
      ::kill(child, SIGKILL);
    });
    uint64_t serial = 0;
    for (; ::read(pipe_ends[0], &serial, sizeof serial) == sizeof serial; ++told) acknowledged.push_back(serial);
    ::close(pipe_ends[0]);
    killer.join();
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    SimExecutor executor{{.threads = true}};
    auto opened = executor.run(DirStore::open(directory.path(), {}));
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_THAT((*opened)->open_report().damage, IsEmpty());
    for (const uint64_t one : acknowledged) {
      auto got = executor.run(get_whole_file(**opened, {one, 1}, size_of(one)));
      ASSERT_TRUE(got && *got == test_payload(one, size_of(one))) << one;
    }
    for (const auto& file : *executor.run((*opened)->files({}, SIZE_MAX))) next = std::max(next, file.first.high + 1);
    for (const auto& [path, content] : tree_of(directory.path())) {
      bool whole = false;
      for (uint64_t one = 1; one < next && !whole; ++one)
        whole = content.size() == size_of(one) && content == test_payload(one, size_of(one));
      EXPECT_TRUE(whole) << path;
    }
    EXPECT_THAT(executor.run((*opened)->fsck())->violations, IsEmpty());
    ASSERT_TRUE(executor.run((*opened)->close()));
  }
  EXPECT_GT(acknowledged.size(), 20u);
}

// A name that was taken stays away after a power cut, though its directory went as well and was made anew (for another key) before the
// sync.
TEST_F(DirFaults, a_hidden_name_stays_away_though_its_directory_is_made_anew_before_the_sync) {
  for (const bool removed : {false, true}) {
    const ChunkId first{4, removed ? 2u : 1u};
    ASSERT_TRUE(executor.run(put_whole_file(*store, first, "b", "x/y", "bytes")));
    ASSERT_TRUE(executor.run(store->show_file(first, {})));
    bool gone = false, anew = false;
    files->set_hook([&](const char* operation, const std::string& path) -> Result<void> {
      gone |= std::string_view(operation) == "remove_directory" && path == "b";
      if (gone && !anew && std::string_view(operation) == "sync_directory") {
        anew = true;
        EXPECT_TRUE(files->make_directory("b"));
        EXPECT_TRUE(files->make_directory("b/x"));
      }
      return {};
    });
    const auto done = executor.run(removed ? store->remove({first}) : store->hide_file(first));
    files->set_hook(nullptr);
    ASSERT_TRUE(done) << done.error().to_string();
    ASSERT_TRUE(anew);
    for (uint64_t seed = 0; seed < 64; ++seed) {
      EXPECT_FALSE(files->crash(seed, seed % 2 == 0)->info("b/x/y")) << seed << (removed ? " removed" : " hidden");
    }
  }
}

// The same where it was another removal that emptied the directory.
TEST(DirDirectorySync, a_name_taken_from_a_directory_that_others_remove_and_make_anew_is_gone_for_good) {
  const auto files = MemoryFileSystem::create();
  for (const char* directory : {"b", "b/x"}) ASSERT_TRUE(files->make_directory(directory));
  for (const char* file : {"b/x/y", "b/x/z"}) ASSERT_TRUE(files->open(file, OpenMode::create));
  for (const char* directory : {"", "b", "b/x"}) ASSERT_TRUE(files->sync_directory(directory));
  ThreadPool pool("syncs", 1);
  DirectorySync syncs(files, pool);
  ASSERT_TRUE(files->remove("b/x/y"));
  DirectorySync::Taken taken(syncs, "b/x");
  ASSERT_TRUE(files->remove("b/x/z"));
  ASSERT_TRUE(files->remove_directory("b/x"));
  ASSERT_TRUE(files->remove_directory("b"));
  syncs.note_removed({"b/x", "b"});
  for (const char* directory : {"b", "b/x"}) ASSERT_TRUE(files->make_directory(directory));
  SimExecutor executor{{.threads = true}};
  ASSERT_TRUE(executor.run(syncs.sync_taken(taken)));
  for (uint64_t seed = 0; seed < 64; ++seed) EXPECT_FALSE(files->crash(seed, seed % 2 == 0)->info("b/x/y")) << seed;
}

}  // namespace
}  // namespace quarry::chunk::dir
