// Base of the tests that need the simulated GPU around them (reexecute_main.cpp).
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

namespace eclip::test {

class InsideKfdsim : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("ECLIP_INSIDE_KFDSIM") == nullptr) {
      GTEST_SKIP() << "kfdsim needs root and /dev/fuse";
    }
  }
};

}  // namespace eclip::test
