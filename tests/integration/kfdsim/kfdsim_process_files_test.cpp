// What /sys/class/kfd/kfd/proc tells of processes and their queues.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {
namespace {

namespace fs = std::filesystem;

using KfdsimProcessFiles = InsideKfdsim;

fs::path files_of(pid_t pid) {
  return fs::path("/sys/class/kfd/kfd/proc") / std::to_string(pid);
}

std::string text_of(const fs::path& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// The driver numbers a process's queues from 0.
fs::path files_of_own_queue(int number) {
  return files_of(::getpid()) / "queues" / std::to_string(number);
}

int status_of(pid_t child) {
  int status = -1;
  return ::waitpid(child, &status, 0) == child ? status : -1;
}

TEST_F(KfdsimProcessFiles, ExistFromTheFirstOpenToTheEndOfTheProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    const fs::path files = files_of(::getpid());
    if (fs::exists(files)) ::_exit(1);
    const int kfd = ::open("/dev/kfd", O_RDWR);
    if (kfd < 0 || !fs::exists(files / "queues")) ::_exit(2);
    kfd_ioctl_create_event_args event{};
    if (::ioctl(kfd, AMDKFD_IOC_CREATE_EVENT, &event) != 0) ::_exit(3);
    ::close(kfd);
    // As in the driver: what a process has on the GPU lives as long as its address space.
    if (!fs::exists(files / "queues")) ::_exit(4);
    const int again = ::open("/dev/kfd", O_RDWR);
    kfd_ioctl_destroy_event_args destroy{event.event_id, 0};
    ::_exit(::ioctl(again, AMDKFD_IOC_DESTROY_EVENT, &destroy) == 0 ? 0 : 5);
  }
  EXPECT_EQ(status_of(child), 0);
  EXPECT_TRUE(eventually([&] { return !fs::exists(files_of(child)); }));
}

TEST_F(KfdsimProcessFiles, EndWithAnExec) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::open("/dev/kfd", O_RDWR | O_CLOEXEC) < 0 || !fs::exists(files_of(::getpid()))) ::_exit(1);
    ::execl("/bin/sleep", "sleep", "100", static_cast<char*>(nullptr));
    ::_exit(2);
  }
  EXPECT_TRUE(eventually(
      [&] { return text_of(fs::path("/proc") / std::to_string(child) / "comm") == "sleep\n"; }));
  EXPECT_TRUE(eventually([&] { return !fs::exists(files_of(child)); }));
  ::kill(child, SIGKILL);
  EXPECT_EQ(status_of(child), SIGKILL);
}

TEST_F(KfdsimProcessFiles, NumberTheAddressSpacesOfProcesses) {
  gpu_node();
  ChildProcess other({KFDSIM_CLIENT, "hold"});
  ASSERT_EQ(other.read_line(), "ready");
  const std::string own = text_of(files_of(::getpid()) / "pasid");
  const std::string others = text_of(files_of(other.pid()) / "pasid");
  EXPECT_TRUE(own.ends_with("\n")) << own;
  EXPECT_GE(std::stoi(own), 0x8000);
  EXPECT_GE(std::stoi(others), 0x8000);
  EXPECT_NE(own, others);
}

TEST_F(KfdsimProcessFiles, TellOfEachQueueWhileItExists) {
  gpu_node();
  EXPECT_TRUE(fs::is_empty(files_of(::getpid()) / "queues"));
  {
    const GpuQueue first(64);
    const GpuQueue second(1024);
    EXPECT_EQ(text_of(files_of_own_queue(0) / "gpuid"), "49374");
    EXPECT_EQ(text_of(files_of_own_queue(0) / "type"), "0");
    EXPECT_EQ(text_of(files_of_own_queue(0) / "size"), "4096");
    EXPECT_EQ(text_of(files_of_own_queue(1) / "size"), "65536");
  }
  EXPECT_TRUE(fs::is_empty(files_of(::getpid()) / "queues"));
}

