// Streams that scheduled leases share by turns, and the watchdog's view of them.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "tests/unit/daemon/forwarder_fixture.h"

namespace eclip::daemon {
namespace {

LeasePacket ends_group(LeasePacket packet) {
  packet.flags |= LeasePacket::flag_group_end;
  return packet;
}

/// Anna and Ben have scheduled leases on both streams: 1 and 2 are Anna's, 3 and 4 Ben's.
class ScheduledStreams : public ForwarderTest {
 protected:
  void SetUp() override {
    board_.gpu_counter_hz = 1'000'000'000;
    forwarder_.attach(anna_.forwarded);
    forwarder_.attach(ben_.forwarded);
    anna_rings_ = schedule(anna_, 1);
    ben_rings_ = schedule(ben_, 3);
    settle();
  }
  std::vector<LeaseRingWriter> schedule(FakeWorker& worker, std::uint64_t first_lease,
                                        LatencyClass latency_class = LatencyClass::throughput) {
    auto created = Region::create("test-rings", RegionKind::lease_rings, sizeof(LeaseRings),
                                  RegionWriter::both, 1);
    const auto region = std::make_shared<const Region>(std::move(*created));
    std::vector<LeaseRingWriter> writers;
    for (std::uint32_t i = 0; i < queues_.size(); ++i) {
      LeaseRing& ring = region->payload<LeaseRings>().rings[i];
      writers.emplace_back(ring);
      const std::uint64_t lease = first_lease + i;
      forwarder_.open_lease(
          worker.forwarded,
          std::make_unique<ForwardedLease>(
              ForwardedLease{.id = LeaseId{lease},
                             .stream = StreamId{i},
                             .region = region,
                             .reader = LeaseRingReader(ring),
                             .slot = &worker.state->leases[i],
                             .scheduled = true,
                             .latency_class = latency_class,
                             .on_closed = [this, lease] { closed_.push_back(LeaseId{lease}); }}));
    }
    return writers;
  }
  /// The worker whose packet is in a slot of a queue: each has a kernel of its own.
  [[nodiscard]] std::uint64_t worker_of(std::uint64_t number, std::size_t queue = 0) const {
    std::uint64_t kernel = 0;
    std::memcpy(&kernel, &queues_[queue].slots[number % ring_packets].body[7], sizeof kernel);
    return kernel >> 20;
  }
  /// The workers of the packets in a queue, in order; 0: a barrier.
  [[nodiscard]] std::vector<std::uint64_t> order(std::size_t queue = 0) const {
    std::vector<std::uint64_t> workers;
    for (std::uint64_t i = 0; i < queues_[queue].rung(); ++i)
      workers.push_back(worker_of(i, queue));
    return workers;
  }
  void complete_and_settle() {
    for (int i = 0; i < 100; ++i) {
      for (auto& queue : queues_) queue.complete_all();
      settle();
    }
  }
  using Order = std::vector<std::uint64_t>;

