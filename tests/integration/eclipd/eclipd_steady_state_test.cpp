// Dispatching a kernel enters the kernel of the operating system zero times in steady state.
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"
#include "tests/integration/kfdsim/gpu_client.h"

namespace eclip::test {
namespace {

constexpr int dispatches = 1'000'000;

/// From here on any system call but _exit kills the process; and poll, which fails: libeclip looks
/// at the socket when a loaded machine has kept eclipd from its heartbeat (unit.Heartbeat.* hold it
/// to that).
void forbid_system_calls() {
  std::array<sock_filter, 6> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_poll, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINTR),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
    ::_exit(50);
}

/// A worker that, once its first packets run, dispatches without a single system call. Exit status
/// 0: all completed and the value is right. It stays 400 ms ahead of the GPU, so that a machine
/// that does not schedule it for a while does not let the forwarder fall asleep.
[[noreturn]] void dispatch_without_system_calls() {
  constexpr std::size_t window = 8;
  constexpr int burst = 50;
  Connection connection;
  Lease lease = connection.lease_stream(3);
  std::vector<Signal> signals;
  for (std::size_t i = 0; i < window; ++i) signals.push_back(connection.create_signal());
  std::array<Token, window> tokens{};
  MixKernel kernel(connection, 1000);
  const auto submit_burst = [&](std::size_t round) {
    for (int i = 0; i < burst; ++i) {
      const bool last = i + 1 == burst;
      const auto dispatch =
          kernel.next(static_cast<std::uint32_t>(i),
                      last ? ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL : ECLIP_PACKET_BARRIER,
                      signals[round % window].id());
      while (!lease.try_submit(dispatch, last ? &tokens[round % window] : nullptr))
        __builtin_ia32_pause();
    }
  };
  for (std::size_t round = 0; round < window; ++round) submit_burst(round);
  forbid_system_calls();
  for (std::size_t round = window; round < 6 * window; ++round) {
    while (!connection.is_complete(tokens[round % window])) __builtin_ia32_pause();
    submit_burst(round);
  }
  for (const Token& token : tokens)
    while (!connection.is_complete(token)) __builtin_ia32_pause();
  // Not by returning: giving lease and connection back takes system calls.
  ::_exit(kernel.value() == kernel.expected() ? 0 : 1);
}

/// The same of a scheduled worker, after some requests: it begins, dispatches, ends and polls.
[[noreturn]] void be_scheduled_without_system_calls() {
  constexpr int requests = 60;
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.profile = "alexnet-b8";
  Connection connection(&options);
  MixKernel kernel(connection, 200);
  const auto workgroups = workgroups_of(options.profile);
  // The test's own connection has a part in the plan, too.
  if (!eventually([&] { return connection.plan(3, 0).has_value(); })) ::_exit(52);
  eclip_scheduler* scheduler = nullptr;
  eclip_program* program = nullptr;
  if (eclip_scheduler_create(connection.get(), nullptr, &scheduler) != 0) ::_exit(53);
  if (eclip_program_create(scheduler, &program) != 0) ::_exit(54);
  const auto run_request = [&] {
    std::uint64_t request = 0;
    int result = eclip_request_begin(program, 0);
    for (std::uint32_t i = 0; i < workgroups.size() && result == 0; ++i) {
      eclip_dispatch dispatch = kernel.next(i, 0, 0);
      dispatch.grid_size[0] = workgroups[i];
      dispatch.struct_size = sizeof dispatch;
      result = eclip_program_dispatch(program, &dispatch);
    }
    if (result == 0) result = eclip_request_end(program, &request);
    while (result == 0) result = eclip_request_test(program, request);
    return result == 1;
  };
  bool right = true;
  for (int i = 0; i < 5; ++i) right = run_request() && right;
  forbid_system_calls();
  for (int i = 0; i < requests; ++i) right = run_request() && right;
  right = right && kernel.value() == kernel.expected();
  eclip_scheduler_state state{};
  state.struct_size = sizeof state;
  right = right && eclip_scheduler_describe(scheduler, &state) == 0 && state.bypassed == 0;
  ::_exit(right ? 0 : 1);
}

/// KFD ioctls of all processes so far, as the simulated driver counts them.
std::uint64_t kfd_ioctls(const std::string& column = "total") {
  return ioctl_count(0, column).value();
}

/// Of a function that ends its process, with 0 when all is well, and is killed for a system call.
void run_in_a_child(void (*function)()) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      function();
    } catch (const std::exception& exception) {
      std::fprintf(stderr, "%s\n", exception.what());
      ::_exit(51);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status)
                                 << ": it made a system call";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

class EclipdSteadyState : public EclipdTest {};

TEST_F(EclipdSteadyState, AWorkerDispatchesWithoutAnySystemCall) {
#if defined(ECLIP_SANITIZED)
  GTEST_SKIP() << "instrumented code makes system calls of its own";
#endif
  // Bursts come every 50 ms; a loaded machine may take much longer to schedule the worker.
  start("forwarder.patience_ms = 10000");
  run_in_a_child(dispatch_without_system_calls);
}

