// Several processes on the HSA runtime. The tests' own process never uses it: like the driver, it
// does not survive fork.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "tests/integration/hsa/hsa_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {
namespace {

class HsaProcesses : public InsideKfdsim {};

pid_t start_child(bool (*body)()) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    ::_exit(body() ? 0 : 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    ::_exit(2);
  }
}

/// -1 when it did not exit.
int exit_status(pid_t child) {
  int status = -1;
  if (::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool run_a_chain(const Hsa& hsa) {
  constexpr std::size_t kernels = 300;
  const HsaKernels mix(hsa, {replay_kernel(4, 2, true)});
  const MixWords words(hsa, kernels);
  const HsaQueue queue(hsa, 64);
  const HsaSignal done(kernels);
  for (std::size_t i = 0; i < kernels; ++i) queue.dispatch(mix.object(), &done, words.kernarg(i));
  return done.wait() && words.last() == words.expected();
}

bool run_alone() {
  return run_a_chain(Hsa());
}

TEST_F(HsaProcesses, UseTheGpuAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 5; ++i) children.push_back(start_child(run_alone));
  for (const pid_t child : children) EXPECT_EQ(exit_status(child), 0);
}

/// A kernel that outlasts the process, and then the signal that kills it.
bool die_at_work() {
  const Hsa hsa;
  const HsaKernels kernels(hsa, {replay_kernel(2e6, 2e6)});
  const HsaQueue queue(hsa);
  queue.set_cu_mask(3);
  queue.dispatch(kernels.object(), nullptr);
  const HsaSignal fetched;
  const HsaQueue other(hsa);
  other.barrier(false, {}, &fetched);
  if (!fetched.wait()) return false;
  std::abort();
}

TEST_F(HsaProcesses, OneThatDiesLeavesTheOthersRunning) {
  std::vector<pid_t> dying;
  std::vector<pid_t> working;
  for (int i = 0; i < 3; ++i) {
    dying.push_back(start_child(die_at_work));
    working.push_back(start_child(run_alone));
  }
  for (const pid_t child : dying) EXPECT_EQ(exit_status(child), -1) << "it did not die";
  for (const pid_t child : working) EXPECT_EQ(exit_status(child), 0);
  EXPECT_EQ(exit_status(start_child(run_alone)), 0);
}

bool begin_again() {
  for (int i = 0; i < 4; ++i) {
    const Hsa hsa;
    // Long enough that the runtime waits for the driver's event, which outlives hsa_shut_down.
    const HsaKernels kernel(hsa, {replay_kernel(20'000, 15'000)});
    const HsaQueue queue(hsa);
    const HsaSignal done;
    queue.dispatch(kernel.object(), &done);
    if (!done.wait() || !run_a_chain(hsa)) return false;
  }
  return true;
}

TEST_F(HsaProcesses, RuntimeBeginsAgainAfterItsShutDown) {
  EXPECT_EQ(exit_status(start_child(begin_again)), 0);
}

constexpr std::size_t most_of_vram = std::size_t{20} << 30;

/// Holds most of the GPU's memory when it becomes another program, which needs as much.
bool take_vram_and_exec() {
  const Hsa hsa;
  const HsaMemory memory(hsa, hsa.vram, most_of_vram);
  ::setenv("ECLIP_TEST_AFTER_EXEC", "1", 1);
  const std::string self = "/proc/self/exe";
  ::execl(self.c_str(), self.c_str(), "--gtest_filter=HsaAfterExec.*", nullptr);
  return false;
}

class HsaAfterExec : public HsaProcesses {};

TEST_F(HsaAfterExec, MemoryOfTheProgramBeforeIsFree) {
  if (std::getenv("ECLIP_TEST_AFTER_EXEC") == nullptr) {
    EXPECT_EQ(exit_status(start_child(take_vram_and_exec)), 0);
    return;
  }
  const Hsa hsa;
  const HsaMemory memory(hsa, hsa.vram, most_of_vram);
}

}  // namespace
}  // namespace eclip::test
