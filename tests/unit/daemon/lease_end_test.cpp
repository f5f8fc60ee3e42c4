// How leases end: what still runs, what is dropped, and what the worker is told of it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "ipc/futex.h"
#include "tests/unit/daemon/forwarder_fixture.h"

namespace eclip::daemon {
namespace {

class LeaseEnds : public ForwarderTest {
 protected:
  void SetUp() override {
    forwarder_.attach(anna_.forwarded);
    settle();
  }
  /// As open_lease(), and active, as the control thread leaves it.
  LeaseRing& open_active(FakeWorker& worker, std::uint64_t lease, std::uint32_t stream,
                         std::function<void()> on_closed = {}) {
    worker.state->leases[lease].state = static_cast<std::uint32_t>(LeaseState::active);
    LeaseRing& ring = open_lease(worker, lease, stream, std::move(on_closed));
    settle();
    return ring;
  }
  static LeaseState state(FakeWorker& worker, std::uint64_t lease) {
    return static_cast<LeaseState>(worker.state->leases[lease].state.load());
  }
  static LeaseEnd reason(FakeWorker& worker, std::uint64_t lease) {
    return static_cast<LeaseEnd>(worker.state->leases[lease].reason.load());
  }
  /// What the worker's library makes of a signal: the use was dropped.
  static bool is_cancelled(FakeWorker& worker, SignalUse use) {
    const SignalSlot& slot = worker.state->signals[use.signal];
    return slot.generation == use.generation && slot.cancelled == use.generation && slot.value == 0;
  }
};

TEST_F(LeaseEnds, ARevocationIsPublishedAndWhatIsInTheRingStillRuns) {
  LeaseRing& ring = open_active(anna_, 1, 0);
  LeaseRingWriter(ring).push(dispatch());
  forwarder_.revoke_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, 12345);
  settle();
  EXPECT_EQ(state(anna_, 1), LeaseState::revoked);
  EXPECT_EQ(reason(anna_, 1), LeaseEnd::administrator);
  EXPECT_EQ(anna_.state->leases[1].deadline_ns, 12345U);
  EXPECT_EQ(queues_[0].rung(), 1U);
}

TEST_F(LeaseEnds, AReleaseForwardsWhatIsInTheRingAndThenSaysHowMuchThatWas) {
  LeaseRing& ring = open_active(anna_, 1, 0);
  LeaseRingWriter writer(ring);
  for (int i = 0; i < 3; ++i) writer.push(dispatch());
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, false);
  settle();
  EXPECT_EQ(state(anna_, 1), LeaseState::ended);
  EXPECT_EQ(reason(anna_, 1), LeaseEnd::released);
  EXPECT_EQ(anna_.state->leases[1].accepted, 3U);
  EXPECT_EQ(queues_[0].rung(), 4U) << "three packets and the drain's barrier";
}

TEST_F(LeaseEnds, WhatIsDroppedIsCancelledAndItsWaitersAreWoken) {
  LeaseRing& ring = open_active(anna_, 1, 0);
  LeaseRingWriter writer(ring);
  writer.push(dispatch({.signal = 1, .generation = 1}));
  settle();
  writer.push(wait_for({.signal = 9, .generation = 1}));  // will not come
  writer.push(dispatch({.signal = 2, .generation = 7}));
  settle();
  anna_.request.waiters[2] = 1;
  forwarder_.revoke_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::preempted, 1);
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::preempted, true);
  settle();
  EXPECT_EQ(state(anna_, 1), LeaseState::ended);
  EXPECT_EQ(anna_.state->leases[1].accepted, 1U);
  EXPECT_TRUE(is_cancelled(anna_, {2, 7}));
  EXPECT_EQ(anna_.state->signals[2].wakes, 1U);
  EXPECT_FALSE(is_cancelled(anna_, {1, 1})) << "it is in the hardware queue and runs";
  EXPECT_EQ(anna_.state->signals[1].value, 1);
  EXPECT_TRUE(faults_.empty());
}

TEST_F(LeaseEnds, ALeaseThatWaitsForADroppedPacketEndsToo) {
  LeaseRing& first = open_active(anna_, 1, 0);
  LeaseRing& second = open_active(anna_, 2, 1);
  LeaseRingWriter(first).push(wait_for({.signal = 9, .generation = 1}));  // holds what follows
  LeaseRingWriter on_second(second);
  on_second.push(wait_for({.signal = 5, .generation = 1}));
  on_second.push(dispatch({.signal = 6, .generation = 1}));
  settle();
  LeaseRingWriter held(first);
  first.written = 0;  // as if the worker had not written the barrier
  held.push(dispatch({.signal = 5, .generation = 1}));
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::preempted, true);
  settle();
  EXPECT_TRUE(is_cancelled(anna_, {5, 1}));
  EXPECT_EQ(state(anna_, 2), LeaseState::ended);
  EXPECT_EQ(reason(anna_, 2), LeaseEnd::dependency);
  EXPECT_TRUE(is_cancelled(anna_, {6, 1}));
  ASSERT_EQ(ends_.size(), 1U);
  EXPECT_EQ(ends_[0], std::pair(LeaseId{2}, LeaseEnd::dependency));
  EXPECT_TRUE(faults_.empty());
}

TEST_F(LeaseEnds, ADroppedUseIsRememberedWhenItsSignalIsUsedAgain) {
  LeaseRing& first = open_active(anna_, 1, 0);
  LeaseRing& second = open_active(anna_, 2, 1);
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::preempted, true);
  LeaseRingWriter(first).push(dispatch({.signal = 5, .generation = 1}));
  settle();
  ASSERT_TRUE(is_cancelled(anna_, {5, 1}));
  LeaseRingWriter on_second(second);
  on_second.push(dispatch({.signal = 5, .generation = 2}));
  settle();
  on_second.push(wait_for({.signal = 5, .generation = 1}));
  settle();
  EXPECT_EQ(reason(anna_, 2), LeaseEnd::dependency);
}

