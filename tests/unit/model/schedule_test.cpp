// Hand-computed schedules of dispatch packets. Times in microseconds; small_gpu() says what the
// device is.
#include <gtest/gtest.h>

#include "tests/unit/model/schedule.h"

namespace eclip::model {
namespace {

class Schedule : public ::testing::Test {
 protected:
  QueueId queue(const char* list) { return *device.create_queue(cus(list)); }

  Recorder host;
  Device device{small_gpu(), host};
};

TEST_F(Schedule, OneKernelTakesItsTimeOnItsMask) {
  const QueueId all = queue("0-3");
  const QueueId half = queue("0-1");
  device.submit(all, dispatch(1, scaling_kernel(400)), us(5));
  EXPECT_EQ(device.next_event(), us(105));
  device.advance(us(104.999));
  EXPECT_EQ(host.spans[1].end, DeviceTime(-1));
  device.advance(us(105));
  EXPECT_EQ(host.spans[1], span(5, 105));
  device.submit(half, dispatch(2, scaling_kernel(400)), us(200));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[2], span(200, 400));
}

TEST_F(Schedule, BarrierBitWaitsAndPaysTheLaunchGap) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, scaling_kernel(400)), us(0));
  device.submit(only, dispatch(2, scaling_kernel(40)), us(0));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 100));
  EXPECT_EQ(host.spans[2], span(102, 112));
}

TEST_F(Schedule, AQueueThatWasIdleForLongerThanTheGapStartsAtOnce) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, scaling_kernel(40)), us(0));
  device.submit(only, dispatch(2, scaling_kernel(40)), us(11));
  device.submit(only, dispatch(3, scaling_kernel(40)), us(50));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[2], span(12, 22));
  EXPECT_EQ(host.spans[3], span(50, 60));
}

TEST_F(Schedule, WithoutTheBarrierBitSmallKernelsOverlap) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, small_kernel(32), false), us(0));
  device.submit(only, dispatch(2, small_kernel(16), false), us(0));
  device.submit(only, dispatch(3, small_kernel(10), true), us(0));
  device.advance(us(1000));
  // Each needs a quarter of the throughput; they meet on 1/16 of it.
  EXPECT_EQ(host.spans[1], span(0, 33));
  EXPECT_EQ(host.spans[2], span(0, 17));
  EXPECT_EQ(host.spans[3], span(35, 45));
}

TEST_F(Schedule, APacketThatFindsNoRoomHoldsBackThoseBehindIt) {
  const QueueId left = queue("0-1");
  const QueueId other = queue("0-1");
  device.submit(left, dispatch(1, scaling_kernel(200)), us(0));
  device.submit(left, dispatch(2, scaling_kernel(200), false), us(0));
  device.submit(left, dispatch(3, small_kernel(10), false), us(0));
  device.submit(other, dispatch(4, scaling_kernel(200)), us(10));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 100));
  EXPECT_EQ(host.spans[2], span(100, 200));
  // 3 comes to the CUs only when 2 has started; 4 has been waiting there since 10.
  EXPECT_EQ(host.spans[4], span(200, 300));
  EXPECT_EQ(host.spans[3], span(300, 310));
}

TEST_F(Schedule, DisjointMasksDoNotWaitForEachOther) {
  const QueueId left = queue("0-1");
  const QueueId right = queue("2-3");
  device.submit(left, dispatch(1, scaling_kernel(400)), us(0));
  device.submit(right, dispatch(2, scaling_kernel(40)), us(10));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 200));
  EXPECT_EQ(host.spans[2], span(10, 30));
}

TEST_F(Schedule, ASmallKernelWaitsForTheRestOfADeviceFillingOne) {
  const QueueId big = queue("0-3");
  const QueueId other = queue("0-3");
  device.submit(big, dispatch(1, scaling_kernel(400)), us(0));
  device.submit(other, dispatch(2, small_kernel(10)), us(30));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 100));
  EXPECT_EQ(host.spans[2], span(100, 110));
}

