// The GPU's clock counter in nanoseconds.
#pragma once

#include <cstdint>

namespace eclip {

/// Ticks of a clock of `hz` in nanoseconds, without overflow for any hz below 2^34; 0 for 0 Hz.
constexpr std::uint64_t ticks_to_ns(std::uint64_t ticks, std::uint64_t hz) {
  constexpr std::uint64_t second = 1'000'000'000;
  return hz == 0 ? 0 : ticks / hz * second + ticks % hz * second / hz;
}

}  // namespace eclip
