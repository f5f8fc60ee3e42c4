#include "daemon/lease_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "daemon/topology.h"
#include "ipc/messages.h"

namespace eclip::daemon {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Terms = LeaseTable::Terms;

constexpr WorkerId anna{1};
constexpr WorkerId ben{2};
constexpr WorkerId carl{3};
constexpr std::uint32_t low = 0;
constexpr std::uint32_t normal = 1;
constexpr std::uint32_t high = 2;

Terms cus(std::uint32_t count) {
  return {.stream = {}, .cu_count = count};
}
Terms on(std::uint32_t stream) {
  return {.stream = StreamId{stream}};
}
Terms waiting(Terms terms, std::chrono::nanoseconds wait = 10s) {
  terms.wait = wait;
  return terms;
}
Terms with_priority(Terms terms, std::uint32_t priority) {
  terms.priority = priority;
  return terms;
}
Terms with_share(Terms terms, std::uint32_t percent) {
  terms.share_percent = percent;
  return terms;
}
Terms for_a_term(Terms terms, std::chrono::nanoseconds duration) {
  terms.duration = duration;
  return terms;
}

/// A table on the tree pool of an MI50 (60; 30, 30; 15, 15, 15, 15 CUs) whose time stands still
/// until it is moved.
class LeaseTableTest : public ::testing::Test {
 protected:
  explicit LeaseTableTest(bool preempt = false, std::uint32_t holders = 1)
      : table_(*binary_tree_masks({.name = "mi50", .cu_count = 60, .shader_engines = 4}),
               {.gpu_cu_count = 60,
                .max_holders_per_stream = holders,
                .preempt = preempt,
                .grace = 2s,
                .claim_time = 1s}) {}
  ~LeaseTableTest() override { check_steps(); }

  Result<LeaseId> acquire(WorkerId worker, const Terms& terms) {
    return table_.acquire(worker, terms, now_);
  }
  LeaseId get(WorkerId worker, const Terms& terms) {
    const auto lease = acquire(worker, terms);
    EXPECT_TRUE(lease) << lease.error().message();
    return lease.value_or(LeaseId{});
  }
  LeaseState state(LeaseId lease) {
    const auto* found = table_.find(lease);
    return found == nullptr ? LeaseState::none : found->state;
  }
  LeaseEnd reason(LeaseId lease) { return table_.find(lease)->reason; }
  std::uint32_t stream(LeaseId lease) { return table_.find(lease)->stream->value; }
  std::uint32_t cu_count(LeaseId lease) { return table_.masks()[stream(lease)].count(); }
  /// Released, and run dry.
  void give_back(LeaseId lease, WorkerId worker) {
    EXPECT_TRUE(table_.release(lease, worker, now_));
    table_.closed(lease, now_);
  }
  void pass(std::chrono::nanoseconds time) {
    now_ += time;
    table_.advance(now_, [this](LeaseId lease) { return renewed_.erase(lease.value) > 0; });
  }
  /// All seven streams of the pool, by one worker.
  std::vector<LeaseId> fill(WorkerId worker, std::uint32_t priority = normal) {
    std::vector<LeaseId> leases;
    for (std::uint32_t i = 0; i < 7; ++i)
      leases.push_back(get(worker, with_priority(on(i), priority)));
    return leases;
  }
  /// Every step so far is one of ipc/lease_slot.h's, and begins where the lease's last ended.
  void check_steps() {
    for (const auto& change : table_.take_changes()) {
      auto& known = known_[change.lease.value];
      EXPECT_EQ(change.from, known) << "lease " << change.lease.value;
      if (change.from != change.to) {
        EXPECT_TRUE(is_legal_step(change.from, change.to))
            << describe(change.from) << " to " << describe(change.to);
      }
      known = change.to;
    }
  }

