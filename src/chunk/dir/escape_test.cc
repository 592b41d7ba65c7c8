// Keys as paths: readable, reversible, and no two keys on one path. Random keys are made of the pieces that could go wrong.
#include "chunk/dir/escape.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "io/clock.h"

namespace quarry::chunk::dir {
namespace {

std::string path(std::string_view bucket, std::string_view key, PathForm form = PathForm::plain) {
  auto made = path_of_key(bucket, key, form);
  EXPECT_TRUE(made) << made.error().to_string();
  return made ? *made : std::string();
}

TEST(Escape, usual_keys_are_their_own_paths) {
  for (const std::string key : {"a", "photos/2024/cat.jpg", ".hidden/..x", "with space/and=+~,;", "\xff\xfe", "a..b", "...", ".quarry"}) {
    EXPECT_EQ(path("bucket", key), "bucket/" + key);
  }
}

TEST(Escape, what_a_file_system_cannot_name_is_escaped) {
  EXPECT_EQ(path("b", ""), "b/%_");
  EXPECT_EQ(path("b", "/"), "b/%_/%_");
  EXPECT_EQ(path("b", "dir/"), "b/dir/%_");
  EXPECT_EQ(path("b", "a//b"), "b/a/%_/b");
  EXPECT_EQ(path("b", "./../x"), "b/%2E/%2E./x");
  EXPECT_EQ(path("b", "100%"), "b/100%25");
  EXPECT_EQ(path("b", std::string_view("a\0b", 3)), "b/a%00b");
  EXPECT_EQ(path(".quarry", "k"), "%2Equarry/k");
  EXPECT_EQ(path("b", "a", PathForm::yielding), "b/a%=");
  EXPECT_EQ(path("b", std::string(250, 'x')), "b/" + std::string(240, 'x') + "%+/" + std::string(10, 'x'));
  EXPECT_EQ(path("b", std::string(240, 'x') + "."), "b/" + std::string(240, 'x') + "%+/%2E");
}

TEST(Escape, refuses_what_no_path_can_hold) {
  EXPECT_EQ(path_of_key("", "k").error().code(), Code::invalid_argument);
  EXPECT_EQ(path_of_key("a/b", "k").error().code(), Code::invalid_argument);
  EXPECT_EQ(path_of_key("b", std::string(5000, 'x')).error().code(), Code::too_large);
  EXPECT_TRUE(path_of_key("b", std::string(1024, '%'), PathForm::yielding)) << "any key that S3 allows has a path";
  EXPECT_TRUE(path_of_key("b", std::string(1024, '/'), PathForm::yielding));
}

// Short and nasty: so that different keys meet often.
std::string random_key(Random& random) {
  static const std::vector<std::string> pieces = {"a",
                                                  "b",
                                                  "/",
                                                  "/",
                                                  ".",
                                                  "..",
                                                  "%",
                                                  "%25",
                                                  "%_",
                                                  "%=",
                                                  "%+",
                                                  "%2E",
                                                  "=",
                                                  "_",
                                                  "+",
                                                  "25",
                                                  "2E",
                                                  std::string(1, '\0'),
                                                  ".quarry",
                                                  std::string(239, 'x'),
                                                  std::string(240, 'x'),
                                                  "\xc3\xa4",
                                                  "\xff",
                                                  "E",
                                                  "%00",
                                                  "%2e"};
  std::string key;
  for (uint64_t i = random.below(7); i > 0; --i) key += pieces[random.below(pieces.size())];
  return key.size() <= 1024 ? key : key.substr(0, 1024);
}

TEST(EscapeProperty, every_key_comes_back_and_no_two_share_a_path) {
  SeededRandom random(1);
  std::map<std::string, std::pair<std::string, std::string>> seen;
  for (int i = 0; i < 200'000; ++i) {
    std::string bucket = random.below(8) == 0 ? random_key(random) : "b";
    std::erase(bucket, '/');
    if (bucket.empty()) bucket = "b";
    const std::string key = random_key(random);
    for (const PathForm form : {PathForm::plain, PathForm::yielding}) {
      const auto made = path_of_key(bucket, key, form);
      ASSERT_TRUE(made) << made.error().to_string();
      const auto back = parse_path(*made);
      ASSERT_TRUE(back) << *made;
      ASSERT_EQ(back->bucket, bucket) << *made;
      ASSERT_EQ(back->key, key) << *made;
      const auto [at, fresh] = seen.emplace(*made, std::pair(bucket, key));
      ASSERT_EQ(at->second, std::pair(bucket, key)) << *made;
      // A path that the file system takes as it is, inside the mountpath and outside .quarry.
      std::string_view rest = *made;
      bool first = true;
      while (true) {
        const size_t slash = rest.find('/');
        const std::string_view name = rest.substr(0, slash);
        ASSERT_FALSE(name.empty() || name == "." || name == ".." || name.size() > kComponentMax ||
                     name.find('\0') != std::string_view::npos)
            << *made;
        ASSERT_FALSE(first && name == ".quarry");
        first = false;
        if (slash == std::string_view::npos) break;
        rest.remove_prefix(slash + 1);
      }
    }
  }
}

TEST(EscapeProperty, the_yielding_path_needs_only_the_directories_of_the_plain_one) {
  SeededRandom random(2);
  for (int i = 0; i < 20'000; ++i) {
    const std::string key = random_key(random);
    const std::string plain = path("b", key), yielding = path("b", key, PathForm::yielding);
    EXPECT_EQ(plain + "%=", yielding);
  }
}

TEST(EscapeProperty, any_path_has_a_key_and_only_canonical_ones_are_read_as_escaped) {
  SeededRandom random(3);
  for (int i = 0; i < 200'000; ++i) {
    const std::string any = "b/" + random_key(random);
    const auto parsed = parse_path(any);
    const BucketAndKey key = key_of_path(any);
    if (parsed) {
      EXPECT_EQ(key, *parsed);
      const bool one = path(parsed->bucket, parsed->key) == any || path(parsed->bucket, parsed->key, PathForm::yielding) == any;
      EXPECT_TRUE(one) << any;
    } else {
      EXPECT_EQ(key.bucket + "/" + key.key, any);
    }
  }
  EXPECT_EQ(key_of_path("b/100%"), (BucketAndKey{"b", "100%"}));
  EXPECT_EQ(key_of_path("b/a%20b"), (BucketAndKey{"b", "a%20b"}));
  EXPECT_EQ(key_of_path("b/dir/%_"), (BucketAndKey{"b", "dir/"}));
  EXPECT_EQ(key_of_path("top"), (BucketAndKey{"", "top"}));
}

}  // namespace
}  // namespace quarry::chunk::dir
