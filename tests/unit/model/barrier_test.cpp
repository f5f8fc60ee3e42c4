// Hand-computed schedules of barrier packets. barrier_us is 3, launch_gap_us 2.
#include <gtest/gtest.h>

#include "tests/unit/model/schedule.h"

namespace eclip::model {
namespace {

class Barrier : public ::testing::Test {
 protected:
  QueueId queue(const char* list) { return *device.create_queue(cus(list)); }

  Recorder host;
  Device device{small_gpu(), host};
};

TEST_F(Barrier, AndMakesAKernelOfOneQueueWaitForAnother) {
  const QueueId left = queue("0-1");
  const QueueId right = queue("2-3");
  host.signals[7] = 1;
  host.completion_signals[1] = 7;
  device.submit(left, dispatch(1, small_kernel(40)), us(0));
  device.submit(right, barrier(PacketKind::barrier_and, 2, {7}), us(0));
  device.submit(right, dispatch(3, small_kernel(10)), us(0));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(0, 40));
  EXPECT_EQ(host.spans[2], span(0, 43));
  // No launch gap: the barrier packet has taken its place.
  EXPECT_EQ(host.spans[3], span(43, 53));
}

TEST_F(Barrier, AndWaitsForAllFive) {
  const QueueId only = queue("0-3");
  for (SignalAddress signal = 1; signal <= 5; ++signal) host.signals[signal] = 1;
  device.submit(only, barrier(PacketKind::barrier_and, 1, {1, 2, 3, 4, 5}), us(0));
  for (const SignalAddress signal : {3U, 1U, 5U, 2U}) {
    host.signals[signal] = 0;
    device.signals_changed(us(10.0 * static_cast<double>(signal)));
    EXPECT_EQ(device.next_event(), std::nullopt) << "after signal " << signal;
  }
  host.signals[4] = 0;
  device.signals_changed(us(60));
  EXPECT_EQ(device.next_event(), us(63));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(0, 63));
}

TEST_F(Barrier, AndKeepsWhatItHasSeenEvenIfTheSignalChangesAgain) {
  const QueueId only = queue("0-3");
  host.signals = {{1, 1}, {2, 1}};
  device.submit(only, barrier(PacketKind::barrier_and, 1, {1, 2}), us(0));
  host.signals[1] = 0;
  device.signals_changed(us(10));
  host.signals = {{1, 1}, {2, 0}};
  device.signals_changed(us(20));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(0, 23));
}

TEST_F(Barrier, ASignalThatIsNotExactlyZeroDoesNotSatisfy) {
  const QueueId only = queue("0-3");
  host.signals[1] = -1;
  device.submit(only, barrier(PacketKind::barrier_and, 1, {1}), us(0));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1].end, DeviceTime(-1));
}

TEST_F(Barrier, OrWaitsForOne) {
  const QueueId only = queue("0-3");
  host.signals = {{1, 1}, {2, 1}, {3, 1}};
  device.submit(only, barrier(PacketKind::barrier_or, 1, {1, 2, 3}), us(0));
  device.signals_changed(us(5));
  EXPECT_EQ(device.next_event(), std::nullopt);
  host.signals[2] = 0;
  device.signals_changed(us(20));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(0, 23));
}

TEST_F(Barrier, WithoutDependenciesTakesOnlyItsOwnTime) {
  const QueueId only = queue("0-3");
  device.submit(only, barrier(PacketKind::barrier_and, 1, {}), us(1));
  device.submit(only, barrier(PacketKind::barrier_or, 2, {}), us(1));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(1, 4));
  EXPECT_EQ(host.spans[2], span(4, 7));
}

TEST_F(Barrier, WithTheBarrierBitWaitsForEarlierKernelsOfItsQueue) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, small_kernel(40)), us(0));
  device.submit(only, barrier(PacketKind::barrier_and, 2, {}), us(0));
  device.submit(only, dispatch(3, small_kernel(10)), us(0));
  device.advance(us(100));
  EXPECT_EQ(host.spans[2], span(40, 43));
  EXPECT_EQ(host.spans[3], span(43, 53));
}

TEST_F(Barrier, WithoutTheBarrierBitIsProcessedBesideEarlierKernels) {
  const QueueId only = queue("0-3");
  device.submit(only, dispatch(1, small_kernel(40)), us(0));
  Packet free = barrier(PacketKind::barrier_and, 2, {});
  free.barrier = false;
  device.submit(only, std::move(free), us(0));
  device.submit(only, dispatch(3, small_kernel(16), false), us(0));
  device.advance(us(100));
  EXPECT_EQ(host.spans[2], span(0, 3));
  // Two kernels that need a quarter of the throughput each meet on 1/16 of it.
  EXPECT_EQ(host.spans[3], span(3, 20));
}

TEST_F(Barrier, ABarrierThatWaitsDoesNotHoldBackOtherQueues) {
  const QueueId stuck = queue("0-3");
  const QueueId other = queue("0-3");
  host.signals[1] = 1;
  device.submit(stuck, barrier(PacketKind::barrier_and, 1, {1}), us(0));
  device.submit(stuck, dispatch(2, small_kernel(10)), us(0));
  device.submit(other, dispatch(3, small_kernel(10)), us(0));
  device.advance(us(100));
  EXPECT_EQ(host.spans[3], span(0, 10));
  EXPECT_FALSE(host.spans.contains(2));
}

}  // namespace
}  // namespace eclip::model
