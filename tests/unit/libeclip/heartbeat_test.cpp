// How a worker that only submits, or only polls, learns that eclipd is gone, and what that costs.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstddef>

#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

class Heartbeat : public Worker {
 protected:
  void SetUp() override {
    connect();
    lease = acquire();
  }
  void beat() {
    const auto now = Clock::now().time_since_epoch();
    daemon.board().heartbeat_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count());
  }
  /// Submits, with the ring never full, until that fails or the time is over.
  int submit_for(Clock::duration time) {
    const eclip_dispatch dispatch = some_dispatch();
    const auto end = Clock::now() + time;
    int result = 0;
    while (result == 0 && Clock::now() < end) {
      result = eclip_submit_dispatch(lease, &dispatch, nullptr);
      if (result == -EAGAIN) result = 0;
    }
    return result;
  }

  eclip_lease* lease = nullptr;
};

TEST_F(Heartbeat, AWorkerThatOnlySubmitsNoticesTheEndOfEclipd) {
  beat();
  const auto start = Clock::now();
  daemon.die();
  EXPECT_EQ(submit_for(deadline), -ECONNRESET);
  const auto noticed = Clock::now() - start;
  // 60 ms and a tick of the coarse clock; the rest is for a machine that is busy elsewhere.
  EXPECT_LT(noticed, std::chrono::seconds(2));
  RecordProperty("noticed_us", std::to_string(noticed / std::chrono::microseconds(1)));
}

TEST_F(Heartbeat, AWorkerThatOnlyPollsNoticesTheEndOfEclipd) {
  const eclip_token token = submit(lease, with_signal(create_signal()));
  EXPECT_EQ(eclip_is_complete(context, token), 0);
  beat();
  daemon.die();
  int result = 0;
  EXPECT_TRUE(eventually([&] { return (result = eclip_is_complete(context, token)) != 0; }));
  EXPECT_EQ(result, -ECONNRESET);
}

TEST_F(Heartbeat, AStoppedEclipdIsNotADeadOne) {
  daemon.board().heartbeat_ns = 0;
  EXPECT_EQ(submit_for(5 * Board::heartbeat_period), 0);
}

TEST_F(Heartbeat, OnceFoundDeadItStaysSo) {
  daemon.board().heartbeat_ns = 0;
  daemon.die();
  EXPECT_EQ(submit_for(deadline), -ECONNRESET);
  beat();
  EXPECT_EQ(submit_for(Board::heartbeat_period), -ECONNRESET);
}

#if defined(__x86_64__)
volatile sig_atomic_t polls = 0;

/// From here on poll() does nothing but count itself. False when the system has no such filters.
bool count_polls() {
  struct sigaction action {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t*, void* context) {
    polls = polls + 1;
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = 0;
  };
  ::sigaction(SIGSYS, &action, nullptr);
  std::array<sock_filter, 5> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_poll, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ppoll, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_F(Heartbeat, WhileItIsStaleTheSocketIsAskedOnceInAPeriodAndOtherwiseNever) {
  constexpr int not_allowed = 99;
  constexpr int periods = 10;
  for (const bool stale : {true, false}) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (!count_polls()) ::_exit(not_allowed);
      const auto start = Clock::now();
      if (stale) daemon.board().heartbeat_ns = 0;
      while (Clock::now() - start < periods * Board::heartbeat_period) {
        if (!stale) beat();
        submit_for(milliseconds(1));
      }
      ::_exit(polls);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == not_allowed) GTEST_SKIP() << "no seccomp filters on this system";
    EXPECT_LE(WEXITSTATUS(status), stale ? periods + 1 : 0);
    EXPECT_GE(WEXITSTATUS(status), stale ? 1 : 0);
  }
}
#endif

}  // namespace
}  // namespace eclip::test
