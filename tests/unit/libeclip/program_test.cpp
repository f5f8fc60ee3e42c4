// The scheduler's C ABI: schedulers, programs, requests, events, and what stands in the rings.
#include <atomic>
#include <eclip/eclip.hpp>
#include <functional>
#include <thread>

#include "tests/unit/libeclip/scheduled_worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;

class SchedulerAbi : public ScheduledWorker {};

// --- making and destroying

TEST_F(SchedulerAbi, AConnectionHasOneSchedulerAtATime) {
  connect();
  ASSERT_EQ(try_to_create(0, ECLIP_CLASS_LATENCY), 0) << eclip_last_error();
  const auto asked = daemon.requests(MessageType::schedule);
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(payload_of<Schedule>(asked[0]).latency_class, 1U);
  eclip_scheduler* second = scheduler;
  EXPECT_EQ(eclip_scheduler_create(context, nullptr, &second), -EALREADY);
  EXPECT_THAT(eclip_last_error(), HasSubstr("the connection has a scheduler"));
  EXPECT_EQ(second, nullptr);
  destroy();
  EXPECT_EQ(releases(), 8U);
  EXPECT_EQ(eclip_scheduler_create(context, nullptr, &scheduler), 0) << eclip_last_error();
  eclip_scheduler_destroy(nullptr);
}

TEST_F(SchedulerAbi, OfManyThreadsThatMakeItOneDoes) {
  connect();
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      eclip_scheduler* mine = nullptr;
      const int result = eclip_scheduler_create(context, nullptr, &mine);
      EXPECT_TRUE(result == 0 || result == -EALREADY) << eclip_last_error();
      EXPECT_EQ(mine == nullptr, result != 0);
      made += result == 0 ? 1 : 0;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
  EXPECT_EQ(daemon.requests(MessageType::schedule).size(), 1U);
}

TEST_F(SchedulerAbi, OptionsAreChecked) {
  connect();
  eclip_scheduler_options options{};
  options.struct_size = sizeof options;
  EXPECT_EQ(eclip_scheduler_create(nullptr, &options, &scheduler), -EINVAL);
  EXPECT_EQ(eclip_scheduler_create(context, &options, nullptr), -EINVAL);
  const auto refused = [&](auto change) {
    eclip_scheduler_options bad = options;
    change(bad);
    return eclip_scheduler_create(context, &bad, &scheduler) == -EINVAL && scheduler == nullptr;
  };
  EXPECT_TRUE(refused([](auto& o) { o.struct_size = sizeof o - 1; }));
  EXPECT_TRUE(refused([](auto& o) { o.flags = 2; }));
  EXPECT_TRUE(refused([](auto& o) { o.latency_class = 2; }));
  EXPECT_TRUE(refused([](auto& o) { o.reserved = 1; }));
  EXPECT_TRUE(daemon.requests(MessageType::schedule).empty());
}

TEST_F(SchedulerAbi, ItNeedsSignalsAndLeavesNothingBehindWithoutThem) {
  connect();
  std::vector<std::uint32_t> signals;
  while (signals.size() < 900) signals.push_back(create_signal());
  EXPECT_EQ(try_to_create(), -ENOSPC);
  EXPECT_THAT(eclip_last_error(), HasSubstr("128 signals"));
  EXPECT_EQ(scheduler, nullptr);
  EXPECT_EQ(releases(), 8U);
  for (const std::uint32_t signal : signals) ASSERT_EQ(eclip_signal_destroy(context, signal), 0);
  EXPECT_EQ(try_to_create(), 0) << eclip_last_error();
}

TEST_F(SchedulerAbi, SignalsOfPacketsThatStillRunComeBack) {
  constexpr int rounds = 20;
  for (int i = 0; i < rounds; ++i) {
    request(create_program(), 1);
    destroy();
  }
  create();
  std::uint32_t signal = 0;
  int left = 0;
  while (eclip_signal_create(context, &signal) == 0) ++left;
  EXPECT_EQ(left, 1024 - 128 - rounds);
  destroy();
  // Each round used the first of its signals.
  for (std::uint32_t i = 0; i < WorkerState::signal_count; ++i) daemon.complete({i, 1});
  create();
  left = 0;
  while (eclip_signal_create(context, &signal) == 0) ++left;
  EXPECT_EQ(left, rounds);
}

