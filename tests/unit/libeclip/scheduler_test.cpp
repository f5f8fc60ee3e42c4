// The scheduler's rules, one by one: what it sends for which operations, on which stream and when.
#include "libeclip/scheduler.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/libeclip/recording_sink.h"

namespace {
std::atomic<std::uint64_t> scheduler_test_allocations{0};
}  // namespace

// All of this program's allocations are counted.
void* operator new(std::size_t size) {
  scheduler_test_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  scheduler_test_allocations.fetch_add(1, std::memory_order_relaxed);
  const auto align = static_cast<std::size_t>(alignment);
  if (void* const memory = std::aligned_alloc(align, (size + align - 1) / align * align))
    return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}

namespace eclip::test {
namespace {

/// A worker of seat 0; the other seats are whoever the test says.
class SchedulerTest : public ::testing::Test {
 protected:
  /// Groups begin at `first_kernel`; rows[set] are their streams.
  WorkerPlan plan_of(std::vector<std::uint32_t> first_kernel,
                     std::vector<std::vector<std::uint8_t>> rows, std::uint32_t kernel_count) {
    WorkerPlan plan;
    plan.seat = 0;
    plan.workers = static_cast<std::uint32_t>(rows.size() - 1);
    plan.first_kernel = std::move(first_kernel);
    plan.kernel_count = kernel_count;
    plan.stream = std::move(rows);
    return plan;
  }
  /// Groups of two kernels on these streams, whoever is active (seats 0 and 1).
  WorkerPlan pairs(const std::vector<std::uint8_t>& streams) {
    std::vector<std::uint32_t> first;
    for (std::uint32_t g = 0; g < streams.size(); ++g) first.push_back(2 * g);
    return plan_of(first, {{}, streams, {}, streams},
                   static_cast<std::uint32_t>(2 * streams.size()));
  }
  void put_in_force(const WorkerPlan& plan) {
    write_plan(*tables, epoch.load() + 1, plan);
    epoch.fetch_add(1);
  }
  Program& program() {
    if (programs.empty()) programs.push_back(scheduler.create_program());
    return *programs.front();
  }
  Program& another() {
    programs.push_back(scheduler.create_program());
    return *programs.back();
  }
  /// Kernels first .. last, each of one workgroup.
  void dispatch(Program& to, std::uint32_t first, std::uint32_t last,
                BypassReason stays = BypassReason::count) {
    for (std::uint32_t id = first; id <= last; ++id)
      ASSERT_EQ(scheduler.dispatch(to, kernel(id), stays), Enqueued::yes);
  }
  EventUse record(Program& of, std::uint32_t event) {
    EventUse use{};
    EXPECT_EQ(scheduler.record(of, event, &use), Enqueued::yes);
    return use;
  }
  std::uint32_t new_event() { return *scheduler.create_event(); }
  void wait(Program& by, std::vector<EventUse> uses) {
    ASSERT_EQ(scheduler.wait(by, uses), Enqueued::yes);
  }
  void request(Program& of, std::uint32_t first, std::uint32_t last) {
    ASSERT_EQ(scheduler.begin_request(of), Enqueued::yes);
    dispatch(of, first, last);
    ASSERT_EQ(scheduler.end_request(of), Enqueued::yes);
  }
  void complete_all() {
    sink.complete_all();
    scheduler.advance();
  }
  /// Until nothing more comes.
  void run_dry() {
    std::size_t before = SIZE_MAX;
    while (before != sink.sent.size()) {
      before = sink.sent.size();
      complete_all();
    }
  }
  std::uint64_t bypassed(BypassReason reason) {
    return report.bypassed[static_cast<std::size_t>(reason)].load();
  }
  std::uint64_t switches(SwitchReason reason) {
    return report.switches[static_cast<std::size_t>(reason)].load();
  }

