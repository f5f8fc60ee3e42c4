// Relation of the simulated GPU's time to the wall clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

#include "daemon/model/device.h"

namespace eclip::kfdsim {

/// Device time = (wall time - start) / scale, and the GPU's clock counter at its frequency.
class DeviceClock {
 public:
  using Wall = std::chrono::steady_clock;

  DeviceClock(double scale, std::uint32_t counter_khz)
      : start_(Wall::now()), scale_(scale), counter_khz_(counter_khz) {}

  [[nodiscard]] model::DeviceTime now() const {
    const std::chrono::duration<double, std::nano> wall = Wall::now() - start_;
    return model::DeviceTime(static_cast<std::int64_t>(wall.count() / scale_));
  }
  /// The wall time at which the device time is `at` (rounded up); at most a century from the start.
  [[nodiscard]] Wall::time_point wall(model::DeviceTime at) const {
    // A client's packet may take longer than the clock's range.
    constexpr double century_ns = 3e18;
    const double wall_ns =
        std::min(std::ceil(static_cast<double>(at.count()) * scale_), century_ns);
    return start_ + std::chrono::nanoseconds(static_cast<std::int64_t>(wall_ns));
  }
  [[nodiscard]] std::uint64_t ticks(model::DeviceTime at) const {
    const auto ns = static_cast<__uint128_t>(at.count());
    return static_cast<std::uint64_t>(ns * counter_khz_ / 1'000'000);
  }
  [[nodiscard]] double scale() const { return scale_; }

 private:
  Wall::time_point start_;
  double scale_;
  std::uint32_t counter_khz_;
};

}  // namespace eclip::kfdsim