TEST_F(KfdsimProcessFiles, TellAnSdmaQueueFromOthersAndItsNewSize) {
  const GpuBuffer ring(GpuBuffer::Kind::system, 8192);
  HsaQueueResource queue{};
  ASSERT_EQ(hsaKmtCreateQueue(gpu_node(), HSA_QUEUE_SDMA, 100, HSA_QUEUE_PRIORITY_NORMAL,
                              ring.cpu(), 4096, nullptr, &queue),
            HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(text_of(files_of_own_queue(0) / "type"), "1");
  EXPECT_EQ(text_of(files_of_own_queue(0) / "size"), "4096");
  ASSERT_EQ(
      hsaKmtUpdateQueue(queue.QueueId, 100, HSA_QUEUE_PRIORITY_NORMAL, ring.cpu(), 8192, nullptr),
      HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(text_of(files_of_own_queue(0) / "size"), "8192");
  hsaKmtDestroyQueue(queue.QueueId);
  EXPECT_FALSE(fs::exists(files_of_own_queue(0)));
}

TEST_F(KfdsimProcessFiles, VanishWithAKilledProcess) {
  ChildProcess holder({KFDSIM_CLIENT, "hold"});
  ASSERT_EQ(holder.read_line(), "ready");
  for (const char* queue : {"0", "1", "2"}) {
    EXPECT_EQ(text_of(files_of(holder.pid()) / "queues" / queue / "gpuid"), "49374");
  }
  EXPECT_FALSE(fs::exists(files_of(holder.pid()) / "queues/3"));
  ::kill(holder.pid(), SIGKILL);
  EXPECT_EQ(holder.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return !fs::exists(files_of(holder.pid())); }));
}

TEST_F(KfdsimProcessFiles, CountTheVramThatAProcessHas) {
  gpu_node();
  const auto vram = [] { return std::stoull(text_of(files_of(::getpid()) / "vram_49374")); };
  const auto before = vram();
  {
    const GpuBuffer buffer(GpuBuffer::Kind::vram, 1 << 20);
    const GpuBuffer elsewhere(GpuBuffer::Kind::system, 1 << 20);
    EXPECT_EQ(vram(), before + (1 << 20));
  }
  EXPECT_EQ(vram(), before);
}

TEST_F(KfdsimProcessFiles, CountTheTimeOfCopies) {
  constexpr std::uint32_t bytes = 1 << 20;
  constexpr std::uint32_t fill_with_words = 11 | 2U << 30;
  const GpuBuffer ring(GpuBuffer::Kind::system, 4096);
  const GpuBuffer filled(GpuBuffer::Kind::vram, bytes);
  const auto time = [] { return text_of(files_of(::getpid()) / "sdma_49374"); };
  EXPECT_EQ(time(), "0\n");
  HsaQueueResource queue{};
  ASSERT_EQ(hsaKmtCreateQueue(gpu_node(), HSA_QUEUE_SDMA, 100, HSA_QUEUE_PRIORITY_NORMAL,
                              ring.cpu(), 4096, nullptr, &queue),
            HSAKMT_STATUS_SUCCESS);
  auto* words = ring.as<std::uint32_t>();
  words[0] = fill_with_words;
  words[1] = static_cast<std::uint32_t>(filled.gpu());
  words[2] = static_cast<std::uint32_t>(filled.gpu() >> 32);
  words[3] = 4711;
  words[4] = bytes - sizeof(std::uint32_t);
  __atomic_store_n(queue.Queue_DoorBell_aql, 5 * sizeof(std::uint32_t), __ATOMIC_RELEASE);
  const auto* last = filled.as<std::uint32_t>(bytes - sizeof(std::uint32_t));
  ASSERT_TRUE(eventually([&] { return __atomic_load_n(last, __ATOMIC_ACQUIRE) == 4711; }));
  EXPECT_EQ(time(), "40\n") << "microseconds at 25.6 GB/s";
  hsaKmtDestroyQueue(queue.QueueId);
  EXPECT_EQ(time(), "40\n");
}

}  // namespace
}  // namespace eclip::test
