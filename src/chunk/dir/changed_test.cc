// Files changed behind our back are noticed by size, by time, and by checksum in any case; wrong bytes are never returned.
#include <fcntl.h>
#include <unistd.h>

#include "chunk/dir/testing/store_fixture.h"

namespace quarry::chunk::dir {
namespace {

using testing::HasSubstr;

class DirChanged : public DirStoreTest, public testing::WithParamInterface<bool> {
 protected:
  const std::string content = test_payload(1, 350'000);
  void SetUp() override {
    options.use_attributes = GetParam();
    DirStoreTest::SetUp();
    put_and_show({1, 1}, "k", content);
    ASSERT_TRUE(get({1, 1}, content.size()) == content);  // and is open now
  }
  std::string path() const { return directory / "b/k"; }
  void overwrite(uint64_t at, const std::string& bytes, bool keep_time) {
    struct stat before{};
    ASSERT_EQ(::stat(path().c_str(), &before), 0);
    const int fd = ::open(path().c_str(), O_WRONLY);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at)), static_cast<ssize_t>(bytes.size()));
    const timespec times[] = {before.st_atim, keep_time ? before.st_mtim : timespec{1'600'000'000, 5}};
    ASSERT_EQ(::futimens(fd, times), 0);
    ::close(fd);
  }
  void expect_corrupt(uint32_t chunk, Reason reason) {
    const auto got = executor.run(store->get(chunk_of({1, 1}, chunk), 0, kTestChunk));
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), Code::corrupt);
    EXPECT_EQ(got.error().reason(), reason) << got.error().to_string();
    EXPECT_THAT(got.error().context(), HasSubstr("behind Quarry's back"));
    EXPECT_THAT(got.error().context(), HasSubstr("let Quarry rebuild it"));
  }
};

