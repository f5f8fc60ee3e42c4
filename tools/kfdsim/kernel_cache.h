// Which kernel a dispatch packet names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <variant>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"
#include "tools/kfdsim/aql_packet.h"
#include "tools/kfdsim/gpu_memory.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::kfdsim {

/// What a dispatch runs.
struct DispatchedKernel {
  std::shared_ptr<const model::Kernel> kernel;
  bool replay = false;  ///< its time is a measured one; otherwise it is an estimate
  bool mixes = false;   ///< its kernarg segment is a replay::MixKernarg
};

/// Decodes replay records of one process and keeps them as long as the bytes in GPU memory stay the
/// same, so that a freed and reused address is noticed.
class KernelCache {
 public:
  explicit KernelCache(const model::GpuDescription& gpu) : gpu_(gpu) {}

  std::variant<DispatchedKernel, QueueFault> find(const GpuMemory& memory,
                                                  const DispatchPacket& packet);

 private:
  struct Entry {
    replay::ReplayRecord record;
    std::shared_ptr<const model::Kernel> kernel;
  };
  std::variant<DispatchedKernel, QueueFault> estimate(const DispatchPacket& packet);

  const model::GpuDescription& gpu_;
  std::map<std::uint64_t, Entry> by_object_;
  std::map<std::uint64_t, std::shared_ptr<const model::Kernel>> estimates_;
};

}  // namespace eclip::kfdsim
