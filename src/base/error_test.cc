#include "base/error.h"

#include <gtest/gtest.h>

#include "base/result.h"

namespace quarry {
namespace {

Result<int> failing() { return fail(Code::corrupt, "file '{}'", "a").because(Reason::changed); }
Result<void> passes_it_up() {
  auto result = failing();
  if (!result) return std::move(result).error().with("bucket 'b'");
  return {};
}

TEST(Error, context_that_is_added_on_the_way_up_keeps_code_and_reason) {
  const auto result = passes_it_up();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::corrupt);
  EXPECT_EQ(result.error().reason(), Reason::changed);
  EXPECT_EQ(result.error().to_string(), "corrupt: bucket 'b': file 'a'");
}

TEST(Error, reasons_have_names_and_most_errors_have_none) {
  EXPECT_EQ(fail(Code::not_found, "x").reason(), Reason::none);
  EXPECT_EQ(reason_name(Reason::vanished), "vanished");
  EXPECT_FALSE(reason_description(Reason::rot).empty());
  EXPECT_EQ(reason_name(static_cast<Reason>(200)), "unlisted_reason");
}

}  // namespace
}  // namespace quarry