TEST_P(DirChanged, a_file_of_another_size_is_not_served) {
  ASSERT_EQ(::truncate(path().c_str(), 349'999), 0);
  for (const bool again : {false, true}) {
    for (uint32_t chunk = 0; chunk < 4; ++chunk) expect_corrupt(chunk, Reason::changed);
    if (!again) reopen();
  }
  const auto report = executor.run(store->fsck());
  EXPECT_FALSE(report->violations.empty());
}

TEST_P(DirChanged, a_file_with_new_content_and_time_is_not_served_in_any_part) {
  overwrite(5, "changed", false);
  for (const bool again : {false, true}) {
    for (uint32_t chunk = 0; chunk < 4; ++chunk) expect_corrupt(chunk, Reason::changed);
    if (!again) reopen();
  }
  EXPECT_GT(store->health().checksum_errors, 0u);
}

TEST_P(DirChanged, new_content_under_the_old_time_is_found_by_checksum) {
  overwrite(250'000, "changed", true);
  for (const bool again : {false, true}) {
    expect_corrupt(2, Reason::rot);
    EXPECT_TRUE(executor.run(store->get(chunk_of({1, 1}, 1), 0, kTestChunk))) << "what is as it was is served";
    if (!again) reopen();
  }
  const auto scrub = executor.run(store->scrub({}, UINT64_MAX));
  ASSERT_TRUE(scrub);
  ASSERT_EQ(scrub->damaged.size(), 1u);
  EXPECT_EQ(scrub->damaged[0].id, chunk_of({1, 1}, 2));
  EXPECT_EQ(scrub->damaged[0].reason, Reason::rot);
  EXPECT_EQ(scrub->chunks_checked, 4u);
}

TEST_P(DirChanged, a_file_that_was_only_touched_is_verified_whole_and_served) {
  overwrite(0, content.substr(0, 1), false);
  EXPECT_TRUE(get({1, 1}, content.size()) == content);
  reopen();
  EXPECT_TRUE(get({1, 1}, content.size()) == content);
}

TEST_P(DirChanged, content_that_was_put_back_is_served_again) {
  overwrite(5, "changed", false);
  expect_corrupt(0, Reason::changed);
  overwrite(5, content.substr(5, 7), false);
  EXPECT_TRUE(get({1, 1}, content.size()) == content);
}

TEST_P(DirChanged, a_removed_or_replaced_file_is_not_served) {
  TemporaryDirectory backup;
  ASSERT_EQ(std::system(fmt::format("cp -a {} {}/kept", path(), backup.path()).c_str()), 0);
  std::filesystem::remove(path());
  expect_corrupt(0, Reason::vanished);
  std::ofstream(path()) << content.substr(0, 100);
  expect_corrupt(0, GetParam() ? Reason::replaced : Reason::changed);
  ASSERT_EQ(std::system(fmt::format("cp -a {}/kept {}", backup.path(), directory / "b/new").c_str()), 0);
  ASSERT_EQ(::rename((directory / "b/new").c_str(), path().c_str()), 0);
  EXPECT_TRUE(get({1, 1}, content.size()) == content) << "put back from a backup";
  std::ofstream(directory / "copy") << content;
  ASSERT_EQ(::rename((directory / "copy").c_str(), path().c_str()), 0);  // as editors save
  const auto got = executor.run(get_whole_file(*store, {1, 1}, content.size()));
  if (GetParam()) {
    EXPECT_FALSE(got) << "the record was lost with the attributes";
  } else {
    EXPECT_TRUE(got && *got == content) << "the side file's record fits";
  }
}

// As editors save: a new file under the name. It is theirs, whatever happens to the object.
TEST_P(DirChanged, what_somebody_put_in_the_place_of_a_file_survives_its_hiding_and_removal) {
  const auto replace = [this](const std::string& bytes) {
    std::ofstream(directory / "theirs") << bytes;
    ASSERT_EQ(::rename((directory / "theirs").c_str(), path().c_str()), 0);
  };
  replace("theirs");
  ASSERT_TRUE(executor.run(store->hide_file({1, 1})));
  EXPECT_EQ(tree()["b/k"], "theirs");
  EXPECT_EQ(read({1, 1}, content.size()).error().code(), Code::corrupt);
  ASSERT_TRUE(remove({1, 1}, content.size()));
  EXPECT_EQ(tree()["b/k"], "theirs");
  reopen();
  EXPECT_EQ(tree()["b/k"], "theirs");
  EXPECT_EQ(store->open_report().files, 0u);

  put_and_show({2, 1}, "m", content);
  std::ofstream(directory / "theirs") << "theirs, too";
  ASSERT_EQ(::rename((directory / "theirs").c_str(), (directory / "b/m").c_str()), 0);
  ASSERT_TRUE(remove({2, 1}, content.size()));
  EXPECT_EQ(tree()["b/m"], "theirs, too");
}

TEST_P(DirChanged, what_somebody_put_in_the_place_of_a_file_is_moved_aside_by_the_next_version) {
  std::ofstream(directory / "theirs") << "theirs";
  ASSERT_EQ(::rename((directory / "theirs").c_str(), path().c_str()), 0);
  put_and_show({2, 1}, "k", "the next version");
  EXPECT_EQ(tree()["b/k"], "the next version");
  ASSERT_TRUE(remove({1, 1}, content.size()));
  reopen();
  EXPECT_EQ(get({2, 1}, 16), "the next version");
  std::string aside;
  for (const auto& entry : std::filesystem::directory_iterator(directory / ".quarry/displaced")) {
    std::ifstream in(entry.path());
    aside += std::string(std::istreambuf_iterator<char>(in), {}) + ";";
  }
  EXPECT_EQ(aside, "theirs;");
}

TEST_P(DirChanged, a_replaced_file_makes_way_for_a_directory_and_survives) {
  std::ofstream(directory / "theirs") << "theirs";
  ASSERT_EQ(::rename((directory / "theirs").c_str(), path().c_str()), 0);
  put_and_show({2, 1}, "k/below", "x");
  EXPECT_EQ(tree()["b/k/below"], "x");
  EXPECT_FALSE(tree().contains("b/k%="));
  ASSERT_TRUE(remove({1, 1}, content.size()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory / ".quarry/displaced"), {}), 1);
}

TEST_P(DirChanged, anonymous_chunks_are_verified_too) {
  const std::string chunk = test_payload(7, 200'000);
  ASSERT_TRUE(executor.run(store->put({7, 7}, {bytes_of(chunk)}, {})));
  const std::string file = directory / place_of(kChunks, {7, 7});
  for (const uint64_t at : {uint64_t{3}, uint64_t{30}, uint64_t{60}, uint64_t{150'000}}) {
    const int fd = ::open(file.c_str(), O_RDWR);
    char old = 0;
    ASSERT_EQ(::pread(fd, &old, 1, static_cast<off_t>(at)), 1);
    const char other = static_cast<char>(old ^ 4);
    ASSERT_EQ(::pwrite(fd, &other, 1, static_cast<off_t>(at)), 1);
    EXPECT_EQ(executor.run(store->get({7, 7}, 0, kChunkSizeMax)).error().reason(), Reason::rot) << at;
    ASSERT_EQ(::pwrite(fd, &old, 1, static_cast<off_t>(at)), 1);
    ::close(fd);
    EXPECT_TRUE(executor.run(store->get({7, 7}, 0, kChunkSizeMax)));
  }
  std::filesystem::remove(file);
  EXPECT_EQ(executor.run(store->get({7, 7}, 0, kChunkSizeMax)).error().reason(), Reason::vanished);
}

INSTANTIATE_TEST_SUITE_P(Records, DirChanged, testing::Bool(), [](const auto& info) { return info.param ? "attributes" : "side_files"; });

TEST_F(DirStoreTest, a_moved_file_and_a_copied_one_are_told_apart_at_open) {
  const std::string content = test_payload(1, 5000);
  put_and_show({1, 1}, "k", content);
  put_and_show({2, 1}, "m", content);
  close();
  ASSERT_EQ(std::system(fmt::format("cp -a {}/b/k {}/b/copy && mv {}/b/m {}/b/moved", directory.path(), directory.path(), directory.path(),
                                    directory.path())
                            .c_str()),
            0);
  open();
  EXPECT_EQ(store->open_report().damage.size(), 2u);
  EXPECT_EQ(get({1, 1}, 5000), content);
  EXPECT_EQ(get({2, 1}, 5000), content);
  ASSERT_TRUE(remove({1, 1}, 5000));
  EXPECT_TRUE(std::filesystem::exists(directory / "b/copy"));
  put_and_show({3, 1}, "m", "new");
  EXPECT_EQ(tree()["b/moved"], "new") << "where the key was last";
}

}  // namespace
}  // namespace quarry::chunk::dir