TEST_F(Schedule, ABigKernelHardlyWaitsForASmallOne) {
  // The small kernel has 1 of 64 slots and needs a quarter of the throughput (1 CU of 4).
  const QueueId first = queue("0-3");
  const QueueId second = queue("0-3");
  device.submit(first, dispatch(1, small_kernel(10)), us(0));
  device.submit(second, dispatch(2, scaling_kernel(400)), us(0));
  device.advance(us(1000));
  // Together they need 63/64 + 1/4 of each CU's throughput; they meet on 63/64 x 1/4 of it.
  const double shared_us = 10 * (1 + 63.0 / 256);
  EXPECT_EQ(host.spans[1], span(0, shared_us));
  // Meanwhile one of the four workgroups of the big kernel finds no room: two rounds instead of
  // one, so 200 us x (1 + 63/256). That makes 1/20 of the work.
  EXPECT_EQ(host.spans[2], span(0, shared_us + 95));
}

TEST_F(Schedule, OverlappingMasksShareOnlyWhatTheyShare) {
  const QueueId left = queue("0-2");
  const QueueId right = queue("1-3");
  device.submit(left, dispatch(1, scaling_kernel(300, 12)), us(0));
  device.submit(right, dispatch(2, scaling_kernel(300, 12)), us(0));
  device.advance(us(1000));
  // The first has 3 CUs for its 100 us; the second has CU 3 alone, then 3 CUs for what is left.
  EXPECT_EQ(host.spans[1], span(0, 100));
  EXPECT_EQ(host.spans[2], span(0, 100 + 200.0 / 3));
}

TEST_F(Schedule, ALastWaveLeavesRoom) {
  const QueueId first = queue("0-3");
  const QueueId second = queue("0-3");
  // A full wave of four workgroups for 50 us, then two workgroups.
  device.submit(first, dispatch(1, scaling_kernel(400, 6)), us(0));
  device.submit(second, dispatch(2, small_kernel(10)), us(0));
  device.advance(us(1000));
  // Together they need 5/4 of the throughput.
  EXPECT_EQ(host.spans[2], span(50, 62.5));
  EXPECT_EQ(host.spans[1], span(0, 102.5));
}

TEST_F(Schedule, OverlapHidesPartOfAnOverload) {
  GpuDescription gpu = small_gpu();
  gpu.timing.overlap_gain = 0.4;
  Recorder recorder;
  Device other(gpu, recorder);
  const QueueId first = *other.create_queue(cus("0-3"));
  const QueueId second = *other.create_queue(cus("0-3"));
  // Half of the slots each, and all of the throughput: twice the time without a gain.
  other.submit(first, dispatch(1, scaling_kernel(400, 2)), us(0));
  other.submit(second, dispatch(2, scaling_kernel(400, 2)), us(0));
  other.advance(us(1000));
  EXPECT_EQ(recorder.spans[1], span(0, 160));
  EXPECT_EQ(recorder.spans[2], span(0, 160));
}

TEST_F(Schedule, KernelsBoundByMemorySlowEachOther) {
  GpuDescription gpu = small_gpu();
  gpu.timing.memory_contention = 0.5;
  Recorder recorder;
  Device other(gpu, recorder);
  const QueueId left = *other.create_queue(cus("0-1"));
  const QueueId right = *other.create_queue(cus("2-3"));
  const auto bound = [](double time_us) {
    const LaunchShape shape{.workgroups = 4, .workgroup_size = 1024};
    return std::make_shared<const Kernel>(
        *Kernel::create(shape, std::vector<TimePoint>{{1, time_us}}));
  };
  other.submit(left, dispatch(1, bound(30)), us(0));
  other.submit(right, dispatch(2, bound(60)), us(0));
  other.advance(us(1000));
  // 45 us together at 2/3 of the speed, then the second has 30 us of work left and runs alone.
  EXPECT_EQ(recorder.spans[1], span(0, 45));
  EXPECT_EQ(recorder.spans[2], span(0, 75));
}

TEST_F(Schedule, AKernelThatScalesLeavesTheMemoryAlone) {
  GpuDescription gpu = small_gpu();
  gpu.timing.memory_contention = 0.5;
  Recorder recorder;
  Device other(gpu, recorder);
  const QueueId left = *other.create_queue(cus("0-1"));
  const QueueId right = *other.create_queue(cus("2-3"));
  other.submit(left, dispatch(1, scaling_kernel(60)), us(0));
  other.submit(right, dispatch(2, scaling_kernel(60)), us(0));
  other.advance(us(1000));
  EXPECT_EQ(recorder.spans[1], span(0, 30));
  EXPECT_EQ(recorder.spans[2], span(0, 30));
}

