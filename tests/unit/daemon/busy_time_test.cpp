#include "daemon/busy_time.h"

#include <gtest/gtest.h>

#include "ipc/clock_ticks.h"

namespace eclip::daemon {
namespace {

TEST(BusyTime, ABurstCountsFromItsFirstStartToItsLastEnd) {
  BusyTime busy;
  EXPECT_EQ(busy.add(100, 110, true), 10U);
  EXPECT_EQ(busy.add(190, 200, false), 90U) << "what ran between was not sampled";
}

TEST(BusyTime, APauseDoesNotCount) {
  BusyTime busy;
  busy.add(100, 110, true);
  EXPECT_EQ(busy.add(500, 520, true), 20U);
}

TEST(BusyTime, PacketsThatOverlapCountOnce) {
  BusyTime busy;
  EXPECT_EQ(busy.add(100, 200, true), 100U);
  EXPECT_EQ(busy.add(150, 250, true), 50U);
  EXPECT_EQ(busy.add(120, 240, true), 0U) << "it ended before one that was told of earlier";
}

TEST(BusyTime, TimesThatMakeNoSenseCountNothing) {
  BusyTime busy;
  EXPECT_EQ(busy.add(200, 100, true), 0U);
  EXPECT_EQ(busy.add(0, 0, false), 0U);
}

TEST(BusyTime, TicksBecomeNanoseconds) {
  EXPECT_EQ(ticks_to_ns(25'000'000ULL * 86400 * 100 + 3, 25'000'000),
            86400ULL * 100 * 1'000'000'000 + 120);
  EXPECT_EQ(ticks_to_ns(5, 0), 0U);
}

}  // namespace
}  // namespace eclip::daemon
