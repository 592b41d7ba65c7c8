// The readable tree of drives that keep files follows the rows, also when the end comes between a commit and its change of names.
#include <gtest/gtest.h>

#include "meta/transact.h"
#include "object/engine/keys.h"
#include "object/testing/harness.h"

namespace quarry::object {
namespace {

struct Files : Harness {
  explicit Files(std::string redundancy) {
    data.keeps_files = true;
    BucketInfo wanted;
    wanted.name = "b";
    wanted.owner = "alice";
    wanted.versioning = Versioning::enabled;
    wanted.policy.redundancy = std::move(redundancy);
    EXPECT_TRUE(executor.run(engine->create_bucket(ctx, std::move(wanted))));
  }
  // A new engine over the same rows and drives.
  size_t restart() {
    data.names_fail = false;
    engine = make_object_engine({.meta = *meta, .data = data, .clock = clock, .random = random});
    auto settled = executor.run(engine->settle_names());
    EXPECT_TRUE(settled);
    return settled ? *settled : 0;
  }
};

class ObjectFiles : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Redundancies, ObjectFiles, ::testing::Values("mirror:2", "whole:2+1"),
                         [](const auto& info) { return std::string(info.param).substr(0, 5) == "whole" ? "copy_and_slices" : "mirror"; });

TEST_P(ObjectFiles, a_removed_object_is_hidden_and_leaves_no_row_behind) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  EXPECT_EQ(f.data.shown.size(), 1u);
  ASSERT_TRUE(f.remove("b", "k"));
  EXPECT_EQ(f.data.shown.size(), 0u);
  EXPECT_EQ(f.restart(), 0u);
}

TEST_P(ObjectFiles, a_file_is_hidden_at_the_next_start_when_the_end_came_after_the_delete_marker) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  ASSERT_TRUE(f.put("b", "other", std::string(50'000, 'y')));
  f.data.names_fail = true;  // as if the process had ended before it came so far
  ASSERT_TRUE(f.remove("b", "k"));
  EXPECT_EQ(f.data.shown.size(), 2u);
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_EQ(f.restart(), 0u);
}

TEST_P(ObjectFiles, a_version_that_is_not_current_any_more_is_hidden_wherever_it_lies) {
  Files f(GetParam());
  for (char c = 'a'; c < 'e'; ++c) ASSERT_TRUE(f.put("b", "k", std::string(50'000, c)));
  EXPECT_EQ(f.data.shown.size(), 1u);
  ASSERT_TRUE(f.remove("b", "k"));
  EXPECT_EQ(f.data.shown.size(), 0u);
}

TEST_P(ObjectFiles, an_older_version_that_became_current_is_shown_at_the_next_start) {
  Files f(GetParam());
  auto first = f.put("b", "k", std::string(50'000, 'x'));
  auto second = f.put("b", "k", std::string(60'000, 'y'));
  ASSERT_TRUE(first && second);
  f.data.shown.clear();
  f.data.names_fail = true;
  ASSERT_TRUE(f.remove("b", "k", second->version_id));
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_EQ(f.get("b", "k").value_or(""), std::string(50'000, 'x'));
}

TEST_P(ObjectFiles, what_was_put_again_meanwhile_stays_shown) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  f.data.names_fail = true;
  ASSERT_TRUE(f.remove("b", "k"));
  f.data.names_fail = false;
  f.data.shown.clear();
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'z')));
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 1u);
}

// What the rows say after each step, also when the end comes between the commit and the change of names.
TEST_P(ObjectFiles, a_version_that_was_overwritten_is_hidden_at_the_next_start_when_the_end_came_after_the_commit) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  const std::set<cluster::WriteId> before = f.data.shown;
  ASSERT_EQ(before.size(), 1u);
  f.data.names_fail = true;
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'y')));
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'z')));
  EXPECT_EQ(f.data.shown, before);
  EXPECT_EQ(f.restart(), 2u);
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_NE(f.data.shown, before);
  EXPECT_EQ(f.restart(), 0u);
  EXPECT_TRUE(f.violations().empty());
}

TEST_P(ObjectFiles, a_version_whose_successor_is_no_file_is_hidden_at_the_next_start) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  f.data.names_fail = true;
  ASSERT_TRUE(f.put("b", "k", "inside the metadata"));
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 0u);
}

TEST_P(ObjectFiles, an_overwrite_leaves_no_row_behind_when_all_went_well) {
  Files f(GetParam());
  for (char c = 'a'; c < 'e'; ++c) ASSERT_TRUE(f.put("b", "k", std::string(50'000, c)));
  EXPECT_EQ(f.restart(), 0u);
}

TEST_P(ObjectFiles, a_version_to_be_hidden_on_a_drive_that_is_away_is_not_forgotten) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  const std::set<cluster::WriteId> before = f.data.shown;
  f.data.names_away = true;
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'y')));
  EXPECT_EQ(f.restart(), 1u);  // still away
  EXPECT_EQ(f.data.shown, before);
  f.data.names_away = false;
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_NE(f.data.shown, before);
  EXPECT_EQ(f.restart(), 0u);
}

TEST_P(ObjectFiles, rows_of_the_first_version_without_a_write_id_are_understood) {
  Files f(GetParam());
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  f.data.names_fail = true;
  ASSERT_TRUE(f.remove("b", "k"));
  auto body = [](meta::Transaction& transaction) -> Task<Result<void>> {
    meta::ScanOptions all{.range = shown_files_range(), .limit = 10};
    CO_TRY_ASSIGN(auto rows, co_await transaction.scan(std::move(all)));
    for (auto& row : rows) {
      transaction.remove(row.key);
      transaction.put(row.key.substr(0, row.key.size() - 8), row.value.substr(0, row.value.size() - 8));
    }
    co_return Result<void>();
  };
  ASSERT_TRUE(f.executor.run(meta::transact(*f.meta, body)));
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 0u);
  EXPECT_EQ(f.restart(), 0u);
}

TEST_P(ObjectFiles, an_upload_in_parts_becomes_one_shown_write) {
  Files f(GetParam());
  f.data.whole = true;
  const std::string first = pattern(kPartSizeMin, 1), second = pattern(1000, 2);
  auto upload = f.create_upload("b", "k");
  ASSERT_TRUE(upload);
  CompleteOptions options;
  for (const std::string& bytes : {first, second}) {
    const auto number = static_cast<uint32_t>(options.parts.size() + 1);
    auto part = f.put_part("b", "k", upload->upload_id, number, bytes);
    ASSERT_TRUE(part);
    options.parts.push_back({.number = number, .etag = part->etag});
  }
  EXPECT_EQ(f.data.shown.size(), 0u);
  ASSERT_TRUE(f.complete("b", "k", upload->upload_id, options));
  EXPECT_EQ(f.get("b", "k").value_or(""), first + second);
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_TRUE(f.violations().empty());
  EXPECT_EQ(f.data.writes_held(), 1u);
  ASSERT_TRUE(f.remove("b", "k"));
  EXPECT_EQ(f.data.shown.size(), 0u);
}

TEST(ObjectRedundancy, too_few_drives_for_a_copy_and_slices_are_named) {
  Harness h;
  BucketInfo wanted;
  wanted.name = "b";
  wanted.owner = "alice";
  wanted.policy.redundancy = "whole:3+1";  // 5 of 4
  auto refused = h.executor.run(h.engine->create_bucket(h.ctx, std::move(wanted)));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().context().find("needs 5 drives or failure domains, there are 4: add 1"), std::string::npos)
      << refused.error().context();
}

}  // namespace
}  // namespace quarry::object
