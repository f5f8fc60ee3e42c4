// Base of the tests that need the simulated GPU around them (reexecute_main.cpp).
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

namespace eclip::test {

class InsideKfdsim : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* refusal = std::getenv("ECLIP_KFDSIM_REFUSAL")) GTEST_SKIP() << refusal;
  }
};

}  // namespace eclip::test
