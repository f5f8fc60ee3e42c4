// Queues that are made, masked anew and destroyed while kernels run.
#include <gtest/gtest.h>

#include "daemon/model/queue_change.h"
#include "tests/unit/model/schedule.h"

namespace eclip::model {
namespace {

class QueueChange : public ::testing::Test {
 protected:
  QueueId queue(const char* list) { return *device.create_queue(cus(list)); }

  Recorder host;
  Device device{small_gpu(), host};
};

TEST_F(QueueChange, ARunningKernelKeepsItsCusAndTheNextGetsTheNewMask) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, scaling_kernel(400)), us(0));
  device.submit(only, dispatch(2, scaling_kernel(400)), us(0));
  device.advance(us(50));
  ASSERT_TRUE(device.set_cu_mask(only, cus("0")));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 100));
  EXPECT_EQ(host.spans[2], span(102, 502));
}

TEST_F(QueueChange, AKernelThatWaitsForCusMovesToTheNewMask) {
  const QueueId left = queue("0-1");
  const QueueId other = queue("0-1");
  device.submit(left, dispatch(1, scaling_kernel(200)), us(0));
  device.submit(other, dispatch(2, scaling_kernel(200)), us(0));
  device.advance(us(50));
  EXPECT_FALSE(host.spans.contains(2));
  ASSERT_TRUE(device.set_cu_mask(other, cus("2-3")));
  EXPECT_EQ(device.next_event(), us(50));
  EXPECT_FALSE(host.spans.contains(2)) << "callbacks come only with a call that takes a time";
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 100));
  EXPECT_EQ(host.spans[2], span(50, 150));
}

TEST_F(QueueChange, DestroyingAQueueFreesItsCusAndCompletesNothing) {
  const QueueId big = queue("0-3");
  const QueueId other = queue("0-3");
  device.submit(big, dispatch(1, scaling_kernel(400)), us(0));
  device.submit(big, dispatch(2, scaling_kernel(400)), us(0));
  device.submit(other, dispatch(3, scaling_kernel(40)), us(0));
  device.advance(us(30));
  device.destroy_queue(big);
  EXPECT_EQ(device.next_event(), us(30));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1].end, DeviceTime(-1));
  EXPECT_FALSE(host.spans.contains(2));
  EXPECT_EQ(host.spans[3], span(30, 40));
  EXPECT_DOUBLE_EQ(device.power_watts(), 10);
}

TEST_F(QueueChange, DestroyingAQueueWithPacketsThatWaitIsHarmless) {
  const QueueId doomed = queue("0-3");
  host.signals[1] = 1;
  device.submit(doomed, barrier(PacketKind::barrier_and, 1, {1}), us(0));
  device.destroy_queue(doomed);
  device.destroy_queue(doomed);
  host.signals[1] = 0;
  device.signals_changed(us(10));
  device.submit(doomed, dispatch(2, small_kernel(10)), us(10));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1].end, DeviceTime(-1));
  EXPECT_FALSE(host.spans.contains(2));
  EXPECT_EQ(device.next_event(), std::nullopt);
}

TEST_F(QueueChange, ANewQueueDoesNotChangeWhatRuns) {
  const QueueId first = queue("0-3");
  device.submit(first, dispatch(1, scaling_kernel(400)), us(0));
  device.advance(us(30));
  const QueueId second = queue("1-2");
  EXPECT_NE(first, second);
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 100));
}

TEST_F(QueueChange, AQueueIdIsNotUsedAgain) {
  const QueueId first = queue("0-3");
  device.destroy_queue(first);
  EXPECT_NE(queue("0-3"), first);
}

TEST_F(QueueChange, MasksThatDoNotFitAreRefused) {
  const auto empty = device.create_queue(CuMask(4));
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code, Errc::invalid_argument);
  EXPECT_NE(empty.error().message().find("empty"), std::string::npos) << empty.error().message();
  const auto larger = device.create_queue(CuMask::full(5));
  ASSERT_FALSE(larger);
  EXPECT_EQ(larger.error().code, Errc::invalid_argument);
  const QueueId only = queue("0-3");
  EXPECT_EQ(device.set_cu_mask(only, CuMask(4)).error().code, Errc::invalid_argument);
  device.destroy_queue(only);
  EXPECT_EQ(device.set_cu_mask(only, cus("0")).error().code, Errc::not_found);
}

TEST_F(QueueChange, AStallHoldsPacketsBackAndLetsKernelsGoOn) {
  const QueueId one = queue("0-1");
  const QueueId other = queue("2-3");
  device.submit(one, dispatch(1, scaling_kernel(200, 2)), us(0));
  device.submit(one, dispatch(2, scaling_kernel(20, 2)), us(0));
  device.advance(us(50));
  device.stall_processors(us(300));
  device.submit(other, dispatch(3, scaling_kernel(20, 2)), us(60));
  EXPECT_EQ(device.next_event(), us(100));
  device.advance(us(200));
  EXPECT_EQ(host.spans[1], span(0, 100)) << "it had its CUs";
  EXPECT_FALSE(host.spans.contains(2));
  EXPECT_FALSE(host.spans.contains(3));
  EXPECT_EQ(device.next_event(), us(300));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[2], span(300, 310));
  EXPECT_EQ(host.spans[3], span(300, 310));
}

