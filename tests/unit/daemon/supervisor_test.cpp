// The supervisor, with serving processes that need no GPU.
#include "daemon/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>

#include "tests/fake/eventually.h"

namespace eclip::daemon {
namespace {

using std::chrono::milliseconds;

/// What all processes of a test see.
struct Shared {
  std::atomic<int> starts;
  std::atomic<int> announcements;
  std::atomic<pid_t> serving;
};

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest()
      : shared_(*new (::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared{}) {}
  ~SupervisorTest() override { ::munmap(&shared_, sizeof(Shared)); }

  /// A process with a supervisor in it, whose serving processes call `serve` with their number.
  /// They end without the test's own goodbyes.
  pid_t supervise(std::function<ServingEnd(int number, const std::function<void()>& ready)> serve,
                  Supervisor::Limits limits = {}) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    Supervisor supervisor(
        limits,
        [&](const std::function<void()>& ready) {
          shared_.serving = ::getpid();
          ::_exit(static_cast<int>(serve(++shared_.starts, ready)));
          return ServingEnd::failed;
        },
        [&] { ++shared_.announcements; });
    ::_exit(supervisor.run());
  }
  static int end_of(pid_t pid) {
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  [[noreturn]] static void serve_for_ever() {
    while (true) ::pause();
  }
  /// As the serving process does it: the signals are blocked.
  static ServingEnd serve_until_signal() {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    int signal = 0;
    ::sigwait(&signals, &signal);
    return ServingEnd::stopped;
  }

  Shared& shared_;
};

TEST_F(SupervisorTest, AGpuThatFailedIsServedAgainAndReadinessIsAnnouncedOnce) {
  const pid_t pid = supervise([](int number, const auto& ready) {
    ready();
    return number < 4 ? ServingEnd::gpu_failed : ServingEnd::stopped;
  });
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_EQ(shared_.starts, 4);
  EXPECT_EQ(shared_.announcements, 1);
}

TEST_F(SupervisorTest, ACrashIsServedAgain) {
  const pid_t pid = supervise([](int number, const auto& ready) {
    ready();
    if (number == 1) ::kill(::getpid(), SIGKILL);
    return ServingEnd::stopped;
  });
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_EQ(shared_.starts, 2);
}

TEST_F(SupervisorTest, ItGivesUpAfterTheLimitOfRestarts) {
  const pid_t pid = supervise(
      [](int, const auto& ready) {
        ready();
        return ServingEnd::gpu_failed;
      },
      {.restarts = 3});
  EXPECT_EQ(end_of(pid), 1);
  EXPECT_EQ(shared_.starts, 4);
}

TEST_F(SupervisorTest, WhatHasNeverServedIsNotStartedAgain) {
  for (const auto end : {ServingEnd::failed, ServingEnd::gpu_missing, ServingEnd::gpu_failed}) {
    shared_.starts = 0;
    EXPECT_EQ(end_of(supervise([end](int, const auto&) { return end; })), 1);
    EXPECT_EQ(shared_.starts, 1);
  }
}

TEST_F(SupervisorTest, AGpuThatComesBackLateIsWaitedForBeyondTheLimitOfRestarts) {
  const pid_t pid = supervise(
      [](int number, const auto& ready) {
        if (number > 1 && number < 5) return ServingEnd::gpu_missing;
        ready();
        return number == 1 ? ServingEnd::gpu_failed : ServingEnd::stopped;
      },
      {.restarts = 1});
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_EQ(shared_.starts, 5);
}

TEST_F(SupervisorTest, AGpuThatDoesNotComeBackIsGivenUp) {
  const pid_t pid = supervise(
      [](int number, const auto& ready) {
        if (number > 1) return ServingEnd::gpu_missing;
        ready();
        return ServingEnd::gpu_failed;
      },
      {.gpu_absence = milliseconds(300)});
  EXPECT_EQ(end_of(pid), 1);
}

TEST_F(SupervisorTest, SigtermIsPassedOn) {
  const pid_t pid = supervise([](int, const auto& ready) {
    ready();
    return serve_until_signal();
  });
  ASSERT_TRUE(test::eventually([&] { return shared_.announcements == 1; }));
  ::kill(pid, SIGTERM);
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_EQ(shared_.starts, 1);
}

TEST_F(SupervisorTest, AServingProcessThatDoesNotStopIsKilledInTime) {
  const pid_t pid = supervise(
      [](int, const auto& ready) {
        ready();
        serve_for_ever();
        return ServingEnd::stopped;
      },
      {.stop = milliseconds(100)});
  ASSERT_TRUE(test::eventually([&] { return shared_.announcements == 1; }));
  ::kill(pid, SIGTERM);
  EXPECT_EQ(end_of(pid), 1);
}

TEST_F(SupervisorTest, TheServingProcessDiesWithItsSupervisor) {
  // Readable at its end when all that hold the writing end have gone: the supervisor's processes.
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t pid = supervise([](int, const auto& ready) {
    ready();
    serve_for_ever();
    return ServingEnd::stopped;
  });
  ::close(ends[1]);
  ASSERT_TRUE(test::eventually([&] { return shared_.announcements == 1; }));
  ::kill(pid, SIGKILL);
  EXPECT_EQ(end_of(pid), 128 + SIGKILL);
  char byte = 0;
  EXPECT_EQ(::read(ends[0], &byte, 1), 0);
  ::close(ends[0]);
}

}  // namespace
}  // namespace eclip::daemon
