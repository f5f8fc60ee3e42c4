#include "tools/kfdsim/kernel_times.h"

#include <gtest/gtest.h>

namespace eclip::kfdsim {
namespace {

class KernelTimesTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(times.load(HIP_TEST_PROFILE)); }
  KernelTimes times;
};

TEST_F(KernelTimesTest, FindsAKernelByItsDemangledName) {
  const auto kernel = times.find("axpy(float, float const*, float*, int)", 1024, 256);
  ASSERT_NE(kernel, nullptr);
  EXPECT_DOUBLE_EQ(kernel->time_us(15), 8000);
}

TEST_F(KernelTimesTest, FindsItBySymbolName) {
  EXPECT_EQ(times.find("_Z4axpyfPKfPfi", 1024, 256),
            times.find("axpy(float, float const*, float*, int)", 1024, 256));
}

TEST_F(KernelTimesTest, AnotherLaunchWasNotMeasured) {
  EXPECT_EQ(times.find("_Z4axpyfPKfPfi", 1023, 256), nullptr);
  EXPECT_EQ(times.find("_Z4axpyfPKfPfi", 1024, 128), nullptr);
  EXPECT_EQ(times.find("_Z4axpyfPKfPfi", (1ULL << 32) + 1024, 256), nullptr);
}

TEST_F(KernelTimesTest, OtherNamesAreUnknown) {
  EXPECT_EQ(times.find("_Z4axpyfPKfPf", 1024, 256), nullptr);
  EXPECT_EQ(times.find("axpy", 1024, 256), nullptr);
  EXPECT_EQ(times.find("", 1024, 256), nullptr);
  EXPECT_EQ(times.find("_Z", 1024, 256), nullptr);
}

TEST_F(KernelTimesTest, OfTheSameKernelTheFirstCounts) {
  const auto first = times.find("_Z4axpyfPKfPfi", 1024, 256);
  ASSERT_TRUE(times.load(HIP_TEST_PROFILE));
  EXPECT_EQ(times.find("_Z4axpyfPKfPfi", 1024, 256), first);
}

TEST(KernelTimes, WithoutProfilesKnowsNothing) {
  EXPECT_EQ(KernelTimes().find("_Z4axpyfPKfPfi", 1024, 256), nullptr);
}

TEST(KernelTimes, MissingProfileIsAnErrorThatNamesIt) {
  KernelTimes times;
  const auto loaded = times.load("/nonexistent/profile.json");
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message().find("/nonexistent/profile.json"), std::string::npos);
}

}  // namespace
}  // namespace eclip::kfdsim
