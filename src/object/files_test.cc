// The readable tree of drives that keep files follows the rows, also when the end comes between a commit and its change of names.
#include <gtest/gtest.h>

#include "object/testing/harness.h"

namespace quarry::object {
namespace {

struct Files : Harness {
  Files() {
    data.keeps_files = true;
    EXPECT_TRUE(make_bucket("b", Versioning::enabled));
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

TEST(ObjectFiles, a_removed_object_is_hidden_and_leaves_no_row_behind) {
  Files f;
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  EXPECT_EQ(f.data.shown.size(), 1u);
  ASSERT_TRUE(f.remove("b", "k"));
  EXPECT_EQ(f.data.shown.size(), 0u);
  EXPECT_EQ(f.restart(), 0u);
}

TEST(ObjectFiles, a_file_is_hidden_at_the_next_start_when_the_end_came_after_the_delete_marker) {
  Files f;
  ASSERT_TRUE(f.put("b", "k", std::string(50'000, 'x')));
  ASSERT_TRUE(f.put("b", "other", std::string(50'000, 'y')));
  f.data.names_fail = true;  // as if the process had ended before it came so far
  ASSERT_TRUE(f.remove("b", "k"));
  EXPECT_EQ(f.data.shown.size(), 2u);
  EXPECT_EQ(f.restart(), 1u);
  EXPECT_EQ(f.data.shown.size(), 1u);
  EXPECT_EQ(f.restart(), 0u);
}

TEST(ObjectFiles, an_older_version_that_became_current_is_shown_at_the_next_start) {
  Files f;
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

TEST(ObjectFiles, what_was_put_again_meanwhile_stays_shown) {
  Files f;
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

}  // namespace
}  // namespace quarry::object
