// Functions on the host, what does not go, and what is reported of it.
#include "tests/unit/libeclip/scheduler_fixture.h"

namespace eclip::test {
namespace {

// --- host functions

TEST_F(SchedulerTest, AFunctionIsCalledBetweenWhatIsBeforeAndWhatIsAfter) {
  std::string log;
  dispatch(program(), 1, 1);
  scheduler.call(
      program(), [](void* argument) { *static_cast<std::string*>(argument) += "called"; }, &log);
  dispatch(program(), 2, 2);
  EXPECT_EQ(sink.take(), "7:K1 7:B()>0.1");
  EXPECT_EQ(log, "");
  scheduler.advance();
  EXPECT_EQ(log, "");
  complete_all();
  EXPECT_EQ(log, "called");
  EXPECT_EQ(sink.take(), "7:K2");
  EXPECT_TRUE(scheduler.all_gone(program()));
}

TEST_F(SchedulerTest, FunctionsAreCalledInTheirOrderAndOnce) {
  std::vector<int> calls;
  struct Call {
    std::vector<int>* calls;
    int number;
  };
  std::vector<Call> arguments;
  for (int i = 0; i < 10; ++i) arguments.push_back({&calls, i});
  for (Call& each : arguments)
    scheduler.call(
        program(),
        [](void* argument) {
          const Call& call = *static_cast<Call*>(argument);
          call.calls->push_back(call.number);
        },
        &each);
  EXPECT_THAT(calls, ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(SchedulerTest, AFunctionMayPutOperationsIntoItsProgram) {
  struct Context {
    Scheduler* scheduler;
    Program* program;
  } context{&scheduler, &program()};
  scheduler.call(
      program(),
      [](void* argument) {
        const Context& in = *static_cast<Context*>(argument);
        in.scheduler->dispatch(*in.program, kernel(5));
      },
      &context);
  EXPECT_EQ(sink.take(), "7:K5");
}

TEST_F(SchedulerTest, AFunctionWaitsForEvents) {
  bool called = false;
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  const EventUse use = record(program(), new_event());
  Program& other = another();
  wait(other, {use});
  scheduler.call(
      other, [](void* argument) { *static_cast<bool*>(argument) = true; }, &called);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 7:B(0.1) 7:B()>1.1");
  scheduler.advance();
  EXPECT_FALSE(called);
  complete_all();
  EXPECT_TRUE(called);
}

// --- what does not go

TEST_F(SchedulerTest, AFullSinkLosesAndDoublesNothing) {
  put_in_force(pairs({0, 1, 0}));
  const auto operations = [&] {
    const std::uint32_t event = new_event();
    dispatch(program(), 20, 20);
    request(program(), 1, 6);
    const EventUse use = record(program(), event);
    Program& other = *programs[1];
    wait(other, {use});
    dispatch(other, 7, 7);
    scheduler.pin(other, BypassReason::uniform);
    dispatch(other, 8, 8);
    scheduler.unpin(other);
    request(other, 9, 12);
    run_dry();
  };
  program();
  another();
  operations();
  sink.take();
  operations();  // from the streams where it ends
  const std::string expected = sink.take_kernels();
  for (std::uint32_t every = 0; every < 8; ++every) {
    // Each push is refused `every` times before it succeeds; so are signals.
    sink.refusals = every;
    operations();
    for (int i = 0; i < 1000; ++i) complete_all();
    EXPECT_EQ(sink.take_kernels(), expected) << every << " refusals";
    EXPECT_TRUE(scheduler.all_gone(program()));
    EXPECT_TRUE(scheduler.all_gone(*programs[1]));
  }
}

TEST_F(SchedulerTest, ARefusedPacketTakesNoSignal) {
  put_in_force(pairs({0}));
  sink.room = 1;
  request(program(), 1, 2);
  scheduler.advance();
  sink.room = 9;
  scheduler.advance();
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1!");
}

TEST_F(SchedulerTest, WithOneSignalItGoesOnStepByStep) {
  put_in_force(pairs({0, 1, 0, 1}));
  sink.usable_signals = 1;
  request(program(), 1, 8);
  for (int i = 0; i < 9; ++i) complete_all();
  EXPECT_EQ(sink.take_kernels(), "0:K1 0:K2 1:K3 1:K4 0:K5 0:K6 1:K7 1:K8");
  EXPECT_EQ(scheduler.requests_done(program()), 1U);
}

TEST_F(SchedulerTest, AProgramThatDoesNotEndTakesNobodysSignals) {
  put_in_force(pairs({0}));
  request(program(), 1, 2);  // and never completes
  Program& other = another();
  for (std::uint32_t i = 0; i < 300; ++i) {
    request(other, 3, 4);
    sink.complete_all_but({0, 1});
    scheduler.advance();
  }
  EXPECT_EQ(scheduler.requests_done(other), 300U);
  EXPECT_EQ(scheduler.requests_done(program()), 0U);
}

TEST_F(SchedulerTest, ALostSinkEndsEverything) {
  dispatch(program(), 1, 1);
  EXPECT_FALSE(scheduler.is_lost());
  sink.lost = true;
  EXPECT_EQ(scheduler.dispatch(program(), kernel(2)), Enqueued::yes) << "it did not know";
  EXPECT_TRUE(scheduler.is_lost());
  EXPECT_EQ(scheduler.dispatch(program(), kernel(3)), Enqueued::lost);
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::lost);
  sink.lost = false;
  scheduler.advance();
  EXPECT_EQ(sink.take(), "7:K1") << "nothing after it, either";
}

TEST_F(SchedulerTest, ALostWorkerIsInNobodysWay) {
  put_in_force(pairs({0, 0}));
  scheduler.begin_request(program());
  dispatch(program(), 1, 2);
  ASSERT_EQ(active.load(), 1U);
  sink.lost = true;
  static_cast<void>(scheduler.dispatch(program(), kernel(3)));
  EXPECT_EQ(active.load(), 0U);
}

TEST_F(SchedulerTest, ARequestEndsAGroupAlsoBehindAnEvent) {
  scheduler.begin_request(program());
  dispatch(program(), 1, 1);
  static_cast<void>(record(program(), new_event()));
  scheduler.end_request(program());
  EXPECT_EQ(sink.take(), "7:K1 7:B()>0.1 7:B()>1.1!") << "others may want their turn on the stream";
}

TEST_F(SchedulerTest, AProgramHasRoomForSoManyOperations) {
  sink.room = 0;
  for (std::uint32_t i = 0; i < Program::capacity; ++i)
    ASSERT_EQ(scheduler.dispatch(program(), kernel(i + 1)), Enqueued::yes);
  EXPECT_EQ(scheduler.dispatch(program(), kernel(1)), Enqueued::full);
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::full);
  EXPECT_EQ(scheduler.pin(program(), BypassReason::graph), Enqueued::full);
  EXPECT_EQ(scheduler.record(program(), new_event()), Enqueued::full);
  const std::vector<EventUse> uses(6, EventUse{.event = 0, .recording = 0});
  EXPECT_EQ(scheduler.wait(program(), uses), Enqueued::full);
  EXPECT_EQ(scheduler.requests_begun(program()), 0U);
  sink.room = 1;
  EXPECT_EQ(scheduler.wait(program(), uses), Enqueued::full) << "all or nothing: room for one";
  sink.room = 1;
  EXPECT_EQ(scheduler.wait(program(), uses), Enqueued::yes);
  sink.room = 2 * Program::capacity;
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::yes);
  EXPECT_EQ(sink.sent.size(), Program::capacity);
}

TEST_F(SchedulerTest, SoManyRequestsMayBeBegunAndNotComplete) {
  put_in_force(pairs({0}));
  for (std::uint32_t i = 0; i < Program::most_requests; ++i) request(program(), 1, 2);
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::full);
  EXPECT_EQ(scheduler.end_request(program()), Enqueued::invalid);
  sink.complete({0, 1});
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::yes);
}

