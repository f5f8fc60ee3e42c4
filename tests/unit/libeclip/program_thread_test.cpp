// Schedulers and threads: the library's own, several of the worker's, and what ends while there is
// work. And how a scheduled worker is recorded.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/unit/libeclip/scheduled_worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

void set_flag(void* flag) {
  static_cast<std::atomic<bool>*>(flag)->store(true);
}

// --- the scheduler's thread

class SchedulerThread : public ScheduledWorker {
 protected:
  SchedulerThread() : ScheduledWorker({.run_packets = true}) {}
};

TEST_F(SchedulerThread, MovesProgramsOnWhileTheCallerDoesNothing) {
  plan_pairs({1, 2, 3, 1, 2, 3});
  create(ECLIP_SCHEDULER_THREAD);
  eclip_program* program = create_program();
  for (int i = 0; i < 20; ++i) {
    std::atomic<bool> called{false};
    request(program, 12);
    ASSERT_EQ(eclip_program_call(program, set_flag, &called), 0);
    ASSERT_TRUE(eventually([&] { return called.load(); }));
  }
  EXPECT_EQ(daemon.request().scheduler.requests, 20U);
  EXPECT_EQ(daemon.request().scheduler.scheduled, 240U);
}

/// Signals that a thread of this name has blocked, as /proc has them.
std::string blocked_signals_of(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string text;
    std::getline(std::ifstream(task.path() / "comm"), text);
    if (text != name) continue;
    std::ifstream status(task.path() / "status");
    while (std::getline(status, text))
      if (text.starts_with("SigBlk:\t")) return text.substr(8);
  }
  return {};
}

TEST_F(SchedulerThread, TakesNoSignalsOfTheProgram) {
  create(ECLIP_SCHEDULER_THREAD);
  std::string blocked;
  ASSERT_TRUE(eventually([&] { return !(blocked = blocked_signals_of("eclip")).empty(); }));
  const auto set = std::stoull(blocked, nullptr, 16);
  for (const int signal : {SIGINT, SIGTERM, SIGALRM, SIGPROF, SIGCHLD})
    EXPECT_NE(set & 1ULL << (signal - 1), 0U) << signal;
  sigset_t mine;
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, nullptr, &mine), 0);
  EXPECT_EQ(sigismember(&mine, SIGTERM), 0);
}

class OneSlowProgram : public ScheduledWorker {};

TEST_F(OneSlowProgram, DoesNotHoldUpTheOthersOfTheThread) {
  constexpr int rounds = 30;
  plan_pairs({1, 1, 1, 1});
  create(ECLIP_SCHEDULER_THREAD);
  eclip_program* slow = create_program();
  dispatch(slow);
  ASSERT_EQ(eclip_program_call(
                slow, [](void*) {}, nullptr),
            0);
  const SignalUse never = last_completion(no_mask);
  ASSERT_NE(never.generation, 0U);
  // The GPU completes the other's groups as they come.
  eclip_program* program = create_program();
  const auto start = Clock::now();
  for (int round = 0; round < rounds; ++round) {
    request(program, 8);
    std::atomic<bool> called{false};
    ASSERT_EQ(eclip_program_call(program, set_flag, &called), 0);
    ASSERT_TRUE(eventually([&] {
      LeaseRing& ring = daemon.scheduled_ring(1);
      for (; ring.taken < ring.written; ++ring.taken)
        if (const LeasePacket each = packet(1, ring.taken); each.completion.generation != 0)
          daemon.complete(each.completion);
      return called.load();
    }));
  }
  // Did the thread sleep on the slow one's signal, each round would take 20 ms and more.
  EXPECT_LT(Clock::now() - start, milliseconds(20) * rounds);
  daemon.complete(never);
}

TEST_F(OneSlowProgram, ProgramsTheThreadKnowsNothingOfWakeIt) {
  plan_pairs({1});
  create(ECLIP_SCHEDULER_THREAD);
  std::vector<eclip_program*> programs;
  for (int i = 0; i < 16; ++i) programs.push_back(create_program());
  std::atomic<int> called{0};
  const auto count = [](void* counter) { ++*static_cast<std::atomic<int>*>(counter); };
  for (eclip_program* program : programs) {
    dispatch(program);
    ASSERT_EQ(eclip_program_call(program, count, &called), 0);
  }
  // Each has its signal, in a packet behind its kernel, which the thread may be the one to write.
  // They complete in an order that the thread cannot know.
  const std::uint64_t end = 2 * programs.size();
  ASSERT_TRUE(eventually([&] { return written(no_mask) == end; }));
  for (std::uint64_t i = end; i-- > 0;)
    if (const auto use = packet(no_mask, i).completion; use.generation != 0) {
      const int before = called.load();
      daemon.complete(use);
      EXPECT_TRUE(eventually([&] { return called.load() > before; }));
    }
  EXPECT_EQ(called, 16);
}