class OldEclipd : public ScheduledWorker {
 protected:
  OldEclipd() : ScheduledWorker({.can_schedule = false}) {}
};

TEST_F(OldEclipd, ThatCannotScheduleStillLeases) {
  connect();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(try_to_create(), -ENOTSUP);
    EXPECT_STREQ(eclip_last_error(), "unknown message type");
  }
  EXPECT_NE(acquire(), nullptr);
}

class SilentEclipd : public ScheduledWorker {
 protected:
  SilentEclipd()
      : ScheduledWorker({.answer = [](const Message& request) {
          return request.header.type == MessageType::schedule
                     ? std::optional(std::vector<Message>{})
                     : std::nullopt;
        }}) {}
};

TEST_F(SilentEclipd, IsNotWaitedForLong) {
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path, 50);
  ASSERT_EQ(eclip_connect(&options, &context), 0);
  EXPECT_EQ(try_to_create(), -ETIMEDOUT);
  EXPECT_EQ(scheduler, nullptr);
}

TEST_F(SchedulerAbi, WithoutEclipdThereIsNone) {
  connect();
  daemon.die();
  EXPECT_EQ(try_to_create(), -ECONNRESET);
  EXPECT_EQ(try_to_create(), -ECONNRESET);
}

struct FalseReply {
  const char* name;
  std::function<void(Scheduled&, std::vector<int>&)> falsify;
};

// For the tests' names.
void PrintTo(const FalseReply& reply, std::ostream* out) {
  *out << reply.name;
}

class FalseSchedule : public ScheduledWorker, public ::testing::WithParamInterface<FalseReply> {
 protected:
  FalseSchedule() : ScheduledWorker({.falsify_schedule = GetParam().falsify}) {}
};

TEST_P(FalseSchedule, IsRefusedAndLeavesNothing) {
  connect();
  EXPECT_EQ(try_to_create(), -EPROTO) << eclip_last_error();
  EXPECT_EQ(scheduler, nullptr);
  EXPECT_EQ(try_to_create(), -EPROTO) << "and not that there is one";
  disconnect();
  EXPECT_EQ(releases(), 0U);
}

INSTANTIATE_TEST_SUITE_P(
    Every, FalseSchedule,
    ::testing::Values(
        FalseReply{"no descriptors", [](auto&, auto& fds) { fds.clear(); }},
        FalseReply{"one descriptor", [](auto&, auto& fds) { fds.pop_back(); }},
        FalseReply{"three descriptors", [](auto&, auto& fds) { fds.push_back(fds[0]); }},
        FalseReply{"swapped descriptors", [](auto&, auto& fds) { std::swap(fds[0], fds[1]); }},
        FalseReply{"the set twice", [](auto&, auto& fds) { fds[1] = fds[0]; }},
        FalseReply{"no stream", [](auto& scheduled, auto&) { scheduled.count = 0; }},
        FalseReply{"nine streams", [](auto& scheduled, auto&) { scheduled.count = 9; }},
        FalseReply{"a stream past all",
                   [](auto& scheduled, auto&) { scheduled.leases[2].stream = 9; }},
        FalseReply{"a stream in the place of the queue without a mask",
                   [](auto& scheduled, auto&) { scheduled.leases[7].stream = 7; }},
        FalseReply{"a stream twice",
                   [](auto& scheduled, auto&) { scheduled.leases[2].stream = 1; }},
        FalseReply{"a slot past all",
                   [](auto& scheduled, auto&) { scheduled.leases[7].slot = 16; }}));