  LeaseTable table_;
  LeaseTable::Time now_{1h};
  std::set<std::uint64_t> renewed_;
  std::map<std::uint64_t, LeaseState> known_;
};

TEST_F(LeaseTableTest, GrantsTheSmallestStreamThatIsLargeEnough) {
  EXPECT_EQ(cu_count(get(anna, cus(1))), 15U);
  EXPECT_EQ(cu_count(get(anna, cus(16))), 30U);
  EXPECT_EQ(cu_count(get(anna, cus(31))), 60U);
}

TEST_F(LeaseTableTest, PrefersStreamsThatShareNoCuWithThoseInUse) {
  get(anna, on(1));  // shader engines 0 and 1
  const auto lease = get(ben, cus(15));
  EXPECT_EQ(table_.masks()[stream(lease)].overlap(table_.masks()[1]), 0U);
}

TEST_F(LeaseTableTest, AStreamHasOneHolderUntilItHasDrained) {
  const auto lease = get(anna, on(0));
  EXPECT_EQ(acquire(ben, on(0)).error().code, Errc::no_stream);
  EXPECT_EQ(acquire(ben, cus(60)).error().code, Errc::no_stream);
  ASSERT_TRUE(table_.release(lease, anna, now_));
  EXPECT_TRUE(table_.use_of(StreamId{0}).draining);
  EXPECT_EQ(acquire(ben, on(0)).error().code, Errc::no_stream);
  EXPECT_EQ(table_.release(lease, anna, now_).error().code, Errc::not_found);
  table_.closed(lease, now_);
  EXPECT_EQ(table_.find(lease), nullptr);
  EXPECT_NE(get(ben, on(0)), lease);
}

TEST_F(LeaseTableTest, ALeaseIsItsHoldersAlone) {
  const auto lease = get(anna, on(3));
  EXPECT_EQ(table_.release(lease, ben, now_).error().code, Errc::not_found);
  EXPECT_EQ(table_.claim(lease, ben, now_).error().code, Errc::not_found);
  EXPECT_EQ(table_.release(LeaseId{77}, anna, now_).error().code, Errc::not_found);
  EXPECT_EQ(state(lease), LeaseState::active);
}

TEST_F(LeaseTableTest, WhatCanNeverFitIsAnInvalidArgumentNotAWait) {
  EXPECT_EQ(acquire(anna, waiting(cus(61))).error().code, Errc::invalid_argument);
  EXPECT_EQ(acquire(anna, waiting(on(7))).error().code, Errc::invalid_argument);
  EXPECT_THAT(acquire(anna, waiting(with_share(on(0), 50))).error().message(), HasSubstr("30"));
}

TEST_F(LeaseTableTest, SevenStreamsAndNoMore) {
  for (int i = 0; i < 7; ++i) get(anna, cus(1));
  EXPECT_EQ(acquire(ben, cus(1)).error().code, Errc::no_stream);
}

TEST_F(LeaseTableTest, AShareBoundsTheCusWhateverIsAskedFor) {
  EXPECT_EQ(cu_count(get(anna, with_share(cus(60), 50))), 30U);
  EXPECT_EQ(cu_count(get(anna, with_share(cus(60), 25))), 15U);
  EXPECT_EQ(cu_count(get(anna, with_share(cus(60), 1))), 15U) << "the smallest is always allowed";
  EXPECT_EQ(cu_count(get(anna, with_share(cus(1), 100))), 15U);
  EXPECT_EQ(cu_count(get(anna, with_share(cus(60), 99))), 30U);
  EXPECT_EQ(acquire(anna, with_share(cus(16), 50)).error().code, Errc::no_stream);
}

TEST_F(LeaseTableTest, TheLineIsByPriorityThenByArrival) {
  const auto held = get(anna, on(0));
  const auto first = get(ben, waiting(on(0)));
  const auto second = get(carl, waiting(on(0)));
  const auto urgent = get(carl, with_priority(waiting(on(0)), high));
  const auto idle = get(carl, with_priority(waiting(on(0)), low));
  EXPECT_EQ(table_.position(urgent), 0U);
  EXPECT_EQ(table_.position(first), 1U);
  EXPECT_EQ(table_.position(second), 2U);
  EXPECT_EQ(table_.position(idle), 3U);
  EXPECT_EQ(table_.queued(), 4U);
  std::vector<LeaseId> served;
  LeaseId holder = held;
  WorkerId owner = anna;
  for (int i = 0; i < 4; ++i) {
    give_back(holder, owner);
    for (const LeaseId lease : {first, second, urgent, idle})
      if (state(lease) == LeaseState::offered) {
        served.push_back(lease);
        holder = lease;
      }
    owner = table_.find(holder)->worker;
    ASSERT_TRUE(table_.claim(holder, owner, now_));
  }
  EXPECT_THAT(served, ElementsAre(urgent, first, second, idle));
}

TEST_F(LeaseTableTest, AStreamGoesToTheFirstInLineThatItFits) {
  auto held = fill(anna);
  const auto large = get(ben, waiting(cus(60)));
  const auto small = get(carl, waiting(cus(1)));
  give_back(held[6], anna);  // 15 CUs
  EXPECT_EQ(state(large), LeaseState::queued);
  EXPECT_EQ(state(small), LeaseState::offered);
  give_back(held[0], anna);
  EXPECT_EQ(state(large), LeaseState::offered);
}

TEST_F(LeaseTableTest, ANewRequestDoesNotOvertake) {
  auto held = fill(anna);
  const auto first = get(ben, waiting(cus(15)));
  give_back(held[6], anna);
  EXPECT_EQ(state(first), LeaseState::offered);
  EXPECT_EQ(acquire(carl, cus(15)).error().code, Errc::no_stream) << "it is promised";
  EXPECT_EQ(acquire(carl, with_priority(cus(15), high)).error().code, Errc::no_stream);
  ASSERT_TRUE(table_.claim(first, ben, now_));
  EXPECT_EQ(stream(first), 6U);
}

TEST_F(LeaseTableTest, AWaitEndsInTime) {
  const auto held = get(anna, on(0));
  const auto queued = get(ben, waiting(on(0), 3s));
  EXPECT_EQ(table_.next_deadline(), now_ + 3s);
  pass(3s - 1ns);
  EXPECT_EQ(state(queued), LeaseState::queued);
  pass(1ns);
  EXPECT_EQ(state(queued), LeaseState::ended);
  EXPECT_EQ(reason(queued), LeaseEnd::wait_over);
  give_back(held, anna);
  EXPECT_EQ(state(queued), LeaseState::ended) << "too late";
  ASSERT_TRUE(table_.release(queued, ben, now_));
  EXPECT_EQ(table_.find(queued), nullptr);
  EXPECT_EQ(table_.next_deadline(), std::nullopt);
}

TEST_F(LeaseTableTest, AnOfferThatIsNotClaimedGoesToTheNext) {
  const auto held = get(anna, on(0));
  const auto sleepy = get(ben, waiting(on(0)));
  const auto next = get(carl, waiting(on(0)));
  give_back(held, anna);
  ASSERT_EQ(state(sleepy), LeaseState::offered);
  pass(1s);
  EXPECT_EQ(reason(sleepy), LeaseEnd::not_claimed);
  EXPECT_EQ(state(next), LeaseState::offered);
  EXPECT_EQ(table_.claim(sleepy, ben, now_).error().code, Errc::lease_ended);
  EXPECT_TRUE(table_.claim(next, carl, now_));
}

TEST_F(LeaseTableTest, WhoGivesUpLeavesTheLine) {
  const auto held = get(anna, on(0));
  const auto first = get(ben, waiting(on(0)));
  const auto second = get(carl, waiting(on(0)));
  const auto third = get(carl, waiting(on(0)));
  ASSERT_TRUE(table_.release(first, ben, now_));
  EXPECT_EQ(table_.find(first), nullptr);
  give_back(held, anna);
  ASSERT_EQ(state(second), LeaseState::offered);
  ASSERT_TRUE(table_.release(second, carl, now_));
  EXPECT_EQ(state(third), LeaseState::offered) << "an offer given up goes to the next";
}

TEST_F(LeaseTableTest, ATermEndsUnlessRenewedAndThenAGracePeriodBegins) {
  const auto lease = get(anna, for_a_term(on(0), 5s));
  for (int term = 0; term < 3; ++term) {
    renewed_.insert(lease.value);
    pass(5s);
    ASSERT_EQ(state(lease), LeaseState::active);
    EXPECT_EQ(table_.next_deadline(), now_ + 5s);
  }
  pass(5s);
  EXPECT_EQ(state(lease), LeaseState::revoked);
  EXPECT_EQ(reason(lease), LeaseEnd::expired);
  pass(2s);
  EXPECT_EQ(state(lease), LeaseState::ended);
  EXPECT_EQ(reason(lease), LeaseEnd::expired);
  EXPECT_EQ(acquire(ben, on(0)).error().code, Errc::no_stream) << "its packets still run";
  table_.closed(lease, now_);
  get(ben, on(0));
  EXPECT_EQ(state(lease), LeaseState::ended) << "until its worker releases it";
  ASSERT_TRUE(table_.release(lease, anna, now_));
  EXPECT_EQ(table_.find(lease), nullptr);
}

TEST_F(LeaseTableTest, ARevocationHasItsGraceAndTheShorterOneCounts) {
  const auto lease = get(anna, on(0));
  ASSERT_TRUE(table_.revoke(lease, LeaseEnd::administrator, 60s, now_));
  EXPECT_EQ(state(lease), LeaseState::revoked);
  EXPECT_EQ(table_.next_deadline(), now_ + 60s);
  ASSERT_TRUE(table_.revoke(lease, LeaseEnd::administrator, 1s, now_));
  ASSERT_TRUE(table_.revoke(lease, LeaseEnd::administrator, 70s, now_));
  check_steps();
  pass(1s);
  EXPECT_EQ(state(lease), LeaseState::ended);
  const auto changes = table_.take_changes();
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_TRUE(changes[0].drop);
  known_[lease.value] = LeaseState::ended;
}

TEST_F(LeaseTableTest, AReleaseWithinTheGraceRunsOnButNotLongerThanTheGrace) {
  const auto lease = get(anna, on(0));
  ASSERT_TRUE(table_.revoke(lease, LeaseEnd::administrator, 5s, now_));
  ASSERT_TRUE(table_.release(lease, anna, now_));
  auto changes = table_.take_changes();
  ASSERT_EQ(changes.back().to, LeaseState::ended);
  EXPECT_FALSE(changes.back().drop);
  pass(5s);  // a packet waits for something that does not come
  changes = table_.take_changes();
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].from, LeaseState::ended);
  EXPECT_TRUE(changes[0].drop);
  known_[lease.value] = LeaseState::ended;
  EXPECT_EQ(table_.next_deadline(), std::nullopt);
  table_.closed(lease, now_);
  EXPECT_EQ(table_.find(lease), nullptr);
}

