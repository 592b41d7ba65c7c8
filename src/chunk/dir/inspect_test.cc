#include "chunk/dir/inspect.h"

#include "chunk/dir/testing/store_fixture.h"

namespace quarry::chunk::dir {
namespace {

using testing::HasSubstr;

class DirInspect : public DirStoreTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    options.use_attributes = GetParam();
    DirStoreTest::SetUp();
  }
  InspectedFile inspect(const std::string& path, bool verify = true) {
    auto file = inspect_file(directory / path, verify);
    EXPECT_TRUE(file && *file) << path;
    return file && *file ? **file : InspectedFile();
  }
};

TEST_P(DirInspect, every_file_says_what_it_is) {
  const std::string content = test_payload(1, 350'000);
  put_and_show({1, 1}, "k", content);
  ASSERT_TRUE(executor.run(store->show_file({1, 1}, {{"content-type", "text/plain"}})));
  put_and_show({2, 1}, "h", content);
  ASSERT_TRUE(executor.run(store->hide_file({2, 1})));
  ASSERT_TRUE(executor.run(store->remove({chunk_of({2, 1}, 1)})));
  ASSERT_TRUE(executor.run(store->put({7, 7}, {bytes_of(content)}, {})));
  std::ofstream(directory / "foreign") << "mine";

  InspectedFile file = inspect("b/k");
  EXPECT_EQ(file.what, "object");
  EXPECT_EQ(file.drive, store->drive_id());
  EXPECT_EQ(file.first, (ChunkId{1, 1}));
  EXPECT_EQ(file.bucket + "/" + file.key, "b/k");
  EXPECT_EQ(file.record_place, GetParam() ? "attribute" : "side file");
  EXPECT_EQ(file.size, 350'000u);
  EXPECT_EQ(file.recorded_size, 350'000u);
  EXPECT_EQ(file.chunks, 4u);
  EXPECT_EQ(file.checksums, 7u);
  EXPECT_TRUE(file.verified);
  EXPECT_EQ(file.problem, "");
  ASSERT_EQ(file.attributes.size(), 1u);
  EXPECT_EQ(file.attributes[0].second, "text/plain");
  EXPECT_FALSE(inspect("b/k", false).verified);

  file = inspect(place_of(kHidden, {2, 1}));
  EXPECT_EQ(file.what, "hidden");
  EXPECT_EQ(file.removed_chunks, 1u);
  EXPECT_EQ(file.problem, "");
  file = inspect(place_of(kAbsent, {2, 1}));
  EXPECT_EQ(file.what, "absent");
  EXPECT_EQ(file.removed_chunks, 1u);
  file = inspect(place_of(kChunks, {7, 7}));
  EXPECT_EQ(file.what, "chunk");
  EXPECT_EQ(file.first, (ChunkId{7, 7}));
  EXPECT_TRUE(file.verified);
  EXPECT_EQ(file.problem, "");
  if (!GetParam()) EXPECT_EQ(inspect(place_of(kRecords, {1, 1})).key, "k");
  EXPECT_EQ(inspect("foreign").what, "foreign");
  EXPECT_EQ(inspect(kDescriptorFile).what, "own");
  TemporaryDirectory elsewhere;
  std::ofstream(elsewhere / "f") << "x";
  EXPECT_FALSE(*inspect_file(elsewhere / "f", true));
}

TEST_P(DirInspect, damage_is_found_and_named) {
  const std::string content = test_payload(1, 350'000);
  put_and_show({1, 1}, "k", content);
  {
    std::fstream edit(directory / "b/k", std::ios::in | std::ios::out | std::ios::binary);
    edit.seekp(123'456);
    edit << "edited";
  }
  InspectedFile file = inspect("b/k");
  EXPECT_EQ(file.bad_checksums, 1u);
  EXPECT_THAT(file.problem, HasSubstr("1 of 7 blocks differ"));
  EXPECT_THAT(inspect("b/k", false).problem, HasSubstr("its time is not the recorded one"));
  std::filesystem::resize_file(directory / "b/k", 1000);
  EXPECT_THAT(inspect("b/k").problem, HasSubstr("it has 1000 bytes, 350000 were stored"));
  ASSERT_TRUE(executor.run(store->put({7, 7}, {bytes_of(content)}, {})));
  std::filesystem::resize_file(directory / place_of(kChunks, {7, 7}), 5);
  EXPECT_NE(inspect(place_of(kChunks, {7, 7})).problem, "");
}

INSTANTIATE_TEST_SUITE_P(Records, DirInspect, testing::Bool(), [](const auto& info) { return info.param ? "attributes" : "side_files"; });

}  // namespace
}  // namespace quarry::chunk::dir