TEST_F(EclipdSteadyState, AScheduledWorkerMakesNoSystemCall) {
#if defined(ECLIP_SANITIZED)
  GTEST_SKIP() << "instrumented code makes system calls of its own";
#endif
  start("forwarder.patience_ms = 60000");
  // Between requests the forwarder has something to look after: it does not fall asleep at once.
  Connection connection;
  Lease lease = connection.lease_stream(6);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 4'000'000);
  Token token{};
  for (std::uint32_t i = 0; i < 8; ++i) {
    const std::uint32_t flags = ECLIP_PACKET_BARRIER | (i == 7 ? ECLIP_PACKET_SIGNAL : 0);
    ASSERT_TRUE(lease.try_submit(kernel.next(i, flags, signal.id()), &token));
  }
  run_in_a_child(be_scheduled_without_system_calls);
  EXPECT_FALSE(connection.is_complete(token)) << "the forwarder might have slept";
}

TEST_F(EclipdSteadyState, NobodyMakesAKfdIoctlWhileScheduledKernelsRun) {
  constexpr int requests = 500;
  start();
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.profile = "alexnet-b8";
  Connection scheduled(&options);
  ASSERT_TRUE(eventually([&] { return scheduled.plan(1, 0).has_value(); }));
  WorkerScheduler scheduler = scheduled.scheduler();
  WorkerProgram program = scheduler.create_program();
  MixKernel kernel(scheduled, 1);
  const auto workgroups = workgroups_of(options.profile);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (kfd_ioctls("wait_events") == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  const auto before = kfd_ioctls();
  for (int i = 0; i < requests; ++i) {
    program.begin_request();
    for (std::uint32_t k = 0; k < workgroups.size(); ++k) {
      eclip_dispatch dispatch = kernel.next(k, 0, 0);
      dispatch.grid_size[0] = workgroups[k];
      program.dispatch(dispatch);
    }
    ASSERT_TRUE(program.wait(program.end_request(), std::chrono::seconds(20)));
  }
  EXPECT_EQ(kfd_ioctls(), before);
  EXPECT_EQ(scheduler.describe().scheduled, requests * workgroups.size());
  EXPECT_EQ(scheduler.describe().bypassed, 0U);
  EXPECT_EQ(kernel.value(), kernel.expected());
}

TEST_F(EclipdSteadyState, NobodyMakesAKfdIoctlWhileAMillionKernelsRun) {
  start();
  Connection connection;
  Lease lease = connection.lease_stream(0);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 1);
  // eclipd's watch of the GPU makes its one ioctl soon after the start.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (kfd_ioctls("wait_events") == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  const auto before = kfd_ioctls();
  ASSERT_GT(before, 0U);
  for (int round = 0; round < dispatches / 1000; ++round) {
    Token token{};
    for (std::uint32_t i = 0; i < 1000; ++i) {
      const bool last = i == 999;
      const auto dispatch =
          kernel.next(i, ECLIP_PACKET_BARRIER | (last ? ECLIP_PACKET_SIGNAL : 0), signal.id());
      while (!lease.try_submit(dispatch, &token)) __builtin_ia32_pause();
    }
    ASSERT_TRUE(connection.wait(token, std::chrono::seconds(20)));
  }
  EXPECT_EQ(kfd_ioctls(), before);
  EXPECT_EQ(kernel.value(), kernel.expected());
}

/// How often the forwarder has gone to sleep or napped.
long forwarder_sleeps(pid_t eclipd) {
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(eclipd) + "/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name != "forwarder") continue;
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("voluntary_ctxt_switches:")) return std::stol(line.substr(24));
  }
  return -1;
}

TEST_F(EclipdSteadyState, WhileALongKernelRunsTheForwarderSleepsUntilTheDriverWakesIt) {
  start("forwarder.patience_ms = 1");
  const pid_t eclipd = serving_pid();
  Connection connection;
  Lease lease = connection.lease_stream(0);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 1'000'000);
  const long sleeps_before = forwarder_sleeps(eclipd);
  const auto waits_before = kfd_ioctls("wait_events");
  ASSERT_GE(sleeps_before, 0);
  Token token{};
  ASSERT_TRUE(lease.try_submit(kernel.next(1, ECLIP_PACKET_SIGNAL, signal.id()), &token));
  ASSERT_TRUE(connection.wait(token, std::chrono::seconds(20)));
  EXPECT_EQ(kernel.value(), kernel.expected());
  // A look every 50 us would be 20000.
  EXPECT_LT(forwarder_sleeps(eclipd) - sleeps_before, 1000);
  EXPECT_TRUE(eventually([&] { return kfd_ioctls("wait_events") > waits_before; }))
      << "the driver's event came, and is waited for again";
}

}  // namespace
}  // namespace eclip::test
