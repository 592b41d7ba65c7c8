#include "cli/command_tree.h"

#include <gtest/gtest.h>

namespace quarry::cli {
namespace {

CommandShape small_tree() {
  return {
      "quarry",
      "",
      {{"--version", "print the version", false}},
      {{"object", "objects", {}, {{"put", "files to objects", {{"--jobs", "in flight", true}}, {}}, {"get", "objects to files", {}, {}}}}}};
}

TEST(CommandTree, a_typing_error_finds_its_command) {
  const std::vector<std::string> commands = {"bucket", "object", "device", "status"};
  EXPECT_EQ(closest("objetc", commands), "object");
  EXPECT_EQ(closest("buckte", commands), "bucket");
  EXPECT_EQ(closest("xyzzy", commands), "");
}

TEST(CommandTree, every_shell_gets_a_script_that_knows_nested_commands_and_options) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(small_tree(), shell);
    EXPECT_NE(script.find("put"), std::string::npos) << shell;
    EXPECT_NE(script.find("jobs"), std::string::npos) << shell;
  }
  EXPECT_EQ(completion_script(small_tree(), "tcsh"), "");
}

}  // namespace
}  // namespace quarry::cli