TEST_F(LeaseTableTest, AReleasedLeaseWhosePacketsDoNotEndCanBeRevoked) {
  const auto lease = get(anna, on(0));
  ASSERT_TRUE(table_.release(lease, anna, now_));
  ASSERT_TRUE(table_.revoke(lease, LeaseEnd::administrator, 1s, now_));
  check_steps();
  pass(1s);
  const auto changes = table_.take_changes();
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_TRUE(changes[0].drop);
}

TEST_F(LeaseTableTest, ARevokedRequestLeavesTheLine) {
  get(anna, on(0));
  const auto queued = get(ben, waiting(on(0)));
  ASSERT_TRUE(table_.revoke(queued, LeaseEnd::administrator, 5s, now_));
  EXPECT_EQ(state(queued), LeaseState::ended);
  EXPECT_EQ(reason(queued), LeaseEnd::administrator);
  EXPECT_EQ(table_.revoke(queued, LeaseEnd::administrator, 5s, now_).error().code, Errc::not_found);
}

TEST_F(LeaseTableTest, AWorkerThatLeavesLeavesNothingBehind) {
  const auto active = get(anna, on(0));
  const auto held_by_ben = get(ben, on(1));
  const auto queued = get(anna, waiting(on(1)));
  const auto after = get(carl, waiting(on(1)));
  table_.end_all(anna, LeaseEnd::gone, true, now_);
  EXPECT_EQ(table_.find(queued), nullptr);
  EXPECT_EQ(state(active), LeaseState::ended) << "until its packets have completed";
  table_.closed(active, now_);
  EXPECT_EQ(table_.find(active), nullptr);
  give_back(held_by_ben, ben);
  EXPECT_EQ(state(after), LeaseState::offered);
}