TEST_F(SchedulerTest, InvalidUse) {
  EXPECT_EQ(scheduler.end_request(program()), Enqueued::invalid);
  EXPECT_EQ(scheduler.unpin(program()), Enqueued::invalid);
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::yes);
  EXPECT_EQ(scheduler.begin_request(program()), Enqueued::invalid);
  EXPECT_EQ(scheduler.pin(program(), BypassReason::graph), Enqueued::yes);
  EXPECT_EQ(scheduler.pin(program(), BypassReason::uniform), Enqueued::invalid);
  EXPECT_EQ(scheduler.record(program(), 0), Enqueued::invalid) << "no such event";
  const std::vector<EventUse> uses{{.event = 0, .recording = 1}};
  EXPECT_EQ(scheduler.wait(program(), uses), Enqueued::invalid);
  const std::vector<EventUse> too_many(5 * Program::capacity + 1, EventUse{0, 0});
  EXPECT_EQ(scheduler.wait(program(), too_many), Enqueued::invalid);
  EXPECT_TRUE(scheduler.is_complete({.event = 99, .recording = 0}));
  for (std::uint32_t i = 1; i < Scheduler::most_programs; ++i)
    EXPECT_NE(scheduler.create_program(), nullptr);
  EXPECT_EQ(scheduler.create_program(), nullptr);
  for (std::uint32_t i = 0; i < Scheduler::most_events; ++i) EXPECT_EQ(scheduler.create_event(), i);
  EXPECT_FALSE(scheduler.create_event());
}

// --- reports