TEST_F(SchedulerAbi, ProgramsAndEventsHaveAnEndAndAreNotUsedUpBeyondIt) {
  create();
  for (int i = 0; i < 16; ++i) create_program();
  eclip_program* program = nullptr;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(eclip_program_create(scheduler, &program), -ENOSPC);
  EXPECT_THAT(eclip_last_error(), HasSubstr("at most 16 programs"));
  std::uint32_t event = 0;
  int events = 0;
  while (eclip_event_create(scheduler, &event) == 0) ++events;
  EXPECT_EQ(events, 1024 - 16);
  EXPECT_EQ(eclip_event_create(scheduler, &event), -ENOSPC);
}

TEST_F(SchedulerAbi, AProgramThatCannotHaveItsEventIsNotMade) {
  create();
  std::uint32_t event = 0;
  while (eclip_event_create(scheduler, &event) == 0) {
  }
  eclip_program* program = nullptr;
  EXPECT_EQ(eclip_program_create(scheduler, &program), -ENOSPC);
  EXPECT_EQ(program, nullptr);
}

// --- bad input

TEST_F(SchedulerAbi, NullIsAnErrorOfEveryCall) {
  eclip_program* program = create_program();
  eclip_event recorded{};
  eclip_scheduler_state state{};
  state.struct_size = sizeof state;
  std::uint32_t event = 0;
  int word = 0;
  const auto nothing = [](void*) {};
  const std::vector<int> results{
      eclip_program_create(nullptr, &program),
      eclip_program_create(scheduler, nullptr),
      eclip_request_begin(nullptr, 0),
      eclip_request_end(nullptr, nullptr),
      eclip_program_dispatch(nullptr, nullptr),
      eclip_program_dispatch(program, nullptr),
      eclip_program_pin(nullptr, ECLIP_PIN_GRAPH),
      eclip_program_unpin(nullptr),
      eclip_event_create(nullptr, &event),
      eclip_event_create(scheduler, nullptr),
      eclip_event_record(nullptr, 0, &recorded),
      eclip_program_wait_events(nullptr, &recorded, 1),
      eclip_program_wait_events(program, nullptr, 1),
      eclip_program_call(nullptr, nothing, nullptr),
      eclip_program_call(program, nullptr, nullptr),
      eclip_program_copy(nullptr, &word, &word, 1),
      eclip_program_copy(program, nullptr, &word, 1),
      eclip_program_copy(program, &word, nullptr, 1),
      eclip_program_wait_room(nullptr, 0),
      eclip_scheduler_advance(nullptr),
      eclip_scheduler_waiting(nullptr, 1),
      eclip_request_wait(nullptr, 1, 0),
      eclip_request_test(nullptr, 1),
      eclip_program_wait(nullptr, 0),
      eclip_event_wait(nullptr, recorded, 0),
      eclip_scheduler_describe(nullptr, &state),
      eclip_scheduler_describe(scheduler, nullptr),
  };
  EXPECT_THAT(results, ::testing::Each(-EINVAL));
}

TEST_F(SchedulerAbi, OutOfPlaceIsAnErrorAndChangesNothing) {
  eclip_program* program = create_program();
  EXPECT_EQ(eclip_request_end(program, nullptr), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("an end without a beginning"));
  EXPECT_EQ(eclip_program_unpin(program), -EINVAL);
  EXPECT_EQ(eclip_program_pin(program, 0), -EINVAL);
  EXPECT_EQ(eclip_program_pin(program, 3), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("no reason 3 to pin"));
  begin(program);
  EXPECT_EQ(eclip_request_begin(program, 0), -EINVAL);
  ASSERT_EQ(eclip_program_pin(program, ECLIP_PIN_UNIFORM), 0);
  EXPECT_EQ(eclip_program_pin(program, ECLIP_PIN_GRAPH), -EINVAL);
  ASSERT_EQ(eclip_program_unpin(program), 0);
  EXPECT_EQ(end(program), 1U);
  EXPECT_EQ(eclip_request_wait(program, 1, deadline_ns), 0) << "a request of nothing";
}