TEST_F(LeaseTableTest, AWorkerThatIsCutOffLosesItsLeasesAndSeesThat) {
  const auto lease = get(anna, on(0));
  table_.end_all(anna, LeaseEnd::cut_off, false, now_);
  EXPECT_EQ(reason(lease), LeaseEnd::cut_off);
  table_.closed(lease, now_);
  EXPECT_EQ(state(lease), LeaseState::ended);
  get(ben, on(0));
}

TEST_F(LeaseTableTest, AWorkerThatIsCutOffForIgnoringARevocationHasThatAsItsReason) {
  const auto lease = get(anna, on(0));
  ASSERT_TRUE(table_.revoke(lease, LeaseEnd::administrator, 1s, now_));
  pass(1s);
  ASSERT_EQ(reason(lease), LeaseEnd::administrator);
  table_.end_all(anna, LeaseEnd::cut_off, false, now_);
  EXPECT_EQ(reason(lease), LeaseEnd::cut_off);
}

TEST_F(LeaseTableTest, WithoutPreemptionPriorityIsAPlaceInLineOnly) {
  const auto held = get(anna, with_priority(on(0), low));
  get(ben, with_priority(waiting(on(0)), high));
  EXPECT_EQ(state(held), LeaseState::active);
}

class PreemptionTest : public LeaseTableTest {
 protected:
  PreemptionTest() : LeaseTableTest(true) {}
};

