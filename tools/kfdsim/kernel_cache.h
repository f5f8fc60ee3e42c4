// Which kernel a dispatch packet names.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"
#include "tools/kfdsim/aql_packet.h"
#include "tools/kfdsim/gpu_memory.h"
#include "tools/kfdsim/kernel_times.h"
#include "tools/kfdsim/shadow_kernels.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::kfdsim {

/// What the simulator was told of kernels; the same for all clients.
struct KnownKernels {
  ShadowKernels shadows;
  KernelTimes times;
};

/// What a dispatch runs.
struct DispatchedKernel {
  std::shared_ptr<const model::Kernel> kernel;
  std::shared_ptr<const std::string> name;
  const ShadowKernel* shadow = nullptr;  ///< what computes its results, if anything does
  bool replay = false;                   ///< a replay kernel: its only effect is its time
  bool mixes = false;                    ///< its kernarg segment is a replay::MixKernarg
  bool waits = false;                    ///< its kernarg segment is a StreamWait
  bool estimated = false;                ///< its time is an estimate, not a measured one
};

/// Finds out what the kernel objects of one process are, and keeps it as long as the bytes in GPU
/// memory stay the same, so that a freed and reused address is noticed.
class KernelCache {
 public:
  KernelCache(const model::GpuDescription& gpu, const KnownKernels& known)
      : gpu_(gpu), known_(known) {}

  std::variant<DispatchedKernel, QueueFault> find(GpuMemory& memory, const DispatchPacket& packet);
  /// How often find() had to search a code object, which takes milliseconds in a large one.
  [[nodiscard]] std::uint64_t identified() const { return identified_; }

 private:
  struct Replay {
    replay::ReplayRecord record;
    DispatchedKernel dispatched;
  };
  struct Code {
    std::array<std::byte, 64> descriptor;  ///< or the first bytes of an amd_kernel_code_t
    std::array<std::byte, 64> first_instructions;
    std::shared_ptr<const std::string> name;
    std::uint64_t name_address = 0;  ///< 0: the code object has no symbol for it
    const ShadowKernel* shadow = nullptr;
  };

  std::variant<DispatchedKernel, QueueFault> find_replay(std::uint64_t object,
                                                         const replay::ReplayRecord& record);
  std::variant<DispatchedKernel, QueueFault> find_code(GpuMemory& memory,
                                                       const DispatchPacket& packet);
  [[nodiscard]] Code identify(const GpuMemory& memory, std::uint64_t object, Code bytes) const;
  std::variant<std::shared_ptr<const model::Kernel>, QueueFault> estimate(
      const DispatchPacket& packet, double fixed_us, double round_us);
  [[nodiscard]] double transfer_us(const GpuMemory& memory, const Transfer& transfer) const;

  const model::GpuDescription& gpu_;
  const KnownKernels& known_;
  std::map<std::uint64_t, Replay> replays_;  // by kernel object
  std::map<std::uint64_t, Code> codes_;      // by kernel object
  std::uint64_t identified_ = 0;
};

}  // namespace eclip::kfdsim
