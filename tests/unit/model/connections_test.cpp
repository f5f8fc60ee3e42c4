// Queues that share hardware connections. barrier_us is 3, launch_gap_us 2, a time slice 1000 us.
#include <gtest/gtest.h>

#include "tests/unit/model/schedule.h"

namespace eclip::model {
namespace {

GpuDescription with_connections(std::uint32_t count) {
  GpuDescription gpu = small_gpu();
  gpu.timing.connections = count;
  return gpu;
}

class SharedConnection : public ::testing::Test {
 protected:
  QueueId queue(const char* list) { return *device.create_queue(cus(list)); }

  Recorder host;
  Device device{with_connections(2), host};
};

TEST_F(SharedConnection, IndependentKernelsOfTwoQueuesOnOneConnectionOverlap) {
  Device narrow(with_connections(1), host);
  const QueueId left = *narrow.create_queue(cus("0-1"));
  const QueueId right = *narrow.create_queue(cus("2-3"));
  narrow.submit(left, dispatch(1, small_kernel(40)), us(0));
  narrow.submit(right, dispatch(2, small_kernel(30)), us(0));
  narrow.advance(us(100));
  EXPECT_EQ(host.spans[1], span(0, 40));
  EXPECT_EQ(host.spans[2], span(0, 30));
}

TEST_F(SharedConnection, AWaitHoldsBackTheOtherQueuesOfItsConnectionOnly) {
  const QueueId waiting = queue("0");
  const QueueId free = queue("1");
  const QueueId held_back = queue("2");
  host.signals[1] = 1;
  device.submit(waiting, barrier(PacketKind::barrier_and, 1, {1}), us(0));
  device.submit(free, dispatch(2, small_kernel(50)), us(0));
  device.submit(held_back, dispatch(3, small_kernel(10)), us(0));
  device.advance(us(20));
  host.signals[1] = 0;
  device.signals_changed(us(20));
  device.advance(us(100));
  EXPECT_EQ(host.spans[1], span(0, 23));
  EXPECT_EQ(host.spans[2], span(0, 50));
  EXPECT_EQ(host.spans[3], span(23, 33));
}

TEST_F(SharedConnection, ALaunchGapThatEndsOutOfTurnWaitsForTheNextTurn) {
  GpuDescription gpu = with_connections(1);
  gpu.timing.connection_slice_us = 1.5;
  Device narrow(gpu, host);
  const QueueId left = *narrow.create_queue(cus("0"));
  const QueueId right = *narrow.create_queue(cus("1"));
  host.signals[1] = 1;
  narrow.submit(left, dispatch(1, small_kernel(10)), us(0));
  narrow.submit(left, dispatch(2, small_kernel(10)), us(0));
  narrow.submit(right, barrier(PacketKind::barrier_and, 3, {1}), us(0));
  narrow.advance(us(30));
  // The gap ends at 12; from 11.5 to 13 it is the turn of the queue that waits for the signal.
  EXPECT_EQ(host.spans[2], span(13, 23));
}

TEST_F(SharedConnection, ADependentKernelHoldsBackTheOtherQueueToo) {
  const QueueId first = queue("0");
  const QueueId other = queue("1");
  const QueueId third = queue("2");
  device.submit(first, dispatch(1, small_kernel(40)), us(0));
  device.submit(first, dispatch(2, small_kernel(10)), us(0));
  device.submit(other, dispatch(3, small_kernel(100)), us(0));
  device.submit(third, dispatch(4, small_kernel(10)), us(0));
  device.advance(us(200));
  EXPECT_EQ(host.spans[2], span(42, 52));
  EXPECT_EQ(host.spans[4], span(42, 52));
}

TEST_F(SharedConnection, AnIdleQueueHasNone) {
  const QueueId first = queue("0");
  const QueueId second = queue("1");
  const QueueId third = queue("2");
  host.signals = {{1, 1}, {2, 1}};
  device.submit(first, dispatch(1, small_kernel(10)), us(0));
  device.submit(second, barrier(PacketKind::barrier_and, 2, {1}), us(0));
  device.advance(us(20));
  // `first` is idle: `third` has its connection to itself.
  device.submit(third, dispatch(3, small_kernel(10)), us(20));
  device.advance(us(40));
  EXPECT_EQ(host.spans[3], span(20, 30));
}

TEST_F(SharedConnection, AWaitForAQueueBehindItEndsAfterATimeSlice) {
  Device narrow(with_connections(1), host);
  const QueueId waiting = *narrow.create_queue(cus("0"));
  const QueueId behind = *narrow.create_queue(cus("1"));
  host.signals[1] = 1;
  host.completion_signals[2] = 1;
  narrow.submit(waiting, barrier(PacketKind::barrier_and, 1, {1}), us(0));
  narrow.submit(behind, dispatch(2, small_kernel(10)), us(0));
  EXPECT_EQ(narrow.next_event(), us(1000));
  narrow.advance(us(2000));
  EXPECT_EQ(host.spans[2], span(1000, 1010));
  EXPECT_EQ(host.spans[1], span(0, 1013));
}

TEST_F(SharedConnection, DestroyingTheQueueThatWaitsLetsTheOthersGoOn) {
  Device narrow(with_connections(1), host);
  const QueueId waiting = *narrow.create_queue(cus("0"));
  const QueueId behind = *narrow.create_queue(cus("1"));
  host.signals[1] = 1;
  narrow.submit(waiting, barrier(PacketKind::barrier_and, 1, {1}), us(0));
  narrow.submit(behind, dispatch(2, small_kernel(10)), us(0));
  narrow.advance(us(50));
  narrow.destroy_queue(waiting);
  narrow.advance(us(100));
  EXPECT_EQ(host.spans[2], span(50, 60));
}

}  // namespace
}  // namespace eclip::model
