#include "tests/integration/kfdsim/fault_client.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"

namespace eclip::test {
namespace {

constexpr std::uint64_t nowhere = 0x40000;

/// What a faulting packet needs besides its queue.
struct Props {
  std::array<replay::ReplayKernel, 2> kernels{kernel_of(20, 20, true), kernel_of(4e6, 4e6)};
  LoadedKernels loaded{kernels};
  GpuSignal running;
  std::unique_ptr<GpuSignal> gate = std::make_unique<GpuSignal>();
};

/// Makes the queue's next packet fault; the address that it cannot reach.
std::optional<std::uint64_t> fault(const std::string& kind, Props& props, GpuQueue& queue) {
  if (kind == "kernel-object") {
    queue.dispatch(nowhere, nullptr);
    return nowhere;
  }
  if (kind == "kernarg") {
    queue.dispatch(props.loaded.object(0), nullptr, nowhere);
    return nowhere;
  }
  if (kind == "completion-signal") {
    hsa_barrier_and_packet_t packet{};
    packet.completion_signal.handle = nowhere + 64;
    queue.submit(&packet, HSA_PACKET_TYPE_BARRIER_AND << HSA_PACKET_HEADER_TYPE);
    return nowhere;
  }
  if (kind == "dependency") {
    queue.barrier(true, std::array{nowhere}, nullptr);
    return nowhere;
  }
  if (kind == "freed-dependency") {
    const std::uint64_t address = props.gate->handle();
    queue.barrier(false, std::array{address}, nullptr);
    // A later packet of another queue proves that the barrier packet was taken.
    const GpuSignal later;
    GpuQueue other;
    other.barrier(false, {}, &later);
    if (!later.wait()) return std::nullopt;
    props.gate.reset();
    return address;
  }
  if (kind == "ring") {
    const std::uint64_t address = queue.unmap_ring();
    queue.announce_next();
    return address;
  }
  return std::nullopt;
}

std::string page_of(std::uint64_t address) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%#lx", static_cast<unsigned long>(address & ~0xfffUL));
  return text.data();
}

}  // namespace

int memory_fault(const std::string& kind) {
  HsaEventDescriptor description{};
  description.EventType = HSA_EVENTTYPE_MEMORY;
  description.NodeId = gpu_node();
  HsaEvent* event = nullptr;
  if (hsaKmtCreateEvent(&description, true, false, &event) != HSAKMT_STATUS_SUCCESS) {
    return EXIT_FAILURE;
  }
  Props props;
  GpuQueue broken;
  GpuQueue bystander;
  // On its own CUs, for seconds.
  if (bystander.use_cus(15) != HSAKMT_STATUS_SUCCESS) return EXIT_FAILURE;
  bystander.dispatch(props.loaded.object(1), &props.running);
  if (!eventually([&] { return bystander.read_index() == 1; })) return EXIT_FAILURE;
  const auto address = fault(kind, props, broken);
  if (!address) return 2;
  if (hsaKmtWaitOnEvent(event, 20'000) != HSAKMT_STATUS_SUCCESS) return EXIT_FAILURE;
  const HsaMemoryAccessFault& told = event->EventData.EventData.MemoryAccessFault;
  std::puts(page_of(*address).c_str());
  std::puts(page_of(told.VirtualAddress).c_str());
  std::puts(told.Failure.NotPresent == 1 && told.NodeId == gpu_node() ? "not present" : "?");
  const GpuSignal never(2);
  bystander.barrier(false, {}, &never);
  GpuQueue later;
  later.barrier(false, {}, &never);
  // When another process's packets are through, the GPU has looked at these queues too.
  ChildProcess other({"/proc/self/exe", "work", "20"});
  if (other.wait() != EXIT_SUCCESS) return EXIT_FAILURE;
  const bool stopped = never.value() == 2 && bystander.read_index() == 1 &&
                       later.read_index() == 0 && props.running.value() == 1;
  std::puts(stopped ? "all queues stopped" : "some queue runs");
  return EXIT_SUCCESS;
}

}  // namespace eclip::test