TEST_F(SchedulerAbi, WhatThereIsNotIsAnError) {
  eclip_program* program = create_program();
  const std::uint32_t event = create_event();
  EXPECT_EQ(eclip_event_record(program, event + 1, nullptr), -EINVAL);
  eclip_event none{.event = event + 1, .recording = 1};
  EXPECT_EQ(eclip_program_wait_events(program, &none, 1), -EINVAL);
  EXPECT_EQ(eclip_event_wait(scheduler, none, 0), -EINVAL);
  none.recording = 0;
  EXPECT_EQ(eclip_program_wait_events(program, &none, 1), 0) << "none";
  EXPECT_EQ(eclip_event_wait(scheduler, none, 0), 0);
  EXPECT_EQ(eclip_program_wait_events(program, nullptr, 0), 0);
  const std::vector<eclip_event> many(1025, eclip_event{event, 0});
  EXPECT_EQ(eclip_program_wait_events(program, many.data(), 1025), -EINVAL);
  EXPECT_EQ(eclip_program_wait_events(program, many.data(), UINT32_MAX), -EINVAL);
  EXPECT_EQ(eclip_program_wait_events(program, many.data(), 1024), 0);
  EXPECT_EQ(eclip_request_wait(program, 1, 0), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("not begun a request 1"));
  EXPECT_EQ(eclip_request_test(program, 1), -EINVAL);
  EXPECT_EQ(eclip_request_test(program, 0), 1);
}

TEST_F(SchedulerAbi, DispatchesAreChecked) {
  eclip_program* program = create_program();
  const auto refused = [&](auto change) {
    eclip_dispatch bad = some_dispatch();
    change(bad);
    return eclip_program_dispatch(program, &bad) == -EINVAL;
  };
  EXPECT_TRUE(refused([](auto& d) { d.struct_size = 4; }));
  EXPECT_TRUE(refused([](auto& d) { d.flags = ECLIP_PACKET_BARRIER; }));
  EXPECT_TRUE(refused([](auto& d) { d.flags = ECLIP_PACKET_SIGNAL; }));
  EXPECT_TRUE(refused([](auto& d) { d.flags = 16; }));
  EXPECT_TRUE(refused([](auto& d) { d.grid_size[2] = 0; }));
  EXPECT_TRUE(refused([](auto& d) { d.workgroup_size[0] = 1025; }));
  EXPECT_TRUE(refused([](auto& d) { d.reserved = 1; }));
  EXPECT_TRUE(refused([](auto& d) { d.kernarg_memory = 1, d.kernarg_offset = 8; }));
  EXPECT_TRUE(refused([](auto& d) { d.kernarg_offset = 16; }));
  for (std::uint32_t stream = 0; stream < PlanTable::max_streams; ++stream)
    EXPECT_EQ(written(stream), 0U);
  eclip_scheduler_state state{};
  state.struct_size = sizeof state - 1;
  EXPECT_EQ(eclip_scheduler_describe(scheduler, &state), -EINVAL);
}

// --- where kernels go

TEST_F(SchedulerAbi, KernelsGoWhereThePlanSays) {
  plan_pairs({1, 3});
  eclip_program* program = create_program();
  EXPECT_EQ(request(program, 4), 1U);
  EXPECT_EQ(sent(1), "0 1>");
  EXPECT_EQ(sent(3), "B 2 3>");
  EXPECT_EQ(packet(3, 0).barrier.dependencies[0], last_completion(1));
  const eclip_scheduler_state state = describe();
  EXPECT_EQ(state.requests, 1U);
  EXPECT_EQ(state.scheduled, 4U);
  EXPECT_EQ(state.bypassed, 0U);
  EXPECT_EQ(state.switches, 2U) << "from where the program was made, and to the second group";
  EXPECT_EQ(state.barriers, 1U);
  EXPECT_EQ(state.plan_epoch, 1U);
}

TEST_F(SchedulerAbi, WithoutAPlanKernelsStayOnTheQueueWithoutAMask) {
  request(create_program(), 2);
  EXPECT_EQ(sent(no_mask), "0 1 B>");
  EXPECT_EQ(describe().bypassed, 2U);
  EXPECT_EQ(describe().plan_epoch, 0U);
}

