// A soak worker: random HIP work, all of it checked.
#pragma once

#include <atomic>
#include <cstdint>

namespace eclip::soak {

/// What the workers share with their crowd, in a shared map.
struct Tally {
  std::atomic<std::uint64_t> operations;  ///< whose results were right
  std::atomic<std::uint64_t> wrong;       ///< whose were not
};

/// Works until `tally.stop` is set or it is killed. 0, or 1 after the first wrong result, which it
/// describes on standard error with the seed.
int work(std::uint64_t seed, Tally& tally, const std::atomic<bool>& stop);
/// One operation; 0, or 1 with what went wrong on standard error.
int work_once(std::uint64_t seed);

}  // namespace eclip::soak
