// The ioctls of the render node: what libdrm_amdgpu asks when it opens a device.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "tools/kfdsim/gpu.h"

namespace eclip::kfdsim {

struct DrmCall {
  pid_t pid;  ///< whose memory the argument points into
  const Gpu& gpu;
  const MemoryBudget& budget;
};

/// Executes DRM command number `number` on its argument, zero past what the client gave. 0 or
/// -errno; EINVAL for commands that are not simulated.
int drm_ioctl(const DrmCall& call, std::uint8_t number, std::span<std::byte> argument);

}  // namespace eclip::kfdsim
