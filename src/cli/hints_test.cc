#include "cli/hints.h"

#include <gtest/gtest.h>

#include "cli/drive_notes.h"

namespace quarry::cli {
namespace {

TEST(Hints, a_command_for_a_node_names_the_root_that_was_named) {
  EXPECT_EQ(with_root("away: `quarry device enable 3`, or `quarry device replace 3 NEW`.", "/srv/q"),
            "away: `quarry device enable 3 --root /srv/q`, or `quarry device replace 3 NEW --root /srv/q`.");
  EXPECT_EQ(with_root("away: `quarry device enable 3`", ""), "away: `quarry device enable 3`");
}

TEST(Hints, what_needs_no_node_and_what_is_no_command_of_ours_stay) {
  for (const char* text :
       {"`quarry device format --force /dev/sdx`", "`mount /mnt/a`", "no command", "one ` alone", "`quarry up --root /a --accept-loss`"}) {
    EXPECT_EQ(with_root(text, "/srv/q"), text);
  }
}

TEST(Hints, a_drive_that_is_away_is_never_told_to_be_replaced_at_once) {
  const auto json = parse_json(R"([{"number":3,"state":"missing","reason":"","path":"dir:/mnt/a"},
    {"number":4,"state":"disabled","reason":"disabled: by an operator","path":"/dev/sdb"},
    {"number":5,"state":"active","reason":"","path":"/dev/sdc"},
    {"number":6,"state":"failed","reason":"replaced by drive 7","cause":"replaced","path":"/dev/sdd"}])");
  ASSERT_TRUE(json);
  const auto notes = what_to_do(json->items());
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_LT(notes[0].find("taken back"), notes[0].find("`quarry device replace 3 NEW`"));
  EXPECT_NE(notes[1].find("`quarry device enable 4`"), std::string::npos);
}

}  // namespace
}  // namespace quarry::cli
