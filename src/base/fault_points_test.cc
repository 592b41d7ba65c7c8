#include "base/fault_points.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

Result<int> step() {
  FAULT_TRY("test.step");
  REACHED("test.rare");
  return 1;
}

#ifdef QUARRY_DEV
TEST(FaultPoints, fail_at_the_chosen_hit_and_then_no_more) {
  arm_fault("test.step", FaultAction::fail, 3, 2);
  std::vector<bool> good;
  for (int i = 0; i < 6; ++i) {
    const auto result = step();
    good.push_back(result.has_value());
    if (!result) {
      EXPECT_EQ(result.error().code(), Code::io_error);
      EXPECT_NE(result.error().context().find("test.step"), std::string::npos);
    }
  }
  EXPECT_EQ(good, (std::vector<bool>{true, true, false, false, true, true}));
  disarm_faults();
  EXPECT_TRUE(step());
}

TEST(FaultPoints, die_at_once) {
  EXPECT_EXIT(
      {
        const auto armed = arm_faults("other:fail,test.step:die@2");
        if (!armed || !step() || !step()) std::_Exit(0);
      },
      testing::ExitedWithCode(137), "test.step");
}

TEST(FaultPoints, places_reached_are_counted) {
  const auto before = points_reached()["test.rare"];
  EXPECT_TRUE(step());
  EXPECT_EQ(points_reached()["test.rare"], before + 1);
}
#endif

TEST(FaultPoints, malformed_armings_are_refused) {
  for (const char* bad : {"x", ":die", "x:explode", "x:die@", "x:die@0", "x:die@1x", "a:fail,b"}) EXPECT_FALSE(arm_faults(bad)) << bad;
  EXPECT_TRUE(arm_faults(""));
  disarm_faults();
}

}  // namespace
}  // namespace quarry
