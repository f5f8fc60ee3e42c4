// Packets and addresses that make no sense, and queues that go while they work: what the process is
// told, and that all others are undisturbed.
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {
namespace {

/// A test's name may not have a hyphen.
std::string without_hyphens(std::string name) {
  std::erase(name, '-');
  return name;
}

class KfdsimFault : public InsideKfdsim {};

class KfdsimMemoryFault : public InsideKfdsim, public ::testing::WithParamInterface<const char*> {};

TEST_P(KfdsimMemoryFault, StopsAllQueuesOfItsProcessAndNoOther) {
  const auto kernel = kernel_of(300'000, 300'000);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal done;
  GpuQueue queue;
  queue.dispatch(loaded.object(0), &done);
  ChildProcess faulting({KFDSIM_CLIENT, "memory-fault", GetParam()});
  const std::string page = faulting.read_line();
  EXPECT_TRUE(page.starts_with("0x")) << page;
  EXPECT_EQ(faulting.read_line(), page);
  EXPECT_EQ(faulting.read_line(), "not present");
  EXPECT_EQ(faulting.read_line(), "all queues stopped");
  EXPECT_EQ(faulting.wait(), 0) << faulting.errors();
  EXPECT_TRUE(done.wait()) << "the kernel that ran meanwhile";
  const GpuSignal later;
  queue.barrier(false, {}, &later);
  EXPECT_TRUE(later.wait());
}

INSTANTIATE_TEST_SUITE_P(Access, KfdsimMemoryFault,
                         ::testing::Values("kernel-object", "kernarg", "completion-signal",
                                           "dependency", "freed-dependency", "ring"),
                         [](const auto& instance) { return without_hyphens(instance.param); });

TEST_F(KfdsimFault, ABadPacketStopsItsQueueOnly) {
  HsaEventDescriptor description{};
  description.EventType = HSA_EVENTTYPE_HW_EXCEPTION;
  description.NodeId = gpu_node();
  HsaEvent* event = nullptr;
  ASSERT_EQ(hsaKmtCreateEvent(&description, true, false, &event), HSAKMT_STATUS_SUCCESS);
  const auto kernel = kernel_of(2000, 2000);
  const LoadedKernels loaded({&kernel, 1});
  GpuQueue broken;
  const GpuSignal before;
  broken.dispatch(loaded.object(0), &before);
  const std::array<std::byte, 64> packet{};
  broken.submit(packet.data(), HSA_PACKET_TYPE_AGENT_DISPATCH);
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 20'000), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(before.value(), 0) << "packets before it complete first";
  hsaKmtDestroyEvent(event);
  const GpuSignal never;
  broken.barrier(false, {}, &never);
  const GpuSignal done;
  GpuQueue other;
  other.barrier(false, {}, &done);
  EXPECT_TRUE(done.wait());
  EXPECT_EQ(never.value(), 1);
}

TEST_F(KfdsimFault, DestroyingABusyQueueEndsItsPacketsAndNoOthers) {
  constexpr int rounds = 20;
  const auto kernel = kernel_of(3000, 3000);
  const auto endless = kernel_of(4e6, 4e6);
  const LoadedKernels loaded(std::array{kernel, endless});
  GpuQueue steady;
  ASSERT_EQ(steady.use_cus(15), HSAKMT_STATUS_SUCCESS);
  const GpuSignal steady_done(rounds);
  std::vector<std::unique_ptr<GpuSignal>> lost;
  for (int i = 0; i < rounds; ++i) {
    steady.dispatch(loaded.object(0), &steady_done);
    auto busy = std::make_unique<GpuQueue>();
    // A kernel that runs, and behind it a kernel and a barrier packet that wait.
    for (int k = 0; k < 2; ++k) {
      lost.push_back(std::make_unique<GpuSignal>());
      busy->dispatch(loaded.object(1), lost.back().get());
    }
    lost.push_back(std::make_unique<GpuSignal>());
    busy->barrier(false, {}, lost.back().get());
    ASSERT_TRUE(eventually([&] { return busy->read_index() != 0; }));
    busy.reset();  // must return although its first kernel has seconds to go
  }
  EXPECT_TRUE(steady_done.wait());
  for (const auto& signal : lost) EXPECT_EQ(signal->value(), 1);
}

/// Programs that use the unmodified HSA runtime.
class KfdsimHsa : public InsideKfdsim {};

struct BadPacket {
  const char* kind;
  int status;  ///< hsa_status_t
};
class KfdsimHsaQueueError : public InsideKfdsim, public ::testing::WithParamInterface<BadPacket> {};

TEST_P(KfdsimHsaQueueError, ReachesTheCallbackAndTheApplicationGoesOn) {
  ChildProcess client({HSA_CLIENT, "queue-error", GetParam().kind});
  EXPECT_EQ(client.read_line(), std::to_string(GetParam().status));
  EXPECT_EQ(client.read_line(), "others work");
  EXPECT_EQ(client.read_line(), "new ones work");
  EXPECT_EQ(client.wait(), 0) << client.errors();
}

INSTANTIATE_TEST_SUITE_P(
    Packets, KfdsimHsaQueueError,
    ::testing::Values(BadPacket{"type", HSA_STATUS_ERROR_INVALID_PACKET_FORMAT},
                      BadPacket{"vendor", HSA_STATUS_ERROR_INVALID_PACKET_FORMAT},
                      BadPacket{"dimensions", HSA_STATUS_ERROR_INCOMPATIBLE_ARGUMENTS},
                      BadPacket{"code", HSA_STATUS_ERROR_INVALID_CODE_OBJECT},
                      BadPacket{"workgroup", HSA_STATUS_ERROR_INVALID_ARGUMENT},
                      BadPacket{"group-memory", HSA_STATUS_ERROR_INVALID_ALLOCATION}),
    [](const auto& instance) { return without_hyphens(instance.param.kind); });

TEST_F(KfdsimHsa, AMemoryFaultReachesTheHandler) {
  ChildProcess client({HSA_CLIENT, "memory-fault"});
  EXPECT_EQ(client.read_line(), "0x123000 1 GPU");
  EXPECT_EQ(client.wait(), 0) << client.errors();
}

TEST_F(KfdsimHsa, AMemoryFaultWithoutAHandlerAborts) {
  ChildProcess client({HSA_CLIENT, "memory-fault-unhandled"});
  EXPECT_EQ(client.wait(), 128 + SIGABRT);
  EXPECT_NE(client.errors().find("Memory access fault by GPU"), std::string::npos)
      << client.errors();
}

}  // namespace
}  // namespace eclip::test
