// The kernel's time curve t(c).
#include "daemon/model/kernel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace eclip::model {
namespace {

Kernel kernel(std::vector<TimePoint> points) {
  return *Kernel::create({}, points);
}

TEST(KernelCurve, GoesThroughItsPointsExactly) {
  const Kernel curve = kernel({{8, 100.3}, {16, 60.7}, {60, 20.1}});
  EXPECT_EQ(curve.time_us(8), 100.3);
  EXPECT_EQ(curve.time_us(16), 60.7);
  EXPECT_EQ(curve.time_us(60), 20.1);
}

TEST(KernelCurve, InterpolatesInLogLog) {
  const Kernel curve = kernel({{4, 100}, {16, 25}, {64, 25}});
  EXPECT_NEAR(curve.time_us(8), 50, 1e-9);
  EXPECT_NEAR(curve.time_us(10), 40, 1e-9);
  EXPECT_EQ(curve.time_us(40), 25);
}

TEST(KernelCurve, ExtrapolatesBelowAsConstantWorkAndAboveAsConstantTime) {
  const Kernel curve = kernel({{8, 100}, {16, 60}});
  EXPECT_NEAR(curve.time_us(2), 400, 1e-9);
  EXPECT_NEAR(curve.time_us(0.5), 1600, 1e-9);
  EXPECT_EQ(curve.time_us(60), 60);
}

TEST(KernelCurve, IsMonotoneWhereTheMeasurementIsNot) {
  const Kernel curve = kernel({{8, 100}, {16, 36}, {32, 49}, {60, 30}});
  EXPECT_NEAR(curve.time_us(16), 42, 1e-9);  // the geometric mean of 36 and 49
  EXPECT_NEAR(curve.time_us(32), 42, 1e-9);
  EXPECT_NEAR(curve.time_us(60), 30, 1e-9);
  double previous = std::numeric_limits<double>::infinity();
  for (int quarter = 4; quarter < 280; ++quarter) {
    const double cus = quarter / 4.0;
    EXPECT_LE(curve.time_us(cus), previous * (1 + 1e-12)) << cus;
    previous = curve.time_us(cus);
  }
}

TEST(KernelCurve, PoolsARiseOfManyPoints) {
  const Kernel curve = kernel({{1, 1}, {2, 10}, {4, 100}});
  for (const double cus : {1.0, 2.0, 3.0, 4.0}) EXPECT_NEAR(curve.time_us(cus), 10, 1e-9);
}

TEST(KernelCurve, SaysHowManyCusASlowdownNeeds) {
  const Kernel curve = kernel({{4, 100}, {16, 25}, {64, 25}});
  EXPECT_NEAR(curve.cus_for_slowdown(64, 1), 16, 1e-9);
  EXPECT_NEAR(curve.cus_for_slowdown(64, 2), 8, 1e-9);
  EXPECT_NEAR(curve.cus_for_slowdown(64, 8), 2, 1e-9);  // below the first point
  EXPECT_NEAR(curve.cus_for_slowdown(8, 1), 8, 1e-9);
  EXPECT_NEAR(curve.cus_for_slowdown(2, 1.25), 1.6, 1e-9);
}

TEST(KernelCurve, SlowdownAndTimeAreInverse) {
  const Kernel curve = kernel({{8, 90}, {16, 50}, {24, 41}, {60, 33}});
  for (const double cus : {2.0, 5.5, 8.0, 12.5, 16.0, 23.0, 40.0, 60.0})
    for (const double slowdown : {1.0, 1.2, 1.7, 4.0})
      EXPECT_LE(curve.time_us(curve.cus_for_slowdown(cus, slowdown)),
                curve.time_us(cus) * slowdown * (1 + 1e-9))
          << cus << " CUs, slowdown " << slowdown;
}

struct BadPoints {
  const char* name;
  std::vector<TimePoint> points;
  const char* message;
};

class KernelRefuses : public ::testing::TestWithParam<BadPoints> {};

TEST_P(KernelRefuses, BadPoints) {
  const auto made = Kernel::create({}, GetParam().points);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Errc::malformed);
  EXPECT_NE(made.error().message().find(GetParam().message), std::string::npos)
      << made.error().message();
}

INSTANTIATE_TEST_SUITE_P(
    , KernelRefuses,
    ::testing::Values(
        BadPoints{"none", {}, "at least one point"}, BadPoints{"zero_cus", {{0, 1}}, "point 0"},
        BadPoints{"equal_cus", {{8, 2}, {8, 1}}, "point 1"},
        BadPoints{"descending_cus", {{8, 2}, {16, 2}, {9, 1}}, "9 compute units after 16"},
        BadPoints{"zero_time", {{8, 0}}, "positive, finite"},
        BadPoints{"negative_time", {{8, 1}, {9, -1}}, "point 1"},
        BadPoints{"no_number", {{8, std::nan("")}}, "positive, finite"},
        BadPoints{"endless", {{8, std::numeric_limits<double>::infinity()}}, "positive, finite"}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(Kernel, OnAMaskOfItsOwnTakesWholeRoundsOfWorkgroups) {
  // 196 workgroups: 7 rounds on 32 CUs, 4 on 64, 3 on 66 and 68, 2 on 98 and 128; 10 us a round.
  const auto kernel = Kernel::create({.workgroups = 196, .workgroup_size = 128},
                                     std::vector<TimePoint>{{32, 70}, {64, 40}, {128, 20}});
  ASSERT_TRUE(kernel);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(64), 40);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(65), 40);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(66), 30);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(97), 30);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(98), 20);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(132), 20);
  EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(16), 140);
}

TEST(Kernel, OnAMaskStaysBetweenTheMeasuredTimes) {
  // Bound by memory: the number of rounds does not matter.
  const auto kernel = Kernel::create({.workgroups = 100, .workgroup_size = 128},
                                     std::vector<TimePoint>{{40, 20}, {60, 20}, {100, 20}});
  ASSERT_TRUE(kernel);
  for (const std::uint32_t cus : {41U, 49U, 50U, 55U, 61U, 99U})
    EXPECT_DOUBLE_EQ(kernel->time_on_mask_us(cus), 20) << cus;
}

}  // namespace
}  // namespace eclip::model
