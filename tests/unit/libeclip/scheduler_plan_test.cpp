// Which row of which plan is taken where, who is active, and what stays on its stream.
#include "tests/unit/libeclip/scheduler_fixture.h"

namespace eclip::test {
namespace {

// --- the active set

TEST_F(SchedulerTest, TheActiveSetIsReadWhereAGroupBegins) {
  put_in_force(plan_of({0, 2}, {{}, {0, 0}, {}, {1, 1}}, 4));
  scheduler.begin_request(program());
  dispatch(program(), 1, 1);
  active.fetch_or(2);
  dispatch(program(), 2, 3);
  active.fetch_and(~2U);
  dispatch(program(), 4, 4);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 1:B(0.1) 1:K3 1:K4>1.1!");
  EXPECT_EQ(switches(SwitchReason::active_set), 1U);
  scheduler.end_request(program());
  complete_all();
  request(program(), 5, 8);
  EXPECT_EQ(sink.take(), "0:K5 0:K6>2.1! 0:K7 0:K8>3.1!");
}

TEST_F(SchedulerTest, ASetWithoutARowTakesThatOfAll) {
  put_in_force(plan_of({0}, {{}, {PlanTable::not_planned}, {}, {1}}, 1));
  request(program(), 1, 1);
  EXPECT_EQ(sink.take(), "1:K1>0.1!");
}

TEST_F(SchedulerTest, AStreamThatThereIsNotIsNotTaken) {
  put_in_force(plan_of({0}, {{}, {5}, {}, {1}}, 1));
  request(program(), 1, 1);
  EXPECT_EQ(sink.take(), "1:K1>0.1!") << "but that of all workers";
  complete_all();
  put_in_force(plan_of({0}, {{}, {5}, {}, {6}}, 1));
  request(program(), 2, 2);
  EXPECT_EQ(sink.take(), "1:K2>1.1!") << "nor another, then";
  EXPECT_EQ(bypassed(BypassReason::no_plan), 1U);
}

TEST_F(SchedulerTest, IsActiveFromTheBeginningToTheLastCompletion) {
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  EXPECT_EQ(active.load(), 1U);
  scheduler.begin_request(program());
  dispatch(program(), 3, 3);
  sink.complete_all();
  scheduler.advance();
  EXPECT_EQ(scheduler.requests_done(program()), 1U);
  EXPECT_EQ(active.load(), 1U) << "one has not completed";
  dispatch(program(), 4, 4);
  scheduler.end_request(program());
  EXPECT_EQ(active.load(), 1U);
  complete_all();
  EXPECT_EQ(active.load(), 0U);
  scheduler.begin_request(program());
  EXPECT_EQ(active.load(), 1U) << "at once, as soon as the seat is known";
}

TEST_F(SchedulerTest, IsActiveWhileRequestsWait) {
  put_in_force(pairs({0}));
  scheduler.set_waiting_requests(3);
  EXPECT_EQ(active.load(), 0U) << "the seat is not known yet";
  request(program(), 1, 2);
  complete_all();
  EXPECT_EQ(active.load(), 1U);
  scheduler.set_waiting_requests(1);
  EXPECT_EQ(active.load(), 1U);
  scheduler.set_waiting_requests(0);
  EXPECT_EQ(active.load(), 0U);
  scheduler.set_waiting_requests(2);
  EXPECT_EQ(active.load(), 1U);
}

TEST_F(SchedulerTest, LeavesTheBitsOfOthersAlone) {
  active = 6;
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  EXPECT_EQ(active.load(), 7U);
  complete_all();
  EXPECT_EQ(active.load(), 6U);
}

TEST(SchedulerEnd, AWorkerWithoutASchedulerIsIdle) {
  const auto tables = std::make_unique<PlanTables>();
  std::atomic<std::uint64_t> epoch{1};
  std::atomic<std::uint32_t> active{0};
  SchedulerReport report{};
  RecordingSink sink;
  WorkerPlan plan;
  plan.seat = 3;
  plan.workers = 8;
  plan.first_kernel = {0};
  plan.stream = std::vector<std::vector<std::uint8_t>>(9, {0});
  write_plan(*tables, 1, plan);
  {
    Scheduler scheduler(sink, PlanReader(*tables, epoch), report, &active);
    Program& program = *scheduler.create_program();
    scheduler.begin_request(program);
    scheduler.dispatch(program, kernel(1));
    EXPECT_EQ(active.load(), 8U);
  }
  EXPECT_EQ(active.load(), 0U);
}

// --- plans

TEST_F(SchedulerTest, AnotherPlanIsTakenAtTheNextBoundary) {
  put_in_force(plan_of({0, 4}, {{}, {0, 0}}, 8));
  scheduler.begin_request(program());
  dispatch(program(), 1, 2);
  put_in_force(plan_of({0, 3, 6}, {{}, {1, 1, 2}}, 8));
  dispatch(program(), 3, 8);
  scheduler.end_request(program());
  EXPECT_EQ(sink.take(), "0:K1 0:K2 0:K3 0:K4>0.1! 1:B(0.1) 1:K5 1:K6>1.1!")
      << "the old group to its end, then the rest of the new one";
  EXPECT_EQ(switches(SwitchReason::new_plan), 2U);
  complete_all();
  EXPECT_EQ(sink.take(), "2:K7 2:K8>2.1!");
}

TEST_F(SchedulerTest, OfTwoPlansSinceTheLastBoundaryTheNewestCounts) {
  put_in_force(plan_of({0, 2}, {{}, {0, 0}}, 4));
  scheduler.begin_request(program());
  dispatch(program(), 1, 1);
  put_in_force(plan_of({0, 2}, {{}, {1, 1}}, 4));
  put_in_force(plan_of({0, 2}, {{}, {2, 2}}, 4));
  dispatch(program(), 2, 4);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 2:B(0.1) 2:K3 2:K4>1.1!");
}

TEST_F(SchedulerTest, WithoutAPartInThePlanItStaysWhereItIs) {
  put_in_force(pairs({0, 1}));
  scheduler.begin_request(program());
  dispatch(program(), 1, 2);
  epoch.fetch_add(1);  // nobody wrote this worker's table
  dispatch(program(), 3, 4);
  scheduler.end_request(program());
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4 0:B()>1.1!");
  EXPECT_EQ(bypassed(BypassReason::no_plan), 2U);
}

TEST_F(SchedulerTest, KernelsOutsideARequestStayWhereTheyAre) {
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  dispatch(program(), 3, 4);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4");
  EXPECT_EQ(bypassed(BypassReason::outside_request), 2U);
}

TEST_F(SchedulerTest, MoreKernelsThanThePlanKnowsStayWhereTheyAre) {
  put_in_force(pairs({0, 1}));
  request(program(), 1, 6);
  run_dry();
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 1:B(0.1) 1:K3 1:K4>1.1! 1:K5 1:K6 1:B()>2.1!");
  EXPECT_EQ(bypassed(BypassReason::unknown), 2U);
  request(program(), 7, 8);
  EXPECT_EQ(sink.take(), "0:K7 0:K8>3.1!") << "the next request is known again";
}

TEST_F(SchedulerTest, ARequestOfOtherShapesStaysWhereItIs) {
  WorkerPlan plan = pairs({0, 1, 0});
  LaunchShapes shapes;
  shapes.add(1);
  shapes.add(1);
  plan.shapes = std::vector<std::uint32_t>(3, shapes.value());
  put_in_force(plan);
  scheduler.begin_request(program());
  scheduler.dispatch(program(), kernel(1));
  scheduler.dispatch(program(), kernel(2, 9));
  dispatch(program(), 3, 6);
  scheduler.end_request(program());
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4 0:K5 0:K6 0:B()>1.1!");
  EXPECT_EQ(report.scheduled.load(), 2U);
  EXPECT_EQ(bypassed(BypassReason::unknown), 4U);
  run_dry();
  request(program(), 7, 10);
  EXPECT_EQ(sink.take(), "0:K7 0:K8>2.1! 1:B(2.1) 1:K9 1:K10>3.1!");
}

// --- pins

TEST_F(SchedulerTest, PinnedKernelsStayAndAreCountedByReason) {
  put_in_force(pairs({0, 1}));
  for (const BypassReason reason :
       {BypassReason::graph, BypassReason::cooperative, BypassReason::persistent}) {
    sink.sent.clear();
    scheduler.begin_request(program());
    dispatch(program(), 1, 2);
    scheduler.pin(program(), reason);
    dispatch(program(), 3, 4);
    scheduler.unpin(program());
    scheduler.end_request(program());
    for (const auto& sent : sink.sent) EXPECT_EQ(sent.stream, 0U);
    EXPECT_EQ(bypassed(reason), 2U);
    run_dry();
  }
  EXPECT_EQ(report.barriers.load(), 0U);
}

TEST_F(SchedulerTest, AKernelThatMustStayIsNotMoved) {
  put_in_force(pairs({0, 1}));
  scheduler.begin_request(program());
  dispatch(program(), 1, 2);
  dispatch(program(), 3, 3, BypassReason::cooperative);
  dispatch(program(), 4, 4);
  EXPECT_EQ(sink.take(), "0:K1 0:K2>0.1! 0:K3 0:K4>1.1!");
  EXPECT_EQ(bypassed(BypassReason::cooperative), 2U) << "it decides for its group";
}

TEST_F(SchedulerTest, AUniformLibraryReturnsToTheSameStream) {
  put_in_force(plan_of({0, 2, 4}, {{}, {0, 1, 2}, {}, {2, 2, 2}}, 6));
  const auto one_request = [&] {
    scheduler.begin_request(program());
    dispatch(program(), 1, 1);
    scheduler.pin(program(), BypassReason::uniform);
    dispatch(program(), 2, 2);
    scheduler.unpin(program());
    dispatch(program(), 3, 6);
    scheduler.end_request(program());
    run_dry();
  };
  one_request();
  EXPECT_EQ(sink.take(),
            "0:K1 0:B()>0.1! 2:B(0.1) 2:K2>1.1! 1:K3 1:K4>2.1! 2:B(2.1) 2:K5 2:K6>3.1!");
  EXPECT_EQ(bypassed(BypassReason::uniform), 1U);
  EXPECT_EQ(switches(SwitchReason::pin), 1U);
  // Whatever the plan says then.
  put_in_force(plan_of({0}, {{}, {1}, {}, {0}}, 6));
  one_request();
  const std::string second = sink.take();
  EXPECT_THAT(second, ::testing::HasSubstr("2:K2"));
  EXPECT_THAT(second, ::testing::HasSubstr("1:K1"));
  EXPECT_THAT(second, ::testing::HasSubstr("1:K6"));
}

TEST_F(SchedulerTest, AUniformPinHoldsOutsideRequestsToo) {
  put_in_force(plan_of({0}, {{}, {1}, {}, {0}}, 1));
  request(program(), 1, 1);
  scheduler.pin(program(), BypassReason::uniform);
  dispatch(program(), 2, 3);
  scheduler.unpin(program());
  dispatch(program(), 4, 4);
  EXPECT_EQ(sink.take(), "1:K1>0.1! 0:B(0.1) 0:K2 0:K3 0:K4");
}

}  // namespace
}  // namespace eclip::test