TEST_F(SchedulerAbi, AtMostTwoGroupsAreUnderWay) {
  plan_pairs({1, 2, 3, 4});
  eclip_program* program = create_program();
  const std::uint64_t number = request(program, 8);
  EXPECT_EQ(written(2), 3U);
  EXPECT_EQ(written(3), 0U);
  daemon.complete(last_completion(1));
  EXPECT_EQ(eclip_scheduler_advance(scheduler), 0);
  EXPECT_EQ(written(3), 3U);
  EXPECT_EQ(written(4), 0U);
  run_dry();
  EXPECT_EQ(eclip_request_test(program, number), 1);
}

TEST_F(SchedulerAbi, PinnedKernelsAndThoseThatMustStayDo) {
  plan_pairs({1, 3});
  eclip_program* program = create_program();
  begin(program);
  dispatch(program, 0);
  ASSERT_EQ(eclip_program_pin(program, ECLIP_PIN_GRAPH), 0);
  for (std::uint32_t kernel = 1; kernel < 4; ++kernel) dispatch(program, kernel);
  ASSERT_EQ(eclip_program_unpin(program), 0);
  end(program);
  EXPECT_EQ(written(3), 0U);
  EXPECT_GT(describe().bypassed, 0U);
  run_dry();
  const std::uint64_t before = describe().bypassed;
  for (const std::uint32_t flag : {ECLIP_KERNEL_COOPERATIVE, ECLIP_KERNEL_PERSISTENT}) {
    eclip_dispatch stays = some_dispatch();
    stays.flags = flag;
    EXPECT_EQ(eclip_program_dispatch(program, &stays), 0);
  }
  EXPECT_EQ(describe().bypassed, before + 2);
  const auto& reasons = daemon.request().scheduler.bypassed;
  EXPECT_EQ(reasons[static_cast<std::size_t>(BypassReason::cooperative)], 1U);
  EXPECT_EQ(reasons[static_cast<std::size_t>(BypassReason::persistent)], 1U);
}

TEST_F(SchedulerAbi, TheWorkerIsActiveWhileItHasRequests) {
  plan_pairs({1});
  daemon.active() = 6;
  eclip_program* program = create_program();
  request(program, 2);
  EXPECT_EQ(daemon.active(), 7U);
  EXPECT_EQ(describe().active_others, 2U);
  run_dry();
  EXPECT_EQ(daemon.active(), 6U);
  EXPECT_EQ(eclip_scheduler_waiting(scheduler, 3), 0);
  EXPECT_EQ(daemon.active(), 7U) << "requests wait in its own queue";
  EXPECT_EQ(eclip_scheduler_waiting(scheduler, 0), 0);
  EXPECT_EQ(daemon.active(), 6U);
  request(program, 2);
  destroy();
  EXPECT_EQ(daemon.active(), 6U);
}

TEST_F(SchedulerAbi, EclipdSeesTheEarliestDeadline) {
  plan_pairs({1});
  eclip_program* program = create_program();
  begin(program, 300);
  end(program);
  begin(program, 200);
  dispatch(program, 0);
  end(program);
  const auto& shown = daemon.request().scheduler.deadline_ns;
  EXPECT_EQ(shown, 200U);
  run_dry();
  EXPECT_EQ(shown, 0U);
  begin(program, 500);
  dispatch(program, 0);
  EXPECT_EQ(shown, 500U);
  destroy();
  EXPECT_EQ(shown, 0U);
}

// --- waiting

TEST_F(SchedulerAbi, ARequestIsDoneWhenItsLastKernelIs) {
  plan_pairs({1, 3});
  eclip_program* program = create_program();
  const std::uint64_t first = request(program, 4);
  const std::uint64_t second = request(program, 4);
  EXPECT_EQ(second, first + 1);
  EXPECT_EQ(eclip_request_test(program, first), 0);
  daemon.complete(last_completion(1));
  EXPECT_EQ(eclip_request_test(program, first), 0);
  daemon.complete(last_completion(3));
  EXPECT_EQ(eclip_request_test(program, first), 1);
  EXPECT_EQ(eclip_request_wait(program, first, 0), 0);
  EXPECT_EQ(eclip_request_test(program, second), 0);
  run_dry();
  EXPECT_EQ(eclip_request_wait(program, second, 0), 0);
  EXPECT_EQ(eclip_program_wait(program, 0), 0);
}

