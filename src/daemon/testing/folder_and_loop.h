// FolderAndLoop: a temporary folder of its own and a loop that drives are opened on.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "io/ring_executor.h"

namespace quarry::daemon {

class FolderAndLoop : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "quarry-daemon-" + std::to_string(::getpid());
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
    auto loops = ExecutorPool::start({.name = "test", .threads = 1});
    ASSERT_TRUE(loops) << loops.error().to_string();
    loops_ = std::move(*loops);
  }
  void TearDown() override {
    loops_->stop();
    loops_.reset();
    std::filesystem::remove_all(root_);
  }
  Executor& loop() { return loops_->executor(0); }

  std::string root_;
  std::unique_ptr<ExecutorPool> loops_;
};

}  // namespace quarry::daemon
