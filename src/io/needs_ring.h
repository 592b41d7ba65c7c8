#pragma once
// For tests of what runs on io_uring: left out, with the reason, where a container or a sysctl forbids it.
#include <gtest/gtest.h>

#include "io/ring_executor.h"

namespace quarry {

class NeedsRing : public testing::Test {
 protected:
  void SetUp() override {
    const auto ring = RingExecutor::create({.name = "probe"});
    if (!ring && ring.error().code() == Code::unsupported) GTEST_SKIP() << ring.error().to_string();
    steps_before_ = loop_steps().too_long;
  }
  void TearDown() override {
    EXPECT_EQ(loop_steps().too_long, steps_before_ + long_steps_meant_)
        << "steps of loops; the longest took " << std::chrono::duration<double>(loop_steps().longest).count() << " s";
  }
  uint64_t long_steps_meant_ = 0;  // by the test itself

 private:
  uint64_t steps_before_ = 0;
};

}  // namespace quarry