  std::unique_ptr<PlanTables> tables = std::make_unique<PlanTables>();
  std::atomic<std::uint64_t> epoch{0};
  SchedulerReport report{};
  std::atomic<std::uint32_t> active{0};
  RecordingSink sink;
  Scheduler scheduler{sink, PlanReader(*tables, epoch), report, &active};
  std::vector<Program*> programs;
};

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
  WorkerPlan plan = pairs({0, 1});
  plan.alone_us = std::vector<std::vector<float>>(PlanTable::max_streams, {10, 20});
  plan.slowdown = {0, 1, 1, 1};
  put_in_force(plan);
  request(program(), 1, 4);
  sink.complete({0, 1}, PacketSink::Times{1000, 11'000});
  sink.complete({1, 1}, PacketSink::Times{12'000, 41'000});
  scheduler.advance();
  EXPECT_EQ(report.drift_epoch.load(), 1U);
  EXPECT_EQ(report.group_permille[0].load(), 0U) << "its beginning is not known";
  EXPECT_EQ(report.group_permille[1].load(), 1500U) << "30 us instead of 20";
  put_in_force(plan);
  request(program(), 1, 2);
  EXPECT_EQ(report.drift_epoch.load(), 2U);
  EXPECT_EQ(report.group_permille[1].load(), 0U) << "of another plan";
}

TEST_F(SchedulerTest, AGroupThatIsNotWholeIsNotCompared) {
  WorkerPlan plan = pairs({0, 1});
  plan.alone_us = std::vector<std::vector<float>>(PlanTable::max_streams, {10, 20});
  plan.slowdown = {0, 1, 1, 1};
  put_in_force(plan);
  request(program(), 1, 3);
  sink.complete({0, 1}, PacketSink::Times{1000, 11'000});
  sink.complete({1, 1}, PacketSink::Times{12'000, 41'000});
  scheduler.advance();
  EXPECT_EQ(report.group_permille[1].load(), 0U);
}

TEST_F(SchedulerTest, AGroupThatWaitsForAnotherProgramIsNotCompared) {
  WorkerPlan plan = pairs({0, 1});
  plan.alone_us = std::vector<std::vector<float>>(PlanTable::max_streams, {10, 20});
  plan.slowdown = {0, 1, 1, 1};
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

TEST_F(SchedulerTest, DoesNotAllocate) {
  put_in_force(pairs({0, 1, 0}));
  sink.sent.reserve(10'000);
  std::array<std::uint32_t, 4> events{new_event(), new_event(), new_event(), new_event()};
  Program& first = program();
  Program& second = another();
  const std::uint64_t before = scheduler_test_allocations.load();
  for (int round = 0; round < 100; ++round) {
    std::array<EventUse, 1> use{};
    scheduler.begin_request(first);
    for (std::uint32_t k = 0; k < 6; ++k) scheduler.dispatch(first, kernel(k + 1));
    scheduler.end_request(first);
    scheduler.record(first, events[static_cast<std::size_t>(round % 4)], use.data());
    scheduler.wait(second, use);
    scheduler.call(
        second, [](void*) {}, nullptr);
    scheduler.dispatch(second, kernel(9));
    for (int i = 0; i < 4; ++i) {
      sink.complete_all();
      scheduler.advance();
    }
  }
  EXPECT_EQ(scheduler_test_allocations.load(), before);
  EXPECT_EQ(scheduler.requests_done(first), 100U);
}

// --- threads

TEST_F(SchedulerTest, ProgramsOfSeveralThreads) {
  constexpr std::uint32_t threads = 4;
  constexpr std::uint32_t rounds = 200;
  put_in_force(pairs({0, 1, 2}));
  std::vector<std::uint32_t> events;
  for (std::uint32_t i = 0; i < threads; ++i) {
    another();
    events.push_back(new_event());
  }
  std::atomic<bool> stop{false};
  std::thread gpu([&] {
    while (!stop.load()) {
      sink.complete_pushed();
      scheduler.advance();
      std::this_thread::yield();
    }
  });
  std::thread daemon([&] {
    for (std::uint8_t turn = 0; !stop.load(); ++turn) {
      put_in_force(pairs({static_cast<std::uint8_t>(turn % 3), 1, 2}));
      active.fetch_xor(2);
      std::this_thread::yield();
    }
  });
  std::atomic<std::uint32_t> calls{0};
  std::array<std::atomic<std::uint64_t>, threads> last_use{};
  std::vector<std::thread> hosts;
  for (std::uint32_t t = 0; t < threads; ++t)
    hosts.emplace_back([&, t] {
      Program& mine = *programs[t];
      const auto until = [&](const std::function<Enqueued()>& put) {
        Enqueued result = Enqueued::full;
        while ((result = put()) == Enqueued::full) std::this_thread::yield();
        ASSERT_EQ(result, Enqueued::yes);
      };
      for (std::uint32_t round = 0; round < rounds; ++round) {
        until([&] { return scheduler.begin_request(mine, round); });
        for (std::uint32_t k = 0; k < 6; ++k)
          until(
              [&] { return scheduler.dispatch(mine, kernel(t * 1'000'000 + round * 6 + k + 1)); });
        until([&] { return scheduler.end_request(mine); });
        EventUse use{};
        until([&] { return scheduler.record(mine, events[t], &use); });
        last_use[t].store(use.recording);
        const std::array<EventUse, 1> of_neighbour{
            EventUse{.event = events[(t + 1) % threads],
                     .recording = static_cast<std::uint32_t>(last_use[(t + 1) % threads].load())}};
        until([&] { return scheduler.wait(mine, of_neighbour); });
        until([&] {
          return scheduler.call(
              mine,
              [](void* argument) {
                static_cast<std::atomic<std::uint32_t>*>(argument)->fetch_add(1);
              },
              &calls);
        });
        static_cast<void>(scheduler.is_complete(use));
        static_cast<void>(scheduler.awaited());
      }
      while (scheduler.requests_done(mine) < rounds || !scheduler.all_gone(mine))
        std::this_thread::yield();
    });
  for (auto& host : hosts) host.join();
  stop = true;
  gpu.join();
  daemon.join();
  EXPECT_EQ(calls.load(), threads * rounds);
  EXPECT_EQ(active.load() & 1U, 0U);
  // Every kernel once, those of a program in their order.
  std::array<std::uint32_t, threads> next{};
  for (const auto& sent : sink.sent) {
    if (sent.packet.type != LeasePacketType::dispatch) continue;
    const std::uint32_t id = sent.packet.dispatch.kernel - 1;
    ASSERT_EQ(id % 1'000'000, next[id / 1'000'000]++);
  }
  for (const std::uint32_t count : next) EXPECT_EQ(count, rounds * 6);
}

TEST_F(SchedulerTest, TheActiveBitIsRightAfterThreadsHaveRaced) {
  put_in_force(pairs({0}));
  request(program(), 1, 2);
  run_dry();
  for (int round = 0; round < 200; ++round) {
    std::thread waiting([&] {
      for (std::uint32_t i = 0; i < 20; ++i) scheduler.set_waiting_requests((i + 1) % 2);
    });
    for (int i = 0; i < 20; ++i) {
      request(program(), 1, 2);
      sink.complete_pushed();
      scheduler.advance();
    }
    waiting.join();
    ASSERT_EQ(active.load(), 0U) << "in round " << round;
    scheduler.set_waiting_requests(1);
    ASSERT_EQ(active.load(), 1U);
    scheduler.set_waiting_requests(0);
  }
}

}  // namespace
}  // namespace eclip::test