TEST_F(PreemptionTest, AHigherPriorityTakesTheStreamWithGrace) {
  const auto held = get(anna, with_priority(on(0), low));
  const auto urgent = get(ben, with_priority(waiting(on(0)), normal));
  EXPECT_EQ(state(held), LeaseState::revoked);
  EXPECT_EQ(reason(held), LeaseEnd::preempted);
  EXPECT_EQ(state(urgent), LeaseState::queued);
  pass(2s);
  EXPECT_EQ(state(held), LeaseState::ended);
  table_.closed(held, now_);
  EXPECT_EQ(state(urgent), LeaseState::offered);
}

TEST_F(PreemptionTest, OnlyAsManyLoseTheirStreamAsAreNeeded) {
  const auto held = fill(anna, low);
  get(ben, with_priority(waiting(cus(15)), high));
  get(ben, with_priority(waiting(cus(15)), high));
  std::vector<std::uint32_t> revoked;
  for (const LeaseId lease : held)
    if (state(lease) == LeaseState::revoked) revoked.push_back(stream(lease));
  EXPECT_THAT(revoked, ElementsAre(5U, 6U)) << "the smallest that will do, the last granted first";
  ASSERT_TRUE(table_.release(held[6], anna, now_));
  EXPECT_EQ(state(held[4]), LeaseState::active);
}

TEST_F(PreemptionTest, EqualsAndThoseWhoDoNotWaitTakeNothing) {
  const auto held = get(anna, on(0));
  get(ben, waiting(on(0)));
  EXPECT_EQ(acquire(carl, with_priority(on(0), high)).error().code, Errc::no_stream);
  EXPECT_EQ(state(held), LeaseState::active);
}

TEST_F(PreemptionTest, TheLowestPriorityPaysFirst) {
  auto held = fill(anna, normal);
  give_back(held[0], anna);
  const auto lowest = get(carl, with_priority(on(0), low));
  get(ben, with_priority(waiting(cus(1)), high));
  EXPECT_EQ(state(lowest), LeaseState::revoked);
}

class SharedStreamsTest : public LeaseTableTest {
 protected:
  SharedStreamsTest() : LeaseTableTest(true, 2) {}
};

TEST_F(SharedStreamsTest, AStreamOfItsOwnComesFirstThenASharedOneThenTheLine) {
  fill(anna);
  std::vector<LeaseId> second;
  for (int i = 0; i < 7; ++i) second.push_back(get(ben, cus(1)));
  EXPECT_EQ(acquire(carl, cus(1)).error().code, Errc::no_stream);
  const auto use = table_.use_of(StreamId{stream(second[0])});
  EXPECT_EQ(use.holders.size(), 2U);
  const auto queued = get(carl, waiting(cus(1)));
  give_back(second[3], ben);
  EXPECT_EQ(state(queued), LeaseState::offered);
}

TEST_F(SharedStreamsTest, AHolderThatDrainsIsAHolderStill) {
  const auto first = get(anna, on(0));
  get(ben, on(0));
  ASSERT_TRUE(table_.release(first, anna, now_));
  EXPECT_EQ(acquire(carl, on(0)).error().code, Errc::no_stream);
  table_.closed(first, now_);
  get(carl, on(0));
}

/// What the table does under requests in any order: no illegal step, nobody overtakes, nothing is
/// left over.
class RandomLeases : public ::testing::TestWithParam<unsigned> {};

