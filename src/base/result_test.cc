#include "base/result.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

Result<int> three() { return 3; }
Result<int> failing() { return fail(Code::corrupt, "file 'a'"); }
Result<void> done() { return {}; }
Result<void> failing_too() { return fail(Code::io_error, "drive 3"); }
Result<void> passes_up() {
  TRY(done());
  TRY_ASSIGN(const int value, failing());
  static_cast<void>(value);
  return {};
}

TEST(Result, asking_for_state_value_or_error_is_reading) {
  EXPECT_TRUE(done());
  EXPECT_TRUE(three().has_value());
  EXPECT_EQ(*three(), 3);
  EXPECT_EQ(three().value(), 3);
  EXPECT_EQ(three().value_or(4), 3);
  EXPECT_EQ(failing().error().code(), Code::corrupt);
  EXPECT_FALSE(passes_up());
  failing().ignore("this is what the test is about");
}

TEST(Result, what_was_moved_or_copied_away_need_not_be_read) {
  Result<int> first = failing();
  Result<int> second = std::move(first);
  Result<int> third = second;
  Result<int> fourth = three();
  EXPECT_TRUE(fourth);
  fourth = std::move(third);
  EXPECT_FALSE(fourth);
}

TEST(Result, a_value_may_die_unread_and_anything_be_assigned_over) {
  static_cast<void>(three());
  Result<void> outcome = fail(Code::internal, "not run");
  outcome = failing_too();
  EXPECT_FALSE(outcome);
}

#ifdef QUARRY_DEV
using ResultDeathTest = ::testing::Test;

TEST_F(ResultDeathTest, an_error_that_dies_unread_stops_the_program) {
  EXPECT_DEATH(static_cast<void>(failing()), "a Result dies unread: corrupt: file 'a'");
}
TEST_F(ResultDeathTest, as_a_variable_a_member_or_in_a_list) {
  EXPECT_DEATH({ const Result<void> never_looked_at = failing_too(); }, "a Result dies unread: io_error: drive 3");
  EXPECT_DEATH(
      {
        std::optional<Result<void>> outcome;
        outcome.emplace(failing_too());
      },
      "a Result dies unread: io_error");
}
TEST_F(ResultDeathTest, the_duty_goes_with_the_value) {
  EXPECT_DEATH(
      {
        Result<int> first = failing();
        const std::vector<Result<int>> kept(1, std::move(first));
      },
      "a Result dies unread: corrupt");
}

TEST(Result, a_frame_that_is_destroyed_before_its_end_takes_its_results_along) {
  const UnfinishedFrame frame(true);
  static_cast<void>(failing());
}
#endif

}  // namespace
}  // namespace quarry
