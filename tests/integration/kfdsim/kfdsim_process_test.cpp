// Several processes on the simulated GPU: isolation, fork, death.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {
namespace {

using KfdsimProcess = InsideKfdsim;

ChildProcess client(const std::string& command, const std::string& argument = "0") {
  return ChildProcess({KFDSIM_CLIENT, command, argument});
}

std::uint64_t* gpu_doorbell(const GpuQueue& queue) {
  return reinterpret_cast<std::uint64_t*>(
      queue.doorbell_address());  // NOLINT(performance-no-int-to-ptr)
}

/// Where in its file the page at `address` of this process lies.
std::optional<std::uint64_t> file_offset_of(std::uint64_t address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::uint64_t offset = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &start, &end, &offset) ==
            3 &&
        start <= address && address < end) {
      return offset + (address - start) / 4096 * 4096;
    }
  }
  return std::nullopt;
}

TEST_F(KfdsimProcess, InheritedKfdIsOfNoUse) {
  const int kfd = ::open("/dev/kfd", O_RDWR);
  ASSERT_GE(kfd, 0);
  kfd_ioctl_get_version_args version{};
  ASSERT_EQ(::ioctl(kfd, AMDKFD_IOC_GET_VERSION, &version), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = ::ioctl(kfd, AMDKFD_IOC_GET_VERSION, &version) == -1 && errno == EBADF;
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ::close(kfd);
}

TEST_F(KfdsimProcess, AnOpenOfAnotherProcessCannotBeReopened) {
  const int kfd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
  ASSERT_GE(kfd, 0);
  const std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(kfd);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::open(path.c_str(), O_RDWR) == -1 ? 0 : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ::close(kfd);
}

TEST_F(KfdsimProcess, MemoryOfAnotherProcessIsNotReachable) {
  const GpuBuffer secret(GpuBuffer::Kind::vram, 4096);
  *secret.as<std::uint64_t>() = 4711;
  const auto offset = file_offset_of(reinterpret_cast<std::uint64_t>(secret.cpu()));
  ASSERT_TRUE(offset);
  ChildProcess other = client("peek-render", std::to_string(*offset));
  EXPECT_EQ(other.read_line(), "0");
  EXPECT_EQ(other.wait(), 0);
  EXPECT_EQ(*secret.as<std::uint64_t>(), 4711U);
}

TEST_F(KfdsimProcess, DoorbellOfAnotherProcessIsNotReachable) {
  GpuQueue queue;
  const GpuSignal done(3);
  for (int i = 0; i < 3; ++i) queue.barrier(false, {}, &done);
  ASSERT_TRUE(done.wait());
  const auto offset = file_offset_of(queue.doorbell_address());
  ASSERT_TRUE(offset);
  ChildProcess other = client("peek-kfd", std::to_string(*offset));
  EXPECT_NE(other.read_line(), "2") << "the last index that this process rang";
  EXPECT_EQ(other.wait(), 0);
  const GpuSignal still(1);
  queue.barrier(false, {}, &still);
  EXPECT_TRUE(still.wait());
  EXPECT_EQ(queue.read_index(), 4U);
}

// A limit, which docs/kfdsim.md tells: the real driver keeps the doorbells from children too.
TEST_F(KfdsimProcess, AForkedChildInheritsDoorbellsAndNothingElse) {
  const GpuBuffer buffer(GpuBuffer::Kind::vram, 4096);
  const GpuQueue queue;
  const volatile auto* doorbell = gpu_doorbell(queue);
  ASSERT_EQ(*doorbell, ~0ULL) << "not rung yet";
  const pid_t child = ::fork();
  if (child == 0) {
    queue.announce_next();
    unsigned char resident = 0;
    const bool mapped = ::mincore(buffer.cpu(), 4096, &resident) == 0;
    ::_exit(mapped ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "the parent's memory is mapped in the child";
  EXPECT_EQ(*doorbell, 0U) << "the child could not ring: the docs say that it can";
}

TEST_F(KfdsimProcess, TwoProcessesWorkAtOnce) {
  ChildProcess first = client("work", "300");
  ChildProcess second = client("work", "300");
  EXPECT_EQ(first.wait(), 0) << first.errors();
  EXPECT_EQ(second.wait(), 0) << second.errors();
}

class KfdsimDeath : public KfdsimProcess, public ::testing::WithParamInterface<const char*> {};

TEST_P(KfdsimDeath, KilledProcessLeavesTheGpuToTheOthers) {
  const auto kernel = kernel_of(100, 100);
  const LoadedKernels loaded({&kernel, 1});
  ChildProcess holder = client(GetParam());
  ASSERT_EQ(holder.read_line(), "ready");
  const GpuSignal done;
  GpuQueue queue;
  queue.dispatch(loaded.object(0), &done);
  ASSERT_TRUE(ioctl_count(holder.pid(), "create_queue"));
  EXPECT_EQ(done.value(), 1) << "the holder's kernels have all CUs";
  ::kill(holder.pid(), SIGKILL);
  EXPECT_TRUE(done.wait());
  EXPECT_EQ(holder.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return !ioctl_count(holder.pid(), "total"); }));
}

// The heir keeps the dead process's files open.
INSTANTIATE_TEST_SUITE_P(Clients, KfdsimDeath, ::testing::Values("hold", "hold-with-heir"));

TEST_F(KfdsimProcess, KilledProcessGivesItsMemoryBack) {
  HsaMemFlags flags{};
  flags.ui32.NonPaged = 1;
  constexpr std::size_t most = 25ULL << 30;
  ChildProcess other = client("allocate-and-die", "25");
  ASSERT_EQ(other.wait(), 128 + SIGKILL);
  void* memory = nullptr;
  EXPECT_TRUE(eventually([&] {
    return hsaKmtAllocMemory(gpu_node(), most, flags, &memory) == HSAKMT_STATUS_SUCCESS;
  }));
  hsaKmtFreeMemory(memory, most);
}

TEST_F(KfdsimProcess, SignalsInterruptWaitsWithoutLosingEvents) {
  HsaEventDescriptor description{};
  description.EventType = HSA_EVENTTYPE_SIGNAL;
  description.NodeId = gpu_node();
  HsaEvent* event = nullptr;
  ASSERT_EQ(hsaKmtCreateEvent(&description, false, false, &event), HSAKMT_STATUS_SUCCESS);
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(SIGALRM, &action, nullptr);
  const itimerval often{{0, 2000}, {0, 2000}};
  ::setitimer(ITIMER_REAL, &often, nullptr);
  const auto kernel = kernel_of(30'000, 30'000);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal done;
  done.raw().event_mailbox_ptr = event->EventData.HWData2;
  done.raw().event_id = event->EventId;
  GpuQueue queue;
  queue.dispatch(loaded.object(0), &done);
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 20'000), HSAKMT_STATUS_SUCCESS);
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  hsaKmtDestroyEvent(event);
}

TEST_F(KfdsimProcess, ClosingTheKfdFreesEverything) {
  gpu_node();
  ASSERT_TRUE(ioctl_count(::getpid(), "total"));
  {
    GpuQueue queue;
    const GpuSignal done;
    queue.barrier(false, {}, &done);
    ASSERT_TRUE(done.wait());
  }
  EXPECT_EQ(hsaKmtCloseKFD(), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(hsaKmtOpenKFD(), HSAKMT_STATUS_SUCCESS);
}

}  // namespace
}  // namespace eclip::test