TEST_F(QueueChange, AStallHoldsBarrierPacketsBackToo) {
  const QueueId only = queue("0-3");
  host.signals[64] = 1;
  device.submit(only, barrier(PacketKind::barrier_and, 1, {64}), us(0));
  device.stall_processors(us(50));
  host.signals[64] = 0;
  device.signals_changed(us(10));
  device.advance(us(40));
  EXPECT_EQ(host.spans[1].end, DeviceTime(-1));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1].end, us(53));
}

/// Stalls the processors when packet 2 is complete.
class StallingHost : public Recorder {
 public:
  void packet_completed(QueueId queue, const Packet& packet, DeviceTime start,
                        DeviceTime end) override {
    Recorder::packet_completed(queue, packet, start, end);
    if (packet.cookie == 2) device->stall_processors(end + us(100));
  }
  Device* device = nullptr;
};

/// What the packet that stalls the processors is.
class StallFromAPacket : public ::testing::TestWithParam<PacketKind> {};

TEST_P(StallFromAPacket, HoldsBackAllThatFollowsIt) {
  StallingHost host;
  Device device(small_gpu(), host);
  host.device = &device;
  const QueueId one = *device.create_queue(cus("0-1"));
  const QueueId other = *device.create_queue(cus("2-3"));
  device.submit(one, dispatch(1, small_kernel(10)), us(0));
  if (GetParam() == PacketKind::dispatch) {
    device.submit(one, dispatch(2, small_kernel(10)), us(0));
  } else {
    device.submit(one, barrier(GetParam(), 2, {}), us(0));
  }
  device.submit(one, barrier(PacketKind::barrier_and, 3, {}), us(0));
  device.submit(other, dispatch(4, small_kernel(60)), us(0));
  device.submit(other, dispatch(5, small_kernel(10)), us(0));
  device.advance(us(1000));
  const DeviceTime stalled = host.spans[2].end;
  EXPECT_LT(stalled, us(60));
  EXPECT_EQ(host.spans[3].end, stalled + us(103)) << "the stall and a barrier's time";
  EXPECT_EQ(host.spans[4].end, us(60)) << "it had its CUs";
  EXPECT_EQ(host.spans[5].start, stalled + us(100));
}

INSTANTIATE_TEST_SUITE_P(Kinds, StallFromAPacket,
                         ::testing::Values(PacketKind::dispatch, PacketKind::barrier_and));

TEST_F(QueueChange, AStallPausesRunningKernelsAndHoldsBackTheRest) {
  const QueueId left = queue("0-1");
  const QueueId right = queue("2-3");
  device.submit(left, dispatch(1, small_kernel(100)), us(0));
  EXPECT_EQ(device.stall(us(50), us(30)), us(80));
  EXPECT_EQ(device.next_event(), us(80));
  device.submit(right, dispatch(2, small_kernel(10)), us(40));
  EXPECT_DOUBLE_EQ(device.power_watts(), 10);
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 150));
  EXPECT_EQ(host.spans[2], span(80, 90));
}

TEST_F(QueueChange, StallsFollowEachOther) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, small_kernel(100)), us(0));
  EXPECT_EQ(device.stall(us(50), us(10)), us(60));
  EXPECT_EQ(device.stall(us(50), us(20)), us(110));
  EXPECT_EQ(device.stall(us(0), us(30)), us(110));
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1], span(0, 200));
}

TEST_F(QueueChange, AQueueMayBeDestroyedDuringAStall) {
  const QueueId doomed = queue("0-3");
  const QueueId other = queue("0-3");
  device.submit(doomed, dispatch(1, scaling_kernel(400)), us(0));
  device.submit(other, dispatch(2, scaling_kernel(40)), us(0));
  device.stall(us(50), us(10));
  device.destroy_queue(doomed);
  device.advance(us(1000));
  EXPECT_EQ(host.spans[1].end, DeviceTime(-1));
  EXPECT_EQ(host.spans[2], span(60, 70));
}

TEST(QueueChangeStalls, HaveTheMedianAndThe99thPercentileOfTheDescription) {
  GpuDescription gpu = small_gpu();
  gpu.timing.queue_change_p50_us = 300;
  gpu.timing.queue_change_p99_us = 5000;
  QueueChangeStalls stalls(gpu, 1);
  constexpr int samples = 20000;
  int above_median = 0;
  int above_p99 = 0;
  for (int i = 0; i < samples; ++i) {
    const DeviceTime stall = stalls.next();
    if (stall > us(300)) ++above_median;
    if (stall > us(5000)) ++above_p99;
  }
  EXPECT_NEAR(above_median, samples / 2, samples / 50);
  EXPECT_NEAR(above_p99, samples / 100, samples / 400);
}

TEST(QueueChangeStalls, AreTheSameForTheSameSeedOnly) {
  GpuDescription gpu = small_gpu();
  gpu.timing.queue_change_p50_us = 300;
  gpu.timing.queue_change_p99_us = 5000;
  QueueChangeStalls first(gpu, 7);
  QueueChangeStalls same(gpu, 7);
  QueueChangeStalls other(gpu, 8);
  const DeviceTime stall = first.next();
  EXPECT_EQ(same.next(), stall);
  EXPECT_NE(other.next(), stall);
}

TEST(QueueChangeStalls, AMedianOfZeroMeansNone) {
  EXPECT_EQ(QueueChangeStalls(small_gpu(), 1).next(), us(0));
}

}  // namespace
}  // namespace eclip::model