// --- threads of the worker

class ManyThreads : public ScheduledWorker, public ::testing::WithParamInterface<std::uint32_t> {
 protected:
  ManyThreads() : ScheduledWorker({.run_packets = true}) {}
};

TEST_P(ManyThreads, EachHasAProgram) {
  constexpr int requests = 40;
  constexpr std::uint32_t count = 4;
  plan_pairs({1, 2, 3});
  create(GetParam());
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < count; ++i)
    threads.emplace_back([&] {
      eclip_program* program = create_program();
      const std::uint32_t event = create_event();
      std::atomic<bool> called{false};
      for (int r = 0; r < requests; ++r) {
        const std::uint64_t number = request(program, 6);
        if (r % 3 == 0) {
          ASSERT_EQ(eclip_request_wait(program, number, deadline_ns), 0) << eclip_last_error();
        }
        if (r % 5 == 0) {
          const eclip_event recorded = record(program, event);
          ASSERT_EQ(eclip_event_wait(scheduler, recorded, deadline_ns), 0) << eclip_last_error();
        }
        if (r % 7 == 0) {
          ASSERT_EQ(eclip_program_call(program, set_flag, &called), 0) << eclip_last_error();
        }
      }
      ASSERT_EQ(eclip_program_wait(program, deadline_ns), 0) << eclip_last_error();
      EXPECT_TRUE(called.load());
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(describe().requests, requests * count);
  EXPECT_EQ(describe().scheduled, requests * count * 6);
  EXPECT_EQ(daemon.active(), 0U);
}

TEST_P(ManyThreads, AProgramHandsOnToTheNext) {
  constexpr int rounds = 60;
  plan_pairs({1, 2});
  create(GetParam());
  const std::array<eclip_program*, 2> programs{create_program(), create_program()};
  const std::array<std::uint32_t, 2> events{create_event(), create_event()};
  std::array<std::atomic<std::uint32_t>, 2> recorded{};
  std::vector<std::uint32_t> order;  // guarded by the order of the programs
  struct Turn {
    std::vector<std::uint32_t>* order;
    std::uint32_t who;
  };
  std::array<Turn, 2> turns{Turn{&order, 0}, Turn{&order, 1}};
  const auto take_turn = [](void* turn) {
    auto& mine = *static_cast<Turn*>(turn);
    mine.order->push_back(mine.who);
  };
  const auto play = [&](std::uint32_t who) {
    for (std::uint32_t round = 1; round <= rounds; ++round) {
      const std::uint32_t awaited = who == 0 ? round - 1 : round;
      while (recorded[1 - who].load() < awaited) std::this_thread::yield();
      const eclip_event before{.event = events[1 - who], .recording = awaited};
      ASSERT_EQ(eclip_program_wait_events(programs[who], &before, 1), 0);
      // A function waits for the kernel, and the kernel for the event.
      dispatch(programs[who]);
      ASSERT_EQ(eclip_program_call(programs[who], take_turn, &turns[who]), 0);
      ASSERT_EQ(record(programs[who], events[who]).recording, round);
      recorded[who].store(round);
    }
    ASSERT_EQ(eclip_program_wait(programs[who], deadline_ns), 0) << eclip_last_error();
  };
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  ASSERT_EQ(order.size(), 2U * rounds);
  for (std::uint32_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i % 2);
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutTheSchedulers, ManyThreads,
                         ::testing::Values(0U, ECLIP_SCHEDULER_THREAD));

// --- ends

class SchedulerEnd : public ScheduledWorker {
 protected:
  void start(std::uint32_t flags) {
    plan_pairs({1, 2, 3});
    create(flags);
    program = create_program();
    request(program, 6);
    ASSERT_EQ(eclip_program_call(program, set_flag, &called), 0);
    request(program, 6);
  }

  eclip_program* program = nullptr;
  std::atomic<bool> called{false};
};

TEST_F(SchedulerEnd, DisconnectingEndsASchedulerWithItsOperations) {
  for (const std::uint32_t flags : {0U, ECLIP_SCHEDULER_THREAD}) {
    const std::size_t before = releases();
    start(flags);
    EXPECT_EQ(daemon.active() & 1U, 1U);
    disconnect();
    scheduler = nullptr;
    EXPECT_EQ(releases() - before, 8U);
    EXPECT_EQ(daemon.active() & 1U, 0U);
    EXPECT_FALSE(called);
  }
}

TEST_F(SchedulerEnd, DisconnectingFromADeadEclipdIsAsQuick) {
  start(ECLIP_SCHEDULER_THREAD);
  daemon.die();
  const auto begin_of_end = Clock::now();
  disconnect();
  EXPECT_LT(Clock::now() - begin_of_end, std::chrono::seconds(3));
}

TEST_F(SchedulerEnd, AChildOfAForkLeavesItsParentsSchedulerAlone) {
  start(ECLIP_SCHEDULER_THREAD);
  for (const bool by_disconnect : {true, false}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      if (by_disconnect)
        eclip_disconnect(context);
      else
        eclip_scheduler_destroy(scheduler);
      ::_exit(0);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << "it waited for a thread that it does not have";
  }
  EXPECT_EQ(daemon.active() & 1U, 1U);
  EXPECT_EQ(releases(), 0U);
  EXPECT_EQ(eclip_scheduler_advance(scheduler), 0);
}

// --- recording

class RecordedScheduler : public ScheduledWorker {
 protected:
  explicit RecordedScheduler(FakeDaemon::Behaviour behaviour = {.run_packets = true})
      : ScheduledWorker(std::move(behaviour)) {
    std::string name = (std::filesystem::temp_directory_path() / "eclip-record-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
    ::setenv("ECLIP_RECORD", directory_.c_str(), 1);
  }
  ~RecordedScheduler() override {
    ::unsetenv("ECLIP_RECORD");
    ::unsetenv("ECLIP_CUS");
    std::filesystem::remove_all(directory_);
  }
  /// Disconnects, and counts the recording's lines that begin so.
  int lines(const std::string& begin_of_line) {
    disconnect();
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);)
        count += line.starts_with(begin_of_line) ? 1 : 0;
    }
    return count;
  }

  std::filesystem::path directory_;
};

