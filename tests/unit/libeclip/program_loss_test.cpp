// What becomes of a scheduled worker when eclipd dies, cuts it off, or takes a lease away: it
// learns of it soon, and nothing that was not done counts as done.
#include <time.h>

#include <future>
#include <thread>

#include "tests/unit/libeclip/scheduled_worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

class ProgramLoss : public ScheduledWorker {
 protected:
  void SetUp() override {
    plan_pairs({1, 3});
    program = create_program();
  }
  /// A wait in a thread of its own, once it sleeps or is about to.
  std::future<std::pair<int, std::string>> wait_in_background(std::uint64_t number) {
    auto result = std::async(std::launch::async, [this, number] {
      const int code = eclip_request_wait(program, number, deadline_ns);
      return std::pair<int, std::string>(code, eclip_last_error());
    });
    EXPECT_TRUE(eventually([this] {
      unsigned count = 0;
      for (const auto& each : daemon.request().waiters) count += each.load();
      return count > 0;
    }));
    return result;
  }
  /// All that is called afterwards says the same.
  void expect_end(int error, std::uint64_t number) {
    EXPECT_EQ(eclip_request_test(program, number), error);
    EXPECT_EQ(eclip_request_wait(program, number, deadline_ns), error);
    EXPECT_EQ(eclip_program_wait(program, deadline_ns), error);
    EXPECT_EQ(eclip_program_wait_room(program, 0), 0) << "there is room for what is not done";
    EXPECT_EQ(eclip_scheduler_advance(scheduler), error);
    eclip_program* other = create_program();
    // What has gone nowhere is noticed at the latest by the next.
    int result = 0;
    for (int i = 0; i < 3 && result == 0; ++i) result = try_to_dispatch(other);
    EXPECT_EQ(result, error) << eclip_last_error();
    EXPECT_EQ(eclip_request_begin(other, 0), error);
  }

  /// An event of the present scheduler, the same each time.
  std::uint32_t create_event_once() {
    if (event_of_ != scheduler || !event_) event_ = create_event();
    event_of_ = scheduler;
    return *event_;
  }

  eclip_program* program = nullptr;

 private:
  std::optional<std::uint32_t> event_;
  eclip_scheduler* event_of_ = nullptr;
};

TEST_F(ProgramLoss, TheEndOfEclipdEndsAWait) {
  const std::uint64_t number = request(program, 4);
  auto result = wait_in_background(number);
  const auto start = Clock::now();
  daemon.die();
  EXPECT_EQ(result.get().first, -ECONNRESET);
  const auto noticed = Clock::now() - start;
  // 20 ms; the rest is for a machine that is busy elsewhere.
  EXPECT_LT(noticed, std::chrono::seconds(2));
  RecordProperty("noticed_us", std::to_string(noticed / std::chrono::microseconds(1)));
  EXPECT_EQ(eclip_request_test(program, number), -ECONNRESET);
  EXPECT_EQ(eclip_program_wait(program, deadline_ns), -ECONNRESET);
  EXPECT_EQ(eclip_scheduler_advance(scheduler), -ECONNRESET);
  EXPECT_EQ(try_to_dispatch(program), -ECONNRESET);
  EXPECT_EQ(eclip_request_begin(program, 0), -ECONNRESET);
}

TEST_F(ProgramLoss, AWorkerThatOnlyPollsOrOnlyPutsInNoticesTheEndOfEclipd) {
  const std::uint64_t number = request(program, 4);
  daemon.die();
  daemon.board().heartbeat_ns = 0;
  int result = 0;
  EXPECT_TRUE(eventually([&] { return (result = eclip_request_test(program, number)) != 0; }));
  EXPECT_EQ(result, -ECONNRESET);
  EXPECT_EQ(eclip_scheduler_advance(scheduler), -ECONNRESET);
}

TEST_F(ProgramLoss, AWaitForAFunctionsReturnNoticesTheEndOfEclipd) {
  eclip_program* other = create_program();
  const std::uint32_t event = create_event();
  const eclip_event never{.event = event, .recording = 1};
  ASSERT_EQ(eclip_program_wait_events(other, &never, 1), 0);
  daemon.die();
  daemon.board().heartbeat_ns = 0;
  EXPECT_EQ(eclip_program_wait(other, deadline_ns), -ECONNRESET);
  EXPECT_EQ(eclip_event_wait(scheduler, never, deadline_ns), -ECONNRESET);
}

