// The soak's workers, kept at a number while some are killed.
#pragma once

#include <chrono>
#include <cstdint>

namespace eclip::soak {

struct Plan {
  std::chrono::seconds duration{600};
  std::uint64_t seed = 1;
  unsigned workers = 4;
};

/// Runs inside kfdsim, as its command. Prints what happened; 0, or 1 when a result was wrong, a
/// worker failed by itself, a process stayed uninterruptible, or kfdsim grew.
int run_crowd(const Plan& plan);

}  // namespace eclip::soak