TEST_F(RecordedScheduler, EachKernelStandsOnce) {
  plan_pairs({1, 2});
  eclip_program* program = create_program();
  std::uint64_t last = 0;
  for (int i = 0; i < 16; ++i) last = request(program, 4);
  ASSERT_EQ(eclip_request_wait(program, last, deadline_ns), 0) << eclip_last_error();
  // More than can be recorded at a time.
  for (int i = 0; i < 600; ++i) {
    int result = try_to_dispatch(program);
    if (result == -EAGAIN) {
      ASSERT_EQ(eclip_program_wait_room(program, deadline_ns), 0);
      result = try_to_dispatch(program);
    }
    ASSERT_EQ(result, 0) << eclip_last_error();
  }
  ASSERT_EQ(eclip_program_wait(program, deadline_ns), 0) << eclip_last_error();
  EXPECT_EQ(lines("dispatch "), 16 * 4 + 600);
}

TEST_F(RecordedScheduler, WithTheCusVariableAllGoesToOneStream) {
  ::setenv("ECLIP_CUS", "30", 1);
  plan_pairs({1, 2});
  eclip_program* program = create_program();
  const auto asked = daemon.requests(MessageType::lease_acquire);
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(payload_of<LeaseAcquire>(asked[0]).cu_count, 30U);
  EXPECT_TRUE(daemon.requests(MessageType::schedule).empty());
  const std::uint64_t number = request(program, 4);
  ASSERT_EQ(eclip_request_wait(program, number, deadline_ns), 0) << eclip_last_error();
  EXPECT_GE(daemon.ring(0).written, 4U);
  EXPECT_EQ(describe().bypassed, 4U);
  EXPECT_EQ(describe().scheduled, 0U);
  EXPECT_EQ(describe().switches, 0U);
  EXPECT_EQ(describe().active_others, 0U);
  eclip_scheduler* second = nullptr;
  EXPECT_EQ(eclip_scheduler_create(context, nullptr, &second), -EALREADY);
  destroy();
  EXPECT_EQ(releases(), 1U);
  ::setenv("ECLIP_CUS", "half", 1);
  EXPECT_EQ(try_to_create(), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("ECLIP_CUS is \"half\""));
  EXPECT_EQ(lines("dispatch "), 4);
}

}  // namespace
}  // namespace eclip::test
