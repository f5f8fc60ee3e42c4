// What the forwarder does with packets, signals and streams.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "ipc/futex.h"
#include "tests/unit/daemon/forwarder_fixture.h"

namespace eclip::daemon {
namespace {

TEST_F(ForwarderTest, PacketsOfALeaseReachItsStreamAndTheDoorbellRingsOnceForABurst) {
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 1);
  settle();
  LeaseRingWriter writer(ring);
  for (int i = 0; i < 3; ++i) writer.push(dispatch());
  EXPECT_EQ(forwarder_.turn(), Forwarder::Activity::progress);
  EXPECT_EQ(queues_[0].rung(), 0U);
  EXPECT_EQ(queues_[1].rung(), 3U);
  EXPECT_EQ(queues_[1].write_index, 3U);
  EXPECT_EQ(ring.taken.load(), 3U);
  EXPECT_EQ(forwarder_.packets(StreamId{1}), 3U);
  EXPECT_EQ(settle(), Forwarder::Activity::waiting) << "the burst's last packet tells when it ends";
  queues_[1].complete_all();
  EXPECT_EQ(settle(), Forwarder::Activity::idle);
}

TEST_F(ForwarderTest, AFullHardwareQueueHoldsPacketsBackAndLosesNone) {
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0);
  settle();
  LeaseRingWriter writer(ring);
  for (std::size_t i = 0; i < ring_packets + 10; ++i) ASSERT_TRUE(writer.push(dispatch()));
  EXPECT_EQ(settle(), Forwarder::Activity::waiting);
  EXPECT_EQ(queues_[0].rung(), ring_packets);
  queues_[0].complete_all();
  settle();
  EXPECT_EQ(queues_[0].rung(), ring_packets + 10);
}

TEST_F(ForwarderTest, ABarrierIsForwardedAfterThePacketItWaitsForWhateverTheOrderOfTheRings) {
  forwarder_.attach(anna_.forwarded);
  LeaseRing& first = open_lease(anna_, 1, 0);
  LeaseRing& second = open_lease(anna_, 2, 1);
  settle();
  // The barrier's lease is looked at before the lease with its dependency has anything.
  LeaseRingWriter(second).push(wait_for({.signal = 5, .generation = 1}));
  EXPECT_EQ(settle(), Forwarder::Activity::waiting);
  EXPECT_EQ(queues_[1].rung(), 0U);
  LeaseRingWriter(first).push(dispatch({.signal = 5, .generation = 1}));
  EXPECT_EQ(settle(), Forwarder::Activity::waiting) << "it stays awake while the signal is out";
  EXPECT_EQ(queues_[0].rung(), 1U);
  EXPECT_EQ(queues_[1].rung(), 1U);
  EXPECT_EQ(anna_.state->signals[5].value.load(), 1);
  EXPECT_EQ(anna_.state->signals[5].generation.load(), 1U);
}

TEST_F(ForwarderTest, ASignalIsNotArmedAgainWhileABarrierInAQueueStillLooksAtIt) {
  forwarder_.attach(anna_.forwarded);
  LeaseRing& first = open_lease(anna_, 1, 0);
  LeaseRing& second = open_lease(anna_, 2, 1);
  settle();
  LeaseRingWriter on_first(first);
  LeaseRingWriter on_second(second);
  on_first.push(dispatch({.signal = 5, .generation = 1}));
  settle();
  on_second.push(wait_for({.signal = 5, .generation = 1}));
  settle();
  queues_[0].complete_all();  // the dependency completes; the barrier has not been processed yet
  on_first.push(dispatch({.signal = 5, .generation = 2}));
  EXPECT_EQ(settle(), Forwarder::Activity::waiting);
  EXPECT_EQ(anna_.state->signals[5].value.load(), 0);
  queues_[1].complete_all();
  settle();
  EXPECT_EQ(anna_.state->signals[5].value.load(), 1);
  EXPECT_EQ(queues_[0].rung(), 2U);
}

TEST_F(ForwarderTest, ABadPacketCutsItsWorkerOffAndDisturbsNobodyElse) {
  forwarder_.attach(anna_.forwarded);
  forwarder_.attach(ben_.forwarded);
  LeaseRing& bad = open_lease(anna_, 1, 0);
  LeaseRing& good = open_lease(ben_, 2, 1);
  settle();
  LeaseRingWriter bad_writer(bad);
  bad_writer.push(dispatch());
  LeasePacket wrong = dispatch();
  wrong.dispatch.kernel = 77;
  bad_writer.push(wrong);
  bad_writer.push(dispatch());
  LeaseRingWriter(good).push(dispatch());
  settle();
  EXPECT_EQ(queues_[0].rung(), 1U);
  EXPECT_EQ(queues_[1].rung(), 1U);
  ASSERT_EQ(faults_.size(), 1U);
  EXPECT_EQ(faults_[0].worker, WorkerId{1});
  EXPECT_EQ(faults_[0].packet, 1U);
  EXPECT_NE(faults_[0].text.find("77"), std::string::npos);
  EXPECT_EQ(anna_.state->fault.load(), static_cast<std::uint32_t>(Errc::malformed));
  EXPECT_EQ(anna_.state->fault_packet.load(), 1U);
  EXPECT_EQ(ben_.state->fault.load(), 0U);
}

TEST_F(ForwarderTest, AWriteIndexThatRunsAwayCutsItsWorkerOff) {
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0);
  settle();
  ring.written.store(5000);
  settle();
  ASSERT_EQ(faults_.size(), 1U);
  EXPECT_EQ(queues_[0].rung(), 0U);
}