  std::vector<LeaseRingWriter> anna_rings_;
  std::vector<LeaseRingWriter> ben_rings_;
  std::vector<LeaseId> closed_;
};

TEST_F(ScheduledStreams, TheHardwareKeepsOrderBetweenTurnsAndWithinThem) {
  for (int i = 0; i < 2; ++i) anna_rings_[0].push(dispatch());
  anna_rings_[0].push(ends_group(in_order(dispatch())));
  for (int i = 0; i < 2; ++i) ben_rings_[0].push(dispatch());
  settle();
  ASSERT_EQ(order(), (Order{1, 1, 1, 2, 2})) << "at once: nothing is drained between";
  EXPECT_TRUE(queues_[0].waits_for_others(0));
  EXPECT_FALSE(queues_[0].waits_for_others(1));
  EXPECT_TRUE(queues_[0].waits_for_others(2)) << "the worker's own";
  EXPECT_TRUE(queues_[0].waits_for_others(3)) << "Ben's turn";
  EXPECT_FALSE(queues_[0].waits_for_others(4));
}

TEST_F(ScheduledStreams, AGroupIsNotInterruptedWhileItsPacketsCome) {
  for (int i = 0; i < 5; ++i) anna_rings_[0].push(dispatch());
  anna_rings_[0].push(ends_group(dispatch()));
  anna_rings_[0].push(dispatch());  // of the next group
  for (int i = 0; i < 3; ++i) ben_rings_[0].push(ends_group(dispatch()));
  settle();
  EXPECT_EQ(order(), (Order{1, 1, 1, 1, 1, 1, 2})) << "the third turn waits for the hardware";
  complete_and_settle();
  EXPECT_EQ(order(), (Order{1, 1, 1, 1, 1, 1, 2, 1, 2, 2}));
}

TEST_F(ScheduledStreams, ATurnPassesOnWhenItsOwnerHasNothingThatCanGo) {
  anna_rings_[0].push(dispatch());
  settle();
  ben_rings_[0].push(dispatch());
  settle();
  anna_rings_[0].push(dispatch());
  settle();
  EXPECT_EQ(order(), (Order{1, 2})) << "two turns that have not begun";
  queues_[0].complete_one();
  settle();
  EXPECT_EQ(order(), (Order{1, 2, 1}));
}

TEST_F(ScheduledStreams, AHostileWorkerWithoutGroupEndsKeepsNobodyOut) {
  std::uint64_t of_anna = 0;
  ben_rings_[0].push(dispatch());
  settle();
  for (int i = 0; i < 20'000 && queues_[0].rung() < 20'000; ++i) {
    while (anna_rings_[0].push(dispatch())) {
    }
    if (i == 0) ben_rings_[0].push(ends_group(dispatch()));
    forwarder_.turn();
    for (int k = 0; k < 64 && queues_[0].read_index < queues_[0].rung(); ++k) {
      const std::uint64_t worker = worker_of(queues_[0].read_index);
      queues_[0].complete_one();
      if (worker == 1) ++of_anna;
      if (worker == 2 && queues_[0].read_index > 1) {
        EXPECT_LE(of_anna, StreamTurns::max_packets + 1);
        return;
      }
    }
  }
  FAIL() << "Ben never had a turn; Anna had " << of_anna << " packets";
}

TEST_F(ScheduledStreams, TheEarliestDeadlineHasTheNextTurn) {
  FakeWorker dora(3);
  forwarder_.attach(dora.forwarded);
  auto dora_rings = schedule(dora, 5);
  settle();
  anna_.request.scheduler.deadline_ns = 900;
  ben_.request.scheduler.deadline_ns = 800;
  dora.request.scheduler.deadline_ns = 700;
  anna_rings_[0].push(ends_group(dispatch()));
  settle();
  anna_rings_[0].push(ends_group(dispatch()));
  ben_rings_[0].push(ends_group(dispatch()));
  dora_rings[0].push(ends_group(dispatch()));
  settle();
  EXPECT_EQ(order(), (Order{1, 3}));
  complete_and_settle();
  EXPECT_EQ(order(), (Order{1, 3, 2, 1}));
}

TEST_F(ScheduledStreams, LatencyGoesBeforeThroughputButNotForEver) {
  FakeWorker dora(3);
  forwarder_.attach(dora.forwarded);
  auto dora_rings = schedule(dora, 5, LatencyClass::latency);
  settle();
  anna_rings_[0].push(ends_group(dispatch()));
  for (int i = 0; i < 12; ++i) dora_rings[0].push(ends_group(dispatch()));
  settle();
  complete_and_settle();
  const Order all = order();
  ASSERT_EQ(all.size(), 13U);
  const auto of_anna = std::find(all.begin(), all.end(), 1U) - all.begin();
  EXPECT_EQ(of_anna, StreamTurns::max_passes) << "passed over so often";
}

TEST_F(ScheduledStreams, ABarrierThatWaitsStaysInItsRingWhileOthersWouldWaitWithIt) {
  anna_rings_[1].push(dispatch({.signal = 5, .generation = 1}));
  ben_rings_[0].push(dispatch());
  settle();
  anna_rings_[0].push(wait_for({.signal = 5, .generation = 1}));
  anna_rings_[0].push(dispatch());
  settle();
  EXPECT_EQ(order(), (Order{2})) << "Ben's is in flight";
  ben_rings_[0].push(dispatch());
  settle();
  EXPECT_EQ(order(), (Order{2, 2})) << "and Anna's barrier is not in Ben's way";
  queues_[1].complete_all();
  settle();
  EXPECT_EQ(order(), (Order{2, 2, 0, 1}));
}

TEST_F(ScheduledStreams, AnUncontendedBarrierGoesInAtOnce) {
  anna_rings_[1].push(dispatch({.signal = 5, .generation = 1}));
  anna_rings_[0].push(wait_for({.signal = 5, .generation = 1}));
  anna_rings_[0].push(dispatch());
  settle();
  EXPECT_EQ(order(), (Order{0, 1}));
}

TEST_F(ScheduledStreams, WorkersThatWaitForEachOthersTurnsOnTwoStreamsGoOn) {
  // Each waits on one stream for what it has on the other, behind the other worker.
  anna_rings_[0].push(dispatch({.signal = 1, .generation = 1}));
  anna_rings_[0].push(wait_for({.signal = 2, .generation = 1}));
  anna_rings_[0].push(ends_group(dispatch({.signal = 3, .generation = 1})));
  ben_rings_[1].push(dispatch({.signal = 1, .generation = 1}));
  ben_rings_[1].push(wait_for({.signal = 2, .generation = 1}));
  ben_rings_[1].push(ends_group(dispatch({.signal = 3, .generation = 1})));
  settle();
  anna_rings_[1].push(ends_group(dispatch({.signal = 2, .generation = 1})));
  ben_rings_[0].push(ends_group(dispatch({.signal = 2, .generation = 1})));
  settle();
  complete_and_settle();
  EXPECT_EQ(anna_.forwarded->packets, 4U);
  EXPECT_EQ(ben_.forwarded->packets, 4U);
  EXPECT_EQ(settle(), Forwarder::Activity::idle);
}

TEST_F(ScheduledStreams, TimeIsTheWorkersWhoseTurnItIs) {
  for (int i = 0; i < 3; ++i) anna_rings_[0].push(dispatch());
  anna_rings_[0].push(ends_group(dispatch()));
  for (int i = 0; i < 2; ++i) ben_rings_[0].push(dispatch());
  settle();
  for (int i = 0; i < 4; ++i) queues_[0].complete_one(1000 + 100 * i, 1100 + 100 * i);
  queues_[0].complete_one(1500, 1600);
  queues_[0].complete_one(1600, 1650);
  settle();
  EXPECT_EQ(anna_.forwarded->device_ns, 400U);
  EXPECT_EQ(ben_.forwarded->device_ns, 150U);
}

TEST_F(ScheduledStreams, TheOldestUnfinishedPacketNamesTheWorkerWhoseTurnItIs) {
  anna_rings_[0].push(dispatch());
  anna_rings_[0].push(ends_group(dispatch()));
  ben_rings_[0].push(dispatch());
  settle();
  ASSERT_EQ(forwarder_.unfinished().size(), 1U);
  EXPECT_EQ(forwarder_.unfinished()[0].lease, LeaseId{1});
  for (int i = 0; i < 2; ++i) queues_[0].complete_one();
  queues_[0].read_index = 3;
  settle();
  ASSERT_EQ(forwarder_.unfinished().size(), 1U);
  EXPECT_EQ(forwarder_.unfinished()[0].worker, WorkerId{2});
  EXPECT_EQ(forwarder_.unfinished()[0].packet, 2U);
}

TEST_F(ScheduledStreams, AWorkerThatDiesInTheMiddleOfItsTurnLeavesTheStreamToTheOthers) {
  bool detached = false;
  anna_rings_[0].push(dispatch());
  anna_rings_[0].push(wait_for({.signal = 9, .generation = 1}));  // nobody will complete it
  settle();
  forwarder_.detach(anna_.forwarded, [&] { detached = true; });
  ben_rings_[0].push(dispatch());
  settle();
  complete_and_settle();
  EXPECT_TRUE(detached);
  EXPECT_EQ(closed_, (std::vector{LeaseId{1}, LeaseId{2}}));
  EXPECT_EQ(ben_.forwarded->packets, 1U);
  ben_rings_[0].push(in_order(dispatch()));
  settle();
  EXPECT_EQ(worker_of(queues_[0].rung() - 1), 2U);
}

TEST_F(ScheduledStreams, AWorkerThatIsCutOffInTheMiddleOfItsTurnLosesIt) {
  anna_rings_[0].push(dispatch());
  anna_rings_[0].push(LeasePacket{});
  ben_rings_[0].push(ends_group(dispatch()));
  settle();
  ASSERT_EQ(faults_.size(), 1U);
  EXPECT_EQ(faults_[0].worker, WorkerId{1});
  EXPECT_EQ(faults_[0].packet, 1U);
  EXPECT_EQ(order(), (Order{1, 2}));
  for (const std::uint64_t lease : {1U, 2U})
    forwarder_.close_lease(anna_.forwarded, LeaseId{lease}, LeaseEnd::cut_off, true);
  settle();
  complete_and_settle();
  EXPECT_EQ(closed_.size(), 2U);
}

TEST_F(ScheduledStreams, ALeaseThatIsRevokedInTheMiddleOfItsTurnEndsAndTheWorkersOthersGoOn) {
  anna_rings_[0].push(dispatch());
  anna_rings_[0].push(wait_for({.signal = 9, .generation = 1}));
  settle();
  forwarder_.revoke_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, 1);
  forwarder_.close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::administrator, true);
  ben_rings_[0].push(dispatch());
  anna_rings_[1].push(dispatch());
  settle();
  complete_and_settle();
  EXPECT_EQ(closed_, std::vector{LeaseId{1}});
  EXPECT_EQ(ben_.forwarded->packets, 1U);
  EXPECT_EQ(anna_.forwarded->packets, 2U);
  EXPECT_TRUE(faults_.empty());
}

