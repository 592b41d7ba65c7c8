// A directory that is gone with all that is in it when the test ends. On a real disk (/var/tmp), as memory file systems differ.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace quarry::chunk::dir {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/var/tmp/quarry-dir-test-XXXXXX";
    const char* made = ::mkdtemp(name);
    EXPECT_NE(made, nullptr);
    path_ = made != nullptr ? made : "";
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& below) const { return path_ + "/" + below; }

 private:
  std::string path_;
};

}  // namespace quarry::chunk::dir
