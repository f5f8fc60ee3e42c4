// GPU memory of this process, without a device.
#pragma once

#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/gpu_memory.h"

namespace eclip::kfdsim {

inline BackingMemory new_backing() {
  auto created = BackingMemory::create();
  if (!created) throw std::runtime_error(created.error().message());
  return std::move(*created);
}

class GpuMemoryTest : public ::testing::Test {
 protected:
  /// Maps zeroed memory there, in a buffer of its own.
  void map(GpuMemory& memory, std::uint64_t address, std::uint64_t bytes) {
    std::uint32_t id = 0;
    ASSERT_EQ(memory.allocate(address, bytes, KFD_IOC_ALLOC_MEM_FLAGS_VRAM, 0, id), 0);
    ASSERT_EQ(memory.map(id), 0);
  }

  MemoryBudget budget{std::numeric_limits<std::uint64_t>::max(),
                      std::numeric_limits<std::uint64_t>::max()};
  BackingMemory backing = new_backing();
};

}  // namespace eclip::kfdsim