TEST_F(ScheduledStreams, ALeaseThatAWorkerHasAcquiredTakesTurnsToo) {
  FakeWorker dora(3);
  forwarder_.attach(dora.forwarded);
  LeaseRingWriter dora_writer(open_lease(dora, 7, 0));
  settle();
  anna_rings_[0].push(ends_group(dispatch()));
  for (int i = 0; i < 2; ++i) dora_writer.push(in_order(dispatch()));
  settle();
  EXPECT_EQ(order(), (Order{1, 3, 3}));
  LeasePacket with_flag = ends_group(dispatch());
  dora_writer.push(with_flag);
  settle();
  ASSERT_EQ(faults_.size(), 1U) << "the flag is scheduled leases' alone";
  EXPECT_EQ(faults_[0].worker, WorkerId{3});
}

TEST_F(ScheduledStreams, OneLeaseAloneHasTheFastPath) {
  for (const std::uint64_t lease : {3U, 4U})
    forwarder_.close_lease(ben_.forwarded, LeaseId{lease}, LeaseEnd::released, false);
  settle();
  complete_and_settle();
  const std::uint64_t begin = queues_[0].rung();
  for (int i = 0; i < 3; ++i) anna_rings_[0].push(ends_group(dispatch()));
  settle();
  ASSERT_EQ(queues_[0].rung(), begin + 3);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(queues_[0].waits_for_others(begin + i));
}

