// A directory for one test, removed at its end. On disk, not in memory: /var/tmp.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace quarry::chunk::kfs {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = "/var/tmp/quarry-kfs-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace quarry::chunk::kfs