TEST_F(ProgramLoss, WhatWasDoneBeforeTheEndOfEclipdIsDone) {
  const std::uint64_t done = request(program, 4);
  const std::uint64_t not_done = request(program, 4);
  daemon.complete(last_completion(1));
  daemon.complete(last_completion(3));
  daemon.die();
  EXPECT_EQ(eclip_request_wait(program, not_done, deadline_ns), -ECONNRESET);
  EXPECT_EQ(eclip_request_wait(program, done, deadline_ns), 0);
  EXPECT_EQ(eclip_request_test(program, done), 1);
}

TEST_F(ProgramLoss, ACutOffNamesThePacket) {
  const std::uint64_t number = request(program, 4);
  auto result = wait_in_background(number);
  daemon.cut_off(Errc::not_found, FakeDaemon::scheduled_lease(1), 42);
  const auto [code, text] = result.get();
  EXPECT_EQ(code, -EPROTO);
  EXPECT_THAT(text, HasSubstr("packet 42 of lease 202 was refused (not found)"));
  expect_end(-EPROTO, number);
}

TEST_F(ProgramLoss, ARevokedLeaseEndsTheScheduler) {
  const std::uint64_t number = request(program, 4);
  daemon.complete(last_completion(1));
  set_state(1, LeaseState::revoked, LeaseEnd::administrator);
  begin(program);
  static_cast<void>(try_to_dispatch(program));  // on stream 1 again
  EXPECT_EQ(eclip_request_wait(program, number, deadline_ns), -ESTALE);
  EXPECT_THAT(eclip_last_error(), HasSubstr("lease 202 was revoked"));
  expect_end(-ESTALE, number);
}

TEST_F(ProgramLoss, APacketWrittenIntoAnEndedLeaseIsNotDone) {
  set_state(1, LeaseState::ended, LeaseEnd::administrator);
  begin(program);
  dispatch(program);
  EXPECT_EQ(written(1), 0U);
  EXPECT_EQ(eclip_request_end(program, nullptr), -ESTALE);
  EXPECT_EQ(eclip_request_wait(program, 1, deadline_ns), -ESTALE);
}

TEST_F(ProgramLoss, ADroppedKernelIsNeverDone) {
  const std::uint64_t number = request(program, 4);
  auto result = wait_in_background(number);
  daemon.complete(last_completion(1));
  daemon.cancel(last_completion(3));
  const auto [code, text] = result.get();
  EXPECT_EQ(code, -ECANCELED);
  EXPECT_THAT(text, HasSubstr("was not done"));
}

TEST_F(ProgramLoss, WhatCountedBeforeADroppedKernelStays) {
  const std::uint64_t done = request(program, 2);
  run_dry();
  EXPECT_EQ(eclip_request_test(program, done), 1);
  const std::uint64_t number = request(program, 2);
  daemon.cancel(last_completion(1));
  EXPECT_EQ(eclip_request_wait(program, number, deadline_ns), -ECANCELED);
  EXPECT_EQ(eclip_request_test(program, done), 1);
  expect_end(-ECANCELED, number);
}

TEST_F(ProgramLoss, BehindADroppedKernelNothingGoesOnAnotherStream) {
  begin(program);
  dispatch(program, 0);
  dispatch(program, 1);
  daemon.cancel(last_completion(1));
  // Its group's completion is not what they may start on.
  static_cast<void>(try_to_dispatch(program, 2));
  static_cast<void>(try_to_dispatch(program, 3));
  static_cast<void>(eclip_request_end(program, nullptr));
  EXPECT_EQ(sent(3), "");
  EXPECT_EQ(eclip_request_wait(program, 1, deadline_ns), -ECANCELED);
  expect_end(-ECANCELED, 1);
}

TEST_F(ProgramLoss, ADroppedKernelOfAnotherProgramIsNotWhatAnEventStandsFor) {
  const std::uint32_t event = create_event();
  dispatch(program);
  const eclip_event recorded = record(program, event);
  daemon.cancel(last_completion(no_mask));
  eclip_program* other = create_program();
  static_cast<void>(eclip_program_wait_events(other, &recorded, 1));
  static_cast<void>(eclip_request_begin(other, 0));
  static_cast<void>(try_to_dispatch(other));
  EXPECT_EQ(written(1), 0U);
  EXPECT_EQ(eclip_event_wait(scheduler, recorded, deadline_ns), -ECANCELED);
  EXPECT_EQ(eclip_event_wait(scheduler, recorded, deadline_ns), -ECANCELED);
  EXPECT_EQ(eclip_program_wait(other, deadline_ns), -ECANCELED);
}