TEST_F(ScheduledStreams, MemoryIsFreeWhenTheWorkersOwnPacketsHaveCompleted) {
  bool quiet = false;
  forwarder_.quiesce(anna_.forwarded, [&] { quiet = true; });
  settle();
  EXPECT_TRUE(quiet) << "nothing was pushed";
  EXPECT_EQ(queues_[0].rung(), 0U) << "and nothing is";
  quiet = false;
  anna_rings_[0].push(dispatch());
  settle();
  forwarder_.quiesce(anna_.forwarded, [&] { quiet = true; });
  settle();
  EXPECT_FALSE(quiet);
  EXPECT_EQ(queues_[1].rung(), 0U);
  complete_and_settle();
  EXPECT_TRUE(quiet);
}

class Watchdog : public ScheduledStreams {
 protected:
  using Time = std::chrono::steady_clock::time_point;
  struct Report {
    StreamId stream;
    std::optional<Stuck> stuck;
  };
  void SetUp() override {
    forwarder_.watch(std::chrono::seconds(10),
                     [this](StreamId stream, const std::optional<Stuck>& stuck) {
                       reports_.push_back({stream, stuck});
                     });
    ScheduledStreams::SetUp();
  }
  void look_at(int second) {
    settle();
    forwarder_.look_for_stuck(Time(std::chrono::seconds(1000 + second)));
  }
  std::vector<Report> reports_;
};

TEST_F(Watchdog, NamesThePacketThatAStreamIsAtOnceAndSaysWhenItGoesOn) {
  anna_rings_[0].push(ends_group(dispatch()));
  ben_rings_[0].push(in_order(dispatch()));
  look_at(0);
  look_at(8);
  queues_[0].complete_one();  // Anna's
  look_at(9);
  look_at(18);
  EXPECT_TRUE(reports_.empty()) << "Ben's has run for 9 s";
  look_at(19);
  look_at(40);
  ASSERT_EQ(reports_.size(), 1U) << "said once";
  ASSERT_TRUE(reports_[0].stuck);
  EXPECT_EQ(reports_[0].stream, StreamId{0});
  EXPECT_EQ(reports_[0].stuck->packet.worker, WorkerId{2});
  EXPECT_EQ(reports_[0].stuck->packet.lease, LeaseId{3});
  EXPECT_EQ(reports_[0].stuck->packet.packet, 1U);
  EXPECT_EQ(reports_[0].stuck->packet.kernel, 1U);
  EXPECT_EQ(reports_[0].stuck->since, std::chrono::seconds(10));
  queues_[0].complete_one();
  look_at(41);
  ASSERT_EQ(reports_.size(), 2U);
  EXPECT_FALSE(reports_[1].stuck);
  look_at(100);
  EXPECT_EQ(reports_.size(), 2U) << "nothing is unfinished";
}