TEST_F(SchedulerAbi, ATimeoutNamesWhatIsWaitedFor) {
  plan_pairs({1});
  eclip_program* program = create_program();
  const std::uint64_t number = request(program, 2);
  EXPECT_EQ(eclip_request_wait(program, number, 1'000'000), -ETIMEDOUT);
  EXPECT_STREQ(eclip_last_error(),
               "the request did not complete in time: worker 1 waits on stream 1 for packet 1 of "
               "lease 202; see eclipctl stream list");
  EXPECT_EQ(eclip_program_wait(program, 0), -ETIMEDOUT);
  EXPECT_THAT(eclip_last_error(), HasSubstr("the program did not"));
  const eclip_event recorded = record(program, create_event());
  EXPECT_EQ(eclip_event_wait(scheduler, recorded, 0), -ETIMEDOUT);
  EXPECT_STREQ(eclip_last_error(), "the event did not complete in time");
  eclip_program* unmasked = create_program();
  dispatch(unmasked);
  EXPECT_EQ(eclip_program_wait(unmasked, 0), -ETIMEDOUT);
  EXPECT_THAT(eclip_last_error(),
              HasSubstr("waits on the stream without a CU mask for packet 1 of lease 208"));
}

TEST_F(SchedulerAbi, WaitingAgainAndAgainCostsNothing) {
  eclip_program* program = create_program();
  dispatch(program);
  EXPECT_EQ(eclip_program_wait(program, 0), -ETIMEDOUT);
  const std::uint64_t packets = written(no_mask);
  for (int i = 0; i < 3000; ++i) ASSERT_EQ(eclip_program_wait(program, 0), -ETIMEDOUT);
  EXPECT_EQ(written(no_mask), packets);
  run_pushed();
  EXPECT_EQ(eclip_program_wait(program, 0), 0);
}

TEST_F(SchedulerAbi, RoomComesWhenOperationsGo) {
  plan_pairs({1, 2, 3});
  eclip_program* program = create_program();
  for (int i = 0; i < 16; ++i) request(program, 6);
  EXPECT_EQ(eclip_request_begin(program, 0), -EAGAIN);
  EXPECT_THAT(eclip_last_error(), HasSubstr("wait for a request"));
  EXPECT_EQ(eclip_program_wait_room(program, 1'000'000), -ETIMEDOUT);
  run_dry();
  EXPECT_EQ(eclip_program_wait_room(program, 0), 0);
  begin(program);
  int dispatched = 0;
  while (try_to_dispatch(program) == 0) ++dispatched;
  EXPECT_GE(dispatched, 1024);
  EXPECT_EQ(try_to_dispatch(program), -EAGAIN);
  EXPECT_EQ(eclip_program_wait_room(program, 1'000'000), -ETIMEDOUT);
  run_pushed();
  EXPECT_EQ(eclip_program_wait_room(program, deadline_ns), 0);
  EXPECT_EQ(try_to_dispatch(program), 0);
}

