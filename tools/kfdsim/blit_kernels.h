// The copy and fill kernels that the ROCm runtime brings along, done natively.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tools/kfdsim/shadow_kernels.h"

namespace eclip::kfdsim {

struct BlitKernel {
  const char* name;
  ShadowKernel kernel;
};

/// HIP's (ROCclr's) by their symbol names, and ROCr's by the names that it gives its shaders.
std::span<const BlitKernel> blit_kernels();

/// FNV-1a, 64 bits.
std::uint64_t fingerprint(std::span<const std::byte> code);

/// ROCr's shaders are bare code without symbols: which of them has code with this fingerprint, from
/// its first instruction to the end of its page (padded with zeros).
std::optional<std::string_view> rocr_shader_name(std::uint64_t code_fingerprint);

}  // namespace eclip::kfdsim
