// One stream for several leases, whose packets do not wait for one another; and what the forwarder
// knows of the packets in a hardware queue: their time, and whose they are.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/unit/daemon/forwarder_fixture.h"

namespace eclip::daemon {
namespace {

class SharedStream : public ForwarderTest {
 protected:
  void SetUp() override {
    forwarder_.attach(anna_.forwarded);
    forwarder_.attach(ben_.forwarded);
    anna_writer_ = LeaseRingWriter(open_lease(anna_, 1, 0));
    ben_writer_ = LeaseRingWriter(open_lease(ben_, 2, 0, [this] { ben_closed_ = true; }));
    settle();
  }
  /// The worker whose packet is in a slot of the queue: each has a kernel of its own.
  [[nodiscard]] std::uint64_t worker_of(std::uint64_t number) const {
    std::uint64_t kernel = 0;
    std::memcpy(&kernel, &queues_[0].slots[number % ring_packets].body[7], sizeof kernel);
    return kernel >> 20;
  }

  std::unique_ptr<LeaseRing> none_ = std::make_unique<LeaseRing>();
  LeaseRingWriter anna_writer_{*none_};
  LeaseRingWriter ben_writer_{*none_};
  bool ben_closed_ = false;
};

TEST_F(SharedStream, AnUnresolvedBarrierOfOneWorkerDoesNotDelayAnother) {
  anna_writer_.push(wait_for({.signal = 9, .generation = 1}));  // nobody will complete it
  anna_writer_.push(dispatch());
  for (int i = 0; i < 3; ++i) ben_writer_.push(in_order(dispatch()));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(settle(), Forwarder::Activity::waiting);
    ASSERT_EQ(queues_[0].rung(), i + 1U);
    EXPECT_EQ(worker_of(i), 2U);
    EXPECT_FALSE(queues_[0].waits_for_others(i));
    queues_[0].complete_one();
  }
  settle();
  EXPECT_EQ(queues_[0].rung(), 3U);
}

TEST_F(SharedStream, ABarrierWhosePacketRunsOnAnotherStreamIsKeptOutOfTheQueue) {
  LeaseRingWriter other(open_lease(anna_, 3, 1));
  settle();
  other.push(dispatch({.signal = 5, .generation = 1}));
  anna_writer_.push(wait_for({.signal = 5, .generation = 1}));
  ben_writer_.push(dispatch());
  settle();
  EXPECT_EQ(queues_[0].rung(), 1U) << "Ben's alone";
  EXPECT_EQ(worker_of(0), 2U);
  queues_[1].complete_all();
  settle();
  EXPECT_EQ(queues_[0].rung(), 2U);
}

TEST_F(SharedStream, OrderIsKeptWithinAWorkerAndNotBetweenThem) {
  for (int i = 0; i < 3; ++i) anna_writer_.push(in_order(dispatch()));
  for (int i = 0; i < 3; ++i) ben_writer_.push(in_order(dispatch()));
  settle();
  ASSERT_EQ(queues_[0].rung(), 2U) << "one packet of each";
  EXPECT_EQ(worker_of(0), 1U);
  EXPECT_EQ(worker_of(1), 2U);
  queues_[0].complete(1);  // Ben's; Anna's goes on
  settle();
  ASSERT_EQ(queues_[0].rung(), 3U);
  EXPECT_EQ(worker_of(2), 2U);
  queues_[0].complete(2);
  settle();
  ASSERT_EQ(queues_[0].rung(), 4U);
  EXPECT_EQ(worker_of(3), 2U);
  queues_[0].complete(0);
  settle();
  ASSERT_EQ(queues_[0].rung(), 5U);
  EXPECT_EQ(worker_of(4), 1U);
  for (std::uint64_t i = 0; i < 5; ++i) EXPECT_FALSE(queues_[0].waits_for_others(i));
}

TEST_F(SharedStream, PacketsWithoutOrderRunAtOnceAndTheNextWithOneWaitsForAllOfThem) {
  for (int i = 0; i < 3; ++i) anna_writer_.push(dispatch());
  anna_writer_.push(in_order(dispatch()));
  settle();
  EXPECT_EQ(queues_[0].rung(), 3U);
  queues_[0].complete(0);
  queues_[0].complete(2);
  settle();
  EXPECT_EQ(queues_[0].rung(), 3U);
  queues_[0].complete(1);
  settle();
  EXPECT_EQ(queues_[0].rung(), 4U);
}

TEST_F(SharedStream, ALeaseDrainsWithoutWaitingForTheOthers) {
  anna_writer_.push(dispatch());
  ben_writer_.push(dispatch());
  forwarder_.close_lease(ben_.forwarded, LeaseId{2}, LeaseEnd::released, false);
  settle();
  EXPECT_EQ(queues_[0].rung(), 2U) << "no barrier for the drain";
  EXPECT_FALSE(ben_closed_);
  queues_[0].complete(1);
  settle();
  EXPECT_TRUE(ben_closed_);
  anna_writer_.push(in_order(dispatch()));
  settle();
  ASSERT_EQ(queues_[0].rung(), 3U);
  EXPECT_TRUE(queues_[0].waits_for_others(2)) << "alone again: the hardware keeps order";
}

TEST_F(SharedStream, OrderHoldsOverTheMomentWhenTheStreamBecomesShared) {
  LeaseRingWriter carl_writer(open_lease(anna_, 4, 1));
  settle();
  carl_writer.push(dispatch());
  settle();
  LeaseRingWriter dora_writer(open_lease(ben_, 5, 1));
  settle();
  carl_writer.push(in_order(dispatch()));
  dora_writer.push(dispatch());
  settle();
  ASSERT_EQ(queues_[1].rung(), 3U) << "Carl's first, the fence, Dora's";
  EXPECT_TRUE(queues_[1].waits_for_others(1));
  queues_[1].complete_one();
  settle();
  EXPECT_EQ(queues_[1].rung(), 3U);
  queues_[1].complete_one();
  settle();
  EXPECT_EQ(queues_[1].rung(), 4U);
}

TEST_F(SharedStream, ALeaseDrainsThoughNothingIsSubmittedAfterTheMomentWhenTheStreamBecomesShared) {
  bool carl_closed = false;
  LeaseRingWriter carl_writer(open_lease(anna_, 4, 1, [&] { carl_closed = true; }));
  settle();
  carl_writer.push(dispatch());
  settle();
  open_lease(ben_, 5, 1);
  settle();
  forwarder_.close_lease(anna_.forwarded, LeaseId{4}, LeaseEnd::released, false);
  settle();
  EXPECT_FALSE(carl_closed);
  queues_[1].complete_all();
  settle();
  EXPECT_TRUE(carl_closed);
}

TEST_F(SharedStream, WeightsShareTheRoomInTheQueue) {
  auto region =
      Region::create("test-ring", RegionKind::lease_ring, sizeof(LeaseRing), RegionWriter::both, 1);
  LeaseRing& ring = region->payload<LeaseRing>();
  forwarder_.open_lease(anna_.forwarded,
                        std::make_unique<ForwardedLease>(ForwardedLease{
                            .id = LeaseId{3},
                            .stream = StreamId{0},
                            .region = std::make_shared<const Region>(std::move(*region)),
                            .reader = LeaseRingReader(ring),
                            .slot = &anna_.state->leases[3],
                            .weight = 25}));
  settle();
  LeaseRingWriter light(ring);
  for (int i = 0; i < 100; ++i) {
    light.push(dispatch());
    ben_writer_.push(dispatch());
  }
  settle();
  EXPECT_EQ(anna_.forwarded->packets, 8U);
  EXPECT_EQ(ben_.forwarded->packets, 32U);
}

TEST_F(SharedStream, TheOldestUnfinishedPacketNamesItsWorker) {
  anna_writer_.push(dispatch());
  ben_writer_.push(dispatch());
  settle();
  queues_[0].complete(0);
  const auto blames = forwarder_.unfinished();
  ASSERT_EQ(blames.size(), 1U);
  EXPECT_EQ(blames[0].worker, WorkerId{2});
  EXPECT_EQ(blames[0].lease, LeaseId{2});
  EXPECT_EQ(blames[0].kernel, 1U);
  EXPECT_EQ(blames[0].packet, 1U);
}

class StreamTime : public ForwarderTest {
 protected:
  void SetUp() override {
    board_.gpu_counter_hz = 1'000'000'000;
    forwarder_.attach(anna_.forwarded);
    ring_ = &open_lease(anna_, 1, 0);
    settle();
  }
  LeaseRing* ring_ = nullptr;
};

TEST_F(StreamTime, ABurstWithoutSignalsCountsFromItsFirstStartToItsLastEnd) {
  LeaseRingWriter writer(*ring_);
  for (int i = 0; i < 5; ++i) writer.push(dispatch());
  settle();
  for (int i = 0; i < 5; ++i) queues_[0].complete_one(1000 + 100 * i, 1050 + 100 * i);
  settle();
  EXPECT_EQ(anna_.forwarded->device_ns, 450U);
  writer.push(dispatch({.signal = 3, .generation = 1}));
  settle();
  queues_[0].complete_one(9000, 9007);
  settle();
  EXPECT_EQ(anna_.forwarded->device_ns, 457U) << "the pause does not count";
}

TEST_F(StreamTime, ALongBurstCostsNoSignalForEachPacket) {
  LeaseRingWriter writer(*ring_);
  for (int i = 0; i < 64; ++i) writer.push(dispatch());
  settle();
  int with_signal = 0;
  for (int i = 0; i < 64; ++i)
    if ((queues_[0].slots[i].body[13] | queues_[0].slots[i].body[14]) != 0) ++with_signal;
  EXPECT_EQ(with_signal, 2) << "the first after a pause and the last";
}

TEST_F(StreamTime, TheTimeOfADepartedWorkersLastPacketsIsStillCounted) {
  bool detached = false;
  LeaseRingWriter(*ring_).push(dispatch());
  settle();
  forwarder_.detach(anna_.forwarded, [&] { detached = true; });
  settle();
  queues_[0].complete_one(100, 150);
  queues_[0].complete_one();
  settle();
  EXPECT_TRUE(detached);
  EXPECT_EQ(anna_.forwarded->device_ns, 50U);
}

TEST_F(StreamTime, BlameFallsOnTheFirstPacketThatNothingShowsToHaveCompleted) {
  LeaseRingWriter writer(*ring_);
  for (int i = 0; i < 3; ++i) writer.push(in_order(dispatch()));
  settle();
  ASSERT_EQ(forwarder_.unfinished().size(), 1U);
  EXPECT_EQ(forwarder_.unfinished()[0].packet, 0U);
  queues_[0].complete_one();
  queues_[0].read_index = 2;  // the second has started, and so the first has completed
  EXPECT_EQ(forwarder_.unfinished()[0].packet, 1U);
  EXPECT_EQ(forwarder_.unfinished()[0].lease, LeaseId{1});
  queues_[0].complete(2);
  queues_[0].read_index = 3;
  settle();
  EXPECT_TRUE(forwarder_.unfinished().empty());
}

/// Jain's index of the packets of seven workers; 1 when all have as many.
TEST(Fairness, SevenWorkersAtFullLoadGetEqualShares) {
  std::vector<SignalSlot> own_slots(1024);
  Board board{};
  for (const bool one_stream : {false, true}) {
    std::array<FakeQueue, 7> queues;
    std::vector<AqlRing*> rings;
    for (auto& queue : queues) rings.push_back(&queue.ring);
    Forwarder forwarder(
        {.spin = std::chrono::microseconds(1), .nap = std::chrono::microseconds(100)}, rings,
        {.slots = own_slots, .gpu_address = reinterpret_cast<std::uint64_t>(own_slots.data())},
        board, [](WorkerId, LeaseId, std::uint64_t, const Error&) {},
        [](WorkerId, LeaseId, LeaseEnd) {});
    std::vector<std::unique_ptr<FakeWorker>> workers;
    std::vector<LeaseRingWriter> writers;
    for (std::uint32_t i = 0; i < 7; ++i) {
      workers.push_back(std::make_unique<FakeWorker>(i + 1));
      forwarder.attach(workers.back()->forwarded);
      auto region = Region::create("test-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                                   RegionWriter::both, 1);
      LeaseRing& ring = region->payload<LeaseRing>();
      writers.emplace_back(ring);
      forwarder.open_lease(workers.back()->forwarded,
                           std::make_unique<ForwardedLease>(ForwardedLease{
                               .id = LeaseId{i + 1},
                               .stream = StreamId{one_stream ? 0 : i},
                               .region = std::make_shared<const Region>(std::move(*region)),
                               .reader = LeaseRingReader(ring),
                               .slot = &workers.back()->state->leases[0]}));
    }
    for (int round = 0; round < 500; ++round) {
      for (auto& writer : writers)
        while (writer.push(dispatch())) {
        }
      forwarder.turn();
      // The hardware is the bottleneck: a few packets of each queue complete in each turn.
      for (auto& queue : queues)
        for (int i = 0; i < 20 && queue.read_index < queue.rung(); ++i) queue.complete_one();
    }
    double sum = 0;
    double squares = 0;
    for (const auto& worker : workers) {
      const auto packets = static_cast<double>(worker->forwarded->packets.load());
      EXPECT_GT(packets, 0);
      sum += packets;
      squares += packets * packets;
    }
    EXPECT_GE(sum * sum / (7 * squares), 0.98) << (one_stream ? "one stream" : "seven streams");
  }
}

}  // namespace
}  // namespace eclip::daemon
