// A process that tries to reach another's queues, events, memory, doorbells and descriptors.
#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/hostile_client.h"
#include "tests/integration/kfdsim/open_kfd.h"

namespace eclip::test {
namespace {

class KfdsimHostile : public OpenKfd, public ::testing::WithParamInterface<std::uint32_t> {};

/// Where in its file the page at `address` of this process lies.
std::optional<std::uint64_t> file_offset_of(const void* address) {
  const auto wanted = reinterpret_cast<std::uint64_t>(address);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::uint64_t offset = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &start, &end, &offset) ==
            3 &&
        start <= wanted && wanted < end) {
      return offset + (wanted - start) / 4096 * 4096;
    }
  }
  return std::nullopt;
}

TEST_P(KfdsimHostile, ReachesNothingOfAnotherProcess) {
  constexpr std::uint64_t secret = 4711;
  constexpr int packets = 3;
  const GpuBuffer memory(GpuBuffer::Kind::vram, 4096);
  *memory.as<std::uint64_t>() = secret;
  const auto offset = file_offset_of(memory.cpu());
  ASSERT_TRUE(offset);
  const GpuSignal target(1000);
  GpuSignal gate;
  const GpuSignal left(packets);
  GpuQueue queue;
  for (int i = 0; i < packets; ++i) queue.barrier(false, std::array{gate.handle()}, &left);
  HsaEventDescriptor description{};
  description.EventType = HSA_EVENTTYPE_SIGNAL;
  HsaEvent* event = nullptr;
  ASSERT_EQ(hsaKmtCreateEvent(&description, true, false, &event), HSAKMT_STATUS_SUCCESS);
  const int render = ::open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
  ASSERT_GE(render, 0);

  std::array<int, 2> sockets{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets.data()), 0);
  ChildProcess attacker({KFDSIM_CLIENT, "hostile", std::to_string(sockets[1])});
  ASSERT_TRUE(
      send_victim(sockets[0], {::getpid(), target.handle(), *offset, GetParam()}, kfd(), render));
  EXPECT_EQ(attacker.wait(), 0) << attacker.errors();
  EXPECT_EQ(attacker.output(), "done\n") << "all before \"done\" it should not have reached";

  EXPECT_EQ(target.value(), 1000);
  EXPECT_EQ(*memory.as<std::uint64_t>(), secret);
  EXPECT_EQ(left.value(), packets);
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 0), HSAKMT_STATUS_WAIT_TIMEOUT) << "nobody set it";
  gate.set(0);
  EXPECT_TRUE(left.wait());
  EXPECT_EQ(queue.read_index(), packets);
  EXPECT_EQ(hsaKmtSetEvent(event), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 20'000), HSAKMT_STATUS_SUCCESS);
  hsaKmtDestroyEvent(event);
  for (const int fd : {render, sockets[0], sockets[1]}) ::close(fd);
}

using KfdsimOwnFiles = OpenKfd;

TEST_F(KfdsimOwnFiles, CannotMakeKfdsimWaitForItselfThroughAMap) {
  const int file = ::open("/dev/kfdsim/fs/ioctls", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  void* page = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, file, 0);
  ASSERT_NE(page, MAP_FAILED);
  kfd_ioctl_set_cu_mask_args mask{0, 32, reinterpret_cast<std::uint64_t>(page)};
  EXPECT_EQ(call(AMDKFD_IOC_SET_CU_MASK, mask), EFAULT);
  EXPECT_TRUE(ioctl_count(::getpid(), "total"));
  ::munmap(page, 4096);
  ::close(file);
}

INSTANTIATE_TEST_SUITE_P(Packets, KfdsimHostile, ::testing::Values(0, 1));

}  // namespace
}  // namespace eclip::test
