// A directory for one test, removed at its end. In memory where there is room (these tests sync thousands of times, and power cuts are
// simulated above the file system), else in /var/tmp.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace quarry::chunk::kfs {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::error_code unknown;
    const auto space = std::filesystem::space("/dev/shm", unknown);
    std::string name = !unknown && space.available > (1ull << 30) ? "/dev/shm/quarry-kfs-XXXXXX" : "/var/tmp/quarry-kfs-XXXXXX";
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
