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

/// HIP's kernel that waits for a value in memory (hipStreamWaitValue32, 64): its name and
/// arguments.
inline constexpr std::string_view stream_wait_kernel = "__amd_rocclr_streamOpsWait";
struct StreamWait {
  enum Comparison : std::uint64_t { greater_or_equal = 0, equal = 1, bits_and = 2, bits_nor = 3 };
  std::uint64_t word32;  ///< address; 0: the 64-bit one counts
  std::uint64_t word64;
  std::uint64_t value;
  std::uint64_t comparison;
  std::uint64_t mask;

  /// Whether the wait is over when the word reads so. An unknown comparison never is.
  [[nodiscard]] bool holds(std::uint64_t word) const;
};

/// FNV-1a, 64 bits.
std::uint64_t fingerprint(std::span<const std::byte> code);

/// ROCr's shaders are bare code without symbols: which of them has code with this fingerprint, from
/// its first instruction to the end of its page (padded with zeros).
std::optional<std::string_view> rocr_shader_name(std::uint64_t code_fingerprint);

}  // namespace eclip::kfdsim
