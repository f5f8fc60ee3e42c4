// Which packets and barriers operations become: on one stream, across streams, by events.
#include "tests/unit/libeclip/scheduler_fixture.h"

namespace eclip::test {
namespace {

// --- order on one stream and across streams

TEST_F(SchedulerTest, OnTheSameStreamTheBarrierBitIsAllThatIsNeeded) {
  dispatch(program(), 1, 3);
  EXPECT_EQ(sink.take(), "7:K1 7:K2 7:K3");
  EXPECT_EQ(report.barriers.load(), 0U);
  for (const auto& sent : sink.sent)
    EXPECT_TRUE(sent.packet.flags & LeasePacket::flag_barrier) << "of all packets";
}

TEST_F(SchedulerTest, AForeseenSwitchTakesOneBarrierPacket) {
  put_in_force(pairs({0, 1}));
  request(program(), 1, 4);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 1:B(0.1) 1:K3 1:K4>1.1!");
  EXPECT_EQ(report.barriers.load(), 1U);
  EXPECT_EQ(report.scheduled.load(), 4U);
  EXPECT_EQ(switches(SwitchReason::new_plan), 1U) << "from the stream without a mask";
  EXPECT_EQ(switches(SwitchReason::plan), 1U);
}

TEST_F(SchedulerTest, NoBarrierPacketAfterWhatHasCompleted) {
  put_in_force(pairs({0, 1}));
  scheduler.begin_request(program());
  dispatch(program(), 1, 2);
  complete_all();
  dispatch(program(), 3, 4);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 1:K3 1:K4>1.1!");
}

TEST_F(SchedulerTest, AnUnforeseenSwitchTakesTwo) {
  dispatch(program(), 1, 1);
  put_in_force(pairs({0}));
  request(program(), 2, 3);
  EXPECT_EQ(sink.take(), "7:K1 7:B()>0.1! 0:B(0.1) 0:K2 0:K3>1.1!");
  EXPECT_EQ(report.barriers.load(), 2U);
}

TEST_F(SchedulerTest, AtMostTwoGroupsAreUnderWay) {
  put_in_force(pairs({0, 0, 1, 1}));
  request(program(), 1, 8);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4>1.1!");
  scheduler.advance();
  EXPECT_EQ(sink.take(), "");
  sink.complete({0, 1});
  scheduler.advance();
  EXPECT_EQ(sink.take(), "1:B(1.1) 1:K5 1:K6>2.1!") << "the third goes when the first is complete";
  sink.complete({1, 1});
  scheduler.advance();
  EXPECT_EQ(sink.take(), "1:K7 1:K8>3.1!");
  EXPECT_EQ(scheduler.requests_done(program()), 0U);
  complete_all();
  EXPECT_EQ(scheduler.requests_done(program()), 1U);
}

TEST_F(SchedulerTest, AShortRequestIsOneGroup) {
  put_in_force(plan_of({0}, {{}, {1}, {}, {1}}, 3));
  request(program(), 1, 3);
  request(program(), 4, 6);
  request(program(), 7, 9);
  EXPECT_EQ(sink.take(), "1:K1 1:K2 1:K3>0.1! 1:K4 1:K5 1:K6>1.1!");
  complete_all();
  EXPECT_EQ(sink.take(), "1:K7 1:K8 1:K9>2.1!");
}

TEST_F(SchedulerTest, ARequestThatEndsWithinAGroupIsMarkedByABarrierPacket) {
  put_in_force(pairs({0, 1}));
  request(program(), 1, 3);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 1:B(0.1) 1:K3 1:B()>1.1!");
  sink.complete({0, 1});
  scheduler.advance();
  EXPECT_EQ(scheduler.requests_done(program()), 0U);
  sink.complete({1, 1});
  scheduler.advance();
  EXPECT_EQ(scheduler.requests_done(program()), 1U);
}

TEST_F(SchedulerTest, EveryPacketIsSentWithALimitOnThoseWithoutASignal) {
  dispatch(program(), 1, 257);
  EXPECT_EQ(scheduler.awaited(program()).generation, 1U) << "there is something to wait for";
  EXPECT_EQ(sink.sent.size(), 257U);
  EXPECT_EQ(sink.sent[255].packet.completion.generation, 0U);
  EXPECT_EQ(sink.sent[256].packet.completion.generation, 1U);
}

// --- events

TEST_F(SchedulerTest, AnotherProgramWaitsForAnEvent) {
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  const EventUse use = record(program(), new_event());
  EXPECT_FALSE(scheduler.is_complete(use));
  Program& other = another();
  wait(other, {use});
  dispatch(other, 3, 3);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 7:B(0.1) 7:K3");
  complete_all();
  EXPECT_TRUE(scheduler.is_complete(use));
}

TEST_F(SchedulerTest, OnTheSameStreamAnEventNeedsNoPacket) {
  dispatch(program(), 1, 1);
  const EventUse use = record(program(), new_event());
  Program& other = another();
  wait(other, {use});
  dispatch(other, 2, 2);
  EXPECT_EQ(sink.take(), "7:K1 7:B()>0.1 7:K2");
}

TEST_F(SchedulerTest, WhatWaitsForAnEventThatHasNotGoneDoesNotGo) {
  put_in_force(pairs({0, 0, 0}));
  request(program(), 1, 6);
  const EventUse use = record(program(), new_event());
  Program& other = another();
  wait(other, {use});
  dispatch(other, 7, 7);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4>1.1!");
  EXPECT_FALSE(scheduler.is_complete(use));
  EXPECT_FALSE(scheduler.all_gone(other));
  sink.complete({0, 1});
  scheduler.advance();
  EXPECT_EQ(sink.take(), "0:K5 0:K6>2.1! 7:B(2.1) 7:K7");
  EXPECT_TRUE(scheduler.all_gone(other));
}

TEST_F(SchedulerTest, EarlierProgramsSeeTheEventsOfLaterOnes) {
  program();
  Program& other = another();
  const std::uint32_t event = new_event();
  put_in_force(pairs({0, 0, 0}));
  request(other, 1, 6);
  const EventUse use = record(other, event);
  wait(program(), {use});
  dispatch(program(), 7, 7);
  sink.take();
  sink.complete({0, 1});
  scheduler.advance();
  EXPECT_EQ(sink.take(), "0:K5 0:K6>2.1! 7:B(2.1) 7:K7") << "in one advance()";
}

TEST_F(SchedulerTest, ManyDependenciesTakeABarrierPacketForEachFive) {
  put_in_force(pairs({0}));
  std::vector<EventUse> uses;
  for (std::uint32_t i = 0; i < 12; ++i) {
    Program& each = another();
    request(each, 10 + 2 * i, 11 + 2 * i);
    uses.push_back(record(each, new_event()));
  }
  uses.push_back({.event = 0, .recording = 0});
  sink.take();
  Program& last = another();
  wait(last, uses);
  dispatch(last, 1, 1);
  EXPECT_EQ(sink.take(), "7:B(7.1,8.1,9.1,10.1,11.1) 7:B(2.1,3.1,4.1,5.1,6.1) 7:B(0.1,1.1) 7:K1");
}

TEST_F(SchedulerTest, MoreDependenciesThanAProgramKeepsAreSentBefore) {
  put_in_force(pairs({0}));
  std::vector<EventUse> uses;
  Program& first = program();
  for (std::uint32_t i = 0; i < 40; ++i) {
    dispatch(first, i + 1, i + 1);
    uses.push_back(record(first, new_event()));
  }
  sink.take();
  Program& last = another();
  request(last, 51, 52);
  wait(last, uses);
  dispatch(last, 100, 100);
  const std::string sent = sink.take();
  std::size_t waits = 0;
  for (char c : sent.substr(sent.find(" 0:B"))) waits += c == '.' ? 1 : 0;
  EXPECT_EQ(waits, 40U) << sent;
}

TEST_F(SchedulerTest, AWaitForRecordingZeroOrForWhatHasCompletedIsNone) {
  dispatch(program(), 1, 1);
  const EventUse use = record(program(), new_event());
  complete_all();
  sink.take();
  Program& other = another();
  put_in_force(pairs({0}));
  wait(other, {use, {.event = 7777, .recording = 0}});
  request(other, 2, 3);
  EXPECT_EQ(sink.take(), "0:K2 0:K3>1.1!");
}

TEST_F(SchedulerTest, ALaterRecordingStandsForTheEarlierOne) {
  put_in_force(pairs({0}));
  const std::uint32_t event = new_event();
  request(program(), 1, 2);
  const EventUse first = record(program(), event);
  dispatch(program(), 3, 3);
  const EventUse second = record(program(), event);
  EXPECT_EQ(first.recording, 1U);
  EXPECT_EQ(second.recording, 2U);
  sink.take();
  Program& other = another();
  wait(other, {first});
  dispatch(other, 4, 4);
  EXPECT_EQ(sink.take(), "7:B(1.1) 7:K4");
  sink.complete({0, 1});
  EXPECT_FALSE(scheduler.is_complete(second));
  complete_all();
  EXPECT_TRUE(scheduler.is_complete(first));
  EXPECT_TRUE(scheduler.is_complete(second));
}

TEST_F(SchedulerTest, RecordingsOfSeveralProgramsTakeEffectInTheirOrder) {
  put_in_force(pairs({0, 0, 0}));
  const std::uint32_t event = new_event();
  request(program(), 1, 6);
  const EventUse first = record(program(), event);  // not yet: the third group has not gone
  Program& second = another();
  dispatch(second, 7, 7);
  const EventUse of_second = record(second, event);
  Program& third = another();
  wait(third, {first});
  dispatch(third, 8, 8);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4>1.1! 7:K7");
  run_dry();
  EXPECT_EQ(sink.take_kernels(), "0:K5 0:K6 7:K8");
  EXPECT_TRUE(scheduler.is_complete(first));
  EXPECT_TRUE(scheduler.is_complete(of_second));
}

TEST_F(SchedulerTest, ARecordingOfAnotherProgramStandsForTheEarlierOne) {
  put_in_force(pairs({0}));
  const std::uint32_t event = new_event();
  request(program(), 1, 2);
  const EventUse first = record(program(), event);
  Program& second = another();
  dispatch(second, 3, 3);
  record(second, event);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 7:K3 7:B(0.1) 7:B()>1.1");
  Program& third = another();
  wait(third, {first});
  request(third, 4, 5);
  EXPECT_EQ(sink.take(), "0:B(1.1) 0:K4 0:K5>2.1!");
}

TEST_F(SchedulerTest, WhatWaitsForAProgramWaitsForWhatThatWaitsForOnItsStream) {
  // The middle program has no packet of its own, or one before that of which it waits.
  for (const bool has_packet : {false, true}) {
    SCOPED_TRACE(has_packet);
    sink.complete_all();
    sink.sent.clear();
    Program& first = another();
    Program& middle = another();
    const std::uint32_t event = new_event();
    if (has_packet) {
      dispatch(middle, 1, 1);
      record(middle, event);
    }
    dispatch(first, 2, 2);
    const EventUse of_first = record(first, new_event());
    wait(middle, {of_first});
    const EventUse of_middle = record(middle, event);
    bool called = false;
    scheduler.call(
        middle, [](void* argument) { *static_cast<bool*>(argument) = true; }, &called);
    scheduler.begin_request(middle);
    scheduler.end_request(middle);
    sink.complete_all_but(sink.sent.back().packet.completion);
    scheduler.advance();
    EXPECT_FALSE(scheduler.is_complete(of_middle));
    EXPECT_FALSE(called);
    EXPECT_EQ(scheduler.requests_done(middle), 0U);
    run_dry();
    EXPECT_TRUE(scheduler.is_complete(of_middle));
    EXPECT_TRUE(called);
    EXPECT_EQ(scheduler.requests_done(middle), 1U);
  }
}

TEST_F(SchedulerTest, ARequestOfNothingEndsWhenWhatItWaitsForHas) {
  dispatch(program(), 1, 1);
  const EventUse use = record(program(), new_event());
  Program& other = another();
  scheduler.begin_request(other);
  wait(other, {use});
  scheduler.end_request(other);
  scheduler.advance();
  EXPECT_EQ(scheduler.requests_done(other), 0U);
  run_dry();
  EXPECT_EQ(scheduler.requests_done(other), 1U);
}

TEST_F(SchedulerTest, AnEventOfAProgramThatHasDoneNothingIsComplete) {
  const EventUse use = record(program(), new_event());
  EXPECT_TRUE(scheduler.is_complete(use));
}

}  // namespace
}  // namespace eclip::test