TEST_F(LeaseEnds, AWorkerThatGoesOnAfterARevocationIsCutOffAndItsStreamBecomesFree) {
  bool closed = false;
  LeaseRing& ring = open_active(anna_, 1, 0, [&] { closed = true; });
  LeaseRingWriter writer(ring);
  forwarder_.revoke_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, 1);
  settle();
  writer.push(dispatch());
  writer.push(dispatch());
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, true);
  settle();
  ASSERT_EQ(faults_.size(), 1U);
  EXPECT_EQ(faults_[0].worker, WorkerId{1});
  EXPECT_EQ(anna_.state->fault, static_cast<std::uint32_t>(Errc::lease_ended));
  EXPECT_EQ(reason(anna_, 1), LeaseEnd::cut_off);
  // The service closes all leases of a worker that was cut off; that is no second fault.
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::cut_off, true);
  settle();
  EXPECT_EQ(faults_.size(), 1U);
  queues_[0].complete_all();
  settle();
  EXPECT_TRUE(closed);
}

TEST_F(LeaseEnds, OnePacketThatWasOnItsWayWhenTheLeaseWasRevokedIsNoFault) {
  LeaseRing& ring = open_active(anna_, 1, 0);
  LeaseRingWriter writer(ring);
  forwarder_.revoke_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, 1);
  settle();
  writer.push(dispatch());
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, true);
  settle();
  EXPECT_TRUE(faults_.empty());
  EXPECT_EQ(reason(anna_, 1), LeaseEnd::administrator);
}

TEST_F(LeaseEnds, AReleasedLeaseThatWaitsForEverCanStillBeDropped) {
  bool closed = false;
  LeaseRing& ring = open_active(anna_, 1, 0, [&] { closed = true; });
  LeaseRingWriter(ring).push(wait_for({.signal = 9, .generation = 1}));
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, false);
  settle();
  EXPECT_EQ(state(anna_, 1), LeaseState::active);
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, true);
  settle();
  EXPECT_EQ(state(anna_, 1), LeaseState::ended);
  queues_[0].complete_all();
  settle();
  EXPECT_TRUE(closed);
}

// The worker writes a packet, then looks whether its lease has ended; the forwarder ends the lease,
// then looks for packets. Each packet is forwarded, or cancelled, or refused to the worker's caller
// by the worker itself; which of these, both sides agree on. docs/models/lease_end.pml checks the
// same over all interleavings.
TEST_F(LeaseEnds, APacketThatRacesWithTheEndIsForwardedOrCancelledOrRefused) {
  forwarder_.start();
  std::atomic<std::uint64_t> closed{0};
  std::uint64_t forwarded_packets = 0;
  constexpr std::uint32_t rounds = 300;
  for (std::uint32_t round = 1; round <= rounds; ++round) {
    LeaseSlot& slot = anna_.state->leases[1];
    slot.state = static_cast<std::uint32_t>(LeaseState::active);
    auto region = Region::create("test-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                                 RegionWriter::both, 1);
    ASSERT_TRUE(region);
    const Region workers = *Region::open(UniqueFd(::dup(region->fd())), RegionKind::lease_ring,
                                         sizeof(LeaseRing), true);
    LeaseRing& ring = region->payload<LeaseRing>();
    forwarder_.open_lease(anna_.forwarded,
                          std::make_unique<ForwardedLease>(ForwardedLease{
                              .id = LeaseId{1},
                              .stream = StreamId{0},
                              .region = std::make_shared<const Region>(std::move(*region)),
                              .reader = LeaseRingReader(ring),
                              .slot = &slot,
                              .on_closed = [&] { closed.fetch_add(1); }}));
    LeaseRingWriter writer(workers.payload<LeaseRing>());
    const std::uint32_t first = round * 64;
    std::thread closer(
        [&] { forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::preempted, true); });
    std::uint32_t written = 0;
    bool refused = false;
    while (!refused && written < 64) {
      ASSERT_TRUE(writer.push(dispatch({.signal = written, .generation = first})));
      ++written;
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (board_.forwarder_asleep.load() != 0) {
        anna_.request.wake.fetch_add(1);
        futex_wake_all(anna_.request.wake);
      }
      refused =
          slot.state == static_cast<std::uint32_t>(LeaseState::ended) && slot.accepted < written;
    }
    closer.join();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (closed.load() < round && std::chrono::steady_clock::now() < deadline) {
      queues_[0].complete_all();
      std::this_thread::yield();
    }
    ASSERT_EQ(closed.load(), round);
    const std::uint64_t accepted = slot.accepted;
    forwarded_packets += accepted;
    for (std::uint32_t i = 0; i < written; ++i) {
      const SignalUse use{.signal = i, .generation = first};
      if (i < accepted) {
        EXPECT_EQ(anna_.state->signals[i].generation, first);
        EXPECT_FALSE(is_cancelled(anna_, use));
      } else if (i + 1 < written || !refused) {
        EXPECT_TRUE(is_cancelled(anna_, use)) << "packet " << i << " of round " << round;
      }
    }
  }
  EXPECT_TRUE(faults_.empty());
  EXPECT_EQ(forwarder_.packets(StreamId{0}), forwarded_packets);
}

}  // namespace
}  // namespace eclip::daemon
