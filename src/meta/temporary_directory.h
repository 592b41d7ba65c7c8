// A directory for one test, removed with everything in it.
#pragma once
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "base/check.h"

namespace quarry::meta {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const char* base = ::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/var/tmp") + "/quarry-meta-XXXXXX";
    CHECK(::mkdtemp(path_.data()) != nullptr, "mkdtemp failed");
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

}  // namespace quarry::meta