TEST_F(SchedulerTest, TheEarliestDeadlineIsReported) {
  put_in_force(pairs({0}));
  program();
  Program& second = another();
  const auto timed_request = [&](Program& of, std::uint64_t deadline) {
    scheduler.begin_request(of, deadline);
    dispatch(of, 1, 2);
    scheduler.end_request(of);
  };
  timed_request(program(), 900);
  EXPECT_EQ(report.deadline_ns.load(), 900U);
  timed_request(second, 500);
  EXPECT_EQ(report.deadline_ns.load(), 500U);
  timed_request(program(), 0);
  timed_request(second, 700);
  EXPECT_EQ(report.deadline_ns.load(), 500U);
  sink.complete({1, 1});
  scheduler.advance();
  EXPECT_EQ(report.deadline_ns.load(), 700U);
  sink.complete({3, 1});
  scheduler.advance();
  EXPECT_EQ(report.deadline_ns.load(), 900U);
  complete_all();
  EXPECT_EQ(report.deadline_ns.load(), 0U);
  EXPECT_EQ(report.requests.load(), 4U);
}

TEST_F(SchedulerTest, ReportsHowLongGroupsTakeAgainstThePrediction) {
  const WorkerPlan plan = timed_pairs();
  put_in_force(plan);
  request(program(), 1, 4);
  complete_two_groups();
  EXPECT_EQ(report.drift_epoch.load(), 1U);
  EXPECT_EQ(report.group_permille[0].load(), 0U) << "its beginning is not known";
  EXPECT_EQ(report.group_permille[1].load(), 1500U) << "30 us instead of 20";
  put_in_force(plan);
  request(program(), 1, 2);
  EXPECT_EQ(report.drift_epoch.load(), 2U);
  EXPECT_EQ(report.group_permille[1].load(), 0U) << "of another plan";
}

TEST_F(SchedulerTest, AGroupThatIsNotWholeIsNotCompared) {
  put_in_force(timed_pairs());
  request(program(), 1, 3);
  complete_two_groups();
  EXPECT_EQ(report.group_permille[1].load(), 0U);
}

TEST_F(SchedulerTest, AGroupThatWaitsForAnotherProgramIsNotCompared) {
  const WorkerPlan plan = timed_pairs();
  for (const bool same_stream : {false, true}) {
    put_in_force(plan);
    Program& other = another();
    if (same_stream) {
      scheduler.begin_request(other);
      dispatch(other, 7, 9);
    } else {
      dispatch(other, 9, 9);
    }
    const EventUse use = record(other, new_event());
    sink.take();
    Program& waits = another();
    scheduler.begin_request(waits);
    dispatch(waits, 1, 2);
    wait(waits, {use});
    dispatch(waits, 3, 4);
    const auto number = static_cast<std::uint32_t>(sink.sent.size());
    const SignalUse last = sink.sent[number - 1].packet.completion;
    sink.complete({last.signal - 1, 1}, PacketSink::Times{1000, 11'000});
    sink.complete(last, PacketSink::Times{12'000, 41'000});
    scheduler.advance();
    EXPECT_EQ(report.group_permille[1].load(), 0U) << same_stream << sink.take();
    sink.complete_all();
    scheduler.advance();
  }
}

TEST_F(SchedulerTest, SaysWhatItWaitsFor) {
  EXPECT_EQ(scheduler.awaited().generation, 0U);
  put_in_force(pairs({0, 0, 0}));
  request(program(), 1, 6);
  EXPECT_EQ(scheduler.awaited(program()), (SignalUse{0, 1}));
  sink.complete({0, 1});
  scheduler.advance();
  EXPECT_EQ(scheduler.awaited(), (SignalUse{1, 1}));
  complete_all();
  complete_all();
  EXPECT_EQ(scheduler.awaited().generation, 0U);
}

TEST_F(SchedulerTest, AProgramThatHasJustMovedWaitsForWhatItLeft) {
  dispatch(program(), 1, 1);
  put_in_force(pairs({0}));
  sink.room = 1;  // for the mark on the old stream, not for what waits for it on the new one
  request(program(), 2, 3);
  EXPECT_EQ(sink.take(), "7:K1 7:B()>0.1!");
  EXPECT_EQ(scheduler.awaited(program()), (SignalUse{0, 1}));
}

TEST_F(SchedulerTest, ARetriedSwitchIsCountedByItsReason) {
  dispatch(program(), 1, 1);
  put_in_force(pairs({0}));
  sink.room = 0;
  request(program(), 2, 3);
  sink.room = 99;
  scheduler.advance();
  EXPECT_EQ(sink.take(), "7:K1 7:B()>0.1! 0:B(0.1) 0:K2 0:K3>1.1!");
  EXPECT_EQ(switches(SwitchReason::new_plan), 1U);
  EXPECT_EQ(switches(SwitchReason::plan), 0U);
}

}  // namespace
}  // namespace eclip::test