TEST_F(ForwarderTest, AReleasedLeaseClosesAfterItsPacketsHaveCompleted) {
  bool closed = false;
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0, [&] { closed = true; });
  settle();
  LeaseRingWriter(ring).push(dispatch());
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, false);
  settle();
  EXPECT_EQ(queues_[0].rung(), 2U) << "the packet, then the drain's barrier";
  queues_[0].complete_one();
  settle();
  EXPECT_FALSE(closed);
  queues_[0].complete_one();
  settle();
  EXPECT_TRUE(closed);
}

TEST_F(ForwarderTest, ADeadWorkersUnforwardedPacketsAreDroppedAndItGoesWhenItsStreamsAreDry) {
  bool detached = false;
  int closed = 0;
  forwarder_.attach(anna_.forwarded);
  LeaseRing& first = open_lease(anna_, 1, 0, [&] { ++closed; });
  LeaseRing& second = open_lease(anna_, 2, 1, [&] { ++closed; });
  settle();
  LeaseRingWriter(first).push(dispatch({.signal = 1, .generation = 1}));
  settle();
  LeaseRingWriter(second).push(wait_for({.signal = 9, .generation = 1}));  // will never come
  settle();
  forwarder_.detach(anna_.forwarded, [&] { detached = true; });
  settle();
  EXPECT_FALSE(detached);
  queues_[1].complete_all();
  settle();
  EXPECT_EQ(closed, 1);
  EXPECT_FALSE(detached);
  queues_[0].complete_all();
  settle();
  EXPECT_EQ(closed, 2);
  EXPECT_TRUE(detached);
  EXPECT_EQ(settle(), Forwarder::Activity::idle);
}

TEST_F(ForwarderTest, WhatAReleasedLeaseStillHoldsBackIsDroppedWhenAskedTo) {
  bool closed = false;
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0, [&] { closed = true; });
  settle();
  LeaseRingWriter(ring).push(wait_for({.signal = 9, .generation = 1}));  // nobody completes it
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, false);
  settle();
  EXPECT_FALSE(closed);
  EXPECT_EQ(queues_[0].rung(), 0U);
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, true);
  settle();
  queues_[0].complete_one();  // the drain's barrier
  settle();
  EXPECT_TRUE(closed);
}

TEST_F(ForwarderTest, AWorkerCutOffForIgnoringARevocationLosesTheStreamToo) {
  bool closed = false;
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0, [&] { closed = true; });
  settle();
  forwarder_.revoke_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, 1);
  settle();
  LeaseRingWriter writer(ring);
  for (int i = 0; i < 2; ++i) writer.push(wait_for({.signal = 9, .generation = 1}));
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, true);
  settle();
  ASSERT_EQ(faults_.size(), 1U);
  queues_[0].complete_one();
  settle();
  EXPECT_TRUE(closed);
}

TEST_F(ForwarderTest, AWorkerIsNotQuietWhileAPacketOfAClosedLeaseRuns) {
  bool quiet = false;
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0);
  settle();
  LeaseRingWriter(ring).push(dispatch());
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, false);
  settle();
  forwarder_.quiesce(anna_.forwarded, [&] { quiet = true; });
  settle();
  EXPECT_FALSE(quiet);
  queues_[0].complete_all();
  settle();
  EXPECT_TRUE(quiet);
}

TEST_F(ForwarderTest, MoreDrainsThanSignalsWaitTheirTurn) {
  int quiet = 0;
  forwarder_.attach(anna_.forwarded);
  LeaseRingWriter(open_lease(anna_, 1, 0)).push(dispatch());
  settle();
  for (int i = 0; i < 100; ++i) forwarder_.quiesce(anna_.forwarded, [&] { ++quiet; });
  settle();
  EXPECT_EQ(queues_[0].rung(), own_slots_.size()) << "one for the packet, the others for drains";
  for (int i = 0; i < 3; ++i) {
    queues_[0].complete_all();
    settle();
  }
  EXPECT_EQ(quiet, 100);
}

TEST_F(ForwarderTest, ASleepingForwarderIsWokenByAWorkerAndWakesAWaitingWorker) {
  forwarder_.attach(anna_.forwarded);
  LeaseRing& ring = open_lease(anna_, 1, 0);
  forwarder_.start();
  LeaseRingWriter writer(ring);
  auto& wakes = anna_.state->signals[0].wakes;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (std::uint32_t round = 1; round <= 200; ++round) {
    while (board_.forwarder_asleep.load() == 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    ASSERT_EQ(board_.forwarder_asleep.load(), 1U) << "it does not go to sleep";
    writer.push(dispatch({.signal = 0, .generation = round}));
    anna_.request.waiters[0].fetch_add(1);
    if (board_.forwarder_asleep.load() != 0) {
      anna_.request.wake.fetch_add(1);
      futex_wake_all(anna_.request.wake);
    }
    while (queues_[0].rung() < round && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    ASSERT_EQ(queues_[0].rung(), round) << "it was not woken";
    const std::uint32_t before = wakes.load();
    queues_[0].complete_one();
    while (wakes.load() == before && std::chrono::steady_clock::now() < deadline)
      futex_wait(wakes, before, std::chrono::seconds(1));
    ASSERT_NE(wakes.load(), before) << "the waiting worker was not woken";
    anna_.request.waiters[0].fetch_sub(1);
  }
}

}  // namespace
}  // namespace eclip::daemon