TEST_F(Schedule, EnergyIsIdlePowerPlusTheBusyShareOfCus) {
  const QueueId half = queue("0-1");
  EXPECT_DOUBLE_EQ(device.power_watts(), 10);
  device.submit(half, dispatch(1, scaling_kernel(2e6)), us(1e6));
  EXPECT_DOUBLE_EQ(device.energy_joules(), 10);
  EXPECT_DOUBLE_EQ(device.power_watts(), 10 + 2 * 5);
  device.advance(us(4e6));
  // 1 s idle, 1 s with 2 busy CUs, 2 s idle.
  EXPECT_DOUBLE_EQ(device.energy_joules(), 10 + 20 + 20);
  EXPECT_DOUBLE_EQ(device.power_watts(), 10);
}

TEST_F(Schedule, MemoryPowerGoesToKernelsThatMoreCusDoNotSpeedUp) {
  GpuDescription gpu = small_gpu();
  gpu.power.memory_watts = 40;
  Recorder recorder;
  Device other(gpu, recorder);
  const QueueId all = *other.create_queue(cus("0-3"));
  // A device-filling kernel with the same time on 2 and 4 CUs is bound by memory: it holds the 2
  // CUs that it needs (half of each), but its waves fill all of them.
  const auto bound = Kernel::create({.workgroups = 4, .workgroup_size = 1024},
                                    std::vector<TimePoint>{{2, 1e6}, {4, 1e6}});
  other.submit(all, dispatch(1, std::make_shared<const Kernel>(*bound)), us(0));
  EXPECT_DOUBLE_EQ(other.power_watts(), 10 + 4 * 5 + 40);
  other.advance(us(1e6));
  other.submit(all, dispatch(2, scaling_kernel(4e6)), us(2e6));
  EXPECT_DOUBLE_EQ(other.power_watts(), 10 + 4 * 5);
}

TEST_F(Schedule, NothingIsDueOnAnIdleDevice) {
  const QueueId only = queue("0-3");
  device.advance(us(1));
  EXPECT_EQ(device.next_event(), std::nullopt);
  device.submit(only, dispatch(1, small_kernel(10)), us(1));
  device.submit(only, dispatch(2, small_kernel(10)), us(1));
  EXPECT_EQ(device.next_event(), us(11));
  device.advance(us(11));
  EXPECT_EQ(device.next_event(), us(13));
  device.advance(us(13));
  EXPECT_EQ(device.next_event(), us(23));
  device.advance(us(23));
  EXPECT_EQ(device.next_event(), std::nullopt);
  EXPECT_EQ(device.now(), us(23));
}

TEST_F(Schedule, ADispatchOfNoKernelTakesNoTime) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, small_kernel(10)), us(0));
  device.submit(only, dispatch(2, nullptr), us(0));
  device.advance(us(100));
  EXPECT_EQ(host.spans[2], span(12, 12));
}

TEST_F(Schedule, APacketFromThePastArrivesNow) {
  const QueueId only = queue("0-3");
  device.advance(us(50));
  device.submit(only, dispatch(1, small_kernel(10)), us(20));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(50, 60));
}

TEST_F(Schedule, TheSameInputsGiveTheSameSchedule) {
  const auto run = [](std::string& log) {
    Recorder recorder;
    GpuDescription gpu = small_gpu();
    gpu.timing.memory_contention = 0.05;
    Device repeated(gpu, recorder);
    const QueueId queues[] = {*repeated.create_queue(cus("0-3")),
                              *repeated.create_queue(cus("0-1")),
                              *repeated.create_queue(cus("1-2"))};
    for (std::uint64_t i = 0; i < 300; ++i)
      repeated.submit(queues[i % 3],
                      dispatch(i,
                               i % 2 == 0 ? scaling_kernel(7.1 * static_cast<double>(1 + i % 5))
                                          : small_kernel(3.3 * static_cast<double>(1 + i % 7)),
                               i % 4 != 0),
                      us(static_cast<double>(i)));
    repeated.advance(us(1e6));
    log = recorder.log;
    return repeated.energy_joules();
  };
  std::string first;
  std::string second;
  EXPECT_EQ(run(first), run(second));
  EXPECT_EQ(first, second);
  EXPECT_NE(first.find("-299@"), std::string::npos);
}

}  // namespace
}  // namespace eclip::model