TEST_F(Watchdog, WaitsLongerOnAGpuWhoseClockIsSlowed) {
  board_.device_time_rate = std::uint64_t{1} << 31;
  anna_rings_[0].push(dispatch());
  look_at(0);
  look_at(19);
  EXPECT_TRUE(reports_.empty());
  look_at(20);
  EXPECT_EQ(reports_.size(), 1U);
}

TEST_F(Watchdog, IsSilentOfAStreamThatGetsOnHoweverLongItIsBusy) {
  for (int second = 0; second < 60; ++second) {
    anna_rings_[0].push(dispatch());
    look_at(second);
    if (second > 2) queues_[0].complete_one();
  }
  EXPECT_TRUE(reports_.empty());
  queues_[0].complete_all();
  look_at(60);
  look_at(80);
  EXPECT_TRUE(reports_.empty()) << "unordered packets whose completion nobody asked for";
}

TEST_F(Watchdog, NamesAPacketThatIsHeldBackForWhatNeverComes) {
  anna_rings_[1].push(wait_for({.signal = 9, .generation = 4}));
  look_at(0);
  look_at(9);
  EXPECT_TRUE(reports_.empty());
  look_at(10);
  look_at(30);
  ASSERT_EQ(reports_.size(), 1U);
  ASSERT_TRUE(reports_[0].stuck && reports_[0].stuck->waits_for);
  EXPECT_EQ(*reports_[0].stuck->waits_for, (SignalUse{.signal = 9, .generation = 4}));
  EXPECT_EQ(reports_[0].stuck->packet.worker, WorkerId{1});
  EXPECT_EQ(reports_[0].stuck->packet.lease, LeaseId{2});
  EXPECT_EQ(reports_[0].stuck->packet.packet, 0U);
}

TEST_F(Watchdog, DoesNotNameWhoWaitsForAnothersStream) {
  anna_rings_[0].push(dispatch());  // hangs
  settle();
  ben_rings_[0].push(dispatch());
  settle();
  anna_rings_[0].push(dispatch());  // waits for its turn
  look_at(0);
  look_at(30);
  ASSERT_EQ(reports_.size(), 1U);
  EXPECT_EQ(reports_[0].stuck->packet.packet, 0U);
}

TEST_F(ScheduledStreams, WhateverComesAndGoesNoTurnRunsBesideAnotherAndEachLeaseKeepsItsOrder) {
  std::mt19937 random(20'260'701);
  FakeWorker dora(3);
  forwarder_.attach(dora.forwarded);
  auto dora_rings = schedule(dora, 5);
  settle();
  std::array<LeaseRingWriter*, 3> writers{&anna_rings_[0], &ben_rings_[0], &dora_rings[0]};
  std::uint64_t written = 0;
  std::uint64_t checked = 0;
  const auto check = [&] {
    for (; checked < queues_[0].rung(); ++checked) {
      const bool is_new_turn = checked > 0 && worker_of(checked) != worker_of(checked - 1);
      ASSERT_TRUE(!is_new_turn || queues_[0].waits_for_others(checked)) << "packet " << checked;
    }
  };
  for (int round = 0; round < 3000; ++round) {
    for (LeaseRingWriter* writer : writers)
      if (random() % 3 == 0) {
        LeasePacket packet = dispatch();
        if (random() % 3 == 0) packet = ends_group(packet);
        if (writer->push(packet)) ++written;
      }
    forwarder_.turn();
    check();
    if (random() % 2 == 0)
      while (queues_[0].read_index < queues_[0].rung() && random() % 4 != 0)
        queues_[0].complete_one();
  }
  settle();
  for (int i = 0; i < 2000 && queues_[0].rung() < written; ++i) {
    queues_[0].complete_all();
    settle();
    check();
  }
  EXPECT_EQ(queues_[0].rung(), written);
  EXPECT_TRUE(faults_.empty());
}

}  // namespace
}  // namespace eclip::daemon
