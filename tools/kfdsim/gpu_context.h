// What one client process owns on the GPU.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/events.h"
#include "tools/kfdsim/gpu_memory.h"
#include "tools/kfdsim/gpu_queue.h"
#include "tools/kfdsim/kernel_cache.h"
#include "tools/kfdsim/process_files.h"

namespace eclip::kfdsim {

/// Exists from the process's first open of /dev/kfd to the end of the address space: the process's
/// death, or an exec.
struct GpuContext {
  GpuContext(pid_t process, std::string command_name, BackingMemory& pages, MemoryBudget& budget,
             MemoryBudget limits, const model::GpuDescription& gpu, const KnownKernels& known)
      : pid(process),
        user_memory(process),
        command(std::move(command_name)),
        backing(pages),
        memory(process, pages, budget, limits),
        events(process),
        kernels(gpu, known) {}

  const pid_t pid;
  const UserAddressSpace user_memory;
  const std::string command;
  BackingMemory& backing;
  GpuMemory memory;
  EventTable events;
  KernelCache kernels;
  /// The descriptor of the render node that ACQUIRE_VM named; none before.
  std::optional<int> vm_fd;
  [[nodiscard]] bool vm_acquired() const { return vm_fd.has_value(); }
  std::optional<std::uint32_t> event_page;  ///< the buffer that holds it
  std::optional<std::uint32_t> gws_queue;   ///< that has the process's global wave sync
  /// A memory fault or a reset has stopped the process's queues; later ones never run either.
  bool evicted = false;
  std::map<std::uint32_t, std::unique_ptr<GpuQueue>> queues;
  std::array<bool, GpuQueue::doorbell_count> doorbell_used{};
  /// Given by Gpu::attach; distinguishes equal addresses of different processes.
  std::uint32_t address_space = 0;
  /// Given by Gpu::attach: how many processes have opened /dev/kfd before, this one included.
  std::uint64_t number = 0;
  std::uint64_t packets = 0;  ///< completed
  /// Its place in /sys, from Gpu::attach to Gpu::detach.
  std::optional<ProcessFiles> files;
  /// For which its SDMA queues have moved bytes, those included that are destroyed.
  model::DeviceTime copying{};
};

}  // namespace eclip::kfdsim
