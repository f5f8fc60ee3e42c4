#include "tools/kfdsim/device_clock.h"

#include <gtest/gtest.h>

#include <chrono>

namespace eclip::kfdsim {
namespace {

TEST(DeviceClockTest, ATimeFarOffIsNotInThePast) {
  const DeviceClock clock(10, 25'000);
  const auto far = clock.wall(model::DeviceTime::max());
  EXPECT_GT(far, DeviceClock::Wall::now() + std::chrono::years(1));
  EXPECT_EQ(clock.wall(std::chrono::seconds(2)) - clock.wall({}), std::chrono::seconds(20));
}

}  // namespace
}  // namespace eclip::kfdsim
