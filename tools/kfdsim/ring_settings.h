// Where a queue's ring is.
#pragma once

#include <cstdint>

namespace eclip::kfdsim {

/// What the client gave in CREATE_QUEUE and may change by UPDATE_QUEUE. Addresses are GPU
/// addresses.
struct RingSettings {
  std::uint64_t base = 0;
  std::uint64_t bytes = 0;
  std::uint64_t read_pointer = 0;
  std::uint64_t write_pointer = 0;
  bool active = false;
};

}  // namespace eclip::kfdsim
