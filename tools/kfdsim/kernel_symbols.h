// Names of kernels, from the code objects that a client has loaded into GPU memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tools/kfdsim/gpu_memory.h"

namespace eclip::kfdsim {

struct KernelSymbol {
  std::string name;                ///< without ".kd"
  std::uint64_t name_address = 0;  ///< where the name stands in GPU memory
};

/// The symbol whose value is `kernel_object`, found in the ELF image around it: the runtime loads
/// code objects whole, headers and dynamic symbols included. nullopt when there is no image or no
/// such symbol, and for anything that does not look like one: the bytes are the client's.
std::optional<KernelSymbol> find_kernel_symbol(const GpuMemory& memory,
                                               std::uint64_t kernel_object);

}  // namespace eclip::kfdsim
