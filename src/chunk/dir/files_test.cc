// Files of chunks: written, finished, shown under their names, replaced, hidden, removed, adopted; and what is left without Quarry.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "chunk/dir/testing/store_fixture.h"

namespace quarry::chunk::dir {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

struct DirFiles : DirStoreTest {};

TEST_F(DirFiles, a_file_of_any_size_reads_back_by_chunks_and_is_one_plain_file) {
  uint64_t serial = 0;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{65'536}, size_t{kTestChunk}, size_t{kTestChunk + 1}, size_t{1'234'567}}) {
    const ChunkId first{++serial, 5};
    const std::string content = test_payload(serial, size), key = fmt::format("x/{}", size);
    put_and_show(first, key, content);
    EXPECT_TRUE(get(first, size) == content) << size;
    EXPECT_TRUE(tree()["b/" + key] == content) << size;
    const auto part = executor.run(store->get(chunk_of(first, 0), static_cast<uint32_t>(size / 3), 70'000));
    ASSERT_TRUE(part && size < 100'001 ? part : executor.run(store->get(first, 0, 1)));
    const auto stat = executor.run(store->stat(first));
    ASSERT_TRUE(stat);
    EXPECT_EQ(stat->size, std::min<size_t>(size, kTestChunk));
  }
  reopen();
  EXPECT_TRUE(get({6, 5}, 1'234'567) == test_payload(6, 1'234'567));
  const auto listed = executor.run(store->list({}, {UINT64_MAX, UINT64_MAX}, 1000));
  ASSERT_TRUE(listed);
  EXPECT_EQ(listed->size(), 1 + 1 + 1 + 1 + 2 + 13u);
  EXPECT_TRUE(std::is_sorted(listed->begin(), listed->end(), [](const auto& a, const auto& b) { return a.id < b.id; }));
  expect_sound();
}

TEST_F(DirFiles, is_invisible_until_shown_and_gone_until_finished) {
  const std::string content = test_payload(1, 300'000);
  ASSERT_TRUE(put({1, 1}, "k", content));
  EXPECT_THAT(tree(), IsEmpty());
  const auto half = test_payload(2, kTestChunk);
  PutOptions place;
  place.file = FilePlace{{2, 1}, 0, kTestChunk, kTestStride, "b", "half"};
  ASSERT_TRUE(executor.run(store->put({2, 1}, {bytes_of(half)}, place)));
  EXPECT_EQ(text_of(executor.run(store->get({2, 1}, 10, 20))->view()), half.substr(10, 20)) << "readable by the one who writes";
  EXPECT_EQ(executor.run(store->finish_file({2, 1}, kTestChunk + 1)).error().code(), Code::precondition_failed);
  EXPECT_EQ(show({2, 1}).error().code(), Code::precondition_failed);
  store.reset();  // as a crash: without close
  open();
  EXPECT_EQ(store->open_report().unfinished_removed, 1u);
  EXPECT_FALSE(store->open_report().clean);
  EXPECT_EQ(executor.run(store->get({2, 1}, 0, 1)).error().code(), Code::not_found);
  EXPECT_TRUE(get({1, 1}, content.size()) == content);
  auto files = executor.run(store->files({}, 10));
  ASSERT_EQ(files->size(), 1u);
  EXPECT_FALSE(files->front().shown);
  EXPECT_EQ(files->front().name, "k");
  ASSERT_TRUE(show({1, 1}));
  EXPECT_EQ(tree()["b/k"], content);
  ASSERT_TRUE(show({1, 1})) << "done again, it changes nothing";
  files = executor.run(store->files({}, 10));
  EXPECT_TRUE(files->front().shown);
  expect_sound();
}

TEST_F(DirFiles, showing_over_an_older_file_keeps_it_readable_by_its_chunks) {
  const std::string one = test_payload(1, 150'000), two = test_payload(2, 250'000);
  put_and_show({1, 1}, "dir/k", one);
  EXPECT_TRUE(get({1, 1}, one.size()) == one);  // a handle on it stays open
  put_and_show({2, 1}, "dir/k", two);
  EXPECT_THAT(tree(), ElementsAre(Pair("b/dir/k", two)));
  EXPECT_TRUE(get({1, 1}, one.size()) == one);
  EXPECT_TRUE(get({2, 1}, two.size()) == two);
  reopen();
  EXPECT_THAT(store->open_report().damage, IsEmpty());
  EXPECT_TRUE(get({1, 1}, one.size()) == one);
  ASSERT_TRUE(show({1, 1})) << "the older version is the current one again";
  EXPECT_THAT(tree(), ElementsAre(Pair("b/dir/k", one)));
  EXPECT_TRUE(get({2, 1}, two.size()) == two);
  ASSERT_TRUE(remove({2, 1}, two.size()));
  EXPECT_THAT(tree(), ElementsAre(Pair("b/dir/k", one)));
  ASSERT_TRUE(executor.run(store->hide_file({1, 1})));
  EXPECT_THAT(tree(), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(directory / "b"));
  EXPECT_TRUE(get({1, 1}, one.size()) == one);
  ASSERT_TRUE(remove({1, 1}, one.size()));
  EXPECT_EQ(read({1, 1}, 1).error().code(), Code::not_found);
  EXPECT_EQ(store->space().payload_bytes, 0u);
  expect_sound();
}

TEST_F(DirFiles, removing_takes_empty_directories_but_nothing_of_others) {
  put_and_show({1, 1}, "p/q/r", "one");
  put_and_show({2, 1}, "p/s", "two");
  std::ofstream(directory / "b/p/q/note") << "mine";
  ASSERT_TRUE(remove({1, 1}, 3));
  EXPECT_THAT(tree(), ElementsAre(Pair("b/p/q/note", "mine"), Pair("b/p/s", "two")));
  std::filesystem::remove(directory / "b/p/q/note");
  ASSERT_TRUE(remove({2, 1}, 3));
  EXPECT_TRUE(std::filesystem::exists(directory / "b/p/q")) << "a directory of others stays";
  ASSERT_TRUE(remove({2, 1}, 3)) << "idempotent";
}

TEST_F(DirFiles, removing_some_chunks_is_remembered_and_the_file_goes_with_the_last) {
  const std::string content = test_payload(1, 250'000);
  put_and_show({1, 1}, "k", content);
  ASSERT_TRUE(executor.run(store->remove({chunk_of({1, 1}, 1)})));
  reopen();
  EXPECT_EQ(executor.run(store->get(chunk_of({1, 1}, 1), 0, 1)).error().code(), Code::not_found);
  EXPECT_TRUE(text_of(executor.run(store->get(chunk_of({1, 1}, 2), 0, 100'000))->view()) == content.substr(200'000));
  EXPECT_EQ(store->space().chunk_count, 2u);
  EXPECT_EQ(store->space().payload_bytes, 150'000u);
  ASSERT_TRUE(executor.run(store->remove({chunk_of({1, 1}, 0), chunk_of({1, 1}, 2)})));
  EXPECT_THAT(tree(), IsEmpty());
  EXPECT_EQ(store->space().chunk_count, 0u);
  reopen();
  expect_sound();
}

TEST_F(DirFiles, a_hidden_file_gives_back_the_space_of_removed_chunks_and_a_shown_one_keeps_its_bytes) {
  const std::string content = test_payload(1, 2'500'000);
  const auto allocated = [&](const std::string& path) {
    struct stat found{};
    EXPECT_EQ(::stat((directory / path).c_str(), &found), 0);
    return static_cast<uint64_t>(found.st_blocks) * 512;
  };
  std::vector<ChunkId> most;
  for (uint32_t i = 1; i < 24; ++i) most.push_back(chunk_of({1, 1}, i));
  put_and_show({1, 1}, "k", content);
  ASSERT_TRUE(executor.run(store->remove({most[0]})));
  EXPECT_EQ(tree()["b/k"], content) << "it is shown: no hole";
  ASSERT_TRUE(executor.run(store->hide_file({1, 1})));
  const std::string hidden = place_of(kHidden, {1, 1});
  const uint64_t before = allocated(hidden);
  ASSERT_TRUE(executor.run(store->remove(most)));
  EXPECT_LT(allocated(hidden), before / 4);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(executor.run(store->get(most[5], 0, 1)).error().code(), Code::not_found);
    EXPECT_TRUE(text_of(executor.run(store->get({1, 1}, 0, kTestChunk))->view()) == content.substr(0, kTestChunk));
    EXPECT_TRUE(text_of(executor.run(store->get(chunk_of({1, 1}, 24), 0, kTestChunk))->view()) == content.substr(2'400'000));
    expect_sound();
    // As after a crash between the hole and the time.
    std::filesystem::last_write_time(directory / hidden, std::filesystem::file_time_type::clock::now());
    reopen();
  }
  // Somebody's hard link is somebody's.
  put_and_show({2, 1}, "m", content);
  std::filesystem::create_hard_link(directory / "b/m", directory / "mine");
  ASSERT_TRUE(executor.run(store->hide_file({2, 1})));
  ASSERT_TRUE(executor.run(store->remove({chunk_of({2, 1}, 3)})));
  EXPECT_EQ(tree()["mine"], content);
}

TEST_F(DirFiles, a_key_and_the_directory_of_its_name_live_side_by_side) {
  put_and_show({1, 1}, "a", "file a");
  put_and_show({2, 1}, "a/b", "file a/b");
  put_and_show({3, 1}, "a/b/c", "file a/b/c");
  EXPECT_THAT(tree(), ElementsAre(Pair("b/a%=", "file a"), Pair("b/a/b%=", "file a/b"), Pair("b/a/b/c", "file a/b/c")));
  put_and_show({4, 1}, "a", "new a");  // stays where the older one was
  EXPECT_EQ(tree()["b/a%="], "new a");
  EXPECT_EQ(get({1, 1}, 6), "file a");
  reopen();
  EXPECT_THAT(store->open_report().damage, IsEmpty());
  EXPECT_EQ(get({4, 1}, 5), "new a");
  EXPECT_EQ(get({2, 1}, 8), "file a/b");
  ASSERT_TRUE(remove({3, 1}, 10));
  ASSERT_TRUE(remove({2, 1}, 8));
  put_and_show({5, 1}, "a", "newest");
  EXPECT_EQ(tree()["b/a%="], "newest");
  ASSERT_TRUE(remove({5, 1}, 6));
  put_and_show({6, 1}, "a", "plain again");
  EXPECT_THAT(tree(), ElementsAre(Pair("b/a", "plain again")));
  put_and_show({7, 1}, "a/", "marker");
  EXPECT_THAT(tree(), ElementsAre(Pair("b/a%=", "plain again"), Pair("b/a/%_", "marker")));
  expect_sound();
}

TEST_F(DirFiles, files_of_others_are_moved_aside_not_overwritten) {
  std::filesystem::create_directories(directory / "b");
  std::ofstream(directory / "b/k") << "precious";
  std::ofstream(directory / "b/d") << "in the way of a directory";
  put_and_show({1, 1}, "k", "object");
  put_and_show({2, 1}, "d/e", "object 2");
  EXPECT_THAT(tree(), ElementsAre(Pair("b/d/e", "object 2"), Pair("b/k", "object")));
  std::set<std::string> aside;
  for (const auto& entry : std::filesystem::directory_iterator(directory / ".quarry/displaced")) {
    std::ifstream in(entry.path());
    aside.insert(std::string(std::istreambuf_iterator<char>(in), {}));
  }
  EXPECT_THAT(aside, ElementsAre("in the way of a directory", "precious"));
}

TEST_F(DirFiles, what_cannot_be_adopted_is_listed_with_the_reason) {
  std::filesystem::create_directories(directory / "t/sub");
  std::ofstream(directory / "t/a\xff\nb") << "odd";
  std::ofstream(directory / "t/sub/file") << "plain";
  std::filesystem::create_symlink("file", directory / "t/sub/link");
  ASSERT_EQ(::mkfifo((directory / "t/pipe").c_str(), 0600), 0);
  std::string all, after;
  for (;;) {
    const auto page = executor.run(store->unrecorded("t", after, 1));
    ASSERT_TRUE(page);
    if (page->empty()) break;
    after = page->front().path;
    all += after + (page->front().why_not.empty() ? " yes; " : " no; ");
  }
  EXPECT_EQ(all, "t/a\xff\nb yes; t/pipe no; t/sub/file yes; t/sub/link no; ");
  EXPECT_EQ(executor
                .run(store->adopt({.path = "t/sub/link",
                                   .first = {1, 0},
                                   .chunk_size = kTestChunk,
                                   .stride = kTestStride,
                                   .directory = "b",
                                   .name = "k",
                                   .attributes = {}}))
                .error()
                .code(),
            Code::invalid_argument);
  EXPECT_EQ(executor
                .run(store->adopt({.path = "t/sub/file",
                                   .first = {1, 0},
                                   .chunk_size = kTestChunk,
                                   .stride = kTestStride,
                                   .directory = "b",
                                   .name = "k",
                                   .attributes = {},
                                   .size_max = 2}))
                .error()
                .code(),
            Code::too_large);
  EXPECT_EQ(store->health().state, StoreState::online);
}

// Names in which keys meet: nothing of what a mountpath promises would hold.
TEST_F(DirFiles, refuses_a_file_system_that_takes_different_names_for_the_same) {
  struct Folding : MemoryFileSystem {
    const char *made, *other;
    Folding(const char* m, const char* o) : made(m), other(o) {}
    Result<FileInfo> info(const std::string& path) override {
      const size_t at = path.rfind(other);
      return MemoryFileSystem::info(at == std::string::npos ? path : path.substr(0, at) + made);
    }
  };
  const auto folds_case = std::make_shared<Folding>("names-Quarry", "names-qUARRY");
  const auto normalises = std::make_shared<Folding>("names-\xc3\xa9", "names-e\xcc\x81");
  for (const auto& files : {folds_case, normalises}) {
    const auto refused = format_mountpath(*files, {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::invalid_argument);
    EXPECT_THAT(refused.error().context(), testing::HasSubstr("another file system"));
    EXPECT_FALSE(files->info(kDescriptorFile)) << "no mountpath was made";
  }
}

// Its owner closed the directory after it was adopted: the object can be deleted, the file is theirs, and the mountpath is well.
TEST_F(DirFiles, a_file_that_may_not_be_removed_stays_and_the_store_works_on) {
  std::filesystem::create_directories(directory / "closed");
  std::ofstream(directory / "closed/f") << "precious";
  const DirStore::Adoption adoption{"closed/f", {1, 0}, kTestChunk, kTestStride, "b", "k", {}};
  ASSERT_TRUE(executor.run(store->adopt(adoption)));
  struct Closed {
    int fd;
    bool set(bool closed) {
      if (::geteuid() != 0) return ::fchmod(fd, closed ? 0555 : 0755) == 0;
      int flags = closed ? FS_IMMUTABLE_FL : 0;
      return ::ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
    }
    ~Closed() {
      set(false);
      ::close(fd);
    }
  } closed{::open((directory / "closed").c_str(), O_RDONLY)};
  if (!closed.set(true)) GTEST_SKIP() << "no directory can be closed here";
  ASSERT_TRUE(remove({1, 0}, 8));
  EXPECT_EQ(store->health().state, StoreState::online);
  EXPECT_EQ(tree()["closed/f"], "precious");
  put_and_show({2, 0}, "other", "written");
  const auto refused = executor.run(store->adopt({"closed/f", {3, 0}, kTestChunk, kTestStride, "b", "k", {}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::permission_denied);
  EXPECT_THAT(refused.error().context(), testing::HasSubstr("directory"));
  reopen();
  EXPECT_EQ(store->open_report().files, 1u);
  ASSERT_TRUE(closed.set(false));
  EXPECT_TRUE(executor.run(store->adopt({"closed/f", {3, 0}, kTestChunk, kTestStride, "b", "k", {}})));
}

TEST_F(DirFiles, an_existing_tree_is_adopted_in_place_under_its_own_names) {
  std::filesystem::create_directories(directory / "photos/100%");
  const std::string big = test_payload(9, 400'000);
  std::ofstream(directory / "photos/cat.jpg") << big;
  std::ofstream(directory / "photos/100%/x") << "odd name";
  std::ofstream(directory / "photos/empty");
  const auto before = tree();
  struct stat inode_before{}, inode_after{};
  ::stat((directory / "photos/cat.jpg").c_str(), &inode_before);
  auto page = executor.run(store->unrecorded("photos", "", 2));
  ASSERT_TRUE(page);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ(page->at(0).path, "photos/100%/x");
  EXPECT_EQ(page->at(1).path, "photos/cat.jpg");
  uint64_t serial = 0;
  for (const auto& [path, content] : before) {
    DirStore::Adoption adoption{
        path, {++serial, 0}, kTestChunk, kTestStride, key_of_path(path).bucket, key_of_path(path).key, {{"content-type", "image/jpeg"}},
        true};
    const auto adopted = executor.run(store->adopt(adoption));
    ASSERT_TRUE(adopted) << adopted.error().to_string();
    EXPECT_EQ(adopted->size, content.size());
    EXPECT_EQ(adopted->md5.size(), 16u);
    EXPECT_EQ(executor.run(store->adopt(adoption)).error().code(), Code::already_exists);
    EXPECT_TRUE(get({serial, 0}, content.size()) == content);
  }
  ::stat((directory / "photos/cat.jpg").c_str(), &inode_after);
  EXPECT_EQ(inode_before.st_ino, inode_after.st_ino);
  EXPECT_EQ(inode_before.st_mtim.tv_nsec, inode_after.st_mtim.tv_nsec);
  EXPECT_EQ(tree(), before);
  EXPECT_THAT(*executor.run(store->unrecorded("", "", 10)), IsEmpty());
  EXPECT_EQ(executor.run(store->adopted_path({1, 0}))->value(), before.begin()->first);
  EXPECT_FALSE(executor.run(store->adopted_path({77, 0}))->has_value());
  put_and_show({78, 0}, "written", "w");
  EXPECT_FALSE(executor.run(store->adopted_path({78, 0}))->has_value());
  ASSERT_TRUE(remove({78, 0}, 1));
  reopen();
  EXPECT_THAT(store->open_report().damage, IsEmpty());
  auto files = executor.run(store->files({}, 10));
  ASSERT_EQ(files->size(), 3u);
  EXPECT_EQ(files->at(0).name, "100%/x");
  EXPECT_EQ(files->at(1).name, "cat.jpg");
  EXPECT_TRUE(get({2, 0}, big.size()) == big);
  // A newer version goes where the adopted one lay; a key whose canonical path an adopted file has makes it yield.
  put_and_show({10, 0}, "100%/x", "new", "photos");
  EXPECT_EQ(tree()["photos/100%/x"], "new");
  EXPECT_EQ(get({1, 0}, 8), "odd name");
  reopen();
  EXPECT_EQ(get({10, 0}, 3), "new");
  expect_sound();
}

TEST_F(DirFiles, an_adopted_file_yields_to_the_key_whose_path_it_has) {
  std::filesystem::create_directories(directory / "b");
  std::ofstream(directory / "b/50%25") << "adopted as 50%25";
  ASSERT_TRUE(executor.run(store->adopt({"b/50%25", {1, 0}, kTestChunk, kTestStride, "b", "50%25", {}, false})));
  put_and_show({2, 0}, "50%", "the key 50%");
  EXPECT_THAT(tree(), ElementsAre(Pair("b/50%25", "the key 50%"), Pair("b/50%2525", "adopted as 50%25")));
  reopen();
  EXPECT_THAT(store->open_report().damage, IsEmpty());
  EXPECT_EQ(get({1, 0}, 16), "adopted as 50%25");
  EXPECT_EQ(get({2, 0}, 11), "the key 50%");
}

TEST_F(DirFiles, without_quarry_the_tree_is_the_data) {
  std::map<std::string, std::string> expected;
  uint64_t serial = 0;
  for (const std::string key : {"a", "deep/er/file.txt", "dir/", "sp ace", "x//y", "..", "\xff\xfe"}) {
    ++serial;
    const std::string content = test_payload(serial, serial * 77'777);
    put_and_show({serial, 0}, key, content);
    expected[*path_of_key("b", key)] = content;
  }
  put_and_show({100, 0}, "a", "newer");
  expected["b/a"] = "newer";
  close();
  std::filesystem::remove_all(directory / ".quarry");
  EXPECT_EQ(tree(), expected);
  for (const auto& [path, content] : expected) EXPECT_TRUE(parse_path(path));
  // And back: a new mountpath there takes nothing for its own before it is adopted.
  ASSERT_TRUE(executor.run(DirStore::format(directory.path(), {})));
  open();
  EXPECT_EQ(store->open_report().files, 0u);
  EXPECT_EQ(store->open_report().foreign_files, expected.size());
  for (const auto& [path, content] : expected) {
    const auto key = key_of_path(path);
    ASSERT_TRUE(executor.run(store->adopt({path, {++serial, 0}, kTestChunk, kTestStride, key.bucket, key.key, {}, false})));
    EXPECT_TRUE(get({serial, 0}, content.size()) == content);
  }
  EXPECT_EQ(tree(), expected);
}

TEST_F(DirFiles, attributes_stay_with_the_file_and_long_records_move_to_side_files) {
  const std::string content = test_payload(1, 1000);
  ASSERT_TRUE(put({1, 1}, "k", content));
  ASSERT_TRUE(executor.run(store->show_file({1, 1}, {{"content-type", "text/plain"}})));
  EXPECT_FALSE(std::filesystem::exists(directory / place_of(kRecords, {1, 1})));
  ASSERT_TRUE(executor.run(store->show_file({1, 1}, {{"note", std::string(5000, 'n')}})));
  EXPECT_TRUE(std::filesystem::exists(directory / place_of(kRecords, {1, 1})));
  EXPECT_EQ(get({1, 1}, 1000), content);
  reopen();
  EXPECT_EQ(store->open_report().records_in_side_files, 1u);
  EXPECT_EQ(get({1, 1}, 1000), content);
  const auto bytes = read_whole(**posix_file_system(directory.path()), place_of(kRecords, {1, 1}), 1 << 20);
  const auto record = decode_record(bytes_of(*bytes));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->record.attributes.at(0).second.size(), 5000u);
  ASSERT_TRUE(remove({1, 1}, 1000));
  EXPECT_FALSE(std::filesystem::exists(directory / place_of(kRecords, {1, 1})));
}

TEST_F(DirFiles, refuses_files_that_contradict_themselves) {
  PutOptions place;
  place.file = FilePlace{{1, 0}, 0, kTestChunk, kTestStride, "b", "k"};
  ASSERT_TRUE(executor.run(store->put({1, 0}, {bytes_of("x")}, place)));
  EXPECT_EQ(executor.run(store->put({1, 0}, {bytes_of("x")}, place)).error().code(), Code::already_exists);
  EXPECT_EQ(executor.run(store->put({1, 7}, {bytes_of("x")}, place)).error().code(), Code::invalid_argument);
  place.file->chunk_size = 10;
  EXPECT_EQ(executor.run(store->put({1, 0}, {bytes_of("longer than ten bytes")}, place)).error().code(), Code::invalid_argument);
  place.file = FilePlace{{2, UINT64_MAX - 5}, 1, kTestChunk, kTestStride, "b", "k"};
  EXPECT_EQ(executor.run(store->put({2, 0}, {bytes_of("x")}, place)).error().code(), Code::invalid_argument);
  EXPECT_EQ(executor.run(store->finish_file({9, 9}, 0)).error().code(), Code::not_found);
  EXPECT_EQ(executor.run(store->show_file({9, 9}, {})).error().code(), Code::not_found);
  EXPECT_TRUE(executor.run(store->hide_file({9, 9})));
  ASSERT_TRUE(executor.run(store->remove({{1, 0}}))) << "abandoned";
  EXPECT_THAT(std::filesystem::directory_iterator(directory / ".quarry/unfinished") == std::filesystem::directory_iterator(), true);
}

}  // namespace
}  // namespace quarry::chunk::dir
