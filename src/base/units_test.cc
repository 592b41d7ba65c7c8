#include "base/units.h"

#include <gtest/gtest.h>

namespace quarry {
namespace {

TEST(Units, sizes_parse_in_binary_and_decimal) {
  EXPECT_EQ(*parse_size("4096"), 4096u);
  EXPECT_EQ(*parse_size("64KiB"), 65536u);
  EXPECT_EQ(*parse_size("64k"), 65536u);
  EXPECT_EQ(*parse_size("1.5GiB"), 1610612736u);
  EXPECT_EQ(*parse_size("10GB"), 10000000000u);
  EXPECT_FALSE(parse_size("10 parsecs"));
  EXPECT_FALSE(parse_size("-1"));
  EXPECT_FALSE(parse_size(""));
}

TEST(Units, durations_parse_and_print) {
  EXPECT_EQ(*parse_duration("250ms"), std::chrono::milliseconds(250));
  EXPECT_EQ(*parse_duration("2m"), std::chrono::minutes(2));
  EXPECT_EQ(format_duration(std::chrono::seconds(200)), "3m 20s");
  EXPECT_FALSE(parse_duration("soon"));
}

}  // namespace
}  // namespace quarry
