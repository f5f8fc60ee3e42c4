#include "daemon/stream_turns.h"

#include <gtest/gtest.h>

#include <map>

namespace eclip::daemon {
namespace {

constexpr LeaseId lease_a{1};
constexpr LeaseId lease_b{2};
constexpr LeaseId lease_c{3};

StreamTurns::Waiting of_throughput(LeaseId lease, std::uint64_t deadline_ns = 0) {
  return {.lease = lease, .latency_class = LatencyClass::throughput, .deadline_ns = deadline_ns};
}
StreamTurns::Waiting of_latency(LeaseId lease, std::uint64_t deadline_ns = 0) {
  return {.lease = lease, .latency_class = LatencyClass::latency, .deadline_ns = deadline_ns};
}

/// Chooses, and lets the chosen one push a group of one packet.
LeaseId take_turn(StreamTurns& turns, const std::vector<StreamTurns::Waiting>& waiting) {
  const LeaseId chosen = turns.choose(waiting);
  turns.pushed(chosen, true);
  turns.passed_over(waiting, chosen);
  return chosen;
}

TEST(StreamTurns, TheTurnIsTheLeasesWhosePacketsWentInLast) {
  StreamTurns turns;
  EXPECT_FALSE(turns.owner());
  EXPECT_TRUE(turns.may_pass());
  EXPECT_TRUE(turns.pushed(lease_a, false)) << "a turn begins";
  EXPECT_FALSE(turns.pushed(lease_a, false));
  EXPECT_EQ(turns.owner(), lease_a);
  EXPECT_FALSE(turns.may_pass());
  EXPECT_FALSE(turns.pushed(lease_a, true));
  EXPECT_TRUE(turns.may_pass());
  EXPECT_FALSE(turns.pushed(lease_a, false)) << "another group of the same turn";
  EXPECT_FALSE(turns.may_pass());
  EXPECT_TRUE(turns.pushed(lease_b, false));
}

TEST(StreamTurns, WithoutTheEndOfAGroupATurnPassesOnAfterItsMostPackets) {
  StreamTurns turns;
  for (std::uint32_t i = 0; i < StreamTurns::max_packets; ++i) turns.pushed(lease_a, false);
  EXPECT_FALSE(turns.may_pass());
  turns.pushed(lease_a, false);
  EXPECT_TRUE(turns.may_pass());
  EXPECT_FALSE(turns.at_group_end());
  turns.pushed(lease_b, false);
  EXPECT_FALSE(turns.may_pass()) << "a turn of its own";
}

TEST(StreamTurns, LatencyGoesFirstThenTheEarliestDeadlineThenWhoHasWaitedLongest) {
  StreamTurns turns;
  EXPECT_EQ(turns.choose(std::vector{of_throughput(lease_a, 10), of_latency(lease_b, 900)}),
            lease_b);
  EXPECT_EQ(turns.choose(std::vector{of_latency(lease_a, 500), of_latency(lease_b, 900)}), lease_a);
  EXPECT_EQ(turns.choose(std::vector{of_latency(lease_a), of_latency(lease_b, 900)}), lease_b)
      << "0 is last";
  EXPECT_EQ(turns.choose(std::vector{of_throughput(lease_c), of_throughput(lease_a)}), lease_a)
      << "it waits since the first choice";
}

TEST(StreamTurns, EqualsTakeTurns) {
  StreamTurns turns;
  const std::vector waiting{of_throughput(lease_a), of_throughput(lease_b), of_throughput(lease_c)};
  std::vector<LeaseId> order;
  for (int i = 0; i < 6; ++i) order.push_back(take_turn(turns, waiting));
  EXPECT_EQ(order, (std::vector{lease_a, lease_b, lease_c, lease_a, lease_b, lease_c}));
}

TEST(StreamTurns, WhoWasPassedOverFourTimesGoesFirst) {
  StreamTurns turns;
  const std::vector waiting{of_latency(lease_a, 1), of_throughput(lease_b)};
  std::map<LeaseId, int> count;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(take_turn(turns, waiting), lease_a) << i;
  EXPECT_EQ(take_turn(turns, waiting), lease_b);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(take_turn(turns, waiting), lease_a) << i;
  EXPECT_EQ(take_turn(turns, waiting), lease_b);
}

TEST(StreamTurns, NobodyStarvesHoweverManyGoFirst) {
  StreamTurns turns;
  std::vector<StreamTurns::Waiting> waiting{of_throughput(LeaseId{1})};
  for (std::uint64_t i = 2; i <= 14; ++i) waiting.push_back(of_latency(LeaseId{i}, i));
  std::map<LeaseId, int> last;
  for (int i = 0; i < 500; ++i) {
    last[take_turn(turns, waiting)] = i;
    if (i < 50) continue;
    for (const auto& each : waiting)
      ASSERT_LE(i - last[each.lease], 4 + 14) << "lease " << each.lease.value << " at " << i;
  }
}

TEST(StreamTurns, AnEndedLeaseOwnsNothing) {
  StreamTurns turns;
  turns.pushed(lease_a, false);
  turns.forget(lease_a);
  EXPECT_FALSE(turns.owner());
  EXPECT_TRUE(turns.may_pass());
  EXPECT_TRUE(turns.pushed(lease_b, false));
  turns.begin_anew();
  EXPECT_TRUE(turns.pushed(lease_b, false)) << "a barrier, whosever the packets before it are";
}

}  // namespace
}  // namespace eclip::daemon
