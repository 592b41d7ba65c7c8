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
  }
};

}  // namespace quarry
