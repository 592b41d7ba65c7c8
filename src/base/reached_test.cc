#include "base/reached.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

void step() { REACHED("test.rare"); }

#ifdef QUARRY_DEV
TEST(Reached, places_are_counted_once_they_were_passed) {
  EXPECT_FALSE(points_reached().contains("test.rare"));
  step();
  step();
  EXPECT_EQ(points_reached()["test.rare"], 2u);
}
#else
TEST(Reached, nothing_is_counted_in_a_release) {
  step();
  EXPECT_TRUE(points_reached().empty());
}
#endif

}  // namespace
}  // namespace quarry