TEST_P(RandomLeases, KeepTheTablesRules) {
  std::mt19937 random(GetParam());
  const auto pick = [&](std::uint32_t below) {
    return std::uniform_int_distribution<std::uint32_t>(0, below - 1)(random);
  };
  const std::uint32_t holders = 1 + GetParam() % 2;
  LeaseTable table(*binary_tree_masks({.name = "mi50", .cu_count = 60, .shader_engines = 4}),
                   {.gpu_cu_count = 60,
                    .max_holders_per_stream = holders,
                    .preempt = GetParam() % 3 == 0,
                    .grace = 2s,
                    .claim_time = 1s});
  LeaseTable::Time now{1h};
  std::map<std::uint64_t, LeaseState> states;
  // Ended with packets that still run; closed() is to come.
  std::set<std::uint64_t> running;
  const auto check = [&] {
    for (const auto& change : table.take_changes()) {
      ASSERT_EQ(states[change.lease.value], change.from);
      if (change.from != change.to) {
        ASSERT_TRUE(is_legal_step(change.from, change.to));
      }
      if (change.to == LeaseState::active) running.insert(change.lease.value);
      states[change.lease.value] = change.to;
    }
    for (std::uint32_t i = 0; i < table.masks().size(); ++i) {
      const auto use = table.use_of(StreamId{i});
      ASSERT_LE(use.holders.size(), holders);
      if (!use.holders.empty() || use.draining) continue;
      for (const auto& [id, lease] : table.leases())
        ASSERT_FALSE(lease.state == LeaseState::queued &&
                     (lease.terms.stream ? lease.terms.stream->value == i
                                         : lease.terms.cu_count <= table.masks()[i].count()))
            << "lease " << id << " waits while stream " << i << " is free";
    }
  };
  for (int round = 0; round < 3000; ++round) {
    const LeaseId any{1 + pick(static_cast<std::uint32_t>(states.size() + 1))};
    const WorkerId worker{1 + pick(4)};
    switch (pick(8)) {
      case 0:
      case 1: {
        Terms terms = pick(3) == 0 ? on(pick(7)) : cus(pick(61));
        terms.priority = pick(3);
        terms.wait = pick(3) * 3s;
        terms.duration = pick(3) * 4s;
        static_cast<void>(table.acquire(worker, terms, now));
        break;
      }
      case 2:
        static_cast<void>(table.claim(any, worker, now));
        break;
      case 3:
        static_cast<void>(table.release(any, worker, now));
        break;
      case 4:
        static_cast<void>(table.revoke(any, LeaseEnd::administrator, pick(3) * 1s, now));
        break;
      case 5:
        if (pick(4) == 0)
          table.end_all(worker, pick(2) == 0 ? LeaseEnd::gone : LeaseEnd::cut_off, pick(2) == 0,
                        now);
        else
          table.has_ended(any, LeaseEnd::dependency);
        break;
      case 6:
        if (running.contains(any.value) && states[any.value] == LeaseState::ended &&
            table.find(any) != nullptr) {
          table.closed(any, now);
          running.erase(any.value);
        }
        break;
      default:
        now += pick(1500) * 1ms;
        table.advance(now, [&](LeaseId) { return pick(2) == 0; });
        const auto next = table.next_deadline();
        ASSERT_TRUE(!next || *next > now) << "it would be called again at once";
    }
    check();
    if (HasFatalFailure()) return;
  }
  for (std::uint64_t worker = 1; worker <= 4; ++worker)
    table.end_all(WorkerId{worker}, LeaseEnd::gone, true, now);
  for (const auto& [id, state] : states)
    if (table.find(LeaseId{id}) != nullptr) table.closed(LeaseId{id}, now);
  check();
  for (const auto& [id, state] : states) EXPECT_EQ(state, LeaseState::none) << "lease " << id;
  EXPECT_TRUE(table.leases().empty());
  EXPECT_EQ(table.next_deadline(), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomLeases, ::testing::Range(1U, 13U));

TEST(LeaseSteps, OnlyThoseOfTheTableAreLegal) {
  int legal = 0;
  for (std::uint32_t from = 0; from <= 6; ++from)
    for (std::uint32_t to = 0; to <= 6; ++to)
      legal += is_legal_step(static_cast<LeaseState>(from), static_cast<LeaseState>(to)) ? 1 : 0;
  EXPECT_EQ(legal, 10);
  EXPECT_FALSE(is_legal_step(LeaseState::none, LeaseState::offered));
  EXPECT_FALSE(is_legal_step(LeaseState::queued, LeaseState::active)) << "not without an offer";
  EXPECT_FALSE(is_legal_step(LeaseState::revoked, LeaseState::active)) << "no way back";
  EXPECT_FALSE(is_legal_step(LeaseState::ended, LeaseState::active));
}

}  // namespace
}  // namespace eclip::daemon
