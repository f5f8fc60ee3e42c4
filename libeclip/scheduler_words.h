// What the scheduler's parts put into single atomic words.
#pragma once

#include <atomic>
#include <cstdint>

#include "libeclip/scheduler.h"

namespace eclip {

inline std::uint64_t pack(SignalUse use) {
  return std::uint64_t{use.signal} << 32U | use.generation;
}
inline SignalUse unpack(std::uint64_t packed) {
  return {static_cast<std::uint32_t>(packed >> 32U), static_cast<std::uint32_t>(packed)};
}

/// One writer: no read-modify-write.
inline void add(std::atomic<std::uint64_t>& counter, std::uint64_t count) {
  counter.store(counter.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
}

}  // namespace eclip
