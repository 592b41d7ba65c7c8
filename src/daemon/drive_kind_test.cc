#include "daemon/drive_kind.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace quarry::daemon {
namespace {

TEST(DriveSpec, a_path_alone_is_a_raw_drive) {
  const auto spec = parse_drive_spec("/dev/sdb");
  ASSERT_TRUE(spec) << spec.error().to_string();
  EXPECT_EQ(spec->kind, &raw_drive_kind());
  EXPECT_EQ(spec->path, "/dev/sdb");
  EXPECT_EQ(spec->text(), "/dev/sdb") << "as it stands in the map since before there were kinds";
}

TEST(DriveSpec, one_drive_has_one_name) {
  for (const char* text : {"kfs:/srv/a", "kfs:/srv/a/", "kfs:/srv//a///", "kfs:/srv/b/../a", "kfs:/srv/./a"}) {
    const auto spec = parse_drive_spec(text);
    ASSERT_TRUE(spec) << spec.error().to_string();
    EXPECT_EQ(spec->text(), "kfs:/srv/a") << text;
  }
  const auto relative = parse_drive_spec("dir:here");
  ASSERT_TRUE(relative) << relative.error().to_string();
  EXPECT_EQ(relative->text(), "dir:" + (std::filesystem::current_path() / "here").string());
  const auto root = parse_drive_spec("dir:/");
  ASSERT_TRUE(root) << root.error().to_string();
  EXPECT_EQ(root->path, "/");
}

TEST(DriveSpec, what_it_writes_it_reads_again) {
  for (const DriveKind* kind : drive_kinds()) {
    const DriveSpec spec{kind, "/srv/with:colon"};
    const auto again = parse_drive_spec(spec.text());
    if (kind == &raw_drive_kind() && !again) continue;  // written ./NAME by people
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->kind, kind);
    EXPECT_EQ(again->path, spec.path);
  }
}

TEST(DriveSpec, an_unknown_kind_is_told_which_there_are) {
  const auto spec = parse_drive_spec("tape:/dev/st0");
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code(), Code::invalid_argument);
  for (const char* kind : {"raw", "kfs", "dir"}) EXPECT_NE(spec.error().context().find(kind), std::string::npos) << kind;
}

TEST(DriveSpec, a_path_is_needed) {
  for (const char* text : {"", "kfs:", "dir:"}) {
    const auto spec = parse_drive_spec(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_EQ(spec.error().code(), Code::invalid_argument) << text;
  }
}

}  // namespace
}  // namespace quarry::daemon
