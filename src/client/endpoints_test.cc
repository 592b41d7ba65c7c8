#include "client/endpoints.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace quarry::client {
namespace {

class EndpointsFile : public ::testing::Test {
 protected:
  EndpointsFile() {
    std::string name = (std::filesystem::temp_directory_path() / "quarry-endpoints-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
  }
  ~EndpointsFile() override { std::filesystem::remove_all(root_); }
  std::string path() const { return root_ + "/endpoints.json"; }
  void write(const std::string& text) const { std::ofstream(path()) << text; }
  std::string root_;
  const Endpoints endpoints_{.s3 = "http://127.0.0.1:9000",
                             .admin = "https://[::1]:9001",
                             .access_key = "AKIA\"quoted\"",
                             .secret_key = "back\\slash/and+plus",
                             .region = "eu-north-7"};
};

TEST_F(EndpointsFile, what_is_written_is_read_back) {
  ASSERT_TRUE(write_endpoints(root_, endpoints_));
  const auto read = read_endpoints(root_);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->s3, endpoints_.s3);
  EXPECT_EQ(read->admin, endpoints_.admin);
  EXPECT_EQ(read->access_key, endpoints_.access_key);
  EXPECT_EQ(read->secret_key, endpoints_.secret_key);
  EXPECT_EQ(read->region, endpoints_.region);
}

TEST_F(EndpointsFile, keys_are_for_the_owner_alone_whatever_was_there_before) {
  write("{}");
  ::chmod(path().c_str(), 0666);
  std::ofstream(path() + ".new") << "what a crash left";
  ::chmod((path() + ".new").c_str(), 0666);
  ASSERT_TRUE(write_endpoints(root_, endpoints_));
  struct stat info{};
  ASSERT_EQ(::stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  EXPECT_FALSE(std::filesystem::exists(path() + ".new"));
  EXPECT_TRUE(read_endpoints(root_));
}

TEST_F(EndpointsFile, a_missing_file_says_how_to_start_a_node) {
  const auto read = read_endpoints(root_);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), Code::not_found);
  EXPECT_NE(read.error().to_string().find("quarry up --root " + root_), std::string::npos);
}

TEST_F(EndpointsFile, a_file_of_before_regions_means_the_usual_one) {
  write(R"({"s3": "http://a:1", "admin": "http://a:2", "access_key": "k", "secret_key": "s"})");
  const auto read = read_endpoints(root_);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->region, "us-east-1");
}

TEST_F(EndpointsFile, damage_is_an_error) {
  for (const char* text : {"", "{", "[]", R"({"s3": "http://a:1"})", R"({"s3": 1, "admin": "", "access_key": "", "secret_key": ""})"}) {
    write(text);
    EXPECT_FALSE(read_endpoints(root_)) << text;
  }
}

TEST_F(EndpointsFile, a_directory_that_is_not_there_cannot_be_written) { EXPECT_FALSE(write_endpoints(root_ + "/nowhere", endpoints_)); }

}  // namespace
}  // namespace quarry::client
