// How much of its CUs a kernel holds, and how CUs fall into groups.
#include "daemon/model/occupancy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "daemon/model/cu_groups.h"
#include "tests/unit/model/schedule.h"

namespace eclip::model {
namespace {

Kernel kernel(LaunchShape shape, std::vector<TimePoint> points) {
  return *Kernel::create(shape, points);
}

const GpuDescription::Geometry geometry{.shader_engines = 4,
                                        .cus_per_shader_engine = 15,
                                        .threads_per_cu = 2560,
                                        .workgroups_per_cu = 16,
                                        .registers_per_cu = 65536,
                                        .local_memory_per_cu = 65536};

TEST(WorkgroupsPerCu, IsTheTightestLimit) {
  EXPECT_EQ(workgroups_per_cu({.workgroup_size = 64}, geometry), 16U);
  EXPECT_EQ(workgroups_per_cu({.workgroup_size = 512}, geometry), 5U);
  EXPECT_EQ(workgroups_per_cu({.workgroup_size = 512, .registers_per_thread = 64}, geometry), 2U);
  EXPECT_EQ(workgroups_per_cu({.workgroup_size = 512, .local_memory_bytes = 20000}, geometry), 3U);
}

TEST(WorkgroupsPerCu, IsAtLeastOneForAKernelOfALargerGpu) {
  EXPECT_EQ(workgroups_per_cu({.workgroup_size = 4096}, geometry), 1U);
  EXPECT_EQ(workgroups_per_cu({.workgroup_size = 64, .local_memory_bytes = 200000}, geometry), 1U);
  EXPECT_EQ(workgroups_per_cu({.workgroups = 0, .workgroup_size = 0}, geometry), 16U);
}

class OccupancyTest : public ::testing::Test {
 protected:
  // small_gpu: 4 CUs, one workgroup of 1024 on each at a time.
  GpuDescription gpu = small_gpu();
};

TEST_F(OccupancyTest, SlotsFollowTheWaves) {
  const auto of_small = [this](std::uint32_t workgroups) {
    return occupancy_of(kernel({.workgroups = workgroups, .workgroup_size = 256}, {{1, 10}}), 4,
                        gpu)
        .slots;
  };
  EXPECT_DOUBLE_EQ(of_small(4), 0.25);  // 4 of 16 slots
  EXPECT_DOUBLE_EQ(of_small(16), 1);
  EXPECT_DOUBLE_EQ(of_small(100), 1);
  gpu.timing.full_slots_share = 0.5;
  EXPECT_DOUBLE_EQ(of_small(4), 0.5);
}

TEST_F(OccupancyTest, LoadIsTheCusThatFullSpeedNeeds) {
  // Flat t(c) from 1 CU on: a quarter of 4 CUs is enough.
  const LaunchShape shape{.workgroups = 1, .workgroup_size = 64};
  EXPECT_DOUBLE_EQ(occupancy_of(kernel(shape, {{1, 10}}), 4, gpu).load, 0.25);
  const Kernel scaling = kernel(shape, {{1, 40}, {4, 10}});
  EXPECT_DOUBLE_EQ(occupancy_of(scaling, 4, gpu).load, 1);
  gpu.timing.full_speed_slack = 0.25;
  EXPECT_DOUBLE_EQ(occupancy_of(scaling, 4, gpu).load, 0.8);
  gpu.timing.load_exponent = 0.5;
  EXPECT_DOUBLE_EQ(occupancy_of(kernel(shape, {{1, 10}}), 4, gpu).load, std::sqrt(0.8 / 4));
}

TEST_F(OccupancyTest, TheLastWaveHoldsWhatIsLeftOfTheWorkgroups) {
  const auto of_workgroups = [this](std::uint32_t workgroups) {
    return occupancy_of(
        kernel({.workgroups = workgroups, .workgroup_size = 1024}, {{1, 40}, {4, 10}}), 4, gpu);
  };
  EXPECT_DOUBLE_EQ(of_workgroups(4).last_slots, 1);
  EXPECT_DOUBLE_EQ(of_workgroups(4).last_work, 1);
  EXPECT_DOUBLE_EQ(of_workgroups(16).last_slots, 1);
  EXPECT_DOUBLE_EQ(of_workgroups(16).last_work, 0.25);
  // Two full waves and 2 of 4 workgroups.
  EXPECT_DOUBLE_EQ(of_workgroups(10).slots, 1);
  EXPECT_DOUBLE_EQ(of_workgroups(10).last_slots, 0.5);
  EXPECT_DOUBLE_EQ(of_workgroups(10).last_work, 1.0 / 3);
}

TEST_F(OccupancyTest, TheCacheTellsKernelsAndMasksApart) {
  OccupancyCache cache(gpu);
  const auto first = scaling_kernel(400);
  const auto second = scaling_kernel(800);
  EXPECT_DOUBLE_EQ(cache.find(first, 4).full_us, 100);
  EXPECT_DOUBLE_EQ(cache.find(second, 4).full_us, 200);
  EXPECT_DOUBLE_EQ(cache.find(first, 2).full_us, 200);
  EXPECT_DOUBLE_EQ(cache.find(first, 4).full_us, 100);
}

TEST_F(OccupancyTest, MemoryShareIsWhatMoreCusDoNotSpeedUp) {
  const LaunchShape full{.workgroups = 4, .workgroup_size = 1024};
  EXPECT_DOUBLE_EQ(occupancy_of(kernel(full, {{1, 40}, {4, 10}}), 4, gpu).memory, 0);
  EXPECT_DOUBLE_EQ(occupancy_of(kernel(full, {{1, 10}}), 4, gpu).memory, 1);
  const LaunchShape half{.workgroups = 2, .workgroup_size = 1024};
  EXPECT_DOUBLE_EQ(occupancy_of(kernel(half, {{1, 10}}), 4, gpu).memory, 0.5);
}

TEST(CuGroups, AreTheOverlapsOfTheMasksInUse) {
  CuGroups groups;
  const auto all = groups.acquire(CuMask::full(60));
  EXPECT_EQ(groups.group_sizes().size(), 1U);
  const auto left = groups.acquire(*CuMask::parse("0-29", 60));
  const auto middle = groups.acquire(*CuMask::parse("20-39", 60));
  EXPECT_EQ(groups.group_sizes().size(), 4U);  // 0-19, 20-29, 30-39, 40-59
  EXPECT_EQ(groups.groups_of(all).size(), 4U);
  EXPECT_EQ(groups.groups_of(left).size(), 2U);
  EXPECT_EQ(groups.groups_of(middle).size(), 2U);
  for (const auto slot : {all, left, middle}) {
    double cus = 0;
    for (const std::uint32_t group : groups.groups_of(slot)) cus += groups.group_sizes()[group];
    EXPECT_EQ(cus, groups.cus_in(slot));
  }
}

TEST(CuGroups, ShareASlotForEqualMasksAndReuseFreeOnes) {
  CuGroups groups;
  const auto first = groups.acquire(*CuMask::parse("0-3", 8));
  EXPECT_EQ(groups.acquire(*CuMask::parse("0-3", 8)), first);
  const auto second = groups.acquire(*CuMask::parse("2-7", 8));
  EXPECT_NE(second, first);
  groups.release(first);
  EXPECT_EQ(groups.acquire(*CuMask::parse("0-3", 8)), first);
  groups.release(first);
  groups.release(first);
  EXPECT_EQ(groups.acquire(*CuMask::parse("5", 8)), first);
  EXPECT_EQ(groups.group_sizes().size(), 2U);
}

}  // namespace
}  // namespace eclip::model