TEST_F(SchedulerAbi, AWaitForAFullProgramGoesOnWhenThereIsRoom) {
  eclip_program* program = create_program();
  std::atomic<bool> stop{false};
  ASSERT_EQ(eclip_program_call(
                program, [](void*) {}, nullptr),
            0);
  dispatch(program);
  // What waits for the kernel fills the program.
  while (eclip_program_call(
             program, [](void*) {}, nullptr) == 0) {
  }
  EXPECT_EQ(eclip_program_wait(program, 1'000'000), -ETIMEDOUT);
  std::thread gpu([&] {
    while (!stop.load()) {
      run_pushed();
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(eclip_program_wait(program, deadline_ns), 0) << eclip_last_error();
  stop.store(true);
  gpu.join();
}

// --- events, functions, copies

TEST_F(SchedulerAbi, AProgramWaitsForAnothersEvent) {
  plan_pairs({1});
  eclip_program* first = create_program();
  eclip_program* second = create_program();
  const std::uint32_t event = create_event();
  dispatch(first, 1);
  const eclip_event recorded = record(first, event);
  EXPECT_EQ(recorded.recording, 1U);
  EXPECT_EQ(eclip_program_wait_events(second, &recorded, 1), 0);
  begin(second);
  dispatch(second, 2);
  EXPECT_EQ(sent(1), "B 2");
  EXPECT_EQ(packet(1, 0).barrier.dependencies[0], last_completion(no_mask));
  EXPECT_EQ(eclip_event_wait(scheduler, recorded, 0), -ETIMEDOUT);
  run_pushed();
  EXPECT_EQ(eclip_event_wait(scheduler, recorded, deadline_ns), 0);
}

TEST_F(SchedulerAbi, FunctionsAndCopiesComeInTheirTurn) {
  eclip_program* program = create_program();
  std::string said = "-";
  std::string copied = "-----";
  const std::string text = "hello";
  dispatch(program);
  const auto say = [](void* to) { static_cast<std::string*>(to)->append("called"); };
  ASSERT_EQ(eclip_program_call(program, say, &said), 0);
  dispatch(program);
  ASSERT_EQ(eclip_program_copy(program, copied.data(), text.data(), text.size()), 0);
  ASSERT_EQ(eclip_program_copy(program, nullptr, nullptr, 0), 0);
  EXPECT_EQ(eclip_program_wait(program, 1'000'000), -ETIMEDOUT);
  EXPECT_EQ(said, "-");
  run_pushed();
  EXPECT_EQ(eclip_program_wait(program, 0), -ETIMEDOUT);
  EXPECT_EQ(said, "-called");
  EXPECT_EQ(copied, "-----");
  run_pushed();
  EXPECT_EQ(eclip_program_wait(program, deadline_ns), 0);
  EXPECT_EQ(copied, "hello");
}

TEST_F(SchedulerAbi, CopiesThatHadNoTurnAreForgotten) {
  eclip_program* program = create_program();
  std::string to = "-----";
  const std::string from = "hello";
  dispatch(program);
  int copies = 0;
  while (eclip_program_copy(program, to.data(), from.data(), from.size()) == 0) ++copies;
  EXPECT_GT(copies, 1000);
  disconnect();
  EXPECT_EQ(to, "-----");
}

// --- the C++ wrapper

class SchedulerWrapper : public ScheduledWorker {
 protected:
  SchedulerWrapper() : ScheduledWorker({.run_packets = true}) {}
};

TEST_F(SchedulerWrapper, DoesAsTheCallsDo) {
  plan_pairs({1, 3});
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path);
  Connection connection(&options);
  WorkerScheduler of_connection = connection.scheduler();
  EXPECT_THROW(connection.scheduler(), ApiError);
  WorkerProgram program = of_connection.create_program();
  std::uint64_t last = 0;
  // More than fits at once.
  for (int i = 0; i < 200; ++i) {
    program.begin_request();
    for (int kernel = 0; kernel < 4; ++kernel) program.dispatch(some_dispatch());
    last = program.end_request();
  }
  EXPECT_TRUE(program.wait(last, deadline));
  const eclip_event recorded = program.record(of_connection.create_event());
  EXPECT_TRUE(of_connection.wait(recorded, deadline));
  program.wait_events(&recorded, 1);
  int to = 0;
  const int from = 5;
  program.copy(&to, &from, sizeof to);
  program.pin(ECLIP_PIN_UNIFORM);
  program.unpin();
  of_connection.set_waiting(0);
  EXPECT_TRUE(program.wait_for_all(deadline));
  EXPECT_EQ(to, 5);
  of_connection.advance();
  EXPECT_EQ(of_connection.describe().requests, 200U);
  EXPECT_EQ(of_connection.describe().scheduled, 800U);
  EXPECT_THROW(static_cast<void>(program.wait(last + 1, deadline)), ApiError);
}

}  // namespace
}  // namespace eclip::test