TEST_F(ProgramLoss, AFunctionAfterADroppedKernelIsNotCalled) {
  bool called = false;
  dispatch(program);
  ASSERT_EQ(eclip_program_call(
                program, [](void* flag) { *static_cast<bool*>(flag) = true; }, &called),
            0);
  daemon.cancel(last_completion(no_mask));
  EXPECT_EQ(eclip_program_wait(program, deadline_ns), -ECANCELED);
  EXPECT_FALSE(called);
}

TEST_F(ProgramLoss, ADroppedPacketThatNobodyLookedAtIsFoundBeforeItsSignalIsUsedAgain) {
  const std::uint32_t event = create_event();
  dispatch(program);
  record(program, event);
  const SignalUse dropped = last_completion(no_mask);
  dispatch(program);
  daemon.cancel(dropped);
  int result = 0;
  for (int i = 0; i < 200 && result == 0; ++i) {
    result = eclip_event_record(program, event, nullptr);
    if (result == 0) result = try_to_dispatch(program);
    if (const SignalUse last = last_completion(no_mask); !(last == dropped)) daemon.complete(last);
  }
  EXPECT_EQ(result, -ECANCELED);
  EXPECT_EQ(daemon.state().signals[dropped.signal].generation, dropped.generation);
}

TEST_F(ProgramLoss, TheNextSchedulerHasNotLostWhatThisOneHas) {
  const std::uint64_t number = request(program, 4);
  daemon.complete(last_completion(1));
  daemon.cancel(last_completion(3));
  ASSERT_EQ(eclip_request_wait(program, number, deadline_ns), -ECANCELED);
  eclip_scheduler_destroy(scheduler);
  ASSERT_EQ(eclip_scheduler_create(context, nullptr, &scheduler), 0) << eclip_last_error();
  program = create_program();
  // Each of its signals is used, those of the dropped packets, too.
  for (std::uint32_t i = 0; i < 2 * WorkerState::signal_count / 8; ++i) {
    ASSERT_EQ(try_to_dispatch(program), 0) << eclip_last_error();
    ASSERT_EQ(eclip_event_record(program, create_event_once(), nullptr), 0) << eclip_last_error();
    daemon.complete(last_completion(no_mask));
  }
}

// --- with a thread

std::chrono::nanoseconds cpu_time_of_process() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

class ThreadLoss : public ScheduledWorker {
 protected:
  void SetUp() override {
    plan_pairs({1, 3});
    create(ECLIP_SCHEDULER_THREAD);
    program = create_program();
  }
  /// Of a core, while the test does nothing.
  static double idle_share() {
    const auto before = cpu_time_of_process();
    const auto start = Clock::now();
    // What it measures is time.
    std::this_thread::sleep_for(milliseconds(200));
    return std::chrono::duration<double>(cpu_time_of_process() - before) / (Clock::now() - start);
  }

  eclip_program* program = nullptr;
};

TEST_F(ThreadLoss, TheThreadDoesNotSpinWithoutEclipd) {
  const std::uint64_t number = request(program, 4);
  daemon.die();
  EXPECT_EQ(eclip_request_wait(program, number, deadline_ns), -ECONNRESET);
  EXPECT_LT(idle_share(), 0.3);
  destroy();
}

TEST_F(ThreadLoss, TheThreadDoesNotSpinAfterACutOff) {
  const std::uint64_t number = request(program, 4);
  daemon.cut_off(Errc::not_found, 1, 1);
  EXPECT_EQ(eclip_request_wait(program, number, deadline_ns), -EPROTO);
  EXPECT_LT(idle_share(), 0.3);
}

TEST_F(ThreadLoss, TheThreadDoesNotSpinAfterADroppedKernel) {
  const std::uint64_t number = request(program, 4);
  daemon.cancel(last_completion(1));
  EXPECT_EQ(eclip_request_wait(program, number, deadline_ns), -ECANCELED);
  EXPECT_LT(idle_share(), 0.3);
}

TEST_F(ThreadLoss, AThreadWithNothingToDoSleeps) {
  EXPECT_LT(idle_share(), 0.3);
}

}  // namespace
}  // namespace eclip::test
